package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/internal/status"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/heartbeat"
	"replicator/pkg/mirror"
	"replicator/pkg/verify"
)

// openAgain is the time between two tries to reach a cluster that could not be
// reached at the start.
const openAgain = 10 * time.Second

// link is a link of the configuration and what works for it.
type link struct {
	cfg    *config.Link
	opts   mirror.Options
	paired bool // there is a governed link of the other direction

	mu      sync.Mutex // all below is made when both clusters have been reached
	mirror  *mirror.Link
	keeper  *checkpoint.Keeper // nil where checkpoints.follow is off
	emitter *heartbeat.Emitter // nil where heartbeats.enabled is false
	compare *verify.Follower   // nil where verify.share is 0
	guard   *mirror.Guard      // stands in for mirror while the source cannot be reached
	missing error              // why a cluster could not be reached last
}

// prepare makes the link, the keeper of its groups and the emitter of its
// heartbeats. Both clusters are open.
func (d *Daemon) prepare(l *link) error {
	lc := l.cfg
	source, target := d.cluster(lc.From), d.cluster(lc.To)
	m, err := mirror.New(mirror.Config{
		Options: l.opts, Source: source, Target: target, Pool: d.pool, Log: d.log, Instance: d.instance, Authority: d.authorityOf(l, target),
	})
	if err != nil {
		return err
	}
	var e *heartbeat.Emitter
	if lc.Heartbeats.Enabled {
		e = heartbeat.New(heartbeat.Config{
			Cluster: source, Source: lc.From, Target: lc.To, Interval: lc.Heartbeats.Interval, Log: d.log.With(zap.String("link", lc.Name)),
		})
	}
	k, err := d.keeper(lc, m, source, target)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mirror, l.keeper, l.emitter, l.guard, l.missing = m, k, e, nil, nil
	l.compare = d.follower(l, source, target)
	return nil
}

// follower is what compares a share of what the link copies.
func (d *Daemon) follower(l *link, source, target *cluster.Cluster) *verify.Follower {
	if l.cfg.Verify.Share == 0 {
		return nil
	}
	return verify.NewFollower(verify.FollowConfig{
		Source: source, Target: target, Link: l.mirror, Share: l.cfg.Verify.Share, BytesPerSecond: int64(l.cfg.Verify.Rate),
		ReadCommitted: l.cfg.Isolation == "read_committed", MaxDecodedBytes: l.opts.MaxDecodedBytes, Log: d.log.With(zap.String("link", l.cfg.Name)),
	})
}

func (d *Daemon) keeper(lc *config.Link, l *mirror.Link, source, target *cluster.Cluster) (*checkpoint.Keeper, error) {
	if lc.Checkpoints.Follow == "off" || len(lc.Groups) == 0 {
		return nil, nil
	}
	include, err := config.Compile(lc.Groups)
	if err != nil {
		return nil, fmt.Errorf("link %s: groups: %w", lc.Name, err)
	}
	exclude, err := config.Compile(lc.GroupsExclude)
	if err != nil {
		return nil, fmt.Errorf("link %s: groups_exclude: %w", lc.Name, err)
	}
	c := lc.Checkpoints
	return checkpoint.New(checkpoint.Config{
		Source: source, Target: target, Link: l, Closed: l.Closed,
		Group: func(name string) bool { return include.Match(name) && !exclude.Match(name) }, Topic: l.Copies,
		Follow: c.Follow, Interval: c.Interval, CommitGroups: c.CommitGroups, MirrorMaker: c.MirrorMaker,
		CheckpointsTopic: c.Topic, ReplicationFactor: int16(c.ReplicationFactor), Instance: d.instance,
		Log: d.log.With(zap.String("link", lc.Name)),
	}), nil
}

// run copies until ctx ends. A link whose clusters were not all reached at the
// start guards its fence until they are.
func (d *Daemon) run(ctx context.Context, l *link) error {
	if l.mirror == nil {
		if err := d.await(ctx, l); err != nil || ctx.Err() != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.mirror.Run(ctx) })
	if l.keeper != nil {
		g.Go(func() error { l.keeper.Run(ctx); return nil })
	}
	if l.emitter != nil {
		g.Go(func() error { l.emitter.Run(ctx); return nil })
	}
	if l.compare != nil {
		g.Go(func() error { l.compare.Run(ctx); return nil })
	}
	return g.Wait()
}

// await guards the link's fence, and tries to reach what could not be reached,
// until it is there.
func (d *Daemon) await(ctx context.Context, l *link) error {
	guarding, stop := context.WithCancel(ctx)
	var guard sync.WaitGroup
	defer guard.Wait()
	defer stop()
	every := time.NewTicker(d.openAgain)
	defer every.Stop()
	for {
		if target := d.cluster(l.cfg.To); target != nil && l.guard == nil {
			g := mirror.NewGuard(mirror.GuardConfig{
				Options: l.opts, Target: target, Log: d.log, Instance: d.instance, Authority: d.authorityOf(l, target),
			})
			l.mu.Lock()
			l.guard = g
			l.mu.Unlock()
			guard.Go(func() { g.Run(guarding) })
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
		err := d.reach(ctx, l.cfg.From)
		if err == nil {
			err = d.reach(ctx, l.cfg.To)
		}
		if err == nil {
			break
		}
		l.mu.Lock()
		l.missing = err
		l.mu.Unlock()
		d.log.Warn("cluster is not reached, trying again", zap.String("link", l.cfg.Name), zap.Duration("every", d.openAgain), zap.Error(err))
	}
	stop()
	guard.Wait()
	d.log.Info("cluster is reached: the link starts", zap.String("link", l.cfg.Name))
	return d.prepare(l)
}

// status takes a snapshot of one link.
func (l *link) status(ctx context.Context) status.Link {
	l.mu.Lock()
	m, k, e, g, v, missing := l.mirror, l.keeper, l.emitter, l.guard, l.compare, l.missing
	l.mu.Unlock()
	var s status.Link
	switch {
	case m != nil:
		ls, ok := m.Status(ctx)
		if !ok {
			ls.State = observe.Silent
		}
		s.LinkStatus = ls
	case g != nil:
		s.LinkStatus = g.Status()
	default:
		s.LinkStatus = mirror.LinkStatus{Name: l.cfg.Name, Source: l.cfg.From, Target: l.cfg.To, State: mirror.LinkStarting, LaneStates: map[mirror.LaneState]int{}}
	}
	if m == nil && missing != nil {
		if s.Reason != "" {
			s.Reason += "; "
		}
		s.Reason += missing.Error()
	}
	if k != nil {
		cs := k.Status()
		s.Checkpoints = &cs
	}
	if e != nil {
		hs := e.Status()
		s.Heartbeats = &hs
	}
	if v != nil {
		compared(&s, v)
	}
	return s
}

// keptEvents is how many events a link's status has.
const keptEvents = 100

// compared puts what a follower found into a link's status, its events among the link's.
func compared(l *status.Link, v *verify.Follower) {
	s, events, counted := v.Status()
	l.Verify = &s
	if counted == 0 {
		return
	}
	if l.EventCounts == nil {
		l.EventCounts = map[string]int64{}
	}
	l.EventCounts[mirror.EventDifference] += counted
	l.Events = append(slices.Clone(l.Events), events...)
	slices.SortStableFunc(l.Events, func(a, b mirror.Event) int { return a.Time.Compare(b.Time) })
	if n := len(l.Events) - keptEvents; n > 0 {
		l.Events = l.Events[n:]
	}
}
