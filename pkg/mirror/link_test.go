package mirror_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// fakeCluster is a kfake cluster of three brokers on loopback.
func fakeCluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func open(t *testing.T, alias string, addrs []string, pool *wire.Pool) *cluster.Cluster {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = addrs
	c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{Log: testlog.New(t), Pool: pool, ClientID: "replicator"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startLink runs a link until the test ends or stop is called; stop returns what Run did.
func startLink(t *testing.T, source, target []string, o mirror.Options) (l *mirror.Link, stop func() error) {
	t.Helper()
	return startGoverned(t, source, target, o, nil)
}

// startGoverned is startLink with an authority that the link obeys.
func startGoverned(t *testing.T, source, target []string, o mirror.Options, a mirror.Authority) (l *mirror.Link, stop func() error) {
	t.Helper()
	pool := wire.NewPool(32 << 20)
	o.From, o.To = "east", "west"
	l, err := mirror.New(mirror.Config{
		Options: o, Source: open(t, "east", source, pool), Target: open(t, "west", target, pool), Pool: pool,
		Log: testlog.New(t), Instance: "test", Authority: a,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run link: %v", err)
		}
		if n := pool.Used(); n != 0 {
			t.Errorf("%d bytes of frames are held after the stop", n)
		}
	})
	return l, stop
}

func client(t *testing.T, addrs []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addrs...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func produce(t *testing.T, addrs []string, topic string, partitions, from, n int, opts ...kgo.Opt) {
	t.Helper()
	p := client(t, addrs, append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	for i := from; i < from+n; i++ {
		p.Produce(t.Context(), &kgo.Record{
			Topic: topic, Partition: int32(i % partitions), Key: fmt.Append(nil, "key-", i), Value: fmt.Append(nil, "value-", i),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// consume reads n records of a topic, by partition.
func consume(t *testing.T, addrs []string, topic string, n int) map[int32][]*kgo.Record {
	t.Helper()
	c := client(t, addrs, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMinAge(100*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got := map[int32][]*kgo.Record{}
	for have := 0; have < n; {
		f := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records of %s in time", have, n, topic)
		}
		f.EachRecord(func(r *kgo.Record) {
			got[r.Partition] = append(got[r.Partition], r)
			have++
		})
	}
	return got
}

func TestLinkCopiesATopic(t *testing.T) {
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(4, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	const n = 20000
	produce(t, src.ListenAddrs(), "orders", 4, 0, n)
	l, stop := startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}})
	got := consume(t, dst.ListenAddrs(), "orders", n)
	for p, records := range got {
		for i, r := range records {
			if want := fmt.Sprint("key-", i*4+int(p)); string(r.Key) != want {
				t.Fatalf("orders-%d record %d has key %s, want %s", p, i, r.Key, want)
			}
		}
	}
	waitUntil(t, func() bool { // records are seen on the target a moment before their answers
		s, _ := l.Status(t.Context())
		return s.LagRecords != nil && *s.LagRecords == 0
	})
	s, ok := l.Status(t.Context())
	if !ok || s.State != mirror.LinkCopying || !s.Ready || s.LaneStates[mirror.LaneCopying] != 4 || s.Openings != 4 {
		t.Errorf("status is %+v", s)
	}
	for _, ln := range s.Lanes {
		if ln.Position != n/4 || ln.Ordinal != n/4 || ln.Records != n/4 || ln.TargetEnd != n/4+1 {
			t.Errorf("lane is %+v, want %d records", ln, n/4)
		}
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

// A lane's epoch is taken anew at a regular interval, under load, and its records
// go on where they were. So does a second start.
func TestEpochsAreTakenAnew(t *testing.T) {
	t.Parallel()
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	const rounds, n = 10, 400
	l, stop := startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}, ReopenInterval: 300 * time.Millisecond})
	for i := range rounds {
		produce(t, src.ListenAddrs(), "orders", 2, i*n, n)
		want := int64(i + 1)
		waitUntil(t, func() bool {
			s, _ := l.Status(t.Context())
			return s.Openings > 2*want && s.LagRecords != nil && *s.LagRecords == 0
		})
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}})
	produce(t, src.ListenAddrs(), "orders", 2, rounds*n, n)
	for p, records := range consume(t, dst.ListenAddrs(), "orders", (rounds+1)*n) {
		if len(records) != (rounds+1)*n/2 {
			t.Errorf("orders-%d holds %d records, want %d", p, len(records), (rounds+1)*n/2)
		}
		for i, r := range records {
			if want := fmt.Sprint("key-", i*2+int(p)); string(r.Key) != want {
				t.Fatalf("orders-%d record %d has key %s, want %s", p, i, r.Key, want)
			}
		}
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(10 * time.Millisecond) // polling, bounded
	}
}
