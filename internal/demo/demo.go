package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"replicator/pkg/evidence"
)

// Options say how a demo runs. Command and Out are needed.
type Options struct {
	// Command is this program, as daemons, regions and commands are started.
	Command []string
	Out     io.Writer
	// Terminal draws a progress bar and wraps lines at Width columns; Color
	// colours. Without, lines are plain.
	Terminal bool
	Color    bool
	Width    int

	// Duration is how long all is well before the first region is lost. 6 s by default.
	Duration time.Duration
	// Patience is what a demo may take beyond that. Then something hangs, and it
	// fails. 75 s by default.
	Patience time.Duration
	// Quick leaves out the way back at the end. For tests.
	Quick bool
	// EvidenceDir is where the evidence of the commands stays. By default a new
	// directory among the temporary ones.
	EvidenceDir string
	// BeforeProof is called with the addresses of both regions when everything
	// is copied and before both are read. For tests that show a false copy is
	// found.
	BeforeProof func(ctx context.Context, east, west []string) error
}

// How long a demo runs.
const (
	defaultDuration = 6 * time.Second
	// MinDuration and MaxDuration bound Options.Duration: shorter shows nothing,
	// and what the consumer processed is kept in memory.
	MinDuration = time.Second
	MaxDuration = 2 * time.Minute

	defaultPatience = 75 * time.Second
	// sessionTimeout of the daemons' group: how long the lanes of a killed one
	// stay with it. As short as configurations may say, for those who watch.
	sessionTimeout = 3 * time.Second
)

// ErrInterrupted is returned when the context ended before the demo did.
var ErrInterrupted = errors.New("interrupted: nothing was proved")

// demo is one run.
type demo struct {
	opts   Options
	screen *screen
	dir    string
	file   string // configuration of daemon and commands
	fail   context.CancelCauseFunc

	east, west *region
	daemon     *child
	signs      *signs
	ledger     *ledger
	producers  []*producer
	consumer   *consumer

	story story
	runs  []checkedRun
}

// checkedRun is a command's run and what its evidence is worth.
type checkedRun struct {
	*result
	verdict *evidence.Verdict
}

// Run runs a demo and prints what it does. It returns nil only if all of the proof
// is there.
func Run(ctx context.Context, o Options) error {
	o.Duration = cmp.Or(o.Duration, defaultDuration)
	if o.Duration < MinDuration || o.Duration > MaxDuration {
		return fmt.Errorf("run demo: duration %s is not within %s and %s", o.Duration, MinDuration, MaxDuration)
	}
	o.Patience = cmp.Or(o.Patience, defaultPatience)
	limited, stop := context.WithTimeoutCause(ctx, o.Duration+o.Patience, fmt.Errorf("not done after %s", o.Duration+o.Patience))
	defer stop()
	inner, fail := context.WithCancelCause(limited)
	defer fail(nil)

	d := &demo{opts: o, screen: newScreen(o), fail: fail, ledger: newLedger(), consumer: newConsumer()}
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
	if err := d.evidenceDir(); err != nil {
		return err
	}
	if d.east, err = newRegion(ctx, "east", d.dir, d.opts.Command, d.fail); err != nil {
		return err
	}
	if d.west, err = newRegion(ctx, "west", d.dir, d.opts.Command, d.fail); err != nil {
		return err
	}
	if d.file, err = writeConfig(d.dir, d.opts.EvidenceDir, d.east, d.west); err != nil {
		return err
	}
	d.daemon = newChild("daemon", "copying", append(append([]string{}, d.opts.Command...), "run", "--config", d.file), d.fail)

	// Applications end before the regions, whatever ends the demo.
	working, stopWorking := context.WithCancel(ctx)
	var background errgroup.Group
	defer func() {
		stopWorking()
		for _, c := range []*child{d.daemon, d.east.child, d.west.child} {
			_ = c.kill() // whatever it says, it has ended
		}
		_ = background.Wait()             // told through fail
		_ = os.Remove(d.opts.EvidenceDir) // if nothing is in it
	}()
	if err := d.openRegions(ctx); err != nil {
		return err
	}
	d.signs = newSigns(working, d.dir)
	background.Go(func() error { d.signs.run(working); return nil })
	background.Go(func() error { d.display(working); return nil })
	d.applications(working, &background)

	if err := d.play(ctx); err != nil {
		return err
	}
	stopWorking()
	_ = background.Wait()
	if err := d.daemon.stop(ctx); err != nil {
		return err
	}
	return d.prove(ctx)
}

func (d *demo) evidenceDir() (err error) {
	if d.opts.EvidenceDir == "" {
		d.opts.EvidenceDir, err = os.MkdirTemp("", "replicator-evidence-")
	} else {
		d.opts.EvidenceDir, err = filepath.Abs(d.opts.EvidenceDir)
		if err == nil {
			err = os.MkdirAll(d.opts.EvidenceDir, 0o700)
		}
	}
	if err != nil {
		return fmt.Errorf("make directory of evidence: %w", err)
	}
	return nil
}

// openRegions starts both clusters and says where they are.
func (d *demo) openRegions(ctx context.Context) error {
	var starts errgroup.Group
	for _, r := range []*region{d.east, d.west} {
		starts.Go(func() error { return r.start(ctx) })
	}
	if err := starts.Wait(); err != nil {
		return err
	}
	if err := d.east.createTopics(ctx); err != nil {
		return err
	}
	d.screen.heading("replicator demo: a region is lost, and comes back")
	for _, r := range []*region{d.east, d.west} {
		d.screen.say("region %s: 3 embedded brokers (kfake, no Java) on %s, pid %d", r.name, ports(r.addrs), r.pid())
	}
	for _, t := range topics {
		d.screen.say("topic %-9s %d partitions, %s", t.name, t.partitions, t.about)
	}
	d.screen.say("commands ($) are run with --config %s, those that change the authority with --output json", d.file)
	return nil
}

// applications starts the producers and the consumer; they wait for a sign.
func (d *demo) applications(ctx context.Context, group *errgroup.Group) {
	addrs := map[string][]string{d.east.name: d.east.addrs, d.west.name: d.west.addrs}
	text := filler()
	start := func(kind string, work func(context.Context, string, []string) error) {
		group.Go(func() error {
			err := d.signs.follow(ctx, kind, addrs, work)
			if err != nil {
				d.fail(err)
			}
			return err
		})
	}
	for i, t := range topics {
		p := &producer{topic: t, index: i, ledger: d.ledger, text: text}
		d.producers = append(d.producers, p)
		start(writersSign, p.work)
	}
	start(readersSign, d.consumer.work)
}

// display shows how far the consumer is.
func (d *demo) display(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.screen.progress(d.consumer.processed(), d.ledger.acknowledged())
		}
	}
}
