package offsets

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Outcome says what a translated offset stands for.
type Outcome uint8

// The outcomes. Their order is part of the format of checkpoints.
const (
	Unknown Outcome = iota // the lane was never opened, or its map is damaged: there is no offset
	Exact                  // the record exists on the other side
	Next                   // the offset holds no record (marker, compacted, filtered): the next record after it
	End                    // everything copied is consumed
	Ahead                  // the group has read further than was copied
	InGap                  // the offset lies in a recorded gap
	Before                 // the offset lies below the map's start
)

var outcomeWords = [...]string{"unknown", "exact", "next", "end", "ahead", "gap", "before"}

// String returns the outcome's word, as tables and files have it.
func (o Outcome) String() string {
	if int(o) < len(outcomeWords) {
		return outcomeWords[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// MarshalText returns the outcome's word; an outcome without one is an error.
func (o Outcome) MarshalText() ([]byte, error) {
	if int(o) >= len(outcomeWords) {
		return nil, fmt.Errorf("write outcome: %d has no word", uint8(o))
	}
	return []byte(outcomeWords[o]), nil
}

// UnmarshalText reads an outcome's word.
func (o *Outcome) UnmarshalText(text []byte) error {
	i := slices.Index(outcomeWords[:], string(text))
	if i < 0 {
		return fmt.Errorf("read outcome: %q is none of %v", text, outcomeWords)
	}
	*o = Outcome(i)
	return nil
}

// Translation is a next source offset and what it is on the target, or the
// other way round.
type Translation struct {
	// From is the next offset asked for, To the next offset on the other side;
	// -1 with Unknown. A consumer that resumes at To reads the first record that
	// was not read before From, or one before it: never one after it.
	From, To int64
	Outcome  Outcome
	// Missing counts offsets on the side of From: with Ahead those the group has
	// read and the other side lacks, with InGap those of the gap from From on,
	// else 0.
	Missing int64
	Reason  string // of Before and Unknown, and of what Within changed; else empty
}

const (
	reasonNeverOpened = "no link has copied this partition"
	reasonBegan       = "copying began above this offset"
	reasonTrimmed     = "the map below was trimmed, because the source no longer holds those offsets"
)

// end is how far the lane has come: its position, or where its newest writer began.
func (v *view) end() Point {
	if p := v.position; p != nil {
		return Point{p.Ordinal, p.Source, p.Target}
	}
	e := &v.epochs[len(v.epochs)-1]
	return Point{e.Ordinal, e.Source, e.Target}
}

// unusable returns why nothing can be translated, empty if something can.
func (v *view) unusable() string {
	if v.err != nil {
		return v.err.Error()
	}
	if len(v.epochs) == 0 {
		return reasonNeverOpened
	}
	return ""
}

// Translate returns where on the target a consumer goes on that would go on at the next source
// offset given. It knows of records below the lane's position and answers for no others; see With.
//
// Where the source went back (the topic was made anew, or its log was cut), an offset means the
// source as it is since: of what the older life had from there on, which stands before it on the
// target, nothing is repeated. Within one life of the source, To never falls while source grows.
func (s LaneState) Translate(source int64) Translation {
	v := s.view()
	t := Translation{From: source, To: -1}
	if t.Reason = v.unusable(); t.Reason != "" {
		return t
	}
	end := v.end()
	if source > end.Source {
		t.To, t.Outcome, t.Missing = end.Target, Ahead, source-end.Source
		return t
	}
	at := v.visibleAt(source)
	segment, p, f := v.ceilSource(source)
	seg := &v.segments[segment]
	switch {
	case at < 0 && v.epochs[0].Ordinal > 0:
		// Whole epochs were removed. What they left on the target may be unread.
		t.To, t.Outcome, t.Reason = 0, Before, reasonTrimmed
	case f == removed:
		// All that is left of the epoch on the target lies at or above where it began.
		t.To, t.Outcome, t.Reason = min(v.epochs[seg.epoch].Target, end.Target), Before, reasonTrimmed
	case at < 0:
		t.To, t.Outcome, t.Reason = min(p.Target, end.Target), Before, reasonBegan
	case p.Ordinal < end.Ordinal && p.Source == source:
		t.To, t.Outcome = p.Target, Exact
	default:
		t.To, t.Outcome = p.Target, Next
		if p.Ordinal >= end.Ordinal {
			t.To, t.Outcome = end.Target, End
		}
		if to := v.bySource[at].gapEnd(source); to > source {
			t.Outcome, t.Missing = InGap, to-source
		}
	}
	return t
}

// gapEnd returns the end of the gap that the source offset lies in, 0 if it lies in none.
func (e *visible) gapEnd(source int64) int64 {
	lo, hi := 0, len(e.gaps)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if e.gaps[mid].from > source {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo > 0 && source < e.gaps[lo-1].to {
		return e.gaps[lo-1].to
	}
	return 0
}

// TranslateBack returns where on the source a consumer goes on that would go on at the next target
// offset given: the way back after a failover. From and Missing count target offsets, To source
// offsets; a control record or what somebody else wrote on the target is Next.
//
// Where the source went back, what stands behind on the target has lower source offsets again; To
// is then the lowest of what is unread, and the record itself, gone from the source, is Next.
func (s LaneState) TranslateBack(target int64) Translation {
	v := s.view()
	t := Translation{From: target, To: -1}
	if t.Reason = v.unusable(); t.Reason != "" {
		return t
	}
	end := v.end()
	if target > end.Target {
		t.To, t.Outcome, t.Missing = end.Source, Ahead, target-end.Target
		return t
	}
	segment, p, f := v.ceilTarget(target)
	seg := &v.segments[segment]
	first := &v.epochs[0]
	below := target < first.begin() // the control record of the first opening belongs to it
	switch {
	case below && first.Ordinal > 0:
		t.To, t.Outcome, t.Reason = 0, Before, reasonTrimmed
	case f == removed:
		t.To, t.Outcome, t.Reason = min(v.epochs[seg.epoch].Source, seg.sourceEnd), Before, reasonTrimmed
	case p.Ordinal >= end.Ordinal:
		t.To, t.Outcome = end.Source, End
		if below {
			t.Outcome, t.Reason = Before, reasonBegan
		}
	default:
		t.To, t.Outcome = min(p.Source, seg.sourceEnd), Next
		if below {
			t.Outcome, t.Reason = Before, reasonBegan
		} else if p.Target == target && t.To == p.Source {
			t.Outcome = Exact
		}
	}
	return t
}

// Within fits a translation from source to target into the target's log, whose next offsets are
// logStart and logEnd.
//
// Below logStart it is Before: retention of the target has removed records, read or not. Above
// logEnd the target has lost its tail: it is Ahead, To is logEnd, where the lost records will be
// copied again, and Missing grows by the target offsets lost, which is at least the records.
func (t Translation) Within(logStart, logEnd int64) Translation {
	switch {
	case t.Outcome == Unknown:
	case t.To > logEnd:
		lost := t.To - logEnd
		if t.Outcome != Ahead {
			t.Missing = 0
		}
		t.Outcome, t.To, t.Missing = Ahead, logEnd, t.Missing+lost
		t.Reason = fmt.Sprintf("the target lost its tail: its log ends at offset %d, %d offsets below", logEnd, lost)
	case t.To < logStart:
		if t.Outcome != Before {
			t.Outcome, t.Missing = Before, 0
			t.Reason = fmt.Sprintf("the target's retention removed records below offset %d", logStart)
		}
		t.To = logStart
	}
	return t
}

// With returns the same lane with a newer position of its newest writer, as the writer itself has
// it or the target's log shows, and shifts that are not in the journal. A position of another
// writer, or one that lies below what the journal has, changes nothing: an opening or another
// owner was quicker.
func (s LaneState) With(p Position, shifts ...Shift) LaneState {
	v := s.view()
	if len(v.epochs) == 0 || v.err != nil || v.epochs[len(v.epochs)-1].Writer != p.Writer {
		return s
	}
	if end := v.end(); p.Ordinal < end.Ordinal || p.Source < end.Source || p.Target < end.Target {
		return s
	}
	return s.withEnd(p, shifts)
}

// withEnd is With for a position that is known to be the right one.
func (s LaneState) withEnd(p Position, shifts []Shift) LaneState {
	v := *s.view()
	v.position = &p
	if len(shifts) > 0 {
		v.segments = slices.Clone(v.segments)
		for i := range v.segments {
			v.addShifts(&v.segments[i], shifts)
		}
	}
	return LaneState{v: &v}
}

// addShifts gives a segment those of the shifts that are its writer's and new.
func (v *view) addShifts(seg *segment, shifts []Shift) {
	all := slices.Clone(seg.shifts)
	for _, sh := range shifts {
		if sh.Writer == v.epochs[seg.epoch].Writer && sh.Ordinal >= seg.base.Ordinal {
			all = append(all, sh)
		}
	}
	if len(all) == len(seg.shifts) {
		return
	}
	slices.SortStableFunc(all, func(a, b Shift) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	seg.shifts = slices.CompactFunc(all, func(a, b Shift) bool { return a.Ordinal == b.Ordinal })
	if err := seg.check(v.epochs[seg.epoch]); err != nil && v.err == nil {
		v.err = errors.New("read offset map of " + v.lane.String() + ": " + err.Error())
	}
}
