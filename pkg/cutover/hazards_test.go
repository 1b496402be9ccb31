package cutover

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/writers"
)

// killed leaves a run as a command leaves it that was killed behind fence-writers, or that
// ended with an outcome there; passed is the run it did not wait for.
func (p *pair) killed(s Setup, verb Verb, id, outcome string, passed *authority.LastRun) *authority.LastRun {
	p.t.Helper()
	c, err := authority.Change(p.t.Context(), s.authorityOn(s.New))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	from, err := c.AuditEnd(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	rec, err := evidence.Start(evidence.Config{Run: id, Sinks: []evidence.Sink{&auditSink{changer: c}}})
	if err != nil {
		p.t.Fatal(err)
	}
	keep := func(kind evidence.Kind, step string, doc any) {
		p.t.Helper()
		if err := rec.Record(p.t.Context(), kind, step, doc); err != nil {
			p.t.Fatal(err)
		}
	}
	keep(evidence.KindPlan, "", evidence.PlanDoc{Verb: string(verb), From: s.Old.Alias, To: s.New.Alias, Epoch: 1, NextEpoch: 2, By: "ann"})
	last := authority.LastRun{Run: id, From: from, Passed: passed}
	if err := c.Put(p.t.Context(), authority.LastRunFact, id, last); err != nil {
		p.t.Fatal(err)
	}
	for _, step := range []string{"gates", "fence-writers"} {
		keep(evidence.KindStep, step, evidence.StepDoc{Name: step, Outcome: evidence.StepBegun})
	}
	if outcome != "" {
		keep(evidence.KindOutcome, "", evidence.OutcomeDoc{Outcome: outcome})
	}
	return &last
}

// record makes the new region authoritative under a run's name.
func (p *pair) record(s Setup, epoch int64, run string) {
	p.t.Helper()
	c, err := authority.Change(p.t.Context(), s.authorityOn(s.New))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Set(p.t.Context(), authority.Record{Epoch: epoch, Region: s.New.Alias, Verb: string(Switchover), By: "ann", Run: run}); err != nil {
		p.t.Fatal(err)
	}
}

// moves makes the new region authoritative.
func (p *pair) moves(s Setup, verb Verb) {
	p.t.Helper()
	p.passes(s, Request{Verb: verb})
	res, err := Execute(p.t.Context(), s, Request{Verb: verb, ExpectEpoch: -1})
	if err != nil {
		p.t.Fatal(err)
	}
	if res.Outcome.Outcome != evidence.OutcomeDone {
		p.t.Fatalf("%s to %s: %+v", verb, s.New.Alias, res.Outcome)
	}
}

// fencing is a run that keeps writers off by rules, as far as that.
func fencing(t *testing.T, s Setup, verb Verb, id string) *run {
	t.Helper()
	r := newRun(s, Request{Verb: verb})
	r.id = id
	old, err := r.onOld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.old.Close() })
	if _, err := r.fenceByRules(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	return r
}

func refusal(t *testing.T, err error) *RefusedError {
	t.Helper()
	no, ok := errors.AsType[*RefusedError](err)
	if !ok {
		t.Fatalf("not refused: %v", err)
	}
	return no
}

func TestARunThatPassedThePointWhileSomebodyReadTheQuestionIsNotUndone(t *testing.T) {
	p := newPair(t)
	p.first("east")
	s := p.setup("east", "west")
	const id = "switchover-20260101T000000Z-aaaa"
	fencing(t, s, Switchover, id)
	p.killed(s, Switchover, id, "", nil)
	rules := p.denied("east")
	_, err := Execute(t.Context(), s, Request{Verb: Switchover, Undo: true, ExpectEpoch: -1, Confirm: func(*Plan) error { p.record(s, 2, id); return nil }})
	refusal(t, err)
	if now := p.denied("east"); now != rules || now == 0 {
		t.Errorf("of %d rules on the old region %d are left", rules, now)
	}
}

func TestACommandThatLostItsRightLiftsNoRules(t *testing.T) {
	p := newPair(t)
	p.first("east")
	s := p.setup("east", "west")
	first := fencing(t, s, Switchover, "switchover-1")
	second := fencing(t, s, Switchover, "switchover-2")
	_, err := first.unfenceWriters(t.Context())
	if _, taken := errors.AsType[*authority.FencedError](err); !taken {
		t.Errorf("undoing behind another command's back: %v", err)
	}
	if err := second.rulesStand(t.Context()); err != nil || p.denied("east") == 0 {
		t.Errorf("%d rules left: %v", p.denied("east"), err)
	}
}

func TestRulesThatWereTakenAwayStopTheRunBeforeThePoint(t *testing.T) {
	p := newPair(t)
	p.first("east")
	r := fencing(t, p.setup("east", "west"), Switchover, "switchover-1")
	if err := r.rulesStand(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin := p.regions["east"].Admin()
	given := kadm.NewACLs().Operations(kadm.OpWrite).Topics("orders").Allow("User:late")
	if _, err := admin.CreateACLs(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	refusal(t, r.rulesStand(t.Context()))
	if _, err := admin.DeleteACLs(t.Context(), kadm.NewACLs().Operations(kadm.OpWrite).Topics("orders").Allow("User:late").AllowHosts().ResourcePatternType(kadm.ACLPatternLiteral)); err != nil {
		t.Fatal(err)
	}
	if err := r.rulesStand(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteACLs(t.Context(), kadm.NewACLs().Operations(kadm.OpWrite).Topics("orders").Deny("User:app").DenyHosts().ResourcePatternType(kadm.ACLPatternLiteral)); err != nil {
		t.Fatal(err)
	}
	refusal(t, r.rulesStand(t.Context()))
}

// onEvent is a watcher that acts on events.
type onEvent func(evidence.Event)

func (f onEvent) Event(e evidence.Event)  { f(e) }
func (f onEvent) Progress(string, string) {}

func TestWhatAnInterruptedRunUndidIsKept(t *testing.T) {
	p := newPair(t)
	p.first("east")
	p.run()
	p.write("east", 4)
	s := p.setup("east", "west")
	p.passes(s, Request{Verb: Switchover})
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	res, err := Execute(ctx, s, Request{Verb: Switchover, ExpectEpoch: -1, Watch: onEvent(func(e evidence.Event) {
		if e.Step == "fence-writers" {
			interrupt()
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	if res.Outcome.Outcome != evidence.OutcomeUndone || p.denied("east") != 0 {
		t.Errorf("%d rules left, outcome %+v", p.denied("east"), res.Outcome)
	}
	if err := p.gates(s, Request{Verb: Rollback}); err == nil || refusal(t, err).Reasons[0] == "" {
		t.Errorf("%v", err)
	}
	plan, err := MakePlan(t.Context(), s, Request{Verb: Switchover, ExpectEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	if plan.Resumes != "" {
		t.Errorf("run %s is taken for unfinished", plan.Resumes)
	}
}

func TestAFailoverThatChangedNothingLeavesTheRunItPassedBy(t *testing.T) {
	p := newPair(t)
	p.first("east")
	s := p.setup("east", "west")
	const id = "switchover-20260101T000000Z-aaaa"
	passed := p.killed(s, Switchover, id, "", nil)
	p.killed(s, Failover, "failover-20260101T000100Z-bbbb", evidence.OutcomeRefused, passed)
	plan, err := MakePlan(t.Context(), s, Request{Verb: Switchover, Undo: true, ExpectEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	if plan.Resumes != id {
		t.Errorf("the run to be undone is %q", plan.Resumes)
	}
}

func TestBehindThePointAnOldRegionThatIsIllHoldsNothingUp(t *testing.T) {
	p := newPair(t)
	p.first("east")
	s := p.setup("east", "west")
	const id = "switchover-20260101T000000Z-aaaa"
	p.killed(s, Switchover, id, "", nil)
	p.record(s, 2, id)
	// Writers of the new region are kept off by an earlier run.
	back := p.setup("west", "east")
	fencing(t, back, Switchover, "switchover-0")
	p.brokers["east"].Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "orders", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1})
	res, err := Execute(t.Context(), s, Request{Verb: Switchover, ExpectEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.denied("west"); n != 0 {
		t.Errorf("%d rules keep writers from the region that is authoritative", n)
	}
	if res.Outcome.Outcome != evidence.OutcomeFailed || res.Outcome.Next == "" {
		t.Errorf("only the link back is missing, and the outcome is %+v", res.Outcome)
	}
}

func TestUndoingAFailbackLeavesTheRulesOfEarlierRuns(t *testing.T) {
	p := newPair(t)
	p.first("east")
	s := p.setup("east", "west")
	fencing(t, s, Switchover, "switchover-1").old.Close()
	if _, err := s.Old.Cluster.Admin().CreateACLs(t.Context(), kadm.NewACLs().Operations(kadm.OpWrite).Topics("orders").Allow("User:late")); err != nil {
		t.Fatal(err)
	}
	denied := func() string {
		t.Helper()
		state, err := authority.Read(t.Context(), s.authorityOn(s.Old))
		if err != nil {
			t.Fatal(err)
		}
		_, plan, err := readFence(state)
		if err != nil {
			t.Fatal(err)
		}
		behind, err := writers.Behind(t.Context(), s.Old.Cluster, plan.Rules, true)
		if err != nil || len(behind) > 0 {
			t.Fatalf("of the rules that are written down do not stand: %v, %v", behind, err)
		}
		return principals(plan) + fmt.Sprint(p.denied("east"))
	}
	r := fencing(t, s, Failback, "failback-1")
	if got := denied(); got != "User:app, User:late1" {
		t.Fatalf("the failback keeps out %s", got)
	}
	for range 2 { // the second time there is nothing to undo
		proof, err := r.unfence(t.Context(), r.old)
		t.Log(proof, err)
		if got := denied(); got != "User:app1" {
			t.Errorf("of the switchover's rules are left %s", got)
		}
	}
	if n, err := OpenWriters(t.Context(), s.Old.Cluster, r.old, "settle", func(int) {}); err != nil || n != 1 || p.denied("east") != 0 {
		t.Errorf("%d rules lifted, %d are left: %v", n, p.denied("east"), err)
	}
}

func TestASecondDisasterBeforeTheFailbackIsNotTakenForNothing(t *testing.T) {
	p := newPair(t)
	p.first("east")
	p.run()
	p.write("east", 4)
	there, back := p.setup("east", "west"), p.setup("west", "east")
	p.moves(there, Switchover)
	p.write("west", 4)
	p.moves(back, Switchover)
	p.record(there, 4, "failover-1") // east, which was dark, does not know
	back.Old.Cluster, back.Old.Err = nil, errors.New("dark")
	req := Request{Verb: Failover, ExpectEpoch: -1}
	if err := p.gates(back, req); err == nil || refusal(t, err).Fix == "" {
		t.Errorf("without --force: %v", err)
	}
	req.Force = true
	res, err := Execute(t.Context(), back, req)
	if err != nil {
		t.Fatal(err)
	}
	if res.Outcome.Outcome != evidence.OutcomeDone {
		t.Fatalf("%+v", res.Outcome)
	}
	var copies [2]authority.State
	for i, alias := range []string{"east", "west"} {
		if copies[i], err = authority.Read(t.Context(), authority.Config{Cluster: p.regions[alias], Pair: there.Pair}); err != nil {
			t.Fatal(err)
		}
	}
	if d := authority.Compare(copies[0], copies[1]); d.Relation != authority.Split {
		t.Errorf("when west returns, the copies are %v at epoch %d", d.Relation, d.Epoch)
	}
}

// proved is what is kept of the fence of a switchover that comes to an outcome, with a fault of
// the target from the fence on.
func proved(t *testing.T, outcome string, fault kfake.Fault) evidence.FenceDoc {
	t.Helper()
	p := newPair(t)
	p.first("east")
	p.run()
	p.write("east", 4)
	s := p.setup("east", "west")
	p.passes(s, Request{Verb: Switchover})
	c := &command{pair: p, setup: s, told: saying("fence-link", evidence.StepBegun, func() { p.brokers["west"].Fault(fault) })}
	if res, err := c.do(Request{Verb: Switchover}, nil); res == nil || res.Outcome.Outcome != outcome {
		t.Fatalf("it comes to %s", end(res, err))
	}
	_, events, err := p.events(s)
	if err != nil {
		t.Fatal(err)
	}
	fence := docs[evidence.FenceDoc](t, events, evidence.KindFence)
	if len(fence) != 1 {
		t.Fatalf("of the fence is kept %+v", fence)
	}
	return fence[0]
}

// Behind the point writers have no region. A leader that moves between the fence and its proof
// is asked again, and does not end the run.
func TestALeaderThatMovesUnderTheProofIsAskedAgain(t *testing.T) {
	fence := proved(t, evidence.OutcomeDone, kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders", Err: kerr.NotLeaderForPartition})
	if fence.Refused != partitions {
		t.Errorf("of the fence is kept %+v", fence)
	}
}

// What brokers answered is kept, too, where the fence is not what it should be.
func TestAFenceThatDoesNotHoldIsKept(t *testing.T) {
	fence := proved(t, evidence.OutcomeFailed, kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders", Partitions: []int32{1}, Err: kerr.OutOfOrderSequenceNumber})
	if fence.Refused != partitions-1 {
		t.Errorf("of the fence is kept %+v", fence)
	}
}
