package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// What a source broker's log holds, written with other code than that under
// test (kmsg, kgo), and read back with other code (kgo).

// srcRecord is a record as a consumer sees it.
type srcRecord struct {
	Offset     int64
	Timestamp  int64 // ms
	Key, Value []byte
	Headers    []srcHeader
}

type srcHeader struct {
	Key   string
	Value []byte
}

// srcBatch says how records lie in an entry.
type srcBatch struct {
	codec         Codec
	attributes    int16 // beside the codec
	base          int64 // base offset
	lastDelta     int32 // -1: that of the last record
	baseTimestamp int64
	maxTimestamp  int64 // 0: that of the records
	producerID    int64
	epoch         int16
	sequence      int32
}

var (
	kgoCompressors  = makeKgoCompressors()
	kgoDecompressor = kgo.DefaultDecompressor()
)

func makeKgoCompressors() (out [codecs]kgo.Compressor) {
	for c, codec := range []kgo.CompressionCodec{
		Gzip: kgo.GzipCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression(),
	} {
		out[c], _ = kgo.DefaultCompressor(codec)
	}
	return out
}

// compressLikeKgo compresses as a kgo client would: bare snappy, lz4 in blocks
// of 4 MiB with checksum.
func compressLikeKgo(tb testing.TB, c Codec, src []byte) []byte {
	tb.Helper()
	if c == None {
		return src
	}
	out, used := kgoCompressors[c].Compress(new(bytes.Buffer), src)
	if used != kgo.CompressionCodecType(c) {
		tb.Fatalf("compressed with codec %d", used)
	}
	return bytes.Clone(out)
}

// recordBytes writes records as they stand in a batch v2.
func recordBytes(base, baseTimestamp int64, records []srcRecord) []byte {
	var out []byte
	for _, r := range records {
		k := kmsg.Record{
			TimestampDelta64: r.Timestamp - baseTimestamp,
			OffsetDelta:      int32(r.Offset - base),
			Key:              r.Key,
			Value:            r.Value,
		}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		size := len(k.AppendTo(nil)) - 1 // a Length of 0 takes one byte
		k.Length = int32(size)
		out = k.AppendTo(out)
	}
	return out
}

// makeBatch writes a batch v2.
func makeBatch(tb testing.TB, s srcBatch, records []srcRecord) []byte {
	tb.Helper()
	raw := recordBytes(s.base, s.baseTimestamp, records)
	return sealBatch(s, records, compressLikeKgo(tb, s.codec, raw))
}

// sealBatch writes a batch v2 around a payload.
func sealBatch(s srcBatch, records []srcRecord, payload []byte) []byte {
	if s.maxTimestamp == 0 {
		s.maxTimestamp = -1
		for _, r := range records {
			s.maxTimestamp = max(s.maxTimestamp, r.Timestamp)
		}
	}
	if s.lastDelta < 0 {
		s.lastDelta = int32(records[len(records)-1].Offset - s.base)
	}
	k := kmsg.RecordBatch{
		FirstOffset:          s.base,
		Length:               int32(batchHeader - entryHeader + len(payload)),
		PartitionLeaderEpoch: 7,
		Magic:                2,
		Attributes:           s.attributes | int16(s.codec),
		LastOffsetDelta:      s.lastDelta,
		FirstTimestamp:       s.baseTimestamp,
		MaxTimestamp:         s.maxTimestamp,
		ProducerID:           s.producerID,
		ProducerEpoch:        s.epoch,
		FirstSequence:        s.sequence,
		NumRecords:           int32(len(records)),
		Records:              payload,
	}
	return sign(k.AppendTo(nil))
}

// sign puts the right CRC into a batch v2.
func sign(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// makeMessage writes one message of format 0 or 1.
func makeMessage(magic int8, attributes int8, r srcRecord) []byte {
	var b []byte
	if magic == 0 {
		m := kmsg.MessageV0{Offset: r.Offset, Attributes: attributes, Key: r.Key, Value: r.Value}
		b = m.AppendTo(nil)
	} else {
		m := kmsg.MessageV1{Offset: r.Offset, Magic: 1, Attributes: attributes, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value}
		b = m.AppendTo(nil)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[16:]))
	return b
}

// makeSet writes the records as messages one behind the other.
func makeSet(magic int8, shift int64, records []srcRecord) (set []byte) {
	for _, r := range records {
		r.Offset -= shift
		set = append(set, makeMessage(magic, 0, r)...)
	}
	return set
}

// makeWrapper writes a message that wraps the records, compressed.
func makeWrapper(tb testing.TB, magic int8, codec Codec, attributes int8, timestamp int64, records []srcRecord) []byte {
	tb.Helper()
	shift := int64(0)
	if magic == 1 {
		shift = records[0].Offset
	}
	payload := compressLikeKgo(tb, codec, makeSet(magic, shift, records))
	return makeMessage(magic, attributes|int8(codec), srcRecord{
		Offset: records[len(records)-1].Offset, Timestamp: timestamp, Value: payload,
	})
}

// readLikeKgo reads entries as a kgo consumer positioned at from would.
func readLikeKgo(tb testing.TB, entries []byte, from int64) []srcRecord {
	tb.Helper()
	fp, _ := kgo.ProcessFetchPartition(
		kgo.ProcessFetchPartitionOpts{Offset: from, Topic: "t"},
		&kmsg.FetchResponseTopicPartition{RecordBatches: entries},
		kgoDecompressor, nil)
	if fp.Err != nil {
		tb.Fatalf("kgo cannot read it: %v", fp.Err)
	}
	var out []srcRecord
	for _, r := range fp.Records {
		s := srcRecord{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		if r.Timestamp.IsZero() || r.Attrs.TimestampType() == -1 {
			s.Timestamp = -1
		}
		for _, h := range r.Headers {
			s.Headers = append(s.Headers, srcHeader{h.Key, h.Value})
		}
		out = append(out, s)
	}
	return out
}

// rebase gives records read from packed batches their source offsets back.
func rebase(tb testing.TB, packed []Packed) []srcRecord {
	tb.Helper()
	var out []srcRecord
	for _, p := range packed {
		b := p.Batch()
		if err := b.Verify(); err != nil {
			tb.Fatalf("packed batch: %v", err)
		}
		if !b.IsDense() || b.BaseOffset() != 0 || b.RecordCount() != p.Records || b.MaxTimestamp() != p.MaxTimestamp {
			tb.Fatalf("packed batch: dense %t, base offset %d, %d records of %d, max timestamp %d of %d",
				b.IsDense(), b.BaseOffset(), b.RecordCount(), p.Records, b.MaxTimestamp(), p.MaxTimestamp)
		}
		records := readLikeKgo(tb, b, 0)
		i, newest := 0, int64(-1)
		for _, run := range p.Runs {
			for n := range run.Count {
				if records[i].Offset != int64(i) {
					tb.Fatalf("record %d of a packed batch has offset %d", i, records[i].Offset)
				}
				records[i].Offset = run.Source + int64(n)
				newest = max(newest, records[i].Timestamp)
				i++
			}
		}
		if i != len(records) || i == 0 {
			tb.Fatalf("runs name %d records, there are %d", i, len(records))
		}
		if newest != p.MaxTimestamp {
			tb.Fatalf("max timestamp is %d, newest record %d", p.MaxTimestamp, newest)
		}
		if records[0].Timestamp != b.BaseTimestamp() {
			tb.Fatalf("base timestamp is %d, first record %d", b.BaseTimestamp(), records[0].Timestamp)
		}
		out = append(out, records...)
	}
	return out
}

func release(packed []Packed) {
	for _, p := range packed {
		p.Frame.Release()
	}
}

// drawRecords draws records with and without keys, values and headers, of
// compressible and other content, from the given offset on.
func drawRecords(t *rapid.T, next int64, holes bool) []srcRecord {
	value := rapid.Custom(func(t *rapid.T) []byte {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return []byte{}
		case 2:
			return bytes.Repeat([]byte("lorem ipsum "), rapid.IntRange(0, 400).Draw(t, "times"))
		default:
			return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		}
	})
	start := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli()
	var out []srcRecord
	for range rapid.IntRange(1, 40).Draw(t, "records") {
		r := srcRecord{
			Offset:    next,
			Timestamp: start + rapid.Int64Range(-1e10, 1e7).Draw(t, "timestamp"),
			Key:       value.Draw(t, "key"),
			Value:     value.Draw(t, "value"),
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "headers") {
			r.Headers = append(r.Headers, srcHeader{fmt.Sprintf("h%d", i), value.Draw(t, "header")})
		}
		out = append(out, r)
		next++
		if holes {
			next += rapid.Int64Range(0, 2).Draw(t, "hole")
		}
	}
	return out
}

// plainRecords are n records of size bytes that compress to about half.
func plainRecords(first int64, n, size int) []srcRecord {
	out := make([]srcRecord, n)
	state := uint32(first + 1)
	for i := range out {
		value := make([]byte, size)
		for j := range value {
			if j%8 < 2 {
				state = state*1664525 + 1013904223
				value[j] = byte(state >> 24)
			} else {
				value[j] = byte('a' + j%5)
			}
		}
		out[i] = srcRecord{Offset: first + int64(i), Timestamp: 1_790_000_000_000 + int64(i), Key: fmt.Appendf(nil, "key-%d", i), Value: value}
	}
	return out
}
