package verify

import "replicator/pkg/offsets"

// places looks up the offset map of one lane, up to its position.
type places struct {
	state offsets.LaneState
	end   offsets.Point // next: where the lane's records end
	run   run           // the last run found: most lookups follow one another
}

// run are source offsets [from, to) whose records stand at the offset plus shift on the target.
type run struct{ from, to, shift int64 }

// endOf is how far a lane has come; false if it was never opened.
func endOf(s offsets.LaneState) (offsets.Point, bool) {
	if p, ok := s.Position(); ok {
		return offsets.Point{Ordinal: p.Ordinal, Source: p.Source, Target: p.Target}, true
	}
	e, ok := s.Last()
	return offsets.Point{Ordinal: e.Ordinal, Source: e.Source, Target: e.Target}, ok
}

// target returns the place of a source record; false if the map has none.
func (p *places) target(source int64) (int64, bool) {
	if source >= p.run.from && source < p.run.to {
		return source + p.run.shift, true
	}
	at, ok := p.state.TargetOf(source)
	return at.Target, ok && at.Source == source && at.Ordinal < p.end.Ordinal
}

// source returns the source offset of a target record; false if the record is not the link's.
func (p *places) source(target int64) (int64, bool) {
	if source := target - p.run.shift; source >= p.run.from && source < p.run.to {
		return source, true
	}
	at, ok := p.state.SourceOf(target)
	return at.Source, ok && at.Target == target && at.Ordinal < p.end.Ordinal
}

// follow remembers whether the source offsets [from, to) are one run: then their target offset is
// that of the first one, counted on. Between two records of one run there is room for no other.
func (p *places) follow(from, to int64) (target int64, ok bool) {
	if from >= p.run.from && to <= p.run.to {
		return from + p.run.shift, true
	}
	first, ok := p.state.TargetOf(from)
	if !ok || first.Source != from {
		return 0, false
	}
	last, ok := p.state.TargetOf(to - 1)
	if !ok || last.Source != to-1 || last.Ordinal >= p.end.Ordinal ||
		last.Ordinal-first.Ordinal != to-1-from || last.Target-first.Target != to-1-from {
		return 0, false
	}
	p.run = run{from, to, first.Target - from}
	return first.Target, true
}

// lower is the target offset at which what belongs to source offsets from the given one on begins:
// behind the record before it, so that what others wrote between two records is looked at, too.
func (p *places) lower(source int64) int64 {
	at, ok := p.state.TargetOf(source)
	if !ok || at.Ordinal >= p.end.Ordinal {
		at = p.end
	}
	if before, ok := p.state.At(at.Ordinal - 1); ok {
		return before.Target + 1
	}
	return at.Target
}

// inGap reports whether the link has recorded that the source offset will not be copied.
func (p *places) inGap(source int64) bool {
	for _, g := range p.state.Gaps() {
		if g.From <= source && source < g.To {
			return true
		}
	}
	return false
}

// ours reports whether the writer is one of the link's.
func (p *places) ours(w offsets.Writer) bool {
	for _, e := range p.state.Epochs() {
		if e.Writer == w {
			return true
		}
	}
	return false
}
