// Package fields reads the binary records of the journal and of the checkpoints:
// zigzag varints, strings of Kafka's length, times in milliseconds since 1970.
package fields

import (
	"encoding/binary"
	"time"
)

// MaxString is the longest string, in bytes: what Kafka's own can hold.
const MaxString = 1<<15 - 1

// Decoder reads fields off a buffer. The first thing wrong stays in Bad, and all
// reads after it return zero, so that whoever reads looks at it once, at the end.
type Decoder struct {
	b   []byte
	Bad string // as a predicate: "is cut off"
}

// Decode reads b, which must not change meanwhile.
func Decode(b []byte) Decoder { return Decoder{b: b} }

// Fail says what is wrong, unless something was before.
func (d *Decoder) Fail(what string) {
	if d.Bad == "" {
		d.Bad = what
	}
	d.b = nil
}

// Take reads n bytes, nil if there are fewer. They are part of the buffer.
func (d *Decoder) Take(n int) []byte {
	if d.Bad != "" || len(d.b) < n {
		d.Fail("is cut off")
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if b := d.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// Uvarint reads an unsigned varint.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.Fail("is cut off")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Varint reads a zigzag varint.
func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.Fail("is cut off")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// UpTo reads an unsigned varint of at most limit.
func (d *Decoder) UpTo(limit uint64) uint64 {
	v := d.Uvarint()
	if v > limit {
		d.Fail("has a number out of range")
		return 0
	}
	return v
}

// Count reads how many items follow, of which all but one take at least size bytes,
// so that a short buffer cannot ask for much memory.
func (d *Decoder) Count(size int) int {
	v := d.Uvarint()
	if v > uint64(len(d.b))/uint64(size)+1 {
		d.Fail("is cut off")
		return 0
	}
	return int(v)
}

// Int32 reads a zigzag varint that fits.
func (d *Decoder) Int32() int32 {
	v := d.Varint()
	if v != int64(int32(v)) {
		d.Fail("has a number out of range")
		return 0
	}
	return int32(v)
}

// String reads a length as an unsigned varint and as many bytes.
func (d *Decoder) String() string { return string(d.Take(int(d.UpTo(MaxString)))) }

// Time reads milliseconds since 1970 as a zigzag varint.
func (d *Decoder) Time() time.Time { return time.UnixMilli(d.Varint()).UTC() }

// End says that nothing may be left.
func (d *Decoder) End() {
	if len(d.b) > 0 {
		d.Fail("has bytes left over")
	}
}

// AppendString is the form String reads.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
