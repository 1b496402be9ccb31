package mirror

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
)

// GuardConfig is what a Guard needs: nothing of the link's source.
type GuardConfig struct {
	Options   Options
	Target    *cluster.Cluster
	Log       *zap.Logger
	Instance  string
	Authority Authority
}

// Guard stands in for a governed link whose source cannot be reached: while the
// authority on the target says that the link is closed, it keeps the fence. It
// copies nothing.
type Guard struct {
	cfg GuardConfig

	mu      sync.Mutex
	state   LinkState
	reason  string
	epoch   *int64
	renewer *renewer
}

// NewGuard makes a guard; Run starts it.
func NewGuard(c GuardConfig) *Guard {
	c.Options = c.Options.withDefaults()
	return &Guard{cfg: c, state: LinkStarting, reason: "it is not known yet who is authoritative"}
}

// Run guards until ctx ends. What fails is said in the status and tried again.
func (g *Guard) Run(ctx context.Context) {
	end := func() {} // of the renewal that is under way
	defer func() { end() }()
	for failures := 0; ctx.Err() == nil; {
		changed := g.cfg.Authority.Changed()
		asking, cancel := context.WithTimeout(ctx, authorityTime)
		p, err := g.cfg.Authority.Sync(asking)
		cancel()
		switch {
		case err != nil: // what was closed stays closed until the opposite is known
			err = fmt.Errorf("ask on %s who is authoritative: %w", g.cfg.Options.To, err)
		case p.Append:
			end()
			end = func() {}
			g.say(LinkStarting, p, nil)
		case g.renews():
			g.say(LinkClosed, p, g.renewer)
		default:
			var r *renewer
			if r, end, err = g.start(ctx); err == nil {
				g.say(LinkClosed, p, r)
			} else {
				end = func() {}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			g.failed(err)
			if failures++; pause.For(ctx, backoff(failures, 500*time.Millisecond, 10*time.Second)) != nil {
				return
			}
			continue
		}
		failures = 0
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// start begins to renew; end stops it and waits for that.
func (g *Guard) start(ctx context.Context) (r *renewer, end func(), err error) {
	op, err := newOpener(ctx, g.cfg.Options, g.cfg.Target, g.cfg.Log, g.cfg.Instance, false)
	if err != nil {
		return nil, nil, err
	}
	r = newRenewer(op)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { r.run(ctx) })
	return r, func() {
		cancel()
		running.Wait()
		op.journal.Close()
	}, nil
}

// renews says whether the fence is looked after. Only Run changes that.
func (g *Guard) renews() bool { return g.renewer != nil }

func (g *Guard) say(s LinkState, p Permission, r *renewer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.reason, g.epoch, g.renewer = s, p.Why, &p.Epoch, r
}

func (g *Guard) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.reason = LinkDegraded, err.Error()
	g.cfg.Log.Warn("retrying", zap.String("link", g.cfg.Options.Name), zap.Error(err))
}

// Status is how the link is that the guard stands in for.
func (g *Guard) Status() LinkStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := LinkStatus{
		Name: g.cfg.Options.Name, Source: g.cfg.Options.From, Target: g.cfg.Options.To, TargetID: g.cfg.Target.ID(),
		State: g.state, Reason: g.reason, Ready: g.state == LinkClosed, LaneStates: map[LaneState]int{}, AuthorityEpoch: g.epoch,
	}
	if g.renewer != nil {
		s.Guard = g.renewer.snapshot()
	}
	return s
}
