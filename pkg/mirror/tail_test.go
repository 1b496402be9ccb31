package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/overquota"
	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// copied is a target that a link has written, and its journal.
type copied struct {
	t      *testing.T
	source *kfake.Cluster
	target *kfake.Cluster
	west   *cluster.Cluster
	client *kgo.Client // of the target
}

const realJournal = "replicator.east.west.journal"

func newCopied(t *testing.T) *copied {
	t.Helper()
	c := &copied{t: t}
	for id, cl := range map[string]**kfake.Cluster{"east-id": &c.source, "west-id": &c.target} {
		fake, err := kfake.NewCluster(kfake.ClusterID(id), kfake.NumBrokers(2), kfake.SeedTopics(3, "orders"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(fake.Close)
		*cl = fake
	}
	c.west = c.open("west", c.target, wire.NewPool(32<<20))
	c.client = c.kgo(c.target)
	return c
}

func (c *copied) open(alias string, fake *kfake.Cluster, pool *wire.Pool) *cluster.Cluster {
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = fake.ListenAddrs()
	cl, err := cluster.Open(c.t.Context(), alias, cfg, cluster.Options{Log: testlog.New(c.t), Pool: pool})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

func (c *copied) kgo(fake *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// transactions writes transactions of a record for each partition to the source.
func (c *copied) transactions(n int) {
	c.t.Helper()
	p := c.kgo(c.source, kgo.TransactionalID("app"))
	for range n {
		if err := p.BeginTransaction(); err != nil {
			c.t.Fatal(err)
		}
		for partition := range int32(3) {
			p.Produce(c.t.Context(), &kgo.Record{Topic: "orders", Partition: partition, Value: []byte("x")}, nil)
		}
		if err := p.Flush(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		if err := cluster.EndTransaction(c.t.Context(), p, kgo.TryCommit, "orders"); err != nil {
			c.t.Fatal(err)
		}
	}
}

// foreign writes a record to the target beside the link.
func (c *copied) foreign() {
	c.t.Helper()
	r := &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("foreign")}
	if err := c.client.ProduceSync(c.t.Context(), r).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
}

// run copies what the source holds, calls during when that is done, copies what came of it, and
// stops.
func (c *copied) run(during func()) {
	c.t.Helper()
	pool := wire.NewPool(32 << 20)
	l, err := mirror.New(mirror.Config{
		Options: mirror.Options{From: "east", To: "west", Topics: []string{"orders"}, AppendToExisting: true},
		Source:  c.open("east", c.source, pool), Target: c.open("west", c.target, pool), Pool: pool,
		Log: testlog.New(c.t), Instance: "test",
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for _, f := range []func(){func() {}, during} {
		f()
		c.caughtUp(l)
	}
	cancel()
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
}

func (c *copied) caughtUp(l *mirror.Link) {
	c.t.Helper()
	want, err := kadm.NewClient(c.kgo(c.source)).ListEndOffsets(c.t.Context(), "orders")
	if err != nil {
		c.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		j := c.journal(realJournal)
		behind := ""
		want.Each(func(o kadm.ListedOffset) {
			state := j.State(offsets.Lane{Topic: "orders", Partition: o.Partition})
			opened, _ := state.Last() // a lane that has copied nothing since has no position
			if p, _ := state.Position(); max(opened.Source, p.Source) < o.Offset {
				behind = fmt.Sprintf("orders-%d is at %d of %d", o.Partition, max(opened.Source, p.Source), o.Offset)
			}
		})
		if behind == "" {
			return
		}
		if time.Now().After(deadline) {
			s, _ := l.Status(c.t.Context())
			c.t.Fatalf("%s: %+v", behind, s)
		}
	}
}

// journal opens a journal on the target to read it, if it is there.
func (c *copied) journal(topic string) *offsets.Journal {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		j, err := offsets.OpenJournal(c.t.Context(), offsets.JournalConfig{Client: c.west.NewClient, Admin: c.west.Admin(), Topic: topic, ReadOnly: true})
		if err == nil {
			c.t.Cleanup(j.Close)
			return j
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err)
		}
	}
}

// rewritten copies the journal to another topic; change returns what becomes of an entry, nil for
// nothing.
func (c *copied) rewritten(topic string, change func(offsets.Entry) offsets.Entry) *offsets.Journal {
	c.t.Helper()
	topics, err := c.west.Admin().ListTopics(c.t.Context(), realJournal)
	if err != nil {
		c.t.Fatal(err)
	}
	compact := "compact"
	if _, err := c.west.Admin().CreateTopic(c.t.Context(), int32(len(topics[realJournal].Partitions)), 1, map[string]*string{"cleanup.policy": &compact}, topic); err != nil {
		c.t.Fatal(err)
	}
	ends, err := c.west.Admin().ListEndOffsets(c.t.Context(), realJournal)
	if err != nil {
		c.t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	reader := c.kgo(c.target, kgo.ConsumeTopics(realJournal), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for left > 0 {
		fetches := reader.PollFetches(c.t.Context())
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			e, err := offsets.DecodeEntry(r.Key, r.Value)
			if err != nil {
				c.t.Fatal(err)
			}
			if e = change(e); e == nil {
				return
			}
			key, value := offsets.EncodeEntry(e)
			if err := c.client.ProduceSync(c.t.Context(), &kgo.Record{Topic: topic, Partition: r.Partition, Key: key, Value: value}).FirstErr(); err != nil {
				c.t.Fatal(err)
			}
		})
	}
	return c.journal(topic)
}

func (c *copied) tails(j *offsets.Journal) map[offsets.Lane]offsets.Tail {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	tails, err := offsets.ReadTails(ctx, c.west, j, func(l offsets.Lane) string { return l.Topic }, j.Lanes())
	if err != nil {
		c.t.Fatal(err)
	}
	if len(tails) != 3 {
		c.t.Fatalf("%d lanes, want 3", len(tails))
	}
	return tails
}

// The journal's position can be old.
func TestTheTargetsLogSaysWhatTheJournalDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	c := newCopied(t)
	c.foreign() // before the lanes begin
	c.transactions(30)
	c.run(func() {
		c.foreign()
		c.transactions(30)
	})
	c.run(func() { c.transactions(5) })
	j := c.journal(realJournal)
	old := c.rewritten("old.journal", func(e offsets.Entry) offsets.Entry {
		switch e.(type) {
		case offsets.Position, offsets.Deletion:
			return nil
		}
		return e
	})
	// Brokers that hang up are asked again.
	for _, key := range []kmsg.Key{kmsg.ListOffsets, kmsg.Metadata} {
		c.target.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, errors.New("connection lost"), true
		})
	}
	var hungUp atomic.Bool
	c.target.ControlKey(kmsg.Fetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.target.KeepControl()
		if f := req.(*kmsg.FetchRequest); f.MaxBytes == 8<<20 && f.MaxWaitMillis == 100 && !hungUp.Swap(true) {
			return nil, errors.New("connection lost"), true
		}
		return nil, nil, false
	})
	defer func() {
		if !hungUp.Load() {
			t.Error("no fetch of the tail was seen")
		}
	}()
	for l, tail := range c.tails(old) {
		if tail.Err != nil || tail.Warning != "" {
			t.Fatalf("%v: %v, warning %q", l, tail.Err, tail.Warning)
		}
		want, _ := j.State(l).Position()
		if want.Source < 130 {
			t.Fatalf("%v: only copied to source offset %d", l, want.Source)
		}
		if got, _ := old.State(l).Position(); got.Ordinal != 0 {
			t.Fatalf("%v: the journal has position %v", l, got)
		}
		got, _ := tail.State.Position()
		if got.Ordinal != want.Ordinal || got.Target != want.Target {
			t.Errorf("%v: position %+v, want %+v", l, got, want)
		}
		for target := range want.Target {
			a, b := tail.State.TranslateBack(target), j.State(l).TranslateBack(target)
			if a.Outcome == offsets.Exact != (b.Outcome == offsets.Exact) || a.Outcome == offsets.Exact && a.To != b.To {
				t.Errorf("%v: target offset %d: %+v, want %+v", l, target, a, b)
			}
		}
		if tail.Start != 0 || tail.End != want.Target || tail.TargetTopic != "orders" {
			t.Errorf("%v: log of %s from %d to %d, position at %d", l, tail.TargetTopic, tail.Start, tail.End, want.Target)
		}
	}
}

// A broker answers whoever is over a quota with nothing: that is not the end of a log.
func TestAQuotaCutsNoTail(t *testing.T) {
	t.Parallel()
	c := newCopied(t)
	c.transactions(30)
	c.run(func() {})
	j := c.journal(realJournal)
	old := c.rewritten("old.journal", func(e offsets.Entry) offsets.Entry {
		if _, ok := e.(offsets.Position); ok {
			return nil
		}
		return e
	})
	left := overquota.Fetches(c.target, 60, time.Millisecond, func(f *kmsg.FetchRequest) bool { return f.MaxBytes == 8<<20 && f.MaxWaitMillis == 100 })
	for l, tail := range c.tails(old) {
		want, _ := j.State(l).Position()
		if got, _ := tail.State.Position(); tail.Err != nil || got.Target != want.Target || want.Target == 0 {
			t.Errorf("%v: read to target offset %d, want %d: %v", l, got.Target, want.Target, tail.Err)
		}
	}
	if left.Load() != 0 {
		t.Errorf("%d throttled answers are still to come", left.Load())
	}
	// Where there is not time enough, that is said: nothing is wrong with the lanes.
	overquota.Fetches(c.target, 1000, time.Second, func(f *kmsg.FetchRequest) bool { return f.MaxBytes == 8<<20 && f.MaxWaitMillis == 100 })
	hurried, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	tails, err := offsets.ReadTails(hurried, c.west, old, func(l offsets.Lane) string { return l.Topic }, old.Lanes())
	if err != nil {
		t.Fatal(err)
	}
	for l, tail := range tails {
		if tail.Err == nil || !tail.Unread {
			t.Errorf("%v, of which there was no time to read: unread %v, %v", l, tail.Unread, tail.Err)
		}
	}
}

// A leader that moves is waited for. Where all replicas are down nothing moves.
func TestAPartitionWhoseReplicasAreAllDownIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	c := newCopied(t)
	c.transactions(1)
	c.run(func() {})
	j := c.journal(realJournal)
	c.target.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.target.KeepControl()
		m := req.(*kmsg.MetadataRequest)
		if len(m.Topics) != 1 || m.Topics[0].Topic == nil || *m.Topics[0].Topic != "orders" {
			return nil, nil, false
		}
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = m.Topics[0].Topic
		for i := range int32(3) {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.ErrorCode, p.Replicas, p.OfflineReplicas = i, -1, kerr.LeaderNotAvailable.Code, []int32{7, 8}, []int32{8, 7}
			topic.Partitions = append(topic.Partitions, p)
		}
		resp := m.ResponseKind().(*kmsg.MetadataResponse)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	began := time.Now()
	for l, tail := range c.tails(j) {
		if !tail.Unread || tail.Err == nil || !strings.Contains(tail.Err.Error(), "all its replicas are on brokers that are down, [7 8]") {
			t.Errorf("%v: unread %v, %v", l, tail.Unread, tail.Err)
		}
	}
	if took := time.Since(began); took > 8*time.Second { // a leader would be waited for longer
		t.Errorf("it took %v", took)
	}
}

func TestALogWithoutItsTailIsTranslatedAsFarAsItGoes(t *testing.T) {
	t.Parallel()
	c := newCopied(t)
	c.transactions(20)
	c.run(func() {})
	ahead := c.rewritten("ahead.journal", func(e offsets.Entry) offsets.Entry {
		if p, ok := e.(offsets.Position); ok {
			p.Ordinal, p.Source, p.Target = p.Ordinal+7, p.Source+7, p.Target+7
			return p
		}
		return e
	})
	for l, tail := range c.tails(ahead) {
		known, _ := ahead.State(l).Position()
		got, _ := tail.State.Position()
		if tail.Err != nil || !strings.Contains(tail.Warning, "lost its tail") || got.Target != tail.End || got.Ordinal != known.Ordinal-7 {
			t.Fatalf("%v: %v, warning %q, ends at %d, position %+v, journal %+v", l, tail.Err, tail.Warning, tail.End, got, known)
		}
		if tr := tail.State.Translate(known.Source); tr.Outcome != offsets.Ahead || tr.To != tail.End {
			t.Errorf("%v: the journal's end is %+v", l, tr)
		}
	}
}

func TestRecordsThatTheJournalDoesNotKnowAreAnError(t *testing.T) {
	t.Parallel()
	c := newCopied(t)
	c.transactions(5)
	c.run(func() {})
	c.transactions(5)
	c.run(func() {})
	newest := map[offsets.Lane]offsets.Writer{}
	j := c.journal(realJournal)
	for _, l := range j.Lanes() {
		e, _ := j.State(l).Last()
		newest[l] = e.Writer
	}
	poor := c.rewritten("poor.journal", func(e offsets.Entry) offsets.Entry {
		if k := e.Key(); k.Lane.Partition == 1 && k.Writer == newest[k.Lane] {
			return nil
		}
		return e
	})
	for l, tail := range c.tails(poor) {
		if failed := tail.Err != nil && strings.Contains(tail.Err.Error(), "not known to the journal"); failed != (l.Partition == 1) {
			t.Errorf("%v: %v", l, tail.Err)
		}
	}
}

func TestATailOfAMissingTopicIsAnErrorOfItsLane(t *testing.T) {
	t.Parallel()
	c := newCopied(t)
	c.transactions(1)
	c.run(func() {})
	j := c.journal(realJournal)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tails, err := offsets.ReadTails(ctx, c.west, j, func(l offsets.Lane) string {
		if l.Partition == 2 {
			return "nowhere"
		}
		return l.Topic
	}, append(j.Lanes(), offsets.Lane{Topic: "orders", Partition: 9}))
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range map[int32]string{0: "", 1: "", 2: "does not exist", 9: "has 3 partitions"} {
		tail := tails[offsets.Lane{Topic: "orders", Partition: l}]
		got := tail.Err
		if tail.Unread {
			t.Errorf("partition %d: asking again is said to help with %v", l, got)
		}
		if (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
			t.Errorf("partition %d: %v, want %q", l, got, want)
		}
	}
}
