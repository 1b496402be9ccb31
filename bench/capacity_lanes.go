package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/pause"
)

const (
	partitionsTime = 10 * time.Minute // for a broker to make the partitions it was asked for
	lanesTime      = 10 * time.Minute // for all lanes to open
	settleTime     = 10 * time.Second // before rest is measured
)

// lanesResult is what a number of lanes costs a daemon that has nothing to copy.
type lanesResult struct {
	Lanes  int `json:"lanes"`
	Topics int `json:"topics"`
	// Both from exec to all lanes open. The first start makes the topics, which
	// the target's broker spends most of that time on.
	First  laneStart `json:"first_start"`
	Second laneStart `json:"second_start"`

	IdleCPU      float64       `json:"idle_cpu"`       // share of a core
	IdleRSS      int64         `json:"idle_rss_bytes"` // after that
	StopTime     time.Duration `json:"stop_ns"`
	Scrape       time.Duration `json:"scrape_ns"`        // of all metrics with those of partitions
	ScrapeCPU    time.Duration `json:"scrape_cpu_ns"`    // of the daemon
	ScrapeMemory int64         `json:"scrape_rss_bytes"` // by which the daemon has grown after it
	ScrapeBytes  int64         `json:"scrape_bytes"`
	FetchFirst   exchange      `json:"fetch_first"`   // the largest fetch after a start
	FetchSteady  exchange      `json:"fetch_steady"`  // median of those at rest
	JournalBytes int64         `json:"journal_bytes"` // after both starts
	GroupBytes   int           `json:"group_bytes"`   // of the record in which the source's coordinator keeps the group
	Source       brokerUse     `json:"source_broker"`
	Target       brokerUse     `json:"target_broker"`
}

type laneStart struct {
	Made   time.Duration `json:"topics_made_ns,omitempty"` // until the target's broker leads all partitions
	Open   time.Duration `json:"open_ns"`                  // until all lanes are open
	CPU    time.Duration `json:"cpu_ns"`                   // of the daemon until then
	Peak   int64         `json:"peak_rss_bytes"`           // until then
	ByTime []opened      `json:"by_time,omitempty"`
}

// opened is how many lanes were open at a time.
type opened struct {
	At    time.Duration `json:"at_ns"`
	Lanes int           `json:"lanes"`
}

// brokerUse is what a broker of so many partitions needs.
type brokerUse struct {
	Files int   `json:"open_files"`
	Maps  int   `json:"memory_maps"`
	RSS   int64 `json:"rss_bytes"`
}

// idleLanes measures each number of lanes on brokers of its own.
func (c *capacity) idleLanes(ctx context.Context) error {
	for _, n := range c.lanes {
		c.say("%d idle lanes", n)
		r, err := c.lanesOf(ctx, n)
		if err == nil {
			c.results.Lanes = append(c.results.Lanes, r)
			c.say("  %s", r)
		}
		if err := c.fails(ctx, fmt.Sprintf("%d idle lanes", n), err); err != nil {
			return err
		}
	}
	return nil
}

func (r lanesResult) String() string {
	return fmt.Sprintf("%d lanes open after %.1f s the first time, %.1f s the second; at rest %.2f %% of a core, %d MiB; largest fetch %d bytes, at rest %d",
		r.Lanes, r.First.Open.Seconds(), r.Second.Open.Seconds(), 100*r.IdleCPU, r.IdleRSS>>20, r.FetchFirst.Request, r.FetchSteady.Request)
}

func (c *capacity) lanesOf(ctx context.Context, n int) (r lanesResult, err error) {
	pair, err := manyPartitions(ctx)
	if err != nil {
		return r, err
	}
	defer pair.Close()
	r.Lanes = n
	if r.Topics, err = makeTopics(ctx, pair.Source, n); err != nil {
		return r, err
	}
	if err := coordinate(ctx, pair.Target); err != nil {
		return r, err
	}
	d, err := c.newLanesDaemon(pair)
	if err != nil {
		return r, err
	}
	defer d.kill()
	if r.First, err = d.open(ctx, n, true); err != nil {
		return r, fmt.Errorf("first start: %w", err)
	}
	c.say("  first start: the target's broker led all partitions after %.1f s, all lanes were open after %.1f s", r.First.Made.Seconds(), r.First.Open.Seconds())
	if _, err = d.stop(); err != nil {
		return r, err
	}
	if r.Second, err = d.open(ctx, n, false); err != nil {
		return r, fmt.Errorf("second start: %w", err)
	}
	if r.IdleCPU, r.IdleRSS, err = d.rest(ctx, c.idle); err != nil {
		return r, err
	}
	for side, at := range map[*kafkatest.Cluster]*brokerUse{pair.Source: &r.Source, pair.Target: &r.Target} {
		if *at, err = useOf(side.Broker(1).Process().PID()); err != nil {
			return r, err
		}
	}
	if r.StopTime, err = d.stop(); err != nil {
		return r, err
	}
	if r.JournalBytes, err = logBytes(ctx, pair.Target.Admin(), "replicator.east.west.journal"); err != nil {
		return r, err
	}
	if r.GroupBytes, err = groupBytes(ctx, pair.Source, "replicator.east.west"); err != nil {
		return r, err
	}
	if err := d.sniffed(ctx, n, &r); err != nil {
		return r, fmt.Errorf("start through a proxy: %w", err)
	}
	if err := d.scraped(ctx, &r); err != nil {
		return r, fmt.Errorf("start with metrics of partitions: %w", err)
	}
	return r, nil
}

// groupBytes is the largest record in which a coordinator has kept a classic
// group: its members with what they subscribe to and what is assigned to them.
func groupBytes(ctx context.Context, c *kafkatest.Cluster, group string) (largest int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = compare.Read(ctx, c.ClientOpts(), "__consumer_offsets", func(r *kgo.Record) error {
		key := kmsg.NewGroupMetadataKey()
		if key.ReadFrom(r.Key) == nil && key.Version == 2 && key.Group == group {
			largest = max(largest, len(r.Value))
		}
		return nil
	})
	if err == nil && largest == 0 {
		err = fmt.Errorf("group %s is not kept", group)
	}
	return largest, err
}

// makeTopics makes topics of at most a hundred partitions, n in all, and waits
// until the broker leads them: it names itself their leader long before.
func makeTopics(ctx context.Context, c *kafkatest.Cluster, n int) (topics int, err error) {
	ctx, cancel := context.WithTimeout(ctx, partitionsTime)
	defer cancel()
	each := min(n, 100)
	if n%each != 0 {
		return 0, fmt.Errorf("make %d partitions: above a hundred it takes a multiple of a hundred", n)
	}
	var work errgroup.Group
	work.SetLimit(4)
	names := make([]string, n/each)
	for i := range names {
		names[i] = fmt.Sprintf("many-%04d", i)
		work.Go(func() error {
			_, err := c.Admin().CreateTopic(ctx, int32(each), 1, nil, names[i])
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return 0, fmt.Errorf("make topics: %w", err)
	}
	return len(names), led(ctx, c, "many-", n)
}

// led waits until a cluster leads n partitions of topics with a prefix.
func led(ctx context.Context, c *kafkatest.Cluster, prefix string, n int) error {
	for {
		have := 0
		topics, err := c.Admin().ListTopics(ctx)
		if err == nil {
			names := slices.DeleteFunc(topics.Names(), func(t string) bool { return !strings.HasPrefix(t, prefix) })
			if len(names) > 0 {
				var ends kadm.ListedOffsets
				ends, err = c.Admin().ListEndOffsets(ctx, names...)
				ends.Each(func(o kadm.ListedOffset) {
					if o.Err == nil {
						have++
					}
				})
			}
		}
		if err == nil && have >= n {
			return nil
		}
		if stop := pause.For(ctx, 200*time.Millisecond); stop != nil { // between two looks
			return errors.Join(fmt.Errorf("wait for partitions: %d of %d are led: %w", have, n, stop), err)
		}
	}
}

// coordinate makes a cluster make its internal topic of transactions, as one
// that is not new has it.
func coordinate(ctx context.Context, c *kafkatest.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client, err := kgo.NewClient(append(c.ClientOpts(), kgo.TransactionalID("capacity"))...)
	if err != nil {
		return fmt.Errorf("make transactional client: %w", err)
	}
	defer client.Close()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return fmt.Errorf("take a producer id: %w", err)
	}
	return nil
}

// lanesDaemon is a daemon with many lanes.
type lanesDaemon struct {
	lab  *lab
	pair *kafkatest.ClusterPair
	dir  string
	addr string
	p    *kafkatest.Process
}

func (c *capacity) newLanesDaemon(pair *kafkatest.ClusterPair) (*lanesDaemon, error) {
	_, dir, err := c.lab.run()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	return &lanesDaemon{lab: c.lab, pair: pair, dir: dir, addr: addr}, err
}

func (d *lanesDaemon) config() patternConfig {
	return patternConfig{pair: d.pair, topics: "many-.*", instance: "capacity", listen: d.addr, level: "warn"}
}

func (d *lanesDaemon) kill() {
	if d.p != nil {
		d.p.Kill()
	}
}

func (d *lanesDaemon) stop() (time.Duration, error) {
	began := time.Now()
	err := d.p.Stop(stopTime)
	return time.Since(began), err
}

// open starts the daemon and waits until n lanes are open.
func (d *lanesDaemon) open(ctx context.Context, n int, first bool) (r laneStart, err error) {
	ctx, cancel := context.WithTimeout(ctx, lanesTime)
	defer cancel()
	began := time.Now()
	if d.p, err = d.lab.startDaemon(d.dir, d.config().yaml()); err != nil {
		return r, err
	}
	made := make(chan error, 1)
	if first {
		go func() {
			err := led(ctx, d.pair.Target, "many-", n)
			r.Made = time.Since(began)
			made <- err
		}()
	} else {
		made <- nil
	}
	r.ByTime, err = d.waitOpen(ctx, n, began)
	if err != nil {
		cancel()
		ledErr := <-made
		return r, errors.Join(err, ledErr)
	}
	r.Open = r.ByTime[len(r.ByTime)-1].At
	u, err := usage(d.p.PID())
	r.CPU, r.Peak = u.CPU, u.Peak
	ledErr := <-made // r.Made is there before it is, and r has to be copied after
	return r, errors.Join(err, ledErr)
}

// waitOpen notes how many lanes are open while they become n.
func (d *lanesDaemon) waitOpen(ctx context.Context, n int, began time.Time) (all []opened, err error) {
	last := 0
	for {
		m, err := scrape(ctx, d.addr)
		if copying := int(m.sum("replicator_lanes", "state", "copying")); err == nil && copying != last {
			last = copying
			all = append(all, opened{time.Since(began), copying})
		}
		if last == n {
			return all, nil
		}
		if !d.p.Running() {
			return all, fmt.Errorf("daemon ended by itself (%s), the end of its log:\n%s", d.p.State(), d.p.Tail(20))
		}
		if stop := pause.For(ctx, 50*time.Millisecond); stop != nil { // between two looks
			return all, fmt.Errorf("wait for lanes: %d of %d are open: %w, the end of the daemon's log:\n%s", last, n, stop, d.p.Tail(20))
		}
	}
}

// rest measures CPU, as a share of a core, while nothing happens and nobody asks.
func (d *lanesDaemon) rest(ctx context.Context, how time.Duration) (cpu float64, rss int64, err error) {
	if err := pause.For(ctx, settleTime); err != nil {
		return 0, 0, err
	}
	before, err := usage(d.p.PID())
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := pause.For(ctx, how); err != nil {
		return 0, 0, err
	}
	after, err := usage(d.p.PID())
	if err != nil {
		return 0, 0, err
	}
	return (after.CPU - before.CPU).Seconds() / time.Since(began).Seconds(), after.RSS, nil
}

// sniffed starts the daemon once more, with somebody between it and the source
// who knows how long requests are.
func (d *lanesDaemon) sniffed(ctx context.Context, n int, r *lanesResult) error {
	ctx, cancel := context.WithTimeout(ctx, lanesTime)
	defer cancel()
	broker := d.pair.Source.Bootstrap()[0]
	s, err := sniff(ctx, broker)
	if err != nil {
		return err
	}
	defer s.close()
	config := d.config()
	config.source = fmt.Sprintf(", boundary: {rewrite: [{from: %q, to: %q}]}", broker, s.addr())
	if d.p, err = d.lab.startDaemon(d.dir, config.yaml()); err != nil {
		return err
	}
	if _, err := d.waitOpen(ctx, n, time.Now()); err != nil {
		return err
	}
	if err := pause.For(ctx, settleTime); err != nil {
		return err
	}
	if _, err := d.stop(); err != nil {
		return err
	}
	seen := s.seen()
	if len(seen) < 10 {
		return fmt.Errorf("watch fetches: only %d were seen", len(seen))
	}
	for _, e := range seen {
		if e.Request > r.FetchFirst.Request {
			r.FetchFirst = e
		}
	}
	var requests, answers []float64
	for _, e := range seen[len(seen)-10:] {
		requests = append(requests, float64(e.Request))
		if e.Answer > 0 {
			answers = append(answers, float64(e.Answer))
		}
	}
	r.FetchSteady = exchange{Request: int64(median(requests)), Answer: int64(median(answers))}
	return nil
}

// scraped starts the daemon once more, with metrics of each partition, and asks
// for them once.
func (d *lanesDaemon) scraped(ctx context.Context, r *lanesResult) (err error) {
	ctx, cancel := context.WithTimeout(ctx, lanesTime)
	defer cancel()
	yaml := strings.Replace(d.config().yaml(), "partition_metrics: false", "partition_metrics: true", 1)
	if d.p, err = d.lab.startDaemon(d.dir, yaml); err != nil {
		return err
	}
	for ready := false; !ready; {
		if body, err := ask(ctx, d.addr, "/readyz"); err == nil {
			_ = body.Close()
			ready = true
		} else if !d.p.Running() {
			return fmt.Errorf("daemon ended by itself (%s), the end of its log:\n%s", d.p.State(), d.p.Tail(20))
		}
		if err := pause.For(ctx, 200*time.Millisecond); err != nil { // between two looks
			return fmt.Errorf("wait until it is ready: %w", err)
		}
	}
	if err := pause.For(ctx, settleTime); err != nil {
		return err
	}
	before, err := usage(d.p.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	if r.ScrapeBytes, err = scrapeBytes(ctx, d.addr); err != nil {
		return err
	}
	r.Scrape = time.Since(began)
	after, err := usage(d.p.PID())
	if err != nil {
		return err
	}
	r.ScrapeCPU, r.ScrapeMemory = after.CPU-before.CPU, after.RSS-before.RSS
	_, err = d.stop()
	return err
}

// useOf reads what a broker holds.
func useOf(pid int) (b brokerUse, err error) {
	if b.Files, err = openFiles(pid); err != nil {
		return b, err
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return b, fmt.Errorf("count memory maps of process %d: %w", pid, err)
	}
	b.Maps = strings.Count(string(maps), "\n")
	u, err := usage(pid)
	b.RSS = u.RSS
	return b, err
}
