package offsets

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawTrims trims a history's map at random records, and returns what then is in the journal.
func drawTrims(t *rapid.T, h *history) []Entry {
	entries := slices.Clone(h.entries)
	if rapid.Bool().Draw(t, "trimmed") {
		for _, r := range h.records {
			if rapid.IntRange(0, len(h.records)/3+1).Draw(t, "trim") == 0 {
				entries = append(entries, Trim{Lane: h.lane, Writer: r.writer, Ordinal: r.ordinal, Source: r.source, Target: r.target})
			}
		}
	}
	return entries
}

// surviving returns the records that the source still has, as far as the lane has come.
func (m *model) surviving() []copied {
	var all []copied
	for i, r := range m.h.records {
		gone := r.ordinal >= m.end.Ordinal
		for _, later := range m.h.open[m.epoch[i]+1:] {
			gone = gone || later.Source <= r.source
		}
		if !gone {
			all = append(all, r)
		}
	}
	return all
}

func TestAnInverseTranslatesAsTheLaneDoesBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		entries := drawTrims(t, h)
		s, m := replay(h.lane, entries), newModel(h)
		inv, err := s.Inverse(InverseConfig{Time: someTime, Instance: "test"})
		if err != nil {
			t.Fatal(err)
		}
		o := replay(h.lane, inv.Entries)
		if err := o.Err(); err != nil {
			t.Fatal(err)
		}
		left := slices.DeleteFunc(m.surviving(), func(r copied) bool { _, known := s.At(r.ordinal); return !known })
		if int64(len(left)) != inv.Records {
			t.Fatalf("%d records, want %d", inv.Records, len(left))
		}
		simple := len(left) > 0 && len(left) == len(h.records) // nothing was trimmed, or taken back, or lies above the end
		sameAnswers(t, "target", m.end.Target+20, o.Translate, s.TranslateBack, left, simple, func(r copied) (int64, int64) { return r.target, r.source })
		sameAnswers(t, "source", m.top(), o.TranslateBack, s.Translate, left, simple, func(r copied) (int64, int64) { return r.source, r.target })
	})
}

// sameAnswers compares two ways to translate. They say the same of every record that is left. Of other offsets
// they may lead to different places, unless the map is simple, only if none of those records lies between, so that a consumer
// reads the same.
func sameAnswers(t *rapid.T, what string, top int64, got, want func(int64) Translation, left []copied, simple bool, of func(copied) (from, to int64)) {
	exact, others := map[int64]int64{}, []int64{}
	for _, r := range left {
		from, to := of(r)
		exact[from], others = to, append(others, to)
	}
	before := int64(0)
	for at := range top {
		g, w := got(at), want(at)
		if to, ok := exact[at]; ok {
			if r := (Translation{From: at, To: to, Outcome: Exact}); g != r || w != r {
				t.Fatalf("%s offset %d: %+v and %+v, want %+v", what, at, g, w, r)
			}
		} else if g.Outcome == Exact {
			t.Fatalf("%s offset %d: %+v, but there is no record", what, at, g)
		}
		if g.To < before {
			t.Fatalf("%s offset %d goes back to %d, the one before was at %d", what, at, g.To, before)
		}
		before = g.To
		if slices.ContainsFunc(others, func(to int64) bool { return min(g.To, w.To) <= to && to < max(g.To, w.To) }) {
			t.Fatalf("%s offset %d: %+v, want %+v", what, at, g, w)
		}
		if (g.Outcome == Ahead) != (w.Outcome == Ahead) || g.Outcome == Unknown {
			t.Fatalf("%s offset %d: %+v, want %+v", what, at, g, w)
		}
		if w.Outcome == InGap {
			w.Outcome, w.Missing = g.Outcome, 0 // a gap is no matter of a target
		}
		if simple && g != w {
			t.Fatalf("%s offset %d: %+v, want %+v", what, at, g, w)
		}
	}
}

// What is trimmed, and what an inverse that was written in part leaves behind, goes as with all
// other writers, and takes nothing else with it.
func TestHousekeepingKeepsAnInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawLane(t)
		s := replay(h.lane, h.entries)
		l := newLane(h.lane)
		part, err := s.Inverse(InverseConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range part.Entries[:max(0, len(part.Entries)-2)] { // without epoch record and position
			l.apply(e)
		}
		inv, err := s.Inverse(InverseConfig{Other: l.state()})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range inv.Entries {
			// Chunks of few spans, so that there are some below a trim.
			switch e := e.(type) {
			case Spans:
				for runs := range slices.Chunk(e.Runs, 2) {
					e.Runs = runs
					l.apply(e)
				}
			case Shifts:
				for runs := range slices.Chunk(e.Runs, 2) {
					e.Runs = runs
					l.apply(e)
				}
			default:
				l.apply(e)
			}
		}
		for i := range int16(3) { // nothing is copied for a while
			l.apply(EpochRecord{Lane: h.lane, Writer: Writer{5, i}, Ordinal: inv.Next.Ordinal, Source: inv.Next.Source + 10, Target: inv.Next.Target + 5 + int64(i)})
		}
		before := l.state()
		start := rapid.Int64Range(0, inv.Next.Source+10).Draw(t, "log start of the source")
		keep := rapid.Int64Range(0, 100).Draw(t, "newest to keep")
		for round := 0; ; round++ {
			write, remove := l.compactedBut(start, keep)
			if len(write)+len(remove) == 0 {
				break
			}
			if round == 20 {
				t.Fatalf("never comes to an end: %v, %v", write, remove)
			}
			for _, e := range append(write, remove...) {
				l.apply(e)
			}
		}
		after := l.state()
		if err := after.Err(); err != nil {
			t.Fatal(err)
		}
		for w, f := range l.writers {
			if f.epoch == nil {
				t.Fatalf("writer %v has no epoch record and %d chunks", w, len(f.chunks)+len(f.targets.chunks))
			}
			if n := f.chunksBelow(f.trimmed()); n > 0 {
				t.Fatalf("writer %v still has %d chunks below its trim", w, n)
			}
		}
		for y := range inv.Next.Source + 20 {
			if got, want := after.Translate(y), before.Translate(y); got != want && (y >= start || got.Outcome != Before || got.To > want.To) {
				t.Fatalf("source offset %d, log start %d: %+v, was %+v", y, start, got, want)
			}
		}
	})
}

// A compacted source has a hole before nearly every record, and they are the shifts of its inverse.
func TestTheInverseOfAMillionSpansIsSmallAndQuick(t *testing.T) {
	const sources = 3_000_000
	l, p := busyLane(sources)
	for i := range int64(1000) {
		l.apply(Shift{Lane: l.name, Writer: p.Writer, Ordinal: (i + 1) * 1000, Target: (i+1)*1000 + 3*(i+1)})
	}
	p.Target += 3 * 1000
	l.apply(p)
	s := l.state()
	begun := time.Now()
	inv, err := s.Inverse(InverseConfig{Time: someTime})
	if err != nil {
		t.Fatal(err)
	}
	inverted := time.Since(begun)
	var bytes int
	o := newLane(l.name)
	for _, e := range inv.Entries {
		key, value := EncodeEntry(e)
		bytes += len(key) + len(value)
		if len(value) > 64<<10 {
			t.Fatalf("an entry of %d bytes", len(value))
		}
		o.apply(e)
		o.state()
	}
	other := o.state()
	t.Logf("%d records, %d entries, %d bytes in the journal, %d in memory (the lane itself %d): inverted in %v, read in %v",
		inv.Records, len(inv.Entries), bytes, other.mapBytes(), s.mapBytes(), inverted, time.Since(begun)-inverted)
	if inv.Records != p.Ordinal {
		t.Errorf("%d records, want %d", inv.Records, p.Ordinal)
	}
	if other.mapBytes() > 2*s.mapBytes()+100_000 {
		t.Errorf("%d bytes in memory", other.mapBytes())
	}
	for y := int64(0); y < p.Target; y += 997 {
		got, want := other.Translate(y), s.TranslateBack(y)
		if got != want {
			t.Fatalf("target offset %d: %+v, want %+v", y, got, want)
		}
		if got.Outcome == Exact && other.TranslateBack(got.To) != s.Translate(got.To) {
			t.Fatalf("source offset %d: %+v, want %+v", got.To, other.TranslateBack(got.To), s.Translate(got.To))
		}
	}
}

// Whatever facts a journal holds, an inverse of them is one that a journal takes and that does not
// contradict itself.
func FuzzInverse(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		h := drawLane(t)
		s := replay(h.lane, drawTrims(t, h))
		end := s.view().end()
		inv, err := s.Inverse(InverseConfig{
			From: rapid.Int64Range(0, end.Target+3).Draw(t, "from"), To: rapid.Int64Range(0, end.Target+3).Draw(t, "to"),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range inv.Entries {
			if why := check(e); why != "" {
				t.Fatalf("%T: %s", e, why)
			}
		}
		o := replay(h.lane, inv.Entries)
		if err := o.Err(); err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		for r := range o.Runs() {
			n += r.Records
			for i := range r.Records {
				if p, ok := s.SourceOf(r.Source + i); !ok || p.Target != r.Source+i || p.Source != r.Target+i {
					t.Fatalf("target offset %d is source offset %d by the inverse, %v by the lane", r.Source+i, r.Target+i, p)
				}
			}
		}
		if n != inv.Records {
			t.Fatalf("%d records, %d were said", n, inv.Records)
		}
	}))
}

func TestAnInverseIsRefusedWhereItWouldGoBehindOthers(t *testing.T) {
	w := Writer{7, 1}
	s := StateOf(EpochRecord{Lane: someLane, Writer: w, Source: 50, Target: 10},
		Position{Lane: someLane, Writer: w, Ordinal: 5, Source: 55, Target: 15})
	other := StateOf(EpochRecord{Lane: someLane, Writer: Writer{9, 3}, Ordinal: 20, Source: 8, Target: 52})
	if _, err := s.Inverse(InverseConfig{Other: other}); err == nil {
		t.Error("records that stand before the end of the other lane were taken for new ones")
	}
}

func TestStrandedOffsetsAreAGap(t *testing.T) {
	w := Writer{7, 1}
	facts := []Entry{EpochRecord{Lane: someLane, Writer: w, Target: 1},
		Position{Lane: someLane, Writer: w, Ordinal: 5, Source: 5, Target: 6},
		EpochRecord{Lane: someLane, Writer: Writer{7, 2}, Ordinal: 5, Source: 5, Target: 7}}
	more, err := StateOf(facts...).Strand(12, "replayed", someTime)
	if err != nil {
		t.Fatal(err)
	}
	s := StateOf(append(facts, more...)...)
	for x := int64(5); x < 12; x++ {
		if got, want := s.Translate(x), (Translation{From: x, To: 7, Outcome: InGap, Missing: 12 - x}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if got := s.Translate(12); got.Outcome != End {
		t.Errorf("behind them: %+v", got)
	}
	if g := s.Gaps()[0]; g.Reason != "stranded: replayed" {
		t.Errorf("reason %q", g.Reason)
	}
	// The same of the opening that goes on behind them.
	next := Writer{7, 3}
	s = StateOf(append(facts, EpochRecord{Lane: someLane, Writer: next, Ordinal: 5, Source: 14, Target: 20},
		Gap{Lane: someLane, Writer: next, From: 5, To: 12, Reason: "stranded: exported"})...)
	for x := int64(5); x < 14; x++ {
		want := Translation{From: x, To: 20, Outcome: InGap, Missing: 12 - x}
		if x >= 12 {
			want.Outcome, want.Missing = End, 0
		}
		if got := s.Translate(x); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	s = StateOf(append(facts, more...)...)
	if again, err := s.Strand(12, "replayed", someTime); err != nil || len(again) > 0 {
		t.Errorf("again: %v %v", again, err)
	}
}

func TestAnInverseIsKeptByTheJournal(t *testing.T) {
	l, p := busyLane(200_000)
	inv, err := l.state().Inverse(InverseConfig{Time: someTime, Instance: "switchover 1"})
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeCluster(t)
	defer f.close()
	j := f.open()
	defer j.Close()
	write(t, j, inv.Entries...)
	if err := j.Sync(t.Context(), []Lane{l.name}); err != nil { // the position shows when it is read
		t.Fatal(err)
	}
	before := j.State(l.name)
	again := f.open()
	defer again.Close()
	for y := int64(0); y < p.Target; y += 501 {
		want := l.state().TranslateBack(y)
		if got := before.Translate(y); got != want {
			t.Fatalf("target offset %d, as it was written: %+v, want %+v", y, got, want)
		}
		if got := again.State(l.name).Translate(y); got != want {
			t.Fatalf("target offset %d, read back: %+v, want %+v", y, got, want)
		}
	}
}
