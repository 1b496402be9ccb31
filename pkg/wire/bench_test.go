package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/recorded"
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
	free := make(chan *ProduceRequest, 5)
	for range cap(free) {
		free <- &ProduceRequest{TimeoutMillis: 1000, Parts: append([]ProducePart(nil), parts...), Done: func(r *ProduceRequest, err error) {
			if err != nil || r.Parts[0].ErrorCode != 0 {
				b.Errorf("produce: %v, code %d", err, r.Parts[0].ErrorCode)
			}
			free <- r
		}}
	}
	m := recorded.Start(b, bytesOf(parts))
	for b.Loop() {
		c.Produce(<-free)
	}
	for range cap(free) {
		<-free
	}
	m.Report(b.N * len(parts))
}

// recordedParts is a request as the appender makes it: one batch of each of n
// partitions, n being what fits into 1 MiB, but at most 100.
func recordedParts(b *testing.B, name string) (parts []ProducePart) {
	l := recorded.Get(b, name)
	l = l.Until(1 << 20)
	for p, batch := range l.Batches()[:min(100, (1<<20)/len(l.Batches()[0]))] {
		Batch(batch).Stamp(4000, 1, 0)
		parts = append(parts, ProducePart{Topic: "orders", TopicID: [16]byte{1}, Partition: int32(p), Records: batch})
	}
	return parts
}

func bytesOf(parts []ProducePart) (n int) {
	for i := range parts {
		n += len(parts[i].Records)
	}
	return n
}

func plainConn(nc net.Conn) net.Conn { return nc }

// Requests against a peer in this process that only reads; its reading is part of
// the time.
func BenchmarkProduce(b *testing.B) {
	for _, name := range []string{recorded.Named(recorded.Large, "lz4"), recorded.Named(recorded.Small, "none")} {
		parts := recordedParts(b, name)
		answers := map[int16][]byte{0: cannedProduce(parts)}
		b.Run("tcp/"+name, func(b *testing.B) {
			produceLoop(b, connectTo(b, Config{Dial: cannedPeer(b, answers, plainConn)}), parts)
		})
		b.Run("tls/"+name, func(b *testing.B) {
			server, client := selfSigned(b)
			dial := cannedPeer(b, answers, func(nc net.Conn) net.Conn { return tls.Server(nc, server) })
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
	}
}

// nowhere is a connection that takes everything at once.
type nowhere struct {
	net.Conn
	taken int
}

func (d *nowhere) Write(p []byte) (int, error) {
	d.taken += len(p)
	return len(p), nil
}

// A request is built, with slices of the batches in it, and written to nowhere:
// what a request costs besides the kernel's work.
func BenchmarkProduceRequest(b *testing.B) {
	for _, name := range []string{recorded.Named(recorded.Large, "lz4"), recorded.Named(recorded.Small, "none")} {
		b.Run(name, func(b *testing.B) {
			r := &ProduceRequest{TimeoutMillis: 1000, Parts: recordedParts(b, name)}
			o := outbox{vectored: true}
			var sink nowhere
			write := func() {
				o.reset()
				o.head = appendRequestHeader(o.head, 0, produceByID, "replicator", true)
				o.produce(r, produceByID)
				o.finish(1)
				if n, err := o.writeTo(&sink); err != nil || n != o.size || n < bytesOf(r.Parts) {
					b.Fatalf("wrote %d of %d: %v", n, o.size, err)
				}
			}
			write()
			m := recorded.Start(b, 0)
			for b.Loop() {
				write()
			}
			m.Report(b.N * len(r.Parts))
		})
	}
}

// The answer to a request is read into its parts.
func BenchmarkProduceAnswer(b *testing.B) {
	for _, n := range []int{1, 16, 100} {
		b.Run(fmt.Sprintf("%dparts", n), func(b *testing.B) {
			r := &ProduceRequest{}
			resp := kmsg.NewPtrProduceResponse()
			resp.Version = produceByID
			rt := kmsg.ProduceResponseTopic{TopicID: [16]byte{1}}
			for p := range int32(n) {
				r.Parts = append(r.Parts, ProducePart{Topic: "orders", TopicID: rt.TopicID, Partition: p})
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition = p
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
			body := produceBody(resp)
			m := recorded.Start(b, 0)
			for b.Loop() {
				if _, err := readProduceResponse(body, produceByID, r); err != nil {
					b.Fatal(err)
				}
			}
			m.Report(b.N * n)
		})
	}
}

// benchAnswer is a fetch answer of some partitions with size bytes each, as the
// newest version has it, and the session it belongs to.
func benchAnswer(b *testing.B, name string, partitions, size int) (resp *kmsg.FetchResponse, s *FetchSession, batches int) {
	l := recorded.Get(b, name)
	l = l.Until(size)
	s = NewFetchSession()
	resp = kmsg.NewPtrFetchResponse()
	resp.Version = fetchNewest
	resp.SessionID = 1
	rt := kmsg.FetchResponseTopic{TopicID: [16]byte{1}}
	for p := range int32(partitions) {
		s.Set("orders", rt.TopicID, p, FetchPosition{LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 2 << 20})
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.Partition, rp.RecordBatches = p, l.Records
		rt.Partitions = append(rt.Partitions, rp)
	}
	resp.Topics = append(resp.Topics, rt)
	return resp, s, partitions * len(l.Batches())
}

// An answer is asked for, comes from a peer in this process, is read into a frame
// and taken apart; the peer's writing is part of the time.
func BenchmarkFetch(b *testing.B) {
	for _, name := range []string{recorded.Named(recorded.Large, "lz4"), recorded.Named(recorded.Small, "none")} {
		b.Run("tcp/"+name, func(b *testing.B) {
			resp, s, batches := benchAnswer(b, name, 4, 1<<20)
			answer := appendPeerAnswer(nil, 0, resp)
			c := connectTo(b, Config{Pool: NewPool(64 << 20), Dial: cannedPeer(b, map[int16][]byte{1: answer}, plainConn)})
			offset := int64(0)
			fetch := func() {
				resp, err := c.Fetch(b.Context(), s, FetchOptions{MinBytes: 1, MaxBytes: 8 << 20})
				if err != nil {
					b.Fatal(err)
				}
				offset++
				for i := range resp.Partitions {
					p := &resp.Partitions[i]
					s.Set(p.Topic, p.TopicID, p.Partition, FetchPosition{Offset: offset, LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 2 << 20})
				}
				resp.Frame.Release()
			}
			fetch()
			m := recorded.Start(b, len(answer))
			for b.Loop() {
				fetch()
			}
			m.Report(b.N * batches)
		})
	}
}

// An answer that lies in a frame is taken apart, and the headers of its batches
// are read for the next offset: all that is done before the next fetch goes out.
func BenchmarkScan(b *testing.B) {
	for _, name := range []string{recorded.Named(recorded.Large, "lz4"), recorded.Named(recorded.Small, "none")} {
		for _, partitions := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/%dparts", name, partitions), func(b *testing.B) {
				resp, s, batches := benchAnswer(b, name, partitions, (1<<20)/partitions)
				pool := NewPool(64 << 20)
				frame := frameOf(pool, fetchBody(resp))
				scan := func() {
					if err := s.read(frame, fetchNewest); err != nil {
						b.Fatal(err)
					}
					found := 0
					for i := range s.resp.Partitions {
						for rest := s.resp.Partitions[i].Records; len(rest) > 0; found++ {
							var entry []byte
							var err error
							if entry, rest, err = Split(rest); err != nil {
								b.Fatal(err)
							}
							if Magic(entry) != 2 || NextOffset(entry) <= 0 || Batch(entry).LeaderEpoch() < 0 {
								b.Fatal("another batch than was recorded")
							}
						}
					}
					if found != batches {
						b.Fatalf("%d batches of %d", found, batches)
					}
				}
				scan()
				m := recorded.Start(b, 0)
				for b.Loop() {
					scan()
				}
				m.Report(b.N * batches)
			})
		}
	}
}

// onBatches runs fn on every batch of some logs; reads says that it reads them whole.
func onBatches(b *testing.B, reads bool, fn func(b *testing.B, batch Batch)) {
	for _, name := range []string{recorded.Named(recorded.Large, "lz4"), recorded.Named(recorded.Small, "none"), recorded.Transactions} {
		b.Run(name, func(b *testing.B) {
			l := recorded.Get(b, name)
			batches := l.Batches()
			bytes := 0
			if reads {
				bytes = len(l.Records)
			}
			m := recorded.Start(b, bytes)
			for b.Loop() {
				for _, batch := range batches {
					fn(b, batch)
				}
			}
			m.Report(b.N * len(batches))
		})
	}
}

// The one pass over the bytes of a batch.
func BenchmarkVerify(b *testing.B) {
	onBatches(b, true, func(b *testing.B, batch Batch) {
		if err := batch.Verify(); err != nil {
			b.Fatal(err)
		}
	})
}

// The header is written anew and the checksum carried.
func BenchmarkStamp(b *testing.B) {
	sequence := int32(0)
	onBatches(b, false, func(_ *testing.B, batch Batch) {
		batch.Stamp(4000, 1, sequence)
		sequence++
	})
}
