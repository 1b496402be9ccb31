package mirrormaker

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// Names of topics.
const (
	// HeartbeatsTopic is where heartbeats are written, on the source of a link.
	HeartbeatsTopic = "heartbeats"
	// version of checkpoints and heartbeats. Offset syncs have none.
	version = 0
)

// CheckpointsTopic is where the checkpoints of a source's groups are, on the target.
func CheckpointsTopic(source string) string { return source + ".checkpoints.internal" }

// RemoteHeartbeats is where the heartbeats of a source are copied to, whatever the
// naming of other topics.
func RemoteHeartbeats(source string) string { return source + "." + HeartbeatsTopic }

// OffsetSyncsTopic is where MirrorMaker 2 keeps its offset syncs: by default on the
// source, named after the target, else the other way round.
func OffsetSyncsTopic(other string) string { return "mm2-offset-syncs." + other + ".internal" }

// VersionError is a record of a version this package does not know.
type VersionError struct {
	Record  string // checkpoint or heartbeat
	Version int16  // found
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("decode MirrorMaker 2 %s: version %d, known is %d", e.Record, e.Version, version)
}

// CorruptError is a record that cannot be read.
type CorruptError struct {
	Record string // checkpoint, heartbeat or offset sync
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("decode MirrorMaker 2 %s: %s", e.Record, e.Reason)
}

// Checkpoint is where a group stands in a partition on both sides.
type Checkpoint struct {
	Group      string
	Topic      string // on the target
	Partition  int32
	Upstream   int64 // next source offset
	Downstream int64 // next target offset
	Metadata   string
}

// Encode returns the record.
func (c Checkpoint) Encode() (key, value []byte, err error) {
	if err := encodable("checkpoint", c.Group, c.Topic, c.Metadata); err != nil {
		return nil, nil, err
	}
	key = appendString(appendString(nil, c.Group), c.Topic)
	key = binary.BigEndian.AppendUint32(key, uint32(c.Partition))
	value = binary.BigEndian.AppendUint16(nil, version)
	value = binary.BigEndian.AppendUint64(value, uint64(c.Upstream))
	value = binary.BigEndian.AppendUint64(value, uint64(c.Downstream))
	return key, appendString(value, c.Metadata), nil
}

// DecodeCheckpoint reads a record: [*VersionError] or [*CorruptError].
func DecodeCheckpoint(key, value []byte) (Checkpoint, error) {
	k := reader{b: key}
	c := Checkpoint{Group: k.string(), Topic: k.string(), Partition: k.int32()}
	v := reader{b: value}
	if n := v.int16(); v.bad == "" && n != version {
		return Checkpoint{}, &VersionError{"checkpoint", n}
	}
	c.Upstream, c.Downstream, c.Metadata = v.int64(), v.int64(), v.string()
	return c, done("checkpoint", &k, &v)
}

// Heartbeat says that a cluster was written to at a time.
type Heartbeat struct {
	Source, Target string // aliases of the clusters
	Timestamp      int64  // milliseconds since 1970
}

// Encode returns the record.
func (h Heartbeat) Encode() (key, value []byte, err error) {
	if err := encodable("heartbeat", h.Source, h.Target); err != nil {
		return nil, nil, err
	}
	key = appendString(appendString(nil, h.Source), h.Target)
	value = binary.BigEndian.AppendUint16(nil, version)
	return key, binary.BigEndian.AppendUint64(value, uint64(h.Timestamp)), nil
}

// DecodeHeartbeat reads a record: [*VersionError] or [*CorruptError].
func DecodeHeartbeat(key, value []byte) (Heartbeat, error) {
	k := reader{b: key}
	h := Heartbeat{Source: k.string(), Target: k.string()}
	v := reader{b: value}
	if n := v.int16(); v.bad == "" && n != version {
		return Heartbeat{}, &VersionError{"heartbeat", n}
	}
	h.Timestamp = v.int64()
	return h, done("heartbeat", &k, &v)
}

// OffsetSync is one record on both sides.
type OffsetSync struct {
	Topic      string // on the source
	Partition  int32
	Upstream   int64 // source offset of the record
	Downstream int64 // its target offset
}

// Encode returns the record.
func (s OffsetSync) Encode() (key, value []byte, err error) {
	if err := encodable("offset sync", s.Topic); err != nil {
		return nil, nil, err
	}
	key = binary.BigEndian.AppendUint32(appendString(nil, s.Topic), uint32(s.Partition))
	value = binary.BigEndian.AppendUint64(nil, uint64(s.Upstream))
	return key, binary.BigEndian.AppendUint64(value, uint64(s.Downstream)), nil
}

// DecodeOffsetSync reads a record: [*CorruptError].
func DecodeOffsetSync(key, value []byte) (OffsetSync, error) {
	k := reader{b: key}
	s := OffsetSync{Topic: k.string(), Partition: k.int32()}
	v := reader{b: value}
	s.Upstream, s.Downstream = v.int64(), v.int64()
	return s, done("offset sync", &k, &v)
}

// encodable refuses what Kafka's strings cannot hold.
func encodable(record string, texts ...string) error {
	for _, s := range texts {
		if len(s) > math.MaxInt16 {
			return fmt.Errorf("encode MirrorMaker 2 %s: a text of %d bytes is longer than %d", record, len(s), math.MaxInt16)
		}
		if !utf8.ValidString(s) {
			return fmt.Errorf("encode MirrorMaker 2 %s: %q is not UTF-8", record, s)
		}
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// reader reads fields off a buffer; the first thing wrong stays in bad, and all
// reads after it return zero.
type reader struct {
	b   []byte
	bad string
}

func (r *reader) take(n int) []byte {
	if r.bad == "" && (n < 0 || n > len(r.b)) {
		r.bad = "is cut off"
	}
	if r.bad != "" {
		return make([]byte, min(max(n, 0), 8))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) int16() int16 { return int16(binary.BigEndian.Uint16(r.take(2))) }
func (r *reader) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }
func (r *reader) int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

func (r *reader) string() string {
	n := int(r.int16())
	if n < 0 && r.bad == "" {
		r.bad = "has a text of negative length"
	}
	if r.bad != "" {
		return ""
	}
	s := string(r.take(n))
	switch {
	case r.bad != "":
		return ""
	case !utf8.ValidString(s):
		r.bad = "has a text that is not UTF-8"
	}
	return s
}

// done is nil if key and value were read to their ends.
func done(record string, key, value *reader) error {
	for _, part := range []struct {
		name string
		r    *reader
	}{{"key", key}, {"value", value}} {
		if part.r.bad == "" && len(part.r.b) > 0 {
			part.r.bad = "has bytes left over"
		}
		if part.r.bad != "" {
			return &CorruptError{record, part.name + " " + part.r.bad}
		}
	}
	return nil
}
