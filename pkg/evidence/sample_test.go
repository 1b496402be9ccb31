package evidence

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

const sampleRun = "switchover-20261126T184501Z-3f9a"

// fixedChain makes the same events every time: each is a while after the one before.
func fixedChain(run string) *Chain {
	c := NewChain(run)
	at := time.Date(2026, 11, 26, 18, 45, 1, 0, time.UTC)
	c.now = func() time.Time {
		at = at.Add(1370 * time.Millisecond)
		return at
	}
	return c
}

// note is one event to be.
type note struct {
	kind Kind
	step string
	doc  any
}

func chained(t testing.TB, run string, notes []note) []Event {
	t.Helper()
	c := fixedChain(run)
	events := make([]Event, len(notes))
	for i, n := range notes {
		body, err := json.Marshal(n.doc)
		if err != nil {
			t.Fatal(err)
		}
		if events[i], err = c.append(n.kind, n.step, 0, 0, json.RawMessage(body)); err != nil {
			t.Fatal(err)
		}
	}
	return events
}

// switchover is a run in which everything happens that a report shows, with lanes lanes.
func switchover(lanes int) []note {
	done := func(name string, took float64, proof string) note {
		return note{KindStep, name, StepDoc{Name: name, Outcome: StepDone, Took: took, Proof: proof}}
	}
	begun := func(name string) note { return note{KindStep, name, StepDoc{Name: name, Outcome: StepBegun}} }
	since := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	now := time.Date(2026, 11, 26, 18, 45, 20, 0, time.UTC)
	until := time.Date(2026, 11, 27, 18, 45, 20, 0, time.UTC)
	plan := PlanDoc{
		Verb: "switchover", Link: "east->west", From: "east", To: "west", Epoch: 3, NextEpoch: 4, By: "ada@ops-1", Why: "east is to be patched, change 4711", Tool: "replicator 1.4.0 (3f9ab21)",
		Options: map[string]string{"max-lag": "1000", "verify": "last 100000 records", "writers": "acl"},
		Actions: []Action{
			{Step: "gates", What: "read both regions and say whether a switchover is possible"},
			{Step: "fence-writers", What: "DENY WRITE on 12 topics of east for all but User:replicator, then read the ends twice, 5 s apart"},
			{Step: "drain", What: "wait until every lane has reached its source's end"},
			{Step: "verify", What: "compare the last 100,000 records of each lane on both sides"},
			{Step: "promote", What: "write authority epoch 4, west, to west and east", Irreversible: true},
			{Step: "fence-link", What: "take the epoch of every lane of east->west on west, try an append as its old writer"},
			{Step: "groups", What: "commit translated offsets of 14 groups on west and read them again"},
			{Step: "reverse", What: "prepare west->east: only what is written after the promotion is copied"},
		},
		Fence: "the brokers' memory of the new epochs, for a day from now, renewed by the daemon; WRITE was taken from User:replicator-east for good",
	}
	var rows LanesDoc
	var fenced []FenceRow
	var groups GroupsDoc
	for i := range lanes {
		topic, p, lag := fmt.Sprintf("orders.%02d", i/8), int32(i%8), int64(0)
		end := int64(1_234_000 + 17*i)
		rows = append(rows, LaneRow{Topic: topic, Partition: p, SourceEnd: end, Position: end, Lag: &lag, TargetEnd: end - 131, Writer: fmt.Sprintf("%d/%d", 4000+i, 7), MapDigest: digest([]byte(topic))})
		row := FenceRow{
			Topic: topic, Partition: p, OldWriter: fmt.Sprintf("%d/%d", 4000+i, 7), NewWriter: fmt.Sprintf("%d/%d", 4000+i, 8), End: end - 130,
			Answer: "INVALID_PRODUCER_EPOCH: Producer attempted to produce with an old epoch.",
		}
		if i == 5 {
			row.OldWriter, row.Answer = "", NotTried+": nobody has ever opened the lane"
		}
		fenced = append(fenced, row)
		source, target, proved := end-int64(i), end-131-int64(i), true
		group := GroupRow{Group: fmt.Sprintf("billing-%d", i%14), Topic: topic, Partition: p, Source: &source, Target: &target, Outcome: "exact", Action: "place", Proved: &proved}
		if i == 9 {
			group.Outcome, group.Action, group.Reason, group.Target, group.Proved = "unknown", "skip", "no_translation", nil, nil
		}
		groups = append(groups, group)
	}
	lagSeconds, lagRecords, seen, none, nobytes := 0.4, int64(31), int64(12), 0.0, int64(0)
	wfs, rto := 12.4, 19.8
	regions := func(when When, from, to, west, east string, epoch int64) RegionsDoc {
		return RegionsDoc{When: when, Rows: []RegionRow{
			{Region: "east", ClusterID: "MkU3OEVBNTcwNTJENDM2Qg", Reachable: true, Role: from, Epoch: epoch, Writers: east, LinkState: "none"},
			{Region: "west", ClusterID: "Q1dNRkVBNTcwNTJENDM2Qg", Reachable: true, Role: to, Epoch: epoch, Writers: west, LinkState: "copying", LagRecords: &lagRecords, LagSeconds: &lagSeconds},
		}}
	}
	return []note{
		{KindPlan, "", plan},
		{KindRegions, "", regions(Before, RoleAuthoritative, RoleStandby, WritersFenced, WritersOpen, 3)},
		begun("gates"),
		{KindGates, "gates", GatesDoc{
			{Name: "authority", OK: true, Detail: "epoch 3 on both sides"},
			{Name: "lag", OK: true, Detail: "31 records, 0.4 s; at most 1,000"},
			{Name: "groups placed", OK: false, Detail: "billing-9 has no translation in orders.01-1", Fix: "replicator offsets translate --group billing-9 -o wide"},
			{Name: "clocks", OK: true, Detail: "12 ms apart"},
		}},
		{KindAuthority, "gates", AuthorityDoc{Copies: []AuthorityCopy{{Cluster: "west", Epoch: 3, Region: "east", Since: &since, Reachable: true}, {Cluster: "east", Epoch: 3, Region: "east", Since: &since, Reachable: true}}}},
		{KindLoss, "gates", LossDoc{Rows: []LossRow{{Topic: "orders.00", Seen: &seen, Records: 31, Seconds: &lagSeconds}}, Basis: "source ends seen 0.4 s ago"}},
		done("gates", 1.2, "12 gates, 1 overridden: groups placed"),
		{KindHook, "fence-writers", HookDoc{Step: "fence-writers", When: "before", Command: []string{"/etc/replicator/page", "--to", "ops"}, Took: 0.31, Output: "paged ops: switchover begins\nok\n"}},
		begun("fence-writers"),
		{KindGrowth, "fence-writers", GrowthDoc{{Topic: "orders.00", Partition: 3, From: 1_233_000, To: 1_233_051, PerSecond: 10.2}}},
		done("fence-writers", 6.1, "12 rules, ends did not grow in 5 s"),
		begun("drain"),
		{KindLanes, "drain", rows},
		done("drain", 2.3, "every lane is at its source's end"),
		begun("verify"),
		{KindVerify, "verify", VerifyDoc{Lanes: lanes, Records: 1_204_332, Sum: "5bf4a2c0d1e9"}},
		done("verify", 3.4, "1,204,332 records, no difference"),
		begun("promote"),
		{KindAuthority, "promote", AuthorityDoc{Copies: []AuthorityCopy{{Cluster: "west", Epoch: 4, Region: "west", Since: &now, Reachable: true}, {Cluster: "east", Epoch: 4, Region: "west", Since: &now, Reachable: true}}}},
		done("promote", 0.08, "epoch 4 read back from west and east"),
		begun("fence-link"),
		{KindFence, "fence-link", FenceDoc{Lanes: lanes, Fenced: lanes, Refused: max(0, lanes-1), Basis: []string{"the brokers refuse every epoch below the ones taken", "the daemon of the closed direction takes them again every 6 h"}, HoldsUntil: &until, Rows: fenced}},
		done("fence-link", 1.9, "all epochs taken, appends of old writers refused"),
		begun("groups"),
		{KindGroups, "groups", groups},
		{KindChecks, "groups", ChecksDoc{{Name: "records at group offsets", OK: true, Detail: "the next record of each is the same on both sides"}}},
		done("groups", 0.9, "14 groups placed and read back"),
		begun("reverse"),
		done("reverse", 0.7, "first record copied back: orders.00-0 at 1,233,901"),
		{KindHook, "reverse", HookDoc{Step: "reverse", When: "after", Command: []string{"/etc/replicator/dns", "west"}, Exit: 1, Took: 2.2, Output: "nsupdate: REFUSED\n", Error: "exit status 1 (optional)"}},
		{KindLoss, "reverse", LossDoc{Rows: []LossRow{{Topic: "orders.00", Bytes: &nobytes, Seconds: &none}}, Basis: "counted in the logs of east", Actual: true}},
		{KindStranded, "reverse", StrandedDoc{Rows: []StrandedRow{{Topic: "orders.00", Partition: 1, From: 1_233_017, To: 1_233_017}}}},
		{KindRegions, "", regions(After, RoleStandby, RoleAuthoritative, WritersOpen, WritersFenced, 4)},
		{KindOutcome, "", OutcomeDoc{Outcome: OutcomeDone, Took: 40.3, WritersFencedSeconds: &wfs, RTO: &rto, Next: "point producers to west; replicator authority show"}},
	}
}
