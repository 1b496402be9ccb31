package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// diffRecords says where two lists of records differ, "" if nowhere. Null is
// not empty.
func diffRecords(got, want []srcRecord) string {
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		equal := g.Offset == w.Offset && g.Timestamp == w.Timestamp && same(g.Key, w.Key) && same(g.Value, w.Value) &&
			slices.EqualFunc(g.Headers, w.Headers, func(a, b srcHeader) bool { return a.Key == b.Key && same(a.Value, b.Value) })
		if !equal {
			return fmt.Sprintf("record %d: got %+v, want %+v", i, g, w)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d records, want %d", len(got), len(want))
	}
	return ""
}

// pack adds all entries and finishes.
func pack(tb testing.TB, p *Packer, entries [][]byte, from int64) []Packed {
	tb.Helper()
	for _, e := range entries {
		if err := p.Add(e, from); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := p.Finish(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Whatever lies in the source's log, in whatever format and codec: a consumer
// of the target reads the records a consumer of the source reads.
func TestRepackedRecordsAreThoseOfTheSource(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var (
			entries [][]byte
			next    int64
			written []srcRecord
		)
		for range rapid.IntRange(1, 6).Draw(rt, "entries") {
			codec := rapid.SampledFrom(allCodecs).Draw(rt, "codec")
			records := drawRecords(rt, next, rapid.Bool().Draw(rt, "holes"))
			switch format := rapid.IntRange(0, 6).Draw(rt, "format"); {
			case format > 1:
				s := srcBatch{codec: codec, base: next, lastDelta: -1, baseTimestamp: rapid.Int64().Draw(rt, "base timestamp")}
				s.lastDelta = int32(records[len(records)-1].Offset-next) + rapid.Int32Range(0, 3).Draw(rt, "tail hole")
				if rapid.Bool().Draw(rt, "append time") {
					s.attributes, s.maxTimestamp = attrLogAppendTime, 1_800_000_000_000+next
				}
				entries = append(entries, makeBatch(t, s, records))
				next += int64(s.lastDelta) + 1
			case codec == None || codec == Zstd:
				for i := range records {
					records[i].Headers = nil
					entries = append(entries, makeMessage(int8(format), 0, records[i]))
				}
				next = records[len(records)-1].Offset + 1
			default:
				attributes := int8(0)
				if format == 1 && rapid.Bool().Draw(rt, "append time") {
					attributes = attrLogAppendTime
				}
				for i := range records {
					records[i].Headers = nil
				}
				entries = append(entries, makeWrapper(t, int8(format), codec, attributes, 1_800_000_000_000+next, records))
				next = records[len(records)-1].Offset + 1
			}
			written = append(written, records...)
		}
		cfg := PackConfig{
			TargetBytes: rapid.SampledFrom([]int{0, 200, 5000}).Draw(rt, "target bytes"),
			MaxBytes:    rapid.SampledFrom([]int{0, 12000}).Draw(rt, "max bytes"),
			Pool:        NewPool(1 << 20),
		}
		if rapid.Bool().Draw(rt, "codec configured") {
			codec := rapid.SampledFrom(allCodecs).Draw(rt, "output codec")
			cfg.Codec = &codec
		}
		p := NewPacker(cfg)
		from := rapid.Int64Range(0, next).Draw(rt, "from")
		var packed []Packed
		for _, e := range entries {
			if err := p.Add(e, from); err != nil {
				rt.Fatal(err)
			}
			if rapid.IntRange(0, 3).Draw(rt, "finish") == 0 {
				var err error
				if packed, err = p.Finish(packed); err != nil {
					rt.Fatal(err)
				}
			}
		}
		packed, err := p.Finish(packed)
		if err != nil {
			rt.Fatal(err)
		}
		// The oracle is kgo, on what the source holds. It calls the time of
		// an old message append time where the wrapper says so.
		want := expected(t, entries, from)
		if d := diffRecords(rebase(t, packed), want); d != "" {
			rt.Fatal(d)
		}
		if d := diffOpened(entries, from, want); d != "" {
			rt.Fatal("opened: ", d)
		}
		for i, b := range packed {
			if size := len(b.Frame.Bytes()); cfg.MaxBytes > 0 && size > cfg.MaxBytes {
				rt.Fatalf("batch of %d bytes, at most %d", size, cfg.MaxBytes)
			}
			if i > 0 && b.NextSource <= packed[i-1].NextSource {
				rt.Fatalf("next source offset %d after %d", b.NextSource, packed[i-1].NextSource)
			}
		}
		release(packed)
		if used := cfg.Pool.Used(); used != 0 {
			rt.Fatalf("%d bytes of frames leaked", used)
		}
	})
}

// expected is what a consumer of the source reads. kgo does not hand the
// append time of a wrapper down to the messages in it; Java does.
func expected(t *testing.T, entries [][]byte, from int64) []srcRecord {
	var want []srcRecord
	for _, e := range entries {
		records := readLikeKgo(t, e, from)
		if Magic(e) == 1 && e[atMessageAttributes]&attrLogAppendTime != 0 {
			for i := range records {
				records[i].Timestamp = int64(be64(e[atMessageTimestamp:]))
			}
		}
		want = append(want, records...)
	}
	return want
}

func be64(b []byte) (v uint64) {
	for _, c := range b[:8] {
		v = v<<8 | uint64(c)
	}
	return v
}

func TestSmallBatchesAreMergedUpToTheTarget(t *testing.T) {
	for _, codec := range allCodecs {
		t.Run(codec.String(), func(t *testing.T) {
			var entries [][]byte
			for i := range 2000 {
				base := int64(i * 10)
				entries = append(entries, makeBatch(t, srcBatch{codec: codec, base: base, lastDelta: -1}, plainRecords(base, 10, 100)))
			}
			packed := pack(t, NewPacker(PackConfig{TargetBytes: 64 << 10, Pool: NewPool(0)}), entries, 0)
			defer release(packed)
			records := int32(0)
			for i, p := range packed {
				size := len(p.Frame.Bytes())
				if p.Batch().Codec() != codec {
					t.Fatalf("codec %s became %s", codec, p.Batch().Codec())
				}
				// The first ones are estimated by small batches, which
				// compress less.
				if i > 3 && i < len(packed)-1 && (size < 48<<10 || size > 80<<10) {
					t.Errorf("batch %d of %d has %d bytes", i, len(packed), size)
				}
				if len(p.Runs) != 1 {
					t.Errorf("batch %d has runs %v", i, p.Runs)
				}
				records += p.Records
			}
			if records != 20000 || packed[len(packed)-1].NextSource != 20000 {
				t.Fatalf("%d records, next source offset %d", records, packed[len(packed)-1].NextSource)
			}
		})
	}
}

func TestHolesBecomeRuns(t *testing.T) {
	var records []srcRecord
	for _, offset := range []int64{100, 101, 103, 107, 108, 109} {
		records = append(records, srcRecord{Offset: offset, Timestamp: 1000 + offset})
	}
	first := makeBatch(t, srcBatch{base: 98, lastDelta: 14}, records) // 98..112
	empty := sealBatch(srcBatch{base: 113, lastDelta: 6}, nil, nil)   // 113..119, all removed
	second := makeBatch(t, srcBatch{base: 120, lastDelta: -1}, plainRecords(120, 3, 5))
	marker := makeControl(t, 123, 5, 1)
	p := NewPacker(PackConfig{Pool: NewPool(0)})
	packed := pack(t, p, [][]byte{first, empty, second, marker}, 101)
	defer release(packed)
	want := []Run{{101, 1}, {103, 1}, {107, 3}, {120, 3}}
	if d := cmp.Diff(want, packed[0].Runs); d != "" {
		t.Error(d)
	}
	if packed[0].NextSource != 124 {
		t.Errorf("next source offset is %d", packed[0].NextSource)
	}
	if n := len(rebase(t, packed)); n != 8 {
		t.Errorf("%d records", n)
	}
	if packed := pack(t, p, [][]byte{empty, marker}, 0); len(packed) != 0 {
		t.Errorf("%d batches of no records", len(packed))
	}
}

func TestAnotherCodecBeginsAnotherBatch(t *testing.T) {
	var entries [][]byte
	for i, c := range []Codec{None, None, LZ4, LZ4, Zstd, None} {
		base := int64(i * 3)
		entries = append(entries, makeBatch(t, srcBatch{codec: c, base: base, lastDelta: -1}, plainRecords(base, 3, 50)))
	}
	p := NewPacker(PackConfig{Pool: NewPool(0)})
	packed := pack(t, p, entries, 0)
	var got []Codec
	for _, b := range packed {
		got = append(got, b.Batch().Codec())
	}
	release(packed)
	if d := cmp.Diff([]Codec{None, LZ4, Zstd, None}, got); d != "" {
		t.Error(d)
	}
	gzip := Gzip
	p.SetCodec(&gzip)
	packed = pack(t, p, entries, 0)
	defer release(packed)
	if len(packed) != 1 || packed[0].Batch().Codec() != Gzip {
		t.Errorf("%d batches with a codec configured", len(packed))
	}
}

// The estimate is good until the content changes; then the batch is split.
func TestWhatCompressesWorseThanEstimatedIsSplit(t *testing.T) {
	const limit = 20000
	p := NewPacker(PackConfig{MaxBytes: limit, Pool: NewPool(0)})
	var entries [][]byte
	var want []srcRecord
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range 60 {
		base := int64(i * 10)
		records := plainRecords(base, 10, 200)
		for j := range records {
			records[j].Timestamp -= int64(j) * 1000 // newest is first
			records[j].Value = bytes.Repeat([]byte{byte(i)}, 400)
			if i > 30 {
				for k := range records[j].Value {
					records[j].Value[k] = byte(rng.Uint32())
				}
			}
		}
		want = append(want, records...)
		entries = append(entries, makeBatch(t, srcBatch{codec: Zstd, base: base, lastDelta: -1}, records))
	}
	packed := pack(t, p, entries, 0)
	defer release(packed)
	for i, b := range packed {
		if size := len(b.Frame.Bytes()); size > limit {
			t.Errorf("batch %d has %d bytes", i, size)
		}
	}
	if d := diffRecords(rebase(t, packed), want); d != "" {
		t.Error(d)
	}
}

func TestARecordTheTargetCanNeverTakeIsNamed(t *testing.T) {
	for _, codec := range allCodecs {
		records := plainRecords(10, 5, 300)
		noise := make([]byte, 9000)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		records[3].Value = noise
		p := NewPacker(PackConfig{MaxBytes: 5000, Pool: NewPool(0)})
		entry := makeBatch(t, srcBatch{codec: codec, base: 10, lastDelta: -1}, records)
		addErr := p.Add(entry, 0)
		if err := p.Add(entry, 15); addErr != nil && err != addErr {
			t.Errorf("%s: added more after %v: %v", codec, addErr, err)
		}
		packed, err := p.Finish(nil)
		var large *RecordTooLargeError
		if !errors.As(err, &large) || large.Source != 13 || large.Size < 9000 || large.Max != 5000 {
			t.Fatalf("%s: %v", codec, err)
		}
		// What stands before it is there.
		if d := diffRecords(rebase(t, packed), records[:3]); d != "" {
			t.Errorf("%s: %s", codec, d)
		}
		if packed[len(packed)-1].NextSource != 13 {
			t.Errorf("%s: next source offset is %d", codec, packed[len(packed)-1].NextSource)
		}
		release(packed)
		// The Packer is ready for another lane.
		p.Reset(0)
		release(pack(t, p, [][]byte{entry}, 0))
	}
}

func TestARecordThatOnlyFitsUncompressedIsNotCompressed(t *testing.T) {
	noise := make([]byte, 1000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	entry := makeBatch(t, srcBatch{codec: Snappy, lastDelta: -1}, []srcRecord{{Value: noise}})
	p := NewPacker(PackConfig{MaxBytes: 1075, Pool: NewPool(0)})
	packed := pack(t, p, [][]byte{entry}, 0)
	defer release(packed)
	if len(packed) != 1 || packed[0].Batch().Codec() != None {
		t.Errorf("%d batches", len(packed))
	}
}

func TestABatchNeverHoldsMuchMoreThanItsTarget(t *testing.T) {
	var entries [][]byte
	for i := range 64 {
		entries = append(entries, makeBatch(t, srcBatch{codec: Zstd, base: int64(i), lastDelta: -1},
			[]srcRecord{{Offset: int64(i), Value: make([]byte, 60000)}}))
	}
	packed := pack(t, NewPacker(PackConfig{TargetBytes: 10000, Pool: NewPool(0)}), entries, 0)
	defer release(packed)
	for _, b := range packed {
		if b.UncompressedBytes > maxExpansion*10000 {
			t.Errorf("%d bytes of records in a batch", b.UncompressedBytes)
		}
	}
}

func TestAnEntryThatLiesAddsNothing(t *testing.T) {
	records := plainRecords(0, 4, 50)
	good := makeBatch(t, srcBatch{codec: LZ4, lastDelta: -1}, records)
	s := srcBatch{base: 4, lastDelta: 3}
	next := plainRecords(4, 4, 50)
	raw := recordBytes(4, 0, next)
	change := func(at int, v byte) []byte { b := bytes.Clone(raw); b[at] = v; return b }
	second := recordBytes(4, 0, next[:1])
	twice := append(append(bytes.Clone(second), second...), recordBytes(4, 0, next[2:])...)
	for name, payload := range map[string][]byte{
		"record length":         change(0, 0x7e),
		"record of no length":   change(0, 0),
		"record count":          recordBytes(4, 0, next[:3]),
		"bytes left over":       append(bytes.Clone(raw), 0),
		"key length":            change(bytes.Index(raw, []byte("key-"))-1, 0x7f),
		"negative key length":   change(bytes.Index(raw, []byte("key-"))-1, 3),
		"value length":          change(bytes.Index(raw, []byte("key-"))+5, 0x10),
		"header count":          change(len(raw)-1, 2),
		"negative header count": change(len(raw)-1, 1),
		"offset twice":          twice,
		"nothing":               {},
	} {
		for _, codec := range allCodecs {
			s.codec = codec
			bad := sealBatch(s, next, compressLikeKgo(t, codec, payload))
			p := NewPacker(PackConfig{Pool: NewPool(0)})
			if err := p.Add(good, 0); err != nil {
				t.Fatal(err)
			}
			var c *CorruptError
			if err := p.Add(bad, 0); !errors.As(err, &c) || c.Offset != 4 {
				t.Errorf("%s, %s: %v", name, codec, err)
			}
			packed, err := p.Finish(nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := diffRecords(rebase(t, packed), records); d != "" || packed[0].NextSource != 4 {
				t.Errorf("%s: what was added before has changed: %s", name, d)
			}
			release(packed)
		}
	}
}

func TestBombsAndUnknownCodecsAreNamed(t *testing.T) {
	p := NewPacker(PackConfig{MaxDecoded: 1 << 20, Pool: NewPool(0)})
	for _, codec := range allCodecs[1:] {
		entry := makeBatch(t, srcBatch{codec: codec, base: 70, lastDelta: -1}, []srcRecord{{Offset: 70, Value: make([]byte, 2<<20)}})
		var bomb *BombError
		if err := p.Add(entry, 0); !errors.As(err, &bomb) || bomb.Offset != 70 || bomb.Codec != codec || bomb.Limit != 1<<20 {
			t.Errorf("%s: %v", codec, err)
		}
	}
	for _, codec := range []Codec{5, 6, 7} {
		entry := sealBatch(srcBatch{codec: codec, base: 70}, plainRecords(70, 1, 1), []byte("?"))
		var unknown *UnknownCodecError
		if err := p.Add(entry, 0); !errors.As(err, &unknown) || unknown.Offset != 70 || unknown.Codec != codec {
			t.Errorf("%d: %v", codec, err)
		}
	}
}

func TestTimestampsSurviveTheirExtremes(t *testing.T) {
	var records []srcRecord
	for i, ts := range []int64{-1, math.MaxInt64, 0, math.MinInt64, 1_790_000_000_000} {
		records = append(records, srcRecord{Offset: int64(i), Timestamp: ts})
	}
	p := NewPacker(PackConfig{Pool: NewPool(0)})
	packed := pack(t, p, [][]byte{makeBatch(t, srcBatch{base: 0, lastDelta: -1, baseTimestamp: 5}, records)}, 0)
	defer release(packed)
	b, rest := packed[0].Batch(), []byte(packed[0].Batch()[batchHeader:])
	for _, want := range records {
		r, after, reason := cutRecord(rest)
		if got := b.BaseTimestamp() + r.timestampDelta; got != want.Timestamp || reason != "" {
			t.Errorf("timestamp %d became %d %s", want.Timestamp, got, reason)
		}
		rest = after
	}
	if packed[0].MaxTimestamp != math.MaxInt64 {
		t.Errorf("max timestamp is %d", packed[0].MaxTimestamp)
	}
}

func TestLogAppendTimeBecomesTheTimeOfEveryRecord(t *testing.T) {
	records := plainRecords(0, 5, 10)
	entry := makeBatch(t, srcBatch{lastDelta: -1, attributes: attrLogAppendTime, maxTimestamp: 1_800_000_000_000}, records)
	packed := pack(t, NewPacker(PackConfig{Pool: NewPool(0)}), [][]byte{entry}, 0)
	defer release(packed)
	if packed[0].Batch().IsLogAppendTime() {
		t.Error("the batch still says append time")
	}
	for _, r := range rebase(t, packed) {
		if r.Timestamp != 1_800_000_000_000 {
			t.Errorf("timestamp is %d", r.Timestamp)
		}
	}
}

func TestResetGivesFramesBack(t *testing.T) {
	pool := NewPool(1 << 20)
	p := NewPacker(PackConfig{TargetBytes: 1000, Pool: pool})
	if err := p.Add(makeBatch(t, srcBatch{lastDelta: -1}, plainRecords(0, 50, 100)), 0); err != nil {
		t.Fatal(err)
	}
	if pool.Used() == 0 {
		t.Fatal("nothing to give back")
	}
	p.Reset(0)
	if pool.Used() != 0 {
		t.Errorf("%d bytes leaked", pool.Used())
	}
	if packed, err := p.Finish(nil); len(packed) != 0 || err != nil {
		t.Errorf("%d batches, %v", len(packed), err)
	}
}
