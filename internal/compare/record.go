package compare

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

// canonical appends the form of a record that both sides must share:
// timestamp, key, value, headers in order; null and empty differ. Offsets,
// producers and codecs are not part of it.
func canonical(dst []byte, r *kgo.Record) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(millis(r)))
	dst = field(dst, r.Key)
	dst = field(dst, r.Value)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = field(dst, h.Value)
	}
	return dst
}

// millis is the timestamp in ms. Message format 0 has none: kgo gives the zero
// time then, where the protocol says -1.
func millis(r *kgo.Record) int64 {
	if r.Timestamp.IsZero() {
		return -1
	}
	return r.Timestamp.UnixMilli()
}

// field appends a length and bytes, a null as length 2^32-1.
func field(dst, b []byte) []byte {
	if b == nil {
		return binary.LittleEndian.AppendUint32(dst, 1<<32-1)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// same compares field by field, so that equality never rests on a hash.
func same(a, b *kgo.Record) bool {
	return millis(a) == millis(b) && sameBytes(a.Key, b.Key) && sameBytes(a.Value, b.Value) && sameHeaders(a, b)
}

func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func sameHeaders(a, b *kgo.Record) bool {
	if len(a.Headers) != len(b.Headers) {
		return false
	}
	for i := range a.Headers {
		if a.Headers[i].Key != b.Headers[i].Key || !sameBytes(a.Headers[i].Value, b.Headers[i].Value) {
			return false
		}
	}
	return true
}

// similar reports whether two differing records are one record that was
// changed, not two different ones.
func similar(a, b *kgo.Record) bool {
	n := 0
	for _, eq := range []bool{millis(a) == millis(b), sameBytes(a.Key, b.Key), sameBytes(a.Value, b.Value)} {
		if eq {
			n++
		}
	}
	return n >= 2
}

// changes names the fields in which the target's record differs.
func changes(source, target *kgo.Record) string {
	var out []string
	if s, t := millis(source), millis(target); s != t {
		out = append(out, fmt.Sprintf("timestamp %d -> %d", s, t))
	}
	if !sameBytes(source.Key, target.Key) {
		out = append(out, "key "+bytesChange(source.Key, target.Key))
	}
	if !sameBytes(source.Value, target.Value) {
		out = append(out, "value "+bytesChange(source.Value, target.Value))
	}
	if !sameHeaders(source, target) {
		out = append(out, headersChange(source.Headers, target.Headers))
	}
	return strings.Join(out, ", ")
}

func headersChange(s, t []kgo.RecordHeader) string {
	if len(s) != len(t) {
		return fmt.Sprintf("headers %d -> %d", len(s), len(t))
	}
	for i := range s {
		if s[i].Key != t[i].Key {
			return fmt.Sprintf("header %d key %s", i, bytesChange([]byte(s[i].Key), []byte(t[i].Key)))
		}
		if !sameBytes(s[i].Value, t[i].Value) {
			return fmt.Sprintf("header %d (%s) value %s", i, printable([]byte(s[i].Key)), bytesChange(s[i].Value, t[i].Value))
		}
	}
	return "headers equal"
}

func bytesChange(s, t []byte) string {
	if len(s) > 32 && len(t) > 32 {
		at := 0
		for at < min(len(s), len(t)) && s[at] == t[at] {
			at++
		}
		return fmt.Sprintf("%d bytes -> %d bytes, first difference at byte %d", len(s), len(t), at)
	}
	return printable(s) + " -> " + printable(t)
}

// printable shows bytes safely: null, or a quoted prefix.
func printable(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 40:
		return fmt.Sprintf("%q+%d", b[:40], len(b)-40)
	default:
		return fmt.Sprintf("%q", b)
	}
}

// entry is a record with the hash of its canonical form.
type entry struct {
	record *kgo.Record
	hash   uint64
}

// sum is the running checksum of a stream of entries.
type sum struct{ d *xxhash.Digest }

func newSum() sum { return sum{xxhash.New()} }

func (s sum) add(hash uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], hash)
	_, _ = s.d.Write(b[:]) // a Digest never fails
}

func hashOf(r *kgo.Record) uint64 { return xxhash.Sum64(canonical(nil, r)) }
