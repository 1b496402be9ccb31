package compare

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

const windowBytes = 32 << 20 // of keys and values looked ahead on one side of a partition

// Pair names a source topic and the target topic that should equal it.
type Pair struct{ Source, Target string }

// Same pairs topics with the topics of the same name.
func Same(topics ...string) []Pair {
	out := make([]Pair, len(topics))
	for i, t := range topics {
		out[i] = Pair{t, t}
	}
	return out
}

// Partition is a source topic and partition.
type Partition struct {
	Topic     string
	Partition int32
}

// Options tell what part of the logs is compared and what is tolerated. The
// zero value compares all and tolerates nothing.
type Options struct {
	// From is the source offset a partition is compared from. Without it, from
	// where the source's log starts. An offset below the log start is an error:
	// what is gone cannot be compared.
	From map[Partition]int64
	// TargetFrom is the target offset, by SOURCE topic and partition, that From
	// corresponds to. Without it, the start of the target's log.
	TargetFrom map[Partition]int64
	// SkipTargetPrefix lets the target begin with records the source has no
	// more (retention passed them): everything before the first source record
	// is counted as Skipped.
	SkipTargetPrefix bool
	// Prefix lets the target end early: source records after the last target
	// record are counted as Lag. For comparing while a copy is running, or
	// after a source was lost.
	Prefix bool

	// MaxDifferences are kept in detail for each partition, 20 by default.
	MaxDifferences int
	// Window is how many records of one partition are looked ahead on each side
	// to find where streams agree again, 8192 by default.
	Window int
	// Parallel is how many partitions are compared at the same time, 4 by default.
	Parallel int

	// Poll is how often WaitEqual looks at the target, 200 ms by default.
	Poll time.Duration
	// Progress is told how far WaitEqual is, at every poll.
	Progress func(Progress)
}

func (o Options) withDefaults() Options {
	o.MaxDifferences = cmp.Or(o.MaxDifferences, 20)
	o.Window = max(cmp.Or(o.Window, 8192), 2*runLength)
	o.Parallel = cmp.Or(o.Parallel, 4)
	o.Poll = cmp.Or(o.Poll, 200*time.Millisecond)
	return o
}

// Topics compares target topics with source topics. The ends are fixed at the
// call, first the target's, then the source's: a record acknowledged on the
// source during the call is not expected on the target's side unless it was
// read there, see [Options.Prefix].
//
// The error is about not being able to compare. What differs is in the report.
func Topics(ctx context.Context, source, target Cluster, pairs []Pair, opts Options) (Report, error) {
	s, t, err := open(source, target)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	defer t.close()
	return topics(ctx, s, t, pairs, opts.withDefaults())
}

func open(source, target Cluster) (*reader, *reader, error) {
	s, err := newReader(source)
	if err != nil {
		return nil, nil, fmt.Errorf("open source: %w", err)
	}
	t, err := newReader(target)
	if err != nil {
		s.close()
		return nil, nil, fmt.Errorf("open target: %w", err)
	}
	return s, t, nil
}

func topics(ctx context.Context, source, target *reader, pairs []Pair, opts Options) (Report, error) {
	begun := time.Now()
	var report Report
	var err error
	if report.Partitions, err = plan(ctx, source, target, pairs, opts); err != nil {
		return Report{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.Parallel)
	for i := range report.Partitions {
		g.Go(func() error { return partition(gctx, source, target, opts, &report.Partitions[i]) })
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	sums := [2]*xxhash.Digest{xxhash.New(), xxhash.New()}
	for _, p := range report.Partitions {
		report.Total.add(p.Counts)
		for i, s := range []uint64{p.SourceSum, p.TargetSum} {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], s)
			_, _ = sums[i].Write(b[:]) // a Digest never fails
		}
	}
	report.SourceSum, report.TargetSum = sums[0].Sum64(), sums[1].Sum64()
	report.Took = time.Since(begun)
	return report, nil
}

// plan fixes what is read of every partition of every pair.
func plan(ctx context.Context, source, target *reader, pairs []Pair, opts Options) ([]PartitionReport, error) {
	var sources, targets []string
	for _, p := range pairs {
		sources, targets = append(sources, p.Source), append(targets, p.Target)
	}
	tb, err := target.bounds(ctx, targets...)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	sb, err := source.bounds(ctx, sources...)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	var out []PartitionReport
	for _, pair := range pairs {
		sparts, ok := sb[pair.Source]
		if !ok {
			return nil, fmt.Errorf("source topic %s: %w", pair.Source, kerr.UnknownTopicOrPartition)
		}
		tparts := tb[pair.Target]
		all := maps.Clone(sparts)
		maps.Copy(all, tparts)
		for i, p := range slices.Sorted(maps.Keys(all)) {
			pr := PartitionReport{Source: pair.Source, Target: pair.Target, Partition: p}
			pr.SourceStart, pr.SourceEnd = sparts[p].start, sparts[p].end
			pr.TargetStart, pr.TargetEnd = tparts[p].start, tparts[p].end
			if from, ok := opts.From[Partition{pair.Source, p}]; ok {
				if from < pr.SourceStart {
					return nil, fmt.Errorf("compare %s-%d from source offset %d: log starts at %d", pair.Source, p, from, pr.SourceStart)
				}
				pr.SourceStart = min(from, pr.SourceEnd)
			}
			if from, ok := opts.TargetFrom[Partition{pair.Source, p}]; ok {
				if from < pr.TargetStart {
					return nil, fmt.Errorf("compare %s-%d from target offset %d: log starts at %d", pair.Target, p, from, pr.TargetStart)
				}
				pr.TargetStart = min(from, pr.TargetEnd)
			}
			if i == 0 && len(sparts) != len(tparts) {
				pr.Layout = 1
				pr.First = append(pr.First, Difference{Kind: Layout, SourceOffset: -1, TargetOffset: -1,
					Detail: fmt.Sprintf("%s has %d partitions, %s has %d", pair.Source, len(sparts), pair.Target, len(tparts))})
			}
			out = append(out, pr)
		}
	}
	return out, nil
}

// partition compares one partition. Both sides are read ahead by one fetch
// answer, in goroutines that end with this call.
func partition(ctx context.Context, source, target *reader, opts Options, out *PartitionReport) error {
	g, ctx := errgroup.WithContext(ctx)
	stream := func(r *reader, topic string, from, to int64) <-chan []*kgo.Record {
		ch := make(chan []*kgo.Record)
		g.Go(func() error {
			err := r.read(ctx, topic, out.Partition, from, to, func(records []*kgo.Record) error {
				select {
				case ch <- records:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
			if err != nil {
				return err // ch stays open: a cut stream must not look like an ended one
			}
			close(ch)
			return nil
		})
		return ch
	}
	l := newLockstep(
		newSide(stream(source, out.Source, out.SourceStart, out.SourceEnd)),
		newSide(stream(target, out.Target, out.TargetStart, out.TargetEnd)),
		opts, out)
	g.Go(func() error { return l.run(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("compare %s-%d with %s-%d: %w", out.Source, out.Partition, out.Target, out.Partition, err)
	}
	return nil
}
