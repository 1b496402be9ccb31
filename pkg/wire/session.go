package wire

import (
	"fmt"
	"math"
	"slices"
)

// FetchSession is a set of partitions to fetch from one broker, and what the
// broker remembers of it (KIP-227): a request tells the broker only what has
// changed, and the answer holds only partitions with something new, so that
// quiet partitions cost nothing. Brokers without sessions are told everything
// every time.
//
// A FetchSession belongs to one goroutine.
type FetchSession struct {
	topics  map[string]*fetchTopic
	byID    map[[16]byte]*fetchTopic
	order   []*fetchTopic // of full requests
	changed []*fetchTopic // with changes the broker has not been told
	len     int
	noID    int // topics without an id

	conn   *Conn // where the broker remembers the session
	id     int32 // 0: none
	epoch  int32 // of the next request, 0: full
	byIDs  bool  // the session names topics by id
	closes int32 // session to end with the next full request, 0: none
	turn   int   // where the next full request begins

	call *fetchCall
	resp FetchResponse
}

// FetchPosition says from where to fetch a partition.
type FetchPosition struct {
	Offset      int64 // next source offset
	LeaderEpoch int32 // current epoch of the leader as known, -1 unknown
	LastEpoch   int32 // leader epoch of the last record before Offset, -1 unknown
	MaxBytes    int32 // of this partition in one answer; a first larger batch is sent anyway
}

type fetchTopic struct {
	name    string
	id      [16]byte // zero: unknown
	place   int      // in order
	listed  bool     // in changed
	parts   map[int32]*fetchPart
	order   []*fetchPart
	changed []*fetchPart
}

type fetchPart struct {
	partition int32
	pos       FetchPosition
	place     int  // in order
	listed    bool // in changed
	known     bool // to the broker's session
	forgotten bool // by us, the broker is still to be told
}

// NewFetchSession returns a session without partitions.
func NewFetchSession() *FetchSession {
	return &FetchSession{topics: map[string]*fetchTopic{}, byID: map[[16]byte]*fetchTopic{}}
}

// Len is the number of partitions.
func (s *FetchSession) Len() int { return s.len }

// Set adds a partition or changes from where it is fetched. id is the topic's
// id, zero if unknown. The next request carries the partition only if
// something changed. A topic has one id at a time: a new one starts the session
// over, because to the broker it is another topic.
func (s *FetchSession) Set(topic string, id [16]byte, partition int32, pos FetchPosition) {
	t := s.topics[topic]
	if t == nil {
		t = &fetchTopic{name: topic, id: id, place: len(s.order), parts: map[int32]*fetchPart{}}
		s.topics[topic] = t
		s.order = append(s.order, t)
		s.identify(t, id)
	} else if t.id != id {
		s.unidentify(t)
		s.identify(t, id)
		s.Reset()
	}
	p := t.parts[partition]
	switch {
	case p == nil:
		p = &fetchPart{partition: partition, place: len(t.order)}
		t.parts[partition] = p
		t.order = append(t.order, p)
		s.len++
	case p.forgotten:
		p.forgotten = false
		s.len++
	case p.pos == pos && (p.known || p.listed):
		return
	}
	p.pos = pos
	s.list(t, p)
}

// Forget takes a partition out.
func (s *FetchSession) Forget(topic string, partition int32) {
	t := s.topics[topic]
	if t == nil {
		return
	}
	p := t.parts[partition]
	if p == nil || p.forgotten {
		return
	}
	p.forgotten = true
	s.len--
	s.list(t, p)
}

// Reset makes the next request a full one, in a new session of the broker.
func (s *FetchSession) Reset() {
	if s.id != 0 {
		s.closes = s.id
	}
	s.id, s.epoch = 0, 0
}

// Position is from where a partition is fetched next.
func (s *FetchSession) Position(topic string, partition int32) (FetchPosition, bool) {
	if t := s.topics[topic]; t != nil {
		if p := t.parts[partition]; p != nil && !p.forgotten {
			return p.pos, true
		}
	}
	return FetchPosition{}, false
}

func (s *FetchSession) identify(t *fetchTopic, id [16]byte) {
	t.id = id
	if id == ([16]byte{}) {
		s.noID++
	} else {
		s.byID[id] = t
	}
}

func (s *FetchSession) unidentify(t *fetchTopic) {
	if t.id == ([16]byte{}) {
		s.noID--
	} else if s.byID[t.id] == t {
		delete(s.byID, t.id)
	}
}

// list notes that the broker is to be told of a partition.
func (s *FetchSession) list(t *fetchTopic, p *fetchPart) {
	if !p.listed {
		p.listed = true
		t.changed = append(t.changed, p)
	}
	if !t.listed {
		t.listed = true
		s.changed = append(s.changed, t)
	}
}

// begin prepares a request on a connection. The request is a full one if the
// broker has no session of ours, or not of this kind.
func (s *FetchSession) begin(c *Conn, byIDs bool) {
	switch {
	case s.conn != c:
		s.id, s.epoch, s.closes = 0, 0, 0
	case s.byIDs != byIDs:
		s.Reset()
	}
	s.conn, s.byIDs = c, byIDs
}

// appendTopics appends the partitions to fetch and those to forget, and notes
// them as told.
func (s *FetchSession) appendTopics(b []byte, version int16) []byte {
	if s.epoch == 0 {
		b = s.appendAll(b, version)
	} else {
		b = s.appendChanged(b, version)
	}
	for _, t := range s.changed {
		for _, p := range t.changed {
			p.listed = false
			p.known = true
			if p.forgotten {
				s.removePart(t, p)
			}
		}
		clear(t.changed)
		t.changed = t.changed[:0]
		t.listed = false
		if len(t.order) == 0 {
			s.removeTopic(t)
		}
	}
	clear(s.changed)
	s.changed = s.changed[:0]
	return b
}

// appendAll appends every partition, each time beginning with another: a
// broker without sessions fills its answer in this order.
func (s *FetchSession) appendAll(b []byte, version int16) []byte {
	flexible := version >= fetchFlexible
	topics := 0
	for _, t := range s.order {
		if t.count(false) > 0 {
			topics++
		}
	}
	b = appendArrayLen(b, topics, flexible)
	for i := range s.order {
		t := s.order[(i+s.turn)%len(s.order)] // and after all topics, another partition
		n := t.count(false)
		if n == 0 {
			continue
		}
		b = t.append(b, version)
		b = appendArrayLen(b, n, flexible)
		for j := range t.order {
			p := t.order[(j+s.turn/len(s.order))%len(t.order)]
			if !p.forgotten {
				p.known = true
				b = p.append(b, version)
			}
		}
		b = appendNoTags(b, flexible)
	}
	s.turn++
	if version >= 7 {
		b = appendArrayLen(b, 0, flexible)
	}
	return b
}

// appendChanged appends what the broker's session has to be told.
func (s *FetchSession) appendChanged(b []byte, version int16) []byte {
	flexible := version >= fetchFlexible
	set, forgotten := 0, 0
	for _, t := range s.changed {
		if t.countChanged(false) > 0 {
			set++
		}
		if t.countChanged(true) > 0 {
			forgotten++
		}
	}
	b = appendArrayLen(b, set, flexible)
	for _, t := range s.changed {
		n := t.countChanged(false)
		if n == 0 {
			continue
		}
		b = t.append(b, version)
		b = appendArrayLen(b, n, flexible)
		for _, p := range t.changed {
			if !p.forgotten {
				b = p.append(b, version)
			}
		}
		b = appendNoTags(b, flexible)
	}
	b = appendArrayLen(b, forgotten, flexible)
	for _, t := range s.changed {
		n := t.countChanged(true)
		if n == 0 {
			continue
		}
		b = t.append(b, version)
		b = appendArrayLen(b, n, flexible)
		for _, p := range t.changed {
			if p.forgotten && p.known {
				b = appendInt32(b, p.partition)
			}
		}
		b = appendNoTags(b, flexible)
	}
	return b
}

// count is how many partitions are forgotten or not.
func (t *fetchTopic) count(forgotten bool) (n int) {
	for _, p := range t.order {
		if p.forgotten == forgotten {
			n++
		}
	}
	return n
}

// countChanged is how many changed partitions the broker is to forget, or to
// be told.
func (t *fetchTopic) countChanged(forget bool) (n int) {
	for _, p := range t.changed {
		if forget && p.forgotten && p.known || !forget && !p.forgotten {
			n++
		}
	}
	return n
}

// append begins the topic in a request.
func (t *fetchTopic) append(b []byte, version int16) []byte {
	if version >= fetchByID {
		return append(b, t.id[:]...)
	}
	return appendString(b, t.name, version >= fetchFlexible)
}

// append appends the partition to fetch.
func (p *fetchPart) append(b []byte, version int16) []byte {
	b = appendInt32(b, p.partition)
	if version >= 9 {
		b = appendInt32(b, p.pos.LeaderEpoch)
	}
	b = appendInt64(b, p.pos.Offset)
	if version >= fetchFlexible {
		b = appendInt32(b, p.pos.LastEpoch)
	}
	if version >= 5 {
		b = appendInt64(b, -1) // log start of a follower
	}
	b = appendInt32(b, p.pos.MaxBytes)
	return appendNoTags(b, version >= fetchFlexible)
}

func (s *FetchSession) removePart(t *fetchTopic, p *fetchPart) {
	delete(t.parts, p.partition)
	last := t.order[len(t.order)-1]
	t.order[p.place], last.place = last, p.place
	t.order = slices.Delete(t.order, len(t.order)-1, len(t.order))
}

func (s *FetchSession) removeTopic(t *fetchTopic) {
	delete(s.topics, t.name)
	s.unidentify(t)
	last := s.order[len(s.order)-1]
	s.order[t.place], last.place = last, t.place
	s.order = slices.Delete(s.order, len(s.order)-1, len(s.order))
}

// succeeded notes the session of an answer without an error.
func (s *FetchSession) succeeded(id int32) error {
	s.closes = 0
	switch {
	case s.epoch == 0:
		s.id = id
		if id != 0 {
			s.epoch = 1
		}
	case id != s.id:
		return fmt.Errorf("malformed: fetch session %d, expected %d", id, s.id)
	case s.epoch == math.MaxInt32:
		s.epoch = 1
	default:
		s.epoch++
	}
	return nil
}
