package wire

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// told is what a broker with sessions knows after some requests, and how it
// answers.
type told struct {
	id, epoch int32
	parts     map[string]kmsg.FetchRequestTopicPartition
	requests  []*kmsg.FetchRequest
	next      int32
}

func partKey(topic string, id [16]byte, partition int32) string {
	return fmt.Sprintf("%s/%x/%d", topic, id[:1], partition)
}

// apply does with a request what the protocol says.
func (b *told) apply(req *kmsg.FetchRequest) *kmsg.FetchResponse {
	b.requests = append(b.requests, req)
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	switch {
	case req.SessionEpoch == 0:
		b.next++
		b.id, b.epoch, b.parts = b.next, 0, map[string]kmsg.FetchRequestTopicPartition{}
	case req.SessionID != b.id:
		resp.ErrorCode = kerr.FetchSessionIDNotFound.Code
		return resp
	case req.SessionEpoch != b.epoch+1:
		resp.ErrorCode = kerr.InvalidFetchSessionEpoch.Code
		return resp
	default:
		b.epoch++
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			b.parts[partKey(t.Topic, t.TopicID, p.Partition)] = p
		}
	}
	for _, t := range req.ForgottenTopics {
		for _, p := range t.Partitions {
			delete(b.parts, partKey(t.Topic, t.TopicID, p))
		}
	}
	resp.SessionID = b.id
	return resp
}

func (b *told) serve(w io.Writer, corr int32, req kmsg.Request) error {
	r, ok := req.(*kmsg.FetchRequest)
	if !ok {
		return fmt.Errorf("unexpected %T", req)
	}
	return writePeerAnswer(w, corr, b.apply(r))
}

func (b *told) last() *kmsg.FetchRequest { return b.requests[len(b.requests)-1] }

func sizeOf(req *kmsg.FetchRequest) (set, forgotten int) {
	for _, t := range req.Topics {
		set += len(t.Partitions)
	}
	for _, t := range req.ForgottenTopics {
		forgotten += len(t.Partitions)
	}
	return set, forgotten
}

func fetchQuietly(t testing.TB, c *Conn, s *FetchSession) {
	t.Helper()
	resp, err := c.Fetch(t.Context(), s, FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	resp.Frame.Release()
}

// Whatever is set and forgotten, and whenever the session is lost: after each
// request the broker knows exactly what we want.
func TestBrokerKnowsWhatWeWant(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := &told{}
		c := connectTo(t, Config{Dial: pipePeer(b.serve)})
		if seed%3 == 0 {
			c.vers[1] = versions{0, 12}
		}
		s := NewFetchSession()
		want := map[string]FetchPosition{}
		id := func(topic int) (id [16]byte) {
			id[0] = byte(topic + 1)
			return id
		}
		key := func(topic int, p int32) string {
			if c.vers[1].max < fetchByID {
				return partKey(fmt.Sprint("t", topic), [16]byte{}, p)
			}
			return partKey("", id(topic), p)
		}
		for range 60 {
			for range rng.IntN(6) {
				topic, p := rng.IntN(3), rng.Int32N(4)
				if rng.IntN(3) == 0 {
					s.Forget(fmt.Sprint("t", topic), p)
					delete(want, key(topic, p))
				} else {
					pos := FetchPosition{Offset: rng.Int64N(3), LeaderEpoch: rng.Int32N(2), LastEpoch: rng.Int32N(2), MaxBytes: 1}
					s.Set(fmt.Sprint("t", topic), id(topic), p, pos)
					want[key(topic, p)] = pos
				}
			}
			switch rng.IntN(20) {
			case 0:
				s.Reset()
			case 1:
				b.epoch += 5 // the broker has lost count
			case 2:
				b.id = -1 // the broker has evicted the session
			}
			fetchQuietly(t, c, s)
			if len(want) != s.Len() || len(want) != len(b.parts) {
				t.Fatalf("seed %d: broker knows %d partitions, session has %d, wanted %d", seed, len(b.parts), s.Len(), len(want))
			}
			for k, pos := range want {
				p, ok := b.parts[k]
				if !ok || p.FetchOffset != pos.Offset || p.CurrentLeaderEpoch != pos.LeaderEpoch || p.LastFetchedEpoch != pos.LastEpoch {
					t.Fatalf("seed %d, %s: broker knows %+v, wanted %+v", seed, k, p, pos)
				}
			}
		}
	}
}

func TestOnlyChangesAreTold(t *testing.T) {
	b := &told{}
	c := connectTo(t, Config{Dial: pipePeer(b.serve)})
	s := NewFetchSession()
	const n = 10_000
	for p := range int32(n) {
		s.Set("orders", [16]byte{1}, p, FetchPosition{Offset: 5})
	}
	check := func(step string, set, forgotten int) {
		t.Helper()
		fetchQuietly(t, c, s)
		if gotSet, gotForgotten := sizeOf(b.last()); gotSet != set || gotForgotten != forgotten {
			t.Errorf("%s: %d set and %d forgotten, expected %d and %d", step, gotSet, gotForgotten, set, forgotten)
		}
	}
	check("first", n, 0)
	check("quiet", 0, 0)
	s.Set("orders", [16]byte{1}, 77, FetchPosition{Offset: 5})
	check("set to the same", 0, 0)
	s.Set("orders", [16]byte{1}, 77, FetchPosition{Offset: 6})
	s.Set("orders", [16]byte{1}, 77, FetchPosition{Offset: 7})
	s.Forget("orders", 78)
	s.Forget("orders", 78)
	s.Forget("orders", n+1)
	s.Forget("nowhere", 1)
	check("one moved, one forgotten", 1, 1)
	s.Forget("orders", 79)
	s.Set("orders", [16]byte{1}, 79, FetchPosition{Offset: 5})
	check("forgotten and back", 1, 0)
	s.Set("bills", [16]byte{2}, 0, FetchPosition{})
	s.Forget("bills", 0)
	check("came and went", 0, 0)
	if pos, ok := s.Position("orders", 77); !ok || pos.Offset != 7 {
		t.Errorf("position %+v, %t", pos, ok)
	}
	if _, ok := s.Position("orders", 78); ok {
		t.Error("a forgotten partition has a position")
	}
	if s.Len() != n-1 {
		t.Errorf("%d partitions", s.Len())
	}
}

func TestLostSessionIsBegunAnewWithoutAnErrorToTheCaller(t *testing.T) {
	for _, lost := range []*kerr.Error{kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch, kerr.FetchSessionTopicIDError} {
		b := &told{}
		fail := false
		always := false
		c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			if r := req.(*kmsg.FetchRequest); fail && r.SessionEpoch > 0 || always {
				resp := req.ResponseKind().(*kmsg.FetchResponse)
				resp.ErrorCode = lost.Code
				return writePeerAnswer(w, corr, resp)
			}
			return b.serve(w, corr, req)
		})})
		s := NewFetchSession()
		s.Set("orders", [16]byte{1}, 0, FetchPosition{Offset: 5})
		fetchQuietly(t, c, s)
		first := b.id
		fail = true
		fetchQuietly(t, c, s)
		if set, _ := sizeOf(b.last()); set != 1 || b.last().SessionEpoch != 0 || b.last().SessionID != first {
			t.Errorf("after %s: %d set, session %d epoch %d", lost.Message, set, b.last().SessionID, b.last().SessionEpoch)
		}
		always = true // even a full request: no endless loop
		if _, err := c.Fetch(t.Context(), s, FetchOptions{}); err == nil {
			t.Errorf("no error though the broker always says %s", lost.Message)
		}
	}
}

func TestNewConnectionOrIDMeansNewSession(t *testing.T) {
	b := &told{}
	s := NewFetchSession()
	s.Set("orders", [16]byte{1}, 0, FetchPosition{})
	for range 2 {
		c := connectTo(t, Config{Dial: pipePeer(b.serve)})
		for range 3 {
			fetchQuietly(t, c, s)
		}
		if set, _ := sizeOf(b.requests[len(b.requests)-3]); set != 1 || b.last().SessionEpoch != 2 {
			t.Errorf("%d set at first, epoch %d at last", set, b.last().SessionEpoch)
		}
	}
	c := connectTo(t, Config{Dial: pipePeer(b.serve)})
	fetchQuietly(t, c, s)
	s.Set("orders", [16]byte{9}, 0, FetchPosition{}) // created again
	fetchQuietly(t, c, s)
	if r := b.last(); r.SessionEpoch != 0 || r.SessionID != b.id-1 || r.Topics[0].TopicID != [16]byte{9} {
		t.Errorf("session %d epoch %d, id %x", r.SessionID, r.SessionEpoch, r.Topics[0].TopicID)
	}
	s.Set("bills", [16]byte{}, 0, FetchPosition{}) // its id is not known yet
	fetchQuietly(t, c, s)
	if r := b.last(); r.Version != 12 || r.SessionEpoch != 0 || len(r.Topics) != 2 {
		t.Errorf("version %d, epoch %d, %d topics", r.Version, r.SessionEpoch, len(r.Topics))
	}
	s.Set("bills", [16]byte{2}, 0, FetchPosition{})
	fetchQuietly(t, c, s)
	if r := b.last(); r.Version != 17 || r.SessionEpoch != 0 || len(r.Topics) != 2 {
		t.Errorf("version %d, epoch %d, %d topics", r.Version, r.SessionEpoch, len(r.Topics))
	}
}

func TestBrokerWithoutSessionsIsToldAllInTurn(t *testing.T) {
	var first []int32
	c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		r := req.(*kmsg.FetchRequest)
		if set, _ := sizeOf(r); set != 3 || r.SessionID != 0 || r.SessionEpoch != 0 && r.Version >= fetchSessions {
			t.Errorf("%d set, session %d epoch %d", set, r.SessionID, r.SessionEpoch)
		}
		first = append(first, r.Topics[0].Partitions[0].Partition)
		return writePeerAnswer(w, corr, req.ResponseKind())
	})})
	for _, max := range []int16{17, 6} {
		c.vers[1] = versions{0, max}
		first = nil
		s := NewFetchSession()
		for p := range int32(3) {
			s.Set("orders", [16]byte{1}, p, FetchPosition{})
		}
		for range 3 {
			fetchQuietly(t, c, s)
		}
		slices.Sort(first)
		if !slices.Equal(first, []int32{0, 1, 2}) {
			t.Errorf("partitions %v came first", first)
		}
	}
}

func TestFetchRequestsAreWhatKmsgWrites(t *testing.T) {
	for version := int16(fetchLowest); version <= fetchNewest; version++ {
		for seed := range uint64(50) {
			rng := rand.New(rand.NewPCG(seed, uint64(version)))
			s := NewFetchSession()
			o := FetchOptions{MaxWait: time.Duration(rng.IntN(5000)) * time.Millisecond, MinBytes: rng.Int32(), MaxBytes: rng.Int32(),
				ReadCommitted: rng.IntN(2) == 0, Rack: "zone-a"}
			want := kmsg.NewPtrFetchRequest()
			want.Version, want.SessionEpoch = version, 0
			want.MaxWaitMillis, want.MinBytes, want.MaxBytes, want.Rack = int32(o.MaxWait.Milliseconds()), o.MinBytes, o.MaxBytes, o.Rack
			if o.ReadCommitted {
				want.IsolationLevel = 1
			}
			set := func(topics, forget int) {
				want.Topics, want.ForgottenTopics = nil, nil
				for i := range topics {
					topic, id := fmt.Sprint("topic-", i), [16]byte{byte(i + 1)}
					wt := kmsg.FetchRequestTopic{Topic: topic, TopicID: id}
					for p := range int32(1 + rng.IntN(4)) {
						pos := FetchPosition{Offset: rng.Int64(), LeaderEpoch: rng.Int32(), LastEpoch: rng.Int32(), MaxBytes: rng.Int32()}
						s.Set(topic, id, p, pos)
						wp := kmsg.NewFetchRequestTopicPartition()
						wp.Partition, wp.FetchOffset, wp.CurrentLeaderEpoch, wp.LastFetchedEpoch, wp.PartitionMaxBytes = p, pos.Offset, pos.LeaderEpoch, pos.LastEpoch, pos.MaxBytes
						wt.Partitions = append(wt.Partitions, wp)
					}
					want.Topics = append(want.Topics, wt)
				}
				for i := range forget {
					topic, id := fmt.Sprint("topic-", i+3), [16]byte{byte(i + 4)}
					s.Forget(topic, 0)
					want.ForgottenTopics = append(want.ForgottenTopics, kmsg.FetchRequestForgottenTopic{Topic: topic, TopicID: id, Partitions: []int32{0}})
				}
			}
			check := func() {
				t.Helper()
				got := s.appendRequest(nil, o, version)
				if expected := want.AppendTo(nil); !slices.Equal(got, expected) {
					t.Fatalf("version %d, seed %d\n got %x\nwant %x", version, seed, got, expected)
				}
			}
			set(6, 0)
			check()
			if version < fetchSessions {
				continue
			}
			if err := s.succeeded(99); err != nil {
				t.Fatal(err)
			}
			want.SessionID, want.SessionEpoch = 99, 1
			set(rng.IntN(3), rng.IntN(3))
			check()
		}
	}
}

func TestSessionsOfAFakeCluster(t *testing.T) {
	fake := newFake(t, kfake.SeedTopics(4, "orders"))
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0]})
	id := fake.TopicInfo("orders").TopicID
	s := NewFetchSession()
	for p := range int32(4) {
		s.Set("orders", id, p, FetchPosition{LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
	}
	o := FetchOptions{MaxWait: 5 * time.Millisecond, MinBytes: 1, MaxBytes: 1 << 20}
	count := func() int {
		t.Helper()
		resp, err := c.Fetch(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Frame.Release()
		return len(resp.Partitions)
	}
	if n := count(); n != 4 {
		t.Errorf("%d partitions in the first answer", n)
	}
	if n := count(); n != 0 {
		t.Errorf("%d partitions in a quiet answer", n)
	}
	if err := produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Partition: 2, Records: peerBatch(-1, -1, -1, "x")}}}); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 1 {
		t.Errorf("%d partitions with news", n)
	}
	s.Reset() // the broker's session is ended by the next full request
	if n := count(); n != 4 {
		t.Errorf("%d partitions after Reset", n)
	}
	s.Set("orders", [16]byte{0xaa}, 0, FetchPosition{LeaderEpoch: -1, LastEpoch: -1})
	resp, err := c.Fetch(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Frame.Release()
	for _, p := range resp.Partitions {
		if p.Topic != "orders" || p.ErrorCode != kerr.UnknownTopicID.Code {
			t.Errorf("%s-%d: code %d for an unknown topic id", p.Topic, p.Partition, p.ErrorCode)
		}
	}
	if len(resp.Partitions) != 4 {
		t.Errorf("%d answers for an unknown topic id", len(resp.Partitions))
	}
}

// A request and an answer of 10,000 quiet partitions.
func BenchmarkFetchQuietPartitions(b *testing.B) {
	broker := &told{}
	var size int
	c := connectTo(b, Config{Pool: NewPool(1 << 20), Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		broker.requests = broker.requests[:0]
		return broker.serve(w, corr, req)
	}), OnBytes: func(_, written int) {
		if written > 0 {
			size = written
		}
	}})
	s := NewFetchSession()
	for p := range int32(10_000) {
		s.Set("orders", [16]byte{1}, p, FetchPosition{})
	}
	fetchQuietly(b, c, s)
	b.ReportAllocs()
	for b.Loop() {
		fetchQuietly(b, c, s)
	}
	b.ReportMetric(float64(size), "bytes/request")
}
