package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Codec is how the records of an entry are compressed.
type Codec int8

// The codecs of Kafka. Zstd exists in record batches v2 only.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

const codecs = 5

var codecNames = [codecs]string{"none", "gzip", "snappy", "lz4", "zstd"}

// String is the name of the codec as in Kafka's compression.type.
func (c Codec) String() string {
	if c < 0 || c >= codecs {
		return fmt.Sprintf("codec(%d)", int8(c))
	}
	return codecNames[c]
}

// ParseCodec is the codec of that name.
func ParseCodec(name string) (Codec, error) {
	for c, n := range codecNames {
		if n == name {
			return Codec(c), nil
		}
	}
	return None, fmt.Errorf("parse codec: unknown name %q", name)
}

// BombError is an entry that decompresses to more than is allowed.
type BombError struct {
	Offset int64 // source offset the entry claims
	Codec  Codec
	Limit  int // bytes
}

func (e *BombError) Error() string {
	return fmt.Sprintf("decompress records at offset %d: more than %d bytes of %s", e.Offset, e.Limit, e.Codec)
}

// errBomb says that a decoder has reached its limit.
var errBomb = errors.New("too large")

// decodeSlack is what a decoder may allocate beyond its limit.
const decodeSlack = 64

// decoder decompresses. It keeps what the formats need for the next time. The
// zero value is ready; it is not for concurrent use.
type decoder struct {
	src  bytes.Reader
	gzip *gzip.Reader
	zstd *zstd.Decoder
}

// decode decompresses src into dst, from its start and growing it as needed,
// but to no more than limit bytes: then the error is errBomb. It never
// allocates what src merely claims to hold. dst is returned even with an
// error, for its capacity.
func (d *decoder) decode(dst []byte, c Codec, src []byte, limit int) ([]byte, error) {
	dst = dst[:0]
	switch c {
	case Gzip:
		return d.decodeGzip(dst, src, limit)
	case Snappy:
		return decodeSnappy(dst, src, limit)
	case LZ4:
		return decodeLZ4(dst, src, limit)
	case Zstd:
		return d.decodeZstd(dst, src, limit)
	}
	return dst, fmt.Errorf("no decoder for %s", c)
}

// reserve gives dst room for n more bytes. It reports false if that is beyond
// the limit. It grows by doubling, so that the cost stays linear.
func reserve(dst []byte, n, limit int) ([]byte, bool) {
	need := len(dst) + n
	if need <= cap(dst) {
		return dst, true
	}
	if need > limit+decodeSlack {
		return dst, false
	}
	size := min(max(need, 2*cap(dst), 4<<10), limit+decodeSlack)
	grown := make([]byte, len(dst), size)
	copy(grown, dst)
	return grown, true
}

func (d *decoder) decodeGzip(dst, src []byte, limit int) ([]byte, error) {
	d.src.Reset(src)
	defer d.src.Reset(nil)
	if d.gzip == nil {
		d.gzip = new(gzip.Reader)
	}
	if err := d.gzip.Reset(&d.src); err != nil {
		return dst, err
	}
	dst, _ = reserve(dst, min(4*len(src), limit)+1, limit)
	for {
		n, err := d.gzip.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > limit:
			return dst, errBomb
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, err
		}
		if len(dst) == cap(dst) {
			// There is room: the limit is not reached.
			dst, _ = reserve(dst, 1, limit)
		}
	}
}

func (d *decoder) decodeZstd(dst, src []byte, limit int) ([]byte, error) {
	if d.zstd == nil {
		// Only DecodeAll is used: no goroutines, nothing to close. It decodes
		// into the capacity it is given and never beyond.
		z, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return dst, err
		}
		d.zstd = z
	}
	// A frame may or may not say its size, and may lie. So the room is
	// guessed, and guessed again: it stays with dst for the next entry.
	dst, _ = reserve(dst, min(4*len(src), limit)+1, limit)
	most := min(limit, (len(src)/zstdMinBlock+1)*zstdMaxBlock)
	for {
		out, err := d.zstd.DecodeAll(src, dst)
		switch {
		case len(out) > limit:
			return dst, errBomb
		case err == nil:
			return out, nil
		case !errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return dst, err
		case cap(dst) > limit:
			return dst, errBomb
		case cap(dst) > most:
			return dst, zstd.ErrFrameSizeMismatch
		}
		dst, _ = reserve(dst, min(4*cap(dst), most+1), limit)
	}
}

// A block of zstd takes at least 4 bytes and holds at most 128 KiB, so that
// the size of a frame bounds what it can hold, whatever it says.
const (
	zstdMinBlock = 4
	zstdMaxBlock = 128 << 10
)

// encoder compresses. It keeps what the formats need for the next time. The
// zero value is ready; it is not for concurrent use.
type encoder struct {
	out  sliceWriter
	gzip *gzip.Writer
	zstd *zstd.Encoder
	lz4  *lz4Encoder
}

// zstdWindow bounds the memory of an encoder; batches are rarely larger.
const zstdWindow = 512 << 10

// encode compresses src into dst, from its start and growing it as needed.
func (e *encoder) encode(dst []byte, c Codec, src []byte) ([]byte, error) {
	dst = dst[:0]
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return e.encodeGzip(dst, src)
	case Snappy:
		return encodeSnappy(dst, src), nil
	case LZ4:
		if e.lz4 == nil {
			e.lz4 = new(lz4Encoder)
		}
		return e.lz4.encode(dst, src), nil
	case Zstd:
		if e.zstd == nil {
			z, err := zstd.NewWriter(nil,
				zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(false), // the batch has one
				zstd.WithLowerEncoderMem(true),
				zstd.WithWindowSize(zstdWindow),
				zstd.WithZeroFrames(true))
			if err != nil {
				return dst, err
			}
			e.zstd = z
		}
		return e.zstd.EncodeAll(src, dst), nil
	}
	return dst, fmt.Errorf("no encoder for %s", c)
}

func (e *encoder) encodeGzip(dst, src []byte) ([]byte, error) {
	if e.gzip == nil {
		e.gzip = gzip.NewWriter(nil)
	}
	e.out.b = dst
	e.gzip.Reset(&e.out)
	_, err := e.gzip.Write(src)
	if err == nil {
		err = e.gzip.Close()
	}
	dst, e.out.b = e.out.b, nil
	return dst, err
}

// sliceWriter appends what is written.
type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}
