package offsets

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"pgregory.net/rapid"
)

// drawSpans draws spans with runs and holes of very different lengths, so that both forms of
// blocks and the change between them occur.
func drawSpans(t *rapid.T, ordinal, source int64) []Span {
	var spans []Span
	for range rapid.IntRange(1, 6).Draw(t, "phases") {
		run := rapid.SampledFrom([]int64{1, 2, 5, 40, 700, 100000}).Draw(t, "run")
		hole := rapid.SampledFrom([]int64{1, 2, 30, 600, 1 << 40}).Draw(t, "hole")
		for range rapid.IntRange(1, 300).Draw(t, "spans") {
			spans = append(spans, Span{ordinal, source})
			n := rapid.Int64Range(1, run).Draw(t, "n")
			ordinal += n
			source += n + rapid.Int64Range(1, hole).Draw(t, "h")
			if source > 1<<58 {
				return spans
			}
		}
	}
	return spans
}

func naiveSource(spans []Span, ordinal int64) (int64, bool) {
	i := sort.Search(len(spans), func(i int) bool { return spans[i].Ordinal > ordinal }) - 1
	if i < 0 {
		return 0, false
	}
	return spans[i].Source + ordinal - spans[i].Ordinal, true
}

func naiveCeil(spans []Span, source int64) (ordinal, at int64) {
	for i, s := range spans {
		if source < s.Source {
			return s.Ordinal, s.Source
		}
		if i+1 == len(spans) || source-s.Source < spans[i+1].Ordinal-s.Ordinal {
			return s.Ordinal + source - s.Source, source
		}
	}
	return 0, 0
}

func TestSpanMapAnswersAsTheListOfSpansDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spans := drawSpans(t, rapid.Int64Range(0, 1000).Draw(t, "ordinal"), rapid.Int64Range(0, 1<<50).Draw(t, "source"))
		var m spanMap
		half := rapid.IntRange(1, len(spans)).Draw(t, "half")
		var early spanMap
		for i, s := range spans {
			m.append(s)
			if i == half-1 {
				early = m // a snapshot: what comes later must not show in it
			}
		}
		kept := rapid.IntRange(0, len(spans)-1).Draw(t, "kept")
		dropped := m // its front may go
		dropped.dropBelow(spans[kept].Ordinal)
		if first, ok := dropped.firstFrom(spans[kept].Ordinal); !ok || first != spans[kept] {
			t.Fatalf("first span from ordinal %d on: %v %v, want %v", spans[kept].Ordinal, first, ok, spans[kept])
		}
		more := Span{spans[len(spans)-1].Ordinal + 3, spans[len(spans)-1].Source + 5}
		dropped.append(more)
		for _, s := range append(spans[kept:len(spans):len(spans)], more) {
			if got, ok := dropped.source(s.Ordinal); !ok || got != s.Source {
				t.Fatalf("source of ordinal %d without those below %d: %d %v, want %d", s.Ordinal, spans[kept].Ordinal, got, ok, s.Source)
			}
			if o, got := dropped.ceil(s.Source); o != s.Ordinal || got != s.Source {
				t.Fatalf("source offset %d without those below %d: ordinal %d at %d, want %d", s.Source, spans[kept].Source, o, got, s.Ordinal)
			}
		}
		for _, c := range []struct {
			m     *spanMap
			spans []Span
		}{{&m, spans}, {&early, spans[:half]}} {
			all := c.m.all()
			if fmt.Sprint(all) != fmt.Sprint(c.spans) {
				t.Fatalf("all spans: %v, want %v", all, c.spans)
			}
			for range 50 {
				near := c.spans[rapid.IntRange(0, len(c.spans)-1).Draw(t, "near")]
				d := rapid.Int64Range(-700, 700).Draw(t, "distance")
				got, ok := c.m.source(near.Ordinal + d)
				want, wantOK := naiveSource(c.spans, near.Ordinal+d)
				if got != want || ok != wantOK {
					t.Fatalf("source of ordinal %d: %d %v, want %d %v", near.Ordinal+d, got, ok, want, wantOK)
				}
				o, s := c.m.ceil(near.Source + d)
				wo, ws := naiveCeil(c.spans, near.Source+d)
				if o != wo || s != ws {
					t.Fatalf("first record at or above source offset %d: ordinal %d at %d, want %d at %d", near.Source+d, o, s, wo, ws)
				}
			}
		}
	})
}

// shapes of sources, by what they cost.
var shapes = []struct {
	name   string
	limit  float64 // bytes per million source offsets
	lookup bool
	spans  func(sources int64) []Span
}{
	{"dense", 100, true, func(int64) []Span { return nil }},
	{"half compacted", 0.3e6, true, func(n int64) []Span {
		rng := rand.New(rand.NewPCG(1, 2))
		var spans []Span
		ordinal, last := int64(0), int64(-2)
		for s := range n {
			if rng.IntN(2) == 0 {
				continue
			}
			if s != last+1 {
				spans = append(spans, Span{ordinal, s})
			}
			ordinal, last = ordinal+1, s
		}
		return spans
	}},
	{"one-record transactions", 0.5e6, true, func(n int64) []Span {
		var spans []Span
		for s := int64(1); s < n; s += 2 {
			spans = append(spans, Span{s / 2, s})
		}
		return spans
	}},
	{"ten-record transactions", 0.5e6, true, func(n int64) []Span {
		var spans []Span
		for s := int64(1); s < n; s += 11 {
			spans = append(spans, Span{s / 11 * 10, s})
		}
		return spans
	}},
	{"thousand-record transactions", 0.1e6, true, func(n int64) []Span {
		var spans []Span
		for s := int64(1); s < n; s += 1001 {
			spans = append(spans, Span{s / 1001 * 1000, s})
		}
		return spans
	}},
}

// shapeState builds a lane's state from entries of 500 spans, as they come out of a journal.
func shapeState(spans []Span) LaneState {
	l := newLane(Lane{"orders", 3})
	w := Writer{1, 0}
	l.apply(EpochRecord{Lane: l.name, Writer: w})
	for len(spans) > 0 {
		n := min(500, len(spans))
		l.apply(Spans{Lane: l.name, Writer: w, Runs: spans[:n]})
		spans = spans[n:]
	}
	return l.state()
}

func TestMapTakesLittleMemory(t *testing.T) {
	const sources = 4_000_000
	for _, shape := range shapes {
		s := shapeState(shape.spans(sources))
		per := float64(s.mapBytes()) / sources * 1e6
		t.Logf("%-28s %9.0f bytes per million source offsets", shape.name, per)
		if per > shape.limit {
			t.Errorf("%s: %.0f bytes per million source offsets, want at most %.0f", shape.name, per, shape.limit)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	const sources = 4_000_000
	for _, shape := range shapes {
		s := shapeState(shape.spans(sources))
		rng := rand.New(rand.NewPCG(3, 4))
		at := make([]int64, 1<<16)
		for i := range at {
			at[i] = rng.Int64N(sources)
		}
		b.Run("TargetOf/"+shape.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				s.TargetOf(at[i&(1<<16-1)])
			}
		})
		b.Run("SourceOf/"+shape.name, func(b *testing.B) {
			for i := range b.N {
				s.SourceOf(at[i&(1<<16-1)] / 2)
			}
		})
	}
}

func BenchmarkState(b *testing.B) {
	spans := shapes[1].spans(4_000_000)
	l := newLane(Lane{"orders", 3})
	w := Writer{1, 0}
	l.apply(EpochRecord{Lane: l.name, Writer: w})
	l.apply(Spans{Lane: l.name, Writer: w, Runs: spans})
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		l.apply(Position{Lane: l.name, Writer: w, Ordinal: int64(i)})
		l.view = nil // as after a chunk
		l.state()
	}
}
