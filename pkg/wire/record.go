package wire

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// record is one record of a batch v2, cut but not taken apart.
type record struct {
	timestampDelta int64
	offsetDelta    int64
	body           []byte // from the key's length on: key, value, headers
}

// cutRecord cuts the first record off the records of a batch. It returns a
// reason, and nothing else, if they do not begin with a record. It believes
// the body: checkBody looks into it.
func cutRecord(records []byte) (r record, rest []byte, reason string) {
	length, n := varint(records)
	if n == 0 || length < minRecord-1 || length > int64(len(records)-n) {
		return record{}, nil, "record length does not fit"
	}
	rest = records[n+int(length):]
	b := records[n+1 : n+int(length)] // behind the attributes, of which none is in use
	if r.timestampDelta, n = varint(b); n == 0 {
		return record{}, nil, "timestamp delta cannot be read"
	}
	b = b[n:]
	if r.offsetDelta, n = varint(b); n == 0 {
		return record{}, nil, "offset delta cannot be read"
	}
	r.body = b[n:]
	return r, rest, ""
}

// checkBody returns what is wrong with the lengths in a record's body, "" if
// key, value and headers fill it exactly.
func checkBody(b []byte) (reason string) {
	b, ok := skipBytes(b, -1)
	if !ok {
		return "key length does not fit"
	}
	if b, ok = skipBytes(b, -1); !ok {
		return "value length does not fit"
	}
	headers, n := varint(b)
	if n == 0 || headers < 0 || headers > int64(len(b)-n)/2 {
		return "header count does not fit"
	}
	b = b[n:]
	for range headers {
		if b, ok = skipBytes(b, 0); !ok {
			return "header key length does not fit"
		}
		if b, ok = skipBytes(b, -1); !ok {
			return "header value length does not fit"
		}
	}
	if len(b) > 0 {
		return "bytes left over in a record"
	}
	return ""
}

// skipBytes skips a length of at least least, and that many bytes if it is
// not the -1 of null.
func skipBytes(b []byte, least int64) (rest []byte, ok bool) {
	size, n := varint(b)
	if n == 0 || size < least || size > int64(len(b)-n) {
		return nil, false
	}
	return b[n+int(max(size, 0)):], true
}

// appendRecord appends a record as it stands in a batch v2.
func appendRecord(dst []byte, timestampDelta, offsetDelta int64, body []byte) []byte {
	length := 1 + varintLen(timestampDelta) + varintLen(offsetDelta) + len(body)
	dst = binary.AppendVarint(dst, int64(length))
	dst = append(dst, 0) // attributes
	dst = binary.AppendVarint(dst, timestampDelta)
	dst = binary.AppendVarint(dst, offsetDelta)
	return append(dst, body...)
}

// maxRecordHead bounds what stands before the body of a record.
const maxRecordHead = binary.MaxVarintLen32 + 1 + binary.MaxVarintLen64 + binary.MaxVarintLen32

// varint reads a zigzag varint. n is how many bytes it takes, 0 if there is
// none.
func varint(b []byte) (v int64, n int) {
	// One or two bytes: nearly all of them.
	if len(b) > 0 && b[0] < 0x80 {
		return int64(b[0]>>1) ^ -int64(b[0]&1), 1
	}
	if len(b) > 1 && b[1] < 0x80 {
		u := int64(b[0]&0x7f) | int64(b[1])<<7
		return u>>1 ^ -(u & 1), 2
	}
	v, n = binary.Varint(b)
	return v, max(n, 0)
}

// varintLen is how many bytes the zigzag varint of v takes.
func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}

// appendBytes appends a value with its varint length, nil as null.
func appendBytes(dst, value []byte) []byte {
	if value == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(value))), value...)
}

// maxInt32 bounds offsets within a batch.
const maxInt32 = math.MaxInt32
