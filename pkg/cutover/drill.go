package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/authority"
	"replicator/pkg/checkpoint"
	"replicator/pkg/evidence"
)

// DrillResult is what a drill found.
type DrillResult struct {
	Run     string
	Outcome evidence.OutcomeDoc
	Drill   authority.Drill // as it was left on the region that would be promoted
	Gates   evidence.GatesDoc
	Checks  evidence.ChecksDoc
	Steps   []evidence.StepDoc // without their beginnings
	Groups  evidence.GroupsDoc
	Bundle  string
	Anchor  string
}

// drill is one under way. It is a run that has no right to change the authority, and
// whose steps all are taken whatever comes of them.
type drill struct {
	*run
	scratch    scratch
	placements []*checkpoint.Placement // in scratch groups
	out        DrillResult
	took       map[string]time.Duration // of what a switchover would wait for
}

// yielded ends a drill that is in the way of a command that changes the authority.
type yielded struct{ why string }

func (y *yielded) Error() string { return "gave way: " + y.why }

// Rehearse is a drill: everything a switchover rests on is tried on the live pair, but
// nothing that applications could see is touched. Whatever it makes has names of its
// own and is deleted at the end, also that of a drill that was killed.
//
// It needs no exclusive right but one among drills: a later drill takes over from an
// earlier one. While another run is unfinished it is refused, and it gives way to one
// that begins.
func Rehearse(ctx context.Context, s Setup, req Request) (*DrillResult, error) {
	if s.New.Cluster == nil {
		return nil, refused("check its section of the configuration and its brokers", "region %s, which would be promoted, cannot be reached: %v", s.New.Alias, s.New.Err)
	}
	req.Verb = Drill
	d := &drill{run: newRun(s, req), took: map[string]time.Duration{}}
	defer d.close()
	w, err := look(ctx, s, req)
	if err != nil {
		return nil, err
	}
	d.world = w
	defer func() { d.world.close() }()
	if err := d.begin(ctx); err != nil {
		return nil, err
	}
	failed := d.all(ctx)
	return d.end(ctx, failed), nil
}

// begin takes the right among drills and says what will be done.
func (d *drill) begin(ctx context.Context) error {
	epoch := epochOf(d.world.newState)
	if d.world.oldErr == nil {
		epoch = max(epoch, epochOf(d.world.oldState))
	}
	// What gates and rows call the next epoch stays a thought.
	d.record.Epoch = epoch + 1
	if err := d.standing(ctx); err != nil {
		if y, ok := errors.AsType[*yielded](err); ok {
			return refused("finish or undo it first", "%s", y.why)
		}
		return err
	}
	cfg := d.authorityOn(d.New)
	cfg.Role = authority.DrillRole
	var err error
	if d.changer, err = authority.Change(ctx, cfg); err != nil {
		return err
	}
	d.id = evidence.NewRun(string(Drill), d.began)
	d.scratch = scratchOf(d.Pair, d.id)
	d.audit = &auditSink{changer: d.changer}
	if d.rec, err = evidence.Start(evidence.Config{Run: d.id, Secrets: d.Secrets, Dir: d.Settings.EvidenceDir, Sinks: []evidence.Sink{d.audit}}); err != nil {
		return fmt.Errorf("begin drill: %w", err)
	}
	plan := evidence.PlanDoc{
		Verb: string(Drill), Link: d.Forward.Name, From: d.Old.Alias, To: d.Old.Alias, Epoch: epoch, NextEpoch: epoch,
		By: d.req.By, Why: d.req.Why, Tool: d.Tool, Options: options(d.Setup, Request{Verb: Switchover, SkipGroups: d.req.SkipGroups}),
	}
	for _, st := range d.stepsOf() {
		plan.Actions = append(plan.Actions, evidence.Action{Step: st.name, What: d.words(st.what)})
	}
	if err := errors.Join(d.event(ctx, evidence.KindPlan, "", plan), d.event(ctx, evidence.KindRegions, "", d.world.regionTable(d.Setup, evidence.Before))); err != nil {
		return fmt.Errorf("begin drill: %w", err)
	}
	return nil
}

// standing tells whether the drill is in nobody's way.
func (d *drill) standing(ctx context.Context) error {
	for _, region := range []Region{d.New, d.Old} {
		if region.Cluster == nil {
			continue
		}
		state, err := authority.Read(ctx, d.authorityOn(region))
		var open *unfinished
		if err == nil {
			current, _ := state.Current()
			open, err = findUnfinished(ctx, d.authorityOn(region), state, current)
		}
		if err == nil && open != nil {
			return &yielded{fmt.Sprintf("run %s (%s to %s, begun by %s) is not finished", open.run, open.plan.Verb, open.plan.To, open.plan.By)}
		}
		switch {
		case err != nil && region.Alias == d.New.Alias:
			return err
		case err == nil && epochOf(state) >= d.record.Epoch:
			return &yielded{fmt.Sprintf("the authority has changed: epoch %d", epochOf(state))}
		}
	}
	return nil
}

// stepsOf are the steps. The first cleans up after others, the last after this one.
func (d *drill) stepsOf() []step {
	of := func(name, what string, do func(context.Context) (string, error)) step {
		return step{name: name, what: what, do: func(ctx context.Context, _ *run) (string, error) { return do(ctx) }}
	}
	return []step{
		of("leftovers", "remove what drills that were killed have left", d.leftovers),
		of("gates", "look at everything a switchover from OLD to NEW would need", d.gates),
		of("fence", "fence a scratch topic on NEW: its former writer has to be refused", d.fence),
		of("drain", "wait until all is on NEW that OLD has now", d.drain),
		of("verify", "compare the last records of each partition on both sides", d.verify),
		of("groups", "translate every group's offsets, commit them to scratch groups on NEW, read them back", d.groups),
		of("probe", "read the record each group would go on with on both sides", d.probe),
	}
}

// all takes the steps and removes what they made. The error is what ended it early.
func (d *drill) all(ctx context.Context) error {
	var early error
	for _, st := range d.stepsOf() {
		if early = d.standing(ctx); early == nil {
			early = d.one(ctx, st)
		}
		if early != nil {
			break
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	st := step{name: "clean-up", what: "remove the scratch topics and groups", do: func(ctx context.Context, _ *run) (string, error) { return d.cleanUp(ctx) }}
	if err := d.one(last, st); err != nil && early == nil {
		early = err
	}
	return early
}

// one takes a step. What it finds wrong is kept; the error is of a drill that cannot go on.
func (d *drill) one(ctx context.Context, st step) error {
	began := time.Now()
	d.step(ctx, st.name, evidence.StepBegun, 0, d.words(st.what))
	proof, err := st.do(ctx, d.run)
	doc := evidence.StepDoc{Name: st.name, Outcome: evidence.StepDone, Took: time.Since(began).Seconds(), Proof: proof}
	var none *skipped
	switch {
	case errors.As(err, &none):
		doc.Outcome, doc.Proof = evidence.StepSkipped, none.why
	case err != nil:
		doc.Outcome, doc.Proof = evidence.StepFailed, err.Error()
		if st.name != "gates" || len(d.failedGates()) == 0 { // gates stand for themselves
			d.check(st.name, false, "%v", err)
		}
	}
	d.out.Steps = append(d.out.Steps, doc)
	d.step(ctx, doc.Name, doc.Outcome, time.Since(began), doc.Proof)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return d.rec.Flush(ctx)
}

func (d *drill) check(name string, ok bool, format string, args ...any) {
	d.out.Checks = append(d.out.Checks, evidence.Check{Name: name, OK: ok, Detail: fmt.Sprintf(format, args...)})
}

func (d *drill) failedGates() (names []string) {
	for _, g := range d.out.Gates {
		if !g.OK {
			names = append(names, g.Name)
		}
	}
	return names
}

// end judges, writes the fact that the daemon shows, and the outcome.
func (d *drill) end(ctx context.Context, early error) *DrillResult {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	out := &d.out
	errs := []error{d.measure(ctx)}
	failed := d.failedGates()
	for _, c := range out.Checks {
		if !c.OK {
			failed = append(failed, c.Name)
		}
	}
	out.Outcome = d.outcome(nil, "")
	fact := &out.Drill
	fact.Run, fact.From, fact.To, fact.By, fact.Tool = d.id, d.Old.Alias, d.New.Alias, d.req.By, d.Tool
	fact.Ended, fact.Success, fact.Failed = time.Now().UTC(), early == nil && len(failed) == 0, failed
	if early == nil {
		if before, ok := d.changer.State().Drill(); ok && before.From == fact.From {
			fact.LastSuccess = before.LastSuccess
		}
		if fact.Success {
			fact.LastSuccess = &fact.Ended
		}
		errs = append(errs, d.changer.Put(ctx, authority.DrillRole, d.id, fact))
	}
	errs = append(errs, d.event(ctx, evidence.KindRegions, "", d.regions(ctx, evidence.After)))
	switch {
	case early != nil:
		out.Outcome.Outcome, out.Outcome.Error, out.Outcome.Next = evidence.OutcomeInterrupted, early.Error(), "run replicator drill again"
	case len(failed) > 0:
		out.Outcome.Outcome = evidence.OutcomeFailed
		out.Outcome.Error = fmt.Sprintf("%d of %d gates and checks failed: %s", len(failed), len(out.Gates)+len(out.Checks), strings.Join(failed, ", "))
		for _, g := range out.Gates {
			if !g.OK && out.Outcome.Next == "" {
				out.Outcome.Next = g.Fix
			}
		}
	}
	if err := errors.Join(append(errs, d.event(ctx, evidence.KindOutcome, "", out.Outcome))...); err != nil {
		d.Log.Warn("drill is not kept", zap.Error(err))
		if out.Outcome.Error == "" {
			out.Outcome.Outcome, out.Outcome.Error = evidence.OutcomeFailed, "what was found could not be kept: "+err.Error()
		}
	}
	out.Run, out.Bundle, out.Anchor = d.id, d.rec.Bundle(), d.rec.Anchor().String()
	return out
}

// measure keeps the checks, and adds up what a switchover would wait for.
func (d *drill) measure(ctx context.Context) error {
	// A record of the authority is one transaction of this kind.
	began := time.Now()
	if err := d.event(ctx, evidence.KindChecks, "", d.out.Checks); err != nil {
		return err
	}
	d.took["promote"] = time.Since(began)
	var parts []string
	sum := d.Settings.Settle
	for _, name := range []string{"drain", "verify", "promote", "fence"} {
		took, ok := d.took[name]
		if !ok {
			return nil // a step did not come to its end
		}
		sum += took
		parts = append(parts, fmt.Sprintf("%s %v", name, took.Round(time.Millisecond)))
	}
	rto := sum.Seconds()
	d.out.Drill.RTO = &rto
	detail := fmt.Sprintf("no region would take writes for %.1f s: settle %v, %s; hooks and rules for writers not counted", rto, d.Settings.Settle, strings.Join(parts, ", "))
	if took, ok := d.took["groups"]; ok {
		detail += fmt.Sprintf("; groups would go on %v later", took.Round(time.Millisecond))
	}
	before := len(d.out.Checks)
	d.check("RTO", true, "%s", detail)
	return d.event(ctx, evidence.KindChecks, "", d.out.Checks[before:])
}
