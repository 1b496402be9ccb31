package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var oldCodecs = []Codec{Gzip, Snappy, LZ4}

func TestOldMessagesBecomeRecords(t *testing.T) {
	records := []srcRecord{
		{Offset: 10, Timestamp: 1000, Key: []byte("k"), Value: []byte("v")},
		{Offset: 11, Timestamp: 999, Value: []byte{}},
		{Offset: 14, Timestamp: 2000, Key: []byte{}}, // 12 and 13 compacted away
	}
	for magic := range int8(2) {
		want := append([]srcRecord(nil), records...)
		if magic == 0 {
			for i := range want {
				want[i].Timestamp = -1
			}
		}
		check := func(name string, codec Codec, entries ...[]byte) {
			p := NewPacker(PackConfig{Pool: NewPool(0)})
			packed := pack(t, p, entries, 0)
			defer release(packed)
			if d := diffRecords(rebase(t, packed), want); d != "" {
				t.Errorf("format %d, %s: %s", magic, name, d)
			}
			if d := cmp.Diff([]Run{{10, 2}, {14, 1}}, packed[0].Runs); d != "" || packed[0].NextSource != 15 {
				t.Errorf("format %d, %s: next source offset %d, runs %s", magic, name, packed[0].NextSource, d)
			}
			if packed[0].Batch().Codec() != codec {
				t.Errorf("format %d, %s: codec is %s", magic, name, packed[0].Batch().Codec())
			}
		}
		var plain [][]byte
		for _, r := range records {
			plain = append(plain, makeMessage(magic, 0, r))
		}
		check("plain", None, plain...)
		for _, codec := range oldCodecs {
			check(codec.String(), codec, makeWrapper(t, magic, codec, 0, 5000, records))
		}
		var enc encoder
		framed, _ := enc.encode(nil, Snappy, makeSet(magic, int64(magic)*10, records))
		check("xerial", Snappy, makeMessage(magic, int8(Snappy), srcRecord{Offset: 14, Value: framed}))
	}
}

// Kafka computed the checksum of the lz4 head over the wrong bytes in format 0
// and reads it that way since (KAFKA-3160).
func TestTheBrokenLZ4HeadOfFormat0IsRead(t *testing.T) {
	records := plainRecords(5, 20, 100)
	payload := bytes.Clone(compressLikeKgo(t, LZ4, makeSet(0, 0, records)))
	payload[6] ^= 0x5a // the checksum
	entry := makeMessage(0, int8(LZ4), srcRecord{Offset: 24, Value: payload})
	packed := pack(t, NewPacker(PackConfig{Pool: NewPool(0)}), [][]byte{entry}, 0)
	defer release(packed)
	for i := range records {
		records[i].Timestamp = -1
	}
	if d := diffRecords(rebase(t, packed), records); d != "" {
		t.Error(d)
	}
}

func TestAppendTimeOfAWrapperIsThatOfItsMessages(t *testing.T) {
	records := plainRecords(5, 3, 10)
	entry := makeWrapper(t, 1, Gzip, attrLogAppendTime, 777, records)
	packed := pack(t, NewPacker(PackConfig{Pool: NewPool(0)}), [][]byte{entry}, 6)
	defer release(packed)
	got := rebase(t, packed)
	if len(got) != 2 || got[0].Offset != 6 || got[0].Timestamp != 777 || got[1].Timestamp != 777 {
		t.Errorf("%+v", got)
	}
}

func TestWrapperAtOffset0LeavesOffsetsAsTheyAre(t *testing.T) {
	payload := compressLikeKgo(t, Gzip, makeSet(1, 0, plainRecords(0, 3, 10)))
	entry := makeMessage(1, int8(Gzip), srcRecord{Offset: 0, Value: payload})
	packed := pack(t, NewPacker(PackConfig{Pool: NewPool(0)}), [][]byte{entry}, 0)
	defer release(packed)
	if d := diffRecords(rebase(t, packed), plainRecords(0, 3, 10)); d != "" {
		t.Error(d)
	}
}

func TestDamagedMessagesAreRefused(t *testing.T) {
	r := srcRecord{Offset: 20, Timestamp: 5, Key: []byte("key"), Value: []byte("value")}
	seal := func(b []byte) []byte {
		m := bytes.Clone(b)
		binary.BigEndian.PutUint32(m[8:], uint32(len(m)-12))
		binary.BigEndian.PutUint32(m[12:], crc32.ChecksumIEEE(m[16:]))
		return m
	}
	plain := makeMessage(1, 0, r)
	wrap := func(magic int8, set []byte) []byte {
		return makeMessage(magic, int8(Gzip), srcRecord{Offset: 20, Value: compressLikeKgo(t, Gzip, set)})
	}
	set := makeSet(1, 20, []srcRecord{r})
	badCRC := bytes.Clone(set)
	badCRC[len(badCRC)-1] ^= 1
	keyLength := bytes.Clone(plain)
	binary.BigEndian.PutUint32(keyLength[26:], 1<<31-1)
	valueLength := bytes.Clone(plain)
	binary.BigEndian.PutUint32(valueLength[33:], 1<<32-2)
	flipped := bytes.Clone(plain)
	flipped[30] ^= 4
	for _, c := range []struct {
		name  string
		entry []byte
		want  string
	}{
		{"bit flipped", flipped, "crc is"},
		{"key length", seal(keyLength), "key length does not fit"},
		{"value length", seal(valueLength), "value length does not fit"},
		{"left over", seal(append(bytes.Clone(plain), 0)), "bytes left over in a message"},
		{"no room for a timestamp", seal(append(bytes.Clone(plain[:20]), 0, 0, 0, 0, 0, 0)), "message of 26 bytes"},
		{"wrapper of nothing", wrap(1, nil), "compressed message is empty"},
		{"null wrapper", makeMessage(1, int8(Gzip), srcRecord{Offset: 20}), "decompress gzip: EOF"},
		{"message within is cut", wrap(1, set[:len(set)-1]), "message within: message set ends within a message"},
		{"message within is damaged", wrap(1, badCRC), "message within: crc is"},
		{"format within", wrap(1, makeSet(0, 0, []srcRecord{r})), "message of format 0 within one of format 1"},
		{"batch within", wrap(1, makeBatch(t, srcBatch{lastDelta: -1}, []srcRecord{{}})), "message within: magic is 2 in a message set"},
		{"wrapper within", wrap(1, wrap(1, set)), "compressed message within a compressed message"},
		{"offsets out of order", wrap(0, makeSet(0, 0, []srcRecord{r, r})), "offset 20 behind 20 within a message"},
		{"offset above the wrapper's", wrap(1, makeSet(1, -10, []srcRecord{r})), "message at 20 wraps one at 30"},
	} {
		p := NewPacker(PackConfig{Pool: NewPool(0)})
		var bad *CorruptError
		if err := p.Add(c.entry, 0); !errors.As(err, &bad) || bad.Offset != 20 || !strings.Contains(bad.Reason, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if packed, err := p.Finish(nil); len(packed) != 0 || err != nil {
			t.Errorf("%s: %d batches, %v", c.name, len(packed), err)
		}
	}
	for _, codec := range []Codec{Zstd, 5} {
		entry := makeMessage(1, int8(codec), srcRecord{Offset: 20, Value: []byte("?")})
		var unknown *UnknownCodecError
		if err := NewPacker(PackConfig{}).Add(entry, 0); !errors.As(err, &unknown) || unknown.Codec != codec || unknown.Offset != 20 {
			t.Errorf("codec %d: %v", codec, err)
		}
	}
}

// testdata/java holds five records in every format and codec, as the Java
// client writes them.
func TestWhatJavaWritesIsRead(t *testing.T) {
	files, err := filepath.Glob("testdata/java/*.bin")
	if err != nil || len(files) != 22 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		rest, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := NewPacker(PackConfig{Pool: NewPool(0)})
		var magic int8
		for len(rest) > 0 {
			var entry []byte
			if entry, rest, err = Split(rest); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if magic = Magic(entry); magic == 2 {
				if err := Batch(entry).Verify(); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
			}
			if err := p.Add(entry, 0); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		packed, err := p.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		var want []srcRecord
		for i := range 5 {
			r := srcRecord{Offset: 100 + int64(i), Timestamp: 1_790_000_000_000 + int64(i)}
			if i != 0 {
				r.Key = fmt.Appendf(nil, "k%d", i)
			}
			if i != 3 {
				r.Value = bytes.Repeat(fmt.Appendf(nil, "value %d, ", i), 20)
			}
			switch {
			case magic == 0:
				r.Timestamp = -1
			case strings.Contains(file, "appendtime"):
				r.Timestamp = 1_800_000_000_000
			}
			if magic == 2 {
				r.Headers = []srcHeader{{"h", r.Key}}
			}
			want = append(want, r)
		}
		if d := diffRecords(rebase(t, packed), want); d != "" {
			t.Errorf("%s: %s", file, d)
		}
		if codec := packed[0].Batch().Codec().String(); !strings.Contains(file, codec) {
			t.Errorf("%s: codec is %s", file, codec)
		}
		release(packed)
	}
}
