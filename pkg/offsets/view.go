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
	bySource   []visible     // those epochs whose source offsets no later one took back, by source
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
	epoch     int   // place in view.epochs
	end       int64 // next ordinal after the last
	sourceEnd int64 // where in the source the first of the later epochs began, never if none did
	// base is where the map begins: the epoch record, or what stands in for all before it that
	// was trimmed.
	base    Point
	trimmed bool // what lies between the epoch record and base is not known
	spans   spanMap
	from    Span // the first span at or above base, if some is
	spanned bool
	shifts  []Shift // at or above base, by ordinal
}

// visible is an epoch whose source offsets, from source to where the next one of the list begins,
// still mean what came of it.
type visible struct {
	source  int64
	epoch   int
	segment int // of the epoch, or else of the next one that has records
	gaps    []lost
}

// lost are source offsets [from, to) that an epoch recorded as gaps, neighbours joined.
type lost struct{ from, to int64 }

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
			s := w.segment(i, end, sourceEnd)
			v.segments = append(v.segments, s)
			if err := cmp.Or(w.err, s.check(e)); err != nil && v.err == nil {
				v.err = fmt.Errorf("read offset map of %v: writer %v: %w", l.name, e.Writer, err)
			}
		}
		if e.Source < sourceEnd {
			v.bySource = append(v.bySource, visible{source: e.Source, epoch: i, segment: len(v.segments) - 1, gaps: v.lostBy(e.Writer)})
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

// segment returns what the writer appended below the ordinal end.
func (w *writer) segment(epoch int, end, sourceEnd int64) segment {
	s := segment{
		epoch: epoch, end: end, sourceEnd: sourceEnd,
		base:  Point{w.epoch.Ordinal, w.epoch.Source, w.epoch.Target},
		spans: w.spans, shifts: w.shifts,
	}
	if n := len(w.trims); n > 0 {
		t := w.trims[n-1]
		s.base, s.trimmed = Point{t.Ordinal, t.Source, t.Target}, true
		i := sort.Search(len(s.shifts), func(i int) bool { return s.shifts[i].Ordinal > t.Ordinal })
		s.shifts = s.shifts[i:]
		s.from, s.spanned = w.spans.firstFrom(t.Ordinal)
	} else if !w.spans.empty() {
		s.spanned = true
		s.from.Ordinal, s.from.Source = w.spans.start(0)
	}
	return s
}

// lostBy returns the gaps of a writer.
func (v *view) lostBy(w Writer) []lost {
	var all []lost
	for _, g := range v.gaps {
		if g.Writer != w {
			continue
		}
		if n := len(all); n > 0 && g.From <= all[n-1].to {
			all[n-1].to = max(all[n-1].to, g.To)
			continue
		}
		all = append(all, lost{g.From, g.To})
	}
	return all
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

// check finds a trim, spans and shifts that cannot be true of this segment of the epoch.
func (s *segment) check(e EpochRecord) error {
	if n := s.base.Ordinal - e.Ordinal; n < 0 || s.base.Source-e.Source < n || s.base.Target-e.Target < n {
		return fmt.Errorf("trim at ordinal %d, source offset %d, target offset %d contradicts its epoch, which begins at ordinal %d, source offset %d, target offset %d",
			s.base.Ordinal, s.base.Source, s.base.Target, e.Ordinal, e.Source, e.Target)
	}
	if s.spanned && (s.from.Ordinal < s.base.Ordinal || s.from.Source-s.base.Source < s.from.Ordinal-s.base.Ordinal) {
		return fmt.Errorf("span at ordinal %d, source offset %d contradicts its epoch or trim, which begins at ordinal %d, source offset %d",
			s.from.Ordinal, s.from.Source, s.base.Ordinal, s.base.Source)
	}
	ordinal, target := s.base.Ordinal, s.base.Target
	for _, sh := range s.shifts {
		if sh.Ordinal < ordinal || sh.Target-target < sh.Ordinal-ordinal {
			return fmt.Errorf("shift at ordinal %d, target offset %d contradicts ordinal %d, target offset %d",
				sh.Ordinal, sh.Target, ordinal, target)
		}
		ordinal, target = sh.Ordinal, sh.Target
	}
	return nil
}

// sourceAt returns the source offset of a record of the segment, not below base.
func (s *segment) sourceAt(ordinal int64) int64 {
	if s.spanned && ordinal >= s.from.Ordinal {
		source, _ := s.spans.source(ordinal)
		return source
	}
	return s.base.Source + ordinal - s.base.Ordinal
}

// targetAt returns the target offset of a record of the segment, not below base.
func (s *segment) targetAt(ordinal int64) int64 {
	if len(s.shifts) > 0 {
		i := sort.Search(len(s.shifts), func(i int) bool { return s.shifts[i].Ordinal > ordinal }) - 1
		if i >= 0 {
			return s.shifts[i].Target + ordinal - s.shifts[i].Ordinal
		}
	}
	return s.base.Target + ordinal - s.base.Ordinal
}

func (s *segment) point(ordinal int64) Point {
	return Point{Ordinal: ordinal, Source: s.sourceAt(ordinal), Target: s.targetAt(ordinal)}
}

// ceilSource returns the ordinal and source offset of the first record at or above a source
// offset, not below base; the ordinal is end or more when the segment has none.
func (s *segment) ceilSource(source int64) (ordinal, at int64) {
	source = max(source, s.base.Source)
	if s.spanned {
		if source >= s.from.Source {
			return s.spans.ceil(source)
		}
		if source-s.base.Source >= s.from.Ordinal-s.base.Ordinal {
			return s.from.Ordinal, s.from.Source
		}
	}
	return s.base.Ordinal + source - s.base.Source, source
}

// ceilTarget returns the ordinal of the first record at or above a target offset, not below base.
func (s *segment) ceilTarget(target int64) int64 {
	// The last shift that begins at or below it.
	i := sort.Search(len(s.shifts), func(i int) bool { return s.shifts[i].Target > target })
	ordinal, start := s.base.Ordinal, s.base.Target
	if i > 0 {
		ordinal, start = s.shifts[i-1].Ordinal, s.shifts[i-1].Target
	}
	ordinal += max(target-start, 0)
	if i < len(s.shifts) {
		ordinal = min(ordinal, s.shifts[i].Ordinal)
	}
	return ordinal
}

func (v *view) at(ordinal int64) (Point, bool) {
	i := sort.Search(len(v.segments), func(i int) bool { return v.epochs[v.segments[i].epoch].Ordinal > ordinal }) - 1
	if i < 0 || ordinal >= v.segments[i].end || ordinal < v.segments[i].base.Ordinal {
		return Point{}, false
	}
	return v.segments[i].point(ordinal), true
}

// found says how a lookup ended.
type found uint8

const (
	nothing found = iota // no record there yet
	record               // the record is known
	removed              // what is asked for was trimmed; the segment says where that begins
)

// visibleAt returns the place in bySource of the newest epoch that began at or below a source
// offset: the one that says what it means. It is -1 below all of them.
func (v *view) visibleAt(source int64) int {
	lo, hi := 0, len(v.bySource)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if v.bySource[mid].source > source {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo - 1
}

// ceilSource finds the first record on the target, from the epoch that says what the source
// offset means on, that lies at or above it. Records of an earlier life of the source that stand
// behind it count: who reads on from there has not read them either.
func (v *view) ceilSource(source int64) (segment int, p Point, f found) {
	if len(v.segments) == 0 {
		return 0, Point{}, nothing
	}
	if i := v.visibleAt(source); i >= 0 {
		segment = v.bySource[i].segment
		if seg := &v.segments[segment]; seg.epoch == v.bySource[i].epoch {
			if source < seg.base.Source {
				return segment, Point{}, removed
			}
			ordinal, at := seg.ceilSource(source)
			if ordinal < seg.end {
				return segment, Point{Ordinal: ordinal, Source: at, Target: seg.targetAt(ordinal)}, record
			}
			segment++ // there is one: the last has no end
		}
	}
	return v.first(segment)
}

// first finds the first record of a segment.
func (v *view) first(segment int) (int, Point, found) {
	seg := &v.segments[segment]
	if seg.trimmed {
		return segment, Point{}, removed
	}
	return segment, seg.point(seg.base.Ordinal), record
}

// ceilTarget finds the first record at or above a target offset.
func (v *view) ceilTarget(target int64) (segment int, p Point, f found) {
	if len(v.segments) == 0 {
		return 0, Point{}, nothing
	}
	segment = sort.Search(len(v.segments), func(i int) bool { return v.epochs[v.segments[i].epoch].Target > target }) - 1
	if segment < 0 {
		return v.first(0)
	}
	seg := &v.segments[segment]
	if target < seg.base.Target {
		return segment, Point{}, removed
	}
	if ordinal := seg.ceilTarget(target); ordinal < seg.end {
		return segment, seg.point(ordinal), record
	}
	return v.first(segment + 1)
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
