package workload

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Identity is what a record says about where it was first written.
type Identity struct {
	Topic     string
	Partition int32
	Sequence  int64 // of the record in its partition, from 0; not an offset
}

func (i Identity) String() string { return fmt.Sprintf("%s/%d/%d", i.Topic, i.Partition, i.Sequence) }

// A value is "topic/partition/sequence checksum filler", the checksum being
// xxhash64 of the identity and the filler, in 16 hex digits. A key is
// "topic/partition/sequence", or of a compacted topic "k-number".

// content makes the records of one topic.
type content struct {
	topic string
	seed  uint64
	words [256][wordBytes]byte
}

// Filler is made of 256 words of 12 letters, so that codecs find about what
// they find in JSON: lz4 makes it four times smaller.
const wordBytes = 12

func newContent(topic string, seed uint64) *content {
	c := &content{topic: topic, seed: seed}
	rng := rand.New(rand.NewPCG(seed, xxhash.Sum64String(topic)))
	for i := range c.words {
		for j := range c.words[i] {
			c.words[i][j] = "etaoinshrdlucmfw"[rng.IntN(16)]
		}
	}
	return c
}

// random is a number that belongs to a record and a purpose.
func (c *content) random(partition int32, sequence int64, purpose byte) uint64 {
	var b [21]byte
	binary.LittleEndian.PutUint64(b[:], c.seed)
	binary.LittleEndian.PutUint32(b[8:], uint32(partition))
	binary.LittleEndian.PutUint64(b[12:], uint64(sequence))
	b[20] = purpose
	return xxhash.Sum64(b[:])
}

func (c *content) key(partition int32, sequence int64) []byte {
	b := make([]byte, 0, len(c.topic)+16)
	return c.identity(b, partition, sequence)
}

func (c *content) identity(b []byte, partition int32, sequence int64) []byte {
	b = append(append(b, c.topic...), '/')
	b = append(strconv.AppendInt(b, int64(partition), 10), '/')
	return strconv.AppendInt(b, sequence, 10)
}

// value makes a value of about size bytes; it is never shorter than identity
// and checksum.
func (c *content) value(partition int32, sequence int64, size int) []byte {
	b := make([]byte, 0, max(size, len(c.topic)+40)+wordBytes)
	b = c.identity(b, partition, sequence)
	at := len(b)
	b = append(b, " 0123456789abcdef "...)
	head := len(b)
	rng := rand.NewPCG(c.seed, c.random(partition, sequence, 'v'))
	for len(b) < size {
		for r, i := rng.Uint64(), 0; i < 8 && len(b) < size; i++ {
			b = append(b, c.words[byte(r>>(8*i))][:]...)
		}
	}
	if len(b) > max(size, head) {
		b = b[:max(size, head)]
	}
	checksum(b[at+1:at+1], b[:at], b[head:])
	return b
}

// checksum writes 16 hex digits to dst, which has the capacity for them.
func checksum(dst, identity, filler []byte) {
	d := xxhash.New()
	_, _ = d.Write(identity) // a Digest never fails
	_, _ = d.Write(filler)
	hex.Encode(dst[:16], binary.BigEndian.AppendUint64(nil, d.Sum64()))
}

// Parse reads the identity of a record of this package out of its value, or,
// if that is null or empty, out of its key. It fails on content that was
// changed. A record without either, and a key of a compacted topic without its
// value, have no identity.
func Parse(key, value []byte) (Identity, error) {
	if len(value) == 0 {
		return parseIdentity(key)
	}
	identity, rest, ok := bytes.Cut(value, []byte(" "))
	if !ok || len(rest) < 17 || rest[16] != ' ' {
		return Identity{}, fmt.Errorf("parse record: value of %d bytes without checksum", len(value))
	}
	var want [16]byte
	checksum(want[:0], identity, rest[17:])
	if !bytes.Equal(want[:], rest[:16]) {
		return Identity{}, fmt.Errorf("parse record %q: checksum %q, content has %q", identity, rest[:16], want)
	}
	return parseIdentity(identity)
}

func parseIdentity(b []byte) (Identity, error) {
	parts := bytes.Split(b, []byte("/"))
	if len(parts) != 3 {
		return Identity{}, fmt.Errorf("parse record: no identity in %q", b)
	}
	p, err := strconv.ParseInt(string(parts[1]), 10, 32)
	if err != nil {
		return Identity{}, fmt.Errorf("parse record: partition: %w", err)
	}
	s, err := strconv.ParseInt(string(parts[2]), 10, 64)
	if err != nil {
		return Identity{}, fmt.Errorf("parse record: sequence: %w", err)
	}
	return Identity{Topic: string(parts[0]), Partition: int32(p), Sequence: s}, nil
}
