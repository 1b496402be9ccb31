package offsets

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// model translates as a list of all records does. It knows nothing of spans.
type model struct {
	h      *history
	end    Point   // how far the lane has come, by the facts
	epoch  []int   // of h.records: place in h.open
	firsts [][]int // by epoch, by source offset: the first record that counts, len(h.records) if none
}

func newModel(h *history) *model {
	m := &model{h: h, firsts: make([][]int, len(h.open))}
	last := h.open[len(h.open)-1]
	m.end = Point{last.Ordinal, last.Source, last.Target}
	for _, e := range h.entries {
		if p, ok := e.(Position); ok && p.Writer == last.Writer {
			m.end = Point{p.Ordinal, p.Source, p.Target}
		}
	}
	for _, r := range h.records {
		m.epoch = append(m.epoch, slices.IndexFunc(h.open, func(e EpochRecord) bool { return e.Writer == r.writer }))
	}
	return m
}

// top is a source offset above all that ever was.
func (m *model) top() int64 {
	top := m.end.Source
	for _, r := range m.h.records {
		top = max(top, r.source)
	}
	return top + 70
}

// first returns the first record on the target, of this epoch and those after it, that lies at or
// above the source offset and below the position.
func (m *model) first(epoch int, source int64) (copied, bool) {
	if m.firsts[epoch] == nil {
		all := make([]int, m.top()+1)
		for i := range all {
			all[i] = len(m.h.records)
		}
		for i, r := range m.h.records {
			if m.epoch[i] >= epoch && r.ordinal < m.end.Ordinal {
				all[r.source] = min(all[r.source], i)
			}
		}
		for s := len(all) - 2; s >= 0; s-- {
			all[s] = min(all[s], all[s+1])
		}
		m.firsts[epoch] = all
	}
	if i := m.firsts[epoch][source]; i < len(m.h.records) {
		return m.h.records[i], true
	}
	return copied{}, false
}

// lostFrom counts the source offsets from the given one on that the epoch's gaps hold in a row.
func (m *model) lostFrom(epoch int, source int64) int64 {
	var n int64
	for again := true; again; {
		again = false
		for _, e := range m.h.entries {
			if g, ok := e.(Gap); ok && g.Writer == m.h.open[epoch].Writer && g.From <= source+n && source+n < g.To {
				n, again = g.To-source, true
			}
		}
	}
	return n
}

func (m *model) translate(source int64) Translation {
	if source > m.end.Source {
		return Translation{From: source, To: m.end.Target, Outcome: Ahead, Missing: source - m.end.Source}
	}
	epoch := -1
	for i, e := range m.h.open {
		if e.Source <= source {
			epoch = i
		}
	}
	if epoch < 0 {
		to := m.end.Target
		if r, ok := m.first(0, 0); ok {
			to = r.target
		}
		return Translation{From: source, To: to, Outcome: Before, Reason: reasonBegan}
	}
	t := Translation{From: source, To: m.end.Target, Outcome: End}
	if r, ok := m.first(epoch, source); ok {
		t.To, t.Outcome = r.target, Next
		if r.source == source {
			t.Outcome = Exact
			return t
		}
	}
	if n := m.lostFrom(epoch, source); n > 0 {
		t.Outcome, t.Missing = InGap, n
	}
	return t
}

func (m *model) translateBack(target int64) Translation {
	if target > m.end.Target {
		return Translation{From: target, To: m.end.Source, Outcome: Ahead, Missing: target - m.end.Target}
	}
	t := Translation{From: target, To: m.end.Source, Outcome: End}
	for i, r := range m.h.records {
		if r.target < target || r.ordinal >= m.end.Ordinal {
			continue
		}
		t.To, t.Outcome = r.source, Next
		if r.target == target {
			t.Outcome = Exact
		}
		for _, later := range m.h.open[m.epoch[i]+1:] {
			if later.Source < t.To {
				t.To, t.Outcome = later.Source, Next
			}
		}
		break
	}
	if target < m.h.open[0].Target-1 {
		t.Outcome, t.Reason = Before, reasonBegan
	}
	return t
}

// drawLane draws a history in which the lane was opened.
func drawLane(t *rapid.T) *history {
	h := drawHistoryOf(t, true)
	if len(h.open) == 0 {
		t.Skip("never opened")
	}
	return h
}

func TestEveryOffsetIsTranslatedAsAListOfAllRecordsDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		s, m := replay(h.lane, h.entries), newModel(h)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		before := int64(0)
		for source := range m.top() + 1 {
			got, want := s.Translate(source), m.translate(source)
			if got != want {
				t.Fatalf("source offset %d, lane at %v:\n got %+v\nwant %+v", source, m.end, got, want)
			}
			if got.To < before {
				t.Fatalf("source offset %d goes back to %d, the one before was at %d", source, got.To, before)
			}
			before = got.To
			if got.Outcome == Exact {
				if back := s.TranslateBack(got.To); back.To > source || back.Outcome == Exact && back.To != source {
					t.Fatalf("source offset %d is target offset %d, which is %+v", source, got.To, back)
				}
			}
		}
		before = 0
		for target := range m.end.Target + 20 {
			got, want := s.TranslateBack(target), m.translateBack(target)
			if got != want {
				t.Fatalf("target offset %d, lane at %v:\n got %+v\nwant %+v", target, m.end, got, want)
			}
			if got.To < before {
				t.Fatalf("target offset %d goes back to %d, the one before was at %d", target, got.To, before)
			}
			before = got.To
		}
	})
}

func TestANewerPositionIsAsGoodAsOneInTheJournal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		newest := h.open[len(h.open)-1].Writer
		whole := replay(h.lane, h.entries)
		position, ok := whole.Position()
		if !ok {
			t.Skip("no position")
		}
		var shifts []Shift
		rest := slices.DeleteFunc(slices.Clone(h.entries), func(e Entry) bool {
			if sh, is := e.(Shift); is && sh.Writer == newest && rapid.Bool().Draw(t, "only in the log") {
				shifts = append(shifts, sh)
				return true
			}
			p, is := e.(Position)
			return is && p.Writer == newest
		})
		old := replay(h.lane, rest)
		before := old.Translate(position.Source)
		s := old.With(position, shifts...)
		for source := range newModel(h).top() {
			if got, want := s.Translate(source), whole.Translate(source); got != want {
				t.Fatalf("source offset %d: %+v, want %+v", source, got, want)
			}
		}
		if again := old.Translate(position.Source); again != before {
			t.Fatalf("the older state changed: %+v, was %+v", again, before)
		}
	})
}

func TestWithRefusesWhatIsNotNewer(t *testing.T) {
	s := StateOf(
		EpochRecord{Lane: someLane, Writer: Writer{1, 1}, Target: 1},
		EpochRecord{Lane: someLane, Writer: Writer{1, 2}, Ordinal: 10, Source: 10, Target: 12},
		Position{Lane: someLane, Writer: Writer{1, 2}, Ordinal: 20, Source: 20, Target: 22})
	for name, p := range map[string]Position{
		"superseded writer": {Lane: someLane, Writer: Writer{1, 1}, Ordinal: 30, Source: 30, Target: 32},
		"older":             {Lane: someLane, Writer: Writer{1, 2}, Ordinal: 15, Source: 15, Target: 17},
	} {
		if got := s.With(p).Translate(20); got != (Translation{From: 20, To: 22, Outcome: End}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestOffsetsAtTheEdges(t *testing.T) {
	w := Writer{1, 1}
	empty := StateOf(EpochRecord{Lane: someLane, Writer: w, Target: 1})
	latest := StateOf(EpochRecord{Lane: someLane, Writer: w, Source: 100, Target: 6},
		Position{Lane: someLane, Writer: w, Ordinal: 10, Source: 110, Target: 16})
	trimmed := StateOf(EpochRecord{Lane: someLane, Writer: w, Ordinal: 50, Source: 100, Target: 70},
		Position{Lane: someLane, Writer: w, Ordinal: 60, Source: 110, Target: 80})
	for _, c := range []struct {
		name  string
		state LaneState
		want  Translation
	}{
		{"never opened", LaneState{}, Translation{From: 0, To: -1, Reason: reasonNeverOpened}},
		{"empty partition", empty, Translation{From: 0, To: 1, Outcome: End}},
		{"ahead of an empty partition", empty, Translation{From: 3, To: 1, Outcome: Ahead, Missing: 3}},
		{"below a lane that began at latest", latest, Translation{From: 0, To: 6, Outcome: Before, Reason: reasonBegan}},
		{"where it began", latest, Translation{From: 100, To: 6, Outcome: Exact}},
		{"its end", latest, Translation{From: 110, To: 16, Outcome: End}},
		{"below what was trimmed", trimmed, Translation{From: 99, To: 0, Outcome: Before, Reason: reasonTrimmed}},
		{"first after what was trimmed", trimmed, Translation{From: 100, To: 70, Outcome: Exact}},
	} {
		if got := c.state.Translate(c.want.From); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name  string
		state LaneState
		want  Translation
	}{
		{"never opened", LaneState{}, Translation{From: 0, To: -1, Reason: reasonNeverOpened}},
		{"the control record of the first opening", empty, Translation{From: 0, To: 0, Outcome: End}},
		{"below a lane that was appended to a topic", latest, Translation{From: 4, To: 100, Outcome: Before, Reason: reasonBegan}},
		{"beyond its end", latest, Translation{From: 18, To: 110, Outcome: Ahead, Missing: 2}},
		{"below what was trimmed", trimmed, Translation{From: 3, To: 0, Outcome: Before, Reason: reasonTrimmed}},
	} {
		if got := c.state.TranslateBack(c.want.From); got != c.want {
			t.Errorf("back, %s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestADamagedMapTranslatesNothing(t *testing.T) {
	w := Writer{1, 1}
	s := StateOf(EpochRecord{Lane: someLane, Writer: w, Ordinal: 10, Source: 100, Target: 11},
		Spans{Lane: someLane, Writer: w, Runs: []Span{{20, 105}}})
	for _, got := range []Translation{s.Translate(100), s.TranslateBack(11)} {
		if got.Outcome != Unknown || got.To != -1 || !strings.Contains(got.Reason, "contradicts") {
			t.Errorf("%+v", got)
		}
	}
}

func TestATranslationIsFittedIntoTheTargetsLog(t *testing.T) {
	for _, c := range []struct {
		name       string
		in         Translation
		start, end int64
		outcome    Outcome
		to, miss   int64
		reason     string
	}{
		{"inside", Translation{To: 50, Outcome: Exact}, 10, 100, Exact, 50, 0, ""},
		{"at its start", Translation{To: 10, Outcome: Next}, 10, 100, Next, 10, 0, ""},
		{"at its end", Translation{To: 100, Outcome: End}, 10, 100, End, 100, 0, ""},
		{"below its start", Translation{To: 9, Outcome: InGap, Missing: 5}, 10, 100, Before, 10, 0, "the target's retention"},
		{"before, with a reason already", Translation{To: 0, Outcome: Before, Reason: reasonTrimmed}, 10, 100, Before, 10, 0, reasonTrimmed},
		{"tail lost", Translation{To: 120, Outcome: End}, 10, 100, Ahead, 100, 20, "lost its tail"},
		{"tail lost, ahead already", Translation{To: 120, Outcome: Ahead, Missing: 3}, 10, 100, Ahead, 100, 23, "lost its tail"},
		{"emptied by retention", Translation{To: 40, Outcome: End}, 100, 100, Before, 100, 0, "the target's retention"},
		{"unknown", Translation{To: -1, Reason: "x"}, 10, 100, Unknown, -1, 0, "x"},
	} {
		got := c.in.Within(c.start, c.end)
		if got.Outcome != c.outcome || got.To != c.to || got.Missing != c.miss || !strings.Contains(got.Reason, c.reason) || c.reason == "" && got.Reason != "" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestOutcomesHaveWords(t *testing.T) {
	for o := Unknown; o <= Before; o++ {
		text, err := o.MarshalText()
		var back Outcome
		if err != nil || back.UnmarshalText(text) != nil || back != o || string(text) != o.String() {
			t.Errorf("%d: %q, back %d, %v", o, text, back, err)
		}
	}
	if _, err := Outcome(77).MarshalText(); err == nil {
		t.Error("an outcome without a word was written")
	}
	var o Outcome
	if err := o.UnmarshalText([]byte("Exact")); err == nil {
		t.Error("a word that is none was read")
	}
}

// logs are the kinds of source a translation is measured on, and what their map may cost.
var logs = []struct {
	name  string
	limit float64 // bytes per million source offsets
	spans func(sources int64) []Span
}{
	{"dense", 100, shapes[0].spans},
	{"one-record transactions", 1e6, shapes[2].spans},
	{"half compacted", 0.3e6, shapes[1].spans},
	{"realistic", 0.2e6, func(n int64) []Span {
		// Long dense stretches, transactions of some ten records, and a compacted part.
		rng := rand.New(rand.NewPCG(5, 6))
		spans := []Span{}
		ordinal, source := int64(0), int64(0)
		for source < n {
			run, hole := int64(1+rng.IntN(40)), int64(1)
			switch phase := source * 10 / n; {
			case phase < 4:
				run = int64(1000 + rng.IntN(20000))
			case phase < 6:
				run, hole = int64(1+rng.IntN(3)), int64(1+rng.IntN(5))
			}
			ordinal, source = ordinal+run, source+run+hole
			spans = append(spans, Span{ordinal, source})
		}
		return spans
	}},
}

// logState is the lane of such a log, all of it copied.
func logState(spans []Span, sources int64) LaneState {
	s := shapeState(spans)
	last, _ := s.Last()
	p, _ := s.TargetOf(sources)
	return s.With(Position{Lane: last.Lane, Writer: last.Writer, Ordinal: p.Ordinal, Source: p.Source, Target: p.Target})
}

func TestAMapIsSmallAndATranslationAllocatesNothing(t *testing.T) {
	const sources = 4_000_000
	for _, log := range logs {
		s := logState(log.spans(sources), sources)
		per := float64(s.mapBytes()) / sources * 1e6
		t.Logf("%-24s %9.0f bytes per million source offsets", log.name, per)
		if per > log.limit {
			t.Errorf("%s: %.0f bytes per million source offsets, want at most %.0f", log.name, per, log.limit)
		}
		at := int64(0)
		if n := testing.AllocsPerRun(1000, func() { s.Translate(at % sources); s.TranslateBack(at % sources); at += 40_009 }); n > 0 {
			t.Errorf("%s: a translation allocates %v times", log.name, n)
		}
	}
}

func BenchmarkTranslate(b *testing.B) {
	const sources = 4_000_000
	rng := rand.New(rand.NewPCG(3, 4))
	at := make([]int64, 1<<16)
	for i := range at {
		at[i] = rng.Int64N(sources)
	}
	for _, log := range logs {
		s := logState(log.spans(sources), sources)
		for _, way := range []struct {
			name string
			f    func(int64) Translation
		}{{"there", s.Translate}, {"back", s.TranslateBack}} {
			b.Run(fmt.Sprintf("%s/%s", log.name, way.name), func(b *testing.B) {
				b.ReportAllocs()
				for i := range b.N {
					way.f(at[i&(1<<16-1)])
				}
			})
		}
	}
}
