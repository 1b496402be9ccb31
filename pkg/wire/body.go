package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// appendRequestHeader begins a request: a place for its size, then the header
// with a place for the correlation id.
func appendRequestHeader(b []byte, key, version int16, clientID string, flexible bool) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = append(b, 0, 0, 0, 0)
	// Never compact, not even in flexible versions.
	b = binary.BigEndian.AppendUint16(b, uint16(len(clientID)))
	b = append(b, clientID...)
	if flexible {
		b = append(b, 0) // no tags
	}
	return b
}

// finishRequest fills in what the header left open. total is the size of the
// request with its size field.
func finishRequest(b []byte, total int, corr int32) {
	binary.BigEndian.PutUint32(b, uint32(total-4))
	binary.BigEndian.PutUint32(b[8:], uint32(corr))
}

func appendInt32(b []byte, v int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func appendInt64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

func appendString(b []byte, s string, flexible bool) []byte {
	if flexible {
		b = binary.AppendUvarint(b, uint64(len(s))+1)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	}
	return append(b, s...)
}

func appendArrayLen(b []byte, n int, flexible bool) []byte {
	if flexible {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return appendInt32(b, int32(n))
}

// appendBytesLen begins a nullable byte string, of which the bytes are written
// apart.
func appendBytesLen(b, data []byte, flexible bool) []byte {
	switch {
	case flexible && data == nil:
		return append(b, 0)
	case flexible:
		return binary.AppendUvarint(b, uint64(len(data))+1)
	case data == nil:
		return appendInt32(b, -1)
	default:
		return appendInt32(b, int32(len(data)))
	}
}

// appendNoTags ends a structure of a flexible version.
func appendNoTags(b []byte, flexible bool) []byte {
	if flexible {
		return append(b, 0)
	}
	return b
}

// bodyReader takes an answer apart. After the first fault everything reads as
// zero and the rest is empty, so that callers check once, at their loops.
// Nothing is allocated by a length the answer only claims.
type bodyReader struct {
	rest  []byte
	fault error
}

var errShort = errors.New("answer ends too early")

func (r *bodyReader) err() error {
	if r.fault != nil {
		return fmt.Errorf("malformed: %w", r.fault)
	}
	return nil
}

func (r *bodyReader) fail(err error) {
	if r.fault == nil {
		r.fault = err
	}
	r.rest = nil
}

// take returns the next n bytes, nil if there are fewer.
func (r *bodyReader) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.fail(errShort)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *bodyReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *bodyReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *bodyReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *bodyReader) uuid() (id [16]byte) {
	copy(id[:], r.take(16))
	return id
}

// uvarint reads an unsigned varint of at most 32 bits.
func (r *bodyReader) uvarint() int {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 5 || v > 1<<32-1 {
		r.fail(errors.New("varint is cut off or too large"))
		return 0
	}
	r.rest = r.rest[n:]
	return int(v)
}

// compactLength reads the length of a string, byte string or array: -1 for null.
func (r *bodyReader) compactLength() int { return r.uvarint() - 1 }

// string reads a string, possibly null, as a slice of the answer.
func (r *bodyReader) string(flexible bool) []byte {
	var n int
	if flexible {
		n = r.compactLength()
	} else {
		n = int(r.int16())
	}
	return r.nullable(n)
}

// bytes reads a byte string, possibly null, as a slice of the answer.
func (r *bodyReader) bytes(flexible bool) []byte {
	var n int
	if flexible {
		n = r.compactLength()
	} else {
		n = int(r.int32())
	}
	return r.nullable(n)
}

func (r *bodyReader) nullable(n int) []byte {
	if n == -1 || r.fault != nil {
		return nil
	}
	return r.take(n)
}

// array reads the length of an array whose elements take at least size bytes
// each; null is empty.
func (r *bodyReader) array(flexible bool, size int) int {
	var n int
	if flexible {
		n = r.compactLength()
	} else {
		n = int(r.int32())
	}
	if n == -1 || r.fault != nil {
		return 0
	}
	if n < 0 || n > len(r.rest)/size {
		r.fail(fmt.Errorf("array of %d elements does not fit into %d bytes", n, len(r.rest)))
		return 0
	}
	return n
}

// tag reads the head of the next tagged field; its content follows.
func (r *bodyReader) tag() (key int, content bodyReader) {
	key = r.uvarint()
	return key, bodyReader{rest: r.take(r.uvarint())}
}

// tags reads the number of tagged fields.
func (r *bodyReader) tags() int {
	n := r.uvarint()
	if n > len(r.rest)/2 {
		r.fail(fmt.Errorf("%d tags do not fit into %d bytes", n, len(r.rest)))
		return 0
	}
	return n
}

func (r *bodyReader) skipTags() {
	for range r.tags() {
		r.tag()
		if r.fault != nil {
			return
		}
	}
}

// skipTagsIf skips the tags that end a structure of a flexible version.
func (r *bodyReader) skipTagsIf(flexible bool) {
	if flexible {
		r.skipTags()
	}
}
