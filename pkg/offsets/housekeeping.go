package offsets

import (
	"cmp"
	"slices"
)

const (
	mergeChunks = 32   // as many adjacent chunks make a merge worth while
	mergeSpans  = 4096 // a merged chunk holds about so many spans at most
	keepEpochs  = 8    // newest epochs that are never trimmed
	trimChunks  = 8    // so many chunks below the source's log start are worth a trim

	// keepOrdinals newest records of a lane are never trimmed: the target may lose its tail, and
	// openings resolve what is left of it.
	keepOrdinals = 1_000_000
)

// compacted returns the entries that say the same in fewer records, and the keys that are then
// no longer needed.
func (l *lane) compacted(sourceStart int64) (write, remove []Entry) {
	return l.compactedBut(sourceStart, keepOrdinals)
}

// compactedBut is compacted with another number of ordinals to keep.
func (l *lane) compactedBut(sourceStart, keep int64) (write, remove []Entry) {
	v := l.state().view()
	if len(v.epochs) == 0 || v.err != nil {
		return nil, nil
	}
	newest := v.epochs[len(v.epochs)-1]
	counts, newestInverse := map[Writer]bool{}, int16(-1)
	for _, e := range v.epochs {
		counts[e.Writer] = true
		if e.Inverse() {
			newestInverse = max(newestInverse, e.Epoch)
		}
	}
	// Writers lost with the target's tail go first and alone: what says that they are lost is
	// removed in a later round, when they are surely gone.
	var lost []Writer
	for _, w := range l.writerNames() {
		if l.writers[w].epoch != nil && !counts[w] {
			lost = append(lost, w)
		}
	}
	for _, w := range lost {
		if !slices.ContainsFunc(lost, func(x Writer) bool { return l.saysLost(w, x) }) {
			remove = append(remove, l.allOf(w)...)
		}
	}
	if len(lost) > 0 {
		return nil, remove
	}
	trimmed := map[Writer]bool{}
	for _, e := range v.epochs[:v.trimmable(sourceStart)] {
		trimmed[e.Writer] = true
	}
	trims := v.trims(sourceStart, keep)
	for _, w := range l.writerNames() {
		f := l.writers[w]
		switch {
		case trimmed[w], f.epoch == nil && w.ProducerID == newest.ProducerID && w.Epoch < newest.Epoch,
			f.epoch == nil && w.Inverse() && w.Epoch < newestInverse:
			// The second kind is what a trim that was cut short has left, or a fenced writer
			// that never came to its epoch record; the third an inverse that was written in part
			// and then anew.
			remove = append(remove, l.allOf(w)...)
			continue
		case f.epoch != nil && f.position != nil && v.position != nil && w != newest.Writer:
			remove = append(remove, Deletion{Of: f.position.Key()})
		}
		if f.epoch != nil && f.err == nil {
			below := f.trimmed()
			if t, ok := trims[w]; ok && f.chunksBelow(t.Ordinal) >= trimChunks {
				below, write = t.Ordinal, append(write, t)
			}
			remove = append(remove, l.useless(w, below)...)
			merged, gone := l.mergeable(w, below)
			write, remove = append(write, merged...), append(remove, gone...)
		}
	}
	return write, remove
}

// trimmable returns how many of the oldest epochs lie wholly below the source's log start. The
// lane's last record must keep its epoch, because an opening resolves it, and so must the newest
// few, because the target may lose its tail.
func (v *view) trimmable(sourceStart int64) int {
	newest := v.epochs[len(v.epochs)-1]
	end := newest.Ordinal
	if v.position != nil {
		end = max(end, v.position.Ordinal)
	}
	n := 0
	for n+keepEpochs < len(v.epochs) {
		next := v.epochs[n+1]
		if next.Source > sourceStart || next.Ordinal >= end || next.SourceTopicID != newest.SourceTopicID {
			break
		}
		n++
	}
	return n
}

// trims returns how far the map of each writer may go below the source's log start, leaving the
// lane's newest records and every writer's last one.
func (v *view) trims(sourceStart, keep int64) map[Writer]Trim {
	trims := map[Writer]Trim{}
	newest := v.epochs[len(v.epochs)-1]
	for i := range v.segments {
		seg := &v.segments[i]
		e := v.epochs[seg.epoch]
		if e.SourceTopicID != newest.SourceTopicID || sourceStart <= seg.base.Source {
			continue
		}
		ordinal, at := seg.ceilSource(sourceStart)
		if at > sourceStart {
			ordinal-- // so that the offsets before it, which hold no record, are still known
		}
		ordinal = min(ordinal, seg.end-1, v.end().Ordinal-keep)
		if ordinal > seg.base.Ordinal {
			p := seg.point(ordinal)
			trims[e.Writer] = Trim{Lane: v.lane, Writer: e.Writer, Ordinal: p.Ordinal, Source: p.Source, Target: p.Target}
		}
	}
	return trims
}

// chunksBelow counts the chunks that say nothing of the ordinal and those above.
func (f *writer) chunksBelow(ordinal int64) int {
	n := 0
	for _, chunks := range [][]chunk{f.chunks, f.targets.chunks} {
		for _, c := range chunks {
			if c.last < ordinal {
				n++
			}
		}
	}
	return n
}

// useless removes what a trim at the ordinal below makes useless.
func (l *lane) useless(w Writer, below int64) (gone []Entry) {
	f := l.writers[w]
	for _, c := range f.chunks {
		if c.last < below {
			gone = append(gone, Deletion{Of: l.chunkKey(w, c)})
		}
	}
	for _, c := range f.targets.chunks {
		if c.last < below {
			gone = append(gone, Deletion{Of: l.shiftsKey(w, c)})
		}
	}
	for _, s := range f.shifts {
		if s.Ordinal <= below && below > 0 {
			gone = append(gone, Deletion{Of: s.Key()})
		}
	}
	for _, t := range f.trims {
		if t.Ordinal < below {
			gone = append(gone, Deletion{Of: t.Key()})
		}
	}
	return gone
}

// saysLost tells whether what writer w left is why writer x does not count.
func (l *lane) saysLost(w, x Writer) bool {
	if w.ProducerID == x.ProducerID && w.Epoch > x.Epoch {
		return true
	}
	for k, c := range l.cuts {
		if k.Writer == w && slices.Contains(c.Lost, x) {
			return true
		}
	}
	return false
}

func (l *lane) writerNames() []Writer {
	names := make([]Writer, 0, len(l.writers))
	for w := range l.writers {
		names = append(names, w)
	}
	slices.SortFunc(names, compareWriters)
	return names
}

// allOf removes all a writer said, its epoch record first: without it the rest counts for nothing.
func (l *lane) allOf(w Writer) []Entry {
	var gone []Entry
	f := l.writers[w]
	if f.epoch != nil {
		gone = append(gone, Deletion{Of: f.epoch.Key()})
	}
	if f.position != nil {
		gone = append(gone, Deletion{Of: f.position.Key()})
	}
	for _, s := range f.shifts {
		gone = append(gone, Deletion{Of: s.Key()})
	}
	for _, c := range f.chunks {
		gone = append(gone, Deletion{Of: l.chunkKey(w, c)})
	}
	for _, c := range f.targets.chunks {
		gone = append(gone, Deletion{Of: l.shiftsKey(w, c)})
	}
	for _, t := range f.trims {
		gone = append(gone, Deletion{Of: t.Key()})
	}
	for _, k := range sortedKeys(l.gaps) {
		if k.Writer == w {
			gone = append(gone, Deletion{Of: k})
		}
	}
	for _, k := range sortedKeys(l.cuts) {
		if k.Writer == w {
			gone = append(gone, Deletion{Of: k})
		}
	}
	return gone
}

func sortedKeys[E Entry](facts map[Key]E) []Key {
	keys := make([]Key, 0, len(facts))
	for k := range facts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(compareWriters(a.Writer, b.Writer), cmp.Compare(a.First, b.First))
	})
	return keys
}

func (l *lane) chunkKey(w Writer, c chunk) Key {
	k := Key{Kind: KindSpans, Lane: l.name, Writer: w, First: c.first}
	if c.merged {
		k.Kind, k.Last = KindMerged, c.last
	}
	return k
}

func (l *lane) shiftsKey(w Writer, c chunk) Key {
	return Key{Kind: KindShifts, Lane: l.name, Writer: w, First: c.first}
}

// mergeable merges runs of small adjacent chunks of a writer. What a chunk holds is fixed by its
// writer and its first and last ordinal, so two daemons that merge at once write the same. Those
// that lie below an ordinal wholly are left alone.
func (l *lane) mergeable(w Writer, below int64) (write, remove []Entry) {
	f := l.writers[w]
	var group []chunk
	var runs []Span
	flush := func() {
		if len(group) >= mergeChunks {
			m := Spans{Lane: l.name, Writer: w, Runs: runs, Merged: true}
			write = append(write, m)
			for _, c := range group {
				remove = append(remove, Deletion{Of: l.chunkKey(w, c)})
			}
		}
		group, runs = nil, nil
	}
	covered := int64(-1) // the last ordinal that the chunks so far hold
	for _, c := range f.chunks {
		if c.last < below {
			continue
		}
		if c.merged {
			covered = max(covered, c.last)
			flush()
			continue
		}
		if f.heldByMerged(c) {
			remove = append(remove, Deletion{Of: l.chunkKey(w, c)}) // a merge that was cut short
			continue
		}
		var own []Span
		f.spans.each(c.first, c.last, func(s Span) { own = append(own, s) })
		whole := len(own) > 0 && c.first >= below && own[0].Ordinal == c.first && own[len(own)-1].Ordinal == c.last
		if !whole || c.first <= covered || len(own) >= mergeSpans/2 {
			flush()
			continue
		}
		covered = max(covered, c.last)
		group, runs = append(group, c), append(runs, own...)
		if len(runs) >= mergeSpans {
			flush()
		}
	}
	flush()
	return write, remove
}

func (f *writer) heldByMerged(c chunk) bool {
	return slices.ContainsFunc(f.chunks, func(m chunk) bool { return m.merged && m.first <= c.first && c.last <= m.last })
}
