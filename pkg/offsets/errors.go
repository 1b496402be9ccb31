package offsets

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ErrFull is the answer of [Journal.Append] when its buffer is full.
var ErrFull = errors.New("append to journal: buffer is full")

// ErrClosed is the answer of a journal that was closed.
var ErrClosed = errors.New("use journal: closed")

// ErrReadOnly is the answer of [Journal.Append] of a journal opened to be read only.
var ErrReadOnly = errors.New("append to journal: it was opened to be read only")

// VersionError is an entry of a kind or version this program does not know. It was written by a
// newer one; nothing of it is guessed.
type VersionError struct {
	Topic     string // of the journal; empty when the entry did not come out of one
	Partition int32  // of the journal
	Offset    int64  // of the journal's record
	Kind      Kind
	Version   int    // found
	Known     int    // newest version known of this kind, 0 if the kind is unknown
	Part      string // "key" or "value"
}

func (e *VersionError) Error() string {
	what := fmt.Sprintf("version %d of %s (%s), newest known is %d", e.Version, e.Kind, e.Part, e.Known)
	if e.Known == 0 {
		what = fmt.Sprintf("version %d of unknown %s", e.Version, e.Kind)
	}
	return fmt.Sprintf("read journal entry%s: %s: written by a newer replicator", place(e.Topic, e.Partition, e.Offset), what)
}

// CorruptError is an entry that cannot be read, or that contradicts another one.
type CorruptError struct {
	Topic     string // of the journal; empty when the entry did not come out of one
	Partition int32  // of the journal
	Offset    int64  // of the journal's record
	Kind      Kind   // 0 if not even that is known
	Reason    string
}

func (e *CorruptError) Error() string {
	kind := ""
	if e.Kind != 0 {
		kind = e.Kind.String() + ": "
	}
	return fmt.Sprintf("read journal entry%s: %s%s", place(e.Topic, e.Partition, e.Offset), kind, e.Reason)
}

// TopicError is a journal topic that is not what it must be: deleted, made anew, cut, with another
// number of partitions, or with settings that lose facts.
type TopicError struct {
	Topic  string // of the journal
	Reason string // and what to do where something can be done
}

func (e *TopicError) Error() string { return fmt.Sprintf("use journal %s: %s", e.Topic, e.Reason) }

// right adds to a refused authorization what has to be granted on the journal's
// topic, and to a refused time what is wrong; other errors stay as they are.
func right(err error, operation, topic string) error {
	if errors.Is(err, kerr.InvalidTimestamp) {
		return fmt.Errorf("%w; the clocks of this machine and of the target's brokers are too far apart, set them right (NTP)", err)
	}
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return fmt.Errorf("%w; grant %s on topic %s", err, operation, topic)
	}
	return err
}

func place(topic string, partition int32, offset int64) string {
	if topic == "" {
		return ""
	}
	return fmt.Sprintf(" of %s, partition %d, offset %d", topic, partition, offset)
}
