package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/pkg/checkpoint"
	"replicator/pkg/offsets"
)

// planned is what the target's groups would get: one of every action, and reasons.
func planned() []*checkpoint.Placement {
	all := committed()
	for _, p := range all {
		p.Action = checkpoint.Place
	}
	skip := func(i int, r checkpoint.Reason, current int64, detail string) {
		all[i].Action, all[i].Reason, all[i].Current, all[i].Detail = checkpoint.Skip, r, current, detail
	}
	skip(0, checkpoint.GroupActive, -1, "it has 2 active members on the target")
	skip(4, checkpoint.TargetAhead, 5000, "")
	skip(6, checkpoint.NoTranslation, -1, all[6].Why)
	all[1].Action, all[1].Current = checkpoint.Keep, 11
	all[2].Current = 1000000
	all[5].Clamped = "the target's retention removed records below offset 40"
	return all
}

func plan() *planDoc {
	d := newPlan(planned())
	d.Link, d.Time, d.Current = "east->west", noon, translated(nil).Current
	return d
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*codedError](err); ok {
		return e.code
	}
	if err != nil {
		return exitFailed
	}
	return exitDone
}

func TestGroupsTablesAndDocuments(t *testing.T) {
	states := kadm.ListedGroups{"billing": {State: "Empty"}, "workers": {State: "Stable"}}
	groups := &groupsDoc{Link: "east->west", Time: noon, Groups: groupsOf(committed(), states)}
	applied := plan()
	applied.Applied, applied.Proof = true, proofOf(planned(), nil)
	for name, got := range map[string]string{
		"groups-list-120.txt":  groups.table(screen{width: 120}),
		"groups-list-wide.txt": groups.table(screen{wide: true}),
		"groups-list.json":     document(t, "json", groups),
		"groups-plan-80.txt":   plan().table(screen{width: 80}),
		"groups-plan-wide.txt": plan().table(screen{wide: true}),
		"groups-apply.json":    document(t, "json", applied),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, ".txt") && strings.ContainsAny(got, "\x1b\u009b") {
				t.Errorf("a name reached the terminal as it is: %q", got)
			}
			golden(t, name, got)
		})
	}
}

func TestGroupsThatCannotBePlacedAreRefusedByName(t *testing.T) {
	err := plan().partial([]string{"nobody"})
	want := `not placed in full: =HYPERLINK("x"), \u001b[31mred (group_active: it has 2 active members on the target), ` +
		`billing (orders-2: target_ahead), nobody (the target knows nothing of it)`
	if err == nil || err.Error() != want || exitCode(err) != exitPartial {
		t.Errorf("code %d: %v", exitCode(err), err)
	}
	err = newPlan(planned()[:1]).partial(nil)
	if exitCode(err) != exitRefused {
		t.Errorf("nothing placed: code %d: %v", exitCode(err), err)
	}
	if err := newPlan(planned()[1:3]).partial(nil); err != nil {
		t.Errorf("all placed: %v", err)
	}
}

func TestAProofTellsWhatDiffersFromWhatCouldNotBeRead(t *testing.T) {
	all := planned()
	other := *all[2]
	other.Current = 7
	unread := *all[3]
	unread.Action, unread.Reason, unread.Detail = checkpoint.Skip, checkpoint.GroupUnreadable, "COORDINATOR_NOT_AVAILABLE"
	for name, c := range map[string]struct {
		differ []*checkpoint.Placement
		code   int
		want   string
	}{
		"all well":     {nil, exitDone, "proved: 6 offsets of 3 groups are as planned\n"},
		"another":      {[]*checkpoint.Placement{&other, &unread}, exitFailed, "1 offset read back otherwise: billing east.orders-0: planned 1,234,568, found 7"},
		"not readable": {[]*checkpoint.Placement{&unread}, exitPartial, "1 offset could not be read back: billing east.orders-1: planned 1,234,568, found group_unreadable: COORDINATOR_NOT_AVAILABLE"},
	} {
		proof := proofOf(all, c.differ)
		got := proof.sentence()
		err := proof.err()
		if err != nil {
			got = err.Error()
		}
		if exitCode(err) != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s: code %d: %s", name, exitCode(err), got)
		}
	}
}

func TestOnlyYesIsYes(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, "yes": true, "\n": false, "n\n": false, "yep\n": false} {
		var out strings.Builder
		got, err := ask(t.Context(), strings.NewReader(answer), &out, "Commit?")
		if err != nil || got != want || out.String() != "Commit? [y/N] " {
			t.Errorf("%q: %v, %v, %q", answer, got, err, out.String())
		}
	}
	if _, err := ask(t.Context(), strings.NewReader(""), &strings.Builder{}, "Commit?"); err == nil {
		t.Error("no answer is an answer")
	}
}

func TestHowManyRecordsRepeat(t *testing.T) {
	lane := copiedLane()
	for name, c := range map[string]struct {
		t    offsets.Translation
		want int64
	}{
		"exact":             {offsets.Translation{From: 105, To: 6, Outcome: offsets.Exact}, 0},
		"ahead":             {offsets.Translation{From: 1234635, To: 1234502, Outcome: offsets.Ahead, Missing: 30}, 30},
		"below the map":     {offsets.Translation{From: 50, To: 0, Outcome: offsets.Before}, 1}, // the control record before the first one copied
		"retention of west": {offsets.Translation{From: 105, To: 20, Outcome: offsets.Before}, 0},
		"unknown":           {offsets.Translation{From: 5, To: -1, Outcome: offsets.Unknown}, -1},
	} {
		if got := checkpoint.Repeat(lane, c.t); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
