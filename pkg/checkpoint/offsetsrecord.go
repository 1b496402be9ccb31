package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/offsets"
)

// What a broker writes to __consumer_offsets, as seen on 2.8.2, 3.9.1 and 4.3.1:
//
//	key 0, 1    a commit of any kind of consumer group; no value: it is gone
//	key 2       a classic group's members
//	key 3..     members and assignments of KIP-848, share and streams groups
//
//	value 0..3  of commits until Kafka 4.0; 3 has the leader epoch
//	value 4     since 4.1: flexible; a commit outside a transaction has the topic id
//
// Deleting a group, an offset or a topic, and expiry, write one record without
// value for each commit.
const (
	offsetsTopic     = "__consumer_offsets"
	lastCommitKey    = 1
	lastCommitValue  = 4
	firstCommitEpoch = 3 // value version
	firstFlexible    = 4 // value version
)

// errNotCommit says that a record of __consumer_offsets is about something else.
var errNotCommit = errors.New("not a commit")

// undecodableError is a record that is a commit, or may be one, and that we
// cannot read.
type undecodableError struct{ cause error }

func (e *undecodableError) Error() string { return "read commit record: " + e.cause.Error() }
func (e *undecodableError) Unwrap() error { return e.cause }

// decodeCommit reads one record of __consumer_offsets. A nil value is a
// deletion. Records that are no commits give errNotCommit, those that cannot be
// read an *undecodableError.
func decodeCommit(key, value []byte) (Commit, error) {
	c, err := decodeCommitKey(key)
	if err != nil {
		return Commit{}, err
	}
	if value == nil {
		return c, nil
	}
	c.Deleted = false
	if len(value) < 2 {
		return Commit{}, &undecodableError{fmt.Errorf("value of %d bytes", len(value))}
	}
	version := int16(binary.BigEndian.Uint16(value))
	if version < 0 || version > lastCommitValue {
		return Commit{}, &undecodableError{fmt.Errorf("value of version %d, which is not known here", version)}
	}
	if version >= firstFlexible && !tagsFit(value) {
		return Commit{}, &undecodableError{fmt.Errorf("value of version %d: more tags than bytes", version)}
	}
	var v kmsg.OffsetCommitValue
	if err := v.ReadFrom(value); err != nil {
		return Commit{}, &undecodableError{fmt.Errorf("value of version %d: %w", version, err)}
	}
	if v.Offset < 0 {
		return Commit{}, &undecodableError{fmt.Errorf("value of version %d: offset %d", version, v.Offset)}
	}
	c.Offset, c.LeaderEpoch, c.Metadata = v.Offset, -1, v.Metadata
	if version >= firstCommitEpoch {
		c.LeaderEpoch = max(v.LeaderEpoch, -1)
	}
	c.Time = time.UnixMilli(v.CommitTimestamp)
	return c, nil
}

// decodeCommitKey reads a key; the commit is Deleted.
func decodeCommitKey(key []byte) (Commit, error) {
	if len(key) < 2 {
		return Commit{}, &undecodableError{fmt.Errorf("key of %d bytes", len(key))}
	}
	if version := int16(binary.BigEndian.Uint16(key)); version < 0 || version > lastCommitKey {
		return Commit{}, errNotCommit
	}
	var k kmsg.OffsetCommitKey
	if err := k.ReadFrom(key); err != nil {
		return Commit{}, &undecodableError{fmt.Errorf("key: %w", err)}
	}
	if n := 2 + 2 + len(k.Group) + 2 + len(k.Topic) + 4; n != len(key) {
		return Commit{}, &undecodableError{fmt.Errorf("key of %d bytes where its fields take %d", len(key), n)}
	}
	if k.Topic == "" || k.Partition < 0 {
		return Commit{}, &undecodableError{fmt.Errorf("key: partition %d of topic %q", k.Partition, k.Topic)}
	}
	return Commit{
		Key:     Key{Group: k.Group, Type: Consumer, Lane: offsets.Lane{Topic: k.Topic, Partition: k.Partition}},
		Deleted: true, LeaderEpoch: -1,
	}, nil
}

// tagsFit says that a flexible value has no more tagged fields than it can
// hold: kmsg would count to four billion.
func tagsFit(value []byte) bool {
	const metadataAt = 2 + 8 + 4 // version, offset, leader epoch
	if len(value) < metadataAt {
		return false
	}
	rest := value[metadataAt:]
	n, width := binary.Uvarint(rest) // the length of the metadata + 1
	const timestamp = 8
	if width <= 0 || n == 0 || n-1 > uint64(len(rest)) || width+int(n-1)+timestamp > len(rest) {
		return false
	}
	tags, width := binary.Uvarint(rest[width+int(n-1)+timestamp:])
	return width > 0 && tags <= uint64(len(rest))
}
