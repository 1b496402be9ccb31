package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// cannedPeer answers every request of an API with the same bytes, so that a
// benchmark measures this side alone. It counts as little as possible.
func cannedPeer(b *testing.B, answers map[int16][]byte, wrap func(net.Conn) net.Conn) func(context.Context, string) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		nc = wrap(nc)
		defer nc.Close()
		corr, req, err := readPeerRequest(nc)
		if err != nil {
			return
		}
		resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
		for key := range answers {
			resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: peerVersions[key]})
		}
		writePeerAnswer(nc, corr, resp)
		buf := make([]byte, 64<<10)
		for {
			if _, err := io.ReadFull(nc, buf[:12]); err != nil {
				return
			}
			answer := answers[int16(binary.BigEndian.Uint16(buf[4:]))]
			copy(answer[4:8], buf[8:12])
			for rest := int(binary.BigEndian.Uint32(buf)) - 8; rest > 0; {
				n, err := nc.Read(buf[:min(rest, len(buf))])
				if err != nil {
					return
				}
				rest -= n
			}
			if _, err := nc.Write(answer); err != nil {
				return
			}
		}
	}()
	return func(ctx context.Context, _ string) (net.Conn, error) { return dialTCP(ctx, l.Addr().String()) }
}

func cannedProduce(parts []ProducePart) []byte {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = peerVersions[0]
	rt := kmsg.ProduceResponseTopic{Topic: parts[0].Topic}
	for _, p := range parts {
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.Partition = p.Partition
		rt.Partitions = append(rt.Partitions, rp)
	}
	resp.Topics = append(resp.Topics, rt)
	return appendPeerAnswer(nil, 0, resp)
}

// produceLoop keeps five requests in flight.
func produceLoop(b *testing.B, c *Conn, parts []ProducePart) {
	var bytes int64
	for i := range parts {
		bytes += int64(len(parts[i].Records))
	}
	free := make(chan *ProduceRequest, 5)
	for range cap(free) {
		free <- &ProduceRequest{TimeoutMillis: 1000, Parts: append([]ProducePart(nil), parts...), Done: func(r *ProduceRequest, err error) {
			if err != nil || r.Parts[0].ErrorCode != 0 {
				b.Errorf("produce: %v, code %d", err, r.Parts[0].ErrorCode)
			}
			free <- r
		}}
	}
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		c.Produce(<-free)
	}
	for range cap(free) {
		<-free
	}
}

func benchParts(n, size int) []ProducePart {
	var parts []ProducePart
	for p := range int32(n) {
		parts = append(parts, ProducePart{Topic: "orders", Partition: p, Records: peerBatch(-1, -1, -1, string(make([]byte, size)))})
	}
	return parts
}

func plainConn(nc net.Conn) net.Conn { return nc }

// 16 batches of 64 KiB a request, against a peer that only reads.
func BenchmarkProduce(b *testing.B) {
	parts := benchParts(16, 64<<10)
	b.Run("tcp", func(b *testing.B) {
		c := connectTo(b, Config{Dial: cannedPeer(b, map[int16][]byte{0: cannedProduce(parts)}, plainConn)})
		produceLoop(b, c, parts)
	})
	b.Run("tls", func(b *testing.B) {
		server, client := selfSigned(b)
		dial := cannedPeer(b, map[int16][]byte{0: cannedProduce(parts)}, func(nc net.Conn) net.Conn { return tls.Server(nc, server) })
		c := connectTo(b, Config{Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			nc, err := dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			client.ServerName = "127.0.0.1"
			return tls.Client(nc, client), nil
		}})
		produceLoop(b, c, parts)
	})
	b.Run("kfake", func(b *testing.B) {
		fake := newFake(b, kfake.BlackholeProduce(), kfake.SeedTopics(16, "orders"))
		c := connectTo(b, Config{Addr: fake.ListenAddrs()[0]})
		produceLoop(b, c, parts)
	})
}

func fetchLoop(b *testing.B, c *Conn, s *FetchSession) {
	b.ReportAllocs()
	var bytes int64
	n := int64(0)
	for b.Loop() {
		resp, err := c.Fetch(b.Context(), s, FetchOptions{MinBytes: 1, MaxBytes: 4 << 20})
		if err != nil {
			b.Fatal(err)
		}
		for i := range resp.Partitions {
			p := &resp.Partitions[i]
			bytes += int64(len(p.Records))
			s.Set(p.Topic, p.TopicID, p.Partition, FetchPosition{Offset: n + 1, LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
		}
		n++
		resp.Frame.Release()
	}
	b.SetBytes(bytes / n)
}

func BenchmarkFetch(b *testing.B) {
	session := func(id [16]byte) *FetchSession {
		s := NewFetchSession()
		for p := range int32(4) {
			s.Set("orders", id, p, FetchPosition{LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
		}
		return s
	}
	b.Run("tcp", func(b *testing.B) {
		resp := kmsg.NewPtrFetchResponse()
		resp.Version = peerVersions[1]
		resp.SessionID = 1
		rt := kmsg.FetchResponseTopic{TopicID: [16]byte{1}}
		for p := range int32(4) {
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.RecordBatches = p, make([]byte, 1<<20)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
		c := connectTo(b, Config{Pool: NewPool(64 << 20), Dial: cannedPeer(b, map[int16][]byte{1: appendPeerAnswer(nil, 0, resp)}, plainConn)})
		fetchLoop(b, c, session([16]byte{1}))
	})
	b.Run("kfake", func(b *testing.B) {
		fake := newFake(b, kfake.SyntheticFetch(kfake.SyntheticBatch{}), kfake.SeedTopics(4, "orders"))
		c := connectTo(b, Config{Pool: NewPool(64 << 20), Addr: fake.ListenAddrs()[0]})
		fetchLoop(b, c, session(fake.TopicInfo("orders").TopicID))
	})
}
