package wire

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/klauspost/compress/s2"
)

// Java compresses snappy in the framing of the xerial library: a header, then
// blocks, each behind its length (int32, big endian). Other clients send one
// bare snappy block. Readers take both, so we do; we write what Java writes.

// xerialHeader is the magic, then version and oldest compatible version.
var xerialHeader = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}

const (
	xerialMagic = 8
	xerialBlock = 32 << 10 // what Java cuts its input into
)

// A snappy copy of 64 bytes takes three, so that a block that claims to be
// more than 22 times its size is a lie.
const snappyMaxRatio = 22

var errSnappy = errors.New("malformed snappy framing")

func decodeSnappy(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialHeader[:xerialMagic]) {
		return decodeSnappyBlock(dst, src, limit)
	}
	for len(src) > 0 {
		// Streams may be strung together, each with its header.
		if bytes.HasPrefix(src, xerialHeader[:xerialMagic]) {
			if len(src) < len(xerialHeader) {
				return dst, errSnappy
			}
			src = src[len(xerialHeader):]
			continue
		}
		if len(src) < 4 {
			return dst, errSnappy
		}
		size := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(size) > uint64(len(src)) {
			return dst, errSnappy
		}
		var err error
		if dst, err = decodeSnappyBlock(dst, src[:size], limit); err != nil {
			return dst, err
		}
		src = src[size:]
	}
	return dst, nil
}

func decodeSnappyBlock(dst, block []byte, limit int) ([]byte, error) {
	size, err := s2.DecodedLen(block)
	if err != nil {
		return dst, err
	}
	if size > limit-len(dst) {
		return dst, errBomb
	}
	if size > snappyMaxRatio*len(block) {
		return dst, s2.ErrCorrupt
	}
	dst, _ = reserve(dst, size, limit)
	// With room enough s2 decodes in place.
	if _, err = s2.Decode(dst[len(dst):len(dst)+size], block); err != nil {
		return dst, err
	}
	return dst[:len(dst)+size], nil
}

func encodeSnappy(dst, src []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(src) > 0 {
		n := min(len(src), xerialBlock)
		dst = growBy(dst, 4+s2.MaxEncodedLen(n))
		block := s2.EncodeSnappy(dst[len(dst)+4:cap(dst)], src[:n]) // in place
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(block)))
		dst = dst[:len(dst)+len(block)]
		src = src[n:]
	}
	return dst
}

// growBy makes room for n more bytes.
func growBy(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	grown := make([]byte, len(dst), max(2*cap(dst), len(dst)+n))
	copy(grown, dst)
	return grown
}
