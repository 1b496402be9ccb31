package offsets

import "iter"

// Run is a stretch of records whose source and target offsets both grow by one from record to
// record: Point is the first of Records.
type Run struct {
	Point
	Records int64
}

// Runs yields the runs of a lane up to its position, in the order of their records. It is the
// whole map, for people and tools: a compacted topic has one for nearly every record.
func (s LaneState) Runs() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		if len(s.Epochs()) == 0 || s.Err() != nil {
			return
		}
		end := s.view().end().Ordinal
		p, ok := s.SourceOf(0)
		for ok && p.Ordinal < end {
			n := s.run(p, end)
			if !yield(Run{Point: p, Records: n}) {
				return
			}
			p, ok = s.At(p.Ordinal + n)
		}
	}
}

// run returns how many records from p on, and before the ordinal end, belong to its run. Offsets
// of both sides grow at least by one from record to record of one opening, so the end is found by
// trying ever larger steps and then halving.
func (s LaneState) run(p Point, end int64) int64 {
	joined := func(n int64) bool {
		if p.Ordinal+n >= end {
			return false
		}
		q, ok := s.At(p.Ordinal + n)
		return ok && q.Source == p.Source+n && q.Target == p.Target+n
	}
	in, out := int64(0), int64(1)
	for joined(out) {
		in, out = out, 2*out
	}
	for out-in > 1 {
		if mid := in + (out-in)/2; joined(mid) {
			in = mid
		} else {
			out = mid
		}
	}
	return out
}
