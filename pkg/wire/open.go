package wire

import (
	"bytes"
	"encoding/binary"
)

// Record is one record of an entry as a consumer sees it. It lies in the entry or
// in the Opener's buffers.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since 1970, -1 in format 0; the broker's where it stamps
	// Body is key, value and headers as in a batch v2, whatever the entry's format.
	Body []byte
}

// Parts cuts the body into the key, the value and the headers. Key and value are
// nil where the record has none; headers begin with their count.
func (r Record) Parts() (key, value, headers []byte) {
	key, rest := cutVarBytes(r.Body)
	value, rest = cutVarBytes(rest)
	return key, value, rest
}

// cutVarBytes cuts a value behind its varint length off a body that was checked.
func cutVarBytes(b []byte) (value, rest []byte) {
	size, n := varint(b)
	b = b[n:]
	if size < 0 {
		return nil, b
	}
	return b[:size:size], b[size:]
}

// Opener opens entries of all formats for those who read records and copy none. It
// reuses its buffers. It is not for concurrent use.
type Opener struct{ p *Packer }

// NewOpener returns an Opener of entries that decompress to at most maxDecoded
// bytes; <= 0: 128 MiB.
func NewOpener(maxDecoded int) *Opener {
	return &Opener{NewPacker(PackConfig{MaxDecoded: maxDecoded})}
}

// Records calls visit for the records of the entry whose offset is at least from.
// The entry comes from Split; batches v2 have been verified, messages v0 and v1 are
// checked here. A record is only valid during the call. After an error,
// *CorruptError, *UnknownCodecError or *BombError, none was visited.
func (o *Opener) Records(entry []byte, from int64, visit func(Record)) error {
	o.p.visit = visit
	err := o.p.Add(entry, from)
	o.p.visit = nil
	o.p.clear()
	return err
}

// SameContent reports whether two batches v2 without holes hold the same records
// byte for byte, so that neither has to be opened: same number, timestamps, codec
// and bytes. What a copy changes in the header is not looked at. False says nothing:
// the same records can lie in a batch in many ways.
func SameContent(a, b Batch) bool {
	const seen = attrCodec | attrLogAppendTime
	return len(a) == len(b) && a.IsDense() && b.IsDense() && a.RecordCount() == b.RecordCount() &&
		a.attributes()&seen == b.attributes()&seen &&
		binary.BigEndian.Uint64(a[atBaseTimestamp:]) == binary.BigEndian.Uint64(b[atBaseTimestamp:]) &&
		binary.BigEndian.Uint64(a[atMaxTimestamp:]) == binary.BigEndian.Uint64(b[atMaxTimestamp:]) &&
		bytes.Equal(a[batchHeader:], b[batchHeader:])
}

// Content is the compressed records of a batch v2, behind its header.
func (b Batch) Content() []byte { return b[batchHeader:] }
