package compare

import (
	"bytes"
	"math/bits"

	"github.com/twmb/franz-go/pkg/kgo"
)

// decompressor is kgo's, made to read what Java producers wrote as lz4 before
// message format 1: their frames carry a header checksum taken over the magic
// number too, which every standard lz4 reader refuses. Brokers and Java
// consumers read it to this day, so a comparer has to.
type decompressor struct{ kgo.Decompressor }

var lz4Magic = []byte{0x04, 0x22, 0x4d, 0x18}

func (d decompressor) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecLz4 && len(src) > 7 && bytes.HasPrefix(src, lz4Magic) && src[4]&0x08 == 0 {
		broken, right := headerByte(src[:6]), headerByte(src[4:6])
		if src[6] == broken && broken != right {
			fixed := bytes.Clone(src)
			fixed[6] = right
			src = fixed
		}
	}
	return d.Decompressor.Decompress(src, codec)
}

// headerByte is the checksum byte of an lz4 frame header: the second byte of
// the XXH32 (seed 0) of its descriptor. b is shorter than 16 bytes.
func headerByte(b []byte) byte {
	const p1, p2, p3, p4, p5 uint32 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := p5 + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h += (uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24) * p3
		h = bits.RotateLeft32(h, 17) * p4
	}
	for _, c := range b {
		h += uint32(c) * p5
		h = bits.RotateLeft32(h, 11) * p1
	}
	h ^= h >> 15
	h *= p2
	h ^= h >> 13
	h *= p3
	h ^= h >> 16
	return byte(h >> 8)
}
