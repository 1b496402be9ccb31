package cutover

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/hooks"
)

// The engine is tried with steps of its own, which write facts to the clusters where the
// real ones write rules and fences. The point is the real one. What they do is seen by
// reading both clusters, as the next command would.

// What befalls a command at a moment.
const (
	fails   = "fails"           // the step says no
	dies    = "dies"            // kill -9
	loses   = "loses its right" // another command takes it, and does nothing with it
	stopped = "is interrupted"  // Ctrl-C
)

// trouble is what befalls one command, at the n-th of its moments: each event it tells, and
// in each step, and undoing it, once before the write and once behind it.
type trouble struct {
	what string
	at   int
}

// command is one call of a verb.
type command struct {
	pair    *pair
	setup   Setup
	trouble trouble
	moments int
	stop    context.CancelFunc
	did     []string // steps done and undone, in order
	told    func(evidence.Event)
	begun   int // how many steps were begun, and undone
	// seen is what the clusters held when the right was lost, and lostIn the step.
	seen   *copies
	lostIn int
}

// trial is a pair of regions of its own names on the clusters of a pair.
type trial struct {
	*pair
	from, to string
}

func newTrial(p *pair, n int) *trial {
	return &trial{pair: p, from: fmt.Sprintf("east%d", n), to: fmt.Sprintf("west%d", n)}
}

func (tr *trial) setup() Setup {
	s := tr.pair.setup("east", "west")
	s.Pair, s.Old.Alias, s.New.Alias = authority.PairOf(tr.from, tr.to), tr.from, tr.to
	s.Settings.EvidenceDir = "" // the events on the cluster are enough
	return s
}

// moment is when something may befall the command.
func (c *command) moment(ctx context.Context) error {
	c.moments++
	if c.moments != c.trouble.at {
		return nil
	}
	switch c.trouble.what {
	case fails:
		return errors.New("the step says no")
	case dies:
		runtime.Goexit() // connections are closed, nothing more is written
	case stopped:
		c.stop()
	case loses:
		other, err := authority.Change(context.WithoutCancel(ctx), c.setup.authorityOn(c.setup.New))
		if err != nil {
			return err
		}
		other.Close()
		now := c.pair.look(c.setup)
		c.seen, c.lostIn = &now, c.begun
	}
	return nil
}

// Event tells a moment by an event. A step has to say no by itself.
func (c *command) Event(e evidence.Event) {
	if doc, err := evidence.Decode[evidence.StepDoc](e); err == nil && e.Kind == evidence.KindStep && doc.Outcome == evidence.StepBegun {
		c.begun++
	}
	if c.told != nil {
		c.told(e)
	}
	_ = c.moment(context.Background())
}

// Progress tells those moments that lie between two writes of one step.
func (c *command) Progress(_, text string) {
	for _, between := range []string{"written down", "rules lifted", "the record stands on", "inverses are known", "lanes are prepared"} {
		if strings.Contains(text, between) {
			_ = c.moment(context.Background())
		}
	}
}

// do calls a verb; result and err are nil if the command was killed.
func (c *command) do(req Request, list func(*command) []step) (result *Result, err error) {
	ctx, cancel := context.WithCancel(c.pair.t.Context())
	defer cancel()
	c.stop, req.Watch, req.By, req.ExpectEpoch = cancel, c, "test", -1
	done := make(chan struct{})
	go func() { // which ends where the command is killed
		defer close(done)
		r := newRun(c.setup, req)
		if list != nil {
			r.list = list(c)
		}
		result, err = r.execute(ctx)
	}()
	<-done
	return result, err
}

// notes are steps that write facts: four before the point and three behind it.
func notes(c *command) []step {
	fact := func(name string, undo bool) step {
		write := func(ctx context.Context, r *run, undone string, data any) (string, error) {
			if err := c.moment(ctx); err != nil {
				return "", err
			}
			// Who loses the right within a step may end its write, and does no more.
			if c.seen != nil && c.lostIn == c.begun {
				defer func() { now := c.pair.look(c.setup); c.seen = &now }()
			}
			old, err := r.onOld(ctx)
			if err != nil {
				return "", err
			}
			if err := old.Put(ctx, name, r.id, data); err != nil {
				return "", err
			}
			c.did = append(c.did, undone+name)
			return undone + name, c.moment(ctx)
		}
		st := step{name: name, what: name, do: func(ctx context.Context, r *run) (string, error) { return write(ctx, r, "", name) }}
		if undo {
			st.undo = func(ctx context.Context, r *run) (string, error) { return write(ctx, r, "not ", nil) }
		}
		return st
	}
	look := step{name: "look", what: "look", do: func(ctx context.Context, _ *run) (string, error) {
		c.did = append(c.did, "look")
		return "seen", c.moment(ctx)
	}}
	once := fact("once", false)
	once.once = true
	return []step{fact("first", true), look, fact("second", true), fact("third", true), promoteStep(), fact("behind", false), once, fact("last", false)}
}

// copies are the authority on both clusters, and what steps wrote to the old region.
type copies struct {
	old, new authority.State
	facts    string
}

func (p *pair) look(s Setup) (c copies) {
	p.t.Helper()
	for region, into := range map[*Region]*authority.State{&s.Old: &c.old, &s.New: &c.new} {
		state, err := authority.Read(context.WithoutCancel(p.t.Context()), s.authorityOn(*region))
		if err != nil {
			p.t.Error(err)
		}
		*into = state
	}
	var facts []string
	for _, name := range []string{"behind", "first", "last", "once", "second", "third", writersFact} {
		if _, ok := c.old.Facts[name]; ok {
			facts = append(facts, name)
		}
	}
	c.facts = strings.Join(facts, " ")
	return c
}

func (c copies) String() string {
	return fmt.Sprintf("epochs %d and %d, facts %q", epochOf(c.old), epochOf(c.new), c.facts)
}

// goes runs a verb on the trial.
func (tr *trial) goes(undo bool, t trouble) (c *command, result *Result, err error) {
	c = &command{pair: tr.pair, setup: tr.setup(), trouble: t}
	result, err = c.do(Request{Verb: Switchover, Undo: undo}, notes)
	return c, result, err
}

// events are those of the pair's last run on the new region.
func (p *pair) events(s Setup) (run string, events []evidence.Event, err error) {
	cfg := s.authorityOn(s.New)
	runs, err := authority.Runs(p.t.Context(), cfg)
	if err != nil || len(runs) == 0 {
		return "", nil, err
	}
	run = runs[len(runs)-1].ID
	lines, err := authority.ReadAudit(p.t.Context(), cfg, run)
	if err != nil {
		return run, nil, err
	}
	events, err = evidence.FromLines(run, lines)
	return run, events, err
}

// docs are what events of a kind say, in their order.
func docs[T any](t *testing.T, events []evidence.Event, kind evidence.Kind) (all []T) {
	t.Helper()
	for _, e := range events {
		if e.Kind == kind {
			doc, err := evidence.Decode[T](e)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, doc)
		}
	}
	return all
}

// stepsSaid are the steps of events that ended in a way, as they were written.
func stepsSaid(events []evidence.Event, outcome string) (names []string) {
	for _, e := range events {
		if e.Kind != evidence.KindStep {
			continue
		}
		if doc, err := evidence.Decode[evidence.StepDoc](e); err == nil && doc.Outcome == outcome {
			names = append(names, doc.Name)
		}
	}
	return names
}

// Whatever befalls commands, and however often: the authority changes once or not at all,
// never back, and a pair is left as it was or as it was to be.
func TestACutoverEndsOneWayOrTheOther(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := 0
	try := func(rt *rapid.T) {
		n++
		tr := newTrial(p, n)
		promoted := "" // the run that changed the authority
		verify := func(c *command, res *Result, err error) {
			now := tr.look(tr.setup())
			said := fmt.Sprintf("%v at %d, after %v; %s; it came to %s", c.trouble.what, c.trouble.at, c.did, now, end(res, err))
			if d := authority.Compare(now.old, now.new); d.Relation == authority.Split {
				rt.Fatalf("the copies are split: %s", said)
			}
			if epochOf(now.new) > 1 || epochOf(now.old) > epochOf(now.new) || len(now.new.Records) > 1 {
				rt.Fatalf("the authority changed more than once, or on the old region first: %s", said)
			}
			if current, ok := now.new.Current(); ok {
				if promoted != "" && promoted != current.Run {
					rt.Fatalf("the record is of run %s, was of %s: %s", current.Run, promoted, said)
				}
				promoted = current.Run
			} else if promoted != "" {
				rt.Fatalf("the point was undone: %s", said)
			}
			run, events, broken := tr.events(tr.setup())
			if broken != nil {
				rt.Fatalf("the chain does not hold: %v: %s", broken, said)
			}
			if promoted != "" && promoted != run {
				rt.Fatalf("run %s began although %s changed the authority: %s", run, promoted, said)
			}
			if c.seen != nil && (c.seen.facts != now.facts || epochOf(c.seen.new) != epochOf(now.new)) {
				rt.Fatalf("who had lost the right went on: it held %s then: %s", c.seen, said)
			}
			if res == nil {
				return
			}
			if res.Run != run {
				rt.Fatalf("the events are of run %s: %s", run, said)
			}
			switch res.Outcome.Outcome {
			case evidence.OutcomeDone:
				if promoted == "" || epochOf(now.old) != 1 || now.facts != "behind first last once second third" {
					rt.Fatalf("done, and it is not: %s", said)
				}
				if stepsSaid(events, evidence.StepUndone) != nil {
					rt.Fatalf("a run was done and undone: %s", said)
				}
			case evidence.OutcomeUndone, evidence.OutcomeRefused:
				if promoted != "" || now.facts != "" {
					rt.Fatalf("undone, and something is left: %s", said)
				}
				if undone := undoneIn(c.did); !slices.IsSortedFunc(undone, func(a, b string) int { return order(b) - order(a) }) {
					rt.Fatalf("undone in the order %v: %s", undone, said)
				}
			case evidence.OutcomeFailed, evidence.OutcomeInterrupted:
				if res.Outcome.Next == "" {
					rt.Fatalf("it does not say how to go on: %s", said)
				}
			}
		}
		for range rapid.IntRange(0, 4).Draw(rt, "commands") {
			t := trouble{rapid.SampledFrom([]string{fails, dies, loses, stopped}).Draw(rt, "what"), rapid.IntRange(1, 40).Draw(rt, "at")}
			undo := rapid.IntRange(0, 3).Draw(rt, "undo") == 0
			unfinished := tr.unfinished(tr.setup())
			c, res, err := tr.goes(undo, t)
			verify(c, res, err)
			if res != nil && unfinished && !res.Resumed {
				rt.Fatalf("an unfinished run was there: %v; taken up: %v", unfinished, res.Resumed)
			}
			if promoted != "" && !tr.unfinished(tr.setup()) {
				return
			}
		}
		// Nothing befalls the last one, whoever begins it.
		unfinished := tr.unfinished(tr.setup())
		undo := promoted == "" && unfinished && rapid.Bool().Draw(rt, "undone in the end")
		c, res, err := tr.goes(undo, trouble{})
		verify(c, res, err)
		want := evidence.OutcomeDone
		if undo {
			want = evidence.OutcomeUndone
		}
		if res == nil || res.Outcome.Outcome != want || unfinished && !res.Resumed {
			rt.Fatalf("the last command comes to %s, want %s, taken up %v", end(res, err), want, unfinished)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range 3 {
			try(rt)
		}
	})
}

func end(res *Result, err error) string {
	if res == nil {
		return fmt.Sprintf("no result, %v", err)
	}
	return fmt.Sprintf("%s, taken up %v: %s", res.Outcome.Outcome, res.Resumed, res.Outcome.Error)
}

// unfinished tells whether the last run has begun a step and come to no end.
func (p *pair) unfinished(s Setup) bool {
	p.t.Helper()
	_, events, err := p.events(s)
	if err != nil {
		p.t.Error(err)
	}
	if stepsSaid(events, evidence.StepBegun) == nil {
		return false
	}
	last := events[len(events)-1]
	outcome, err := evidence.Decode[evidence.OutcomeDoc](last)
	return err != nil || last.Kind != evidence.KindOutcome || !slices.Contains([]string{evidence.OutcomeDone, evidence.OutcomeUndone, evidence.OutcomeRefused}, outcome.Outcome)
}

func order(name string) int { return slices.Index([]string{"first", "second", "third"}, name) }

// undoneIn are the steps a command undid, in its order.
func undoneIn(did []string) (names []string) {
	for _, d := range did {
		if name, ok := strings.CutPrefix(d, "not "); ok {
			names = append(names, name)
		}
	}
	return names
}

// saying is the moment of an event of a step.
func saying(step, outcome string, then func()) func(evidence.Event) {
	return func(e evidence.Event) {
		if doc, err := evidence.Decode[evidence.StepDoc](e); err == nil && e.Kind == evidence.KindStep && doc.Name == step && doc.Outcome == outcome {
			then()
		}
	}
}

// Before the point a run is gone through anew, each step doing what is left; behind it, it
// goes on with the point. What is done once is not done again.
func TestWhereARunIsTakenUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := 0
	for _, c := range []struct{ step, outcome, again string }{
		{"first", evidence.StepBegun, "first look second third behind once last"},
		{"third", evidence.StepDone, "first look second third behind once last"},
		{"promote", evidence.StepBegun, "first look second third behind once last"},
		{"promote", evidence.StepDone, "behind once last"},
		{"once", evidence.StepBegun, "behind once last"},
		{"once", evidence.StepDone, "behind last"},
		{"last", evidence.StepDone, "behind last"},
	} {
		n++
		t.Run(fmt.Sprintf("killed when %s is %s", c.step, c.outcome), func(t *testing.T) {
			tr := newTrial(p, n)
			killed := &command{pair: p, setup: tr.setup(), told: saying(c.step, c.outcome, runtime.Goexit)}
			if res, err := killed.do(Request{Verb: Switchover}, notes); res != nil || err != nil {
				t.Fatalf("it was not killed: %s", end(res, err))
			}
			again, res, err := tr.goes(false, trouble{})
			if res == nil || res.Outcome.Outcome != evidence.OutcomeDone || !res.Resumed || strings.Join(again.did, " ") != c.again {
				t.Errorf("it did %v, %s; want %s", again.did, end(res, err), c.again)
			}
			_, events, err := p.events(tr.setup())
			if err != nil {
				t.Error(err)
			}
			if plans := docs[evidence.PlanDoc](t, events, evidence.KindPlan); len(plans) != 2 || plans[1].NextEpoch != 1 {
				t.Errorf("the run has the plans %+v", plans)
			}
		})
	}
}

// The transaction of the record may be committed, or not, and nobody be told. It is looked
// up before anything is undone; where that cannot be, nothing is, and the next command knows.
func TestAnAnswerToTheCommitThatNeverCameIsLookedUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	west := p.brokers["west"]
	n := 0
	for name, c := range map[string]struct {
		written, seen bool
		want, facts   string
	}{
		"written":                      {true, true, evidence.OutcomeDone, "behind first last once second third"},
		"not written":                  {false, true, evidence.OutcomeUndone, ""},
		"written, nobody can look":     {true, false, evidence.OutcomeInterrupted, "first second third"},
		"not written, nobody can look": {false, false, evidence.OutcomeInterrupted, "first second third"},
	} {
		n++
		t.Run(name, func(t *testing.T) {
			tr := newTrial(p, n)
			var dark atomic.Bool
			cmd := &command{pair: p, setup: tr.setup(), told: saying("promote", evidence.StepBegun, func() {
				west.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
					dark.Store(true)
					west.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
						m, ok := req.(*kmsg.MetadataRequest)
						if !dark.Load() || !ok || len(m.Topics) != 1 {
							west.KeepControl()
							return nil, nil, false
						}
						if dark.Store(!c.seen); !c.seen {
							west.KeepControl()
						}
						resp := m.ResponseKind().(*kmsg.MetadataResponse)
						topic := kmsg.NewMetadataResponseTopic()
						topic.Topic, topic.ErrorCode = m.Topics[0].Topic, kerr.TopicAuthorizationFailed.Code
						resp.Topics = append(resp.Topics, topic)
						return resp, nil, true
					})
					if c.written {
						west.DropControl()
						return nil, nil, false
					}
					resp := req.ResponseKind().(*kmsg.EndTxnResponse)
					resp.ErrorCode = kerr.UnknownServerError.Code
					return resp, nil, true
				})
			})}
			res, err := cmd.do(Request{Verb: Switchover}, notes)
			dark.Store(false)
			now := p.look(cmd.setup)
			if res == nil || res.Outcome.Outcome != c.want || now.facts != c.facts {
				t.Fatalf("it comes to %s, %s; want %s with the facts %q", end(res, err), now, c.want, c.facts)
			}
			if written := epochOf(now.new) == 1; written != c.written {
				t.Errorf("the record is written: %v", written)
			}
			if c.seen {
				return
			}
			if _, res, err = tr.goes(false, trouble{}); res == nil || res.Outcome.Outcome != evidence.OutcomeDone || !res.Resumed {
				t.Errorf("the next command comes to %s", end(res, err))
			}
		})
	}
}

// Another command promotes the region while the commit of this one fails. What that one
// relies on is not undone.
func TestAnotherCommandsPromotionIsNotUndone(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	west, tr := p.brokers["west"], newTrial(p, 0)
	const other = "switchover-of-somebody-else"
	var failing atomic.Bool
	cmd := &command{pair: p, setup: tr.setup(), told: saying("promote", evidence.StepBegun, func() {
		west.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
			west.KeepControl()
			end := req.(*kmsg.EndTxnRequest)
			if !strings.Contains(end.TransactionalID, tr.from) || !failing.CompareAndSwap(false, true) {
				return nil, nil, false
			}
			west.SleepControl(func() {
				s := tr.setup()
				c, err := authority.Change(t.Context(), s.authorityOn(s.New))
				if err == nil {
					err = c.Set(t.Context(), authority.Record{Epoch: 1, Region: tr.to, Verb: string(Switchover), Run: other})
					c.Close()
				}
				if err != nil {
					t.Errorf("the other command: %v", err)
				}
			})
			resp := req.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = kerr.UnknownServerError.Code
			return resp, nil, true
		})
	})}
	res, err := cmd.do(Request{Verb: Switchover}, notes)
	now := p.look(cmd.setup)
	if current, _ := now.new.Current(); current.Run != other || now.facts != "first second third" || res == nil || res.Outcome.Outcome != evidence.OutcomeInterrupted || res.Outcome.Next != takenOverNext {
		t.Errorf("it comes to %s; left is %s", end(res, err), now)
	}
}

// A record that was written and cannot be read back stands: nothing of the run is undone.
func TestARecordThatCannotBeReadBackStands(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	west := p.brokers["west"]
	var seen atomic.Int32 // the commit, the record in the log, the refusal to read it back
	cmd := &command{pair: p, setup: newTrial(p, 1).setup(), told: saying("promote", evidence.StepBegun, func() {
		west.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
			west.KeepControl()
			switch m := req.(type) {
			case *kmsg.EndTxnRequest:
				seen.CompareAndSwap(0, 1)
			case *kmsg.FetchRequest:
				seen.CompareAndSwap(1, 2)
			case *kmsg.MetadataRequest:
				if len(m.Topics) != 1 || *m.Topics[0].Topic != authority.DefaultTopic || !seen.CompareAndSwap(2, 3) {
					break
				}
				resp := m.ResponseKind().(*kmsg.MetadataResponse)
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic, topic.ErrorCode = m.Topics[0].Topic, kerr.TopicAuthorizationFailed.Code
				resp.Topics = append(resp.Topics, topic)
				return resp, nil, true
			}
			return nil, nil, false
		})
	})}
	res, err := cmd.do(Request{Verb: Switchover}, notes)
	now := p.look(cmd.setup)
	if seen.Load() != 3 || epochOf(now.new) != 1 {
		t.Fatalf("the record was not refused behind its commit: %d, %s", seen.Load(), now)
	}
	if res == nil || res.Outcome.Outcome != evidence.OutcomeDone {
		t.Errorf("it comes to %s, %s", end(res, err), now)
	}
}

// What hooks did is kept, and what they failed for.
func TestWhatHooksDidIsKept(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	hook := func(step, when, script string) hooks.Hook {
		return hooks.Hook{Step: step, When: when, Command: []string{"sh", "-c", script}}
	}
	says := func(step, when string) hooks.Hook { return hook(step, when, "echo $REPLICATOR_STEP $REPLICATOR_WHEN") }
	maybe := hook("look", hooks.After, "echo no matter; exit 3")
	maybe.Optional = true
	n := 0
	for name, c := range map[string]struct {
		hooks        []hooks.Hook
		outcome, why string
		said, did    string
	}{
		"what they are told": {
			hooks:   []hooks.Hook{hook("look", hooks.Before, "echo $REPLICATOR_VERB $REPLICATOR_FROM to $REPLICATOR_TO, $REPLICATOR_EPOCH, $REPLICATOR_PAIR")},
			outcome: evidence.OutcomeDone, said: "0 switchover eastN to westN, 1, eastN/westN", did: "first look second third behind once last",
		},
		"one that fails before its step": {
			hooks:   []hooks.Hook{says("first", hooks.Before), hook("second", hooks.Before, "echo no route; exit 9"), says("second", hooks.Undo), says("first", hooks.Undo), says("third", hooks.Undo)},
			outcome: evidence.OutcomeUndone, why: "run hook before second (sh -c echo no route; exit 9): it ended with exit status 9; it said \"no route\"",
			said: "0 first before|9 no route|0 second undo|0 first undo", did: "first look not second not first",
		},
		"one that fails behind its step": {
			hooks:   []hooks.Hook{hook("third", hooks.After, "exit 1")},
			outcome: evidence.OutcomeUndone, why: "third: run hook after third", said: "1 ", did: "first look second third not third not second not first",
		},
		"an optional one": {hooks: []hooks.Hook{maybe}, outcome: evidence.OutcomeDone, said: "3 no matter", did: "first look second third behind once last"},
		"one of a step that has nothing to undo": {
			hooks:   []hooks.Hook{says("look", hooks.Undo), hook("promote", hooks.Before, "exit 1")},
			outcome: evidence.OutcomeUndone, said: "1 |0 look undo", did: "first look second third not third not second not first",
		},
		"one that fails when it undoes": {
			hooks:   []hooks.Hook{hook("second", hooks.Undo, "exit 2"), hook("promote", hooks.Before, "exit 1")},
			outcome: evidence.OutcomeInterrupted, why: "undo second: run hook undo second", said: "1 |2 ", did: "first look second third not third not second not first",
		},
		"one that fails behind the point": {
			hooks:   []hooks.Hook{says("third", hooks.Undo), hook("behind", hooks.After, "exit 1")},
			outcome: evidence.OutcomeFailed, said: "1 ", did: "first look second third behind",
		},
	} {
		n++
		t.Run(name, func(t *testing.T) {
			tr := newTrial(p, n)
			cmd := &command{pair: p, setup: tr.setup()}
			cmd.setup.Hooks = c.hooks
			res, err := cmd.do(Request{Verb: Switchover}, notes)
			if res == nil || res.Outcome.Outcome != c.outcome || !strings.Contains(res.Outcome.Error, c.why) {
				t.Fatalf("it comes to %s; want %s: %s", end(res, err), c.outcome, c.why)
			}
			_, events, err := p.events(cmd.setup)
			if err != nil {
				t.Error(err)
			}
			var said []string
			for _, h := range docs[evidence.HookDoc](t, events, evidence.KindHook) {
				said = append(said, fmt.Sprintf("%d %s", h.Exit, strings.TrimSpace(h.Output)))
			}
			if got, want := strings.Join(said, "|"), strings.ReplaceAll(c.said, "N", strconv.Itoa(n)); got != want {
				t.Errorf("the evidence has of hooks %q, want %q", got, want)
			}
			if got := strings.Join(cmd.did, " "); got != c.did {
				t.Errorf("it did %q, want %q", got, c.did)
			}
		})
	}
}

// Between the plan and the right to carry it out somebody else may have been at work.
func TestAPlanThatTheWorldHasLeftBehindIsRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	tr := newTrial(p, 1)
	set := func(*Plan) error {
		s := tr.setup()
		for _, region := range []Region{s.New, s.Old} {
			c, err := authority.Change(t.Context(), s.authorityOn(region))
			if err != nil {
				return err
			}
			err = c.Set(t.Context(), authority.Record{Epoch: c.State().Epoch() + 1, Region: tr.from, Verb: "init", By: "test", Run: "init-1"})
			c.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
	try := func(confirm func(*Plan) error, want string) {
		t.Helper()
		c := &command{pair: p, setup: tr.setup()}
		res, err := c.do(Request{Verb: Switchover, Confirm: confirm}, notes)
		if _, no := errors.AsType[*RefusedError](err); !no || res != nil || !strings.Contains(err.Error(), want) || len(c.did) > 0 {
			t.Errorf("it did %v, %s; want a refusal: %s", c.did, end(res, err), want)
		}
	}
	try(set, "the authority record has epoch 1 now, the plan was made with 0")
	killed := &command{pair: p, setup: tr.setup(), told: saying("third", evidence.StepBegun, runtime.Goexit)}
	if res, err := killed.do(Request{Verb: Switchover}, notes); res != nil || err != nil {
		t.Fatalf("it was not killed: %s", end(res, err))
	}
	try(func(*Plan) error {
		_, res, err := tr.goes(true, trouble{})
		if err == nil && res.Outcome.Outcome != evidence.OutcomeUndone {
			err = errors.New(end(res, nil))
		}
		return err
	}, "has been finished meanwhile")
	try(func(*Plan) error { return refused("", "not confirmed") }, "not confirmed")
	if now := p.look(tr.setup()); now.facts != "" || epochOf(now.new) != 1 {
		t.Errorf("left behind: %s", now)
	}
}

// An unfinished run is finished first, by its own verb and in its own direction. A failover
// does not wait for what a dying region has left.
func TestAnUnfinishedRunStandsInTheWayOfOthers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	tr := newTrial(p, 1)
	kill := func(step, outcome string) {
		t.Helper()
		killed := &command{pair: p, setup: tr.setup(), told: saying(step, outcome, runtime.Goexit)}
		if res, err := killed.do(Request{Verb: Switchover}, notes); res != nil || err != nil {
			t.Fatalf("it was not killed: %s", end(res, err))
		}
	}
	refuses := func(s Setup, req Request, want, fix string) {
		t.Helper()
		req.ExpectEpoch = -1
		plan, err := MakePlan(t.Context(), s, req)
		if err == nil {
			plan.Close()
		}
		no, ok := errors.AsType[*RefusedError](err)
		if !ok || !strings.Contains(no.Error(), want) || !strings.Contains(no.Fix, fix) {
			t.Errorf("%s, undo %v: %v, want a refusal: %s", req.Verb, req.Undo, err, want)
		}
	}
	back := tr.setup()
	back.Old, back.New, back.Forward, back.Reverse = back.New, back.Old, *back.Reverse, &back.Forward

	refuses(tr.setup(), Request{Verb: Switchover, Undo: true}, "there is no unfinished run to undo", "nothing has to be done")
	kill("second", evidence.StepDone)
	refuses(tr.setup(), Request{Verb: Rollback}, "(switchover to west1, begun by test) is not finished", "finish it with replicator switchover --to west1, or undo it with --undo")
	plan, err := MakePlan(t.Context(), tr.setup(), Request{Verb: Failover, ExpectEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Close(); plan.Resumes != "" {
		t.Errorf("a failover takes up %s", plan.Resumes)
	}
	kill("behind", evidence.StepDone)
	refuses(tr.setup(), Request{Verb: Switchover, Undo: true}, "has changed the authority already: it cannot be undone", "without --undo")
	refuses(tr.setup(), Request{Verb: Failover}, "is not finished", "finish it with replicator switchover --to west1")
	refuses(back, Request{Verb: Switchover}, "(switchover to west1, begun by test) is not finished", "finish it with replicator switchover --to west1")
	if _, res, err := tr.goes(false, trouble{}); res == nil || res.Outcome.Outcome != evidence.OutcomeDone {
		t.Fatal(end(res, err))
	}
	plan, err = MakePlan(t.Context(), back, Request{Verb: Switchover, ExpectEpoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Close(); plan.Resumes != "" || plan.Epoch != 1 || plan.NextEpoch != 2 || plan.From != tr.to || plan.To != tr.from {
		t.Errorf("the way back is planned as %+v", plan.PlanDoc)
	}
}
