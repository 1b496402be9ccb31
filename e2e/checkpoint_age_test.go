package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/mirrormaker"
)

// ages measures from the outside how long a commit takes to the target: from its
// acknowledgement by the source to the moment a consumer of the target's
// checkpoints has it, or a newer one of the same group and partition.
type ages struct {
	mu      sync.Mutex
	pending map[string][]*pendingCommit // by "group/partition"
	took    []time.Duration
}

type pendingCommit struct {
	offset int64
	acked  time.Time // zero: not yet
	seen   time.Time // zero: not yet
}

// committing notes a commit that is about to be sent: its checkpoint may be there
// before the answer.
func (a *ages) committing(group string, offsets map[int32]int64) (acked func(time.Time)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var mine []*pendingCommit
	for p, at := range offsets {
		key := fmt.Sprintf("%s/%d", group, p)
		c := &pendingCommit{offset: at}
		mine = append(mine, c)
		a.pending[key] = append(a.pending[key], c)
	}
	return func(at time.Time) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, c := range mine {
			if c.acked = at; !c.seen.IsZero() {
				a.took = append(a.took, max(0, c.seen.Sub(at)))
			}
		}
	}
}

func (a *ages) saw(c mirrormaker.Checkpoint, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := fmt.Sprintf("%s/%d", c.Group, c.Partition)
	a.pending[key] = slices.DeleteFunc(a.pending[key], func(p *pendingCommit) bool {
		if c.Upstream < p.offset {
			return false
		}
		if p.seen = at; !p.acked.IsZero() {
			a.took = append(a.took, max(0, at.Sub(p.acked)))
		}
		return true
	})
}

// Under load a commit on the source is a checkpoint on the target within a second
// where __consumer_offsets may be read, and within the interval where groups are
// polled.
func TestCommitsReachTheTargetWithinASecond(t *testing.T) {
	for _, c := range []struct {
		follow string
		limit  time.Duration // of the median: the longest are the machine's
	}{{"tail", time.Second}, {"poll", 5 * time.Second}} {
		t.Run(c.follow, func(t *testing.T) {
			pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
			a := measureAges(t, pair, c.follow, time.Duration(setting("E2E_AGE_SECONDS", 5))*time.Second)
			if len(a.took) == 0 {
				t.Fatal("no checkpoint was seen")
			}
			slices.Sort(a.took)
			at := func(part float64) time.Duration {
				return a.took[min(len(a.took)-1, int(part*float64(len(a.took))))].Round(time.Millisecond / 10)
			}
			left := 0
			for _, p := range a.pending {
				left += len(p)
			}
			t.Logf("%s: %d commits: p50 %v, p99 %v, max %v; %d not seen", c.follow, len(a.took), at(0.5), at(0.99), at(1), left)
			if at(0.5) > c.limit || left > 0 {
				t.Errorf("the median is %v, the limit %v; %d commits were not seen", at(0.5), c.limit, left)
			}
		})
	}
}

func measureAges(t *testing.T, pair *kafkatest.ClusterPair, follow string, during time.Duration) *ages {
	t.Helper()
	const partitions, groups = 12, 20
	live, err := workload.StartLive(t.Context(), opts(pair.Source), workload.LiveConfig{
		Spec: workload.Spec{Topic: "stream", Kind: workload.Plain, Codec: workload.LZ4, Partitions: partitions, ValueBytes: 500}, Rate: 2000,
	})
	if err != nil {
		t.Fatal(err)
	}
	startProcess(t, checkpointFile(t, pair, follow, "stream"), "daemon", "")
	waitCopied(t, pair.Target, "stream")
	a := &ages{pending: map[string][]*pendingCommit{}}
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	reader := pair.Target.Client(t, kgo.ConsumeTopics("east.checkpoints.internal"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(10*time.Millisecond))
	var read sync.WaitGroup
	read.Go(func() {
		for reading.Err() == nil {
			fetches := reader.PollFetches(reading)
			now := time.Now()
			fetches.EachRecord(func(r *kgo.Record) {
				c, err := mirrormaker.DecodeCheckpoint(r.Key, r.Value)
				if err != nil {
					t.Error(err)
				}
				a.saw(c, now)
			})
		}
	})
	// Groups that keep up: they commit what stood at the end a moment before.
	for begun := time.Now(); time.Since(begun) < during; {
		ends, err := pair.Source.Admin().ListEndOffsets(t.Context(), "stream")
		if err != nil {
			t.Fatal(err)
		}
		commits, at := kadm.Offsets{}, map[int32]int64{}
		ends.Each(func(o kadm.ListedOffset) {
			commits.AddOffset(o.Topic, o.Partition, o.Offset, -1)
			at[o.Partition] = o.Offset
		})
		for n := range groups {
			time.Sleep(50 * time.Millisecond) // a rate: each group commits once a second
			group := fmt.Sprintf("group-%d", n)
			acked := a.committing(group, at)
			if err := pair.Source.Admin().CommitAllOffsets(t.Context(), group, commits); err != nil {
				t.Fatal(err)
			}
			acked(time.Now())
		}
	}
	for range 100 { // the last ones, ten seconds at most
		a.mu.Lock()
		left := 0
		for _, p := range a.pending {
			left += len(p)
		}
		a.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	read.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := live.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}
