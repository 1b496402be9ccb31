package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

const (
	soakPrefix = "soak-"
	soakGroups = 20 // that commit
	roundTime  = 2 * time.Minute
)

// A soakTopic is one kind of records. Shares of the rate add up to 100.
type soakTopic struct {
	spec  workload.Spec
	share int // percent of the records
	steps bool
}

// soakTopics are written all the time. Those with steps are written in rounds
// of a second, because no steady producer writes them.
func soakTopics(seed uint64) []soakTopic {
	compacted := map[string]string{"segment.ms": "30000", "segment.bytes": "8388608"}
	all := []soakTopic{
		{share: 50, spec: workload.Spec{Kind: workload.Plain, Codec: workload.LZ4, Partitions: 12, ValueBytes: 200}},
		{share: 17, spec: workload.Spec{Kind: workload.Headers, Codec: workload.Zstd, Partitions: 8, ValueBytes: 200}},
		{share: 10, spec: workload.Spec{Kind: workload.Compacted, Codec: workload.None, Partitions: 8, ValueBytes: 200, Records: 40_000, Settings: compacted}},
		{share: 13, spec: workload.Spec{Kind: workload.Ten, Codec: workload.Snappy, Partitions: 6, ValueBytes: 100}, steps: true},
		{share: 10, spec: workload.Spec{Kind: workload.Transactions, Codec: workload.LZ4, Partitions: 6, ValueBytes: 200}, steps: true},
	}
	for i := range all {
		all[i].spec.Topic = soakPrefix + string(all[i].spec.Kind)
		all[i].spec.Seed = seed
	}
	return all
}

func soakTopicNames() (names []string) {
	for _, t := range soakTopics(0) {
		names = append(names, t.spec.Topic)
	}
	return names
}

func soakLanes() (n int) {
	for _, t := range soakTopics(0) {
		n += int(t.spec.Partitions)
	}
	return n
}

// soakWritten is what became of a topic's records.
type soakWritten struct {
	Topic        string `json:"topic"`
	Acknowledged int64  `json:"acknowledged"`
	Failed       int64  `json:"failed"`    // given up while the source was away: the source may hold them or not
	DataLoss     int64  `json:"data_loss"` // times the source lost what it had acknowledged
	Rounds       int64  `json:"rounds,omitempty"`
	FailedRounds int64  `json:"failed_rounds,omitempty"`
}

// soakLoad writes and commits until it is stopped.
type soakLoad struct {
	cluster *kafkatest.Cluster
	lives   []*workload.Live
	work    sync.WaitGroup
	quit    chan struct{}
	cancel  context.CancelFunc

	mu      sync.Mutex
	stepped map[string]*soakWritten
	commits struct{ done, failed int64 }
}

func startSoakLoad(ctx context.Context, c *kafkatest.Cluster, rate int, seed uint64) (_ *soakLoad, err error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &soakLoad{cluster: c, quit: make(chan struct{}), cancel: cancel, stepped: map[string]*soakWritten{}}
	defer func() {
		if err != nil {
			l.kill()
		}
	}()
	for _, t := range soakTopics(seed) {
		perSecond := rate * t.share / 100
		if t.steps {
			l.stepped[t.spec.Topic] = &soakWritten{Topic: t.spec.Topic}
			l.work.Go(func() { l.steps(ctx, t.spec, perSecond) })
			continue
		}
		live, err := workload.StartLive(ctx, c.ClientOpts(), workload.LiveConfig{Spec: t.spec, Rate: perSecond})
		if err != nil {
			return nil, err
		}
		l.lives = append(l.lives, live)
	}
	l.work.Go(func() { l.commit(ctx) })
	return l, nil
}

// steps writes a second's records each second. A round that fails, because the
// source is away, is left as it is: the next goes on behind its sequence numbers.
func (l *soakLoad) steps(ctx context.Context, spec workload.Spec, perSecond int) {
	spec.Records = perSecond
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		writing, cancel := context.WithTimeout(ctx, roundTime)
		r, err := workload.Write(writing, l.cluster.ClientOpts(), spec)
		cancel()
		l.mu.Lock()
		w := l.stepped[spec.Topic]
		w.Acknowledged += r.Written
		w.Rounds++
		if err != nil {
			w.FailedRounds++
			w.Failed += int64(perSecond) - r.Written
		}
		l.mu.Unlock()
		spec.First += int64(perSecond)/int64(spec.Partitions) + 1
		select {
		case <-tick.C:
		case <-l.quit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wholeTopics are those whose records all stay. Only to them do groups commit:
// offsets of a compacted topic have no counterpart once both sides have cleaned at
// times of their own.
func wholeTopics() (names []string) {
	for _, t := range soakTopics(0) {
		if t.spec.Kind != workload.Compacted {
			names = append(names, t.spec.Topic)
		}
	}
	return names
}

func soakGroup(g int) string { return fmt.Sprintf("soak-group-%02d", g) }

// commit lets every group commit every second, each its own way behind the end.
func (l *soakLoad) commit(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := l.commitAll(ctx, func(g int, start, end int64) int64 { return max(start, end-int64(g*g*25)) })
		l.mu.Lock()
		if l.commits.done++; err != nil {
			l.commits.failed++
		}
		l.mu.Unlock()
		select {
		case <-tick.C:
		case <-l.quit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// commitAll lets every group commit once, where at says.
func (l *soakLoad) commitAll(ctx context.Context, at func(g int, start, end int64) int64) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	admin := l.cluster.Admin()
	starts, err := admin.ListStartOffsets(ctx, wholeTopics()...)
	if err != nil {
		return fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, wholeTopics()...)
	if err = errors.Join(err, starts.Error(), ends.Error()); err != nil {
		return fmt.Errorf("list offsets: %w", err)
	}
	var work errgroup.Group
	work.SetLimit(4)
	for g := range soakGroups {
		work.Go(func() error {
			o := kadm.Offsets{}
			ends.Each(func(end kadm.ListedOffset) {
				start, _ := starts.Lookup(end.Topic, end.Partition)
				o.AddOffset(end.Topic, end.Partition, at(g, start.Offset, end.Offset), -1)
			})
			return admin.CommitAllOffsets(ctx, soakGroup(g), o)
		})
	}
	return work.Wait()
}

// stop ends the load and waits until all of it is acknowledged.
func (l *soakLoad) stop(ctx context.Context) (out []soakWritten, err error) {
	close(l.quit)
	for _, live := range l.lives {
		r, stopErr := live.Stop(ctx)
		err = errors.Join(err, stopErr)
		out = append(out, soakWritten{Topic: r.Topic, Acknowledged: r.Acknowledged, Failed: r.Failed, DataLoss: r.DataLoss})
	}
	l.lives = nil
	l.work.Wait()
	for _, name := range soakTopicNames() {
		if w := l.stepped[name]; w != nil {
			out = append(out, *w)
		}
	}
	return out, err
}

// kill ends it without waiting for answers. After stop, or of no load, it does
// nothing.
func (l *soakLoad) kill() {
	if l == nil {
		return
	}
	l.cancel()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, live := range l.lives {
		_, _ = live.Stop(ended) // what is written does not matter any more
	}
	l.lives = nil
	l.work.Wait()
}
