package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Where the fields of a record batch v2 lie. Everything from the attributes on
// is under the CRC.
const (
	atBaseOffset      = 0
	atLength          = 8 // of what follows the length
	atLeaderEpoch     = 12
	atMagic           = 16 // in messages v0 and v1 as well
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atBaseTimestamp   = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atBaseSequence    = 53
	atRecordCount     = 57
	batchHeader       = 61

	entryHeader = 12 // offset and length, the same in all formats
)

const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

// minRecord is the size of the smallest record of a batch v2: one byte each
// for length, attributes, both deltas, key and value length, header count.
const minRecord = 7

// ErrPartial says that the rest of a fetch answer is the beginning of an entry
// that did not fit into it. That is how brokers end an answer.
var ErrPartial = errors.New("read records: last entry is cut off")

// CorruptError is an entry that is not what its format demands.
type CorruptError struct {
	Offset int64  // source offset the entry claims: a batch's base offset, a message's own
	Reason string // what is wrong
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read records at offset %d: %s", e.Offset, e.Reason)
}

func corrupt(offset int64, format string, args ...any) error {
	return &CorruptError{Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// UnknownCodecError is an entry compressed in a way its format does not know.
type UnknownCodecError struct {
	Offset int64 // source offset of the entry
	Codec  Codec
}

func (e *UnknownCodecError) Error() string {
	return fmt.Sprintf("read records at offset %d: unknown compression codec %d", e.Offset, int8(e.Codec))
}

// Split cuts the first entry off the records of a fetch answer: a record batch
// v2, or a message v0 or v1. Both results alias records. The error is
// ErrPartial if the entry is not complete, which includes no bytes at all, or
// a *CorruptError.
func Split(records []byte) (entry, rest []byte, err error) {
	if len(records) < entryHeader {
		return nil, records, ErrPartial
	}
	offset := int64(binary.BigEndian.Uint64(records[atBaseOffset:]))
	length := int32(binary.BigEndian.Uint32(records[atLength:]))
	if length < messageHeaderV0-entryHeader {
		return nil, records, corrupt(offset, "length is %d", length)
	}
	if len(records) > atMagic {
		// Said even of a partial entry: one that never becomes complete
		// would otherwise look like an answer that is too small.
		switch magic := int8(records[atMagic]); {
		case magic < 0 || magic > 2:
			return nil, records, corrupt(offset, "unknown format, magic is %d", magic)
		case magic == 2 && length < batchHeader-entryHeader:
			return nil, records, corrupt(offset, "length is %d", length)
		}
	}
	end := entryHeader + int64(length)
	if end > int64(len(records)) {
		return nil, records, ErrPartial
	}
	return records[:end:end], records[end:], nil
}

// Magic is the format of an entry: 2 for a record batch, 0 or 1 for a message
// of the older formats, -1 for what is too short to be either.
func Magic(entry []byte) int8 {
	if len(entry) <= atMagic {
		return -1
	}
	return int8(entry[atMagic])
}

// NextOffset is the source offset next to the last one an entry of any format
// occupies. The entry comes from Split.
func NextOffset(entry []byte) int64 {
	if Magic(entry) == 2 {
		return Batch(entry).NextOffset()
	}
	// A message that wraps others has the offset of the last one.
	return int64(binary.BigEndian.Uint64(entry[atBaseOffset:])) + 1
}

// Batch is one whole record batch v2, header included. It aliases the frame it
// was read into. Its methods want what Split has returned with magic 2, and
// believe the content only after Verify.
type Batch []byte

// BaseOffset is the offset of the first record the batch was written with.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b[atBaseOffset:])) }

// LeaderEpoch is the epoch of the leader that appended the batch, -1 if none.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[atLeaderEpoch:])) }

// CRC is the CRC32C of everything behind it, as stored.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[atCRC:]) }

// Codec is what the records are compressed with.
func (b Batch) Codec() Codec { return Codec(b.attributes() & attrCodec) }

// LastOffsetDelta is the distance of the last offset from the base offset.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[atLastOffsetDelta:])) }

// LastOffset is the last offset the batch occupies. After compaction there may
// be no record of that offset in it.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// NextOffset is the offset next to the last one the batch occupies.
func (b Batch) NextOffset() int64 { return b.LastOffset() + 1 }

// BaseTimestamp is what the timestamps of the records are relative to, in
// milliseconds since 1970.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[atBaseTimestamp:])) }

// MaxTimestamp is the newest timestamp of the records, or the append time, in
// milliseconds since 1970.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[atMaxTimestamp:])) }

// ProducerID is the idempotent producer's id, -1 if there was none.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[atProducerID:])) }

// ProducerEpoch is the producer's epoch, -1 if there was none.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[atProducerEpoch:])) }

// BaseSequence is the producer's sequence number of the first record, -1 if
// there was none.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[atBaseSequence:])) }

// RecordCount is how many records the batch still holds.
func (b Batch) RecordCount() int32 { return int32(binary.BigEndian.Uint32(b[atRecordCount:])) }

// IsControl reports whether the batch is a control record, not data.
func (b Batch) IsControl() bool { return b.attributes()&attrControl != 0 }

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b.attributes()&attrTransactional != 0 }

// IsLogAppendTime reports whether MaxTimestamp, the time of the append, stands
// for the timestamps of all records.
func (b Batch) IsLogAppendTime() bool { return b.attributes()&attrLogAppendTime != 0 }

// IsDense reports whether every offset of the batch still has its record.
func (b Batch) IsDense() bool { return int64(b.RecordCount()) == int64(b.LastOffsetDelta())+1 }

func (b Batch) attributes() uint16 { return binary.BigEndian.Uint16(b[atAttributes:]) }

// Verify checks the batch without opening it: lengths, CRC32C over one pass,
// record count, codec. The error is a *CorruptError that says what is wrong,
// or an *UnknownCodecError.
func (b Batch) Verify() error {
	if len(b) < batchHeader {
		return corrupt(-1, "batch of %d bytes", len(b))
	}
	base := b.BaseOffset()
	length := int32(binary.BigEndian.Uint32(b[atLength:]))
	if int64(length)+entryHeader != int64(len(b)) {
		return corrupt(base, "length is %d in a batch of %d bytes", length, len(b))
	}
	if magic := Magic(b); magic != 2 {
		return corrupt(base, "magic is %d, not 2", magic)
	}
	if sum := crc32.Checksum(b[atAttributes:], castagnoli); sum != b.CRC() {
		return corrupt(base, "crc is %08x, computed %08x", b.CRC(), sum)
	}
	delta, count := b.LastOffsetDelta(), b.RecordCount()
	switch {
	case base < 0:
		return corrupt(base, "base offset is negative")
	case delta < 0 || base > math.MaxInt64-1-int64(delta):
		return corrupt(base, "last offset delta is %d", delta)
	case count < 0 || int64(count) > int64(delta)+1:
		return corrupt(base, "%d records in %d offsets", count, int64(delta)+1)
	case b.Codec() > Zstd:
		return &UnknownCodecError{Offset: base, Codec: b.Codec()}
	case b.Codec() == None && int64(count)*minRecord > int64(len(b)-batchHeader):
		return corrupt(base, "%d records in %d bytes", count, len(b)-batchHeader)
	}
	return nil
}

// Stamp makes the batch ready to be produced, in place: base offset 0, leader
// epoch -1, the producer given; the transactional and delete-horizon bits and
// those without a meaning are cleared. The CRC is derived from the old one and
// the changed header, so it holds for the records if and only if the old one
// did. The control bit stays: a broker refuses it, better than a marker that
// becomes a record.
func (b Batch) Stamp(producerID int64, epoch int16, sequence int32) {
	changed := b[atAttributes:atRecordCount]
	before := crc32.Update(0, castagnoli, changed)

	binary.BigEndian.PutUint64(b[atBaseOffset:], 0)
	binary.BigEndian.PutUint32(b[atLeaderEpoch:], math.MaxUint32)
	binary.BigEndian.PutUint16(b[atAttributes:], b.attributes()&(attrCodec|attrLogAppendTime|attrControl))
	binary.BigEndian.PutUint64(b[atProducerID:], uint64(producerID))
	binary.BigEndian.PutUint16(b[atProducerEpoch:], uint16(epoch))
	binary.BigEndian.PutUint32(b[atBaseSequence:], uint32(sequence))

	difference := before ^ crc32.Update(0, castagnoli, changed)
	crc := b.CRC() ^ crcAdvance(difference, len(b)-atRecordCount)
	binary.BigEndian.PutUint32(b[atCRC:], crc)
}

// ControlType is what a control record says.
type ControlType int8

// The control records that end a transaction. Brokers write others, which mean
// nothing to a reader of the records.
const (
	ControlUnknown ControlType = iota - 1
	ControlAbort
	ControlCommit
)

// String is the name of the control record.
func (t ControlType) String() string {
	switch t {
	case ControlAbort:
		return "abort"
	case ControlCommit:
		return "commit"
	}
	return "unknown"
}

// ControlType reads what a control batch says. A control batch whose record
// compaction has removed says nothing: ControlUnknown. The batch is verified;
// a control record that cannot be read is a *CorruptError.
func (b Batch) ControlType() (ControlType, error) {
	if !b.IsControl() {
		return ControlUnknown, corrupt(b.BaseOffset(), "not a control batch")
	}
	if b.Codec() != None {
		return ControlUnknown, corrupt(b.BaseOffset(), "control batch is compressed with %s", b.Codec())
	}
	if b.RecordCount() == 0 {
		return ControlUnknown, nil
	}
	r, _, reason := cutRecord(b[batchHeader:])
	if reason == "" {
		reason = checkBody(r.body)
	}
	if reason != "" {
		return ControlUnknown, corrupt(b.BaseOffset(), "control record: %s", reason)
	}
	// The key: version int16, type int16.
	size, n := varint(r.body)
	if size < 4 {
		return ControlUnknown, corrupt(b.BaseOffset(), "control record: key of %d bytes", size)
	}
	switch binary.BigEndian.Uint16(r.body[n+2:]) {
	case 0:
		return ControlAbort, nil
	case 1:
		return ControlCommit, nil
	}
	return ControlUnknown, nil
}
