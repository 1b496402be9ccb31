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
	sources side
	targets side    // of an inverse only
	shifts  []Shift // at or above base, by ordinal; of all others
}

// side is where the records of a segment lie on one of the two sides, beyond its base.
type side struct {
	spans   spanMap
	from    Span // the first span at or above base, if some is
	spanned bool
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
	var below []lost // gaps of later epochs that lie below where these begin: as of stranded records
	v.ends = make([]int64, len(v.epochs))
	for i := len(v.epochs) - 1; i >= 0; i-- {
		e, w := v.epochs[i], l.writers[v.epochs[i].Writer]
		v.ends[i] = end
		if e.Ordinal < end {
			s := w.segment(i, end, sourceEnd)
			v.segments = append(v.segments, s)
			if err := cmp.Or(w.err, w.targets.err, s.check(e)); err != nil && v.err == nil {
				v.err = fmt.Errorf("read offset map of %v: writer %v: %w", l.name, e.Writer, err)
			}
		}
		if e.Source < sourceEnd {
			v.bySource = append(v.bySource, visible{source: e.Source, epoch: i, segment: len(v.segments) - 1, gaps: v.lostBy(e.Writer, below)})
		}
		end, sourceEnd = min(end, e.Ordinal), min(sourceEnd, e.Source)
		for _, g := range v.gaps {
			if g.Writer == e.Writer && g.From < e.Source {
				below = append(below, lost{g.From, min(g.To, e.Source)})
			}
		}
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
		base:   Point{w.epoch.Ordinal, w.epoch.Source, w.epoch.Target},
		shifts: w.shifts,
	}
	if n := len(w.trims); n > 0 {
		t := w.trims[n-1]
		s.base, s.trimmed = Point{t.Ordinal, t.Source, t.Target}, true
		i := sort.Search(len(s.shifts), func(i int) bool { return s.shifts[i].Ordinal > t.Ordinal })
		s.shifts = s.shifts[i:]
	}
	s.sources, s.targets = w.spans.side(s.base.Ordinal, s.trimmed), w.targets.spans.side(s.base.Ordinal, s.trimmed)
	return s
}

// side is the map as a segment uses it whose base has the given ordinal.
func (m *spanMap) side(base int64, trimmed bool) side {
	s := side{spans: *m}
	switch {
	case m.empty():
	case trimmed:
		s.from, s.spanned = m.firstFrom(base)
	default:
		s.spanned = true
		s.from.Ordinal, s.from.Source = m.start(0)
	}
	return s
}

// lostBy returns the gaps of a writer, and those given, by source offset; those that touch are one.
func (v *view) lostBy(w Writer, more []lost) []lost {
	all := slices.Clone(more)
	for _, g := range v.gaps {
		if g.Writer == w {
			all = append(all, lost{g.From, g.To})
		}
	}
	slices.SortFunc(all, func(a, b lost) int { return cmp.Compare(a.from, b.from) })
	joined := all[:0]
	for _, g := range all {
		if n := len(joined); n > 0 && g.from <= joined[n-1].to {
			joined[n-1].to = max(joined[n-1].to, g.to)
			continue
		}
		joined = append(joined, g)
	}
	return joined
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
		return cmp.Or(cmp.Compare(a.Target, b.Target), compareBools(a.Inverse(), b.Inverse()), compareWriters(a.Writer, b.Writer))
	})
	return counting
}

// compareBools puts false first. An inverse comes after the opening that closed the lane, also
// where the first record it stands for follows that opening's control record at once.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// begin is the first target offset that belongs to the epoch.
func (e EpochRecord) begin() int64 {
	if e.Inverse() {
		return e.Target
	}
	return e.Target - 1 // its control record
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
	if from := s.sources.from; !s.sources.follows(s.sourceBase()) {
		return fmt.Errorf("span at ordinal %d, source offset %d contradicts its epoch or trim, which begins at ordinal %d, source offset %d",
			from.Ordinal, from.Source, s.base.Ordinal, s.base.Source)
	}
	if from := s.targets.from; !s.targets.follows(s.targetBase()) {
		return fmt.Errorf("shift at ordinal %d, target offset %d contradicts its epoch or trim, which begins at ordinal %d, target offset %d",
			from.Ordinal, from.Source, s.base.Ordinal, s.base.Target)
	}
	if s.targets.spanned && len(s.shifts) > 0 {
		return fmt.Errorf("shift at ordinal %d stands alone beside those of an inverse", s.shifts[0].Ordinal)
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
	return s.sources.at(s.sourceBase(), ordinal)
}

func (s *segment) sourceBase() Span { return Span{s.base.Ordinal, s.base.Source} }
func (s *segment) targetBase() Span { return Span{s.base.Ordinal, s.base.Target} }

// follows tells whether the first span can come after the base.
func (s *side) follows(base Span) bool {
	return !s.spanned || s.from.Ordinal >= base.Ordinal && s.from.Source-base.Source >= s.from.Ordinal-base.Ordinal
}

// at returns the offset of a record, not below base.
func (s *side) at(base Span, ordinal int64) int64 {
	if s.spanned && ordinal >= s.from.Ordinal {
		offset, _ := s.spans.source(ordinal)
		return offset
	}
	return base.Source + ordinal - base.Ordinal
}

// ceil returns the ordinal and the offset of the first record at or above an offset, not below base.
func (s *side) ceil(base Span, offset int64) (ordinal, at int64) {
	offset = max(offset, base.Source)
	if s.spanned {
		if offset >= s.from.Source {
			return s.spans.ceil(offset)
		}
		if offset-base.Source >= s.from.Ordinal-base.Ordinal {
			return s.from.Ordinal, s.from.Source
		}
	}
	return base.Ordinal + offset - base.Source, offset
}

// targetAt returns the target offset of a record of the segment, not below base.
func (s *segment) targetAt(ordinal int64) int64 {
	if s.targets.spanned {
		return s.targets.at(s.targetBase(), ordinal)
	}
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
	return s.sources.ceil(s.sourceBase(), source)
}

// ceilTarget returns the ordinal of the first record at or above a target offset, not below base.
func (s *segment) ceilTarget(target int64) int64 {
	if s.targets.spanned {
		ordinal, _ := s.targets.ceil(s.targetBase(), target)
		return ordinal
	}
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
