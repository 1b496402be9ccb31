package workload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/compare"
)

// serve is a cluster whose topic orders holds these bytes as its n records:
// a fake refuses to be written what only old or stamping brokers store.
func serve(t *testing.T, n int, stored []byte) []kgo.Opt {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
	if _, err := Write(t.Context(), opts, Spec{Topic: "orders", Kind: Plain, Partitions: 1, Records: n}); err != nil {
		t.Fatal(err)
	}
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		rt, rp := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		rt.Topic = "orders"
		rp.HighWatermark, rp.LastStableOffset = int64(n), int64(n)
		rp.RecordBatches = stored
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	return opts
}

func records(n int) []*kgo.Record {
	m := newMaker(Spec{Topic: "orders", Kind: Nulls, Partitions: 1, ValueBytes: 300})
	var out []*kgo.Record
	for i := range n {
		out = append(out, m.at(0, int64(i), time.UnixMilli(1_700_000_000_000+int64(i))))
	}
	return out
}

func checkServed(t *testing.T, want []*kgo.Record, stored []byte, timestamp func(*kgo.Record) int64) {
	t.Helper()
	n := 0
	err := compare.Read(t.Context(), serve(t, len(want), stored), "orders", func(r *kgo.Record) error {
		w := want[n]
		if r.Offset != int64(n) || !bytes.Equal(r.Key, w.Key) || !bytes.Equal(r.Value, w.Value) ||
			(r.Key == nil) != (w.Key == nil) || (r.Value == nil) != (w.Value == nil) || r.Timestamp.UnixMilli() != timestamp(w) {
			return fmt.Errorf("record %d is %+v, want %+v", n, r, w)
		}
		n++
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("read %d of %d: %v", n, len(want), err)
	}
}

// What is encoded by hand is read by kgo, in all formats and codecs; of format
// 0 with the broken lz4 header of its time.
func TestOldMessagesAreWhatAnIndependentReaderReads(t *testing.T) {
	for magic := range int8(2) {
		for _, codec := range []Codec{None, Gzip, Snappy, RawSnappy, LZ4} {
			t.Run(fmt.Sprintf("format %d %s", magic, codec), func(t *testing.T) {
				want := records(200)
				stored, err := encodeMessages(want, codec, magic)
				if err != nil {
					t.Fatal(err)
				}
				checkServed(t, want, stored, func(r *kgo.Record) int64 {
					if magic == 0 {
						return time.Time{}.UnixMilli() // the format has none
					}
					return r.Timestamp.UnixMilli()
				})
			})
		}
	}
}

// A broker stamps a compressed set of format 1 on the message around it, and a
// bare message in place.
func TestStampedOldMessagesAreReadWithTheBrokersTime(t *testing.T) {
	want := records(20)
	first, err := encodeMessages(want[:10], None, 1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := encodeMessages(want[10:], Gzip, 1)
	if err != nil {
		t.Fatal(err)
	}
	const stamp = 1_800_000_000_000
	binary.BigEndian.PutUint64(second, 19) // offset of the last message in it
	second[17] |= 0x08
	binary.BigEndian.PutUint64(second[18:], stamp)
	binary.BigEndian.PutUint32(second[12:], crc32.ChecksumIEEE(second[16:]))
	checkServed(t, want, append(first, second...), func(r *kgo.Record) int64 {
		if at := r.Timestamp.UnixMilli(); at < want[10].Timestamp.UnixMilli() {
			return at
		}
		return stamp
	})
}

func TestHandMadeBatchesAreWhatAnIndependentReaderReads(t *testing.T) {
	for _, codec := range Codecs() {
		want := records(200)
		stored, err := encodeBatch(want, codec, 0, producer{-1, -1}, -1)
		if err != nil {
			t.Fatal(err)
		}
		checkServed(t, want, stored, func(r *kgo.Record) int64 { return r.Timestamp.UnixMilli() })
	}
	// Stamped by the broker: the newest timestamp of the batch counts for all.
	want := records(10)
	const logAppendTime = 0x08
	stored, err := encodeBatch(want, LZ4, logAppendTime, producer{-1, -1}, -1)
	if err != nil {
		t.Fatal(err)
	}
	checkServed(t, want, stored, func(*kgo.Record) int64 { return want[9].Timestamp.UnixMilli() })
}

func TestTheBrokenLZ4HeaderIsBroken(t *testing.T) {
	frame, err := LZ4.compress([]byte("some text, some text, some text"))
	if err != nil {
		t.Fatal(err)
	}
	if frame[6] != xxh32Short(frame[4:6]) {
		t.Fatalf("the library's header checksum is %02x, ours %02x", frame[6], xxh32Short(frame[4:6]))
	}
	if _, err := kgo.DefaultDecompressor().Decompress(frame, kgo.CodecLz4); err != nil {
		t.Fatal(err)
	}
	breakLZ4Header(frame)
	if _, err := kgo.DefaultDecompressor().Decompress(frame, kgo.CodecLz4); err == nil {
		t.Error("a standard reader takes it")
	}
}
