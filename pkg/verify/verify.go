package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"replicator/pkg/cluster"
	"replicator/pkg/wire"
)

// Options say how to compare. The zero value reads as fast as it can.
type Options struct {
	BytesPerSecond  int64          // read from both sides together; 0: no limit
	Parallel        int            // lanes at a time, 4 by default; each takes up to 24 MiB
	Progress        func(Progress) // told every fifth of a second, one call at a time
	MaxDifferences  int            // kept in detail for each lane, 20 by default
	ReadCommitted   bool           // as the link's isolation
	MaxDecodedBytes int            // the most one batch may grow to, 128 MiB by default

	answerBytes int32 // of a fetch, 0: by the distance
}

const (
	defaultParallel    = 4
	defaultDifferences = 20
	progressInterval   = 200 * time.Millisecond
)

// Progress says how far a comparison is.
type Progress struct {
	Lanes, LanesDone int
	Offsets, Done    int64 // source offsets of all ranges, and how many of them were compared
	Bytes            int64 // read from both sides
	Differences      int64 // found so far
}

// comparison is one call of Run.
type comparison struct {
	source, target               *cluster.Cluster
	o                            Options
	limit                        *rate.Limiter // nil: none
	sourceLeaders, targetLeaders *leaders
	compacted                    [2]map[string]bool // topics of source and target; what is not in it is not known

	mu   sync.Mutex
	now  Progress
	told time.Time
}

// Run compares ranges of source and target. The error is that of ctx: what differs, and what could
// not be compared, is in the report, which is as far as it came. It needs READ and DESCRIBE_CONFIGS
// on the topics of both sides; without the latter it takes them for compacted.
func Run(ctx context.Context, source, target *cluster.Cluster, ranges []Range, o Options) (Report, error) {
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	if o.MaxDifferences <= 0 {
		o.MaxDifferences = defaultDifferences
	}
	c := &comparison{
		source: source, target: target, o: o,
		sourceLeaders: &leaders{cluster: source, topics: map[string]topicLeaders{}},
		targetLeaders: &leaders{cluster: target, topics: map[string]topicLeaders{}},
	}
	if o.BytesPerSecond > 0 {
		c.limit = rate.NewLimiter(rate.Limit(o.BytesPerSecond), int(min(o.BytesPerSecond, farAnswer)))
	}
	report := Report{Begun: time.Now(), Lanes: make([]LaneReport, len(ranges))}
	var topics [2][]string
	for i := range ranges {
		r := &ranges[i]
		topics[0], topics[1] = append(topics[0], r.Lane.Topic), append(topics[1], r.TargetTopic)
		c.now.Offsets += max(0, r.To-r.From)
	}
	c.now.Lanes = len(ranges)
	c.compacted[0], c.compacted[1] = compacted(ctx, source, topics[0]), compacted(ctx, target, topics[1])

	next := make(chan int)
	var workers errgroup.Group
	for range min(o.Parallel, len(ranges)) {
		workers.Go(func() error {
			s := newReader(source, "source", c.limit, c.sourceLeaders)
			defer s.close()
			t := newReader(target, "target", c.limit, c.targetLeaders)
			defer t.close()
			s.stable, t.stable = o.ReadCommitted, o.ReadCommitted
			s.answer, t.answer = o.answerBytes, o.answerBytes
			for i := range next {
				report.Lanes[i] = c.lane(ctx, &ranges[i], s, t)
			}
			return nil
		})
	}
	for i := range ranges {
		next <- i
	}
	close(next)
	_ = workers.Wait() // what went wrong is in the lanes
	sum := lockstep{}
	for i := range report.Lanes {
		report.Total = report.Total.Plus(report.Lanes[i].Counts)
		sum.addText(report.Lanes[i].Checksum)
	}
	report.Checksum = sum.text()
	report.Took = time.Since(report.Begun)
	c.tell(true)
	return report, context.Cause(ctx)
}

// lane compares one lane.
func (c *comparison) lane(ctx context.Context, r *Range, source, target *reader) LaneReport {
	out := LaneReport{Topic: r.Lane.Topic, Partition: r.Lane.Partition, TargetTopic: r.TargetTopic, From: r.From, To: r.To, First: []Difference{}}
	l := lockstep{out: &out, keep: c.o.MaxDifferences, to: r.To, own: r.Own, unproven: map[uint64][]Difference{}}
	err := r.Err
	if err == nil {
		err = l.prepare(r, c)
	}
	if err == nil {
		err = c.walk(ctx, &l, r, source, target)
	}
	if err != nil {
		out.Error = err.Error()
		if ctx.Err() != nil {
			out.Error = "not compared to the end: " + context.Cause(ctx).Error()
		}
	}
	out.Checksum = l.text()
	c.mu.Lock()
	c.now.LanesDone++
	c.mu.Unlock()
	c.tell(false)
	return out
}

// prepare fixes what is read of both sides.
func (l *lockstep) prepare(r *Range, c *comparison) error {
	end, ok := endOf(r.State)
	switch {
	case !ok:
		return errors.New("the lane was never opened: nothing is known of what was copied")
	case r.State.Err() != nil:
		return r.State.Err()
	case r.From < 0 || r.From > r.To || r.To > end.Source:
		return fmt.Errorf("source offsets %d to %d are not a range below the lane's position, %d", r.From, r.To, end.Source)
	}
	l.places = places{state: r.State, end: end}
	l.out.TargetFrom = l.places.lower(r.From)
	l.out.TargetTo = l.places.lower(r.To)
	if r.To == end.Source {
		l.out.TargetTo = max(l.out.TargetTo, end.Target, r.TargetEnd)
	}
	for i, topic := range []string{r.Lane.Topic, r.TargetTopic} {
		compacts, known := c.compacted[i][topic]
		if !known {
			l.out.Warnings = append(l.out.Warnings, fmt.Sprintf("whether topic %s of cluster %s is compacted is not known; it counts as if it were: grant DESCRIBE_CONFIGS on it",
				topic, []*cluster.Cluster{c.source, c.target}[i].Alias()))
		}
		if i == 0 {
			l.compacted.source = compacts || !known
		} else {
			l.compacted.target = compacts || !known
		}
	}
	return nil
}

// walk reads both sides and compares them.
func (c *comparison) walk(ctx context.Context, l *lockstep, r *Range, source, target *reader) error {
	g, gctx := errgroup.WithContext(ctx)
	stream := func(from *reader, p partition) *side {
		ch := make(chan answer)
		g.Go(func() error {
			if err := from.read(gctx, p, ch); err != nil {
				return err // ch stays open: a cut stream must not look like an ended one
			}
			close(ch)
			return nil
		})
		return &side{in: ch, opener: wire.NewOpener(c.o.MaxDecodedBytes), next: p.from, to: p.to}
	}
	l.source = stream(source, partition{r.Lane.Topic, r.Lane.Partition, r.From, r.To})
	l.target = stream(target, partition{r.TargetTopic, r.Lane.Partition, l.out.TargetFrom, l.out.TargetTo})
	l.target.keepAborted = true
	at, differences := r.From, int64(0)
	step := func() {
		read := l.source.bytes + l.target.bytes
		c.mu.Lock()
		c.now.Done += l.source.next - at
		c.now.Bytes += read - l.out.Bytes
		c.now.Differences += l.out.Differences() - differences
		c.mu.Unlock()
		at, differences, l.out.Bytes = l.source.next, l.out.Differences(), read
		c.tell(false)
	}
	g.Go(func() error {
		defer l.source.release()
		defer l.target.release()
		return l.run(gctx, step)
	})
	err := g.Wait()
	step()
	return err
}

// tell passes on how far it is, at once or if it is time.
func (c *comparison) tell(now bool) {
	if c.o.Progress == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !now && time.Since(c.told) < progressInterval {
		return
	}
	c.told = time.Now()
	c.o.Progress(c.now)
}

// compacted asks which of the topics have cleanup.policy compact. Topics of which that is not known
// are not in the answer.
func compacted(ctx context.Context, c *cluster.Cluster, topics []string) map[string]bool {
	known := map[string]bool{}
	all := unique(topics)
	if len(all) == 0 {
		return known
	}
	configs, err := c.Admin().DescribeTopicConfigs(ctx, all...)
	if err != nil {
		return known
	}
	for _, t := range configs {
		if t.Err != nil {
			continue
		}
		for _, kv := range t.Configs {
			if kv.Key == "cleanup.policy" {
				known[t.Name] = strings.Contains(kv.MaybeValue(), "compact")
			}
		}
	}
	return known
}

func unique(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, n := range names {
		if n != "" && !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
