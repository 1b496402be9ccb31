package main

import (
	"testing"
	"time"

	"replicator/internal/status"
	"replicator/pkg/authority"
	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
)

// failedDrill is one that found a lag and a group that would go on at another record.
func failedDrill() *cutover.DrillResult {
	rto, passed, proved, at := 3.41, noon.Add(-3*24*time.Hour), false, int64(20)
	r := &cutover.DrillResult{
		Run: "drill-20260301T120000Z-3f9a", Bundle: "evidence/drill-20260301T120000Z-3f9a", Anchor: "21:0badc0de",
		Outcome: evidence.OutcomeDoc{Outcome: evidence.OutcomeFailed, Error: "2 of 5 gates and checks failed: lag, probe", Took: 6.2, Next: "wait until replicator status shows less, or raise cutover.lag_limit"},
		Drill: authority.Drill{
			Run: "drill-20260301T120000Z-3f9a", Ended: noon, From: "east", To: "west", Failed: []string{"lag", "probe"}, By: "timer", Tool: "replicator 1",
			RTO: &rto, LagRecords: 12400, LagSeconds: 2.5, LastSuccess: &passed,
		},
		Gates: evidence.GatesDoc{
			{Name: "authority", OK: true, Detail: "epoch 3, east is authoritative"},
			{Name: "gaps", OK: true, Detail: "warning: 1 ranges of source offsets were never copied: orders-0 [5, 9) retention"},
			{Name: "lag", Detail: "1 partitions are more than 10000 records behind: orders-0 by 12400", Fix: "wait until replicator status shows less, or raise cutover.lag_limit"},
		},
		Checks: evidence.ChecksDoc{
			{Name: "fence", OK: true, Detail: "3 lanes on 3 brokers fenced in 54ms, 3 appends of former writers refused; the link has 12 lanes"},
			{Name: "probe", Detail: "1 of 9 positions go on with another record: billing\x1b[2J orders-0 at source offset 20, target offset 51: east goes on with offset 20 of 2026-03-01T11:00:00.000Z, west with offset 51 of 2026-03-01T11:00:00.100Z: another key, value, timestamp"},
		},
		Steps: []evidence.StepDoc{
			{Name: "leftovers", Outcome: evidence.StepSkipped, Took: 0.05, Proof: "there were none"},
			{Name: "gates", Outcome: evidence.StepFailed, Took: 1.1, Proof: "1 of 3 failed: lag"},
		},
		Groups: evidence.GroupsDoc{{Group: "billing", Topic: "orders", Source: &at, Target: &at, Outcome: "before", Action: "place", Proved: &proved}},
	}
	return r
}

func TestADrillIsToldToPeopleAndPrograms(t *testing.T) {
	r := failedDrill()
	s := status.Status{Version: "1", Instance: "here", Time: noon, Started: noon.Add(-time.Hour), Authority: []status.Authority{
		{Pair: "east/west", Drill: &r.Drill},
		{Pair: "north/west", Drill: &authority.Drill{Ended: noon.Add(-3*24*time.Hour - time.Hour), From: "north", To: "west", Success: true}},
		{Pair: "a/b"},
	}}
	passed := failedDrill()
	passed.Outcome, passed.Drill.Success, passed.Gates, passed.Checks = evidence.OutcomeDoc{Outcome: evidence.OutcomeDone, Took: 6.2}, true, passed.Gates[:1], passed.Checks[:1]
	passed.Steps = passed.Steps[:1]
	for name, got := range map[string]string{
		"drill-100.txt":    screen{width: 100}.drillResult(r),
		"drill-wide.txt":   screen{wide: true}.drillResult(passed),
		"drill.json":       document(t, "json", drillDocument(r)),
		"status-drill.txt": screen{width: 100}.render(&s, nil),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, got) })
	}
}
