package wire

import (
	"encoding/binary"
	"errors"

	"github.com/pierrec/lz4/v4"
)

// The LZ4 frame format, as far as Kafka uses it. The library's own reader and
// writer are not used here: its block functions decode in place and within a
// bound, and these few lines around them can read what old Kafka wrote.
//
// A frame: magic, flags, block size, optional content size, a checksum of the
// header; blocks, each behind its size; an end mark; optional checksum. Header
// and content checksums are not checked: the entry has a CRC of its own, and
// in messages v0 Kafka computed the header's over the wrong bytes
// (KAFKA-3160), for ever.

// lz4Head is the head of the frames we write, byte for byte that of the Java
// client: blocks of up to 64 KiB, independent, no content checksum. The last
// byte is the header's checksum.
var lz4Head = []byte{0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82}

const (
	lz4Magic = 0x184D2204
	lz4Block = 64 << 10
	lz4Raw   = 1 << 31 // block size: the block is not compressed

	lz4FlagVersion         = 0xC0
	lz4Version             = 0x40
	lz4FlagBlockChecksum   = 0x10
	lz4FlagContentSize     = 0x08
	lz4FlagContentChecksum = 0x04
	lz4FlagDictionary      = 0x01

	// lz4MaxRatio: a byte of a block extends a match by at most 255.
	lz4MaxRatio = 255
	// lz4Window is how far back a block may refer to the one before.
	lz4Window = 64 << 10
)

var (
	errLZ4Frame = errors.New("malformed lz4 frame")
	errLZ4Block = errors.New("malformed lz4 block")
)

func decodeLZ4(dst, src []byte, limit int) ([]byte, error) {
	for {
		var err error
		if dst, src, err = decodeLZ4Frame(dst, src, limit); err != nil {
			return dst, err
		}
		// What follows the end mark is another frame or nothing of ours.
		if len(src) < 4 || binary.LittleEndian.Uint32(src) != lz4Magic {
			return dst, nil
		}
	}
}

// decodeLZ4Frame appends the content of the first frame of src.
func decodeLZ4Frame(dst, src []byte, limit int) (_, rest []byte, err error) {
	if len(src) < len(lz4Head) || binary.LittleEndian.Uint32(src) != lz4Magic {
		return dst, src, errLZ4Frame
	}
	flags, size := src[4], src[5]>>4&7
	if flags&lz4FlagVersion != lz4Version || flags&lz4FlagDictionary != 0 || size < 4 {
		return dst, src, errLZ4Frame
	}
	maxBlock := 1 << (8 + 2*int(size)) // 64 KiB to 4 MiB
	head := len(lz4Head)
	if flags&lz4FlagContentSize != 0 {
		head += 8
	}
	if src = src[min(head, len(src)):]; len(src) == 0 {
		return dst, src, errLZ4Frame
	}
	start := len(dst)
	for {
		if len(src) < 4 {
			return dst, src, errLZ4Frame
		}
		mark := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if mark == 0 {
			break
		}
		size := int(mark &^ lz4Raw)
		if size > len(src) || size > maxBlock {
			return dst, src, errLZ4Frame
		}
		if dst, err = decodeLZ4Block(dst, start, src[:size], maxBlock, mark&lz4Raw != 0, limit); err != nil {
			return dst, src, err
		}
		src = src[size:]
		if flags&lz4FlagBlockChecksum != 0 {
			if len(src) < 4 {
				return dst, src, errLZ4Frame
			}
			src = src[4:]
		}
	}
	if flags&lz4FlagContentChecksum != 0 {
		src = src[min(4, len(src)):]
	}
	return dst, src, nil
}

// decodeLZ4Block appends the content of a block. What the frame has given so
// far, dst[start:], is what a dependent block refers to; an independent one
// does not.
func decodeLZ4Block(dst []byte, start int, block []byte, maxBlock int, raw bool, limit int) ([]byte, error) {
	if raw {
		var ok bool
		if dst, ok = reserve(dst, len(block), limit); !ok || len(block) > limit-len(dst) {
			return dst, errBomb
		}
		return append(dst, block...), nil
	}
	room := min(maxBlock, lz4MaxRatio*len(block)+decodeSlack)
	atLimit := room > limit-len(dst)
	if atLimit {
		room = limit - len(dst)
	}
	dst, _ = reserve(dst, room, limit)
	window := dst[max(start, len(dst)-lz4Window):]
	n, err := lz4.UncompressBlockWithDict(block, dst[len(dst):len(dst)+room], window)
	switch {
	case err != nil && atLimit:
		// Too large or damaged; the library does not tell which.
		return dst, errBomb
	case err != nil:
		return dst, errLZ4Block
	}
	return dst[:len(dst)+n], nil
}

// lz4Encoder holds the table the compressor needs: that of the reference
// implementation, which in blocks of 64 KiB takes two thirds of the time of the
// library's own and compresses nearly as well.
type lz4Encoder struct{ c lz4.CompressorCCompat }

func (e *lz4Encoder) encode(dst, src []byte) []byte {
	dst = append(dst, lz4Head...)
	for len(src) > 0 {
		n := min(len(src), lz4Block)
		dst = growBy(dst, 4+n)
		block := dst[len(dst)+4 : len(dst)+4+n]
		// Room for less than the input: what does not shrink stays as it is.
		size, err := e.c.CompressBlock(src[:n], block[:n-1])
		mark := uint32(size)
		if err != nil || size == 0 {
			size = copy(block, src[:n])
			mark = uint32(size) | lz4Raw
		}
		dst = binary.LittleEndian.AppendUint32(dst, mark)
		dst = dst[:len(dst)+size]
		src = src[n:]
	}
	return append(dst, 0, 0, 0, 0) // end mark
}
