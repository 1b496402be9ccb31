package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/workload"
)

// groupsRun is what is asked of the measurement of many groups.
type groupsRun struct {
	*lab
	groups     int
	partitions int32
	follow     string
	pair       *kafkatest.ClusterPair
}

func newGroupsCommand() *cobra.Command {
	g := &groupsRun{}
	cmd := &cobra.Command{
		Use:   "groups",
		Short: "Measures what many consumer groups cost a daemon",
		Long: `Measures what many consumer groups cost a daemon: the time until the offsets all
of them commit at once are placed on the target, then CPU and memory with
nothing committed, and with a tenth of the offsets committed every 5 s.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if g.lab, err = openLab(cmd.Context()); err != nil {
				return err
			}
			defer g.close()
			return site{}.with(cmd.Context(), func(pair *kafkatest.ClusterPair) error {
				g.pair = pair
				_, err := g.run(cmd.Context())
				return err
			})
		},
	}
	cmd.Flags().IntVar(&g.groups, "groups", 1000, "groups")
	cmd.Flags().Int32Var(&g.partitions, "partitions", 100, "partitions each commits")
	cmd.Flags().StringVar(&g.follow, "follow", "tail", "checkpoints.follow of the daemon")
	return cmd
}

func (g *groupsRun) name(i int) string { return fmt.Sprintf("group-%04d", i) }

// groupsResult is what a number of groups costs.
type groupsResult struct {
	Groups     int           `json:"groups"`
	Partitions int           `json:"partitions"` // each commits
	Placed     time.Duration `json:"placed_ns"`  // from the first commit until the target's groups have all
	PlacedCPU  time.Duration `json:"placed_cpu_ns"`
	IdleCPU    float64       `json:"idle_cpu"` // share of a core, with nothing committed
	Rate       float64       `json:"offsets_per_second"`
	BusyCPU    float64       `json:"busy_cpu"` // at that rate
	Before     int64         `json:"before_peak_rss_bytes"`
	Peak       int64         `json:"peak_rss_bytes"`
}

func (g *groupsRun) run(ctx context.Context) (r groupsResult, err error) {
	r.Groups, r.Partitions = g.groups, int(g.partitions)
	spec := workload.Spec{Topic: "bench", Kind: workload.Plain, Partitions: g.partitions, Records: int(g.partitions) * 1000, ValueBytes: 100}
	if _, err := workload.Write(ctx, g.pair.Source.ClientOpts(), spec); err != nil {
		return r, err
	}
	d, err := g.start(ours, job{pair: g.pair, topic: "bench", link: ", checkpoints: {interval: 5s, follow: " + g.follow + "}"})
	if err != nil {
		return r, err
	}
	defer d.Kill()
	if err := d.caughtUp(ctx, int64(spec.Records)); err != nil {
		return r, err
	}
	before, err := usage(d.PID())
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := g.commit(ctx, 100, 0, g.partitions); err != nil {
		return r, err
	}
	g.say("%d groups committed %d partitions in %v", g.groups, g.partitions, time.Since(began).Round(time.Millisecond))
	if err := g.waitPlaced(ctx, d); err != nil {
		return r, err
	}
	placed, err := usage(d.PID())
	if err != nil {
		return r, err
	}
	r.Placed, r.PlacedCPU, r.Before = time.Since(began), placed.CPU-before.CPU, before.Peak
	g.say("all placed %v after the first commit; CPU %v; peak RSS %d MiB, before the groups %d MiB",
		r.Placed.Round(time.Millisecond), r.PlacedCPU.Round(time.Millisecond), placed.Peak>>20, before.Peak>>20)
	const during = 20 * time.Second
	if err := pause.For(ctx, during); err != nil { // nothing happens: what does that cost?
		return r, err
	}
	idle, err := usage(d.PID())
	if err != nil {
		return r, err
	}
	r.IdleCPU = (idle.CPU - placed.CPU).Seconds() / during.Seconds()
	g.say("nothing committed: %.2f %% of a core", 100*r.IdleCPU)
	began = time.Now()
	rounds := 0
	for ; time.Since(began) < during; rounds++ {
		tenth := int32(rounds % 10)
		if err := g.commit(ctx, 101+int64(rounds), tenth*g.partitions/10, (tenth+1)*g.partitions/10); err != nil {
			return r, err
		}
		if err := pause.For(ctx, time.Duration(rounds+1)*5*time.Second-time.Since(began)); err != nil { // a rate
			return r, err
		}
	}
	took := time.Since(began).Seconds()
	busy, err := usage(d.PID())
	if err != nil {
		return r, err
	}
	r.Rate, r.BusyCPU, r.Peak = float64(rounds*g.groups*int(g.partitions)/10)/took, (busy.CPU-idle.CPU).Seconds()/took, busy.Peak
	g.say("a tenth of the partitions committed every 5 s, %.0f offsets a second: %.1f %% of a core, peak RSS %d MiB", r.Rate, 100*r.BusyCPU, r.Peak>>20)
	return r, nil
}

// commit lets every group commit an offset in the partitions from..to.
func (g *groupsRun) commit(ctx context.Context, at int64, from, to int32) error {
	var work errgroup.Group
	work.SetLimit(8)
	for i := range g.groups {
		work.Go(func() error {
			o := kadm.Offsets{}
			for p := from; p < to; p++ {
				o.AddOffset("bench", p, at, -1)
			}
			return g.pair.Source.Admin().CommitAllOffsets(ctx, g.name(i), o)
		})
	}
	return work.Wait()
}

// waitPlaced waits until the target's groups have all offsets.
func (g *groupsRun) waitPlaced(ctx context.Context, d *moving) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	names := make([]string, g.groups)
	for i := range names {
		names[i] = g.name(i)
	}
	for want := g.groups * int(g.partitions); ; {
		have := 0
		for _, f := range g.pair.Target.Admin().FetchManyOffsets(ctx, names...) {
			f.Fetched.Each(func(o kadm.OffsetResponse) {
				if o.At >= 0 {
					have++
				}
			})
		}
		if have == want {
			return nil
		}
		if !d.Running() {
			return d.ended()
		}
		if err := pause.For(ctx, 500*time.Millisecond); err != nil { // between two looks
			return errors.Join(err, fmt.Errorf("wait for offsets: %d of %d are placed", have, want))
		}
	}
}
