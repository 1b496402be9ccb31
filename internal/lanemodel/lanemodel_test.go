package lanemodel

import (
	"os"
	"strings"
	"sync"
	"testing"
)

const limit = 60_000_000

var underRace bool // set by race_test.go

func search(t *testing.T, name string, rules Rules, options Options) Result {
	t.Helper()
	if underRace {
		t.Skip("race detector: searches run without it")
	}
	sc, ok := Find(name)
	if !ok {
		t.Fatalf("no scenario %q", name)
	}
	res, err := Run(sc, rules, options, limit)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func wantClean(t *testing.T, sc Scenario, options Options) Result {
	t.Helper()
	res := search(t, sc.Name, AllRules(), options)
	if res.Violation != "" || !res.Exhausted || res.Overflow {
		t.Fatalf("%v\noverflow %v\n%s", sc, res.Overflow, res.Tell())
	}
	if !res.Copied {
		t.Fatalf("%v: no run copies every record", sc)
	}
	return res
}

func TestProtocolIsCleanInEveryScenario(t *testing.T) {
	var mu sync.Mutex
	total, taken := 0, [stepKinds]int{}
	t.Run("scenarios", func(t *testing.T) {
		for _, sc := range Quick {
			t.Run(sc.Name, func(t *testing.T) {
				t.Parallel()
				res := wantClean(t, sc, Protocol)
				mu.Lock()
				defer mu.Unlock()
				total += res.States
				for k, n := range res.Steps {
					taken[k] += n
				}
			})
		}
	})
	t.Logf("%d states", total)
	if t.Failed() || underRace {
		return
	}
	// A step that is never taken proves nothing. These belong to rules taken out, or are what must not happen.
	never := map[StepKind]bool{readsJournalEarly: true, cannotTranslate: true}
	for k := range stepKinds {
		if (taken[k] > 0) == never[k] {
			t.Errorf("step %d (%q): taken %d times in all scenarios", k, Step{Kind: k}, taken[k])
		}
	}
}

// TestEveryRuleIsNeeded takes the rules out one by one. FirstAlone and
// DailyOpening are backed by other rules and go together with those.
func TestEveryRuleIsNeeded(t *testing.T) {
	cases := []struct{ without, scenario, want string }{
		{"Barrier", "take over", "doubled"},
		{"JournalAfterControl", "take over", "cannot translate"},
		{"TwoBarriers", "lost id", "doubled"},
		{"EpochAbove", "epoch given twice", "doubled"},
		{"AuthorityAfterEpoch", "failover", "behind the final end"},
		{"AuthorityBeforeFence", "failover", "behind the final end"},
		{"Guard", "failover, guarded", "behind the final end"},
		{"EpochRecordFirst", "take over", "without an epoch record"},
		{"EndCheck", "old records", "doubled"},
		{"EndCheckLast", "old records", "doubled"},
		{"ReadOnConnection", "tail lost", "doubled"},
		{"DailyOpening TwoBarriers", "failover, new id", "behind the final end"},
		{"DailyOpening TwoBarriers", "new id", "doubled"},
		{"SpansAhead", "hole", "wrong source offset"},
		{"FirstAlone DailyOpening", "idle for a day", "missing"},
		{"WindowOfOne", "window", "missing"},
		{"WindowOfOne", "window of old records", "missing"},
		{"BaseOffset", "lost id", "doubled"},
		{"SameConnection", "tail lost", "missing"},
		{"Lease", "old records", "doubled"},
		{"LeaseFromSending", "old records", "doubled"},
		{"ValidateEnd", "old records", "doubled"},
		{"LeaseWait", "old records", "doubled"},
		{"LeaseWait", "failover, old records", "doubled"},
		{"OwnRequestsToo", "window", "doubled"},
		{"QuietClose", "clean stop", "doubled"},
	}
	tried := map[string]bool{}
	for _, c := range cases {
		t.Run(c.without+" in "+c.scenario, func(t *testing.T) {
			t.Parallel()
			rules := AllRules()
			for name := range strings.FieldsSeq(c.without) {
				var err error
				if rules, err = rules.Without(name); err != nil {
					t.Fatal(err)
				}
			}
			res := search(t, c.scenario, rules, Protocol)
			if !strings.Contains(res.Violation, c.want) {
				t.Fatalf("want a state in which something is %q, got: %s", c.want, res.Tell())
			}
			if len(res.Story) != res.Depth {
				t.Errorf("the story has %d steps, the search went %d deep", len(res.Story), res.Depth)
			}
		})
		tried[strings.Fields(c.without)[0]] = true
	}
	for _, name := range RuleNames() {
		if !tried[name] {
			t.Errorf("rule %s is never taken out", name)
		}
	}
}

// TestSecondLinesHold shows what stands behind the rules that go in pairs above.
func TestSecondLinesHold(t *testing.T) {
	for _, c := range []struct{ without, scenario string }{
		{"FirstAlone", "idle for a day"},
		{"DailyOpening", "idle for a day"},
		{"DailyOpening", "new id"},
		{"DailyOpening", "failover, new id"},
		{"TwoBarriers", "new id"},
	} {
		t.Run(c.without+" in "+c.scenario, func(t *testing.T) {
			t.Parallel()
			rules, err := AllRules().Without(c.without)
			if err != nil {
				t.Fatal(err)
			}
			if res := search(t, c.scenario, rules, Protocol); !res.Exhausted {
				t.Fatal(res.Tell())
			}
		})
	}
}

// TestOptionsAreSafe: where the protocol has a choice, either way is clean.
func TestOptionsAreSafe(t *testing.T) {
	for _, c := range []struct {
		options  Options
		scenario string
	}{
		{Options{}, "old records"},
		{Options{SkipFirst: true}, "old then fresh"},
		{Options{SkipFirst: true, SkipClosed: true, SkipNewID: true}, "lost id after a clean stop"},
		{Options{SkipFirst: true, SkipClosed: true, ValidateEpoch: true}, "validate"},
		{Options{SkipFirst: true, SkipClosed: true, ValidateFresh: true}, "validate"},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			t.Parallel()
			sc, _ := Find(c.scenario)
			wantClean(t, sc, c.options)
		})
	}
}

func TestLongScenarios(t *testing.T) {
	if os.Getenv("LANEMODEL_LONG") == "" {
		t.Skip("LANEMODEL_LONG is not set: tens of millions of states, minutes, gigabytes")
	}
	for _, sc := range Long {
		t.Run(sc.Name, func(t *testing.T) {
			res := wantClean(t, sc, Protocol)
			t.Logf("%d states, depth %d", res.States, res.Depth)
		})
	}
}

func TestScenariosAreReadStrictly(t *testing.T) {
	for _, faults := range []string{"crush", "late=x", "late=-1"} {
		if _, err := ParseFaults(faults); err == nil {
			t.Errorf("%q is taken", faults)
		}
	}
	f, err := ParseFaults("late=2 crash")
	if err != nil || f.String() != "crash late=2" {
		t.Errorf("got %q, %v", f, err)
	}
	if _, _, err := newModel(Scenario{Records: "fx", Daemons: 1, Epochs: 1}, AllRules(), Protocol); err == nil {
		t.Error("an unknown kind of record is taken")
	}
}
