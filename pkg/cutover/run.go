package cutover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/hooks"
)

// step is one of a verb's steps. Its function may be called again when a run is
// resumed: it looks at the world and does what is left.
type step struct {
	name string
	what string // for the plan, before it is done
	do   func(context.Context, *run) (proof string, err error)
	undo func(context.Context, *run) (proof string, err error) // nil: there is nothing to undo
	// point is the one step behind which nothing is undone.
	point bool
	// once: a resumed run that had come to its end does not take it again, nor its hooks.
	once bool
	// watched: no region takes writes meanwhile, so the step ends when nobody of a region
	// answers any more, however long it would wait by itself.
	watched bool
}

// commandOf is how an operator calls the verb that makes a region authoritative, or finds it so.
func commandOf(v Verb, pair authority.Pair, to string) string {
	if v != Failback {
		return fmt.Sprintf("replicator %s --to %s", v, to)
	}
	from := pair.A
	if from == to {
		from = pair.B
	}
	return "replicator failback run --from " + from
}

// skipped is the error of a step that has nothing to do.
type skipped struct{ why string }

func (s *skipped) Error() string { return s.why }

func skip(format string, args ...any) error { return &skipped{fmt.Sprintf(format, args...)} }

// aliveTime bounds the question whether a region answers at all.
const aliveTime = 3 * time.Second

// silent is why a region cannot be worked with: none of its brokers answers. nil: one does.
// It is asked behind an end too.
func silent(ctx context.Context, region Region) error {
	return silentUntil(context.WithoutCancel(ctx), region)
}

func silentUntil(ctx context.Context, region Region) error {
	if region.Cluster == nil {
		return region.Err
	}
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	if answer, _ := region.Cluster.Alive(ctx); len(answer) == 0 {
		return fmt.Errorf("no broker of %s answers", region.Alias)
	}
	return nil
}

// forgo goes on without the old region, which does not answer any more: only what needs it
// waits for it.
func (r *run) forgo(because error) {
	if r.old != nil {
		r.old.Close()
		r.old = nil
	}
	r.Old.Cluster, r.Old.Err, r.forgone = nil, because, true
}

// undoTime bounds the undoing after an interrupted or failed run.
const undoTime = 2 * time.Minute

// run is one run of a verb, and what its steps tell each other.
type run struct {
	Setup
	req     Request
	list    []step // the verb's
	id      string
	began   time.Time
	changer *authority.Changer // on New: who holds it is the only one to change anything
	old     *authority.Changer // on Old, taken when it is needed first
	rec     *evidence.Recorder
	audit   *auditSink
	from    int64              // where the run's events begin in the audit topic of New
	passed  *authority.LastRun // the run before, if this one did not wait for it
	record  authority.Record   // that this run has written or will write
	// promoted: the record of this run stands.
	promoted bool
	resumed  bool
	forgone  bool            // the old region stopped answering in the middle of this run
	done     map[string]bool // steps a resumed run had come to the end of
	begun    map[string]bool // steps that were begun, by a resumed run too
	exports  []exported      // files of stranded records, by a resumed run too
	world    *world
	found

	fencedAt, openAt time.Time // writers of the old region, of the new one
}

func newRun(s Setup, req Request) *run {
	return &run{Setup: s, req: req, list: stepsOf(req.Verb), began: time.Now(), begun: map[string]bool{}}
}

// Result is how a run ended.
type Result struct {
	Run     string
	Outcome evidence.OutcomeDoc
	Before  evidence.RegionsDoc
	After   evidence.RegionsDoc
	Bundle  string
	Anchor  string // where the chain of events ends: number and hash
	Resumed bool
}

// Execute runs a verb to its end: it reads the world, asks for confirmation, takes the
// exclusive right to change it, and goes through the steps. An error without a Result
// means that nothing was begun.
func Execute(ctx context.Context, s Setup, req Request) (*Result, error) {
	return newRun(s, req).execute(ctx)
}

func (r *run) execute(ctx context.Context) (*Result, error) {
	plan, err := MakePlan(ctx, r.Setup, r.req)
	if err != nil {
		return nil, err
	}
	r.Setup, r.world = plan.setup, plan.world
	defer r.close()
	if r.req.Confirm != nil {
		if err := r.req.Confirm(plan); err != nil {
			return nil, err
		}
	}
	r.began = time.Now() // how long the plan took, and somebody thought, does not count
	if err := r.take(ctx, plan); err != nil {
		return nil, err
	}
	outcome := r.steps(ctx)
	// What is written last must not be lost to an interruption.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	after := r.regions(last, evidence.After)
	err = errors.Join(r.event(last, evidence.KindRegions, "", after), r.event(last, evidence.KindOutcome, "", outcome))
	if err == nil && over(outcome) {
		r.markOver(last, outcome)
	}
	if err != nil { // nobody else knows how it ended: the next command takes it up
		outcome.Outcome, outcome.Error = evidence.OutcomeInterrupted, errors.Join(errors.New(cmp.Or(outcome.Error, "the end of the run is not kept")), err).Error()
		switch {
		case isFenced(err), outcome.Next == takenOverNext:
			outcome.Next = takenOverNext
		case r.audit.down == nil: // else it is said already
			outcome.Next = "run the same command again: it goes on where this one ended"
		}
	}
	return &Result{Run: r.id, Outcome: outcome, Before: plan.Regions, After: after, Bundle: r.rec.Bundle(), Anchor: r.rec.Anchor().String(), Resumed: r.resumed}, nil
}

// take takes the exclusive right, looks whether the world is still the one of the plan,
// and begins the run or takes an unfinished one up.
func (r *run) take(ctx context.Context, plan *Plan) error {
	var err error
	r.changer, err = authority.Change(ctx, r.authorityOn(r.New))
	if err != nil {
		return err
	}
	state := r.changer.State()
	if now := epochOf(state); now != plan.Epoch && plan.Resumes == "" {
		return refused("run the command again", "the authority record has epoch %d now, the plan was made with %d", now, plan.Epoch)
	}
	unfinished, err := findUnfinished(ctx, r.authorityOn(r.New), state, plan.world.current())
	if err != nil {
		return err
	}
	if unfinished.supersededBy(r.req.Verb, state) {
		r.passed, unfinished = unfinished.at(), nil
	}
	r.audit = &auditSink{changer: r.changer}
	cfg := evidence.Config{Secrets: r.Secrets, Dir: r.Settings.EvidenceDir, Sinks: []evidence.Sink{r.audit}}
	switch {
	case unfinished == nil && plan.Resumes != "":
		return refused("run the command again", "run %s has been finished meanwhile", plan.Resumes)
	case unfinished != nil:
		r.id, r.resumed, r.from, r.passed = unfinished.run, true, unfinished.from, unfinished.passed
		cfg.Run = r.id
		if r.rec, err = evidence.Resume(cfg, unfinished.events); err == nil {
			err = r.rec.Flush(ctx)
		}
		r.recall(unfinished.events)
	default:
		r.id = evidence.NewRun(string(r.req.Verb), r.began)
		cfg.Run = r.id
		if r.from, err = r.changer.AuditEnd(ctx); err == nil {
			r.rec, err = evidence.Start(cfg)
		}
	}
	if err != nil {
		return fmt.Errorf("begin run: %w; --evidence names another directory", err)
	}
	current, ok := state.Current()
	r.promoted = ok && current.Run == r.id
	if r.req.Undo && r.promoted { // while somebody read the question
		return cannotUndo(r.id)
	}
	if r.req.Undo && r.preparing() { // then, too
		return r.cannotUnprepare(r.id)
	}
	r.record = authority.Record{
		Pair: r.Pair.String(), Epoch: plan.Epoch + 1, Region: r.New.Alias, Verb: string(r.req.Verb),
		By: r.req.By, Why: r.req.Why, Run: r.id, Tool: r.Tool, Since: time.Now().UTC(),
	}
	if r.promoted || r.req.Verb == Failback && ok {
		r.record = current
	}
	r.world = plan.world
	err = errors.Join(r.event(ctx, evidence.KindPlan, "", plan.PlanDoc), r.event(ctx, evidence.KindRegions, "", plan.Regions))
	if err == nil && !r.resumed {
		// Behind the first events and before anything is changed: a command that is killed in
		// between has done nothing that somebody would have to take up.
		err = r.changer.Put(ctx, authority.LastRunFact, r.id, authority.LastRun{Run: r.id, From: r.from, Passed: r.passed})
	}
	if errors.Is(err, kerr.InvalidTimestamp) { // the gate that compares clocks would say it, if it came to that
		err = refused("set the clocks right (NTP)", "%s takes nothing that has the time of this machine: %v", r.New.Alias, err)
		if !r.resumed { // the cluster knows nothing of it, and nobody will take it up
			o := r.outcome(err, "")
			o.Outcome = evidence.OutcomeRefused
			_ = r.event(ctx, evidence.KindOutcome, "", o) // kept in the bundle, if nowhere else
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("begin run: %w", err)
	}
	return nil
}

// markOver notes that the run is over, so that no later command has to read its events
// to know. If that cannot be written, they tell.
func (r *run) markOver(ctx context.Context, o evidence.OutcomeDoc) {
	last := authority.LastRun{Run: r.id, From: r.from, Over: o.Outcome}
	if r.passed != nil && !r.promoted { // which still has to be finished, then
		last = *r.passed
	}
	if err := r.changer.Put(ctx, authority.LastRunFact, r.id, last); err != nil {
		r.Log.Warn("the end of the run is not noted; its events have it", zap.String("run", r.id), zap.Error(err))
	}
}

func (r *run) close() {
	r.world.close()
	if r.rec != nil {
		_ = r.rec.Close() // what was recorded is on disk already
	}
	for _, c := range []*authority.Changer{r.changer, r.old} {
		if c != nil {
			c.Close()
		}
	}
}

// steps goes through the verb's steps.
func (r *run) steps(ctx context.Context) evidence.OutcomeDoc {
	if r.req.Undo {
		return r.undo(ctx, errors.New("asked for with --undo"), evidence.OutcomeUndone)
	}
	for i, st := range r.list {
		behind := false
		for _, before := range r.list[:i] {
			behind = behind || before.point
		}
		if r.promoted && !behind && !st.point {
			continue
		}
		if st.once && r.done[st.name] {
			r.step(ctx, st.name, evidence.StepSkipped, 0, "this run has done it already")
			continue
		}
		if err := r.one(ctx, st); err != nil {
			return r.failed(ctx, st, err)
		}
	}
	return r.outcome(nil, "")
}

// one takes one step with the hooks around it.
func (r *run) one(ctx context.Context, st step) error {
	began := time.Now()
	if err := r.begin(ctx, st.name, st.what); err != nil {
		r.stepFailed(ctx, st.name, time.Since(began), err)
		return fmt.Errorf("%s: %w", st.name, err)
	}
	if st.name == "fence-writers" && r.hooked(st.name, hooks.Before) {
		r.fencedNow() // it stops them
	}
	if err := r.hooks(ctx, st.name, hooks.Before); err != nil {
		r.stepFailed(ctx, st.name, time.Since(began), err)
		return err
	}
	proof, err := r.watched(ctx, st)
	var none *skipped
	switch {
	case errors.As(err, &none):
		r.step(ctx, st.name, evidence.StepSkipped, time.Since(began), none.why)
		return ctx.Err()
	case err == nil:
		err = r.hooks(ctx, st.name, hooks.After)
	}
	if err != nil {
		r.stepFailed(ctx, st.name, time.Since(began), err)
		return fmt.Errorf("%s: %w", st.name, err)
	}
	r.step(ctx, st.name, evidence.StepDone, time.Since(began), proof)
	// A step whose event is not kept has not been proved: nobody else would know.
	return r.rec.Flush(ctx)
}

// A region is gone when none of its brokers has answered so often in a row: a broker that is
// restarted alone is mostly there again by then.
const (
	watchEvery  = 2 * time.Second
	watchMisses = 3
)

// watched does what a step does, and ends a watched one when a region is gone.
func (r *run) watched(ctx context.Context, st step) (string, error) {
	if !st.watched || r.Old.Cluster == nil {
		return st.do(ctx, r)
	}
	ctx, end := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		var gone error
		for missed := 0; missed < watchMisses; {
			if pause.For(ctx, watchEvery) != nil {
				return
			}
			if gone = cmp.Or(silentUntil(ctx, r.New), silentUntil(ctx, r.Old)); gone != nil {
				missed++
			} else {
				missed = 0
			}
		}
		end(gone) // which is nothing to a step that has ended meanwhile
	})
	proof, err := st.do(ctx, r)
	if gone := context.Cause(ctx); err != nil && gone != nil && !errors.Is(err, gone) {
		err = fmt.Errorf("%w: %w", gone, err)
	}
	end(nil)
	watch.Wait()
	return proof, err
}

// hooked tells whether there is a hook of a step.
func (r *run) hooked(step, when string) bool {
	return slices.ContainsFunc(r.Hooks, func(h hooks.Hook) bool { return h.Step == step && h.When == when })
}

// stepFailed notes that a step has failed. It may be the new region that is gone: writers
// are kept off until the run is undone, and that must not wait for events to be kept there.
func (r *run) stepFailed(ctx context.Context, name string, took time.Duration, err error) {
	r.audit.down = silent(ctx, r.New)
	r.step(ctx, name, evidence.StepFailed, took, err.Error())
}

// begin writes down that a step is begun before it changes anything: whoever comes later
// knows what there may be to undo, and who has lost the right finds out here.
func (r *run) begin(ctx context.Context, name, what string) error {
	r.begun[name] = true
	r.step(ctx, name, evidence.StepBegun, 0, what)
	return r.rec.Flush(ctx)
}

// takenOverNext is for who lost the right: whoever took over finishes the run or undoes it.
const takenOverNext = "another command works on this pair now"

func isFenced(err error) bool {
	_, fenced := errors.AsType[*authority.FencedError](err)
	return fenced
}

// failed undoes what was done before the irreversible point, or says how to go on.
func (r *run) failed(ctx context.Context, st step, err error) evidence.OutcomeDoc {
	switch {
	case isFenced(err):
		return r.takenOver(err)
	case r.promoted:
		next := "run the same command again: it goes on where this one ended"
		if silent(ctx, r.Old) != nil && r.req.Verb != Failover {
			next = fmt.Sprintf("%s is authoritative. When %s answers again, run the same command: it finishes the run. Without %s it places the groups by what %s knows of them, and only the link back is left for later",
				r.New.Alias, r.Old.Alias, r.Old.Alias, r.New.Alias)
		}
		if no, ok := errors.AsType[*RefusedError](err); ok && no.Fix != "" {
			next = no.Fix
		}
		o := r.outcome(err, next)
		if ctx.Err() != nil {
			o.Outcome = evidence.OutcomeInterrupted
		}
		return o
	}
	as := evidence.OutcomeUndone
	var no *RefusedError
	if errors.As(err, &no) && st.name == "gates" && !r.preparing() {
		as = evidence.OutcomeRefused
	} else if r.req.Verb == Failback {
		// The authority does not change, and every step may be done again.
		next := "run the same command again: it goes on where this one ended"
		if errors.As(err, &no) && no.Fix != "" {
			next = no.Fix
		}
		return r.outcome(err, next)
	}
	// A resumed run may fail in a step before those that it has to undo.
	return r.undo(ctx, err, as)
}

// preparing tells whether a failback has begun to prepare the link back: the lanes that it
// has prepared are known by its name, and no other run could prepare them again.
func (r *run) preparing() bool { return r.req.Verb == Failback && r.begun["reverse"] }

// takenOver is the outcome of a run that lost its right.
func (r *run) takenOver(err error) evidence.OutcomeDoc {
	o := r.outcome(err, takenOverNext)
	o.Outcome = evidence.OutcomeInterrupted
	return o
}

// undo takes back what the steps did, the last first.
func (r *run) undo(ctx context.Context, cause error, as string) evidence.OutcomeDoc {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if err := silent(ctx, r.Old); err != nil && r.Old.Cluster != nil {
		r.forgo(err)
	}
	var failed error
	for _, st := range slices.Backward(r.list) {
		hooked := r.hooked(st.name, hooks.Undo)
		if !r.begun[st.name] || st.undo == nil && !hooked {
			continue
		}
		began := time.Now()
		// What cannot be written down is undone all the same, unless it is another's by now.
		err := r.begin(ctx, st.name, "undo it")
		if isFenced(err) {
			return r.takenOver(errors.Join(cause, failed, err))
		}
		proof, err := r.takeBack(ctx, st, hooked)
		_, none := errors.AsType[*skipped](err)
		switch {
		case isFenced(err):
			return r.takenOver(errors.Join(cause, failed, err))
		case none:
			r.step(ctx, st.name, evidence.StepSkipped, time.Since(began), err.Error())
		case err != nil:
			r.step(ctx, st.name, evidence.StepFailed, time.Since(began), "undo: "+err.Error())
			failed = errors.Join(failed, fmt.Errorf("undo %s: %w", st.name, err))
		default:
			r.step(ctx, st.name, evidence.StepUndone, time.Since(began), proof)
		}
	}
	if failed != nil {
		command := commandOf(r.req.Verb, r.Pair, r.New.Alias)
		next := fmt.Sprintf("run %s --undo", command)
		switch {
		case r.Old.Cluster != nil || r.req.Verb == Failover:
		case r.req.Verb == Failback:
			next = fmt.Sprintf("when %s answers again: %s --undo; %s is authoritative and need not wait for that", r.Old.Alias, command, r.New.Alias)
		default:
			next = fmt.Sprintf("when %s answers again: %s --undo; if it is gone: replicator failover --to %s --accept-loss, which need not wait for that",
				r.Old.Alias, command, r.New.Alias)
		}
		o := r.outcome(errors.Join(cause, failed), next)
		o.Outcome = evidence.OutcomeInterrupted
		return o
	}
	o := r.outcome(cause, "")
	if o.Outcome = as; o.Next == "" && !r.req.Undo {
		o.Next = "nothing is left changed: put that right, then run the command again"
		if r.audit.down != nil {
			o.Next = fmt.Sprintf("nothing is left changed on %s; when %s answers again, run the same command: it goes on, or with --undo ends this run", r.Old.Alias, r.New.Alias)
		}
	}
	return o
}

// takeBack undoes one step and runs its hooks of undo, if there are any. They run even
// where the step cannot be undone: what they do stands by itself.
func (r *run) takeBack(ctx context.Context, st step, hooked bool) (proof string, err error) {
	if st.undo != nil {
		proof, err = st.undo(ctx, r)
	}
	if !hooked {
		return proof, err
	}
	if _, none := errors.AsType[*skipped](err); none {
		err = nil
	}
	return cmp.Or(proof, "its hooks have run"), errors.Join(err, r.hooks(ctx, st.name, hooks.Undo))
}

func (r *run) outcome(err error, next string) evidence.OutcomeDoc {
	// A run that was begun on another machine has times by its clock, which may be ahead of ours.
	o := evidence.OutcomeDoc{Outcome: evidence.OutcomeDone, Took: max(0, time.Since(r.began).Seconds()), Next: next}
	if err != nil {
		o.Outcome, o.Error = evidence.OutcomeFailed, err.Error()
		var no *RefusedError
		if errors.As(err, &no) && next == "" {
			o.Next = no.Fix
		}
	}
	if !r.openAt.IsZero() {
		o.RTO = between(r.began, r.openAt)
		if !r.fencedAt.IsZero() {
			o.WritersFencedSeconds = between(r.fencedAt, r.openAt)
		}
	}
	return o
}

// between is how many seconds are between two times, nil if two clocks contradict each other.
func between(from, to time.Time) *float64 {
	secs := to.Sub(from).Seconds()
	if secs < 0 {
		return nil
	}
	return &secs
}

// step notes how a step goes. That it could not be written is found out at the step's
// end, which waits for it.
func (r *run) step(ctx context.Context, name, outcome string, took time.Duration, proof string) {
	if err := r.event(ctx, evidence.KindStep, name, evidence.StepDoc{Name: name, Outcome: outcome, Took: took.Seconds(), Proof: proof}); err != nil {
		r.Log.Warn("event not kept yet", zap.String("step", name), zap.Error(err))
	}
}

// event keeps an event, also of a run that was interrupted: whoever comes next goes by it.
func (r *run) event(ctx context.Context, kind evidence.Kind, step string, doc any) error {
	ctx = context.WithoutCancel(ctx) // a write has a bound of its own
	before := len(r.rec.Events())
	err := r.rec.Record(ctx, kind, step, doc)
	if r.req.Watch != nil {
		for _, e := range r.rec.Events()[before:] {
			r.req.Watch.Event(e)
		}
	}
	return err
}

func (r *run) progress(step, format string, args ...any) { r.req.progress(step, format, args...) }

// hooks runs the user's commands around a step.
func (r *run) hooks(ctx context.Context, step, when string) error {
	results, err := hooks.Run(ctx, r.Hooks, step, when, map[string]string{
		"RUN": r.id, "VERB": string(r.req.Verb), "PAIR": r.Pair.String(),
		"FROM": r.Old.Alias, "TO": r.New.Alias, "EPOCH": strconv.FormatInt(r.record.Epoch, 10),
	})
	for _, h := range results {
		if kept := r.event(ctx, evidence.KindHook, step, evidence.HookDoc{
			Step: step, When: when, Command: h.Command, Exit: h.Exit, Took: h.Took.Seconds(), Output: h.Output, Error: h.Err,
		}); kept != nil && err == nil && when != hooks.Undo { // what was taken back is, kept or not
			err = kept
		}
	}
	return err
}

// auditSink keeps events on the cluster.
type auditSink struct {
	changer *authority.Changer
	down    error // why nothing can be written there, nil if it can
}

func (s *auditSink) Write(ctx context.Context, e evidence.Event) error {
	if s.down != nil {
		return fmt.Errorf("write event to the audit topic: %w", s.down)
	}
	line, err := e.Encode()
	if err != nil {
		return err
	}
	if err := s.changer.Audit(ctx, e.Run, line); err != nil {
		return fmt.Errorf("write event to the audit topic: %w", err)
	}
	return nil
}
