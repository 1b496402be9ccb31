package wire

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Digest returns a hash of the record with the given offset of a batch v2: of
// its key, value, headers and timestamp as a consumer sees them. It is the same
// on both sides of a copy, whatever batch the record lies in. ok is false if the
// batch does not hold the offset. The Packer's content is not touched.
func (p *Packer) Digest(b Batch, offset int64) (digest uint64, ok bool, err error) {
	if len(b) < batchHeader || b.IsControl() || offset < b.BaseOffset() || offset > b.LastOffset() {
		return 0, false, nil
	}
	records := []byte(b[batchHeader:])
	switch codec := b.Codec(); {
	case codec > Zstd:
		return 0, false, &UnknownCodecError{Offset: b.BaseOffset(), Codec: codec}
	case codec != None:
		if records, err = p.decompress(b.BaseOffset(), codec, records); err != nil {
			return 0, false, err
		}
	}
	for len(records) > 0 {
		r, rest, reason := cutRecord(records)
		if reason != "" {
			return 0, false, corrupt(b.BaseOffset(), "%s", reason)
		}
		if b.BaseOffset()+r.offsetDelta == offset {
			timestamp := b.BaseTimestamp() + r.timestampDelta
			if b.IsLogAppendTime() {
				timestamp = b.MaxTimestamp()
			}
			h := xxhash.New()
			_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(timestamp)))
			_, _ = h.Write(r.body)
			return h.Sum64(), true, nil
		}
		records = rest
	}
	return 0, false, nil
}
