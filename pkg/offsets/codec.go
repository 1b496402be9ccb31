package offsets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"replicator/internal/fields"
)

// The binary form of an entry.
//
// A key is: kind (1 byte), version (uvarint), topic (length as uvarint, bytes), partition
// (uvarint); then, as the kind needs them, producer id, epoch, first, last. A value is: version
// (uvarint), then the fields in the order of the struct. Signed numbers are zigzag varints,
// strings carry their length as uvarint, times are milliseconds since 1970, topic ids 16 bytes.
// The same entry always has the same bytes; a key in another form is refused, because compaction
// would take it for another fact.
const keyVersion = 1

// valueVersions are the newest versions written and known, by kind.
var valueVersions = map[Kind]int{
	KindEpoch: 1, KindSpans: 1, KindPosition: 1, KindGap: 1, KindShift: 1, KindCut: 1, KindGeneration: 1, KindMerged: 1, KindTrim: 1, KindShifts: 1,
}

// keyFields says which parts of a key a kind has beyond its lane.
func keyFields(k Kind) (writer, first, last bool) {
	switch k {
	case KindEpoch, KindPosition:
		return true, false, false
	case KindGeneration:
		return false, true, false
	case KindMerged:
		return true, true, true
	}
	return true, true, false
}

// EncodeEntry returns the record of an entry. The value of a [Deletion] is nil.
func EncodeEntry(e Entry) (key, value []byte) {
	return appendKey(nil, e.Key()), e.appendValue(nil)
}

func appendKey(b []byte, k Key) []byte {
	b = append(b, byte(k.Kind))
	b = binary.AppendUvarint(b, keyVersion)
	b = fields.AppendString(b, k.Lane.Topic)
	b = binary.AppendUvarint(b, uint64(uint32(k.Lane.Partition)))
	writer, first, last := keyFields(k.Kind)
	if writer {
		b = appendWriter(b, k.Writer)
	}
	if first {
		b = binary.AppendVarint(b, k.First)
	}
	if last {
		b = binary.AppendVarint(b, k.Last)
	}
	return b
}

func (e EpochRecord) appendValue(b []byte) []byte {
	b = binary.AppendUvarint(b, 1)
	b = binary.AppendVarint(b, int64(e.Generation))
	b = appendNumbers(b, e.Ordinal, e.Source, e.Target)
	b = append(b, e.SourceTopicID[:]...)
	b = append(b, e.TargetTopicID[:]...)
	b = binary.AppendVarint(b, int64(e.SourceLeaderEpoch))
	b = binary.BigEndian.AppendUint64(b, e.Digest)
	b = appendTime(b, e.Time)
	return fields.AppendString(b, e.Instance)
}

// appendValue writes the first span's source, then for each further span how many ordinals later
// it begins and how many source offsets lie between the two runs. The first ordinal is in the key.
func (e Spans) appendValue(b []byte) []byte {
	return appendRuns(b, e.Runs)
}

// appendValue is that of spans, with target offsets.
func (e Shifts) appendValue(b []byte) []byte { return appendRuns(b, e.spans()) }

func appendRuns(b []byte, runs []Span) []byte {
	b = binary.AppendUvarint(b, 1)
	b = binary.AppendUvarint(b, uint64(len(runs)))
	for i, r := range runs {
		if i == 0 {
			b = binary.AppendVarint(b, r.Source)
			continue
		}
		ordinals := r.Ordinal - runs[i-1].Ordinal
		b = binary.AppendUvarint(b, uint64(ordinals))
		b = binary.AppendUvarint(b, uint64(r.Source-runs[i-1].Source-ordinals))
	}
	return b
}

func (e Position) appendValue(b []byte) []byte {
	b = binary.AppendUvarint(b, 1)
	b = appendNumbers(b, e.Ordinal, e.Source, e.Target, e.SourceEnd, int64(e.SourceLeaderEpoch), e.NewestTimestamp)
	b = appendTime(b, e.Time)
	var flags byte
	if e.Closed {
		flags |= 1
	}
	if e.Quiet {
		flags |= 2
	}
	return append(b, flags)
}

func (e Gap) appendValue(b []byte) []byte {
	b = binary.AppendUvarint(b, 1)
	b = binary.AppendVarint(b, e.To)
	b = fields.AppendString(b, e.Reason)
	return appendTime(b, e.Time)
}

func (e Shift) appendValue(b []byte) []byte {
	return binary.AppendVarint(binary.AppendUvarint(b, 1), e.Target)
}

func (e Cut) appendValue(b []byte) []byte {
	b = binary.AppendUvarint(b, 1)
	b = appendNumbers(b, e.Source, e.Target)
	b = binary.AppendUvarint(b, uint64(len(e.Lost)))
	for _, w := range e.Lost {
		b = appendWriter(b, w)
	}
	return appendTime(b, e.Time)
}

func (e Generation) appendValue(b []byte) []byte {
	b = binary.AppendUvarint(b, 1)
	b = fields.AppendString(b, e.Reason)
	return appendTime(b, e.Time)
}

func (e Trim) appendValue(b []byte) []byte {
	return appendNumbers(binary.AppendUvarint(b, 1), e.Source, e.Target)
}

func (e Deletion) appendValue([]byte) []byte { return nil }

func appendNumbers(b []byte, numbers ...int64) []byte {
	for _, n := range numbers {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func appendWriter(b []byte, w Writer) []byte {
	return appendNumbers(b, w.ProducerID, int64(w.Epoch))
}

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, t.UnixMilli()) }

// DecodeKey reads the key of a journal record: [*VersionError] or [*CorruptError].
func DecodeKey(key []byte) (Key, error) {
	if len(key) < 2 {
		return Key{}, &CorruptError{Reason: "key is cut off"}
	}
	k := Key{Kind: Kind(key[0])}
	d := decoder{fields.Decode(key[1:])}
	version := d.Uvarint()
	known := valueVersions[k.Kind]
	if d.Bad == "" && (known == 0 || version != keyVersion) {
		if known != 0 {
			known = keyVersion
		}
		return Key{}, &VersionError{Kind: k.Kind, Version: clampVersion(version), Known: known, Part: "key"}
	}
	k.Lane.Topic = d.String()
	k.Lane.Partition = int32(d.UpTo(math.MaxInt32))
	writer, first, last := keyFields(k.Kind)
	if writer {
		k.Writer = d.writer()
	}
	if first {
		k.First = d.Varint()
	}
	if last {
		k.Last = d.Varint()
	}
	if d.End(); d.Bad == "" && !bytes.Equal(appendKey(nil, k), key) {
		d.Bad = "not in its shortest form"
	}
	if d.Bad != "" {
		return Key{}, &CorruptError{Kind: k.Kind, Reason: "key " + d.Bad}
	}
	return k, nil
}

// DecodeEntry reads a journal record; a nil value gives a [Deletion]. Errors are [*VersionError]
// and [*CorruptError]; nothing is guessed.
func DecodeEntry(key, value []byte) (Entry, error) {
	k, err := DecodeKey(key)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return Deletion{Of: k}, nil
	}
	d := decoder{fields.Decode(value)}
	version := d.Uvarint()
	if known := valueVersions[k.Kind]; d.Bad == "" && version != uint64(known) {
		return nil, &VersionError{Kind: k.Kind, Version: clampVersion(version), Known: known, Part: "value"}
	}
	e := d.entry(k)
	d.End()
	if d.Bad == "" {
		d.Bad = check(e)
	}
	if d.Bad == "" && e.Key() != k {
		d.Bad = "does not agree with its key"
	}
	if d.Bad != "" {
		return nil, &CorruptError{Kind: k.Kind, Reason: fmt.Sprintf("value of %v: %s", k.Lane, d.Bad)}
	}
	return e, nil
}

func clampVersion(v uint64) int { return int(min(v, math.MaxInt32)) }

type decoder struct{ fields.Decoder }

func (d *decoder) entry(k Key) Entry {
	switch k.Kind {
	case KindEpoch:
		e := EpochRecord{Lane: k.Lane, Writer: k.Writer}
		e.Generation = d.Int32()
		e.Ordinal, e.Source, e.Target = d.Varint(), d.Varint(), d.Varint()
		copy(e.SourceTopicID[:], d.Take(16))
		copy(e.TargetTopicID[:], d.Take(16))
		e.SourceLeaderEpoch = d.Int32()
		if b := d.Take(8); b != nil {
			e.Digest = binary.BigEndian.Uint64(b)
		}
		e.Time, e.Instance = d.Time(), d.String()
		return e
	case KindSpans, KindMerged:
		return Spans{Lane: k.Lane, Writer: k.Writer, Merged: k.Kind == KindMerged, Runs: d.runs(k.First)}
	case KindShifts:
		e := Shifts{Lane: k.Lane, Writer: k.Writer}
		for _, r := range d.runs(k.First) {
			e.Runs = append(e.Runs, Jump{r.Ordinal, r.Source})
		}
		return e
	case KindPosition:
		e := Position{Lane: k.Lane, Writer: k.Writer}
		e.Ordinal, e.Source, e.Target = d.Varint(), d.Varint(), d.Varint()
		e.SourceEnd, e.SourceLeaderEpoch, e.NewestTimestamp = d.Varint(), d.Int32(), d.Varint()
		e.Time = d.Time()
		if b := d.Take(1); b != nil {
			e.Closed, e.Quiet = b[0]&1 != 0, b[0]&2 != 0
			if b[0] > 3 {
				d.Bad = "has unknown flags"
			}
		}
		return e
	case KindGap:
		return Gap{Lane: k.Lane, Writer: k.Writer, From: k.First, To: d.Varint(), Reason: d.String(), Time: d.Time()}
	case KindShift:
		return Shift{Lane: k.Lane, Writer: k.Writer, Ordinal: k.First, Target: d.Varint()}
	case KindCut:
		e := Cut{Lane: k.Lane, Writer: k.Writer, Ordinal: k.First, Source: d.Varint(), Target: d.Varint()}
		for range d.Count(2) {
			e.Lost = append(e.Lost, d.writer())
		}
		e.Time = d.Time()
		return e
	case KindTrim:
		return Trim{Lane: k.Lane, Writer: k.Writer, Ordinal: k.First, Source: d.Varint(), Target: d.Varint()}
	default: // KindGeneration: DecodeKey lets no other through
		if k.First > math.MaxInt32 {
			d.Bad = "has a generation out of range"
		}
		return Generation{Lane: k.Lane, Number: int32(k.First), Reason: d.String(), Time: d.Time()}
	}
}

func (d *decoder) runs(first int64) []Span {
	n := d.Count(2)
	if n == 0 {
		return nil
	}
	runs := make([]Span, n)
	runs[0] = Span{Ordinal: first, Source: d.Varint()}
	for i := 1; i < n; i++ {
		// Each at most 2^61, so that a sum beyond an int64 turns negative, which check finds.
		ordinals := int64(d.UpTo(1 << 61))
		hole := int64(d.UpTo(1 << 61))
		runs[i] = Span{Ordinal: runs[i-1].Ordinal + ordinals, Source: runs[i-1].Source + ordinals + hole}
	}
	return runs
}

func (d *decoder) writer() Writer {
	id, epoch := d.Varint(), d.Varint()
	if epoch != int64(int16(epoch)) {
		d.Fail("has an epoch out of range")
	}
	return Writer{ProducerID: id, Epoch: int16(epoch)}
}
