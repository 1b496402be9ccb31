package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// randomParts are the parts of a produce request, topic by topic, with records
// of up to size bytes.
func randomParts(rng *rand.Rand, size int) (parts []ProducePart) {
	for t := range rng.IntN(4) {
		topic := fmt.Sprintf("%s-%d", strings.Repeat("t", rng.IntN(200)), t)
		for p := range 1 + rng.IntN(5) {
			records := make([]byte, rng.IntN(1+rng.IntN(size)))
			for i := range records {
				records[i] = byte(rng.Uint32())
			}
			parts = append(parts, ProducePart{Topic: topic, TopicID: [16]byte{byte(t + 1)}, Partition: int32(p), Records: records})
		}
	}
	return parts
}

func TestProduceRequestsAreWhatKmsgWrites(t *testing.T) {
	for version := int16(produceLowest); version <= produceByID; version++ {
		for seed := range uint64(28) {
			rng := rand.New(rand.NewPCG(seed, uint64(version)))
			r := &ProduceRequest{TimeoutMillis: rng.Int32(), Parts: randomParts(rng, 1<<(4+seed%14))}
			want := kmsg.NewPtrProduceRequest()
			want.Version, want.Acks, want.TimeoutMillis = version, -1, r.TimeoutMillis
			for i, p := range r.Parts {
				if i == 0 || r.Parts[i-1].Topic != p.Topic {
					want.Topics = append(want.Topics, kmsg.ProduceRequestTopic{Topic: p.Topic, TopicID: p.TopicID})
				}
				last := &want.Topics[len(want.Topics)-1]
				last.Partitions = append(last.Partitions, kmsg.ProduceRequestTopicPartition{Partition: p.Partition, Records: p.Records})
			}
			expected := kmsg.NewRequestFormatter(kmsg.FormatterClientID("me")).AppendRequest(nil, want, 77)

			var o outbox
			for range 2 { // the second time with used memory
				o.reset()
				o.head = appendRequestHeader(o.head, 0, version, "me", version >= produceFlexible)
				o.produce(r, version)
				o.finish(77)
				if got := written(t, &o); !bytes.Equal(got, expected) {
					t.Fatalf("version %d, seed %d: %d bytes differ from the %d expected", version, seed, len(got), len(expected))
				}
			}
		}
	}
}

// written is what an outbox writes to a connection without vectors.
func written(t *testing.T, o *outbox) []byte {
	var sink writeSink
	n, err := o.writeTo(&sink)
	if err != nil || n != o.size {
		t.Fatalf("wrote %d of %d: %v", n, o.size, err)
	}
	return sink.Bytes()
}

type writeSink struct {
	net.Conn
	bytes.Buffer
}

func (s *writeSink) Write(b []byte) (int, error) { return s.Buffer.Write(b) }
func (s *writeSink) Read(b []byte) (int, error)  { return s.Buffer.Read(b) }

// randomProduceAnswer answers the parts of a request in any order.
func randomProduceAnswer(rng *rand.Rand, parts []ProducePart, version int16) *kmsg.ProduceResponse {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = version
	resp.ThrottleMillis = rng.Int32()
	byTopic := map[string]*kmsg.ProduceResponseTopic{}
	for _, i := range rng.Perm(len(parts)) {
		p := parts[i]
		rt := byTopic[p.Topic]
		if rt == nil {
			rt = &kmsg.ProduceResponseTopic{Topic: p.Topic, TopicID: p.TopicID}
			byTopic[p.Topic] = rt
		}
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.Partition, rp.ErrorCode, rp.BaseOffset = p.Partition, int16(rng.Uint32()), rng.Int64()
		rp.LogAppendTime, rp.LogStartOffset = rng.Int64(), rng.Int64()
		if rng.IntN(2) == 0 {
			rp.ErrorMessage = new("not today")
			for range rng.IntN(3) {
				rp.ErrorRecords = append(rp.ErrorRecords, kmsg.ProduceResponseTopicPartitionErrorRecord{RelativeOffset: 3, ErrorMessage: new("null key")})
			}
		}
		if rng.IntN(2) == 0 {
			rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch = rng.Int32(), rng.Int32()
		}
		if rng.IntN(4) == 0 {
			rp.UnknownTags.Set(9, []byte("later"))
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	for _, rt := range byTopic {
		resp.Topics = append(resp.Topics, *rt)
	}
	if rng.IntN(2) == 0 {
		resp.Brokers = append(resp.Brokers, kmsg.ProduceResponseBroker{NodeID: 3, Host: "elsewhere", Port: 9})
	}
	return resp
}

// produceBody is the body of an answer, with its header's tags.
func produceBody(resp *kmsg.ProduceResponse) []byte {
	return appendPeerAnswer(nil, 0, resp)[8:]
}

func TestProduceAnswersAreReadAsKmsgReadsThem(t *testing.T) {
	for version := int16(produceLowest); version <= produceByID; version++ {
		for seed := range uint64(60) {
			rng := rand.New(rand.NewPCG(seed, uint64(version)))
			r := &ProduceRequest{Parts: randomParts(rng, 10)}
			body := produceBody(randomProduceAnswer(rng, r.Parts, version))
			throttle, err := readProduceResponse(body, version, r)
			if err != nil {
				t.Fatalf("version %d, seed %d: %v", version, seed, err)
			}
			want := kmsg.NewPtrProduceResponse()
			want.Version = version
			if version >= produceFlexible {
				body = body[1:]
			}
			if err := want.ReadFrom(body); err != nil {
				t.Fatal(err)
			}
			if throttle != want.ThrottleMillis {
				t.Errorf("throttle %d, expected %d", throttle, want.ThrottleMillis)
			}
			expected := slices.Clone(r.Parts)
			for _, rt := range want.Topics {
				for _, rp := range rt.Partitions {
					i := slices.IndexFunc(expected, func(p ProducePart) bool {
						return p.Partition == rp.Partition && (p.Topic == rt.Topic || version >= produceByID && p.TopicID == rt.TopicID)
					})
					p := &expected[i]
					p.ErrorCode, p.BaseOffset, p.LogStart, p.Message = rp.ErrorCode, rp.BaseOffset, rp.LogStartOffset, ""
					if rp.ErrorMessage != nil {
						p.Message = *rp.ErrorMessage
					}
					p.CurrentLeader, p.CurrentLeaderEpoch = rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch
				}
			}
			if diff := cmp.Diff(expected, r.Parts, cmpopts.IgnoreUnexported(ProducePart{}), cmpopts.IgnoreFields(ProducePart{}, "Records")); diff != "" {
				t.Fatalf("version %d, seed %d: %s", version, seed, diff)
			}
		}
	}
}

func TestProduceAnswersThatDoNotFitTheRequestAreRefused(t *testing.T) {
	parts := []ProducePart{{Topic: "orders", Partition: 1}, {Topic: "orders", Partition: 2}}
	answer := func(topic string, partitions ...int32) []byte {
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = 9
		rt := kmsg.ProduceResponseTopic{Topic: topic}
		for _, p := range partitions {
			rt.Partitions = append(rt.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p})
		}
		resp.Topics = append(resp.Topics, rt)
		return produceBody(resp)
	}
	for want, body := range map[string][]byte{
		"1 of 2 partitions answered":                     answer("orders", 2),
		"orders-1 answered twice":                        answer("orders", 1, 2, 1),
		`topic "orders", partition 3, was not asked for`: answer("orders", 1, 2, 3),
		`topic "bills", partition 1, was not asked for`:  answer("bills", 1),
		"0 of 2 partitions answered":                     answer("orders"),
	} {
		if _, err := readProduceResponse(body, 9, &ProduceRequest{Parts: parts}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %s", err, want)
		}
	}
	whole := answer("orders", 1, 2)
	for cut := range whole {
		if _, err := readProduceResponse(whole[:cut], 9, &ProduceRequest{Parts: parts}); err == nil {
			t.Errorf("%d of %d bytes were enough", cut, len(whole))
		}
	}
}

// By topic id, what was meant for a topic does not end up in another one of
// the same name.
func TestProduceByTopicID(t *testing.T) {
	fake := newFake(t, kfake.SeedTopics(1, "orders"))
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0]})
	id := fake.TopicInfo("orders").TopicID
	for _, tc := range []struct {
		id   [16]byte
		code int16
	}{{id, 0}, {[16]byte{}, 0}, {[16]byte{1, 2, 3}, kerr.UnknownTopicID.Code}} {
		r := &ProduceRequest{Parts: []ProducePart{{Topic: "orders", TopicID: tc.id, Records: peerBatch(-1, -1, -1, "x")}}}
		if err := produced(c, r); err != nil || r.Parts[0].ErrorCode != tc.code {
			t.Errorf("id %x: %v, code %d, expected %d", tc.id[:4], err, r.Parts[0].ErrorCode, tc.code)
		}
	}
}

func TestErrorsOfPartitionsComeWithTheAnswer(t *testing.T) {
	fake := newFake(t, kfake.SeedTopics(1, "orders"))
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0]})
	r := &ProduceRequest{Parts: []ProducePart{
		{Topic: "orders", Records: peerBatch(-1, -1, -1, "x")},
		{Topic: "orders", Partition: 5, Records: peerBatch(-1, -1, -1, "x")},
		{Topic: "nowhere", Records: peerBatch(-1, -1, -1, "x")},
	}}
	if err := produced(c, r); err != nil {
		t.Fatal(err)
	}
	if p := r.Parts; p[0].ErrorCode != 0 || p[1].ErrorCode != kerr.UnknownTopicOrPartition.Code || p[2].ErrorCode != p[1].ErrorCode || p[1].Message == "" {
		t.Errorf("%+v", p)
	}
	r.Parts[0].Records[30] ^= 1
	if err := produced(c, r); err != nil || r.Parts[0].ErrorCode != kerr.CorruptMessage.Code {
		t.Errorf("%v, code %d", err, r.Parts[0].ErrorCode)
	}
}

func TestProduceToABrokerWithoutItsVersions(t *testing.T) {
	c := connectTo(t, Config{Dial: pipePeer(nil)})
	c.vers[0] = versions{0, 2}
	err := produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders"}}})
	if !errors.Is(err, kerr.UnsupportedVersion) || !errors.Is(err, ErrNotSent) {
		t.Error(err)
	}
}

func FuzzProduceAnswer(f *testing.F) {
	for version := int16(produceLowest); version <= produceByID; version++ {
		rng := rand.New(rand.NewPCG(uint64(version), 1))
		f.Add(version, produceBody(randomProduceAnswer(rng, fuzzParts(), version)))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < produceLowest || version > produceByID {
			return
		}
		r := &ProduceRequest{Parts: fuzzParts()}
		throttle, err := readProduceResponse(body, version, r)
		if err != nil {
			return
		}
		want := kmsg.NewPtrProduceResponse()
		want.Version = version
		b := bodyReader{rest: body}
		b.skipTagsIf(version >= produceFlexible)
		// Kmsg also looks into tagged fields that are skipped here.
		if err := want.ReadFrom(b.rest); err == nil && want.ThrottleMillis != throttle {
			t.Errorf("throttle %d, expected %d", throttle, want.ThrottleMillis)
		}
	})
}

func fuzzParts() []ProducePart {
	return []ProducePart{
		{Topic: "a", TopicID: [16]byte{1}}, {Topic: "a", TopicID: [16]byte{1}, Partition: 1},
		{Topic: "b", TopicID: [16]byte{2}},
	}
}
