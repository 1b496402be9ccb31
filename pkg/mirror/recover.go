package mirror

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// recovered is what an opening found out from the target alone: where the lane
// goes on.
type recovered struct {
	first       bool  // nobody has opened the lane before
	ordinal     int64 // next
	source      int64 // next source offset; -1: begin where the options say
	sourceEpoch int32 // leader epoch of the source record before it, -1 unknown
	shifts      []offsets.Shift
	cut         *offsets.Cut
	foreign     int64 // offsets somebody else wrote since the journalled end
	beyond      bool  // records stood beyond the journalled position

	// verify and verifyEpoch: the source record before verify was copied and had
	// this leader epoch: fetching from there shows whether the source was truncated.
	verify      int64
	verifyEpoch int32
}

// recover decides where the lane goes on, and whether it may.
func (op *opener) recover(o *opening) error {
	if o.err != nil {
		return o.err
	}
	state := op.journal.State(o.key)
	if err := state.Err(); err != nil {
		return haltf("journal of the lane is damaged: %v", err)
	}
	if top, ok := state.MaxEpoch(o.writer.ProducerID); ok && top >= o.writer.Epoch {
		return fmt.Errorf("epoch %d of producer id %d was used before: taking another", o.writer.Epoch, o.writer.ProducerID)
	}
	if last, ok := state.Last(); ok {
		if err := op.sameTopics(o, last); err != nil {
			return err
		}
	}
	if err := op.secondBarrier(o, state); err != nil {
		return err
	}
	last, opened := state.Last()
	var r recovered
	if opened && recreated(last.TargetTopicID, o.targetID) { // sameTopics let it pass
		r = anew(state, last)
		o.events = append(o.events, Event{Kind: EventRecreated, Detail: "target topic was deleted and created again: copying it anew from the start of its source"})
	} else {
		var err error
		if r, err = recoverLane(state, o.key, o.writer, o.log); err != nil {
			return err
		}
	}
	if r.first && !op.opts.AppendToExisting && (o.log.start > 0 || o.log.holdsData()) {
		return op.existingRecords(o)
	}
	if r.foreign > 0 {
		o.events = append(o.events, Event{Kind: EventForeignWriter, Detail: fmt.Sprintf("%d records of another writer stand in target partition %s-%d", r.foreign, o.targetTopic, o.key.Partition)})
	}
	if r.cut != nil {
		o.events = append(o.events, Event{Kind: EventCut, Detail: fmt.Sprintf("target partition %s-%d lost its tail: ends at offset %d, records are sent again from source offset %d on", o.targetTopic, o.key.Partition, r.cut.Target, r.source)})
	}
	if opened && recreated(last.SourceTopicID, o.sourceID) {
		r.source, r.sourceEpoch, r.verify, r.verifyEpoch = -1, -1, -1, -1
		o.events = append(o.events, Event{Kind: EventRecreated, Detail: "source topic was deleted and created again: copying the new one from its beginning, behind the old one's records"})
	}
	if o.follow >= 0 && o.follow < r.source {
		r.source, r.sourceEpoch, r.verify, r.verifyEpoch = o.follow, -1, -1, -1
	}
	o.check = op.lastRecord(o, r)
	o.recovered = r
	o.target = o.log.marker + 1
	o.quiet = r.first
	if p, ok := state.Position(); ok && p.Closed && p.Quiet && !r.beyond {
		o.quiet = true
	}
	return nil
}

// secondBarrier says that the lane's last holder had another producer id, and its
// lease was not waited out yet.
func (op *opener) secondBarrier(o *opening, state offsets.LaneState) error {
	for _, e := range slices.Backward(state.Epochs()) {
		if e.ProducerID < 0 {
			continue // of no broker: stands for what the link of the other direction copied
		}
		if e.ProducerID != o.writer.ProducerID && (o.barrierID != o.writer.ProducerID || o.barrierAt.since() < leaseWait) {
			return &secondBarrierError{o.writer.ProducerID, o.fencedAt}
		}
		break
	}
	return nil
}

// recordCheck is the last record an opening found on the target beyond what the
// journal had accounted for, to be compared with the source's as soon as that is
// read again.
type recordCheck struct {
	source int64 // its source offset
	digest uint64
}

func (op *opener) lastRecord(o *opening, r recovered) *recordCheck {
	last := wire.Batch(o.log.last)
	if !r.beyond || len(last) == 0 || r.source < 0 || r.verify < 0 || r.verifyEpoch < 0 {
		return nil
	}
	p := wire.NewPacker(wire.PackConfig{MaxDecoded: op.opts.MaxDecodedBytes})
	digest, ok, err := p.Digest(last, last.LastOffset())
	if !ok || err != nil {
		return nil
	}
	return &recordCheck{source: r.source - 1, digest: digest}
}

// existingRecords refuses to begin where somebody else, or a link whose journal
// is lost, has written before.
func (op *opener) existingRecords(o *opening) error {
	return &unknownRecordsError{haltError{fmt.Sprintf("target partition %s-%d holds or held records that the journal %s does not know: set append_to_existing to append behind them, or delete the target topic to copy it anew",
		o.targetTopic, o.key.Partition, op.opts.JournalTopic)}}
}

// anew is where a lane goes on whose target topic was made again: at the start of
// its source. What the epochs before said of ordinals from here on does not count
// any more.
func anew(state offsets.LaneState, last offsets.EpochRecord) recovered {
	ordinal := last.Ordinal
	if p, ok := state.Position(); ok {
		ordinal = p.Ordinal
	}
	return recovered{ordinal: ordinal, source: -1, sourceEpoch: -1, verify: -1, verifyEpoch: -1}
}

// sameTopics refuses to go on with a topic that was deleted and created again.
func (op *opener) sameTopics(o *opening, last offsets.EpochRecord) error {
	if o.restart {
		return nil
	}
	if recreated(last.TargetTopicID, o.targetID) {
		return haltf("target topic %s was deleted and created again: set on_recreate to restart to copy it anew from the start of its source", o.targetTopic)
	}
	if recreated(last.SourceTopicID, o.sourceID) {
		return haltf("source topic %s was deleted and created again: set on_recreate to restart to copy the new one behind the old", o.key.Topic)
	}
	return nil
}

// recreated says that a topic id is not the one it was; zero ids are unknown.
func recreated(was, is [16]byte) bool {
	var unknown [16]byte
	return was != is && was != unknown && is != unknown
}

// recoverLane finds the lane's ordinal and source position from the journal's
// facts and the target's log. It is a pure function; the journal must have been
// read to its end after the control record of w was seen.
func recoverLane(state offsets.LaneState, key offsets.Lane, w offsets.Writer, log targetLog) (recovered, error) {
	last, ok := state.Last()
	if !ok {
		r := recovered{first: true, source: -1, sourceEpoch: -1, verify: -1, verifyEpoch: -1}
		for _, b := range log.batches {
			if !b.control {
				r.foreign += b.next - b.base
			}
		}
		return r, nil
	}
	r := recovered{ordinal: last.Ordinal, source: last.Source, sourceEpoch: last.SourceLeaderEpoch}
	end := last.Target // journalled end of the target, next
	if p, ok := state.Position(); ok {
		r.ordinal, r.source, r.sourceEpoch, end = p.Ordinal, p.Source, p.SourceLeaderEpoch, p.Target
	}
	r.verify, r.verifyEpoch = r.source, r.sourceEpoch
	ours := map[int64]bool{w.ProducerID: true}
	for _, e := range state.Epochs() {
		ours[e.ProducerID] = true
	}
	ended := log.endedAt(last, w)
	cut := log.marker >= 0 && ended < end
	if cut {
		r.ordinal, r.source, r.sourceEpoch, r.verify, r.verifyEpoch = -1, -1, -1, -1, -1
	}
	for _, b := range log.batches {
		if b.control {
			if ours[b.writer.ProducerID] && b.writer.ProducerID == w.ProducerID && b.writer.Epoch > w.Epoch {
				return r, fmt.Errorf("another holder took epoch %d after our %d: %w", b.writer.Epoch, w.Epoch, kerr.ProducerFenced)
			}
			continue
		}
		if !ours[b.writer.ProducerID] {
			if b.next > end {
				r.foreign += b.next - max(b.base, end)
			}
			if !cut && b.base < end && b.next >= end && end > last.Target {
				return r, haltf("target partition was rewritten: offset %d should hold a record of ours, but producer id %d wrote it", end-1, b.writer.ProducerID)
			}
			continue
		}
		first, _, ok1 := state.Resolve(b.writer, int64(b.sequence))
		final, source, ok2 := state.Resolve(b.writer, int64(b.sequence)+b.next-b.base-1)
		if !ok1 || !ok2 {
			return r, haltf("target holds records of producer %v at offsets %d to %d that the journal does not know: the journal lost entries", b.writer, b.base, b.next-1)
		}
		if point, ok := state.At(first); (!ok || point.Target != b.base) && b.base >= end-1 {
			r.shifts = append(r.shifts, offsets.Shift{Lane: key, Writer: b.writer, Ordinal: first, Target: b.base})
		}
		if final < r.ordinal {
			continue
		}
		if r.ordinal >= 0 && first > r.ordinal {
			return r, haltf("a batch of our own is out of place: target offset %d holds ordinal %d, %d was expected", b.base, first, r.ordinal)
		}
		r.ordinal, r.source, r.sourceEpoch = final+1, source+1, -1
		r.beyond = true
	}
	if cut {
		if r.ordinal < 0 {
			return r, haltf("target partition lost its tail: it ended at offset %d, the journal knows %d, and no record of ours is left to go on from", ended, end)
		}
		r.cut = &offsets.Cut{Lane: key, Writer: w, Ordinal: r.ordinal, Source: r.source, Target: ended, Lost: state.Beyond(ended), Time: time.Now()}
	}
	if !cut && !r.beyond && log.start > end {
		return r, haltf("retention removed records of the target before they were accounted for: log start %d, journalled end %d", log.start, end)
	}
	return r, nil
}
