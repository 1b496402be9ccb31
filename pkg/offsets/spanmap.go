package offsets

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
	"unsafe"
)

// spanMap holds the spans of one writer in little memory. Most of it is in sealed blocks of about
// 64 bytes, each in the shorter of two forms:
//
//   - pairs: up to 32 spans as varints, run length and hole in turn; 2 to 3 bytes a span when
//     holes are rare,
//   - bits: one bit for each of 512 source offsets, when there are more than 32 spans in them. So
//     nothing takes more than about an eighth of a byte per source offset, and the index.
//
// The newest spans wait in tail until a block can be made of them.
//
// blocks, data and tail only ever grow at their ends or are replaced as a whole. So a copy of the
// struct is a snapshot: what is appended later lies behind its lengths.
type spanMap struct {
	blocks []block
	data   []byte
	base   int // offset of data's first byte: what was before it is dropped
	tail   []Span
}

// block begins at a record: its ordinal and source offset. It ends where the next block or the
// tail begins.
type block struct {
	ordinal, source int64
	// where packs the offset of the block's bytes in data, the number of pairs, and the form:
	// zero pairs and form bits is a bitmap.
	where uint64
}

const (
	pairsPerBlock = 32
	bitsPerBlock  = 512
	bytesOfBits   = bitsPerBlock / 8
)

// body returns the bytes of a block, and of those behind it.
func (m *spanMap) body(b block) []byte { return m.data[b.offset()-m.base:] }

func (b block) offset() int  { return int(b.where >> 16) }
func (b block) pairs() int   { return int(b.where >> 1 & 0x7fff) }
func (b block) isBits() bool { return b.where&1 != 0 }

// bytes is the memory taken.
func (m *spanMap) bytes() int {
	return cap(m.blocks)*int(unsafe.Sizeof(block{})) + cap(m.data) + cap(m.tail)*int(unsafe.Sizeof(Span{}))
}

func (m *spanMap) empty() bool { return len(m.blocks) == 0 && len(m.tail) == 0 }

// last returns the newest span; there is always one in the tail unless the map is empty.
func (m *spanMap) last() Span { return m.tail[len(m.tail)-1] }

// follows tells whether s can come after all that is in the map.
func (m *spanMap) follows(s Span) bool {
	if m.empty() {
		return true
	}
	l := m.last()
	return s.Ordinal > l.Ordinal && s.Source-l.Source >= s.Ordinal-l.Ordinal
}

// append adds a span that follows.
func (m *spanMap) append(s Span) {
	m.tail = append(m.tail, s)
	for m.seal() {
	}
}

// seal turns the front of the tail into a block, if it is long enough to know which form is the
// shorter one. The last span stays: how long its run is, is not known yet.
func (m *spanMap) seal() bool {
	if len(m.tail) <= pairsPerBlock {
		return false
	}
	first, last := m.tail[0], m.tail[len(m.tail)-1]
	windowEnd := first.Source + bitsPerBlock
	if m.tail[pairsPerBlock].Source >= windowEnd {
		m.sealPairs()
		return true
	}
	if last.Source < windowEnd {
		return false // many spans in few offsets; wait until all 512 are known
	}
	m.sealBits(windowEnd)
	return true
}

func (m *spanMap) sealPairs() {
	m.blocks = append(m.blocks, block{
		ordinal: m.tail[0].Ordinal, source: m.tail[0].Source,
		where: uint64(m.base+len(m.data))<<16 | (pairsPerBlock-1)<<1,
	})
	for i := 1; i < pairsPerBlock; i++ {
		run := m.tail[i].Ordinal - m.tail[i-1].Ordinal
		m.data = binary.AppendUvarint(m.data, uint64(run))
		m.data = binary.AppendUvarint(m.data, uint64(m.tail[i].Source-m.tail[i-1].Source-run))
	}
	m.tail = append(make([]Span, 0, pairsPerBlock+8), m.tail[pairsPerBlock:]...)
}

func (m *spanMap) sealBits(windowEnd int64) {
	var window [bitsPerBlock / 64]uint64
	first := m.tail[0]
	i := 0
	var rest []Span
	for ; m.tail[i].Source < windowEnd; i++ {
		from := m.tail[i].Source
		to := from + m.tail[i+1].Ordinal - m.tail[i].Ordinal
		if to > windowEnd {
			// The run goes on in the next block.
			rest = append(rest, Span{Ordinal: m.tail[i].Ordinal + windowEnd - from, Source: windowEnd})
			to = windowEnd
		}
		for s := from - first.Source; s < to-first.Source; s++ {
			window[s>>6] |= 1 << (s & 63)
		}
	}
	m.blocks = append(m.blocks, block{ordinal: first.Ordinal, source: first.Source, where: uint64(m.base+len(m.data))<<16 | 1})
	for _, w := range window {
		m.data = binary.LittleEndian.AppendUint64(m.data, w)
	}
	m.tail = append(append(make([]Span, 0, pairsPerBlock+8), rest...), m.tail[i:]...)
}

// source returns the source offset of the record with this ordinal; false before the first span.
func (m *spanMap) source(ordinal int64) (int64, bool) {
	if len(m.tail) > 0 && ordinal >= m.tail[0].Ordinal {
		i := sort.Search(len(m.tail), func(i int) bool { return m.tail[i].Ordinal > ordinal }) - 1
		return m.tail[i].Source + ordinal - m.tail[i].Ordinal, true
	}
	if len(m.blocks) == 0 || ordinal < m.blocks[0].ordinal {
		return 0, false
	}
	// The last block that begins at or below the ordinal. Written so that the compiler needs no
	// branch in the loop, which it would guess wrong half of the time.
	lo := 0
	for n := len(m.blocks); n > 1; {
		half := n / 2
		next := lo
		if m.blocks[lo+half].ordinal <= ordinal {
			next = lo + half
		}
		lo, n = next, n-half
	}
	return m.blocks[lo].sourceOf(m.body(m.blocks[lo]), ordinal), true
}

// ceil returns the first record at or above the source offset, by ordinal and source offset. The
// last span has no end, so there always is one in a map that is not empty.
func (m *spanMap) ceil(source int64) (ordinal, at int64) {
	if len(m.tail) > 0 && source >= m.tail[0].Source {
		i := sort.Search(len(m.tail), func(i int) bool { return m.tail[i].Source > source }) - 1
		ordinal = m.tail[i].Ordinal + source - m.tail[i].Source
		if i+1 < len(m.tail) && ordinal >= m.tail[i+1].Ordinal {
			return m.tail[i+1].Ordinal, m.tail[i+1].Source
		}
		return ordinal, source
	}
	if len(m.blocks) == 0 || source < m.blocks[0].source {
		return m.start(0)
	}
	lo := 0 // as above
	for n := len(m.blocks); n > 1; {
		half := n / 2
		next := lo
		if m.blocks[lo+half].source <= source {
			next = lo + half
		}
		lo, n = next, n-half
	}
	nextOrdinal, nextSource := m.start(lo + 1)
	if ordinal, at, ok := m.blocks[lo].ceil(m.body(m.blocks[lo]), source, nextOrdinal); ok {
		return ordinal, at
	}
	return nextOrdinal, nextSource
}

// start returns where block i begins, or the tail behind the last block.
func (m *spanMap) start(i int) (ordinal, source int64) {
	if i < len(m.blocks) {
		return m.blocks[i].ordinal, m.blocks[i].source
	}
	return m.tail[0].Ordinal, m.tail[0].Source
}

func (b block) sourceOf(data []byte, ordinal int64) int64 {
	if b.isBits() {
		rank := int(ordinal - b.ordinal)
		window := data[:bytesOfBits]
		for i := 0; i < bytesOfBits; i += 8 {
			w := binary.LittleEndian.Uint64(window[i:])
			if n := bits.OnesCount64(w); rank >= n {
				rank -= n
				continue
			}
			return b.source + int64(i*8+selectBit(w, rank))
		}
		return b.source + bitsPerBlock // not reached: the next block begins there
	}
	o, s := b.ordinal, b.source
	for range b.pairs() {
		var run, hole int64
		run, hole, data = pair(data)
		if ordinal < o+run {
			break
		}
		o, s = o+run, s+run+hole
	}
	return s + ordinal - o
}

// ceil is false when the record sought is the first of the next block, which begins at next.
func (b block) ceil(data []byte, source, next int64) (ordinal, at int64, ok bool) {
	if b.isBits() {
		skip := source - b.source
		if skip >= bitsPerBlock {
			return 0, 0, false
		}
		window := data[:bytesOfBits]
		ordinal = b.ordinal
		i := int64(0)
		for ; i < skip>>6; i++ {
			ordinal += int64(bits.OnesCount64(binary.LittleEndian.Uint64(window[i*8:])))
		}
		w := binary.LittleEndian.Uint64(window[i*8:])
		ordinal += int64(bits.OnesCount64(w & (1<<(skip&63) - 1)))
		w &^= 1<<(skip&63) - 1
		for w == 0 {
			if i++; i == bitsPerBlock/64 {
				return 0, 0, false
			}
			w = binary.LittleEndian.Uint64(window[i*8:])
		}
		return ordinal, b.source + i*64 + int64(bits.TrailingZeros64(w)), true
	}
	o, s := b.ordinal, b.source
	for range b.pairs() {
		var run, hole int64
		run, hole, data = pair(data)
		if source < s+run {
			return o + source - s, source, true
		}
		o, s = o+run, s+run+hole
		if source < s {
			return o, s, true
		}
	}
	if ordinal = o + source - s; ordinal < next {
		return ordinal, source, true
	}
	return 0, 0, false
}

// pair reads run length and hole. Most of both are below 128.
func pair(data []byte) (run, hole int64, rest []byte) {
	if len(data) > 1 && data[0] < 0x80 && data[1] < 0x80 {
		return int64(data[0]), int64(data[1]), data[2:]
	}
	r, n := binary.Uvarint(data)
	h, k := binary.Uvarint(data[n:])
	return int64(r), int64(h), data[n+k:]
}

// selectBit returns the position of the set bit with the given rank, counted from 0.
func selectBit(w uint64, rank int) int {
	pos := 0
	for width := 32; width > 0; width >>= 1 {
		if n := bits.OnesCount64(w & (1<<width - 1)); rank >= n {
			rank -= n
			w >>= width
			pos += width
		}
	}
	return pos
}

// dropBelow frees what is only needed for ordinals below the given one, once that is half of the
// map. What is left may still begin below it. Snapshots keep theirs.
func (m *spanMap) dropBelow(ordinal int64) {
	n := sort.Search(len(m.blocks), func(i int) bool {
		next, _ := m.start(i + 1)
		return next >= ordinal
	})
	if n == 0 || n < len(m.blocks)/2 {
		return
	}
	cut := m.base + len(m.data)
	if n < len(m.blocks) {
		cut = m.blocks[n].offset()
	}
	m.blocks, m.data, m.base = slices.Clone(m.blocks[n:]), slices.Clone(m.data[cut-m.base:]), cut
}

// firstFrom returns the first span that begins at or above an ordinal.
func (m *spanMap) firstFrom(ordinal int64) (first Span, ok bool) {
	m.scan(ordinal, 1<<62, func(s Span) bool {
		first, ok = s, true
		return false
	})
	return first, ok
}

// each calls f for every span that begins from first to last ordinal, both included. A run that
// crosses from block to block is one span again.
func (m *spanMap) each(first, last int64, f func(Span)) {
	m.scan(first, last, func(s Span) bool {
		f(s)
		return true
	})
}

// scan is each until f returns false.
func (m *spanMap) scan(first, last int64, f func(Span) bool) {
	if m.empty() {
		return
	}
	var before Span
	started := false
	emit := func(s Span) bool {
		if s.Ordinal > last {
			return false
		}
		joined := started && s.Source-before.Source == s.Ordinal-before.Ordinal
		before, started = s, true
		return joined || s.Ordinal < first || f(s)
	}
	i := sort.Search(len(m.blocks), func(i int) bool { return m.blocks[i].ordinal > first })
	// One block earlier than needed, to know whether the first span goes on from another.
	for i = max(i-2, 0); i < len(m.blocks); i++ {
		b := m.blocks[i]
		if b.ordinal > last {
			return
		}
		if !b.eachSpan(m.body(b), emit) {
			return
		}
	}
	for _, s := range m.tail {
		if !emit(s) {
			return
		}
	}
}

func (b block) eachSpan(data []byte, emit func(Span) bool) bool {
	if !b.isBits() {
		s := Span{b.ordinal, b.source}
		if !emit(s) {
			return false
		}
		for range b.pairs() {
			var run, hole int64
			run, hole, data = pair(data)
			s = Span{s.Ordinal + run, s.Source + run + hole}
			if !emit(s) {
				return false
			}
		}
		return true
	}
	ordinal, set := b.ordinal, false
	for i := range int64(bitsPerBlock) {
		bit := data[i>>3]>>(i&7)&1 != 0
		if bit && !set && !emit(Span{ordinal, b.source + i}) {
			return false
		}
		if bit {
			ordinal++
		}
		set = bit
	}
	return true
}

// holds tells whether the map has exactly these spans from the first to the last of them.
func (m *spanMap) holds(runs []Span) bool {
	i, same := 0, true
	m.each(runs[0].Ordinal, runs[len(runs)-1].Ordinal, func(s Span) {
		same = same && i < len(runs) && runs[i] == s
		i++
	})
	return same && i == len(runs)
}

// all returns every span, runs joined.
func (m *spanMap) all() []Span {
	var spans []Span
	m.each(0, 1<<62, func(s Span) { spans = append(spans, s) })
	return spans
}
