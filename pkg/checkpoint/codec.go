package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"replicator/internal/fields"
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
)

// Freshness is what a daemon says of itself every few seconds: up to when it knew
// all commits of the source. It is how fresh checkpoints are when nobody commits.
type Freshness struct {
	Instance string
	Mode     string    // tail or poll
	Current  time.Time // commits acknowledged by then are in the checkpoints, millisecond precision
	Said     time.Time // when it said so: the record's timestamp
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
	b = fields.AppendString(b, k.Group)
	b = append(b, byte(k.Type))
	b = fields.AppendString(b, k.Lane.Topic)
	return binary.AppendUvarint(b, uint64(uint32(k.Lane.Partition)))
}

func encodeValue(c *Checkpoint) []byte {
	b := binary.AppendUvarint(nil, recordVersion)
	b = binary.AppendVarint(b, c.Source)
	b = binary.AppendVarint(b, int64(c.LeaderEpoch))
	b = fields.AppendString(b, c.Metadata)
	b = binary.AppendVarint(b, c.Committed.UnixMilli())
	b = binary.AppendVarint(b, c.Target)
	b = append(b, byte(c.Outcome))
	b = binary.AppendVarint(b, c.Missing)
	b = binary.AppendVarint(b, c.Checked.UnixMilli())
	return binary.AppendVarint(b, c.Placed)
}

func encodeFreshness(f Freshness) (key, value []byte) {
	key = fields.AppendString(binary.AppendUvarint([]byte{kindFreshness}, recordVersion), f.Instance)
	value = fields.AppendString(binary.AppendUvarint(nil, recordVersion), f.Mode)
	return key, binary.AppendVarint(value, f.Current.UnixMilli())
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
	d := fields.Decode(key)
	kind := d.Byte()
	if v := d.Uvarint(); d.Bad == "" && v != recordVersion {
		return record{}, &VersionError{Version: int(min(v, math.MaxInt32)), Part: "key"}
	}
	var e record
	var again []byte
	switch kind {
	case kindCheckpoint:
		c := &Checkpoint{}
		c.Group = d.String()
		c.Type = GroupType(d.Byte())
		c.Lane.Topic = d.String()
		c.Lane.Partition = int32(d.UpTo(math.MaxInt32))
		e.checkpoint, again = c, encodeKey(c.Key)
		if c.Type > Share {
			d.Fail("unknown type of group")
		}
	case kindFreshness:
		e.fresh = &Freshness{Instance: d.String()}
		again, _ = encodeFreshness(*e.fresh)
	default:
		d.Fail(fmt.Sprintf("unknown kind %d", kind))
	}
	if d.End(); d.Bad == "" && !bytes.Equal(again, key) {
		d.Fail("not in its shortest form")
	}
	if d.Bad != "" {
		return record{}, &CorruptError{Reason: "key " + d.Bad}
	}
	if value == nil {
		e.deleted = true
		return e, nil
	}
	d = fields.Decode(value)
	if v := d.Uvarint(); d.Bad == "" && v != recordVersion {
		return record{}, &VersionError{Version: int(min(v, math.MaxInt32)), Part: "value"}
	}
	if c := e.checkpoint; c != nil {
		c.Source, c.LeaderEpoch, c.Metadata, c.Committed = d.Varint(), d.Int32(), d.String(), d.Time()
		c.Target, c.Outcome, c.Missing, c.Checked = d.Varint(), offsets.Outcome(d.Byte()), d.Varint(), d.Time()
		c.Placed = d.Varint()
		if c.Outcome > offsets.Before {
			d.Fail("unknown outcome")
		}
	} else {
		e.fresh.Mode, e.fresh.Current = d.String(), d.Time()
	}
	if d.End(); d.Bad != "" {
		return record{}, &CorruptError{Reason: "value " + d.Bad}
	}
	return e, nil
}
