package offsets

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// logOf is the target's log of a history from a target offset on: ours, control records, and
// foreign records where nothing of ours stands.
func logOf(h *history, from int64) *tailLog {
	log := &tailLog{lane: h.lane, topic: "orders", end: h.end, next: h.end}
	ours := map[int64]copied{}
	for _, r := range h.records {
		ours[r.target] = r
	}
	for at := from; at < h.end; at++ {
		run := logRun{writer: Writer{9999, 0}, sequence: -1, base: at, next: at + 1}
		if r, ok := ours[at]; ok {
			run.writer, run.sequence = r.writer, r.seq
		}
		for _, e := range h.open {
			if e.Target == at+1 {
				run.writer, run.control = e.Writer, true
			}
		}
		if err := log.add(run); err != nil {
			panic(err)
		}
	}
	return log
}

func TestALogIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		newest := h.open[len(h.open)-1]
		// The journal lacks the newest writer's positions from somewhere on, and the shifts too.
		have := Point{newest.Ordinal, newest.Source, newest.Target}
		lacks := false
		entries := slices.DeleteFunc(slices.Clone(h.entries), func(e Entry) bool {
			if e.Key().Writer != newest.Writer {
				return false
			}
			switch e := e.(type) {
			case Position:
				lacks = lacks || rapid.Bool().Draw(t, "lacks")
				if !lacks {
					have = Point{e.Ordinal, e.Source, e.Target}
				}
				return lacks
			case Shift:
				return e.Target >= have.Target
			}
			return false
		})
		state := replay(h.lane, entries)
		// Shifts a later position covers were written by then.
		for _, e := range h.entries {
			if sh, ok := e.(Shift); ok && sh.Writer == newest.Writer && sh.Target < have.Target {
				if !slices.Contains(entries, e) {
					t.Skip("shift at the position")
				}
			}
		}
		log := logOf(h, max(0, have.Target-1))
		log.before = state
		tail := log.tail(state)
		if tail.Err != nil || tail.Warning != "" {
			t.Fatalf("%v, warning %q", tail.Err, tail.Warning)
		}
		end := tail.State.view().end()
		if n := len(h.records); n > 0 && end.Ordinal != h.records[n-1].ordinal+1 {
			t.Fatalf("lane is at %+v, its last record is %+v", end, h.records[n-1])
		}
		for _, r := range h.records {
			if p, ok := tail.State.At(r.ordinal); !ok || p != (Point{r.ordinal, r.source, r.target}) {
				t.Fatalf("record with ordinal %d: %v %v, want %+v", r.ordinal, p, ok, r)
			}
			if back := tail.State.TranslateBack(r.target); back.Outcome != Exact && back.Outcome != Next {
				t.Fatalf("record %+v: %+v", r, back)
			}
		}
	})
}

func TestALogThatIsNotAsTheJournalSaysIsAnError(t *testing.T) {
	w, other := Writer{1, 1}, Writer{1, 2}
	state := StateOf(
		EpochRecord{Lane: someLane, Writer: w, Target: 1, TargetTopicID: [16]byte{1}},
		Position{Lane: someLane, Writer: w, Ordinal: 10, Source: 10, Target: 11})
	for _, c := range []struct {
		name string
		runs []logRun
		id   byte
	}{
		{"topic made anew", nil, 2},
		{"written by somebody else where ours stood", []logRun{{writer: Writer{7, 7}, sequence: 0, base: 5, next: 20}}, 1},
		{"a control record where ours stood", []logRun{{writer: w, control: true, base: 10, next: 11}}, 1},
		{"another of ours where ours stood", []logRun{{writer: w, sequence: 3, base: 5, next: 20}}, 1},
		{"of an epoch that is not known", []logRun{{writer: other, sequence: 0, base: 11, next: 20}}, 1},
		{"a record is missing", []logRun{{writer: w, sequence: 9, base: 10, next: 11}, {writer: w, sequence: 11, base: 11, next: 20}}, 1},
		{"a record twice", []logRun{{writer: w, sequence: 9, base: 10, next: 11}, {writer: w, sequence: 9, base: 11, next: 20}}, 1},
	} {
		log := &tailLog{lane: someLane, topic: "orders", topicID: [16]byte{c.id}, before: state, end: 20, next: 20, runs: c.runs}
		if tail := log.tail(state); tail.Err == nil {
			t.Errorf("%s: believed, %+v", c.name, tail.State.view().end())
		}
	}
}
