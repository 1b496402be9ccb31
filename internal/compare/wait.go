package compare

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"replicator/internal/pause"
)

// finalTime is what WaitEqual still takes for its comparison when its context
// has ended before the target caught up: the report is why one waited.
const finalTime = 30 * time.Second

// Progress is how far a target has come, in records a consumer can see.
type Progress struct {
	Source, Target int64
	Behind         int // partitions that are not caught up
	Elapsed        time.Duration
}

func (p Progress) String() string {
	return fmt.Sprintf("target %d of %d records, %d partitions behind, %s", p.Target, p.Source, p.Behind, p.Elapsed.Round(time.Millisecond))
}

// ErrBehind is returned by WaitEqual, with the report, when the context ended
// before the target had as many records as the source.
var ErrBehind = errors.New("target did not catch up")

// WaitEqual waits until every partition of the target holds as many records as
// its source has now, or ctx ends, then compares both fully. The source must
// not be written to meanwhile. The error is nil only when the target caught up
// and the report is equal; the report is valid in every case but an error that
// says the comparison could not be made.
func WaitEqual(ctx context.Context, source, target Cluster, pairs []Pair, opts Options) (Report, error) {
	opts = opts.withDefaults()
	s, t, err := open(source, target)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	defer t.close()

	behind := wait(ctx, s, t, pairs, opts)
	if behind != nil && ctx.Err() == nil {
		return Report{}, behind
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), finalTime)
		defer cancel()
	}
	report, err := topics(ctx, s, t, pairs, opts)
	if err != nil {
		return Report{}, errors.Join(behind, err)
	}
	return report, errors.Join(behind, report.Err())
}

// counter follows the records of one partition of a side.
type counter struct {
	next  int64 // offset counted up to
	count int64
	last  uint64 // hash of the last record counted
}

// read counts on to the offset `to`.
func (c *counter) read(ctx context.Context, r *reader, topic string, partition int32, to int64) error {
	err := r.read(ctx, topic, partition, c.next, to, func(records []*kgo.Record) error {
		last := records[len(records)-1]
		c.count += int64(len(records))
		c.last = hashOf(last)
		c.next = last.Offset + 1 // a read that is cut off goes on here
		return nil
	})
	if err == nil {
		c.next = max(c.next, to)
	}
	return err
}

// wait returns nil once the target has caught up, and ErrBehind with the
// progress made when ctx ends before.
func wait(ctx context.Context, s, t *reader, pairs []Pair, opts Options) error {
	begun := time.Now()
	parts, err := plan(ctx, s, t, pairs, opts)
	if err != nil {
		return err
	}
	src, dst := make([]counter, len(parts)), make([]counter, len(parts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.Parallel)
	for i, p := range parts {
		src[i].next, dst[i].next = p.SourceStart, p.TargetStart
		g.Go(func() error { return src[i].read(gctx, s, p.Source, p.Partition, p.SourceEnd) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("count source records: %w", err)
	}
	targets := make([]string, len(pairs))
	for i, p := range pairs {
		targets[i] = p.Target
	}
	for {
		ends, err := t.bounds(ctx, targets...)
		if err == nil {
			g, gctx := errgroup.WithContext(ctx)
			g.SetLimit(opts.Parallel)
			for i, p := range parts {
				b, ok := ends[p.Target][p.Partition]
				if !ok || b.end <= dst[i].next {
					continue
				}
				g.Go(func() error {
					dst[i].next = max(dst[i].next, b.start)
					return dst[i].read(gctx, t, p.Target, p.Partition, b.end)
				})
			}
			err = g.Wait()
		}
		if err != nil {
			err = fmt.Errorf("count target records: %w", err) // brokers come back: only ctx ends the wait
		}
		progress := Progress{Elapsed: time.Since(begun)}
		for i := range parts {
			progress.Source += src[i].count
			progress.Target += dst[i].count
			if !caughtUp(src[i], dst[i], opts) {
				progress.Behind++
			}
		}
		if opts.Progress != nil {
			opts.Progress(progress)
		}
		if err == nil && progress.Behind == 0 {
			return nil
		}
		if pause.For(ctx, opts.Poll) != nil {
			return errors.Join(fmt.Errorf("%w: %s: %w", ErrBehind, progress, context.Cause(ctx)), err)
		}
	}
}

func caughtUp(src, dst counter, opts Options) bool {
	if opts.SkipTargetPrefix { // counts say nothing: the target may hold more in front
		return src.count == 0 || dst.last == src.last && dst.count >= src.count
	}
	return dst.count >= src.count
}
