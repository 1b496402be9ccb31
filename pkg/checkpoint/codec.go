package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"replicator/pkg/offsets"
)

// The binary form of a record of the checkpoints topic.
//
// A key is: kind (1 byte), version (uvarint), then of a checkpoint: group (length
// as uvarint, bytes), type of the group (1 byte), source topic, source partition
// (uvarint); of a freshness: the daemon's instance. A value is: version (uvarint), then the
// fields in the order of the struct. Signed numbers are zigzag varints, times are
// milliseconds since 1970. A record without a value deletes. The same record
// always has the same bytes; a key in another form is refused, because compaction
// would take it for another one.
const (
	kindCheckpoint = 1
	kindFreshness  = 2

	recordVersion = 1
	maxString     = 1<<15 - 1 // what Kafka's own strings can hold
)

// Freshness is what a daemon says of itself every few seconds: up to when it knew
// all commits of the source. It is how fresh checkpoints are when nobody commits.
type Freshness struct {
	Instance string
	Mode     string    // tail or poll
	Current  time.Time // commits acknowledged by then are in the checkpoints, millisecond precision
}

// VersionError is a record of a newer replicator; nothing of it is guessed.
type VersionError struct {
	Topic     string // empty when the record did not come out of one
	Partition int32
	Offset    int64 // of the record
	Version   int   // found
	Part      string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("read checkpoint%s: version %d of its %s, newest known is %d: written by a newer replicator", place(e.Topic, e.Partition, e.Offset), e.Version, e.Part, recordVersion)
}

// CorruptError is a record that cannot be read.
type CorruptError struct {
	Topic     string // empty when the record did not come out of one
	Partition int32
	Offset    int64 // of the record
	Reason    string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read checkpoint%s: %s", place(e.Topic, e.Partition, e.Offset), e.Reason)
}

func place(topic string, partition int32, offset int64) string {
	if topic == "" {
		return ""
	}
	return fmt.Sprintf(" of %s, partition %d, offset %d", topic, partition, offset)
}

func encodeKey(k Key) []byte {
	b := []byte{kindCheckpoint}
	b = binary.AppendUvarint(b, recordVersion)
	b = appendString(b, k.Group)
	b = append(b, byte(k.Type))
	b = appendString(b, k.Lane.Topic)
	return binary.AppendUvarint(b, uint64(uint32(k.Lane.Partition)))
}

func encodeValue(c *Checkpoint) []byte {
	b := binary.AppendUvarint(nil, recordVersion)
	b = binary.AppendVarint(b, c.Source)
	b = binary.AppendVarint(b, int64(c.LeaderEpoch))
	b = appendString(b, c.Metadata)
	b = binary.AppendVarint(b, c.Committed.UnixMilli())
	b = binary.AppendVarint(b, c.Target)
	b = append(b, byte(c.Outcome))
	b = binary.AppendVarint(b, c.Missing)
	b = binary.AppendVarint(b, c.Checked.UnixMilli())
	return binary.AppendVarint(b, c.Placed)
}

func encodeFreshness(f Freshness) (key, value []byte) {
	key = appendString(binary.AppendUvarint([]byte{kindFreshness}, recordVersion), f.Instance)
	value = appendString(binary.AppendUvarint(nil, recordVersion), f.Mode)
	return key, binary.AppendVarint(value, f.Current.UnixMilli())
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// record is a decoded record: one of the two, or its deletion.
type record struct {
	checkpoint *Checkpoint
	fresh      *Freshness
	deleted    bool // only key or instance mean something
}

// decode reads a record; a nil value is a deletion. Errors are [*VersionError] and
// [*CorruptError].
func decode(key, value []byte) (record, error) {
	d := decoder{b: key}
	kind := d.byte()
	if v := d.uvarint(); d.bad == "" && v != recordVersion {
		return record{}, &VersionError{Version: int(min(v, math.MaxInt32)), Part: "key"}
	}
	var e record
	var again []byte
	switch kind {
	case kindCheckpoint:
		c := &Checkpoint{}
		c.Group = d.string()
		c.Type = GroupType(d.byte())
		c.Lane.Topic = d.string()
		c.Lane.Partition = int32(d.upTo(math.MaxInt32))
		e.checkpoint, again = c, encodeKey(c.Key)
		if c.Type > Share {
			d.fail("unknown type of group")
		}
	case kindFreshness:
		e.fresh = &Freshness{Instance: d.string()}
		again, _ = encodeFreshness(*e.fresh)
	default:
		d.fail(fmt.Sprintf("unknown kind %d", kind))
	}
	if d.end(); d.bad == "" && !bytes.Equal(again, key) {
		d.fail("not in its shortest form")
	}
	if d.bad != "" {
		return record{}, &CorruptError{Reason: "key " + d.bad}
	}
	if value == nil {
		e.deleted = true
		return e, nil
	}
	d = decoder{b: value}
	if v := d.uvarint(); d.bad == "" && v != recordVersion {
		return record{}, &VersionError{Version: int(min(v, math.MaxInt32)), Part: "value"}
	}
	if c := e.checkpoint; c != nil {
		c.Source, c.LeaderEpoch, c.Metadata, c.Committed = d.varint(), d.int32(), d.string(), d.time()
		c.Target, c.Outcome, c.Missing, c.Checked = d.varint(), offsets.Outcome(d.byte()), d.varint(), d.time()
		c.Placed = d.varint()
		if c.Outcome > offsets.Before {
			d.fail("unknown outcome")
		}
	} else {
		e.fresh.Mode, e.fresh.Current = d.string(), d.time()
	}
	if d.end(); d.bad != "" {
		return record{}, &CorruptError{Reason: "value " + d.bad}
	}
	return e, nil
}

// decoder reads fields off a buffer; the first thing wrong stays in bad, and all
// reads after it return zero.
type decoder struct {
	b   []byte
	bad string
}

func (d *decoder) fail(what string) {
	if d.bad == "" {
		d.bad = what
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("is cut off")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("is cut off")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("is cut off")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) upTo(limit uint64) uint64 {
	v := d.uvarint()
	if v > limit {
		d.fail("has a number out of range")
		return 0
	}
	return v
}

func (d *decoder) int32() int32 {
	v := d.varint()
	if v != int64(int32(v)) {
		d.fail("has a number out of range")
	}
	return int32(v)
}

func (d *decoder) string() string {
	n := int(d.upTo(maxString))
	if len(d.b) < n {
		d.fail("is cut off")
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) time() time.Time { return time.UnixMilli(d.varint()).UTC() }

func (d *decoder) end() {
	if len(d.b) > 0 {
		d.fail("has bytes left over")
	}
}
