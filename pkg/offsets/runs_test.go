package offsets

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Two openings, a hole in the source, a foreign record on the target: each begins a run, and the
// last one ends at the position though its span has no end.
func TestRunsAreTheWholeMapUpToThePosition(t *testing.T) {
	lane, first, second := Lane{"orders", 3}, Writer{7, 0}, Writer{7, 1}
	state := StateOf(
		EpochRecord{Lane: lane, Writer: first, Source: 100, Target: 1},
		Spans{Lane: lane, Writer: first, Runs: []Span{{0, 100}, {10, 115}}},
		Shift{Lane: lane, Writer: first, Ordinal: 12, Target: 14},
		EpochRecord{Lane: lane, Writer: second, Ordinal: 20, Source: 125, Target: 23},
		Position{Lane: lane, Writer: second, Ordinal: 50, Source: 155, Target: 53},
	)
	want := []Run{
		{Point{0, 100, 1}, 10},
		{Point{10, 115, 11}, 2},
		{Point{12, 117, 14}, 8},
		{Point{20, 125, 23}, 30},
	}
	if d := cmp.Diff(want, slices.Collect(state.Runs())); d != "" {
		t.Errorf("(-want +got) %s", d)
	}
	for range (LaneState{}).Runs() {
		t.Error("a lane nobody opened has a run")
	}
}
