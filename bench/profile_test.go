package bench

import (
	"context"
	"os"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// TestProfile copies one topic inside the test's process and writes a CPU profile
// of nothing but the copying: BENCH_PROFILE=cpu.prof go test ./bench -run Profile -v
func TestProfile(t *testing.T) {
	file := os.Getenv("BENCH_PROFILE")
	if file == "" {
		t.Skip("a measurement: set BENCH_PROFILE to a file")
	}
	pair := kafkatest.StartPair(t, kafkatest.Config{FullJIT: true, Heap: "1g"}, kafkatest.Config{FullJIT: true, Heap: "1g"})
	kind := workload.Kind(os.Getenv("BENCH_KIND"))
	if kind == "" {
		kind = workload.Plain
	}
	codec := workload.Codec(os.Getenv("BENCH_CODEC"))
	if codec == "" {
		codec = workload.LZ4
	}
	spec := workload.Spec{Topic: "bench", Kind: kind, Codec: codec, Partitions: 8, Records: setting("BENCH_RECORDS", 1_000_000), BatchBytes: setting("BENCH_BATCH", 200<<10)}
	r, err := workload.Write(t.Context(), []kgo.Opt{kgo.SeedBrokers(pair.Source.Bootstrap()...)}, spec)
	if err != nil {
		t.Fatal(err)
	}
	pool := wire.NewPool(64 << 20)
	open := func(alias string, addrs []string) *cluster.Cluster {
		cfg := cluster.DefaultConfig()
		cfg.BootstrapServers = addrs
		c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{Log: zap.NewNop(), Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	l, err := mirror.New(mirror.Config{
		Options: mirror.Options{From: "east", To: "west", Topics: []string{"bench"}}, Pool: pool, Log: zap.NewNop(),
		Source: open("east", pair.Source.Bootstrap()), Target: open("west", pair.Target.Bootstrap()),
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var began time.Time
	var from time.Duration
	for {
		s, _ := l.Status(ctx)
		var n int64
		for _, ln := range s.Lanes {
			n += ln.Records
		}
		if n > 0 && began.IsZero() {
			began, from = time.Now(), cpuTime(t)
		}
		if n >= r.Visible() {
			break
		}
		time.Sleep(5 * time.Millisecond) // sampling
	}
	wall, cpu := time.Since(began), cpuTime(t)-from
	pprof.StopCPUProfile()
	gb := float64(r.Bytes) / 1e9
	t.Logf("%s %s: %.0f MB/s, %.3f CPU s/GB (%.2f s for %.2f GB of records)", kind, codec, gb*1000/wall.Seconds(), cpu.Seconds()/gb, cpu.Seconds(), gb)
	s, _ := l.Status(ctx)
	for _, rt := range s.Routes {
		t.Logf("%-8s %-12s %-7s %8d batches %9d records %11d bytes", rt.Route, rt.Reason, rt.Codec, rt.Batches, rt.Records, rt.Bytes)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := compare.WaitEqual(t.Context(), compare.Seeds(pair.Source.Bootstrap()...), compare.Seeds(pair.Target.Bootstrap()...), compare.Same("bench"), compare.Options{}); err != nil {
		t.Error(err)
	}
}

func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
