package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

var allCodecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

func TestCRCOfZeroBytesIsAdvancedByArithmetic(t *testing.T) {
	zeros := make([]byte, 17<<20)
	// The remainder of a value followed by zeros, computed the long way.
	long := func(crc uint32, n int) uint32 { return ^crc32.Update(^crc, castagnoli, zeros[:n]) }
	check := func(crc uint32, n int) {
		if got, want := crcAdvance(crc, n), long(crc, n); got != want {
			t.Fatalf("advance %08x by %d bytes: got %08x, want %08x", crc, n, got, want)
		}
	}
	for n := range 3000 {
		check(rand.Uint32(), n)
	}
	for shift := 11; shift <= 24; shift++ {
		for _, n := range []int{1<<shift - 1, 1 << shift, 1<<shift + 1} {
			check(rand.Uint32(), n)
		}
	}
}

func TestStampCarriesTheCRCWithoutReadingTheRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Batch(rapid.SliceOfN(rapid.Byte(), batchHeader, 3000).Draw(t, "batch"))
		sign(b)
		b.Stamp(rapid.Int64().Draw(t, "producer"), rapid.Int16().Draw(t, "epoch"), rapid.Int32().Draw(t, "sequence"))
		if want := crc32.Checksum(b[21:], castagnoli); b.CRC() != want {
			t.Fatalf("crc of %d bytes is %08x, want %08x", len(b), b.CRC(), want)
		}
	})
	// Every size up to 70 KiB once, by way of arithmetic on growing batches.
	buf := make([]byte, 70<<10)
	for i := range buf {
		buf[i] = byte(rand.Uint32())
	}
	for size := batchHeader; size < len(buf); size += 1 + size/97 {
		b := Batch(bytes.Clone(buf[:size]))
		sign(b)
		b.Stamp(4000, 3, 17)
		if want := crc32.Checksum(b[21:], castagnoli); b.CRC() != want {
			t.Fatalf("crc of %d bytes is %08x, want %08x", size, b.CRC(), want)
		}
	}
}

func TestStampKeepsACRCWrongThatWasWrong(t *testing.T) {
	b := Batch(makeBatch(t, srcBatch{lastDelta: -1}, plainRecords(0, 3, 100)))
	b[len(b)-1] ^= 0x10 // after the check, in our memory
	b.Stamp(1, 2, 3)
	if err := b.Verify(); err == nil {
		t.Fatal("the flipped bit is under a good crc now")
	}
}

func TestStampReplacesTheProducerAndNothingElse(t *testing.T) {
	records := plainRecords(500, 5, 20)
	s := srcBatch{codec: LZ4, base: 500, lastDelta: -1, producerID: 77, epoch: 8, sequence: 9}
	s.attributes = attrTransactional | 0x40 | 0x80 | 0x100 | attrLogAppendTime
	b := Batch(makeBatch(t, s, records))
	payload := bytes.Clone(b[batchHeader:])
	b.Stamp(4001, 5, 123456)

	var k kmsg.RecordBatch
	if err := k.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	if k.FirstOffset != 0 || k.PartitionLeaderEpoch != -1 || k.ProducerID != 4001 || k.ProducerEpoch != 5 || k.FirstSequence != 123456 {
		t.Fatalf("stamped: %+v", k)
	}
	if k.Attributes != int16(LZ4)|attrLogAppendTime {
		t.Fatalf("attributes are %#x", k.Attributes)
	}
	if k.LastOffsetDelta != 4 || k.NumRecords != 5 || k.MaxTimestamp != records[4].Timestamp || !bytes.Equal(k.Records, payload) {
		t.Fatalf("something else has changed: %+v", k)
	}
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
}

func TestStampDoesNotTurnAMarkerIntoARecord(t *testing.T) {
	b := Batch(makeControl(t, 10, 1, 0))
	b.Stamp(1, 1, 0)
	if !b.IsControl() {
		t.Fatal("the control bit is gone: a broker would take it for data")
	}
}

func TestAccessorsReadWhatKmsgWrites(t *testing.T) {
	s := srcBatch{codec: Zstd, attributes: attrTransactional, base: 1 << 40, lastDelta: 12, producerID: 1 << 33, epoch: 300, sequence: 1 << 30, baseTimestamp: 123456789012}
	b := Batch(makeBatch(t, s, plainRecords(1<<40, 5, 10)))
	if b.BaseOffset() != 1<<40 || b.LastOffset() != 1<<40+12 || b.NextOffset() != 1<<40+13 || NextOffset(b) != 1<<40+13 ||
		b.LeaderEpoch() != 7 || b.Codec() != Zstd || b.LastOffsetDelta() != 12 || b.BaseTimestamp() != 123456789012 ||
		b.MaxTimestamp() != 1_790_000_000_004 || b.ProducerID() != 1<<33 || b.ProducerEpoch() != 300 || b.BaseSequence() != 1<<30 ||
		b.RecordCount() != 5 || b.IsControl() || !b.IsTransactional() || b.IsLogAppendTime() || b.IsDense() {
		t.Fatal("an accessor reads something else")
	}
}

func TestVerifySeesEveryFlippedBit(t *testing.T) {
	good := makeBatch(t, srcBatch{base: 90, lastDelta: -1}, plainRecords(90, 3, 30))
	if err := Batch(good).Verify(); err != nil {
		t.Fatal(err)
	}
	for bit := range len(good) * 8 {
		if at := bit / 8; at < atLength || at >= atLeaderEpoch && at < atMagic {
			continue // offset and leader epoch are the broker's, outside the crc
		}
		b := Batch(bytes.Clone(good))
		b[bit/8] ^= 1 << (bit % 8)
		var c *CorruptError
		if err := b.Verify(); !errors.As(err, &c) || c.Offset != 90 {
			t.Fatalf("bit %d of byte %d flipped: %v", bit%8, bit/8, err)
		}
	}
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return sign(b) }
	}
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"short", func(b []byte) []byte { return b[:40] }, "read records at offset -1: batch of 40 bytes"},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, "read records at offset 5: length is 172 in a batch of 183 bytes"},
		{"magic", func(b []byte) []byte { b[16] = 1; return b }, "read records at offset 5: magic is 1, not 2"},
		{"crc", func(b []byte) []byte { binary.BigEndian.PutUint32(b[17:], 0xabad1dea); return b }, "read records at offset 5: crc is abad1dea, computed addfcb6c"},
		{"negative delta", put32(atLastOffsetDelta, 1<<31), "read records at offset 5: last offset delta is -2147483648"},
		{"more records than offsets", put32(atRecordCount, 4), "read records at offset 5: 4 records in 3 offsets"},
		{"negative count", put32(atRecordCount, 1<<31), "read records at offset 5: -2147483648 records in 3 offsets"},
		{"more records than bytes", func(b []byte) []byte {
			put32(atLastOffsetDelta, 999)(b)
			return put32(atRecordCount, 1000)(b)
		}, "read records at offset 5: 1000 records in 123 bytes"},
		{"codec", func(b []byte) []byte { b[22] = 6; return sign(b) }, "read records at offset 5: unknown compression codec 6"},
		{"overflow", func(b []byte) []byte { binary.BigEndian.PutUint64(b, 1<<63-2); return b }, "read records at offset 9223372036854775806: last offset delta is 2"},
	} {
		err := Batch(c.change(makeBatch(t, srcBatch{base: 5, lastDelta: -1}, plainRecords(5, 3, 24)))).Verify()
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestSplitCutsEntriesOfAllFormats(t *testing.T) {
	entries := [][]byte{
		makeMessage(0, 0, srcRecord{Offset: 3, Value: []byte("zero")}),
		makeMessage(1, 0, srcRecord{Offset: 4, Timestamp: 9, Key: []byte("k")}),
		makeBatch(t, srcBatch{base: 5, lastDelta: -1}, plainRecords(5, 3, 10)),
	}
	rest := bytes.Join(append(entries, entries[2][:50]), nil)
	var entry []byte
	for i, want := range entries {
		var err error
		if entry, rest, err = Split(rest); err != nil || !bytes.Equal(entry, want) {
			t.Fatalf("entry %d: %x, %v", i, entry, err)
		}
		if Magic(entry) != int8(i) {
			t.Fatalf("magic of entry %d is %d", i, Magic(entry))
		}
		if next := NextOffset(entry); next != []int64{4, 5, 8}[i] {
			t.Fatalf("next offset of entry %d is %d", i, next)
		}
		if cap(entry) != len(entry) {
			t.Fatal("appending to an entry would write into the next")
		}
	}
	if _, _, err := Split(rest); err != ErrPartial {
		t.Fatalf("cut off batch: %v", err)
	}
	if _, _, err := Split(nil); err != ErrPartial {
		t.Fatalf("nothing: %v", err)
	}
}

func TestSplitRefusesWhatWouldNeverBecomeWhole(t *testing.T) {
	good := makeBatch(t, srcBatch{base: 5, lastDelta: -1}, plainRecords(5, 3, 10))
	for name, change := range map[string]func([]byte){
		"magic 3":         func(b []byte) { b[16] = 3 },
		"negative magic":  func(b []byte) { b[16] = 0x80 },
		"negative length": func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) },
		"length 0":        func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0) },
		"below a header":  func(b []byte) { binary.BigEndian.PutUint32(b[8:], 48) },
	} {
		b := bytes.Clone(good)
		change(b)
		var c *CorruptError
		if _, _, err := Split(b[:20]); !errors.As(err, &c) || c.Offset != 5 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// makeControl writes a control batch: 0 abort, 1 commit.
func makeControl(tb testing.TB, offset, producerID int64, kind uint16) []byte {
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, kind)
	return makeBatch(tb, srcBatch{base: offset, lastDelta: -1, attributes: attrControl | attrTransactional, producerID: producerID},
		[]srcRecord{{Offset: offset, Timestamp: 1, Key: key, Value: make([]byte, 6)}})
}

func TestControlTypeReadsMarkers(t *testing.T) {
	for kind, want := range []ControlType{ControlAbort, ControlCommit, ControlUnknown} {
		if got, err := Batch(makeControl(t, 1, 1, uint16(kind))).ControlType(); got != want || err != nil {
			t.Errorf("kind %d: %v, %v", kind, got, err)
		}
	}
	empty := sealBatch(srcBatch{base: 9, attributes: attrControl}, nil, nil)
	if got, err := Batch(empty).ControlType(); got != ControlUnknown || err != nil {
		t.Errorf("emptied by compaction: %v, %v", got, err)
	}
	short := makeBatch(t, srcBatch{lastDelta: -1, attributes: attrControl}, []srcRecord{{Key: []byte{0, 0, 0}}})
	var c *CorruptError
	if _, err := Batch(short).ControlType(); !errors.As(err, &c) {
		t.Errorf("key of three bytes: %v", err)
	}
	data := makeBatch(t, srcBatch{lastDelta: -1}, []srcRecord{{Key: []byte{0, 0, 0, 0}}})
	if _, err := Batch(data).ControlType(); !errors.As(err, &c) {
		t.Errorf("data: %v", err)
	}
}
