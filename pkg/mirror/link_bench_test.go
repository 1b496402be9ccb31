//go:build unix

package mirror

import (
	"context"
	"fmt"
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
	count      func() // countBatches
	counted    chan int64
	stop       func()
}

// startBenchLink starts one that outlives the run of a benchmark, until its stop
// is called.
func startBenchLink(tb testing.TB, log string, partitions int) *benchLink {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	p, stopPeer := startPeer(ctx, tb, log, int32(partitions))
	pool := wire.NewPool(64 << 20)
	open := func(alias string, addrs []string) *cluster.Cluster {
		cfg := cluster.DefaultConfig()
		cfg.BootstrapServers = addrs
		c, err := cluster.Open(ctx, alias, cfg, cluster.Options{Log: zap.NewNop(), Pool: pool, ClientID: "replicator"})
		if err != nil {
			tb.Fatal(err)
		}
		return c
	}
	source, target := open("east", p.Source), open("west", p.Target)
	link, err := New(Config{
		Options: Options{From: "east", To: "west", Topics: []string{benchTopic}}, Pool: pool, Log: zap.NewNop(), Instance: "bench",
		Source: source, Target: target,
	})
	if err != nil {
		tb.Fatal(err)
	}
	running, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- link.Run(running) }()
	stop := func() {
		end()
		if err := <-done; err != nil {
			tb.Errorf("run link: %v", err)
		}
		source.Close()
		target.Close()
		stopPeer()
		cancel()
	}
	rec := recorded.Get(tb, log)
	l := &benchLink{Link: link, peer: p, partitions: partitions, batchBytes: len(rec.Batches()[0]), counted: make(chan int64, 1), stop: stop}
	l.count = l.countBatches
	<-link.begun
	// Warm: every lane copies, and frames, lists and connections have their size.
	began := time.Now()
	l.copied(tb, max(1000, 10*int64(partitions)))
	for time.Since(began) < time.Second {
		l.copied(tb, 100)
	}
	return l
}

// batches is how many source batches have been acknowledged on the target. It
// allocates nothing, so that asking often is not part of what is measured.
func (l *benchLink) batches(tb testing.TB) int64 {
	tb.Helper()
	l.inbox.post(l.count)
	select {
	case n := <-l.counted:
		return n
	case <-l.dead:
		tb.Fatal("the link has ended")
		return 0
	}
}

// countBatches runs on the loop.
func (l *benchLink) countBatches() {
	n := int64(0)
	for _, route := range []Route{Forward, Repack} {
		for reason := range nReasons {
			for codec := range nCodecs {
				n += l.routes[route][reason][codec].Batches
			}
		}
	}
	l.counted <- n
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
// the process that plays both clusters, which bounds the speed. batches/fetch and
// batches/produce are source batches to an answer and to a request.
func BenchmarkLink(b *testing.B) {
	for _, c := range []struct{ name, log string }{
		{"64KiB-forward", recorded.Named(recorded.Large, "lz4")},
		{"4KiB-forward", recorded.Named(recorded.Medium, "lz4")},
		{"4KiB-repack", recorded.Named(recorded.Medium, "none")},
	} {
		for _, partitions := range []int{1, 100} {
			var l *benchLink // of all runs of the case: a start takes seconds
			b.Run(fmt.Sprintf("%s/%dparts", c.name, partitions), func(b *testing.B) {
				if l == nil {
					l = startBenchLink(b, c.log, partitions)
				}
				b.ResetTimer()
				before := l.peer.usage(b)
				m := recorded.Start(b, l.batchBytes)
				n := l.copied(b, int64(b.N))
				took := m.Report(int(n))
				// More than b.N were copied: what testing would compute from that is put right.
				b.ReportMetric(float64(took.Nanoseconds())/float64(n), "ns/op")
				b.ReportMetric(float64(n)*float64(l.batchBytes)/1e6/took.Seconds(), "MB/s")
				after := l.peer.usage(b)
				b.ReportMetric(float64((after.CPU-before.CPU).Nanoseconds())/float64(n), "peer-cpu-ns/batch")
				b.ReportMetric(float64(n)/float64(after.Fetches-before.Fetches), "batches/fetch")
				b.ReportMetric(float64(n)/float64(after.Produces-before.Produces), "batches/produce")
				l.steady(b)
			})
			if l != nil {
				l.stop()
			}
		}
	}
}
