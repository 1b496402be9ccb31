package wan

import "time"

const (
	chunkSize = 1 << 20
	roomSize  = 64<<10 + 64 // a packet of 64 KiB and the header before it
	// maxHeld bounds what is under way in one direction: 40 ms at 3 GB/s.
	maxHeld = 128 << 20
)

// A hold keeps packets that are under way, first in, first out. It grows with
// what is in it, up to maxHeld bytes, and keeps its memory.
type hold struct {
	ring        []heldPacket // a power of two of them
	head, count int
	size        int // bytes in the packets
	current     *chunk
	free        []*chunk
}

// heldPacket is a packet under way.
type heldPacket struct {
	in          *chunk
	from, to    int           // in the chunk
	due         time.Duration // when it arrives
	count, wire int64         // packets it stands for, and their bytes
}

// chunk is a piece of memory that many packets lie in, one behind the other.
type chunk struct {
	data [chunkSize]byte
	used int
	live int // packets in it
}

func (p *heldPacket) bytes() []byte { return p.in.data[p.from:p.to] }

// room is where the next packet may be written; push keeps it.
func (h *hold) room() []byte {
	if h.current != nil && h.current.live == 0 {
		h.current.used = 0
	}
	if h.current == nil || chunkSize-h.current.used < roomSize {
		if n := len(h.free); n > 0 {
			h.current, h.free = h.free[n-1], h.free[:n-1]
		} else {
			h.current = new(chunk)
		}
		h.current.used = 0
	}
	return h.current.data[h.current.used:][:roomSize]
}

// push keeps a packet that was written to the beginning of room, unless the
// hold is full.
func (h *hold) push(packet []byte, due time.Duration, count, wire int64) bool {
	if h.size+len(packet) > maxHeld {
		return false
	}
	if h.count == len(h.ring) {
		grown := make([]heldPacket, max(256, 2*len(h.ring)))
		for i := range h.count {
			grown[i] = *h.at(i)
		}
		h.ring, h.head = grown, 0
	}
	c := h.current
	h.count++
	*h.at(h.count - 1) = heldPacket{in: c, from: c.used, to: c.used + len(packet), due: due, count: count, wire: wire}
	c.used += len(packet)
	c.live++
	h.size += len(packet)
	return true
}

func (h *hold) at(i int) *heldPacket { return &h.ring[(h.head+i)&(len(h.ring)-1)] }

// first is the packet that arrives next, nil without one.
func (h *hold) first() *heldPacket {
	if h.count == 0 {
		return nil
	}
	return h.at(0)
}

// pop forgets the first packet.
func (h *hold) pop() {
	p := h.at(0)
	h.size -= p.to - p.from
	p.in.live--
	if p.in.live == 0 && p.in != h.current {
		h.free = append(h.free, p.in)
	}
	p.in = nil
	h.head = (h.head + 1) & (len(h.ring) - 1)
	h.count--
}
