package cutover

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
)

// Which run has to be finished is told by the fact beside the authority: neither runs
// that began before nor drills are read.
func TestTheLastRunIsTakenUpUnlessItIsOver(t *testing.T) {
	g := startGuarded(t)
	cfg := authority.Config{Cluster: g.admin, Pair: authority.PairOf("east", "west")}
	changer, err := authority.Change(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer changer.Close()
	// begun writes the first events of a run, and returns where they stand.
	begun := func(verb Verb) (run string, from int64) {
		t.Helper()
		if from, err = changer.AuditEnd(t.Context()); err != nil {
			t.Fatal(err)
		}
		run = evidence.NewRun(string(verb), time.Now())
		rec, err := evidence.Start(evidence.Config{Run: run, Sinks: []evidence.Sink{&auditSink{changer: changer}}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := rec.Record(t.Context(), evidence.KindPlan, "", evidence.PlanDoc{Verb: string(verb), To: "west", Epoch: 1}); err != nil {
				t.Fatal(err)
			}
		}
		return run, from
	}
	put := func(last authority.LastRun) {
		t.Helper()
		if err := changer.Put(t.Context(), authority.LastRunFact, last.Run, last); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(what, want string) {
		t.Helper()
		state, err := authority.Read(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		u, err := findUnfinished(t.Context(), cfg, state, authority.Record{Epoch: 1})
		got := ""
		if u != nil {
			got = u.run
			if len(u.events) != 2 || u.plan.To != "west" {
				t.Errorf("%s: %d events, plan %+v", what, len(u.events), u.plan)
			}
		}
		if err != nil || got != want {
			t.Errorf("%s: run %q is to be finished, want %q, %v", what, got, want, err)
		}
	}
	wants("no run was ever begun", "")
	switchover, at := begun(Switchover)
	wants("a run that was killed before it could change anything", "")
	put(authority.LastRun{Run: switchover, From: at})
	wants("a run that was killed", switchover)
	begun(Drill)
	wants("a drill behind it", switchover)

	// A failover passes it by and is refused: it still has to be finished.
	r := newRun(Setup{Log: zap.NewNop()}, Request{Verb: Failover})
	r.changer, r.passed = changer, &authority.LastRun{Run: switchover, From: at}
	r.id, r.from = begun(Failover)
	put(authority.LastRun{Run: r.id, From: r.from})
	wants("the failover", r.id)
	r.markOver(t.Context(), evidence.OutcomeDoc{Outcome: evidence.OutcomeRefused})
	wants("after the failover was refused", switchover)
	r.promoted = true
	r.markOver(t.Context(), evidence.OutcomeDoc{Outcome: evidence.OutcomeDone})
	wants("after a failover", "")

	// Retention has removed how it began: nobody can go on with it.
	put(authority.LastRun{Run: switchover, From: at + 1})
	wants("a run whose beginning is gone", "")
}
