package offsets

import "unsafe"

// LaneState is what the facts known at one moment say of a lane. It is a snapshot: cheap to
// take, never changed afterwards, safe to keep and to share. The zero value is a lane nobody
// has opened.
//
// The newest span of the newest writer has no end: it is what the next records will be, should
// they come without a hole. Lookups answer beyond what is on the target; compare
// [Point.Ordinal] with the position or with the target's end.
type LaneState struct{ v *view }

// Point is one record of the lane, in all three ways of counting.
type Point struct{ Ordinal, Source, Target int64 }

var unopened = &view{}

// StateOf returns what these facts, all of one lane, say of it.
func StateOf(facts ...Entry) LaneState {
	if len(facts) == 0 {
		return LaneState{}
	}
	l := newLane(facts[0].Key().Lane)
	for _, e := range facts {
		l.apply(e)
	}
	return l.state()
}

func (s LaneState) view() *view {
	if s.v == nil {
		return unopened
	}
	return s.v
}

// Last returns the epoch record of the newest writer.
func (s LaneState) Last() (EpochRecord, bool) {
	v := s.view()
	if len(v.epochs) == 0 {
		return EpochRecord{}, false
	}
	return v.epochs[len(v.epochs)-1], true
}

// Epochs returns the epoch records that count, in the order of their Target. Those whose control
// record was lost with the target's tail do not count. Not to be changed.
func (s LaneState) Epochs() []EpochRecord { return s.view().epochs }

// Position returns the newest writer's position; false if it has written none.
func (s LaneState) Position() (Position, bool) {
	if p := s.view().position; p != nil {
		return *p, true
	}
	return Position{}, false
}

// MaxEpoch returns the highest epoch any entry of the lane shows for the producer id.
func (s LaneState) MaxEpoch(producerID int64) (int16, bool) {
	e, ok := s.view().maxEpochs[producerID]
	return e, ok
}

// Generation returns the lane's newest id generation, 0 to begin with.
func (s LaneState) Generation() int32 { return s.view().generation }

// Resolve returns ordinal and source offset of the record that has the sequence number seq,
// counted from 0 since the writer's epoch began. With the sequence after the writer's last one it
// gives what comes next: the ordinal, and the source offset of that record as far as spans were
// written ahead, else the offset after the last record's. That also holds when later writers
// opened the lane there; a sequence further up is one the journal knows nothing of: not ok.
func (s LaneState) Resolve(w Writer, seq int64) (ordinal, source int64, ok bool) {
	return s.view().resolve(w, seq)
}

// Gaps returns the gaps of all writers with an epoch record, in order of From. Not to be changed.
func (s LaneState) Gaps() []Gap { return s.view().gaps }

// Cuts returns the cuts that count. Not to be changed.
func (s LaneState) Cuts() []Cut { return s.view().cuts }

// Beyond returns the writers whose control record stands at or above the target offset end: the
// ones that are lost when the target's log ends there. It fills [Cut.Lost].
func (s LaneState) Beyond(end int64) []Writer {
	var lost []Writer
	for _, e := range s.view().epochs {
		if e.Target > end {
			lost = append(lost, e.Writer)
		}
	}
	return lost
}

// TargetOf returns the first record at or above the given source offset: the record itself if
// Point.Source equals it. Where a lane went back in the source (the topic was made anew, or its
// log was cut), an offset means the record copied last. False when none is known: the lane was
// never opened, or the map has been trimmed there.
func (s LaneState) TargetOf(source int64) (Point, bool) {
	_, p, f := s.view().ceilSource(source)
	return p, f == record
}

// SourceOf returns the first record at or above the given target offset: the record itself if
// Point.Target equals it. False as for TargetOf.
func (s LaneState) SourceOf(target int64) (Point, bool) {
	_, p, f := s.view().ceilTarget(target)
	return p, f == record
}

// At returns the record with the given ordinal.
func (s LaneState) At(ordinal int64) (Point, bool) { return s.view().at(ordinal) }

// Err is set when the facts contradict each other: the lane must not be opened.
func (s LaneState) Err() error { return s.view().err }

// Bytes is about how much memory the lane's map takes.
func (s LaneState) Bytes() int {
	v := s.view()
	n := len(v.epochs)*int(unsafe.Sizeof(EpochRecord{})) + len(v.segments)*int(unsafe.Sizeof(segment{}))
	return n + s.mapBytes()
}

// mapBytes is the part of Bytes that grows with the number of spans.
func (s LaneState) mapBytes() int {
	n := 0
	for i := range s.view().segments {
		n += s.v.segments[i].sources.spans.bytes() + s.v.segments[i].targets.spans.bytes()
	}
	return n
}
