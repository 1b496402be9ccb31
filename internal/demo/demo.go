package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"replicator/internal/pause"
	"replicator/internal/status"

	"golang.org/x/sync/errgroup"

	"replicator/pkg/mirror"
)

// Options say how a demo runs. Command and Out are needed.
type Options struct {
	// Command is how to run a daemon; the path of its configuration file follows.
	Command []string
	Out     io.Writer
	// Terminal draws a progress bar and wraps lines at Width columns; Color
	// colours. Without, lines are plain.
	Terminal bool
	Color    bool
	Width    int

	// Duration is how long the producers write, at least: they go on until the
	// last kill has been recovered from. 20 s by default.
	Duration time.Duration
	// Patience is what a demo may take beyond that. Then something hangs, and it
	// fails. 38 s by default.
	Patience time.Duration
	// Quick leaves out all kills but the first. For tests.
	Quick bool
	// BeforeProof is called with the addresses of both regions when everything
	// is copied and before both are read. For tests that show a false copy is
	// found.
	BeforeProof func(ctx context.Context, source, target []string) error
}

// How long a demo runs.
const (
	defaultDuration = 20 * time.Second
	// MinDuration and MaxDuration bound Options.Duration: shorter shows nothing,
	// and the regions keep everything in memory.
	MinDuration = time.Second
	MaxDuration = 2 * time.Minute

	defaultPatience = 38 * time.Second
	// sessionTimeout of the daemons' group: how long the lanes of a killed one
	// stay with it. As short as configurations may say, for those who watch.
	sessionTimeout = 3 * time.Second
)

// ErrInterrupted is returned when the context ended before the demo did.
var ErrInterrupted = errors.New("interrupted: nothing was proved")

// demo is one run.
type demo struct {
	opts    Options
	screen  *screen
	dir     string
	source  *region
	target  *region
	traffic *traffic
	watch   *watch
	daemons []*daemon
	fail    context.CancelCauseFunc // ends the run with an error
	kills   int
	outages []outage
}

// outage is a time in which lanes had no daemon.
type outage struct{ from, to time.Time }

// Run runs a demo and prints what it does. It returns nil only if the copy was
// proved to be right.
func Run(ctx context.Context, o Options) error {
	if o.Duration == 0 {
		o.Duration = defaultDuration
	}
	if o.Duration < MinDuration || o.Duration > MaxDuration {
		return fmt.Errorf("run demo: duration %s is not within %s and %s", o.Duration, MinDuration, MaxDuration)
	}
	o.Patience = cmp.Or(o.Patience, defaultPatience)
	limited, stop := context.WithTimeoutCause(ctx, o.Duration+o.Patience, fmt.Errorf("not done %s after the producers should have ended", o.Patience))
	defer stop()
	inner, fail := context.WithCancelCause(limited)
	defer fail(nil)

	d := &demo{opts: o, screen: newScreen(o), fail: fail}
	err := d.run(inner)
	d.screen.close()
	if err != nil && ctx.Err() != nil {
		return ErrInterrupted
	}
	if err != nil && inner.Err() != nil {
		// What ended the run is the error, not what failed because it had ended.
		err = context.Cause(inner)
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "replicator-demo-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(d.dir)
	if err := d.openRegions(); err != nil {
		return err
	}
	defer d.source.close()
	defer d.target.close()

	var background errgroup.Group
	viewing, stopViewing := context.WithCancel(ctx)
	defer func() {
		for _, dm := range d.daemons {
			_ = dm.kill() // whatever it says, it has ended
		}
		stopViewing()
		_ = background.Wait()
		d.watch.close()
	}()
	if d.traffic, err = startTraffic(ctx, d.source.addrs, d.fail); err != nil {
		return err
	}
	defer d.traffic.close()
	if d.watch, err = newWatch(d.target.addrs); err != nil {
		return err
	}
	background.Go(func() error { d.watch.run(viewing); return nil })
	background.Go(func() error { d.display(viewing); return nil })

	if err := d.story(ctx); err != nil {
		return err
	}
	stopViewing()
	_ = background.Wait() // its goroutines return nothing
	return d.prove(ctx)
}

// openRegions starts both clusters and says where they are.
func (d *demo) openRegions() (err error) {
	if d.source, err = openRegion("east"); err != nil {
		return err
	}
	if d.target, err = openRegion("west"); err != nil {
		d.source.close()
		return err
	}
	if err := d.source.createTopics(); err != nil {
		d.source.close()
		d.target.close()
		return err
	}
	d.screen.heading("replicator demo: two regions, live traffic, kill -9, a proof")
	for _, r := range []*region{d.source, d.target} {
		d.screen.say("region %s: 3 embedded brokers on %s", r.name, ports(r.addrs))
	}
	for _, t := range topics {
		d.screen.say("topic %-9s %d partitions, %s", t.name, t.partitions, t.about)
	}
	return nil
}

// story is what happens between the first record and the last.
func (d *demo) story(ctx context.Context) error {
	began := time.Now()
	d.screen.begin(d.opts.Duration)
	d.screen.event("producers write to east and do not stop for anything below")
	for _, name := range []string{"A", "B"} {
		dm, err := newDaemon(name, d.dir, d.opts.Command, d.source.addrs, d.target.addrs, d.fail)
		if err != nil {
			return err
		}
		d.daemons = append(d.daemons, dm)
		if err := d.start(ctx, dm, "started"); err != nil {
			return err
		}
	}
	a, b := d.daemons[0], d.daemons[1]
	if err := d.copying(ctx, time.Now()); err != nil {
		return err
	}
	d.screen.event("all %d partitions are copied", partitions())

	if err := pause.For(ctx, d.opts.Duration/6); err != nil {
		return err
	}
	if err := d.shared(ctx); err != nil {
		return err
	}
	if err := d.outage(ctx, nil, a); err != nil {
		return err
	}
	if err := d.start(ctx, a, "is back"); err != nil {
		return err
	}
	if !d.opts.Quick {
		if err := pause.For(ctx, d.opts.Duration/5); err != nil {
			return err
		}
		if err := d.shared(ctx); err != nil {
			return err
		}
		if err := d.outage(ctx, []*daemon{a, b}, a, b); err != nil {
			return err
		}
	}
	if err := pause.For(ctx, time.Until(began.Add(d.opts.Duration))); err != nil {
		return err
	}

	if err := d.traffic.stop(ctx); err != nil {
		return err
	}
	d.screen.event("producers have ended: %s records acknowledged, %s more aborted", number(d.traffic.visible()), number(d.traffic.aborted()))
	return d.drain(ctx)
}

func (d *demo) start(ctx context.Context, dm *daemon, what string) error {
	if err := dm.start(ctx); err != nil {
		return err
	}
	at := ""
	if url := dm.url(); url != "" {
		at = ", " + url + "/status"
	}
	d.screen.event("daemon %s %s: pid %d%s", dm.name, what, dm.pid(), at)
	return nil
}

// outage kills daemons, starts some again, and waits until every partition has
// got a record that was written after the kill.
func (d *demo) outage(ctx context.Context, again []*daemon, victims ...*daemon) error {
	at := time.Now()
	var what strings.Builder
	for i, dm := range victims {
		if i > 0 {
			what.WriteString(" and ")
		}
		fmt.Fprintf(&what, "%s (pid %d%s)", dm.name, dm.pid(), copied(dm.lastWords(ctx)))
		if err := dm.kill(); err != nil {
			return err
		}
		d.kills++
	}
	if len(again) == 0 {
		what.WriteString(": the other takes over")
	} else {
		what.WriteString(": nobody is left")
	}
	d.screen.alarm("kill -9 %s", what.String())
	for _, dm := range again {
		if err := d.start(ctx, dm, "is back"); err != nil {
			return err
		}
	}
	if err := d.copying(ctx, time.Now()); err != nil {
		return err
	}
	now := time.Now()
	d.outages = append(d.outages, outage{at, now})
	d.screen.event("all partitions are copied again, %.1f s after the kill", now.Sub(at).Seconds())
	return nil
}

// shared waits until every daemon has partitions, so that a kill takes some away.
func (d *demo) shared(ctx context.Context) error {
	for {
		idle := 0
		for _, dm := range d.daemons {
			if s, ok := dm.ask(ctx); !ok || lanes(s) == 0 {
				idle++
			}
		}
		if idle == 0 {
			return nil
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// lanes is how many partitions a daemon copies.
func lanes(s status.Status) (n int) {
	for _, l := range s.Links {
		n += l.LaneStates[mirror.LaneCopying]
	}
	return n
}

// copied says how many partitions a daemon copies, if it told.
func copied(s status.Status, ok bool) string {
	if !ok {
		return ""
	}
	return fmt.Sprintf(", copying %d partitions", lanes(s))
}

// copying waits until the target has got, in every partition, a record written
// after a moment.
func (d *demo) copying(ctx context.Context, after time.Time) error {
	return d.watch.wait(ctx, func(w *watch) bool { return w.newerThan(after) == partitions() })
}

// drain waits until the target has as many records as the producers count. What
// it then lacks, the proof names.
func (d *demo) drain(ctx context.Context) error {
	want := d.traffic.visible()
	waiting, cancel := context.WithTimeout(ctx, d.opts.Patience/2)
	defer cancel()
	began := time.Now()
	err := d.watch.wait(waiting, func(w *watch) bool { return w.records >= want })
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		d.screen.alarm("west has %s of %s records %s after the last was written", number(d.watch.count()), number(want), time.Since(began).Round(time.Second))
	default:
		d.screen.event("west has caught up, %.1f s after the last record", time.Since(began).Seconds())
	}
	// The daemons end before the proof, so that it is about what is there for good.
	began = time.Now()
	for _, dm := range d.daemons {
		dm.lastWords(ctx)
	}
	var stops errgroup.Group
	for _, dm := range d.daemons {
		stops.Go(func() error { return dm.stop(ctx) })
	}
	if err := stops.Wait(); err != nil {
		return err
	}
	d.screen.event("daemons were asked to stop and did, in %.1f s", time.Since(began).Seconds())
	return nil
}

// display shows how far the copy is.
func (d *demo) display(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.screen.progress(d.watch.count(), d.traffic.visible())
		}
	}
}

// steady are the waits of records that were not written in an outage, sorted,
// and the longest wait of those that were.
func (d *demo) steady(arrivals []arrival) (waits []time.Duration, longest time.Duration) {
	for _, a := range arrivals {
		during := slices.ContainsFunc(d.outages, func(o outage) bool {
			// A record written just before a kill may still have been on its way.
			return a.written.After(o.from.Add(-200*time.Millisecond)) && a.written.Before(o.to)
		})
		if during {
			longest = max(longest, a.wait)
		} else {
			waits = append(waits, a.wait)
		}
	}
	slices.Sort(waits)
	return waits, longest
}
