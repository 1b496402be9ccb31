package workload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Codec is how batches are compressed.
type Codec string

// The codecs.
const (
	None      Codec = "none"
	Gzip      Codec = "gzip"
	Snappy    Codec = "snappy"     // in the xerial framing of Java clients
	RawSnappy Codec = "snappy-raw" // one bare block, as librdkafka and Go clients write
	LZ4       Codec = "lz4"
	Zstd      Codec = "zstd"
)

// Codecs lists all of them.
func Codecs() []Codec { return []Codec{None, Gzip, Snappy, RawSnappy, LZ4, Zstd} }

// id is the codec's number in batch attributes.
func (c Codec) id() int16 {
	switch c {
	case Gzip:
		return 1
	case Snappy, RawSnappy:
		return 2
	case LZ4:
		return 3
	case Zstd:
		return 4
	default:
		return 0
	}
}

func (c Codec) check() error {
	if slices.Contains(Codecs(), c) {
		return nil
	}
	return fmt.Errorf("unknown codec %q", c)
}

// xerialBlock is the block size of Java's snappy stream.
const xerialBlock = 32 << 10

var xerialHeader = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}

// compress makes what a client of this codec sends.
func (c Codec) compress(src []byte) ([]byte, error) {
	var out bytes.Buffer
	switch c {
	case Gzip:
		w := gzip.NewWriter(&out)
		if _, err := w.Write(src); err != nil {
			return nil, fmt.Errorf("compress gzip: %w", err)
		}
		if err := w.Close(); err != nil {
			return nil, fmt.Errorf("compress gzip: %w", err)
		}
	case RawSnappy:
		return s2.EncodeSnappy(nil, src), nil
	case Snappy:
		out.Write(xerialHeader)
		for len(src) > 0 {
			n := min(len(src), xerialBlock)
			block := s2.EncodeSnappy(nil, src[:n])
			src = src[n:]
			out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
			out.Write(block)
		}
	case LZ4:
		w := lz4.NewWriter(&out)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
			return nil, fmt.Errorf("compress lz4: %w", err)
		}
		if _, err := w.Write(src); err != nil {
			return nil, fmt.Errorf("compress lz4: %w", err)
		}
		if err := w.Close(); err != nil {
			return nil, fmt.Errorf("compress lz4: %w", err)
		}
	case Zstd:
		// One encoder a call: an encoder holds channels, and those must not be
		// shared between a test in fake time and another test.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10))
		if err != nil {
			return nil, fmt.Errorf("compress zstd: %w", err)
		}
		return w.EncodeAll(src, nil), nil
	default:
		return src, nil
	}
	return out.Bytes(), nil
}

// producerOpts make a kgo producer use the codec: kgo's own compressor, but
// for the xerial framing.
func (c Codec) producerOpts() []kgo.Opt {
	switch c {
	case Gzip:
		return []kgo.Opt{kgo.ProducerBatchCompression(kgo.GzipCompression())}
	case Snappy:
		return []kgo.Opt{kgo.WithCompressor(xerialCompressor{})}
	case RawSnappy:
		return []kgo.Opt{kgo.ProducerBatchCompression(kgo.SnappyCompression())}
	case LZ4:
		return []kgo.Opt{kgo.ProducerBatchCompression(kgo.Lz4Compression())}
	case Zstd:
		return []kgo.Opt{kgo.ProducerBatchCompression(kgo.ZstdCompression())}
	default:
		return []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())}
	}
}

type xerialCompressor struct{}

var _ kgo.Compressor = xerialCompressor{}

func (xerialCompressor) Compress(_ *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	out, err := Snappy.compress(src)
	if err != nil {
		return src, kgo.CodecNone
	}
	return out, kgo.CodecSnappy
}

// breakLZ4Header gives an lz4 frame the header checksum that Java producers
// wrote before message format 1: taken over the magic number too.
func breakLZ4Header(frame []byte) {
	if len(frame) > 7 && frame[4]&0x08 == 0 { // a descriptor of two bytes
		frame[6] = xxh32Short(frame[:6])
	}
}

// xxh32Short is the second byte of XXH32 (seed 0) of fewer than 16 bytes.
func xxh32Short(b []byte) byte {
	const p1, p2, p3, p4, p5 uint32 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := p5 + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return byte((h ^ h>>16) >> 8)
}
