package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	fetchLowest   = 4  // the first with record batches and isolation levels
	fetchSessions = 7  // the first with sessions
	fetchFlexible = 12 // the first with compact lengths, tags and last epochs
	fetchByName   = 12 // the last that names topics
	fetchByID     = 13 // the first that takes topic ids instead
	fetchNewest   = 17
)

// FetchOptions say how to fetch, for all partitions of a session.
type FetchOptions struct {
	MaxWait       time.Duration // for MinBytes to gather, in whole milliseconds
	MinBytes      int32
	MaxBytes      int32 // of the answer; a first larger batch is sent anyway
	ReadCommitted bool  // up to the last stable offset, with aborted transactions listed
	Rack          string
}

// FetchResponse is an answer. Records lie in the Frame, which the caller
// releases. All else is reused by the next Fetch of the session.
type FetchResponse struct {
	Frame      *Frame
	Throttle   time.Duration // the connection waits by itself
	Partitions []FetchedPartition

	aborted []AbortedTxn
}

// FetchedPartition is what one partition has new. All offsets are of the
// source.
type FetchedPartition struct {
	Topic     string   // empty if the broker names an id that is not in the session
	TopicID   [16]byte // zero if unknown
	Partition int32
	ErrorCode int16

	HighWatermark int64 // next offset after the last replicated one
	LastStable    int64 // next offset after the last decided one
	LogStart      int64 // first that still exists, -1 unknown

	// Diverging says that the log of the leader does not hold what FetchPosition
	// said: of DivergingEpoch, its last before ours, it has offsets below
	// DivergingEnd only.
	Diverging      bool
	DivergingEpoch int32
	DivergingEnd   int64

	PreferredReplica   int32 // broker to fetch from instead, -1 none
	CurrentLeader      int32 // broker that leads instead, -1 not said
	CurrentLeaderEpoch int32 // and its epoch, -1 not said

	Aborted []AbortedTxn // not sorted
	Records []byte       // entries, the last possibly cut off; aliases the Frame
}

// fetchCall is how the reader hands an answer to the waiting Fetch.
type fetchCall struct {
	req       []byte
	answer    chan fetchAnswer // cap 1
	abandoned bool             // guarded by the connection's mutex
}

type fetchAnswer struct {
	frame *Frame
	err   error
}

// Fetch asks for what is new in the partitions of the session and waits for
// it, MaxWait at most where nothing is. The answer lies in a frame of the
// connection's pool; waiting for its room does not count against the timeout.
//
// Errors of partitions are in the answer. Session errors are dealt with inside,
// by a full request. After any error returned here the session begins anew. When
// ctx ends, the waiting ends; the answer is then dropped when it comes.
func (c *Conn) Fetch(ctx context.Context, s *FetchSession, o FetchOptions) (*FetchResponse, error) {
	if c.cfg.Pool == nil {
		return nil, c.error("fetch", errors.New("no frame pool configured"))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for {
		version, err := c.fetchVersion(s)
		if err != nil {
			return nil, err
		}
		s.begin(c, version >= fetchByID)
		incremental := s.epoch != 0
		resp, err := c.fetchOnce(ctx, s, o, version)
		if err == nil {
			return resp, nil
		}
		s.Reset()
		if !incremental || !isSessionError(err) {
			return nil, err
		}
	}
}

func isSessionError(err error) bool {
	return errors.Is(err, kerr.FetchSessionIDNotFound) ||
		errors.Is(err, kerr.InvalidFetchSessionEpoch) ||
		errors.Is(err, kerr.FetchSessionTopicIDError)
}

// fetchVersion returns the version for the session: with topic ids only if all
// are known.
func (c *Conn) fetchVersion(s *FetchSession) (int16, error) {
	newest := int16(fetchNewest)
	if s.noID > 0 {
		newest = fetchByName
	}
	return c.negotiate(kmsg.Fetch.Int16(), fetchLowest, newest)
}

// fetchOnce sends one request and reads its answer.
func (c *Conn) fetchOnce(ctx context.Context, s *FetchSession, o FetchOptions, version int16) (*FetchResponse, error) {
	fc := s.call
	if fc == nil {
		fc = &fetchCall{answer: make(chan fetchAnswer, 1)}
		s.call = fc
	}
	fc.req = appendRequestHeader(fc.req[:0], kmsg.Fetch.Int16(), version, c.cfg.ClientID, version >= fetchFlexible)
	fc.req = s.appendRequest(fc.req, o, version)
	c.enqueue(call{
		key:      kmsg.Fetch.Int16(),
		version:  version,
		flexible: version >= fetchFlexible,
		what:     "Fetch",
		extra:    o.MaxWait,
		req:      fc.req,
		fetch:    fc,
	})
	var a fetchAnswer
	select {
	case a = <-fc.answer:
	case <-ctx.Done():
		c.abandon(s)
		return nil, context.Cause(ctx)
	}
	if a.err != nil {
		return nil, a.err
	}
	if err := s.read(a.frame, version); err != nil {
		a.frame.Release()
		if !errors.As(err, new(*kerr.Error)) {
			err = c.error("read Fetch answer", err)
			c.end(err)
			return nil, err
		}
		return nil, c.error("fetch", err)
	}
	return &s.resp, nil
}

// abandon leaves the answer to come to the reader, who drops it.
func (c *Conn) abandon(s *FetchSession) {
	fc := s.call
	s.call = nil // its buffer may still be on its way out
	c.mu.Lock()
	defer c.mu.Unlock()
	fc.abandoned = true
	select {
	case a := <-fc.answer: // it came at the same time
		if a.frame != nil {
			a.frame.Release()
		}
	default:
	}
}

// appendRequest appends the body of the next request.
func (s *FetchSession) appendRequest(b []byte, o FetchOptions, version int16) []byte {
	flexible := version >= fetchFlexible
	if version <= 14 {
		b = appendInt32(b, -1) // not a replica
	}
	b = appendInt32(b, int32(min(max(o.MaxWait, 0)/time.Millisecond, 1<<31-1)))
	b = appendInt32(b, o.MinBytes)
	b = appendInt32(b, o.MaxBytes)
	if o.ReadCommitted {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	if version >= fetchSessions {
		if s.epoch == 0 {
			b = appendInt32(b, s.closes)
		} else {
			b = appendInt32(b, s.id)
		}
		b = appendInt32(b, s.epoch)
	}
	b = s.appendTopics(b, version)
	if version >= 11 {
		b = appendString(b, o.Rack, flexible)
	}
	return appendNoTags(b, flexible)
}

// fetchThrottle is how many milliseconds the broker wants quiet after the
// answer.
func fetchThrottle(body []byte, flexible bool) int32 {
	r := bodyReader{rest: body}
	r.skipTagsIf(flexible)
	return r.int32()
}

// read takes the answer in a frame apart into s.resp and notes the session.
func (s *FetchSession) read(f *Frame, version int16) error {
	flexible := version >= fetchFlexible
	resp := &s.resp
	clear(resp.Partitions) // lets go of the last frame
	resp.Partitions, resp.aborted = resp.Partitions[:0], resp.aborted[:0]
	resp.Frame = f
	r := bodyReader{rest: f.Bytes()}
	r.skipTagsIf(flexible)
	resp.Throttle = millis(r.int32())
	var code int16
	var id int32
	if version >= fetchSessions {
		code, id = r.int16(), r.int32()
	}
	if r.fault != nil {
		return r.err()
	}
	if err := kerr.ErrorForCode(code); err != nil {
		return err
	}
	for range r.array(flexible, 3) {
		var topic string
		var topicID [16]byte
		if version >= fetchByID {
			topicID = r.uuid()
			if t := s.byID[topicID]; t != nil {
				topic = t.name
			}
		} else {
			topic, topicID = s.topicNamed(r.string(flexible))
		}
		for range r.array(flexible, 22) {
			resp.Partitions = append(resp.Partitions, FetchedPartition{Topic: topic, TopicID: topicID})
			p := &resp.Partitions[len(resp.Partitions)-1]
			r.fetchedPartition(p, resp, version)
			if r.fault != nil {
				return fmt.Errorf("%s-%d: %w", topic, p.Partition, r.err())
			}
		}
		r.skipTagsIf(flexible)
		if r.fault != nil {
			return r.err()
		}
	}
	r.skipTagsIf(flexible) // where the leaders listen
	if r.fault != nil {
		return r.err()
	}
	return s.succeeded(id)
}

// topicNamed returns the session's own string for a name, to make none.
func (s *FetchSession) topicNamed(name []byte) (string, [16]byte) {
	if t := s.topics[string(name)]; t != nil {
		return t.name, t.id
	}
	return string(name), [16]byte{}
}

// fetchedPartition reads one partition of an answer.
func (r *bodyReader) fetchedPartition(p *FetchedPartition, resp *FetchResponse, version int16) {
	flexible := version >= fetchFlexible
	p.Partition = r.int32()
	p.ErrorCode = r.int16()
	p.HighWatermark = r.int64()
	p.LastStable = r.int64()
	p.LogStart = -1
	if version >= 5 {
		p.LogStart = r.int64()
	}
	p.PreferredReplica, p.CurrentLeader, p.CurrentLeaderEpoch = -1, -1, -1
	p.DivergingEpoch, p.DivergingEnd = -1, -1
	from := len(resp.aborted)
	for range r.array(flexible, 16) {
		resp.aborted = append(resp.aborted, AbortedTxn{ProducerID: r.int64(), FirstOffset: r.int64()})
		r.skipTagsIf(flexible)
		if r.fault != nil {
			return
		}
	}
	if to := len(resp.aborted); to > from {
		p.Aborted = resp.aborted[from:to:to]
	}
	if version >= 11 {
		p.PreferredReplica = r.int32()
	}
	p.Records = r.bytes(flexible)
	if !flexible {
		return
	}
	for range r.tags() {
		key, content := r.tag()
		switch key {
		case 0:
			p.Diverging = true
			p.DivergingEpoch, p.DivergingEnd = content.int32(), content.int64()
			content.skipTags()
			// Spelled out, it can still say that there is none.
			p.Diverging = p.DivergingEpoch >= 0 || p.DivergingEnd >= 0
		case 1:
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
