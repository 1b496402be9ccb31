package offsets

import (
	"fmt"
	"strings"
	"time"

	"replicator/internal/fields"
)

// Lane names the pipeline of one source partition by the source's topic and partition.
type Lane struct {
	Topic     string
	Partition int32
}

// String returns "orders-3".
func (l Lane) String() string { return fmt.Sprintf("%s-%d", l.Topic, l.Partition) }

// Writer is a holder of a lane: the producer id and epoch under which it appends.
type Writer struct {
	ProducerID int64
	Epoch      int16
}

// String returns "4711/3".
func (w Writer) String() string { return fmt.Sprintf("%d/%d", w.ProducerID, w.Epoch) }

// Entry is one fact of the journal: [EpochRecord], [Spans], [Position], [Gap], [Shift], [Shifts],
// [Cut], [Generation], [Trim], or a [Deletion] of one of them.
type Entry interface {
	// Key is what the journal's compaction goes by.
	Key() Key

	// appendValue appends the encoded value, version first; nil stays nil for a deletion.
	appendValue(b []byte) []byte
}

// Key identifies a fact.
type Key struct {
	Kind Kind
	Lane Lane
	Writer
	// First is the first ordinal the fact speaks of. A gap has its first source offset here,
	// a generation its number, and epoch records and positions, of which a writer has one, 0.
	First int64
	// Last is the ordinal of the last span of merged spans, else 0.
	Last int64
}

// Kind is the first byte of an entry's key.
type Kind uint8

// The kinds of entries. Numbers are the journal's format and never change their meaning.
const (
	KindEpoch      Kind = 1
	KindSpans      Kind = 2
	KindPosition   Kind = 3
	KindGap        Kind = 4
	KindShift      Kind = 5
	KindCut        Kind = 6
	KindGeneration Kind = 7
	KindMerged     Kind = 8
	KindTrim       Kind = 9
	KindShifts     Kind = 10
)

// String returns the kind's name as errors and tools print it.
func (k Kind) String() string {
	switch k {
	case KindEpoch:
		return "epoch record"
	case KindSpans:
		return "spans"
	case KindPosition:
		return "position"
	case KindGap:
		return "gap"
	case KindShift:
		return "shift"
	case KindCut:
		return "cut"
	case KindGeneration:
		return "generation"
	case KindMerged:
		return "merged spans"
	case KindTrim:
		return "trim"
	case KindShifts:
		return "shifts"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// EpochRecord says that a writer opened the lane: its control record stands on the target at
// Target-1, and all that stands before it is final. That of an inverse ([Writer.Inverse]) has no
// control record: it says where what the link of the other direction copied begins.
type EpochRecord struct {
	Lane
	Writer
	Generation        int32     // id generation of the lane, from 0
	Ordinal           int64     // next: of the writer's first append
	Source            int64     // next source offset to copy
	Target            int64     // next target offset: of the writer's first append
	SourceTopicID     [16]byte  // zero where the source has no topic ids
	TargetTopicID     [16]byte  // zero where the target has no topic ids
	SourceLeaderEpoch int32     // of the last record copied before, -1 if unknown
	Digest            uint64    // of whatever settings change the set of records copied
	Time              time.Time // millisecond precision
	Instance          string    // the daemon that opened
}

// Span begins a run: from Ordinal on the record with ordinal o has the source offset
// Source + (o - Ordinal), until the next span or epoch of the lane.
type Span struct{ Ordinal, Source int64 }

// Spans are the spans of one fetched chunk, at least one. Ordinals grow, and between two spans
// source offsets grow faster than ordinals. They are acknowledged by the journal before the
// first record they speak of is sent.
//
// Merged spans stand in for all spans of the writer from the first to the last ordinal they
// name. They are a kind of their own with both ordinals in the key: neither a late chunk nor
// another merge can take their place.
type Spans struct {
	Lane
	Writer
	Runs   []Span
	Merged bool
}

// Position says how far a writer has come. A newer one of the same writer replaces it.
type Position struct {
	Lane
	Writer
	Ordinal, Source, Target int64     // next; all below is acknowledged
	SourceEnd               int64     // next: the source's high watermark
	SourceLeaderEpoch       int32     // of the last record copied, -1 if unknown
	NewestTimestamp         int64     // of the records copied, milliseconds since 1970, -1 if none
	Time                    time.Time // when SourceEnd was asked for, millisecond precision
	Closed                  bool      // clean stop, nothing is in flight
	Quiet                   bool      // no request of an earlier epoch can still be alive
}

// Gap says that the source offsets [From, To) will never be copied.
type Gap struct {
	Lane
	Writer
	From, To int64 // source offsets
	Reason   string
	Time     time.Time // millisecond precision
}

// strandedReason begins the reason of a gap of stranded records; what was decided about them follows.
const strandedReason = "stranded: "

// Stranded reports whether the gap is of records that the source took after it was given up.
func (e Gap) Stranded() bool { return strings.HasPrefix(e.Reason, strandedReason) }

// Shift was found in the target's log: from Ordinal on the writer's record with ordinal o lies
// at target offset Target + (o - Ordinal), because something that is not ours stands before it.
type Shift struct {
	Lane
	Writer
	Ordinal, Target int64
}

// Jump begins a run on the target: from Ordinal on the record with ordinal o lies at the target
// offset Target + (o - Ordinal), until the next jump or epoch of the lane.
type Jump struct{ Ordinal, Target int64 }

// Shifts are many shifts in one entry, at least one. Only an inverse has them, where every hole of
// the other direction's source is one; its writer has no single shifts. Ordinals grow, and between
// two jumps target offsets grow faster than ordinals.
type Shifts struct {
	Lane
	Writer
	Runs []Jump
}

// Cut says that the target lost its tail: everything from Ordinal on is gone. It counts together
// with the epoch record of the writer that found it.
type Cut struct {
	Lane
	Writer                            // who found it
	Ordinal, Source, Target int64     // next, as they are after the loss
	Lost                    []Writer  // whose control records were lost too: LaneState.Beyond(Target)
	Time                    time.Time // millisecond precision
}

// Generation says that the lane takes its producer ids under a new transactional id from now on.
type Generation struct {
	Lane
	Number int32 // from 1; a lane without such an entry is in generation 0
	Reason string
	Time   time.Time // millisecond precision
}

// Trim says that what the writer's spans and shifts say of ordinals below Ordinal was removed from
// the journal, because the source no longer holds those records. It stands in for them: the record
// Ordinal has the source offset Source and the target offset Target. Of a writer's trims the one
// with the highest ordinal counts, so that a late one brings nothing back.
type Trim struct {
	Lane
	Writer
	Ordinal, Source, Target int64
}

// Deletion removes the fact with this key: a record without a value.
type Deletion struct{ Of Key }

// Key has no ordinal: a writer opens once.
func (e EpochRecord) Key() Key { return Key{Kind: KindEpoch, Lane: e.Lane, Writer: e.Writer} }

// Key holds the first span's ordinal, and the last one's of merged spans.
func (e Spans) Key() Key {
	k := Key{Kind: KindSpans, Lane: e.Lane, Writer: e.Writer}
	if len(e.Runs) > 0 {
		k.First = e.Runs[0].Ordinal
	}
	if e.Merged {
		k.Kind = KindMerged
		if len(e.Runs) > 0 {
			k.Last = e.Runs[len(e.Runs)-1].Ordinal
		}
	}
	return k
}

// Key is the same for all positions of a writer.
func (e Position) Key() Key { return Key{Kind: KindPosition, Lane: e.Lane, Writer: e.Writer} }

// Key holds the first source offset of the gap.
func (e Gap) Key() Key { return Key{Kind: KindGap, Lane: e.Lane, Writer: e.Writer, First: e.From} }

// Key holds the ordinal.
func (e Shift) Key() Key {
	return Key{Kind: KindShift, Lane: e.Lane, Writer: e.Writer, First: e.Ordinal}
}

// Key holds the first jump's ordinal.
func (e Shifts) Key() Key {
	k := Key{Kind: KindShifts, Lane: e.Lane, Writer: e.Writer}
	if len(e.Runs) > 0 {
		k.First = e.Runs[0].Ordinal
	}
	return k
}

// Key holds the ordinal.
func (e Cut) Key() Key { return Key{Kind: KindCut, Lane: e.Lane, Writer: e.Writer, First: e.Ordinal} }

// Key holds the ordinal.
func (e Trim) Key() Key { return Key{Kind: KindTrim, Lane: e.Lane, Writer: e.Writer, First: e.Ordinal} }

// Key holds the number; a generation has no writer.
func (e Generation) Key() Key {
	return Key{Kind: KindGeneration, Lane: e.Lane, First: int64(e.Number)}
}

// Key is that of the fact it removes.
func (e Deletion) Key() Key { return e.Of }

// check returns what makes an entry impossible, empty if nothing does. Writer and reader of the
// journal ask the same.
func check(e Entry) string {
	k := e.Key()
	if k.Lane.Topic == "" || len(k.Lane.Topic) > fields.MaxString || k.Lane.Partition < 0 {
		return "lane without topic or partition"
	}
	if k.First < 0 || k.Last < 0 {
		return "negative ordinal or offset in key"
	}
	switch e := e.(type) {
	case EpochRecord:
		if e.Ordinal < 0 || e.Source < 0 || e.Target < 0 {
			return "negative ordinal or offset"
		}
	case Spans:
		return checkRuns(e.Runs)
	case Shifts:
		return checkRuns(e.spans())
	case Position:
		if e.Ordinal < 0 || e.Source < 0 || e.Target < 0 {
			return "negative ordinal or offset"
		}
	case Gap:
		if e.To <= e.From {
			return "gap ends before it begins"
		}
	case Shift:
		if e.Target < 0 {
			return "negative target offset"
		}
	case Cut:
		if e.Source < 0 || e.Target < 0 {
			return "negative offset"
		}
	case Trim:
		if e.Source < 0 || e.Target < 0 {
			return "negative offset"
		}
	}
	return ""
}

// spans returns the jumps as what they are to a map of ordinals: spans of target offsets.
func (e Shifts) spans() []Span {
	spans := make([]Span, len(e.Runs))
	for i, r := range e.Runs {
		spans[i] = Span{r.Ordinal, r.Target}
	}
	return spans
}

func checkRuns(runs []Span) string {
	if len(runs) == 0 {
		return "no span"
	}
	if runs[0].Ordinal < 0 || runs[0].Source < 0 {
		return "negative ordinal or offset"
	}
	for i := 1; i < len(runs); i++ {
		a, b := runs[i-1], runs[i]
		if b.Ordinal <= a.Ordinal || b.Source <= a.Source || b.Source-a.Source <= b.Ordinal-a.Ordinal {
			return fmt.Sprintf("span %d does not follow the one before", i)
		}
	}
	return ""
}
