package cutover

import (
	"encoding/json"
	"testing"
	"time"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
)

// Since when writers have had no region, and until when, is told by all commands of a run.
func TestARunThatIsTakenUpKnowsSinceWhenWritersWait(t *testing.T) {
	begun := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	type said struct {
		second        int
		step, outcome string
	}
	fenced := []said{{1, "fence-writers", evidence.StepBegun}, {3, "fence-writers", evidence.StepDone}}
	for name, c := range map[string]struct {
		events       []said
		fenced, open int // seconds after the beginning, 0: not known
	}{
		"they were fenced":              {fenced, 1, 0},
		"killed while they were":        {fenced[:1], 1, 0},
		"fenced by two commands":        {append(fenced[:2:2], said{9, "fence-writers", evidence.StepBegun}), 1, 0},
		"let in again":                  {append(fenced[:2:2], said{5, "fence-writers", evidence.StepBegun}, said{6, "fence-writers", evidence.StepUndone}), 0, 0},
		"let in again, fenced again":    {append(fenced[:2:2], said{6, "fence-writers", evidence.StepUndone}, said{60, "fence-writers", evidence.StepBegun}), 60, 0},
		"open where they go to":         {append(fenced[:2:2], said{7, "open-writers", evidence.StepDone}), 1, 7},
		"open, and looked at once more": {append(fenced[:2:2], said{7, "open-writers", evidence.StepDone}, said{90, "open-writers", evidence.StepDone}), 1, 7},
	} {
		t.Run(name, func(t *testing.T) {
			var events []evidence.Event
			for _, s := range append([]said{{0, "gates", evidence.StepBegun}}, c.events...) {
				data, err := json.Marshal(evidence.StepDoc{Name: s.step, Outcome: s.outcome})
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, evidence.Event{Time: begun.Add(time.Duration(s.second) * time.Second), Kind: evidence.KindStep, Step: s.step, Data: data})
			}
			r := newRun(Setup{}, Request{Verb: Switchover})
			r.recall(events)
			after := func(seconds int) time.Time {
				if seconds == 0 {
					return time.Time{}
				}
				return begun.Add(time.Duration(seconds) * time.Second)
			}
			if !r.fencedAt.Equal(after(c.fenced)) || !r.openAt.Equal(after(c.open)) {
				t.Errorf("fenced at %v, open at %v; want %d s and %d s behind %v", r.fencedAt, r.openAt, c.fenced, c.open, begun)
			}
		})
	}
}

func TestACommandIsNamedAsItIsCalled(t *testing.T) {
	pair := authority.PairOf("east", "west")
	for _, c := range []struct {
		verb     Verb
		to, want string
	}{
		{Switchover, "west", "replicator switchover --to west"},
		{Rollback, "east", "replicator rollback --to east"},
		{Failback, "west", "replicator failback run --from east"},
		{Failback, "east", "replicator failback run --from west"},
	} {
		if got := commandOf(c.verb, pair, c.to); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.verb, c.to, got, c.want)
		}
	}
}
