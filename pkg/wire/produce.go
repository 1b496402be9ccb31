package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	produceLowest   = 3  // the first with record batches
	produceFlexible = 9  // the first with compact lengths and tags
	produceByName   = 12 // the last that names topics
	produceByID     = 13 // the first that takes topic ids instead
)

// ProduceRequest asks for one batch to be appended to each of some partitions,
// acknowledged by all in-sync replicas. It and everything it refers to belong
// to the connection from Produce until Done, and may then be used again.
type ProduceRequest struct {
	TimeoutMillis int32         // how long the broker may wait for its replicas
	Parts         []ProducePart // those of one topic next to each other

	// SendBy is asked by the writer right before the first byte goes out.
	// If it says no, nothing is sent and the connection ends with
	// ErrSendRefused. It may be nil and must not block.
	SendBy func() bool

	// Sent is set by the writer right before the first byte goes out, with
	// wall and monotonic time. It means nothing if the error is ErrNotSent.
	Sent time.Time

	// Done runs exactly once, with the answers in Parts or with an error.
	Done func(r *ProduceRequest, err error)
}

// ProducePart is one batch for one partition, and what became of it.
type ProducePart struct {
	Topic     string
	TopicID   [16]byte // used if all parts have one and the broker takes it
	Partition int32
	Records   []byte // exactly one batch, stamped
	Tag       any    // the caller's own

	// The answer, valid when Done got no error.
	ErrorCode          int16
	BaseOffset         int64  // target offset of the first record, -1 on error
	LogStart           int64  // first target offset that still exists, -1 unknown
	Message            string // the broker's words for the error, often empty
	CurrentLeader      int32  // who leads the partition instead, -1 not said
	CurrentLeaderEpoch int32  // and its epoch, -1 not said

	answered bool
}

// Produce sends a request. It never blocks on the network and never runs Done
// on the caller's stack: Done runs on the connection's goroutine, in the order
// of all calls; after the end of the connection on a goroutine of its own, in
// order too. Done must not block. How many requests are under way is the
// caller's to limit.
//
// An error that is ErrNotSent means that the broker has not seen the request.
// Any other leaves that open.
func (c *Conn) Produce(r *ProduceRequest) {
	c.enqueue(call{
		key:     kmsg.Produce.Int16(),
		what:    "Produce",
		extra:   millis(r.TimeoutMillis),
		produce: r,
	})
}

// produceVersion returns the version in which to send r. By topic id, a topic
// that was deleted and created again refuses what was meant for the old one.
func (c *Conn) produceVersion(r *ProduceRequest) (int16, error) {
	byID := len(r.Parts) > 0
	for i := range r.Parts {
		byID = byID && r.Parts[i].TopicID != [16]byte{}
	}
	if v, ok := c.vers[kmsg.Produce.Int16()]; byID && ok && v.min <= produceByID && v.max >= produceByID {
		return produceByID, nil
	}
	return c.negotiate(kmsg.Produce.Int16(), produceLowest, produceByName)
}

// produce puts the body of a produce request into the outbox.
func (o *outbox) produce(r *ProduceRequest, version int16) {
	flexible := version >= produceFlexible
	if flexible {
		o.head = append(o.head, 0) // no transactional id
	} else {
		o.head = append(o.head, 0xff, 0xff)
	}
	o.head = append(o.head, 0xff, 0xff) // acks: all
	o.head = appendInt32(o.head, r.TimeoutMillis)
	topics := 0
	for rest := r.Parts; len(rest) > 0; rest = rest[sameTopic(rest):] {
		topics++
	}
	o.head = appendArrayLen(o.head, topics, flexible)
	for rest := r.Parts; len(rest) > 0; {
		n := sameTopic(rest)
		if version >= produceByID {
			o.head = append(o.head, rest[0].TopicID[:]...)
		} else {
			o.head = appendString(o.head, rest[0].Topic, flexible)
		}
		o.head = appendArrayLen(o.head, n, flexible)
		for i := range rest[:n] {
			p := &rest[i]
			o.head = appendInt32(o.head, p.Partition)
			o.head = appendBytesLen(o.head, p.Records, flexible)
			o.piece(p.Records)
			o.head = appendNoTags(o.head, flexible)
		}
		o.head = appendNoTags(o.head, flexible)
		rest = rest[n:]
	}
	o.head = appendNoTags(o.head, flexible)
}

// sameTopic is how many of the first parts are of one topic.
func sameTopic(parts []ProducePart) int {
	n := 1
	for n < len(parts) && parts[n].Topic == parts[0].Topic && parts[n].TopicID == parts[0].TopicID {
		n++
	}
	return n
}

// readProduceResponse puts an answer into the parts of its request. Every part
// has to be answered exactly once.
func readProduceResponse(body []byte, version int16, r *ProduceRequest) (throttleMillis int32, err error) {
	flexible := version >= produceFlexible
	for i := range r.Parts {
		r.Parts[i].answered = false
	}
	b := bodyReader{rest: body}
	b.skipTagsIf(flexible)
	answers, expected := 0, 0
	for range b.array(flexible, 3) {
		var name []byte
		var id [16]byte
		if version >= produceByID {
			id = b.uuid()
		} else {
			name = b.string(flexible)
		}
		for range b.array(flexible, 22) {
			partition := b.int32()
			if b.fault != nil {
				return 0, b.err()
			}
			p := findPart(r.Parts, expected, version, name, id, partition)
			if p < 0 {
				return 0, fmt.Errorf("malformed: topic %q, partition %d, was not asked for", name, partition)
			}
			if r.Parts[p].answered {
				return 0, fmt.Errorf("malformed: %s-%d answered twice", r.Parts[p].Topic, partition)
			}
			b.producePart(&r.Parts[p], version)
			expected = p + 1
			answers++
			if b.fault != nil {
				return 0, fmt.Errorf("%s-%d: %w", r.Parts[p].Topic, partition, b.err())
			}
		}
		b.skipTagsIf(flexible)
		if b.fault != nil {
			return 0, b.err()
		}
	}
	throttleMillis = b.int32()
	b.skipTagsIf(flexible)
	if b.fault != nil {
		return 0, b.err()
	}
	if answers != len(r.Parts) {
		return 0, fmt.Errorf("malformed: %d of %d partitions answered", answers, len(r.Parts))
	}
	return throttleMillis, nil
}

// findPart finds the part of an answer, usually at the place expected.
func findPart(parts []ProducePart, expected int, version int16, name []byte, id [16]byte, partition int32) int {
	for i := range parts {
		at := expected + i
		if at >= len(parts) {
			at -= len(parts)
		}
		p := &parts[at]
		if p.Partition != partition {
			continue
		}
		if version >= produceByID && p.TopicID == id || version < produceByID && p.Topic == string(name) {
			return at
		}
	}
	return -1
}

var errTagInside = errors.New("tagged field is malformed")

// producePart reads the answer for one partition, after its number.
func (r *bodyReader) producePart(p *ProducePart, version int16) {
	flexible := version >= produceFlexible
	p.answered = true
	p.ErrorCode = r.int16()
	p.BaseOffset = r.int64()
	r.int64() // log append time
	p.LogStart = -1
	if version >= 5 {
		p.LogStart = r.int64()
	}
	p.Message, p.CurrentLeader, p.CurrentLeaderEpoch = "", -1, -1
	if version >= 8 {
		var record []byte
		for i := range r.array(flexible, 5) {
			r.int32() // index in the batch
			if msg := r.string(flexible); i == 0 {
				record = msg
			}
			r.skipTagsIf(flexible)
			if r.fault != nil {
				return
			}
		}
		p.Message = string(r.string(flexible))
		if p.Message == "" {
			p.Message = string(record) // the first record's own
		}
	}
	if !flexible {
		return
	}
	for range r.tags() {
		key, content := r.tag()
		if key == 0 {
			p.CurrentLeader, p.CurrentLeaderEpoch = content.int32(), content.int32()
			content.skipTags()
		}
		if content.fault != nil {
			r.fail(errTagInside)
		}
		if r.fault != nil {
			return
		}
	}
}
