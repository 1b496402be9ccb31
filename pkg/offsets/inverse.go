package offsets

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// InverseProducer is the producer id of the writers that stand for what the link of the other
// direction copied. No broker hands it out.
const InverseProducer int64 = -2

// Inverse tells whether the writer stands for what the link of the other direction copied.
func (w Writer) Inverse() bool { return w.ProducerID == InverseProducer }

// InverseConfig says what of a lane is to be inverted, and for which lane.
type InverseConfig struct {
	// From and To are target offsets, next: the records that lie in [From, To) are inverted. From is
	// what CopiedFrom says, unless the other lane's journal is lost: then 0. To 0 means all up to
	// the lane's end. The lane must be fenced, so that its end is final.
	From, To int64
	// Other is the lane of the other direction as its journal has it: never opened, or fenced.
	Other    LaneState
	Time     time.Time
	Instance string // who prepares, as in an epoch record
}

// Inverse is a lane seen from its target: the facts a link of the other direction needs.
type Inverse struct {
	// Entries are in the order in which they are to be written. The epoch records and the position
	// come last: a part without them counts for nothing. Empty only where the lane was never opened.
	Entries []Entry
	// Next is where the real opening of the other lane goes on: Ordinal is its ordinal. Source and
	// Target are where the inverse ends, so both of the opening's lie at or above them.
	Next    Point
	Records int64 // that are described
	// Known is the target offset, next, from which on all records are described: From, or where the
	// map begins that was trimmed below.
	Known int64
}

const inverseChunk = 4096 // spans in one entry

// Inverse returns the facts that describe this lane's records as those of a lane in the other
// direction: source and target change places. With them in the journal of the other direction,
// that lane translates our target offsets as TranslateBack does, and the way back as Translate
// does, but for gaps, which are no matter of a target.
//
// Records whose source offsets were taken back since (the source topic was made anew, or its log
// was cut) are gone from the source and are left out. A map that was trimmed gives an inverse that
// is trimmed at the same records.
//
// Called again, as after a run that was cut short, it gives the same facts of another writer,
// which takes the place of the one before.
func (s LaneState) Inverse(c InverseConfig) (Inverse, error) {
	fail := func(format string, args ...any) (Inverse, error) {
		return Inverse{}, fmt.Errorf("invert offset map of %v: %w", s.view().lane, fmt.Errorf(format, args...))
	}
	v, other := s.view(), c.Other.view()
	if v.err != nil {
		return fail("%w", v.err)
	}
	if other.err != nil {
		return fail("the lane of the other direction: %w", other.err)
	}
	start, opened := other.inverseStart()
	inv := Inverse{Next: start, Known: c.From}
	if len(v.epochs) == 0 {
		return inv, nil
	}
	end := v.end()
	if c.To == 0 || c.To > end.Target {
		c.To = end.Target
	}
	b := inverseBuilder{config: c, state: v, start: start, ordinal: start.Ordinal}
	if !opened {
		b.ordinal = v.epochs[0].Ordinal // above 0 says that whole epochs were trimmed
	}
	if n, ok := other.maxEpochs[InverseProducer]; ok {
		b.epoch = int(n) + 1
	}
	for i := range v.segments {
		seg := &v.segments[i]
		if v.epochs[seg.epoch].Target >= c.To {
			break
		}
		seg.runs(min(seg.end, end.Ordinal), func(p Point, n int64) bool {
			if skip := c.From - p.Target; skip > 0 {
				if skip >= n {
					return true
				}
				p, n = Point{p.Ordinal + skip, p.Source + skip, p.Target + skip}, n-skip
			}
			n = min(n, c.To-p.Target, seg.sourceEnd-p.Source)
			if n > 0 {
				b.add(p, n, i)
			}
			return n > 0
		})
	}
	if b.err != nil {
		return fail("%w", b.err)
	}
	if len(b.groups) == 0 {
		// Without a record too: it says from where on the other lane copies itself.
		b.begin(Point{Source: max(end.Source, start.Target), Target: max(c.To, start.Source)}, len(v.segments)-1)
	}
	inv.Entries, inv.Records, inv.Known = b.entries(), b.records, max(c.From, b.known)
	inv.Next = Point{b.ordinal, max(c.To, start.Source), max(b.end.Source, start.Target)}
	if c.To == end.Target {
		inv.Next.Target = max(inv.Next.Target, end.Source)
	}
	last := b.groups[len(b.groups)-1].epoch
	inv.Entries = append(inv.Entries, Position{
		Lane: v.lane, Writer: last.Writer, Ordinal: inv.Next.Ordinal, Source: inv.Next.Source, Target: inv.Next.Target,
		SourceEnd: inv.Next.Source, SourceLeaderEpoch: -1, NewestTimestamp: -1, Time: c.Time,
	})
	return inv, nil
}

// inverseStart is where an inverse for this lane begins: at its end, or in place of the inverse
// that is its newest writer, because no real opening has followed that one. False: never opened.
func (v *view) inverseStart() (Point, bool) {
	if len(v.epochs) == 0 {
		return Point{}, false
	}
	i := len(v.epochs)
	for i > 0 && v.epochs[i-1].Inverse() {
		i--
	}
	switch {
	case i == len(v.epochs):
		return v.end(), true
	case i == 0:
		return Point{}, false
	}
	e := v.epochs[i]
	return Point{e.Ordinal, e.Source, e.Target}, true
}

// runs calls f for the runs of a segment from its base to the ordinal end, until f returns false.
func (s *segment) runs(end int64, f func(p Point, n int64) bool) {
	p := s.base
	more := end > p.Ordinal
	// Both sides change at ordinals: the source's come by scan, the target's by next.
	next := s.jumps(p.Ordinal, end)
	to, jump := next()
	advance := func(ordinal int64) {
		for more && p.Ordinal < ordinal {
			if to <= p.Ordinal {
				p.Target = jump
				to, jump = next()
				continue
			}
			n := min(ordinal, to) - p.Ordinal
			more = f(p, n)
			p = Point{p.Ordinal + n, p.Source + n, p.Target + n}
		}
	}
	if s.sources.spanned {
		s.sources.spans.scan(s.sources.from.Ordinal, end-1, func(sp Span) bool {
			advance(sp.Ordinal)
			p.Source = sp.Source
			return more
		})
	}
	advance(end)
}

// jumps returns a function that gives, one after another, where the target offsets of a segment
// jump at or above an ordinal and to what offset; behind the last, the ordinal end.
func (s *segment) jumps(from, end int64) func() (ordinal, target int64) {
	if !s.targets.spanned {
		i := 0
		return func() (int64, int64) {
			if i == len(s.shifts) {
				return max(end, from+1), 0
			}
			i++
			return s.shifts[i-1].Ordinal, s.shifts[i-1].Target
		}
	}
	var page []Span
	at := s.targets.from.Ordinal
	return func() (int64, int64) {
		if len(page) == 0 && at < end {
			s.targets.spans.scan(at, end-1, func(sp Span) bool {
				page = append(page, sp)
				return len(page) < inverseChunk
			})
			at = end
			if n := len(page); n == inverseChunk {
				at = page[n-1].Ordinal + 1
			}
		}
		if len(page) == 0 {
			return max(end, from+1), 0
		}
		sp := page[0]
		page = page[1:]
		return sp.Ordinal, sp.Source
	}
}

// inverseBuilder turns runs round. The names of its fields are those of this lane's sides.
type inverseBuilder struct {
	config  InverseConfig
	state   *view
	start   Point // of the other lane: what is written lies at or above it
	epoch   int   // of the next writer
	ordinal int64 // next, of the other lane
	end     Point // next source and target offset after the last record, of the other lane as below
	segment int   // the last one that runs came of
	groups  []inverseGroup
	records int64
	known   int64
	err     error
}

// inverseGroup is what one writer of the inverse says: up to where the map was trimmed again.
type inverseGroup struct {
	epoch   EpochRecord
	trim    *Trim
	sources []Span // its source offsets are our target offsets
	targets []Jump // and the other way round
}

// add takes in a run of a segment.
func (b *inverseBuilder) add(p Point, n int64, segment int) {
	if b.err != nil {
		return
	}
	if len(b.groups) == 0 || segment != b.segment && b.trimmed(segment) {
		if b.begin(p, segment); b.err != nil {
			return
		}
	}
	b.segment = segment
	g := &b.groups[len(b.groups)-1]
	if p.Target != b.end.Target {
		g.sources = append(g.sources, Span{b.ordinal, p.Target})
	}
	if p.Source != b.end.Source {
		g.targets = append(g.targets, Jump{b.ordinal, p.Source})
	}
	b.ordinal += n
	b.records += n
	b.end = Point{Source: p.Source + n, Target: p.Target + n}
}

// trimmed tells whether the map of a segment begins above the first record that was asked for.
func (b *inverseBuilder) trimmed(segment int) bool {
	seg := &b.state.segments[segment]
	return seg.trimmed && seg.base.Target > b.config.From
}

// begin starts a writer with the record p of a segment as its first.
func (b *inverseBuilder) begin(p Point, segment int) {
	if b.epoch > math.MaxInt16 {
		b.err = errors.New("there are no epochs left for its writers")
		return
	}
	first := b.state.epochs[b.state.segments[segment].epoch]
	last := b.state.epochs[len(b.state.epochs)-1]
	w := Writer{InverseProducer, int16(b.epoch)}
	b.epoch++
	g := inverseGroup{}
	source, target := p.Source, b.config.From // where the writer begins: ours
	trimmed := b.trimmed(segment) && p == b.state.segments[segment].base
	switch {
	case trimmed:
		source, target = first.Source, max(first.Target, b.config.From)
		g.trim = &Trim{Lane: b.state.lane, Writer: w, Ordinal: b.ordinal, Source: p.Target, Target: p.Source}
		b.known = p.Target
		b.end = Point{Source: p.Source, Target: p.Target}
	case b.config.From <= b.state.epochs[0].Target:
		source, target = b.state.bySource[0].source, max(min(b.state.epochs[0].begin(), p.Target), b.config.From)
	case b.config.From <= first.Target:
		source = first.Source
	}
	if len(b.groups) == 0 {
		// Not below where the other lane ends, unless the records themselves are: then what it read
		// of us last was lost.
		target = max(target, min(b.start.Source, p.Target))
		if p.Source < b.start.Target {
			b.err = fmt.Errorf("its first record from target offset %d on is source offset %d, but the lane of the other direction has appended up to %d there: "+
				"the source has lost its tail since, or it was fenced again after others had written to it", b.config.From, p.Source, b.start.Target)
			return
		}
		source = max(source, b.start.Target)
	}
	if !trimmed {
		b.end = Point{Source: source, Target: target}
	}
	g.epoch = EpochRecord{
		Lane: b.state.lane, Writer: w, Generation: b.config.Other.Generation(),
		Ordinal: b.ordinal, Source: target, Target: source,
		SourceTopicID: last.TargetTopicID, TargetTopicID: last.SourceTopicID, SourceLeaderEpoch: -1,
		Time: b.config.Time, Instance: b.config.Instance,
	}
	b.groups = append(b.groups, g)
}

// entries returns what all writers say, their epoch records last.
func (b *inverseBuilder) entries() []Entry {
	var facts, epochs []Entry
	for _, g := range b.groups {
		if g.trim != nil {
			facts = append(facts, *g.trim)
		}
		for runs := g.sources; len(runs) > 0; runs = runs[min(inverseChunk, len(runs)):] {
			facts = append(facts, Spans{Lane: b.state.lane, Writer: g.epoch.Writer, Runs: runs[:min(inverseChunk, len(runs)):min(inverseChunk, len(runs))]})
		}
		for runs := g.targets; len(runs) > 0; runs = runs[min(inverseChunk, len(runs)):] {
			facts = append(facts, Shifts{Lane: b.state.lane, Writer: g.epoch.Writer, Runs: runs[:min(inverseChunk, len(runs))]})
		}
		epochs = append(epochs, g.epoch)
	}
	return append(facts, epochs...)
}

// CopiedFrom returns the target offset from which on the lane itself has copied since the newest
// inverse in its journal: the From of its next inverse. 0 if there is none.
func (s LaneState) CopiedFrom() int64 {
	v := s.view()
	for i, e := range slices.Backward(v.epochs) {
		switch {
		case !e.Inverse():
		case i+1 < len(v.epochs):
			return v.epochs[i+1].Target
		default:
			return v.end().Target
		}
	}
	return 0
}

// Strand returns the facts that say that the source offsets from the lane's end up to to, next,
// will never be copied, because the source took them when the lane was closed already. They are the
// newest writer's, a fence's, and move the lane's position: a fence after them keeps it. decision
// is what became of the records: "exported", "replayed", "discarded". Nothing is returned where
// there is nothing between.
func (s LaneState) Strand(to int64, decision string, at time.Time) ([]Entry, error) {
	v := s.view()
	if why := v.unusable(); why != "" {
		return nil, fmt.Errorf("note stranded records of %v: %s", v.lane, why)
	}
	end, last := v.end(), v.epochs[len(v.epochs)-1]
	if last.Inverse() {
		return nil, fmt.Errorf("note stranded records of %v: the lane is being prepared; note them before that, or after its opening", v.lane)
	}
	if to <= end.Source {
		return nil, nil
	}
	p := Position{
		Lane: v.lane, Writer: last.Writer, Ordinal: end.Ordinal, Target: end.Target,
		SourceLeaderEpoch: -1, NewestTimestamp: -1,
	}
	if v.position != nil {
		p = *v.position
	}
	p.Source, p.SourceEnd, p.SourceLeaderEpoch, p.Time = to, max(p.SourceEnd, to), -1, at
	gap := Gap{Lane: v.lane, Writer: last.Writer, From: end.Source, To: to, Reason: strandedReason + decision, Time: at}
	return []Entry{gap, p}, nil
}

// StrandBehind says it of the source offsets [from, to) that lie behind what the link of the other
// direction has copied to the source since this lane was closed. The position stays where it is:
// what lies between is for the lane's next inverse to describe.
func (s LaneState) StrandBehind(from, to int64, decision string, at time.Time) ([]Entry, error) {
	v := s.view()
	if why := v.unusable(); why != "" {
		return nil, fmt.Errorf("note stranded records of %v: %s", v.lane, why)
	}
	return []Entry{Gap{Lane: v.lane, Writer: v.epochs[len(v.epochs)-1].Writer, From: from, To: to, Reason: strandedReason + decision, Time: at}}, nil
}
