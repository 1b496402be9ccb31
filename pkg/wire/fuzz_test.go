package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
)

// fuzzLimit is what an entry may decompress to under fuzzing.
const fuzzLimit = 1 << 20

func entrySeeds(f *testing.F) [][]byte {
	records := plainRecords(100, 5, 40)
	records[1].Key, records[2].Value = nil, nil
	records[3].Headers = []srcHeader{{"h", []byte("x")}, {"", nil}}
	var seeds [][]byte
	for _, codec := range allCodecs {
		seeds = append(seeds,
			makeBatch(f, srcBatch{codec: codec, base: 100, lastDelta: -1, baseTimestamp: 1_790_000_000_000}, records),
			makeBatch(f, srcBatch{codec: codec, base: 99, lastDelta: 9, attributes: attrLogAppendTime | attrTransactional, producerID: 4}, records))
		for magic := range int8(2) {
			if codec != None && codec != Zstd {
				seeds = append(seeds, makeWrapper(f, magic, codec, 0, 5, records))
			}
		}
	}
	return append(seeds, makeMessage(0, 0, records[0]), makeMessage(1, 0, records[2]),
		makeControl(f, 7, 4, 0), sealBatch(srcBatch{base: 9, lastDelta: 3}, nil, nil))
}

// Whatever a broker sends: no panic, no memory beyond the limit, known errors
// only, and what comes out is a valid batch.
func FuzzPacker(f *testing.F) {
	for _, seed := range entrySeeds(f) {
		f.Add(seed, int64(0), 300, true)
		f.Add(append(append([]byte(nil), seed...), seed...), int64(102), 0, false)
	}
	p := NewPacker(PackConfig{MaxDecoded: fuzzLimit, TargetBytes: 2000, Pool: NewPool(1 << 20)})
	f.Fuzz(func(t *testing.T, data []byte, from int64, maxBytes int, reseal bool) {
		p.Reset(maxBytes)
		for {
			entry, rest, err := Split(data)
			if err != nil {
				known(t, err)
				break
			}
			if len(entry)+len(rest) != len(data) {
				t.Fatal("bytes lost between entries")
			}
			data = rest
			entry = append([]byte(nil), entry...)
			if reseal { // as if the source itself had written it
				if Magic(entry) == 2 {
					sign(entry)
				} else {
					binary.BigEndian.PutUint32(entry[atMessageCRC:], crc32.ChecksumIEEE(entry[atMagic:]))
				}
			}
			if b := Batch(entry); Magic(entry) == 2 {
				if err := b.Verify(); err != nil {
					known(t, err)
					continue
				}
				_, _ = b.ControlType()
				stamped := append(Batch(nil), b...)
				stamped.Stamp(1, 2, 3)
				if err := stamped.Verify(); err != nil {
					t.Fatalf("stamped: %v", err)
				}
			}
			if err := p.Add(entry, from); err != nil {
				known(t, err)
			}
			if cap(p.decoded) > fuzzLimit+decodeSlack {
				t.Fatalf("%d bytes allocated to decode", cap(p.decoded))
			}
		}
		packed, err := p.Finish(nil)
		if err != nil {
			known(t, err)
		}
		rebaseQuietly(t, packed, maxBytes)
		release(packed)
	})
}

func known(t *testing.T, err error) {
	t.Helper()
	var (
		c *CorruptError
		u *UnknownCodecError
		b *BombError
		l *RecordTooLargeError
	)
	if !errors.As(err, &c) && !errors.As(err, &u) && !errors.As(err, &b) && !errors.As(err, &l) && err != ErrPartial {
		t.Fatalf("an error of no type: %v", err)
	}
}

// rebaseQuietly checks packed batches as far as arbitrary input allows.
func rebaseQuietly(t *testing.T, packed []Packed, maxBytes int) {
	for _, p := range packed {
		b := p.Batch()
		if err := b.Verify(); err != nil {
			t.Fatalf("packed batch: %v", err)
		}
		if !b.IsDense() || b.RecordCount() != p.Records || maxBytes > 0 && len(b) > maxBytes {
			t.Fatalf("packed batch: dense %t, %d of %d records, %d bytes", b.IsDense(), b.RecordCount(), p.Records, len(b))
		}
		if n := len(readLikeKgo(t, b, 0)); n != int(p.Records) {
			t.Fatalf("kgo reads %d of %d records", n, p.Records)
		}
		count := int32(0)
		for i, run := range p.Runs {
			if run.Count <= 0 || i > 0 && run.Source == p.Runs[i-1].Source+int64(p.Runs[i-1].Count) {
				t.Fatalf("runs %v", p.Runs)
			}
			count += run.Count
		}
		if count != p.Records {
			t.Fatalf("runs name %d of %d records", count, p.Records)
		}
	}
}

// The decoders alone get much further under fuzzing than behind a CRC.
func FuzzDecode(f *testing.F) {
	for _, codec := range allCodecs[1:] {
		for _, src := range [][]byte{[]byte("hello hello hello hello"), make([]byte, 100<<10), drawText(5000)} {
			f.Add(uint8(codec), compressLikeKgo(f, codec, src))
			var enc encoder
			own, _ := enc.encode(nil, codec, src)
			f.Add(uint8(codec), own)
		}
	}
	f.Fuzz(func(t *testing.T, codec uint8, src []byte) {
		var dec decoder
		out, err := dec.decode(nil, Codec(codec%codecs), src, fuzzLimit)
		if cap(out) > fuzzLimit+decodeSlack || err == nil && len(out) > fuzzLimit {
			t.Fatalf("%d bytes in %d allocated", len(out), cap(out))
		}
	})
}

// Records: what Packer takes, kgo reads; byte for byte the same.
func FuzzRecords(f *testing.F) {
	f.Add(recordBytes(0, 0, plainRecords(0, 3, 10)), int32(3), int32(2))
	f.Add(recordBytes(0, 0, []srcRecord{{Offset: 4, Headers: []srcHeader{{"a", nil}}}}), int32(1), int32(9))
	f.Fuzz(func(t *testing.T, payload []byte, count, lastDelta int32) {
		if count < 1 || count > 1000 || lastDelta < 0 {
			return
		}
		entry := sealBatch(srcBatch{lastDelta: lastDelta, maxTimestamp: 1}, make([]srcRecord, count), payload)
		if Batch(entry).Verify() != nil {
			return
		}
		p := NewPacker(PackConfig{Pool: NewPool(0)})
		if err := p.Add(entry, 0); err != nil {
			known(t, err)
			return
		}
		packed, err := p.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer release(packed)
		rebaseQuietly(t, packed, 0)
		want := readLikeKgo(t, entry, 0)
		var got []srcRecord
		for _, p := range packed {
			got = append(got, readLikeKgo(t, p.Batch(), 0)...)
		}
		for i := range got {
			got[i].Offset = want[i].Offset // arbitrary: other tests look at them
		}
		if d := diffRecords(got, want); d != "" {
			t.Fatal(d)
		}
	})
}
