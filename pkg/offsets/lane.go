package offsets

import (
	"cmp"
	"fmt"
	"slices"
)

// lane holds the facts known of a lane. Whatever order they came in, the same facts give the same
// state. It is not safe for concurrent use.
type lane struct {
	name        Lane
	writers     map[Writer]*writer
	gaps        map[Key]Gap
	cuts        map[Key]Cut
	generations map[int32]Generation
	view        *view // built from the facts, nil when they have changed since
}

// writer holds the facts one writer wrote.
type writer struct {
	epoch    *EpochRecord
	position *Position
	chunked          // its source offsets
	targets  chunked // its target offsets, of an inverse only
	shifts   []Shift // by ordinal, never changed in place
	trims    []Trim  // by ordinal; the last one counts
}

// chunked is a map from ordinals to the offsets of one side, and the entries it came in.
type chunked struct {
	spans  spanMap
	chunks []chunk // by first ordinal
	err    error   // its spans contradict each other
}

// chunk is one entry of spans: the ordinals of its first and last one.
type chunk struct {
	first, last int64
	merged      bool
}

func newLane(name Lane) *lane { return &lane{name: name, writers: map[Writer]*writer{}} }

func (l *lane) empty() bool {
	return len(l.writers) == 0 && len(l.gaps) == 0 && len(l.cuts) == 0 && len(l.generations) == 0
}

func (l *lane) writer(w Writer) *writer {
	f := l.writers[w]
	if f == nil {
		f = &writer{}
		l.writers[w] = f
	}
	return f
}

// apply takes in one fact, or takes one out.
func (l *lane) apply(e Entry) {
	switch e := e.(type) {
	case EpochRecord:
		l.writer(e.Writer).epoch = &e
	case Spans:
		k := e.Key()
		w := l.writer(e.Writer)
		w.add(chunk{first: k.First, last: e.Runs[len(e.Runs)-1].Ordinal, merged: e.Merged}, e.Runs, w.trimmed())
	case Shifts:
		w := l.writer(e.Writer)
		w.targets.add(chunk{first: e.Runs[0].Ordinal, last: e.Runs[len(e.Runs)-1].Ordinal}, e.spans(), w.trimmed())
	case Position:
		known := l.writers[e.Writer] != nil
		l.writer(e.Writer).position = &e
		if known && l.view != nil {
			// The only entry that comes often. It changes nothing else.
			v := *l.view
			v.position = l.newestPosition(&v)
			l.view = &v
			return
		}
	case Gap:
		if l.gaps == nil {
			l.gaps = map[Key]Gap{}
		}
		l.gaps[e.Key()] = e
	case Shift:
		w := l.writer(e.Writer)
		w.shifts = append(w.withoutShift(e.Ordinal), e)
		slices.SortFunc(w.shifts, func(a, b Shift) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	case Trim:
		l.writer(e.Writer).addTrim(e)
	case Cut:
		if l.cuts == nil {
			l.cuts = map[Key]Cut{}
		}
		l.cuts[e.Key()] = e
	case Generation:
		if l.generations == nil {
			l.generations = map[int32]Generation{}
		}
		l.generations[e.Number] = e
	case Deletion:
		l.remove(e.Of)
	}
	l.view = nil
}

func (l *lane) remove(k Key) {
	switch k.Kind {
	case KindGap:
		delete(l.gaps, k)
		return
	case KindCut:
		delete(l.cuts, k)
		return
	case KindGeneration:
		delete(l.generations, int32(k.First))
		return
	}
	w := l.writers[k.Writer]
	if w == nil {
		return
	}
	switch k.Kind {
	case KindEpoch:
		w.epoch = nil
	case KindPosition:
		w.position = nil
	case KindShift:
		w.shifts = w.withoutShift(k.First)
	case KindSpans, KindMerged:
		w.remove(k, w.trimmed())
	case KindShifts:
		w.targets.remove(k, w.trimmed())
	case KindTrim:
		w.trims = slices.DeleteFunc(w.trims, func(t Trim) bool { return t.Ordinal == k.First })
	}
	if w.epoch == nil && w.position == nil && len(w.shifts) == 0 && len(w.chunks) == 0 && len(w.targets.chunks) == 0 && len(w.trims) == 0 {
		delete(l.writers, k.Writer)
	}
}

func (w *writer) withoutShift(ordinal int64) []Shift {
	kept := make([]Shift, 0, len(w.shifts)+1)
	for _, s := range w.shifts {
		if s.Ordinal != ordinal {
			kept = append(kept, s)
		}
	}
	return kept
}

// add takes in a chunk. Nothing of it counts below the ordinal trimmed.
func (w *chunked) add(c chunk, runs []Span, trimmed int64) {
	if n := len(w.chunks); n == 0 || w.chunks[n-1].first < c.first {
		w.chunks = append(w.chunks, c)
	} else {
		w.insertChunk(c)
	}
	for len(runs) > 0 && runs[0].Ordinal < trimmed {
		runs = runs[1:]
	}
	if len(runs) == 0 {
		return
	}
	if w.spans.follows(runs[0]) {
		for _, r := range runs {
			w.spans.append(r)
		}
		return
	}
	if w.spans.holds(runs) {
		return
	}
	w.rebuild(append(w.spans.all(), runs...), trimmed)
}

// insertChunk puts a chunk that came late or twice in its place. The slice is not shared with
// snapshots.
func (w *chunked) insertChunk(c chunk) {
	at, _ := slices.BinarySearchFunc(w.chunks, c.first, func(a chunk, first int64) int { return cmp.Compare(a.first, first) })
	for i := at; i < len(w.chunks) && w.chunks[i].first == c.first; i++ {
		if have := w.chunks[i]; have.merged == c.merged && (have.last == c.last || !c.merged) {
			w.chunks[i] = c
			return
		}
	}
	w.chunks = slices.Insert(w.chunks, at, c)
}

// trimmed returns the ordinal below which nothing counts.
func (w *writer) trimmed() int64 {
	if n := len(w.trims); n > 0 {
		return w.trims[n-1].Ordinal
	}
	return 0
}

// addTrim takes in a trim. The chunks it makes useless stay listed until they are deleted; their
// spans leave the map when that is worth while, and until then nobody looks at them.
func (w *writer) addTrim(t Trim) {
	i, have := slices.BinarySearchFunc(w.trims, t.Ordinal, func(a Trim, ordinal int64) int { return cmp.Compare(a.Ordinal, ordinal) })
	if have {
		w.trims[i] = t
		return
	}
	w.trims = slices.Insert(w.trims, i, t)
	for _, m := range []*chunked{&w.chunked, &w.targets} {
		if m.err != nil {
			m.rebuild(m.spans.all(), w.trimmed())
		}
		m.spans.dropBelow(w.trimmed())
	}
}

// rebuild makes the map anew from spans in any order, some of them twice.
func (w *chunked) rebuild(spans []Span, trimmed int64) {
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Ordinal, b.Ordinal), cmp.Compare(a.Source, b.Source))
	})
	w.spans, w.err = spanMap{}, nil
	for i, s := range spans {
		if i > 0 && s == spans[i-1] || s.Ordinal < trimmed {
			continue
		}
		if !w.spans.follows(s) {
			w.err = fmt.Errorf("spans contradict each other: ordinal %d is offset %d and does not follow ordinal %d, offset %d",
				s.Ordinal, s.Source, w.spans.last().Ordinal, w.spans.last().Source)
			continue
		}
		w.spans.append(s)
	}
}

// remove takes a chunk out. Its spans stay as far as other chunks hold them, which is how
// chunks are merged: the merged one is written first, then what it holds is removed.
func (w *chunked) remove(k Key, trimmed int64) {
	at := slices.IndexFunc(w.chunks, func(c chunk) bool {
		return c.first == k.First && c.merged == (k.Kind == KindMerged) && (!c.merged || c.last == k.Last)
	})
	if at < 0 {
		return
	}
	gone := w.chunks[at]
	w.chunks = slices.Delete(w.chunks, at, at+1)
	if gone.last < trimmed {
		return // nothing of it counted
	}
	held := func(ordinal int64) bool {
		return slices.ContainsFunc(w.chunks, func(c chunk) bool { return c.first <= ordinal && ordinal <= c.last })
	}
	if slices.ContainsFunc(w.chunks, func(c chunk) bool { return c.first <= gone.first && gone.last <= c.last }) {
		return
	}
	var spans []Span
	for _, s := range w.spans.all() {
		if s.Ordinal < gone.first || s.Ordinal > gone.last || held(s.Ordinal) {
			spans = append(spans, s)
		}
	}
	w.rebuild(spans, trimmed)
}

// maxEpochs returns the highest epoch any entry shows, by producer id.
func (l *lane) maxEpochs() map[int64]int16 {
	highest := map[int64]int16{}
	note := func(w Writer) {
		if have, ok := highest[w.ProducerID]; !ok || w.Epoch > have {
			highest[w.ProducerID] = w.Epoch
		}
	}
	for w := range l.writers {
		note(w)
	}
	for k, c := range l.cuts {
		note(k.Writer)
		for _, w := range c.Lost {
			note(w)
		}
	}
	for k := range l.gaps {
		note(k.Writer)
	}
	return highest
}
