//go:build unix

package mirror

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap"

	"replicator/internal/recorded"
	"replicator/pkg/cluster"
	"replicator/pkg/wire"
)

// benchLink is a link that copies without end from a source that always has more
// to a target that forgets.
type benchLink struct {
	*Link
	peer       *peer
	partitions int
	batchBytes int
}

func startBenchLink(tb testing.TB, log string, partitions int) *benchLink {
	tb.Helper()
	p := startPeer(tb, log, int32(partitions))
	pool := wire.NewPool(64 << 20)
	open := func(alias string, addrs []string) *cluster.Cluster {
		cfg := cluster.DefaultConfig()
		cfg.BootstrapServers = addrs
		c, err := cluster.Open(tb.Context(), alias, cfg, cluster.Options{Log: zap.NewNop(), Pool: pool, ClientID: "replicator"})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(c.Close)
		return c
	}
	link, err := New(Config{
		Options: Options{From: "east", To: "west", Topics: []string{benchTopic}}, Pool: pool, Log: zap.NewNop(), Instance: "bench",
		Source: open("east", p.Source), Target: open("west", p.Target),
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- link.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("run link: %v", err)
		}
	})
	rec := recorded.Get(tb, log)
	l := &benchLink{Link: link, peer: p, partitions: partitions, batchBytes: len(rec.Batches()[0])}
	<-link.begun
	// Warm: every lane copies, and frames, lists and connections have their size.
	began := time.Now()
	l.copied(tb, max(1000, 10*int64(partitions)))
	for time.Since(began) < time.Second {
		l.copied(tb, 100)
	}
	return l
}

// batches is how many source batches have been acknowledged on the target.
func (l *benchLink) batches(tb testing.TB) int64 {
	tb.Helper()
	got := make(chan int64, 1)
	l.inbox.post(func() {
		n := int64(0)
		for _, route := range []Route{Forward, Repack} {
			for reason := range nReasons {
				for codec := range nCodecs {
					n += l.routes[route][reason][codec].Batches
				}
			}
		}
		got <- n
	})
	select {
	case n := <-got:
		return n
	case <-l.dead:
		tb.Fatal("the link has ended")
		return 0
	}
}

// copied waits until at least n more batches are acknowledged, and says how many.
func (l *benchLink) copied(tb testing.TB, n int64) int64 {
	tb.Helper()
	from := l.batches(tb)
	for deadline := time.Now().Add(time.Minute); ; {
		if done := l.batches(tb) - from; done >= n {
			return done
		}
		if time.Now().After(deadline) {
			s, _ := l.Status(tb.Context())
			tb.Fatalf("%d batches were not copied in time: %+v", n, s)
		}
		time.Sleep(time.Millisecond) // polling, bounded
	}
}

// steady fails if anything but copying has happened: a lane opened again, an error.
func (l *benchLink) steady(tb testing.TB) {
	tb.Helper()
	s, ok := l.Status(tb.Context())
	if !ok || s.State != LinkCopying || s.Openings != int64(l.partitions) || len(s.Errors) > 0 {
		tb.Fatalf("not a steady state: %s (%s), %d openings of %d lanes, errors %v", s.State, s.Reason, s.Openings, l.partitions, s.Errors)
	}
}

// BenchmarkLink measures a whole link in steady state: from the answer to a fetch
// to the answer to a produce request, on loopback TCP, with everything a link does
// beside (journal, group, topology). An operation is a source batch. cpu-ns/batch
// and allocs/batch are of the process the link runs in; peer-cpu-ns/batch is of
// the process that plays both clusters, which bounds the speed.
func BenchmarkLink(b *testing.B) {
	for _, c := range []struct{ name, log string }{
		{"64KiB-forward", recorded.Named(recorded.Large, "lz4")},
		{"4KiB-forward", recorded.Named(recorded.Medium, "lz4")},
		{"4KiB-repack", recorded.Named(recorded.Medium, "none")},
	} {
		for _, partitions := range []int{1, 100} {
			outer := b
			var l *benchLink // of all runs of the case: a start takes seconds
			b.Run(fmt.Sprintf("%s/%dparts", c.name, partitions), func(b *testing.B) {
				if l == nil {
					l = startBenchLink(outer, c.log, partitions)
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				peer, cpu, began := l.peer.cpu(b), cpuTime(), time.Now()
				n := float64(l.copied(b, int64(b.N)))
				took := time.Since(began)
				cpu, peer = cpuTime()-cpu, l.peer.cpu(b)-peer
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(took.Nanoseconds())/n, "ns/op")
				b.ReportMetric(n*float64(l.batchBytes)/1e6/took.Seconds(), "MB/s")
				b.ReportMetric(float64(cpu.Nanoseconds())/n, "cpu-ns/batch")
				b.ReportMetric(float64(peer.Nanoseconds())/n, "peer-cpu-ns/batch")
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/batch")
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "B/batch")
				l.steady(b)
			})
		}
	}
}
