package offsets

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// trimmedAgrees compares a trimmed lane with the same one untrimmed: an answer is the same, or it
// says that it lies before, at or below where it was. below has the ordinal of each writer's trim.
func trimmedAgrees(t *rapid.T, h *history, whole, s LaneState, below map[Writer]int64) {
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range h.records {
		want := Point{r.ordinal, r.source, r.target}
		p, ok := s.At(r.ordinal)
		if known := r.ordinal >= below[r.writer]; ok != known || known && p != want {
			t.Fatalf("record with ordinal %d, trimmed below %d: %v %v, want %v", r.ordinal, below[r.writer], p, ok, want)
		}
	}
	compare := func(what string, top int64, trimmed, whole func(int64) Translation) {
		last := int64(0)
		for at := range top {
			got, want := trimmed(at), whole(at)
			if got != want && (got.Outcome != Before || got.To > want.To) {
				t.Fatalf("%s offset %d: %+v, untrimmed %+v", what, at, got, want)
			}
			if got.To < last {
				t.Fatalf("%s offset %d goes back to %d, the one before was at %d", what, at, got.To, last)
			}
			last = got.To
		}
	}
	m := newModel(h)
	compare("source", m.top(), s.Translate, whole.Translate)
	compare("target", m.end.Target+5, s.TranslateBack, whole.TranslateBack)
}

func TestTrimsMeanTheSameInEveryOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		whole := replay(h.lane, h.entries)
		below := map[Writer]int64{}
		var facts, chunks []Entry
		for _, r := range h.records {
			if rapid.IntRange(0, len(h.records)/6+1).Draw(t, "trim") == 0 {
				facts = append(facts, Trim{Lane: h.lane, Writer: r.writer, Ordinal: r.ordinal, Source: r.source, Target: r.target})
				below[r.writer] = max(below[r.writer], r.ordinal)
			}
		}
		for _, e := range h.entries {
			// Chunks of few spans, so that there are some below a trim.
			if s, ok := e.(Spans); ok {
				for runs := range slices.Chunk(s.Runs, 3) {
					s.Runs = runs
					facts, chunks = append(facts, s), append(chunks, s)
				}
				continue
			}
			if _, is := e.(Position); !is {
				facts = append(facts, e)
			}
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		rng.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
		l := newLane(h.lane)
		for _, e := range facts {
			l.apply(e)
			if rng.IntN(50) == 0 {
				l.state()
			}
		}
		for _, e := range h.entries {
			if _, is := e.(Position); is {
				l.apply(e)
			}
		}
		trimmedAgrees(t, h, whole, l.state(), below)

		// What is below a trim may go, and come back late, in any order.
		rng.Shuffle(len(chunks), func(i, j int) { chunks[i], chunks[j] = chunks[j], chunks[i] })
		for _, e := range chunks {
			s := e.(Spans)
			if s.Runs[len(s.Runs)-1].Ordinal < below[s.Writer] {
				l.apply(Deletion{Of: s.Key()})
			}
		}
		trimmedAgrees(t, h, whole, l.state(), below)
		for _, e := range chunks {
			if rng.IntN(3) == 0 {
				l.apply(e)
			}
		}
		trimmedAgrees(t, h, whole, l.state(), below)
	})
}

func TestHousekeepingTrimsOnlyWhatTheSourceNoLongerHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		whole := replay(h.lane, h.entries)
		start := rapid.Int64Range(0, newModel(h).top()).Draw(t, "log start of the source")
		keep := rapid.Int64Range(0, 200).Draw(t, "newest to keep")
		l := newLane(h.lane)
		for _, e := range h.entries {
			if s, ok := e.(Spans); ok {
				for _, r := range s.Runs {
					l.apply(Spans{Lane: s.Lane, Writer: s.Writer, Runs: []Span{r}})
				}
				continue
			}
			l.apply(e)
		}
		below := func() map[Writer]int64 {
			all := map[Writer]int64{}
			for _, e := range h.open {
				all[e.Writer] = never // its epoch was removed
				if f := l.writers[e.Writer]; f != nil && f.epoch != nil {
					all[e.Writer] = f.trimmed()
				}
			}
			return all
		}
		for range 20 {
			write, remove := l.compactedBut(start, keep)
			if len(write)+len(remove) == 0 {
				break
			}
			for _, e := range append(write, remove...) {
				back, err := DecodeEntry(EncodeEntry(e))
				if err != nil {
					t.Fatal(err)
				}
				l.apply(back)
			}
			trimmedAgrees(t, h, whole, l.state(), below())
		}
		if write, remove := l.compactedBut(start, keep); len(write)+len(remove) > 0 {
			t.Fatalf("never comes to an end: %v to write, %v to remove", write, remove)
		}
		end := newModel(h).end.Ordinal
		for _, r := range h.records {
			if _, ok := l.state().At(r.ordinal); ok || below()[r.writer] == never {
				continue
			}
			if r.source >= start || r.ordinal >= end-keep {
				t.Fatalf("record %v was trimmed; the source begins at %d, the lane is at ordinal %d", r, start, end)
			}
		}
		for source := start; source < newModel(h).top(); source++ {
			if got, want := l.state().Translate(source), whole.Translate(source); got != want {
				t.Fatalf("source offset %d, which the source still holds from %d on: %+v, was %+v", source, start, got, want)
			}
		}
		for w, f := range l.writers {
			if n := f.chunksBelow(f.trimmed()); n > 0 || len(f.trims) > 1 {
				t.Fatalf("writer %v still has %d chunks below its trim, and %d trims", w, n, len(f.trims))
			}
		}
	})
}

func TestATrimThatIsNotOfItsEpochStopsTheLane(t *testing.T) {
	w := Writer{1, 1}
	for _, bad := range []Trim{
		{Lane: someLane, Writer: w, Ordinal: 5, Source: 200, Target: 30},
		{Lane: someLane, Writer: w, Ordinal: 20, Source: 105, Target: 30},
		{Lane: someLane, Writer: w, Ordinal: 20, Source: 200, Target: 15},
	} {
		s := StateOf(EpochRecord{Lane: someLane, Writer: w, Ordinal: 10, Source: 100, Target: 11}, bad)
		if s.Err() == nil {
			t.Errorf("believed: %+v", bad)
		}
	}
}

// busyLane is a lane of one-record transactions, its chunks merged as housekeeping leaves them.
func busyLane(sources int64) (*lane, Position) {
	l := newLane(someLane)
	w := Writer{1, 0}
	l.apply(EpochRecord{Lane: l.name, Writer: w})
	for spans := range slices.Chunk(shapes[2].spans(sources), mergeSpans) {
		l.apply(Spans{Lane: l.name, Writer: w, Runs: spans, Merged: true})
	}
	p := Position{Lane: l.name, Writer: w, Ordinal: sources / 2, Source: sources, Target: sources / 2}
	l.apply(p)
	return l, p
}

// A lane of short retention is as large as what its source holds, and a million records.
func TestALaneOfShortRetentionStaysSmall(t *testing.T) {
	const sources = 20_000_000
	l, p := busyLane(sources)
	before, chunks := l.state(), len(l.writers[Writer{1, 0}].chunks)
	begun := time.Now()
	write, remove := l.compacted(sources - 1000)
	for _, e := range append(write, remove...) {
		l.apply(e)
		l.state()
	}
	took := time.Since(begun)
	after := l.state()
	t.Logf("map of %d bytes in %d chunks is now %d bytes in %d chunks: %v", before.mapBytes(), chunks, after.mapBytes(), len(l.writers[Writer{1, 0}].chunks), took)
	if len(write) != 1 || after.mapBytes() > 2_000_000 {
		t.Errorf("%d entries written, %d bytes left", len(write), after.mapBytes())
	}
	if o, ok := after.At(p.Ordinal - keepOrdinals); !ok || o.Source != 2*o.Ordinal+1 {
		t.Errorf("the oldest of the newest million: %v %v", o, ok)
	}
	if o, ok := before.At(5); !ok || o.Source != 11 {
		t.Errorf("the older state changed: %v %v", o, ok)
	}
	if write, remove := l.compacted(sources - 1000); len(write)+len(remove) > 0 {
		t.Errorf("again: %v, %d deletions", write, len(remove))
	}
}
