package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// recordAt is a record as a read_committed consumer sees it. Its hash stands for
// key, value, headers and timestamp.
type recordAt struct {
	offset int64
	hash   string
}

func hashOf(r *kgo.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %q %q", r.Timestamp.UnixMilli(), r.Key, r.Value)
	for _, h := range r.Headers {
		fmt.Fprintf(&b, " %q=%q", h.Key, h.Value)
	}
	return b.String()
}

// visible is what a read_committed consumer sees of a topic, by partition.
func visible(t *testing.T, c *kafkatest.Cluster, topic string) map[int32][]recordAt {
	t.Helper()
	out := map[int32][]recordAt{}
	err := compare.Read(t.Context(), compare.Seeds(c.Bootstrap()...), topic, func(r *kgo.Record) error {
		out[r.Partition] = append(out[r.Partition], recordAt{r.Offset, hashOf(r)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// nextOf is what a consumer at an offset reads next, "" at the end.
func nextOf(records []recordAt, offset int64) (hash string, index int) {
	i := sort.Search(len(records), func(i int) bool { return records[i].offset >= offset })
	if i == len(records) {
		return "", i
	}
	return records[i].hash, i
}

// resuming is a group and what it should read first on the target.
type resuming struct {
	group string
	want  map[string]string // by "topic/partition", "" for nothing
	at    map[string]int64  // what it committed on the source
}

// randomGroups makes groups that have committed at all kinds of places: 0, log
// start, last stable offset, high watermark, inside holes, ahead of the log, and
// anywhere.
func randomGroups(t *testing.T, c *kafkatest.Cluster, rnd *rand.Rand, topics []string, n int) []*resuming {
	t.Helper()
	ctx := t.Context()
	starts, err := c.Admin().ListStartOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := c.Admin().ListEndOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	stable, err := c.Admin().ListCommittedOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]map[int32][]recordAt{}
	for _, topic := range topics {
		records[topic] = visible(t, c, topic)
	}
	var lanes []kadm.ListedOffset
	ends.Each(func(o kadm.ListedOffset) { lanes = append(lanes, o) })
	slices.SortFunc(lanes, func(a, b kadm.ListedOffset) int {
		return strings.Compare(fmt.Sprintf("%s/%05d", a.Topic, a.Partition), fmt.Sprintf("%s/%05d", b.Topic, b.Partition))
	})
	kinds := map[string]int{}
	groups := make([]*resuming, n)
	for i := range groups {
		g := &resuming{group: fmt.Sprintf("group-%d", i), want: map[string]string{}, at: map[string]int64{}}
		groups[i] = g
		commits := kadm.Offsets{}
		for range 1 + rnd.IntN(6) {
			end := lanes[rnd.IntN(len(lanes))]
			start, _ := starts.Lookup(end.Topic, end.Partition)
			lso, _ := stable.Lookup(end.Topic, end.Partition)
			have := records[end.Topic][end.Partition]
			at, kind := start.Offset+rnd.Int64N(end.Offset-start.Offset+1), "anywhere"
			switch rnd.IntN(8) {
			case 0:
				at, kind = 0, "zero"
			case 1:
				at, kind = start.Offset, "log start"
			case 2:
				at, kind = lso.Offset, "last stable offset"
			case 3:
				at, kind = end.Offset, "end"
			case 4:
				at, kind = end.Offset+1+rnd.Int64N(50), "ahead of the log"
			case 5, 6: // inside a hole, where there is one
				for range 50 {
					o := start.Offset + rnd.Int64N(max(1, end.Offset-start.Offset))
					if _, j := nextOf(have, o); j < len(have) && have[j].offset != o {
						at, kind = o, "inside a hole"
						break
					}
				}
			}
			lane := fmt.Sprintf("%s/%d", end.Topic, end.Partition)
			if _, twice := g.at[lane]; twice {
				continue
			}
			kinds[kind]++
			g.at[lane] = at
			g.want[lane], _ = nextOf(have, at)
			commits.Add(kadm.Offset{Topic: end.Topic, Partition: end.Partition, At: at, LeaderEpoch: -1, Metadata: g.group})
		}
		if err := c.Admin().CommitAllOffsets(ctx, g.group, commits); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%d offsets %s", kinds[kind], kind)
	}
	return groups
}

// resumes joins a group on a cluster as a consumer does and returns the first
// record of each partition that should have one; it waits a little longer for
// those that should have none.
func (g *resuming) resumes(ctx context.Context, c *kafkatest.Cluster, rename func(string) string) (map[string]string, error) {
	topics := map[string]bool{}
	waiting := map[string]bool{}
	for lane, want := range g.want {
		topic, _, _ := strings.Cut(lane, "/")
		topics[rename(topic)] = true
		if want != "" {
			waiting[rename(lane)] = true
		}
	}
	client, err := kgo.NewClient(append(c.ClientOpts(),
		kgo.ConsumerGroup(g.group), kgo.ConsumeTopics(slices.Collect(maps.Keys(topics))...), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond), kgo.FetchMaxPartitionBytes(64<<10),
		// A partition without a committed offset begins at the end and is not looked at.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	got := map[string]string{}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		polling, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		fetches := client.PollFetches(polling)
		cancel()
		fetches.EachRecord(func(r *kgo.Record) {
			lane := fmt.Sprintf("%s/%d", r.Topic, r.Partition)
			if _, have := got[lane]; !have {
				got[lane] = hashOf(r)
			}
			delete(waiting, lane)
		})
		if len(waiting) == 0 {
			deadline = time.Now() // one more look, for what should not be there
			waiting = map[string]bool{"": true}
		}
	}
	return got, ctx.Err()
}

// resumeReport counts what groups read again or did not read.
type resumeReport struct{ groups, partitions, exact, again, skipped int }

// checkResumed joins every group on the target and compares what it reads first
// with what it would have read on the source.
func checkResumed(t *testing.T, c *kafkatest.Cluster, groups []*resuming, rename func(string) string, source map[string]map[int32][]recordAt) resumeReport {
	t.Helper()
	var mu sync.Mutex
	report := resumeReport{groups: len(groups)}
	var work errgroup.Group
	work.SetLimit(8)
	for _, g := range groups {
		work.Go(func() error {
			got, err := g.resumes(t.Context(), c, rename)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for lane, want := range g.want {
				report.partitions++
				have := got[rename(lane)]
				if have == want {
					report.exact++
					continue
				}
				var topic string
				var partition int32
				at := strings.LastIndexByte(lane, '/')
				topic = lane[:at]
				if _, err := fmt.Sscan(lane[at+1:], &partition); err != nil {
					return err
				}
				index := func(hash string) int {
					records := source[topic][partition]
					if i := slices.IndexFunc(records, func(r recordAt) bool { return r.hash == hash }); hash != "" && i >= 0 {
						return i
					}
					return len(records)
				}
				if d := index(have) - index(want); d > 0 {
					report.skipped += d
				} else {
					report.again -= d
				}
				t.Errorf("%s %s at source offset %d: reads %.80q first, should read %.80q", g.group, lane, g.at[lane], have, want)
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	return report
}

// checkpointFile writes the configuration of a daemon whose checkpoints are quick.
func checkpointFile(t *testing.T, pair *kafkatest.ClusterPair, follow string, topics ...string) string {
	t.Helper()
	return rewritten(t, daemonFile(t, pair, topics...), func(text string) string {
		return strings.Replace(text, "refresh_interval: 5s", "refresh_interval: 5s, checkpoints: {interval: 1s, follow: "+follow+"}", 1)
	})
}

// waitPlaced waits until the target's groups have an offset for each partition
// that the source's have one for, and none has moved for three of the daemon's
// intervals: a group that is ahead of its lane is moved along once an interval.
func waitPlaced(t *testing.T, c *kafkatest.Cluster, groups []*resuming, rename func(string) string) {
	t.Helper()
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.group
	}
	missing, before, since := "", map[string]int64{}, time.Now()
	for range 600 {
		missing = ""
		now := map[string]int64{}
		fetched := c.Admin().FetchManyOffsets(t.Context(), names...)
		for _, g := range groups {
			for lane := range g.at {
				at := strings.LastIndexByte(lane, '/')
				found := false
				for p, o := range fetched[g.group].Fetched[rename(lane[:at])] {
					if fmt.Sprint(p) == lane[at+1:] && o.At >= 0 && o.Metadata == g.group {
						found, now[g.group+" "+lane] = true, o.At
					}
				}
				if !found {
					missing = g.group + " " + lane
				}
			}
		}
		if !maps.Equal(before, now) {
			before, since = now, time.Now()
		}
		if missing == "" && time.Since(since) > 3*time.Second {
			return
		}
		time.Sleep(100 * time.Millisecond) // between two looks, 600 at most
	}
	t.Fatalf("the target has no offset of %q, or they do not come to rest", missing)
}

// Every kind of source data, groups everywhere in it. The source and the daemon
// are killed in the same moment; a consumer of each group then reads on the target
// exactly the record it would have read next on the source.
func TestGroupsResumeAtTheExactRecord(t *testing.T) {
	t.Parallel()
	seed := uint64(setting("E2E_SEED", int(time.Now().UnixNano()&0xffffff)))
	n := setting("E2E_GROUPS", 40)
	t.Logf("E2E_SEED=%d E2E_GROUPS=%d", seed, n)
	rnd := rand.New(rand.NewPCG(seed, 1))
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	var topics []string
	for _, spec := range workload.Catalogue("w.", setting("E2E_RECORDS", 3000), false) {
		if spec.Kind == workload.ManyParts {
			spec.Partitions = 20
		}
		if _, err := workload.Write(t.Context(), opts(pair.Source), spec); err != nil {
			t.Fatalf("write %s: %v", spec.Topic, err)
		}
		topics = append(topics, spec.Topic)
	}
	trim(t, pair.Source, topics[0])
	daemon := startProcess(t, checkpointFile(t, pair, "auto", `w\..*`), "daemon", "")
	groups := randomGroups(t, pair.Source, rnd, topics, n)
	same := func(s string) string { return s }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if report, err := compare.WaitEqual(ctx, compare.Seeds(pair.Source.Bootstrap()...), compare.Seeds(pair.Target.Bootstrap()...), compare.Same(topics[1:]...), compare.Options{}); err != nil {
		t.Fatal(report, err)
	}
	waitPlaced(t, pair.Target, groups, same)
	source := map[string]map[int32][]recordAt{}
	for _, topic := range topics {
		source[topic] = visible(t, pair.Source, topic)
	}

	var both sync.WaitGroup
	both.Go(func() { pair.Source.Broker(1).Kill() })
	both.Go(daemon.kill)
	both.Wait()
	report := checkResumed(t, pair.Target, groups, same, source)
	t.Logf("%d groups, %d partitions: %d exact, %d records read again, %d skipped", report.groups, report.partitions, report.exact, report.again, report.skipped)
	if log, err := os.ReadFile(daemon.log); err == nil && bytes.Contains(log, []byte(`"mode":"tail"`)) {
		t.Log("commits were followed by the tail")
	} else {
		t.Error("commits were not followed by the tail")
	}
}

// trim removes the first third of a topic's records, as retention does.
func trim(t *testing.T, c *kafkatest.Cluster, topic string) {
	t.Helper()
	ends, err := c.Admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	third := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) { third.AddOffset(o.Topic, o.Partition, o.Offset/3, -1) })
	if _, err := c.Admin().DeleteRecords(t.Context(), third); err != nil {
		t.Fatal(err)
	}
}
