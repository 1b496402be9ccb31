package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A message of the formats 0 and 1: offset, size, CRC32 (IEEE) of what
// follows it, magic, attributes, in format 1 a timestamp, key, value. A
// compressed one wraps others: its value is a message set. It has the offset
// of the last message in it.
const (
	atMessageCRC        = 12
	atMessageAttributes = 17
	atMessageTimestamp  = 18
	messageHeaderV0     = 26 // with the lengths of key and value
	messageHeaderV1     = 34
)

// message is one message of the formats 0 and 1.
type message struct {
	offset     int64
	magic      int8
	attributes byte
	timestamp  int64 // milliseconds, -1 in format 0
	key, value []byte
}

func (m *message) codec() Codec { return Codec(m.attributes & attrCodec) }

// cutMessage cuts the first message off a message set, and checks it.
func cutMessage(set []byte) (m message, rest []byte, err error) {
	entry, rest, err := Split(set)
	if errors.Is(err, ErrPartial) {
		return m, set, corrupt(-1, "message set ends within a message")
	}
	if err != nil {
		return m, set, err
	}
	m.offset = int64(binary.BigEndian.Uint64(entry))
	m.magic = Magic(entry)
	at := atMessageTimestamp
	switch m.magic {
	case 0:
		m.timestamp = -1
	case 1:
		if len(entry) < messageHeaderV1 {
			return m, set, corrupt(m.offset, "message of %d bytes", len(entry))
		}
		m.timestamp = int64(binary.BigEndian.Uint64(entry[at:]))
		at += 8
	default:
		return m, set, corrupt(m.offset, "magic is %d in a message set", m.magic)
	}
	stored := binary.BigEndian.Uint32(entry[atMessageCRC:])
	if sum := crc32.ChecksumIEEE(entry[atMagic:]); sum != stored {
		return m, set, corrupt(m.offset, "crc is %08x, computed %08x", stored, sum)
	}
	m.attributes = entry[atMessageAttributes]
	if m.offset < 0 {
		return m, set, corrupt(m.offset, "offset is negative")
	}
	body := entry[at:]
	var ok bool
	if m.key, body, ok = cutBytes(body); !ok {
		return m, set, corrupt(m.offset, "key length does not fit")
	}
	if m.value, body, ok = cutBytes(body); !ok {
		return m, set, corrupt(m.offset, "value length does not fit")
	}
	if len(body) > 0 {
		return m, set, corrupt(m.offset, "bytes left over in a message")
	}
	return m, rest, nil
}

// cutBytes cuts a value behind its int32 length off b; a length of -1 is nil.
func cutBytes(b []byte) (value, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	size := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	if size == -1 {
		return nil, b, true
	}
	if size < 0 || int64(size) > int64(len(b)) {
		return nil, nil, false
	}
	return b[:size:size], b[size:], true
}

// addMessage adds a message v0 or v1, or those it wraps.
func (p *Packer) addMessage(entry []byte, from int64) error {
	outer, _, err := cutMessage(entry)
	if err != nil {
		return err
	}
	codec := outer.codec()
	if codec == None {
		p.begin(None, 1)
		if outer.offset >= from {
			p.putMessage(outer.offset, outer.timestamp, &outer)
		}
		return p.err
	}
	if codec >= Zstd {
		return &UnknownCodecError{Offset: outer.offset, Codec: codec}
	}
	set, err := p.decompress(outer.offset, codec, outer.value)
	if err != nil {
		return err
	}
	shift, err := checkSet(&outer, set)
	if err != nil {
		return err
	}
	p.begin(codec, float64(len(outer.value))/float64(len(set)))
	appendTime := outer.magic == 1 && outer.attributes&attrLogAppendTime != 0
	for len(set) > 0 && p.err == nil {
		var m message
		if m, set, err = cutMessage(set); err != nil {
			return err // not again: the set has been checked
		}
		if m.offset += shift; m.offset < from {
			continue
		}
		if appendTime {
			m.timestamp = outer.timestamp
		}
		p.putMessage(m.offset, m.timestamp, &m)
	}
	return p.err
}

// checkSet checks what a message wraps. It returns what turns the offsets
// inside into source offsets: in format 0 they are source offsets, in format 1
// the last one is at the offset of the wrapper. A wrapper at 0 leaves them as
// they are, as all readers have it: an old producer wrote those.
func checkSet(outer *message, set []byte) (shift int64, err error) {
	if len(set) == 0 {
		return 0, corrupt(outer.offset, "compressed message is empty")
	}
	last := int64(-1)
	for len(set) > 0 {
		var m message
		if m, set, err = cutMessage(set); err != nil {
			return 0, inside(outer.offset, err)
		}
		switch {
		case m.magic != outer.magic:
			return 0, corrupt(outer.offset, "message of format %d within one of format %d", m.magic, outer.magic)
		case m.codec() != None:
			return 0, corrupt(outer.offset, "compressed message within a compressed message")
		case m.offset <= last:
			return 0, corrupt(outer.offset, "offset %d behind %d within a message", m.offset, last)
		}
		last = m.offset
	}
	if outer.offset == 0 || outer.magic == 0 {
		return 0, nil
	}
	if last > outer.offset {
		return 0, corrupt(outer.offset, "message at %d wraps one at %d", outer.offset, last)
	}
	return outer.offset - last, nil
}

// inside says at which entry a fault was found: offsets within a wrapper mean
// nothing to the reader.
func inside(offset int64, err error) error {
	c := &CorruptError{}
	if errors.As(err, &c) {
		return &CorruptError{Offset: offset, Reason: "message within: " + c.Reason}
	}
	return err
}

// putMessage writes the message as a record.
func (p *Packer) putMessage(source, timestamp int64, m *message) {
	p.body = appendBytes(p.body[:0], m.key)
	p.body = appendBytes(p.body, m.value)
	p.body = append(p.body, 0) // headers
	p.put(source, timestamp, p.body)
}
