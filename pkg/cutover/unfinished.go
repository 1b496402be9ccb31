package cutover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
)

// unfinished is a run without an outcome.
type unfinished struct {
	run    string
	from   int64 // where its events begin in the audit topic
	plan   evidence.PlanDoc
	events []evidence.Event
	passed *authority.LastRun // the run before, if this one did not wait for it
}

// at is where its events are.
func (u *unfinished) at() *authority.LastRun {
	return &authority.LastRun{Run: u.run, From: u.from, Passed: u.passed}
}

// over tells whether a run with this outcome is over: it came to a good end, or was
// undone. One that failed behind the point, or was interrupted, has to be finished.
func over(o evidence.OutcomeDoc) bool {
	return o.Outcome != evidence.OutcomeFailed && o.Outcome != evidence.OutcomeInterrupted
}

// began tells whether the run has begun a step.
func (u *unfinished) began(step string) bool {
	return slices.ContainsFunc(u.events, func(e evidence.Event) bool { return e.Kind == evidence.KindStep && e.Step == step })
}

// recall takes from a run's events what its steps told each other.
func (r *run) recall(events []evidence.Event) {
	r.done, r.exports = map[string]bool{}, exportsIn(events)
	for i, e := range events {
		if i == 0 {
			r.began = e.Time
		}
		if e.Kind != evidence.KindStep {
			continue
		}
		doc, err := evidence.Decode[evidence.StepDoc](e)
		if err == nil && doc.Outcome == evidence.StepBegun {
			r.begun[doc.Name] = true
		}
		if err == nil && doc.Name == "fence-writers" {
			switch { // they had none from then on, or a little later
			case doc.Outcome == evidence.StepBegun && r.fencedAt.IsZero():
				r.fencedAt = e.Time
			case doc.Outcome == evidence.StepUndone:
				r.fencedAt = time.Time{}
			}
		}
		if err != nil || doc.Outcome != evidence.StepDone {
			continue
		}
		r.done[doc.Name] = true
		if doc.Name == "open-writers" && r.openAt.IsZero() { // what comes later is the same again
			r.openAt = e.Time
		}
	}
}

// supersededBy tells whether a verb need not wait for the run: a failover gives up a
// region that a planned run may never be able to finish or undo. What that run has done to
// the region's writers is known there, by the fact of the rules.
func (u *unfinished) supersededBy(v Verb, state authority.State) bool {
	if u == nil || v != Failover || Verb(u.plan.Verb) == Failover {
		return false
	}
	current, _ := state.Current()
	return current.Run != u.run
}

// findUnfinished reads the last run of the pair, or the one before if that changed nothing
// and had passed it by; nil if it has ended, or can neither be finished nor undone: because
// the authority was changed by somebody else since, or because the audit topic's retention
// has removed how it began. Drills are no such runs. state is the copy beside the events,
// current the record that counts.
func findUnfinished(ctx context.Context, cfg authority.Config, state authority.State, current authority.Record) (*unfinished, error) {
	last, ok, err := state.LastRun()
	if err != nil || !ok || last.Over != "" {
		return nil, err
	}
	for next := &last; next != nil; {
		u, ended, err := readUnfinished(ctx, cfg, *next)
		if err != nil {
			return nil, err
		}
		passed := next.Passed
		switch {
		case len(u.events) == 0 || u.events[0].Seq != 1:
			return nil, nil
		case ended && current.Run == u.run, current.Run != u.run && current.Epoch > u.plan.Epoch:
			return nil, nil
		case !ended:
			u.passed = passed
			return u, nil
		}
		next = passed
	}
	return nil, nil
}

// readUnfinished reads a run's events, and whether it has ended.
func readUnfinished(ctx context.Context, cfg authority.Config, at authority.LastRun) (u *unfinished, ended bool, err error) {
	lines, err := authority.ReadRun(ctx, cfg, at)
	if err != nil {
		return nil, false, err
	}
	u = &unfinished{run: at.Run, from: at.From}
	for _, line := range lines {
		e, err := evidence.ParseEvent(line)
		if err != nil {
			return nil, false, fmt.Errorf("read events of run %s: %w", u.run, err)
		}
		u.events = append(u.events, e)
		// An outcome that could not be kept here at first comes with whoever went on with the run.
		ended = false
		switch e.Kind {
		case evidence.KindPlan:
			if u.plan, err = evidence.Decode[evidence.PlanDoc](e); err != nil {
				return nil, false, fmt.Errorf("read plan of run %s: %w", u.run, err)
			}
		case evidence.KindOutcome:
			o, err := evidence.Decode[evidence.OutcomeDoc](e)
			if err != nil {
				return nil, false, fmt.Errorf("read outcome of run %s: %w", u.run, err)
			}
			ended = over(o)
		}
	}
	return u, ended, nil
}
