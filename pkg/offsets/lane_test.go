package offsets

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// record is one record on the target, as a naive list keeps it.
type copied struct {
	writer                  Writer
	seq                     int64
	ordinal, source, target int64
}

// history makes up the life of a lane: writers one after another, holes in the source, foreign
// writes on the target, tails of the target lost; the records that are there in the end, and the
// entries a journal then has.
type history struct {
	t        *rapid.T
	lane     Lane
	records  []copied
	entries  []Entry
	end      int64 // target's log end
	source   int64 // position
	epoch    int16
	pid      int64
	open     []EpochRecord // whose control records are on the target
	eventful bool          // gaps, a source that goes back, positions left out; and shorter runs
}

func drawHistory(t *rapid.T) *history { return drawHistoryOf(t, false) }

func drawHistoryOf(t *rapid.T, eventful bool) *history {
	h := &history{t: t, lane: someLane, pid: 100, eventful: eventful}
	if eventful && rapid.Bool().Draw(t, "begins at latest") {
		h.source = 100
	}
	for range rapid.IntRange(1, h.pick([]int{6}, []int{14})[0]).Draw(t, "openings") {
		if len(h.records) > 0 && rapid.IntRange(0, 4).Draw(t, "loses tail") == 0 {
			h.loseTail()
		}
		h.openAndAppend(nil)
	}
	return h
}

func (h *history) ordinal() int64 {
	if n := len(h.records); n > 0 {
		return h.records[n-1].ordinal + 1
	}
	return 0
}

func (h *history) openAndAppend(cut *Cut) {
	t := h.t
	if rapid.IntRange(0, 5).Draw(t, "new producer id") == 0 && h.epoch > 0 {
		// A smaller one: order is not by number.
		h.pid, h.epoch = h.pid-1, 0
	} else {
		h.epoch++
	}
	h.end++ // control record
	if h.eventful && cut == nil && rapid.IntRange(0, 3).Draw(t, "source goes back") == 0 {
		h.source = rapid.Int64Range(0, h.source).Draw(t, "to")
	}
	w := Writer{h.pid, h.epoch}
	e := EpochRecord{Lane: h.lane, Writer: w, Ordinal: h.ordinal(), Source: h.source, Target: h.end, SourceLeaderEpoch: -1}
	if cut != nil {
		cut.Writer = w
		h.entries = append(h.entries, *cut)
	}
	if rapid.IntRange(0, 7).Draw(t, "never came to its epoch record") == 0 && cut == nil {
		h.entries = append(h.entries, Spans{Lane: h.lane, Writer: w, Runs: []Span{{e.Ordinal, e.Source + 1000}}},
			Position{Lane: h.lane, Writer: w, Ordinal: e.Ordinal + 77})
		return
	}
	h.entries = append(h.entries, e)
	h.open = append(h.open, e)
	b := NewSpanBuilder(h.lane, w, e.Ordinal, e.Source)
	seq := int64(0)
	for range rapid.IntRange(0, 5).Draw(t, "chunks") {
		var chunk []copied
		ordinal := h.ordinal()
		if h.eventful {
			for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "gaps") {
				n := rapid.Int64Range(1, 50).Draw(t, "lost")
				h.entries = append(h.entries, Gap{Lane: h.lane, Writer: w, From: h.source, To: h.source + n, Reason: "retention"})
				h.source += n
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "runs") {
			h.source += int64(rapid.SampledFrom(h.pick([]int{0, 1, 1, 7, 300}, []int{0, 1, 1, 4})).Draw(t, "hole"))
			n := rapid.SampledFrom(h.pick([]int{1, 1, 2, 30}, []int{1, 1, 2, 9})).Draw(t, "run")
			b.Add(h.source, n)
			for range n {
				chunk = append(chunk, copied{writer: w, ordinal: ordinal, source: h.source})
				ordinal++
				h.source++
			}
		}
		if s, ok := b.Take(); ok {
			h.entries = append(h.entries, s)
		}
		if rapid.IntRange(0, 9).Draw(t, "dies before it sends") == 0 {
			h.source = chunk[0].source
			break
		}
		if rapid.IntRange(0, 9).Draw(t, "foreign write") == 0 {
			h.end += 3
			h.entries = append(h.entries, Shift{Lane: h.lane, Writer: w, Ordinal: chunk[0].ordinal, Target: h.end})
		}
		for i := range chunk {
			chunk[i].target, chunk[i].seq = h.end, seq
			h.end++
			seq++
		}
		h.records = append(h.records, chunk...)
		if h.eventful && rapid.IntRange(0, 3).Draw(t, "position is late") == 0 {
			continue
		}
		h.entries = append(h.entries, Position{Lane: h.lane, Writer: w, Ordinal: ordinal, Source: h.source, Target: h.end})
	}
}

func (h *history) pick(plain, eventful []int) []int {
	if h.eventful {
		return eventful
	}
	return plain
}

func (h *history) loseTail() {
	h.end = rapid.Int64Range(1, h.end).Draw(h.t, "end")
	h.records = slices.DeleteFunc(h.records, func(r copied) bool { return r.target >= h.end })
	var lost []Writer
	h.open = slices.DeleteFunc(h.open, func(e EpochRecord) bool {
		if e.Target > h.end {
			lost = append(lost, e.Writer)
		}
		return e.Target > h.end
	})
	h.source = 0
	if n := len(h.records); n > 0 {
		h.source = h.records[n-1].source + 1
	}
	h.openAndAppend(&Cut{Lane: h.lane, Ordinal: h.ordinal(), Source: h.source, Target: h.end, Lost: lost})
}

// agrees asks the state everything the naive list can answer.
func (h *history) agrees(t *rapid.T, s LaneState) {
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h.open, s.Epochs(), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("epochs that count:\n%s", diff)
	}
	maxSource, maxTarget := int64(-1), int64(-1)
	for _, r := range h.records {
		want := Point{r.ordinal, r.source, r.target}
		if p, ok := s.At(r.ordinal); !ok || p != want {
			t.Fatalf("record with ordinal %d: %v %v, want %v", r.ordinal, p, ok, want)
		}
		if o, src, ok := s.Resolve(r.writer, r.seq); !ok || o != r.ordinal || src != r.source {
			t.Fatalf("record %d of writer %v: ordinal %d, source %d %v, want %v", r.seq, r.writer, o, src, ok, want)
		}
		for src := max(maxSource+1, r.source-3); src <= r.source; src++ {
			if p, ok := s.TargetOf(src); !ok || p != want {
				t.Fatalf("first record from source offset %d on: %v %v, want %v", src, p, ok, want)
			}
		}
		for target := max(maxTarget+1, r.target-3); target <= r.target; target++ {
			if p, ok := s.SourceOf(target); !ok || p != want {
				t.Fatalf("first record from target offset %d on: %v %v, want %v", target, p, ok, want)
			}
		}
		maxSource, maxTarget = r.source, r.target
	}
	if n := len(h.records); n > 0 {
		last := h.records[n-1]
		o, src, ok := s.Resolve(last.writer, last.seq+1)
		if !ok || o != last.ordinal+1 || src <= last.source {
			t.Fatalf("what comes after record %d of writer %v: ordinal %d, source %d %v", last.seq, last.writer, o, src, ok)
		}
	}
}

func replay(lane Lane, entries []Entry) LaneState {
	l := newLane(lane)
	for _, e := range entries {
		back, err := DecodeEntry(EncodeEntry(e))
		if err != nil {
			panic(err)
		}
		l.apply(back)
	}
	return l.state()
}

func TestStateKnowsEveryRecordWhateverTheOrderOfItsFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		h.agrees(t, replay(h.lane, h.entries))

		// Late and twice: only the positions of a writer have an order.
		facts := slices.DeleteFunc(slices.Clone(h.entries), func(e Entry) bool { _, is := e.(Position); return is })
		facts = append(facts, facts...)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		rng.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
		h.agrees(t, replay(h.lane, facts))
	})
}

// answers is all a state says, for comparing two of them.
func answers(s LaneState) string {
	p, ok := s.Position()
	return fmt.Sprintln(s.Epochs(), p, ok, s.Gaps(), s.Cuts(), s.Generation(), s.Err())
}

func TestCompactionLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		w := h.open
		if len(w) > 0 {
			h.entries = append(h.entries,
				Gap{Lane: h.lane, Writer: w[0].Writer, From: 7, To: 9, Reason: "retention"},
				Gap{Lane: h.lane, Writer: w[0].Writer, From: 9, To: 11, Reason: "retention"},
				Generation{Lane: h.lane, Number: 2}, Generation{Lane: h.lane, Number: 1})
		}
		newest := map[Key]int{}
		for i, e := range h.entries {
			newest[e.Key()] = i
		}
		var kept []Entry
		for i, e := range h.entries {
			if newest[e.Key()] == i {
				kept = append(kept, e)
			}
		}
		before, after := replay(h.lane, h.entries), replay(h.lane, kept)
		h.agrees(t, after)
		if a, b := answers(before), answers(after); a != b {
			t.Fatalf("state changed:\n%s\n%s", a, b)
		}
	})
}

func TestHousekeepingChangesNoAnswer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		l := newLane(h.lane)
		for _, e := range h.entries {
			// Chunks of one span each, so that there is something to merge.
			if s, ok := e.(Spans); ok {
				for _, r := range s.Runs {
					l.apply(Spans{Lane: s.Lane, Writer: s.Writer, Runs: []Span{r}})
				}
				continue
			}
			l.apply(e)
		}
		before := l.state()
		for range 8 {
			write, remove := l.compacted(0)
			for _, e := range write {
				l.apply(e)
			}
			h.agrees(t, l.state())
			for i, e := range remove {
				l.apply(e)
				if k := e.Key().Kind; k != KindSpans && k != KindMerged || i%50 == 0 {
					h.agrees(t, l.state())
				}
			}
			h.agrees(t, l.state())
		}
		if a, b := fmt.Sprint(before.Epochs(), before.Gaps()), fmt.Sprint(l.state().Epochs(), l.state().Gaps()); a != b {
			t.Fatalf("state changed:\n%s\n%s", a, b)
		}
		a, aok := before.Position()
		if b, bok := l.state().Position(); a != b || aok != bok {
			t.Fatalf("position changed: %v %v", a, b)
		}
		if write, remove := l.compacted(0); len(write)+len(remove) > 0 {
			t.Fatalf("never comes to an end: %d to write, %v", len(write), remove)
		}
		for w, f := range l.writers {
			if len(f.chunks) > 2*mergeChunks && f.epoch != nil {
				t.Fatalf("writer %v still has %d chunks", w, len(f.chunks))
			}
		}
	})
}

func TestTrimRemovesEpochsBelowTheSourcesStartButNotTheLastRecords(t *testing.T) {
	l := newLane(someLane)
	for i := range int64(20) {
		w := Writer{1, int16(i)}
		l.apply(EpochRecord{Lane: someLane, Writer: w, Ordinal: i * 10, Source: i * 100, Target: i*11 + 1})
		l.apply(Spans{Lane: someLane, Writer: w, Runs: []Span{{i*10 + 5, i*100 + 50}}})
	}
	_, remove := l.compacted(550)
	for _, e := range remove {
		l.apply(e)
	}
	s := l.state()
	if got := s.Epochs()[0].Epoch; got != 5 {
		t.Errorf("oldest epoch is %d, want 5: it holds source offset 550", got)
	}
	if p, ok := s.TargetOf(551); !ok || p != (Point{56, 551, 62}) {
		t.Errorf("source offset 551: %v %v", p, ok)
	}
	// Nothing appended for a long time: the openings since must not push out the last record.
	for i := range int64(20) {
		l.apply(EpochRecord{Lane: someLane, Writer: Writer{1, int16(20 + i)}, Ordinal: 200, Source: 2000, Target: 300 + i})
	}
	_, remove = l.compacted(1 << 40)
	for _, e := range remove {
		l.apply(e)
	}
	if o, src, ok := l.state().Resolve(Writer{1, 19}, 10); !ok || o != 200 || src != 2000 {
		t.Errorf("next after the last record: ordinal %d, source %d, %v", o, src, ok)
	}
	if got := len(l.state().Epochs()); got != 21 {
		t.Errorf("%d epochs left, want the one with the last record and those after it", got)
	}
}

func TestASnapshotDoesNotChange(t *testing.T) {
	l := newLane(someLane)
	w := Writer{1, 1}
	l.apply(EpochRecord{Lane: someLane, Writer: w})
	var kept []LaneState
	for i := range int64(2000) {
		l.apply(Spans{Lane: someLane, Writer: w, Runs: []Span{{i + 1, 2*i + 2}}})
		kept = append(kept, l.state())
	}
	for i, s := range kept {
		// The newest span it knows goes on for ever, whatever was learned since.
		if p, _ := s.At(int64(i) + 11); p.Source != 2*int64(i)+12 {
			t.Fatalf("snapshot %d: %v", i, p)
		}
	}
}

func TestFactsThatContradictEachOtherStopTheLane(t *testing.T) {
	l := newLane(someLane)
	w := Writer{1, 1}
	l.apply(EpochRecord{Lane: someLane, Writer: w, Ordinal: 10, Source: 100, Target: 11})
	l.apply(Spans{Lane: someLane, Writer: w, Runs: []Span{{20, 150}}})
	if err := l.state().Err(); err != nil {
		t.Fatal(err)
	}
	l.apply(Spans{Lane: someLane, Writer: w, Runs: []Span{{30, 155}}})
	if l.state().Err() == nil {
		t.Error("a source offset that goes back was believed")
	}
	l = newLane(someLane)
	l.apply(EpochRecord{Lane: someLane, Writer: w, Ordinal: 10, Source: 100, Target: 11})
	l.apply(Spans{Lane: someLane, Writer: w, Runs: []Span{{20, 105}}})
	if l.state().Err() == nil {
		t.Error("a span that its epoch record rules out was believed")
	}
}

func TestASourceThatWentBackMeansTheRecordCopiedLast(t *testing.T) {
	l := newLane(someLane)
	l.apply(EpochRecord{Lane: someLane, Writer: Writer{1, 1}, Ordinal: 0, Source: 0, Target: 1})
	l.apply(EpochRecord{Lane: someLane, Writer: Writer{1, 2}, Ordinal: 100, Source: 40, Target: 102})
	s := l.state()
	if p, ok := s.TargetOf(39); !ok || p != (Point{39, 39, 40}) {
		t.Errorf("before the place it went back to: %v %v", p, ok)
	}
	if p, ok := s.TargetOf(40); !ok || p != (Point{100, 40, 102}) {
		t.Errorf("the place it went back to: %v %v", p, ok)
	}
	if p, ok := s.SourceOf(60); !ok || p != (Point{59, 59, 60}) {
		t.Errorf("the older record is still on the target: %v %v", p, ok)
	}
}

func TestMaxEpochSeesEveryEntry(t *testing.T) {
	s := replay(someLane, []Entry{
		EpochRecord{Lane: someLane, Writer: Writer{1, 3}},
		Position{Lane: someLane, Writer: Writer{1, 5}},
		Cut{Lane: someLane, Writer: Writer{2, 1}, Lost: []Writer{{3, 9}}},
	})
	for id, want := range map[int64]int16{1: 5, 2: 1, 3: 9} {
		if e, ok := s.MaxEpoch(id); !ok || e != want {
			t.Errorf("producer id %d: %d %v, want %d", id, e, ok, want)
		}
	}
	if _, ok := s.MaxEpoch(4); ok {
		t.Error("an epoch of a producer id never seen")
	}
}
