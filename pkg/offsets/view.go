package offsets

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// view is what the facts say, worked out. It is immutable once built.
type view struct {
	lane       Lane
	epochs     []EpochRecord // that count, by Target
	segments   []segment     // those that can hold records, by ordinal and by target
	bySource   []visible     // those whose source offsets no later epoch took back, by source
	ends       []int64       // of epochs: ordinal, next, up to which the writer's entries count
	position   *Position     // of the newest epoch
	gaps       []Gap         // by From
	cuts       []Cut         // that count, by Target of the epoch records they came with
	generation int32
	maxEpochs  map[int64]int16
	err        error
}

// segment is what one writer appended.
type segment struct {
	ordinal, end   int64 // [ordinal, end)
	source, target int64 // of the record with that first ordinal
	spans          spanMap
	shifts         []Shift
}

// visible is the part of a segment's source offsets that still means its records.
type visible struct {
	source, end int64 // [source, end)
	segment     int
}

const never = math.MaxInt64

func (l *lane) state() LaneState {
	if l.view == nil {
		l.view = l.build()
	}
	return LaneState{v: l.view}
}

func (l *lane) build() *view {
	v := &view{lane: l.name, maxEpochs: l.maxEpochs()}
	for n := range l.generations {
		v.generation = max(v.generation, n)
	}
	v.epochs = l.epochs()
	for _, e := range v.epochs {
		v.generation = max(v.generation, e.Generation)
		for _, c := range l.cuts {
			if c.Writer == e.Writer {
				v.cuts = append(v.cuts, c)
			}
		}
	}
	for _, g := range l.gaps {
		if w := l.writers[g.Writer]; w != nil && w.epoch != nil {
			v.gaps = append(v.gaps, g)
		}
	}
	slices.SortFunc(v.gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), compareWriters(a.Writer, b.Writer))
	})
	v.position = l.newestPosition(v)

	// From the newest to the oldest: a later epoch's word on ordinals and source offsets counts.
	end, sourceEnd := int64(never), int64(never)
	v.ends = make([]int64, len(v.epochs))
	for i := len(v.epochs) - 1; i >= 0; i-- {
		e, w := v.epochs[i], l.writers[v.epochs[i].Writer]
		v.ends[i] = end
		if e.Ordinal < end {
			s := segment{ordinal: e.Ordinal, end: end, source: e.Source, target: e.Target, spans: w.spans, shifts: w.shifts}
			v.segments = append(v.segments, s)
			if err := cmp.Or(w.err, s.check()); err != nil && v.err == nil {
				v.err = fmt.Errorf("read offset map of %v: writer %v: %w", l.name, e.Writer, err)
			}
			if e.Source < sourceEnd {
				v.bySource = append(v.bySource, visible{source: e.Source, end: sourceEnd, segment: len(v.segments) - 1})
			}
		}
		end, sourceEnd = min(end, e.Ordinal), min(sourceEnd, e.Source)
	}
	slices.Reverse(v.segments)
	slices.Reverse(v.bySource)
	for i := range v.bySource {
		v.bySource[i].segment = len(v.segments) - 1 - v.bySource[i].segment
	}
	return v
}

// epochs returns the epoch records that count, by Target. One does not count when its control
// record is gone with the target's tail: a cut names it, or the same producer id has a higher
// epoch at the same place or before it, which the coordinator can only have handed out later.
func (l *lane) epochs() []EpochRecord {
	var all []EpochRecord
	for _, w := range l.writers {
		if w.epoch != nil {
			all = append(all, *w.epoch)
		}
	}
	lost := func(e EpochRecord) bool {
		for _, later := range all {
			if later.ProducerID == e.ProducerID && later.Epoch > e.Epoch && later.Target <= e.Target {
				return true
			}
		}
		for _, c := range l.cuts {
			by := l.writers[c.Writer]
			if by != nil && by.epoch != nil && e.Target > c.Target && slices.Contains(c.Lost, e.Writer) {
				return true
			}
		}
		return false
	}
	var counting []EpochRecord
	for _, e := range all {
		if !lost(e) {
			counting = append(counting, e)
		}
	}
	slices.SortFunc(counting, func(a, b EpochRecord) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), compareWriters(a.Writer, b.Writer))
	})
	return counting
}

func compareWriters(a, b Writer) int {
	return cmp.Or(cmp.Compare(a.ProducerID, b.ProducerID), cmp.Compare(a.Epoch, b.Epoch))
}

func (l *lane) newestPosition(v *view) *Position {
	if len(v.epochs) == 0 {
		return nil
	}
	return l.writers[v.epochs[len(v.epochs)-1].Writer].position
}

// check finds spans and shifts that cannot be true of this segment.
func (s *segment) check() error {
	if !s.spans.empty() {
		ordinal, source := s.spans.start(0)
		if ordinal < s.ordinal || source-s.source < ordinal-s.ordinal {
			return fmt.Errorf("span at ordinal %d, source offset %d contradicts its epoch, which begins at ordinal %d, source offset %d",
				ordinal, source, s.ordinal, s.source)
		}
	}
	ordinal, target := s.ordinal, s.target
	for _, sh := range s.shifts {
		if sh.Ordinal < ordinal || sh.Target-target < sh.Ordinal-ordinal {
			return fmt.Errorf("shift at ordinal %d, target offset %d contradicts ordinal %d, target offset %d",
				sh.Ordinal, sh.Target, ordinal, target)
		}
		ordinal, target = sh.Ordinal, sh.Target
	}
	return nil
}

// sourceAt returns the source offset of a record of the segment.
func (s *segment) sourceAt(ordinal int64) int64 {
	if source, ok := s.spans.source(ordinal); ok {
		return source
	}
	return s.source + ordinal - s.ordinal
}

// targetAt returns the target offset of a record of the segment.
func (s *segment) targetAt(ordinal int64) int64 {
	for _, v := range slices.Backward(s.shifts) {
		if sh := v; sh.Ordinal <= ordinal {
			return sh.Target + ordinal - sh.Ordinal
		}
	}
	return s.target + ordinal - s.ordinal
}

func (s *segment) point(ordinal int64) Point {
	return Point{Ordinal: ordinal, Source: s.sourceAt(ordinal), Target: s.targetAt(ordinal)}
}

// ceilSource returns the ordinal and source offset of the first record at or above a source
// offset; the ordinal is end or more when the segment has none.
func (s *segment) ceilSource(source int64) (ordinal, at int64) {
	source = max(source, s.source)
	if !s.spans.empty() {
		if first, _ := s.spans.start(0); source-s.source >= first-s.ordinal {
			return s.spans.ceil(source)
		}
	}
	return s.ordinal + source - s.source, source
}

// ceilTarget returns the ordinal of the first record at or above a target offset.
func (s *segment) ceilTarget(target int64) int64 {
	ordinal, start := s.ordinal, s.target
	for _, sh := range s.shifts {
		if target < sh.Target {
			return min(ordinal+max(target-start, 0), sh.Ordinal)
		}
		ordinal, start = sh.Ordinal, sh.Target
	}
	return ordinal + max(target-start, 0)
}

func (v *view) at(ordinal int64) (Point, bool) {
	i := sort.Search(len(v.segments), func(i int) bool { return v.segments[i].ordinal > ordinal }) - 1
	if i < 0 || ordinal >= v.segments[i].end {
		return Point{}, false
	}
	return v.segments[i].point(ordinal), true
}

func (v *view) targetOf(source int64) (Point, bool) {
	i := sort.Search(len(v.bySource), func(i int) bool { return v.bySource[i].source > source }) - 1
	for i = max(i, 0); i < len(v.bySource); i++ {
		seg := &v.segments[v.bySource[i].segment]
		ordinal, at := seg.ceilSource(source)
		if ordinal < seg.end && at < v.bySource[i].end {
			return Point{Ordinal: ordinal, Source: at, Target: seg.targetAt(ordinal)}, true
		}
	}
	return Point{}, false
}

func (v *view) sourceOf(target int64) (Point, bool) {
	i := sort.Search(len(v.segments), func(i int) bool { return v.segments[i].target > target }) - 1
	for i = max(i, 0); i < len(v.segments); i++ {
		seg := &v.segments[i]
		if ordinal := seg.ceilTarget(target); ordinal < seg.end {
			return seg.point(ordinal), true
		}
	}
	return Point{}, false
}

func (v *view) resolve(w Writer, seq int64) (ordinal, source int64, ok bool) {
	for i := len(v.epochs) - 1; i >= 0 && seq >= 0; i-- {
		e := v.epochs[i]
		if e.Writer != w {
			continue
		}
		ordinal = e.Ordinal + seq
		if ordinal > v.ends[i] || ordinal < e.Ordinal {
			return 0, 0, false
		}
		p, ok := v.at(ordinal)
		return ordinal, p.Source, ok
	}
	return 0, 0, false
}
