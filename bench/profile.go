package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/workload"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// profileRun is what is asked of a profile.
type profileRun struct {
	spec        workload.Spec
	kind, codec string
	cpu, mem    string // files
}

func newProfileCommand() *cobra.Command {
	p := &profileRun{spec: workload.Spec{Topic: "bench"}}
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Copies a topic inside this process, for profiles of nothing else",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.spec.Kind, p.spec.Codec = workload.Kind(p.kind), workload.Codec(p.codec)
			return site{}.with(cmd.Context(), func(pair *kafkatest.ClusterPair) error { return p.run(cmd.Context(), pair) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.kind, "kind", string(workload.Plain), fmt.Sprintf("of the records: %v", workload.Kinds()))
	f.StringVar(&p.codec, "codec", string(workload.LZ4), fmt.Sprintf("of the batches: %v", workload.Codecs()))
	f.IntVar(&p.spec.BatchBytes, "batch-bytes", closedBatch, "bytes of a batch before compression")
	f.IntVar(&p.spec.Records, "records", 1_000_000, "records")
	f.Int32Var(&p.spec.Partitions, "partitions", 8, "partitions")
	f.StringVar(&p.cpu, "cpuprofile", "", "`file` for the CPU profile")
	f.StringVar(&p.mem, "memprofile", "", "`file` for the profile of allocations")
	return cmd
}

func (p *profileRun) run(ctx context.Context, pair *kafkatest.ClusterPair) error {
	r, err := workload.Write(ctx, pair.Source.ClientOpts(), p.spec)
	if err != nil {
		return err
	}
	pool := wire.NewPool(64 << 20)
	source, err := openCluster(ctx, pair.Source, "east", pool)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := openCluster(ctx, pair.Target, "west", pool)
	if err != nil {
		return err
	}
	defer target.Close()
	l, err := mirror.New(mirror.Config{
		Options: mirror.Options{From: "east", To: "west", Topics: []string{"bench"}}, Pool: pool, Log: zap.NewNop(), Source: source, Target: target,
	})
	if err != nil {
		return err
	}
	bytes, err := visibleBytes(ctx, pair.Source, r)
	if err != nil {
		return err
	}
	if err := p.copy(ctx, l, r.Visible(), bytes); err != nil {
		return err
	}
	if _, err := compare.WaitEqual(ctx, pair.Source.ClientOpts(), pair.Target.ClientOpts(), compare.Same("bench"), compare.Options{}); err != nil {
		return err
	}
	if p.mem == "" {
		return nil
	}
	f, err := os.Create(p.mem)
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	runtime.GC() // what is reported is as of the last collection
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

func openCluster(ctx context.Context, c *kafkatest.Cluster, alias string, pool *wire.Pool) (*cluster.Cluster, error) {
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = c.Bootstrap()
	return cluster.Open(ctx, alias, cfg, cluster.Options{Log: zap.NewNop(), Pool: pool})
}

// copy runs the link until all records, and their bytes of keys and values, are copied.
func (p *profileRun) copy(ctx context.Context, l *mirror.Link, records, bytes int64) (err error) {
	if p.cpu != "" {
		f, err := os.Create(p.cpu)
		if err != nil {
			return fmt.Errorf("write profile: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("write profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-done)
	}()
	var began time.Time
	var first reading
	var before, copied int64
	for copied < records {
		if err := pause.For(ctx, 5*time.Millisecond); err != nil { // between two looks
			return err
		}
		s, _ := l.Status(ctx)
		copied = 0
		for _, lane := range s.Lanes {
			copied += lane.Records
		}
		if copied > 0 && began.IsZero() {
			began, before = time.Now(), copied
			if first, err = usage(os.Getpid()); err != nil {
				return err
			}
		}
	}
	wall := time.Since(began)
	pprof.StopCPUProfile()
	last, err := usage(os.Getpid())
	if err != nil {
		return err
	}
	figures, err := copyFigures(bytes, before, copied, wall, last.CPU-first.CPU)
	if err != nil {
		return err
	}
	fmt.Printf("%s %s: %s\n", p.kind, p.codec, figures)
	s, _ := l.Status(ctx)
	for _, rt := range s.Routes {
		fmt.Printf("%-8s %-12s %-7s %8d batches %9d records %11d bytes\n", rt.Route, rt.Reason, rt.Codec, rt.Batches, rt.Records, rt.Bytes)
	}
	return nil
}

// copyFigures are speed and cost of a copy of records with so many bytes in all, of
// which some were there before time and CPU were read.
func copyFigures(bytes, before, copied int64, wall, cpu time.Duration) (string, error) {
	if 2*before > copied || wall <= 0 || bytes <= 0 {
		return "", fmt.Errorf("measure the copy: %d of %d records were there at the first look: take more --records", before, copied)
	}
	gb := float64(bytes) / 1e9 * float64(copied-before) / float64(copied)
	return fmt.Sprintf("%.0f MB/s, %.3f CPU s/GB (%.2f s for %.2f GB of records)", gb*1000/wall.Seconds(), cpu.Seconds()/gb, cpu.Seconds(), gb), nil
}
