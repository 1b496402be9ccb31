package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"replicator/internal/rusage"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
)

// link is the run's own link.
type link struct {
	*mirror.Link
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	err    error         // of Run, then
}

// startLink starts it. It outlives ctx until stop is called, so that a clean stop
// can be waited for.
func (b *Bench) startLink(ctx context.Context) (*link, error) {
	l, err := mirror.New(mirror.Config{
		Options: b.options, Source: b.source, Target: b.target, Pool: b.pool, Log: b.log, Instance: b.names.topic,
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	lk := &link{Link: l, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(lk.ended)
		lk.err = l.Run(running)
	}()
	return lk, nil
}

// stop ends the link cleanly and waits for it; it may be called again.
func (l *link) stop() error {
	l.cancel()
	<-l.ended
	return l.err
}

// sample is a link at one moment.
type sample struct {
	at             time.Time
	records        int64
	copying        bool // some lane may have begun to
	cpu            time.Duration
	source, target cluster.DataTraffic
	status         mirror.LinkStatus
}

func (b *Bench) sample(ctx context.Context, l *link) (sample, error) {
	select {
	case <-l.ended:
		return sample{}, errors.Join(errors.New("the link ended"), l.err)
	default:
	}
	s := sample{at: time.Now(), cpu: rusage.CPU(), source: b.source.DataTraffic(), target: b.target.DataTraffic()}
	var ok bool
	if s.status, ok = l.Status(ctx); !ok {
		return s, fmt.Errorf("ask the link: %w", ctx.Err())
	}
	for _, ln := range s.status.Lanes {
		s.records += ln.Records
		s.copying = s.copying || ln.State == mirror.LaneCopying || ln.Records > 0
		if ln.State == mirror.LaneHalted {
			return s, fmt.Errorf("partition %d halted: %s", ln.Partition, ln.Reason)
		}
	}
	return s, nil
}

// reason is why a link does not get on, as far as it knows.
func reason(s mirror.LinkStatus) string {
	for _, ln := range s.Lanes {
		if ln.Reason != "" {
			return fmt.Sprintf("partition %d is %s: %s", ln.Partition, ln.State, ln.Reason)
		}
	}
	return s.Reason
}

// sampleEvery is how often the copy is looked at: the time of the last record is
// known to that, and never too early.
const sampleEvery = 20 * time.Millisecond

// copied waits until the link has copied what was written. The time runs from the
// last moment at which no lane was open, when nothing had been fetched.
func (b *Bench) copied(ctx context.Context, l *link, r *Result) error {
	b.o.Progress(fmt.Sprintf("copying to cluster %s", b.link.To))
	debug.FreeOSMemory() // what writing took is not of the copy
	rusage.ResetPeak()
	var count atomic.Int64
	var last atomic.Pointer[mirror.LinkStatus]
	ctx, watched := b.watch(ctx, "copied", r.Write.Records, count.Load, func() string {
		if s := last.Load(); s != nil {
			return reason(*s)
		}
		return ""
	})
	defer watched()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	var begin sample
	for {
		s, err := b.sample(ctx, l)
		if err != nil {
			return cause(ctx, err)
		}
		count.Store(s.records)
		last.Store(&s.status)
		if !s.copying || begin.at.IsZero() {
			begin = s
		}
		if s.records >= r.Write.Records {
			r.Copy = b.copyResult(r.Write, begin, s)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *Bench) copyResult(written WriteResult, from, to sample) CopyResult {
	seconds := to.at.Sub(from.at).Seconds()
	c := CopyResult{
		Records: written.Records, Bytes: written.Bytes, Seconds: seconds,
		RecordsPerSecond: per(written.Records, seconds), MBPerSecond: per(written.Bytes, seconds) / 1e6,
		SourceWireBytes: to.source.ReadBytes - from.source.ReadBytes, TargetWireBytes: to.target.WrittenBytes - from.target.WrittenBytes,
		CPUSeconds: (to.cpu - from.cpu).Seconds(), PeakMemoryBytes: rusage.PeakMemory(),
		SourceThrottledSeconds: (to.source.Throttled - from.source.Throttled).Seconds(),
		TargetThrottledSeconds: (to.target.Throttled - from.target.Throttled).Seconds(),
	}
	c.SourceWireMBPerSecond, c.TargetWireMBPerSecond = per(c.SourceWireBytes, seconds)/1e6, per(c.TargetWireBytes, seconds)/1e6
	c.CPUSecondsPerGB = c.CPUSeconds / (float64(written.Bytes) / 1e9)
	for _, route := range to.status.Routes {
		c.batches += route.Batches
		if route.Route == "forward" {
			c.forwarded += route.Batches
			c.forwardedBytes += route.Bytes
		}
	}
	return c
}
