package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/pkg/authority"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
)

// Plan is what a run would do, and what it rests on.
type Plan struct {
	evidence.PlanDoc
	Regions  evidence.RegionsDoc
	Gates    evidence.GatesDoc
	Lanes    evidence.LanesDoc
	Groups   evidence.GroupsDoc
	Loss     *evidence.LossDoc     // failover
	Stranded *evidence.StrandedDoc // failback
	Resumes  string                // id of the unfinished run that is taken up, "" a new one

	world *world
	setup Setup // with what was found out of the regions
}

// Refused are the gates that are not passed, as an error; nil if all are.
func (p *Plan) Refused() error {
	no := &RefusedError{}
	for _, g := range p.Gates {
		if !g.OK {
			no.Reasons = append(no.Reasons, g.Name+": "+g.Detail)
			if no.Fix == "" {
				no.Fix = g.Fix
			}
		}
	}
	if len(no.Reasons) == 0 {
		return nil
	}
	return no
}

// Close gives back what was opened to make the plan. Execute does it for its own.
func (p *Plan) Close() { p.world.close() }

// MakePlan reads both regions and writes nothing.
func MakePlan(ctx context.Context, s Setup, req Request) (*Plan, error) {
	if s.New.Cluster == nil {
		return nil, s.newGone(ctx)
	}
	behind, err := s.behindPoint(ctx)
	if err != nil {
		return nil, err
	}
	if req.Verb == Failover || behind { // nobody waits for a region that is ill, if its writers are to go on in the other one
		s.Old = s.oldOrNot(ctx)
	}
	w, err := look(ctx, s, req)
	if err != nil {
		return nil, err
	}
	p := &Plan{world: w, setup: s, Regions: w.regionTable(s, evidence.Before), Lanes: w.laneRows()}
	epoch := epochOf(w.newState)
	if w.oldErr == nil {
		epoch = max(epoch, epochOf(w.oldState))
	}
	p.PlanDoc = evidence.PlanDoc{
		Verb: string(req.Verb), Link: s.Forward.Name, From: s.Old.Alias, To: s.New.Alias, Epoch: epoch, NextEpoch: epoch + 1,
		By: req.By, Why: req.Why, Tool: s.Tool, Options: options(s, req), Fence: s.fenceRests(),
	}
	for _, st := range stepsOf(req.Verb) {
		p.Actions = append(p.Actions, evidence.Action{Step: st.name, What: s.words(st.what), Irreversible: st.point})
	}
	if req.Verb == Failback {
		p.From, p.To, p.NextEpoch = s.New.Alias, s.New.Alias, epoch
	}
	open, err := findUnfinished(ctx, s.authorityOn(s.New), w.newState, w.current())
	if err != nil {
		w.close()
		return nil, err
	}
	if open.supersededBy(req.Verb, w.newState) {
		open = nil
	}
	if err := s.finishedOnOld(ctx, w, req); err != nil {
		w.close()
		return nil, err
	}
	if open != nil {
		if open.plan.Verb != string(req.Verb) || open.plan.To != p.To {
			w.close()
			return nil, refused(fmt.Sprintf("finish it with %s, or undo it with --undo behind that", commandOf(Verb(open.plan.Verb), s.Pair, open.plan.To)),
				"run %s (%s to %s, begun by %s) is not finished", open.run, open.plan.Verb, open.plan.To, open.plan.By)
		}
		if req.Undo && w.current().Run == open.run {
			w.close()
			return nil, cannotUndo(open.run)
		}
		if was := open.plan.Options["stranded"]; !req.Undo && req.Verb == Failback && was != string(req.Stranded) && open.began("stranded") {
			w.close()
			return nil, refused(fmt.Sprintf("run the command again with --stranded %s; another decision can be taken behind --undo", was),
				"run %s was begun with --stranded %s, and may have done so with some of the records", open.run, was)
		}
		p.Resumes = open.run
		if req.Undo && open.began("reverse") {
			w.close()
			return nil, s.cannotUnprepare(open.run)
		}
		// The epoch before is that of the first plan.
		p.Epoch, p.NextEpoch = open.plan.Epoch, open.plan.NextEpoch
	} else if req.Undo {
		w.close()
		return nil, refused("nothing has to be done; replicator authority history shows what was", "there is no unfinished run to undo")
	}
	if err := p.judge(ctx, s, req); err != nil {
		w.close()
		return nil, err
	}
	return p, nil
}

// behindPoint tells whether a run that is not finished has made the new region authoritative.
func (s Setup) behindPoint(ctx context.Context) (bool, error) {
	asking, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	state, err := authority.Read(asking, s.authorityOn(s.New))
	if err != nil {
		return false, err
	}
	current, _ := state.Current()
	open, err := findUnfinished(asking, s.authorityOn(s.New), state, current)
	return open != nil && current.Run == open.run, err
}

func cannotUndo(run string) error {
	return refused("run the command again without --undo to finish it, then switch back", "run %s has changed the authority already: it cannot be undone", run)
}

func (s Setup) cannotUnprepare(run string) error {
	return refused("run the command again without --undo to finish it", "run %s has begun to prepare the link %s->%s: it cannot be undone", run, s.New.Alias, s.Old.Alias)
}

// oldTime bounds what is asked of a region that is given up: it may answer in part, and
// nothing that can be done without it waits for it.
const oldTime = 10 * time.Second

// oldOrNot is the old region of a failover: not reachable, unless it answers all that a
// failover would ask of it.
func (s Setup) oldOrNot(ctx context.Context) Region {
	old := s.Old
	if old.Cluster == nil {
		if open, ok := errors.AsType[*cluster.OpenError](old.Err); !ok || !open.Dark() {
			old.Err, old.Partly = fmt.Errorf("something of it is there, or it cannot be told: %w", old.Err), true
		}
		return old
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, oldTime)
	defer cancel()
	_, err := authority.Read(ctx, s.authorityOn(old))
	if err == nil {
		_, _, err = sourceEnds(ctx, old.Cluster, s.Forward.Topic)
	}
	if err == nil {
		_, err = checkpoint.ReadCommits(ctx, old.Cluster, nil, s.Forward.Group, s.Forward.Topic)
	}
	if err != nil {
		asking, cancel := context.WithTimeout(whole, aliveTime)
		defer cancel()
		answer, silent := old.Cluster.Alive(asking)
		old.Cluster, old.Err, old.Partly = nil, fmt.Errorf("it answers in part only, brokers %v do and %v do not: %w", answer, silent, err), true
	}
	return old
}

// newGone refuses to begin without the new region. What a run that was killed has left on
// the old one is not taken away: only the new region tells how far it came.
func (s Setup) newGone(ctx context.Context) error {
	no := &RefusedError{
		Reasons: []string{fmt.Sprintf("region %s, which is to be authoritative, cannot be reached: %v", s.New.Alias, s.New.Err)},
		Fix:     "check its section of the configuration and its brokers",
	}
	if s.Old.Cluster == nil {
		return no
	}
	asking, cancel := context.WithTimeout(ctx, oldTime)
	defer cancel()
	state, err := authority.Read(asking, s.authorityOn(s.Old))
	if err != nil {
		return no // it is about the other region
	}
	rules, ok, err := standingFence(state)
	if err != nil || !ok {
		return no
	}
	no.Reasons = append(no.Reasons, fmt.Sprintf("rules of a run that is not finished keep applications from writing to %s", s.Old.Alias))
	no.Fix = fmt.Sprintf("bring %s back, then run the command again, with --undo to take the rules away. If that takes too long and %s is not authoritative, as far as anybody knows, take them away by hand: %s",
		s.New.Alias, s.New.Alias, strings.Join(rules.ByHand(s.Old.Cluster.Config().BootstrapServers[0]), "; "))
	return no
}

// finishedOnOld refuses to begin while a run that made the old region authoritative is not
// finished: its events are there. A failover does not wait for it.
func (s Setup) finishedOnOld(ctx context.Context, w *world, req Request) error {
	if s.Old.Cluster == nil || w.oldErr != nil || req.Verb == Failover {
		return nil //nolint:nilerr // a gate says it
	}
	current, _ := w.oldState.Current()
	open, err := findUnfinished(ctx, s.authorityOn(s.Old), w.oldState, current)
	if err != nil || open == nil || current.Run != open.run {
		return err
	}
	return refused("finish it with "+commandOf(Verb(open.plan.Verb), s.Pair, open.plan.To),
		"run %s (%s to %s, begun by %s) is not finished", open.run, open.plan.Verb, open.plan.To, open.plan.By)
}

// judge fills in gates, groups, loss and stranded records.
func (p *Plan) judge(ctx context.Context, s Setup, req Request) error {
	w := p.world
	current, ok := w.newState.Current()
	if p.Resumes != "" && ok && current.Run == p.Resumes {
		return nil // behind the irreversible point: nothing is asked any more
	}
	var err error
	if w.standbyErr == nil && req.Verb != Failback {
		p.Groups, err = w.planGroups(ctx, s)
		if err != nil && req.Verb == Failover && ctx.Err() == nil {
			given := s // up: what the new region knows has to do
			given.Old.Cluster = nil
			p.Groups, err = w.planGroups(ctx, given)
		}
		if err != nil {
			return err
		}
	}
	switch req.Verb {
	case Failover:
		if p.Loss, err = w.estimateLoss(ctx, s); err != nil {
			return err
		}
	case Failback:
		if s.Old.Cluster != nil && w.standbyErr == nil && !takenIn(s, w.oldState, epochOf(w.newState)) {
			if p.Stranded, err = w.findStranded(ctx, s); err != nil {
				return err
			}
		}
	}
	p.Gates, err = judgeGates(ctx, s, req, p)
	return err
}

// words fills names into a step's description.
func (s Setup) words(what string) string {
	return strings.NewReplacer("OLD", s.Old.Alias, "NEW", s.New.Alias).Replace(what)
}

// options are the settings a run went by.
func options(s Setup, req Request) map[string]string {
	o := map[string]string{"writers": s.Settings.Writers, "lag_limit": fmt.Sprint(s.Settings.LagLimit), "drain_timeout": s.Settings.DrainTimeout.String()}
	if req.Verb != Switchover && req.Verb != Rollback {
		o = map[string]string{}
	}
	if req.Force {
		o["force"] = "true"
	}
	if req.Stranded != "" {
		o["stranded"] = string(req.Stranded)
	}
	if len(req.SkipGroups) > 0 {
		skip := slices.Clone(req.SkipGroups)
		slices.Sort(skip)
		o["skip_groups"] = strings.Join(skip, ", ")
	}
	return o
}

// fenceRests says what keeps the old direction out, and for how long.
func (s Setup) fenceRests() string {
	text := fmt.Sprintf("the brokers of %s refuse every older epoch of the link's lanes, for as long as they remember producers (producer.id.expiration.ms, a day by default); the daemon of the closed link takes the epochs again before that, as its guard", s.New.Alias)
	if s.New.Principal == "" {
		return text + "; no rule takes WRITE from the daemon's principal, because cutover.principals does not name it"
	}
	return text + fmt.Sprintf("; and where %s has ACLs, a rule denies WRITE to %s, which lasts until it is lifted", s.New.Alias, s.New.Principal)
}
