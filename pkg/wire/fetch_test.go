package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchTestSession knows the topics of random answers but the last.
func fetchTestSession() *FetchSession {
	s := NewFetchSession()
	for i := range 3 {
		s.Set(fmt.Sprint("topic-", i), [16]byte{byte(i + 1)}, 0, FetchPosition{})
	}
	return s
}

func randomFetchAnswer(rng *rand.Rand, version int16) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	resp.ThrottleMillis, resp.SessionID = rng.Int32N(100), rng.Int32()
	for i := range rng.IntN(5) {
		rt := kmsg.FetchResponseTopic{Topic: fmt.Sprint("topic-", i), TopicID: [16]byte{byte(i + 1)}}
		for p := range rng.Int32N(5) {
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p, int16(rng.Uint32())
			rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = rng.Int64(), rng.Int64(), rng.Int64()
			rp.PreferredReadReplica = rng.Int32()
			for range rng.IntN(4) {
				rp.AbortedTransactions = append(rp.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: rng.Int64(), FirstOffset: rng.Int64()})
			}
			if rng.IntN(3) > 0 {
				rp.RecordBatches = make([]byte, rng.IntN(300))
				for i := range rp.RecordBatches {
					rp.RecordBatches[i] = byte(rng.Uint32())
				}
			}
			if rng.IntN(2) == 0 {
				rp.DivergingEpoch.Epoch, rp.DivergingEpoch.EndOffset = rng.Int32(), rng.Int64()
			}
			if rng.IntN(2) == 0 {
				rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch = rng.Int32(), rng.Int32()
			}
			if rng.IntN(2) == 0 {
				rp.SnapshotID.EndOffset, rp.SnapshotID.Epoch = rng.Int64(), rng.Int32()
			}
			if rng.IntN(4) == 0 {
				rp.UnknownTags.Set(7, []byte("later"))
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if rng.IntN(2) == 0 {
		resp.Brokers = append(resp.Brokers, kmsg.FetchResponseBroker{NodeID: 3, Host: "elsewhere", Port: 9, Rack: new("a")})
	}
	return resp
}

func fetchBody(resp *kmsg.FetchResponse) []byte { return appendPeerAnswer(nil, 0, resp)[8:] }

// sameBytes compares records at once, not byte by byte.
var sameBytes = cmp.FilterValues(func(a, b []byte) bool { return len(a)+len(b) > 0 }, cmp.Comparer(bytes.Equal))

func frameOf(p *Pool, body []byte) *Frame {
	f := p.Overdraw(len(body))
	copy(f.Bytes(), body)
	return f
}

// asKmsgReads is an answer read by kmsg, in our words.
func asKmsgReads(t *testing.T, s *FetchSession, body []byte, version int16) ([]FetchedPartition, *kmsg.FetchResponse, error) {
	b := bodyReader{rest: body}
	b.skipTagsIf(version >= fetchFlexible)
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = version
	if err := resp.ReadFrom(b.rest); err != nil {
		return nil, nil, err
	}
	var want []FetchedPartition
	for _, rt := range resp.Topics {
		topic, id := rt.Topic, rt.TopicID
		if version >= fetchByID {
			if st := s.byID[id]; st != nil {
				topic = st.name
			}
		} else if st := s.topics[topic]; st != nil {
			id = st.id
		}
		for _, rp := range rt.Partitions {
			p := FetchedPartition{
				Topic: topic, TopicID: id, Partition: rp.Partition, ErrorCode: rp.ErrorCode,
				HighWatermark: rp.HighWatermark, LastStable: rp.LastStableOffset, LogStart: rp.LogStartOffset,
				Diverging:      rp.DivergingEpoch.Epoch >= 0 || rp.DivergingEpoch.EndOffset >= 0,
				DivergingEpoch: rp.DivergingEpoch.Epoch, DivergingEnd: rp.DivergingEpoch.EndOffset,
				PreferredReplica: rp.PreferredReadReplica,
				CurrentLeader:    rp.CurrentLeader.LeaderID, CurrentLeaderEpoch: rp.CurrentLeader.LeaderEpoch,
				Records: rp.RecordBatches,
			}
			for _, a := range rp.AbortedTransactions {
				p.Aborted = append(p.Aborted, AbortedTxn{ProducerID: a.ProducerID, FirstOffset: a.FirstOffset})
			}
			want = append(want, p)
		}
	}
	return want, resp, nil
}

func TestFetchAnswersAreReadAsKmsgReadsThem(t *testing.T) {
	pool := NewPool(1 << 20)
	for version := int16(fetchLowest); version <= fetchNewest; version++ {
		s := fetchTestSession()
		for seed := range uint64(100) {
			rng := rand.New(rand.NewPCG(seed, uint64(version)))
			body := fetchBody(randomFetchAnswer(rng, version))
			want, resp, err := asKmsgReads(t, s, body, version)
			if err != nil {
				t.Fatal(err)
			}
			f := frameOf(pool, body)
			s.Reset()
			if err := s.read(f, version); err != nil {
				t.Fatalf("version %d, seed %d: %v", version, seed, err)
			}
			if diff := cmp.Diff(want, s.resp.Partitions, sameBytes, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("version %d, seed %d: %s", version, seed, diff)
			}
			if s.resp.Throttle != millis(resp.ThrottleMillis) || fetchThrottle(body, version >= fetchFlexible) != resp.ThrottleMillis {
				t.Errorf("throttle %v, expected %d ms", s.resp.Throttle, resp.ThrottleMillis)
			}
			if version >= fetchSessions && s.id != resp.SessionID {
				t.Errorf("session %d, expected %d", s.id, resp.SessionID)
			}
			f.Release()
		}
	}
}

func TestFetchAnswerCutOffAnywhereIsRefused(t *testing.T) {
	pool := NewPool(1 << 20)
	for _, version := range []int16{4, 11, 12, 17} {
		s := fetchTestSession()
		body := fetchBody(randomFetchAnswer(rand.New(rand.NewPCG(5, 5)), version))
		for cut := range body {
			f := frameOf(pool, body[:cut])
			if err := s.read(f, version); err == nil {
				t.Fatalf("version %d: %d of %d bytes were enough", version, cut, len(body))
			}
			f.Release()
		}
	}
}

func TestMalformedFetchAnswerNamesThePartition(t *testing.T) {
	c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.Partition = 3
		rp.RecordBatches = make([]byte, 100)
		resp.Topics = []kmsg.FetchResponseTopic{{TopicID: [16]byte{1}, Partitions: []kmsg.FetchResponseTopicPartition{rp}}}
		b := appendPeerAnswer(nil, corr, resp)
		b[len(b)-104] = 0xff // the length of the records
		b[len(b)-103] = 0x7f
		_, err := w.Write(b)
		return err
	})})
	s := NewFetchSession()
	s.Set("orders", [16]byte{1}, 3, FetchPosition{})
	_, err := c.Fetch(t.Context(), s, FetchOptions{})
	if err == nil || !strings.Contains(err.Error(), "orders-3") || !strings.Contains(err.Error(), "broker 7") || c.Err() == nil {
		t.Errorf("%v, connection %v", err, c.Err())
	}
}

func TestErrorOfAWholeFetchIsReturned(t *testing.T) {
	c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return writePeerAnswer(w, corr, resp)
	})})
	if _, err := c.Fetch(t.Context(), NewFetchSession(), FetchOptions{}); !errors.Is(err, kerr.UnknownServerError) || c.Err() != nil {
		t.Errorf("%v, connection %v", err, c.Err())
	}
}

// A full pool holds the answer back in the network, for longer than any
// timeout, and the connection lives on.
func TestFetchWaitsForRoomInThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(64 << 10)
		c := connectTo(t, Config{Pool: pool, Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			return writePeerAnswer(w, corr, req.ResponseKind())
		})})
		held, _ := pool.Get(t.Context(), 64<<10)
		s := NewFetchSession()
		start := time.Now()
		go func() { time.Sleep(time.Hour); held.Release() }()
		fetchQuietly(t, c, s)
		if waited := time.Since(start); waited != time.Hour {
			t.Errorf("waited %v", waited)
		}

		held, _ = pool.Get(t.Context(), 64<<10) // and abandoned while it waits
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.Fetch(ctx, s, FetchOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		held.Release()
		fetchQuietly(t, c, s)

		held, _ = pool.Get(t.Context(), 64<<10) // and closed while it waits
		go func() { time.Sleep(time.Minute); c.Close() }()
		if _, err := c.Fetch(t.Context(), s, FetchOptions{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		held.Release()
	})
}

// Lying lengths cost what is really there.
func TestLyingLengthsDoNotAllocate(t *testing.T) {
	pool := NewPool(1 << 20)
	body := appendInt32(nil, 0) // throttle
	body = append(body, 0, 0)   // error
	body = appendInt32(body, 0) // session
	for _, lie := range []int32{1 << 30, 1<<31 - 1, -7} {
		for version, b := range map[int16][]byte{
			7:  appendInt32(body[:10:10], lie),
			12: append(append([]byte{0}, body[:10]...), 0xff, 0xff, 0xff, 0xff, 0x0f),
		} {
			b = append(b, make([]byte, 4000)...)
			f := frameOf(pool, b)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := fetchTestSession().read(f, version)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > 64<<10 {
				t.Errorf("version %d, length %d: %v, %d bytes allocated", version, lie, err, grown)
			}
			f.Release()
		}
	}
}

func FuzzFetchAnswer(f *testing.F) {
	for version := int16(fetchLowest); version <= fetchNewest; version++ {
		f.Add(version, fetchBody(randomFetchAnswer(rand.New(rand.NewPCG(uint64(version), 3)), version)))
		f.Add(version, fetchBody(randomFetchAnswer(rand.New(rand.NewPCG(uint64(version), 4)), version)))
	}
	pool := NewPool(1 << 20)
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < fetchLowest || version > fetchNewest {
			return
		}
		s := fetchTestSession()
		frame := frameOf(pool, body)
		defer frame.Release()
		if err := s.read(frame, version); err != nil {
			return
		}
		// What both take, both read the same. Kmsg also looks into tagged
		// fields that are skipped here, so it may refuse what we take.
		want, _, err := asKmsgReads(t, s, body, version)
		if err != nil {
			return
		}
		if diff := cmp.Diff(want, s.resp.Partitions, sameBytes, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}
