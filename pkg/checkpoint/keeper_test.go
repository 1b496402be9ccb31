package checkpoint

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/mirrormaker"
	"replicator/pkg/offsets"
)

// lanesOf is a link whose lanes a test moves. Record n of a lane has the source
// offset n and the target offset n+1.
type lanesOf struct {
	mu      sync.Mutex
	live    map[offsets.Lane]offsets.Live
	opening []offsets.Lane
	unknown bool // which lanes are the daemon's
}

func (l *lanesOf) Held(ctx context.Context) (offsets.Held, error) {
	live, err := l.Live(ctx, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	return offsets.Held{Open: live, Opening: slices.Clone(l.opening), Known: !l.unknown}, err
}

func (l *lanesOf) Live(_ context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[offsets.Lane]offsets.Live{}
	for lane, live := range l.live {
		wanted := lanes == nil
		for _, w := range lanes {
			wanted = wanted || w == lane
		}
		if wanted {
			out[lane] = live
		}
	}
	return out, nil
}

// hold has the daemon hold a lane that has copied n records under some epoch.
func (l *lanesOf) hold(lane offsets.Lane, epoch int16, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := offsets.Writer{ProducerID: 7, Epoch: epoch}
	state := offsets.StateOf(offsets.EpochRecord{Lane: lane, Writer: w, Target: 1}).
		With(offsets.Position{Lane: lane, Writer: w, Ordinal: n, Source: n, Target: n + 1, Time: time.Now()})
	l.live[lane] = offsets.Live{State: state, TargetTopic: "east." + lane.Topic, SourceEnd: n}
}

// kept is a keeper between two fake clusters.
type kept struct {
	t          *testing.T
	east, west *kadm.Client
	target     *cluster.Cluster
	cfg        Config
	lanes      *lanesOf
	*Keeper
	stop func()
}

func openFake(t *testing.T, alias string, topics ...string) (*kadm.Client, *cluster.Cluster) {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = k.ListenAddrs()
	c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return kadm.NewClient(cl), c
}

func keep(t *testing.T) *kept {
	t.Helper()
	east, source := openFake(t, "east", "orders")
	west, target := openFake(t, "west", "east.orders")
	k := &kept{t: t, east: east, west: west, target: target, lanes: &lanesOf{live: map[offsets.Lane]offsets.Live{}}}
	k.cfg = Config{
		Source: source, Target: target, Link: k.lanes, Follow: FollowPoll, Interval: 50 * time.Millisecond, MirrorMaker: true,
		Group: func(string) bool { return true }, Topic: func(topic string) bool { return topic == "orders" },
		CheckpointsTopic: "replicator.east.west.checkpoints", Instance: "host/1", Log: testlog.New(t),
	}
	k.start()
	t.Cleanup(func() { k.stop() })
	return k
}

func (k *kept) start() {
	k.Keeper = New(k.cfg)
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	k.stop = func() { cancel(); <-done }
}

func (k *kept) commit(group string, partition int32, at int64) {
	k.t.Helper()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: "orders", Partition: partition, At: at, LeaderEpoch: -1, Metadata: "note"})
	if err := k.east.CommitAllOffsets(k.t.Context(), group, o); err != nil {
		k.t.Fatal(err)
	}
}

// until waits until the checkpoints topic says what is wanted of a key.
func (k *kept) until(what string, key Key, ok func(c *Checkpoint) bool) {
	k.t.Helper()
	var last *Checkpoint
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // between two looks
		got, err := readTopic(k.t.Context(), k.target, k.cfg.CheckpointsTopic)
		if err != nil {
			continue // not made yet
		}
		if last = got.checkpoints[key]; ok(last) {
			return
		}
	}
	k.t.Fatalf("not in time: %s; the topic has %+v, status %+v", what, last, k.Status())
}

func (k *kept) writtenTo(topic string) int64 {
	k.t.Helper()
	ends, err := k.west.ListEndOffsets(k.t.Context(), topic)
	if err != nil {
		k.t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, 0)
	return o.Offset
}

func billing(partition int32) Key {
	return Key{Group: "billing", Lane: offsets.Lane{Topic: "orders", Partition: partition}}
}

func TestACommitBecomesACheckpointInBothTopics(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(1).Lane, 0, 100)
	k.commit("billing", 1, 40)
	k.until("it is checkpointed", billing(1), func(c *Checkpoint) bool {
		return c != nil && c.Source == 40 && c.Target == 41 && c.Outcome == offsets.Exact && c.Metadata == "note"
	})
	reader, err := k.target.NewClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"east.checkpoints.internal": {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	r := reader.PollFetches(t.Context()).Records()[0]
	got, err := mirrormaker.DecodeCheckpoint(r.Key, r.Value)
	want := mirrormaker.Checkpoint{Group: "billing", Topic: "east.orders", Partition: 1, Upstream: 40, Downstream: 41, Metadata: "note"}
	if err != nil || got != want {
		t.Errorf("MirrorMaker's topic has %+v, %v; want %+v", got, err, want)
	}
}

func TestAGroupAheadOfItsLaneGetsItsOffsetWhenTheLaneComesThere(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(0).Lane, 0, 10)
	k.commit("billing", 0, 25)
	k.until("it is ahead", billing(0), func(c *Checkpoint) bool {
		return c != nil && c.Outcome == offsets.Ahead && c.Target == 11 && c.Missing == 15
	})
	k.lanes.hold(billing(0).Lane, 0, 30)
	k.until("it is translated", billing(0), func(c *Checkpoint) bool { return c.Outcome == offsets.Exact && c.Target == 26 && c.Missing == 0 })
}

func TestLanesOfOtherDaemonsAreLeftAloneUntilTheyAreOurs(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(0).Lane, 0, 100)
	k.commit("billing", 2, 7)
	k.commit("billing", 0, 5)
	k.until("ours is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil })
	k.until("the other's is not", billing(2), func(c *Checkpoint) bool { return c == nil })
	k.lanes.hold(billing(2).Lane, 0, 100)
	k.until("it is when it is ours", billing(2), func(c *Checkpoint) bool { return c != nil && c.Target == 8 })
}

func TestAnOpeningTranslatesAnew(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(0).Lane, 0, 100)
	k.commit("billing", 0, 90)
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil && c.Target == 91 })
	k.lanes.hold(billing(0).Lane, 1, 50) // the target lost its tail
	k.until("what lay beyond is withdrawn", billing(0), func(c *Checkpoint) bool {
		return c.Outcome == offsets.Ahead && c.Target == 51 && c.Missing == 40
	})
}

func TestARestartWritesNothingAgain(t *testing.T) {
	k := keep(t)
	k.cfg.CommitGroups = false
	for p := range int32(4) {
		k.lanes.hold(billing(p).Lane, 0, 100)
		k.commit("billing", p, 50)
	}
	for p := range int32(4) {
		k.until("it is checkpointed", billing(p), func(c *Checkpoint) bool { return c != nil })
	}
	k.stop()
	before := k.writtenTo("east.checkpoints.internal")
	k.start()
	k.commit("billing", 3, 60)
	k.until("it goes on", billing(3), func(c *Checkpoint) bool { return c.Source == 60 })
	// MirrorMaker 2's form is written beside ours, perhaps a moment later.
	eventually(t, "it is written in both forms", func() bool { return k.writtenTo("east.checkpoints.internal") > before })
	k.stop()
	if n := k.writtenTo("east.checkpoints.internal") - before; n != 1 {
		t.Errorf("%d checkpoints were written after the restart, want 1", n)
	}
}

func TestDaemonsThatAreLongGoneAreForgottenAtAStart(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(0).Lane, 0, 100)
	k.commit("billing", 0, 50)
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil })
	k.stop()
	cl, err := k.target.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for instance, age := range map[string]time.Duration{"old/1": 25 * time.Hour, "late/2": 23 * time.Hour} {
		key, value := encodeFreshness(Freshness{Instance: instance, Mode: FollowTail, Current: time.Now().Add(-age)})
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: k.cfg.CheckpointsTopic, Key: key, Value: value, Timestamp: time.Now().Add(-age)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	k.start()
	k.commit("billing", 0, 60)
	k.until("it goes on", billing(0), func(c *Checkpoint) bool { return c.Source == 60 })
	got, err := readTopic(t.Context(), k.target, k.cfg.CheckpointsTopic)
	if err != nil {
		t.Fatal(err)
	}
	if _, old := got.fresh["old/1"]; old || got.fresh["late/2"].Mode != FollowTail {
		t.Errorf("what daemons said is %+v: want late/2 and ours", got.fresh)
	}
}

// Another daemon had the lane in between: what it wrote counts, not what is
// remembered from before.
func TestALaneThatComesBackGoesOnFromWhatTheOtherDaemonWrote(t *testing.T) {
	k := keep(t)
	lane := billing(0).Lane
	k.lanes.hold(lane, 0, 100)
	k.commit("billing", 0, 50)
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil && c.Source == 50 })
	k.lanes.mu.Lock()
	delete(k.lanes.live, lane)
	k.lanes.mu.Unlock()
	eventually(t, "the lane is let go", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.held) == 0 })
	k.commit("billing", 0, 60)
	eventually(t, "the commit is known", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		p := k.progress[billing(0)]
		return p != nil && p.commit.Offset == 60
	})
	theirs := Checkpoint{Key: billing(0), Source: 60, LeaderEpoch: -1, Metadata: "note", Committed: time.Now(), Target: 61, Outcome: offsets.Exact, Checked: time.Now(), Placed: 61}
	cl, err := k.target.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: k.cfg.CheckpointsTopic, Key: encodeKey(theirs.Key), Value: encodeValue(&theirs)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	before := k.writtenTo("east.checkpoints.internal")
	k.lanes.hold(lane, 1, 100)
	k.commit("billing", 0, 70)
	k.until("it goes on", billing(0), func(c *Checkpoint) bool { return c.Source == 70 && c.Placed == 61 })
	if n := k.writtenTo("east.checkpoints.internal") - before; n != 1 {
		t.Errorf("%d checkpoints were written of it, want 1", n)
	}
}

// A lane that has to be opened again is not kept meanwhile: that commits of its groups are
// known is not said before they are written.
func TestFreshnessWaitsForLanesThatAreOpened(t *testing.T) {
	k := keep(t)
	lane := billing(0).Lane
	k.lanes.hold(lane, 0, 100)
	k.commit("billing", 0, 50)
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil && c.Source == 50 })
	said := func() time.Time {
		got, err := readTopic(t.Context(), k.target, k.cfg.CheckpointsTopic)
		if err != nil {
			t.Fatal(err)
		}
		return got.fresh["host/1"].Current
	}
	lost := time.Now()
	k.lanes.mu.Lock()
	delete(k.lanes.live, lane)
	k.lanes.opening = []offsets.Lane{lane}
	k.lanes.mu.Unlock()
	eventually(t, "it is known that nobody commits", func() bool { return said().After(lost) })
	k.commit("billing", 0, 60)
	committed := time.Now()
	eventually(t, "the commit is seen", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.taken.After(committed)
	})
	before := k.writtenTo(k.cfg.CheckpointsTopic)
	eventually(t, "it is said again", func() bool { return k.writtenTo(k.cfg.CheckpointsTopic) > before+1 })
	if at := said(); at.After(committed) {
		t.Errorf("commits are said to be known up to %v after one that is not written", at.Sub(committed))
	}
	k.lanes.mu.Lock()
	k.lanes.opening = nil
	k.lanes.mu.Unlock()
	k.lanes.hold(lane, 1, 100)
	eventually(t, "all are known again", func() bool { return said().After(committed) })
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c.Source == 60 })
}

// A daemon that has not been told which lanes are its own vouches for nothing.
func TestFreshnessWaitsForTheLanesToBeKnown(t *testing.T) {
	k := keep(t)
	k.stop()
	k.lanes.unknown = true
	began := time.Now()
	k.start()
	k.lanes.hold(billing(0).Lane, 0, 100)
	k.commit("billing", 0, 50)
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil && c.Source == 50 })
	got, err := readTopic(t.Context(), k.target, k.cfg.CheckpointsTopic)
	if err != nil {
		t.Fatal(err)
	}
	if said := got.fresh["host/1"].Current; said.After(began) {
		t.Errorf("it vouches for commits up to %v", said)
	}
}

// However often groups commit, the topic says how fresh it is.
func TestFreshnessIsSaidUnderSteadyCommits(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(0).Lane, 0, 1000)
	began := time.Now()
	fresh := func() bool {
		got, err := readTopic(t.Context(), k.target, k.cfg.CheckpointsTopic)
		return err == nil && got.fresh["host/1"].Current.After(began)
	}
	for at := int64(0); !fresh(); at++ {
		if time.Since(began) > 15*time.Second {
			t.Fatal("the topic does not say how fresh it is")
		}
		k.commit("billing", 0, at)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestADeletedCommitIsDeletedInOurTopicOnly(t *testing.T) {
	k := keep(t)
	k.lanes.hold(billing(0).Lane, 0, 100)
	k.commit("billing", 0, 50)
	k.until("it is checkpointed", billing(0), func(c *Checkpoint) bool { return c != nil })
	before := k.writtenTo("east.checkpoints.internal")
	if _, err := k.east.DeleteGroups(t.Context(), "billing"); err != nil {
		t.Fatal(err)
	}
	k.until("it is gone", billing(0), func(c *Checkpoint) bool { return c == nil })
	if n := k.writtenTo("east.checkpoints.internal"); n != before {
		t.Errorf("MirrorMaker's topic has %d records more", n-before)
	}
}

func TestATopicThatWasDeletedIsMadeAgainWithAllThatIsKnown(t *testing.T) {
	k := keep(t)
	for p := range int32(2) {
		k.lanes.hold(billing(p).Lane, 0, 100)
		k.commit("billing", p, 50)
		k.until("it is checkpointed", billing(p), func(c *Checkpoint) bool { return c != nil })
	}
	if _, err := k.west.DeleteTopics(t.Context(), k.cfg.CheckpointsTopic); err != nil {
		t.Fatal(err)
	}
	k.commit("billing", 0, 51)
	k.until("the other is there again", billing(1), func(c *Checkpoint) bool { return c != nil && c.Target == 51 })
}
