package e2e

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// A promotion while the old daemon is frozen with records on their way: what the
// fence calls the end is the end, whatever the daemon does when it wakes, and when
// it is started again. Records of today and of two days ago.
func TestFenceHoldsAgainstADaemonThatWakes(t *testing.T) {
	t.Parallel()
	t.Run("brokers remember", func(t *testing.T) {
		fencedWhileFrozen(t, kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{}))
	})
	t.Run("brokers forget", func(t *testing.T) {
		fenceForgotten(t, kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{Properties: map[string]string{
			"producer.id.expiration.ms": "10000", "producer.id.expiration.check.interval.ms": "1000",
		}}))
	})
}

// The lanes' producer ids change under a daemon that copies, as they do when the
// coordinator has forgotten a transactional id: the control records of other ids
// stop nobody. The fence waits out the lease; what the daemon appends until then is
// counted.
func TestFenceWithOtherProducerIDs(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	underLoad(t, pair)
	d := startProcess(t, daemonFile(t, pair, fencedTopics...), "old", "")
	copying(t, pair)
	west := openCluster(t, "west", pair.Target.Bootstrap(), wire.NewPool(16<<20))

	d.signal(syscall.SIGSTOP)
	newGenerations(t, west)
	woken := time.AfterFunc(3*time.Second, func() { d.signal(syscall.SIGCONT) }) // while the fence waits
	defer woken.Stop()
	began := time.Now()
	report := promoteWest(t, west, 1)
	changed := 0
	for _, ln := range report.Lanes {
		if ln.Old.ProducerID != ln.New.ProducerID {
			changed++
		}
	}
	if took := time.Since(began); changed != len(report.Lanes) || took < 20*time.Second {
		t.Errorf("%d of %d lanes have another producer id; the fence took %v", changed, len(report.Lanes), took)
	}
	eventually(t, "the daemon is closed", func() bool { return d.says(`"kind":"closed"`) })
	proofs, err := mirror.Prove(t.Context(), west, report.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the proof of a lane: %s", proofs[0].Answer)
	wantEnds(t, pair, report)
}

// newGenerations has all lanes take their producer ids under other transactional ids.
func newGenerations(t *testing.T, west *cluster.Cluster) {
	t.Helper()
	j, err := offsets.OpenJournal(t.Context(), offsets.JournalConfig{Client: west.NewClient, Admin: west.Admin(), Topic: "replicator.east.west.journal"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	done := make(chan error, 1)
	var entries []offsets.Entry
	for _, lane := range j.Lanes() {
		entries = append(entries, offsets.Generation{Lane: lane, Number: 1, Reason: "test", Time: time.Now()})
	}
	j.Append(func(err error) { done <- err }, entries...)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// underLoad copies records of today and of two days ago until stop is called.
func underLoad(t *testing.T, pair *kafkatest.ClusterPair) (stop func()) {
	t.Helper()
	src := opts(pair.Source)
	live, err := workload.StartLive(t.Context(), src, workload.LiveConfig{
		Spec: workload.Spec{Topic: "today", Kind: workload.Plain, Codec: workload.LZ4, Partitions: 3, ValueBytes: 300}, Rate: 5000,
	})
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		spec := workload.Spec{Topic: "old", Kind: workload.Old, Partitions: 3, Records: 1500, ValueBytes: 300}
		again := time.NewTicker(200 * time.Millisecond)
		defer again.Stop()
		for n := 0; ; n++ {
			spec.Seed, spec.First = uint64(n), int64(n*spec.Records)
			if _, err := workload.Write(context.WithoutCancel(t.Context()), src, spec); err != nil {
				t.Errorf("write old records: %v", err)
			}
			select {
			case <-end:
				return
			case <-again.C:
			}
		}
	})
	var once sync.Once
	stop = func() {
		once.Do(func() {
			close(end)
			writing.Wait()
			if _, err := live.Stop(context.WithoutCancel(t.Context())); err != nil {
				t.Errorf("stop writing: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

var fencedTopics = []string{"old", "today"}

// promoteWest writes the authority record and fences the link, as a failover does.
func promoteWest(t *testing.T, west *cluster.Cluster, epoch int64) mirror.FenceReport {
	t.Helper()
	pair := authority.PairOf("east", "west")
	c, err := authority.Change(t.Context(), authority.Config{Cluster: west, Pair: pair})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Set(t.Context(), authority.Record{Pair: pair.String(), Epoch: epoch, Region: "west", Verb: "failover", By: "ann", Run: "1", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return fenceWest(t, west)
}

func fenceWest(t *testing.T, west *cluster.Cluster) mirror.FenceReport {
	t.Helper()
	began := time.Now()
	report, err := mirror.Fence(t.Context(), mirror.FenceConfig{Options: eastWest, Target: west, Log: logger(t), Instance: "failover 1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fenced %d lanes in %v", len(report.Lanes), time.Since(began).Round(time.Millisecond))
	return report
}

var eastWest = mirror.Options{From: "east", To: "west", Topics: fencedTopics}

// records reads a topic with a reader that is none of ours.
func recordsOf(t *testing.T, c *kafkatest.Cluster, topic string) map[int32][]*kgo.Record {
	t.Helper()
	out := map[int32][]*kgo.Record{}
	if err := compare.Read(t.Context(), internal(c), topic, func(r *kgo.Record) error {
		out[r.Partition] = append(out[r.Partition], r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// wantEnds counts what is on the target: below each lane's end the source's first
// records, as many as the fence says, and nothing behind it.
func wantEnds(t *testing.T, pair *kafkatest.ClusterPair, report mirror.FenceReport) {
	t.Helper()
	for _, topic := range fencedTopics {
		source, target := recordsOf(t, pair.Source, topic), recordsOf(t, pair.Target, topic)
		for _, ln := range report.Lanes {
			if ln.Topic != topic {
				continue
			}
			from, to := source[ln.Partition], target[ln.Partition]
			behind := 0
			for i, r := range to {
				if r.Offset >= ln.End {
					behind++
				}
				if i >= len(from) || !compare.SameRecord(from[i], r) {
					t.Fatalf("%s-%d: record %d of the target is not the source's", topic, ln.Partition, i)
				}
			}
			if behind > 0 || int64(len(to)) != ln.Ordinal || ln.Ordinal == 0 || ln.Source != from[ln.Ordinal-1].Offset+1 {
				t.Errorf("%s-%d: %d records on the target, %d of them behind the end; the fence says %+v", topic, ln.Partition, len(to), behind, ln)
			}
		}
	}
}

func (p *process) says(text string) bool {
	b, err := os.ReadFile(p.log)
	return err == nil && strings.Contains(string(b), text)
}

// refusals counts the lanes whose appends brokers have refused for their epoch.
func (p *process) refusals() int {
	b, _ := os.ReadFile(p.log)
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "lane in doubt") && strings.Contains(line, "INVALID_PRODUCER_EPOCH") {
			n++
		}
	}
	return n
}

// copying waits until every lane has something on the target.
func copying(t *testing.T, pair *kafkatest.ClusterPair) {
	t.Helper()
	eventually(t, "all lanes copy", func() bool {
		ends, err := pair.Target.Admin().ListEndOffsets(t.Context(), fencedTopics...)
		if err != nil {
			return false
		}
		n := 0
		for _, p := range ends.Offsets() {
			for _, o := range p {
				if o.At > 1000 {
					n++
				}
			}
		}
		return n == 6
	})
}

func fencedWhileFrozen(t *testing.T, pair *kafkatest.ClusterPair) {
	stop := underLoad(t, pair)
	d := startProcess(t, daemonFile(t, pair, fencedTopics...), "old", "")
	copying(t, pair)
	west := openCluster(t, "west", pair.Target.Bootstrap(), wire.NewPool(16<<20))

	d.signal(syscall.SIGSTOP)
	frozen := time.Now()
	first := promoteWest(t, west, 1)
	proofs, err := mirror.Prove(t.Context(), west, first.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range proofs {
		if !p.Holds || p.Tried.ProducerID < 0 || !strings.Contains(p.Answer, "INVALID_PRODUCER_EPOCH") {
			t.Errorf("fence is not proven: %+v", p)
		}
	}
	t.Logf("the daemon wakes %v after it was frozen; the brokers' answer to its predecessor's epoch: %s", time.Since(frozen).Round(time.Millisecond), proofs[0].Answer)
	d.signal(syscall.SIGCONT)
	eventually(t, "the daemon that woke is closed", func() bool { return d.says(`"kind":"closed"`) })
	// It was fenced, or saw the record first; both in a moment. What it still has is refused.
	eventually(t, "brokers refused what it still had", func() bool { return d.says("INVALID_PRODUCER_EPOCH") })
	wantEnds(t, pair, first)
	t.Logf("remembered: the daemon that woke had appends of %d lanes refused, 0 accepted", d.refusals())

	// Started anew it reads the record and opens nothing.
	d.kill()
	fresh := startProcess(t, daemonFile(t, pair, fencedTopics...), "fresh", "")
	eventually(t, "a daemon started anew is closed", func() bool { return fresh.says(`"kind":"closed"`) })
	stop()
	if fresh.says(`"msg":"lanes opened"`) {
		t.Error("a daemon that was started after the promotion opened lanes")
	}
	wantEnds(t, pair, first)

	// Applications write on the promoted side; another fence keeps the ends.
	for _, topic := range fencedTopics {
		putEach(t, pair.Target, topic, 3, 50)
	}
	second := fenceWest(t, west)
	for i, ln := range second.Lanes {
		if f := first.Lanes[i]; !ln.Kept || ln.End != f.End || ln.Source != f.Source || ln.Ordinal != f.Ordinal || ln.Old != f.Old || ln.New.Epoch <= f.New.Epoch {
			t.Errorf("second fence says %+v, the first %+v", ln, f)
		}
	}
	fresh.kill()
	wayBack(t, pair, west, first)
}

// wayBack prepares the link of the other direction, and has it copy what was
// written on the promoted side since. What the old side took meanwhile is there too.
func wayBack(t *testing.T, pair *kafkatest.ClusterPair, west *cluster.Cluster, fenced mirror.FenceReport) {
	j, err := offsets.OpenJournal(t.Context(), offsets.JournalConfig{Client: west.NewClient, Admin: west.Admin(), Topic: "replicator.east.west.journal", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var lanes []mirror.PreparedLane
	for _, ln := range fenced.Lanes {
		// The inverse by hand: no source offset was left out, so each opening is one run.
		var inverse []offsets.Entry
		var runs []offsets.Span
		epochs := j.State(ln.Lane()).Epochs()
		for i, e := range epochs {
			next := ln.Ordinal
			if i+1 < len(epochs) {
				next = epochs[i+1].Ordinal
			}
			if e.Ordinal == next {
				continue
			}
			if inverse == nil {
				inverse = append(inverse, offsets.EpochRecord{
					Lane: ln.Lane(), Writer: offsets.Writer{ProducerID: -2}, Ordinal: e.Ordinal, Source: e.Target, Target: e.Source, SourceLeaderEpoch: -1, Time: time.Now(), Instance: "inverse",
				})
			} else {
				runs = append(runs, offsets.Span{Ordinal: e.Ordinal, Source: e.Target})
			}
		}
		if runs != nil {
			inverse = append(inverse, offsets.Spans{Lane: ln.Lane(), Writer: offsets.Writer{ProducerID: -2}, Runs: runs})
		}
		lanes = append(lanes, mirror.PreparedLane{Lane: ln.Lane(), Inverse: inverse, Ordinal: ln.Ordinal, Position: ln.End, SourceLeaderEpoch: -1})
	}
	back := mirror.Options{From: "west", To: "east", Topics: fencedTopics}
	east := openCluster(t, "east", pair.Source.Bootstrap(), wire.NewPool(16<<20))
	before := map[string]map[int32][]*kgo.Record{}
	for _, topic := range fencedTopics {
		before[topic] = recordsOf(t, pair.Source, topic)
	}
	for range 2 {
		if _, err := mirror.Prepare(t.Context(), mirror.PrepareConfig{Options: back, Target: east, Log: logger(t), Run: "1", Lanes: lanes}); err != nil {
			t.Fatal(err)
		}
	}
	l := startLink(t, &kafkatest.ClusterPair{Source: pair.Target, Target: pair.Source}, back)
	l.until("what is new is copied back", func(s mirror.LinkStatus) bool {
		return s.State == mirror.LinkCopying && len(s.Lanes) == 6 && s.LagRecords != nil && *s.LagRecords == 0
	})
	for _, topic := range fencedTopics {
		for p, records := range recordsOf(t, pair.Source, topic) {
			old := len(before[topic][p])
			if len(records) != old+50 {
				t.Errorf("%s-%d: %d records on the old side, want the %d it had and 50 new ones", topic, p, len(records), old)
				continue
			}
			target := recordsOf(t, pair.Target, topic)[p]
			if !slices.EqualFunc(records[old:], target[len(target)-50:], compare.SameRecord) {
				t.Errorf("%s-%d: what was copied back is not what was written on the promoted side", topic, p)
			}
		}
	}
}

// ageOfAll says whether every fence is in the state.
func ageOfAll(t *testing.T, west *cluster.Cluster, want mirror.FenceState) bool {
	t.Helper()
	ages, _, err := mirror.FenceAges(t.Context(), west, eastWest, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(ages) == 6 && !slices.ContainsFunc(ages, func(a mirror.FenceAge) bool { return a.State != want })
}

// Brokers that forget a producer after ten seconds: without a guard nothing is left
// of the fence but the daemon's own rules, and they hold. The guard keeps the fence.
func fenceForgotten(t *testing.T, pair *kafkatest.ClusterPair) {
	stop := underLoad(t, pair)
	d := startProcess(t, daemonFile(t, pair, fencedTopics...), "old", "")
	copying(t, pair)
	west := openCluster(t, "west", pair.Target.Bootstrap(), wire.NewPool(16<<20))

	d.signal(syscall.SIGSTOP)
	first := promoteWest(t, west, 1)
	stop()
	eventually(t, "the brokers have forgotten the fence", func() bool { return ageOfAll(t, west, mirror.FenceForgotten) })
	// Nor does what it has on disk remind it.
	pair.Target.Broker(1).Kill()
	if err := pair.Target.Broker(1).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nobody guards: the daemon is frozen. A broker would take whatever it sent now.
	// It sends nothing: its lease is over, so it asks where its partitions end, finds a
	// control record there, opens them and reads who is authoritative.
	d.signal(syscall.SIGCONT)
	eventually(t, "the daemon that woke is closed", func() bool { return d.says(`"kind":"closed"`) })
	eventually(t, "the daemon that woke is a guard now", func() bool { return ageOfAll(t, west, mirror.FenceHolds) })
	wantEnds(t, pair, first)
	t.Logf("forgotten, the broker restarted: the daemon that woke had %d appends refused, 0 accepted", d.refusals())

	// It outlives what brokers remember, and their death.
	pair.Target.Broker(1).Kill()
	if err := pair.Target.Broker(1).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fence holds after the broker's death", func() bool { return ageOfAll(t, west, mirror.FenceHolds) })
	for until := time.Now().Add(12 * time.Second); time.Now().Before(until); {
		ages, remembered, err := mirror.FenceAges(t.Context(), west, eastWest, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range ages {
			if a.State != mirror.FenceHolds || a.Age > remembered.For {
				t.Fatalf("the guard lets the fence grow old: %+v, brokers remember %v", a, remembered.For)
			}
		}
		time.Sleep(500 * time.Millisecond) // between two looks
	}
	proofs, err := mirror.Prove(t.Context(), west, fenceWest(t, west).Lanes)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("12 s later, brokers killed in between: %s", proofs[0].Answer)
	wantEnds(t, pair, first)
}
