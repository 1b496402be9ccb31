package cutover

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/writers"
)

// A command that was killed keeps applications off the old region, and the new one is gone:
// nothing is undone, because nobody knows how far it came, but how to is said.
func TestWithoutTheNewRegionTheRulesOfAKilledRunAreNamed(t *testing.T) {
	s := pairOf(true)
	s.Old = fakeRegion(t, "east")
	s.New.Err = errors.New("dark")
	refusal := func() *RefusedError {
		t.Helper()
		_, err := MakePlan(t.Context(), s, Request{Verb: Switchover, Undo: true, ExpectEpoch: -1})
		no, ok := errors.AsType[*RefusedError](err)
		if !ok {
			t.Fatalf("the error is %v", err)
		}
		return no
	}
	if no := refusal(); len(no.Reasons) != 1 || strings.Contains(no.Fix, "kafka-acls") {
		t.Errorf("without rules: %v; %s", no, no.Fix)
	}
	c, err := authority.Change(t.Context(), s.authorityOn(s.Old))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	plan := writers.Plan{Cluster: "east", ClusterID: s.Old.Cluster.ID(), Possible: true, Rules: []writers.Rule{
		{Topic: "orders", Principal: "User:app"}, {Topic: "payments", Principal: "User:app"}, {Topic: "orders", Principal: "User:theirs", Existed: true},
	}}
	if err := putFence(t.Context(), c, writersFenced{Run: "switchover-1"}, plan); err != nil {
		t.Fatal(err)
	}
	no := refusal()
	want := fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --remove --force --operation Write --deny-principal 'User:app' --topic orders --topic payments", s.Old.Cluster.Config().BootstrapServers[0])
	if len(no.Reasons) != 2 || !strings.Contains(no.Reasons[1], "keep applications from writing to east") || !strings.HasSuffix(no.Fix, want) {
		t.Errorf("with rules: %v; %s", no, no.Fix)
	}
}

// A failover takes a region for gone where nothing is left to connect to; whatever else keeps
// it from being opened is for --force.
func TestOnlyADarkRegionIsGivenUpWithoutForce(t *testing.T) {
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	for name, c := range map[string]struct {
		old  Region
		gone bool
	}{
		"nobody listens":         {old: illRegion(t, "east", "127.0.0.1:1"), gone: true},
		"nothing is answered":    {old: illRegion(t, "east", frozen.Addr().String())},
		"it cannot be looked at": {old: Region{Alias: "east", Err: errors.New("read password: no such file")}},
	} {
		t.Run(name, func(t *testing.T) {
			s := pairOf(true)
			s.Old = c.old
			s.Old = s.oldOrNot(t.Context())
			for _, force := range []bool{false, true} {
				g := &gates{}
				if err := g.sourceGone(t.Context(), s, Request{Verb: Failover, Force: force}, &world{}); err != nil || len(g.all) != 1 {
					t.Fatalf("%v, %v", g.all, err)
				}
				if gate := g.all[0]; gate.OK != (c.gone || force) || !gate.OK && !strings.Contains(gate.Fix, "--force") {
					t.Errorf("force %t: %+v", force, gate)
				}
			}
		})
	}
}

func TestACopyThatCannotBeReadIsNoReasonToGoOn(t *testing.T) {
	s := pairOf(true)
	s.Old = fakeRegion(t, "east")
	w := &world{newState: said("east"), oldErr: errors.New("cut off")}
	for verb, ok := range map[Verb]bool{Switchover: false, Rollback: false, Failback: false, Failover: true} {
		g := &gates{}
		g.authority(s, Request{Verb: verb, ExpectEpoch: -1}, &Plan{world: w, PlanDoc: evidence.PlanDoc{Epoch: 1}})
		if gate := g.all[0]; gate.OK != ok || !ok && !strings.Contains(gate.Detail, "cut off") {
			t.Errorf("%s: %+v", verb, gate)
		}
	}
}

// A run was undone, and its end could not be kept while the new region was gone. Whoever took
// the run up brought that end along; it is not how the run ended.
func TestARunThatWentOnBehindAnEndKeptLateIsTakenUp(t *testing.T) {
	region := fakeRegion(t, "west")
	s := pairOf(true)
	c, err := authority.Change(t.Context(), s.authorityOn(region))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := evidence.NewRun(string(Switchover), time.Now())
	rec, err := evidence.Start(evidence.Config{Run: id, Sinks: []evidence.Sink{&auditSink{changer: c}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rec.Close() }()
	keep := func(kind evidence.Kind, doc any) {
		t.Helper()
		if err := rec.Record(t.Context(), kind, "", doc); err != nil {
			t.Fatal(err)
		}
	}
	open := func(want bool) {
		t.Helper()
		state, err := authority.Read(t.Context(), s.authorityOn(region))
		if err != nil {
			t.Fatal(err)
		}
		u, err := findUnfinished(t.Context(), s.authorityOn(region), state, authority.Record{})
		if err != nil || (u != nil) != want {
			t.Errorf("unfinished is %v, want %t: %v", u, want, err)
		}
	}
	keep(evidence.KindPlan, evidence.PlanDoc{Verb: string(Switchover)})
	if err := c.Put(t.Context(), authority.LastRunFact, id, authority.LastRun{Run: id}); err != nil {
		t.Fatal(err)
	}
	open(true)
	keep(evidence.KindOutcome, evidence.OutcomeDoc{Outcome: evidence.OutcomeUndone})
	open(false)
	keep(evidence.KindPlan, evidence.PlanDoc{Verb: string(Switchover)})
	open(true)
	keep(evidence.KindOutcome, evidence.OutcomeDoc{Outcome: evidence.OutcomeFailed})
	open(true)
	keep(evidence.KindOutcome, evidence.OutcomeDoc{Outcome: evidence.OutcomeDone})
	open(false)
}
