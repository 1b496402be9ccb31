package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T) []byte {
	size := rapid.IntRange(1, 150<<10).Draw(t, "size")
	out := make([]byte, size)
	seed := rapid.Uint64().Draw(t, "seed")
	mask := rapid.SampledFrom([]byte{0, 3, 31, 255}).Draw(t, "mask")
	for i := range out {
		seed = seed*6364136223846793005 + 1442695040888963407
		out[i] = byte(seed>>56) & mask
	}
	return out
}

func TestOtherClientsReadWhatTheEncoderWrites(t *testing.T) {
	var enc encoder
	var wire []byte
	rapid.Check(t, func(t *rapid.T) {
		src := drawBytes(t)
		for _, c := range allCodecs {
			var err error
			if wire, err = enc.encode(wire, c, src); err != nil {
				t.Fatal(err)
			}
			got, err := kgoDecompressor.Decompress(wire, kgo.CompressionCodecType(c))
			if err != nil || !bytes.Equal(got, src) {
				t.Fatalf("%s of %d bytes: %v", c, len(src), err)
			}
		}
	})
}

func TestDecoderReadsWhatOtherClientsWrite(t *testing.T) {
	var dec decoder
	var out []byte
	rapid.Check(t, func(rt *rapid.T) {
		src := drawBytes(rt)
		for _, c := range allCodecs[1:] {
			var err error
			limit := len(src) + rapid.IntRange(0, 100).Draw(rt, "slack")
			if out, err = dec.decode(out, c, compressLikeKgo(t, c, src), limit); err != nil || !bytes.Equal(out, src) {
				rt.Fatalf("%s of %d bytes, at most %d: %v", c, len(src), limit, err)
			}
		}
	})
}

func TestOwnOutputIsReadBack(t *testing.T) {
	var (
		enc encoder
		dec decoder
	)
	rapid.Check(t, func(t *rapid.T) {
		src := drawBytes(t)
		for _, c := range allCodecs[1:] {
			wire, err := enc.encode(nil, c, src)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := dec.decode(nil, c, wire, len(src)); err != nil || !bytes.Equal(got, src) {
				t.Fatalf("%s of %d bytes: %v", c, len(src), err)
			}
		}
	})
}

// The Java client refuses other lz4 heads than those with independent blocks,
// and snappy without the framing of its library in some versions.
func TestOutputIsFramedAsTheJavaClientFramesIt(t *testing.T) {
	var enc encoder
	src := bytes.Repeat([]byte("abcdefgh"), 20<<10)
	wire, _ := enc.encode(nil, LZ4, src)
	if !bytes.HasPrefix(wire, []byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82}) || !bytes.HasSuffix(wire, []byte{0, 0, 0, 0}) {
		t.Errorf("lz4 frame: % x .. % x", wire[:8], wire[len(wire)-4:])
	}
	wire, _ = enc.encode(nil, Snappy, src)
	if !bytes.HasPrefix(wire, append([]byte{0x82}, "SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"...)) {
		t.Errorf("snappy frame: % x", wire[:16])
	}
}

func TestLZ4FramesOfAllKindsAreRead(t *testing.T) {
	src := drawText(700 << 10)
	var dec decoder
	for _, block := range []lz4.BlockSize{lz4.Block64Kb, lz4.Block256Kb, lz4.Block1Mb, lz4.Block4Mb} {
		for _, options := range [][]lz4.Option{
			{lz4.ChecksumOption(false)},
			{lz4.ChecksumOption(true), lz4.BlockChecksumOption(true)},
			{lz4.SizeOption(uint64(len(src)))},
		} {
			var buf bytes.Buffer
			w := lz4.NewWriter(&buf)
			if err := w.Apply(append(options, lz4.BlockSizeOption(block))...); err != nil {
				t.Fatal(err)
			}
			w.Write(src)
			w.Close()
			if got, err := dec.decode(nil, LZ4, buf.Bytes(), len(src)); err != nil || !bytes.Equal(got, src) {
				t.Errorf("block size %v, options %v: %v", block, options, err)
			}
		}
	}
}

func TestLZ4BlocksMayReferToTheOnesBefore(t *testing.T) {
	first := drawText(64 << 10)
	second := first[100:5000]
	frame := []byte{0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0} // not independent
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(first))|lz4Raw)
	frame = append(frame, first...)
	// One match of the second block, 65,436 back: no literals, then the last
	// five bytes as they must be.
	n := len(second) - 5
	block := []byte{0x0f}
	block = binary.LittleEndian.AppendUint16(block, uint16(len(first)-100))
	for n -= 4 + 15; n >= 255; n -= 255 {
		block = append(block, 255)
	}
	block = append(block, byte(n), 0x50)
	block = append(block, second[len(second)-5:]...)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(block)))
	frame = append(frame, block...)
	frame = append(frame, 0, 0, 0, 0)
	var dec decoder
	got, err := dec.decode(nil, LZ4, frame, 1<<20)
	if err != nil || !bytes.Equal(got, append(first, second...)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestSnappyIsReadBareAndFramed(t *testing.T) {
	src := drawText(100 << 10)
	var dec decoder
	framed := encodeSnappy(nil, src)
	for name, c := range map[string]struct{ in, want []byte }{
		"bare":            {s2.EncodeSnappy(nil, src), src},
		"framed":          {framed, src},
		"strung together": {append(bytes.Clone(framed), framed...), append(bytes.Clone(src), src...)},
	} {
		if got, err := dec.decode(nil, Snappy, c.in, 1<<20); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBombsEndAtTheLimit(t *testing.T) {
	const limit = 1 << 20
	zeros := make([]byte, 64<<20)
	for _, c := range allCodecs[1:] {
		t.Run(c.String(), func(t *testing.T) {
			var dec decoder
			out, err := dec.decode(nil, c, compressLikeKgo(t, c, zeros), limit)
			if !errors.Is(err, errBomb) {
				t.Fatalf("%d bytes, %v", len(out), err)
			}
			if cap(out) > limit+decodeSlack {
				t.Fatalf("%d bytes allocated", cap(out))
			}
			// The decoder is as good as before.
			if out, err = dec.decode(out, c, compressLikeKgo(t, c, zeros[:limit]), limit); err != nil || len(out) != limit {
				t.Fatalf("exactly the limit: %d bytes, %v", len(out), err)
			}
		})
	}
}

// What an entry claims to hold is not allocated before it is there.
func TestLyingSizesCostNothing(t *testing.T) {
	const limit = 128 << 20
	small := []byte("hello, hello, hello, hello")
	zstdLie := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 7} // single segment of 112 MiB
	zstdLie = append(zstdLie, 1, 0, 0)                          // and one empty block
	snappyLie := append(binary.AppendUvarint(nil, 100<<20), s2.EncodeSnappy(nil, small)[1:]...)
	xerialLie := binary.BigEndian.AppendUint32(bytes.Clone(xerialHeader), uint32(len(snappyLie)))
	xerialLie = append(xerialLie, snappyLie...)
	xerialBlockLie := append(bytes.Clone(xerialHeader), 0x7f, 0xff, 0xff, 0xff, 1)
	lz4Lie := append([]byte{0x04, 0x22, 0x4d, 0x18, 0x68, 0x70}, 0, 0, 0, 7, 0, 0, 0, 0, 0)
	lz4Lie = append(lz4Lie, 5, 0, 0, 0, 0x10, 'a', 1, 0, 0)
	for _, c := range []struct {
		name  string
		codec Codec
		in    []byte
	}{
		{"zstd content size", Zstd, zstdLie},
		{"snappy length", Snappy, snappyLie},
		{"xerial, snappy length", Snappy, xerialLie},
		{"xerial block length", Snappy, xerialBlockLie},
		{"lz4 content size", LZ4, lz4Lie},
	} {
		var dec decoder
		out, err := dec.decode(nil, c.codec, c.in, limit)
		if err == nil {
			t.Errorf("%s: no error", c.name)
		}
		if cap(out) > 1<<20 {
			t.Errorf("%s: %d bytes allocated", c.name, cap(out))
		}
	}
}

func TestDamagedInputIsAnErrorInEveryCodec(t *testing.T) {
	src := drawText(20 << 10)
	for _, c := range allCodecs[1:] {
		good := compressLikeKgo(t, c, src)
		var dec decoder
		for cut := range 200 {
			end := len(good) * cut / 200
			if out, err := dec.decode(nil, c, good[:end], 1<<20); err == nil && len(out) >= len(src) {
				t.Errorf("%s cut to %d of %d bytes: no error", c, end, len(good))
			}
		}
	}
}

func TestCodecsHaveTheNamesOfKafka(t *testing.T) {
	for _, c := range allCodecs {
		if got, err := ParseCodec(c.String()); got != c || err != nil {
			t.Errorf("%d: %v, %v", c, got, err)
		}
	}
	if _, err := ParseCodec("brotli"); err == nil || err.Error() != `parse codec: unknown name "brotli"` {
		t.Error(err)
	}
	if Codec(6).String() != "codec(6)" {
		t.Error(Codec(6))
	}
}

func drawText(n int) []byte {
	var b bytes.Buffer
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of %x, ", rng.IntN(1000), rng.Uint32())
	}
	return b.Bytes()[:n:n]
}
