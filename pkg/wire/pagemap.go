package wire

import (
	"math/bits"
	"slices"
)

// pageMap says which of n pages are taken, one bit each.
type pageMap struct {
	n     int
	taken []uint64
	// lowest is at or below the first free page, so that a search need not
	// begin at the beginning.
	lowest int
}

func newPageMap(n int) pageMap {
	return pageMap{n: n, taken: make([]uint64, (n+63)/64)}
}

// find returns where the lowest run of k free pages begins, -1 if there is none.
func (m *pageMap) find(k int) int {
	at := m.next(m.lowest, m.n, false)
	m.lowest = at
	for at+k <= m.n {
		end := m.next(at, at+k, true)
		if end == at+k {
			return at
		}
		at = m.next(end, m.n, false)
	}
	return -1
}

// next returns the first page in [from, to) that is taken or free as asked, to
// if there is none.
func (m *pageMap) next(from, to int, taken bool) int {
	for from < to {
		w := m.taken[from/64]
		if !taken {
			w = ^w
		}
		if w >>= from % 64; w != 0 {
			return min(to, from+bits.TrailingZeros64(w))
		}
		from = from/64*64 + 64
	}
	return to
}

// set takes or frees k pages from at on.
func (m *pageMap) set(at, k int, taken bool) {
	if !taken {
		m.lowest = min(m.lowest, at)
	}
	for k > 0 {
		n := min(k, 64-at%64) // in this word
		mask := ^uint64(0) >> (64 - n) << (at % 64)
		if taken {
			m.taken[at/64] |= mask
		} else {
			m.taken[at/64] &^= mask
		}
		at, k = at+n, k-n
	}
}

// end is the page behind the last one that is taken.
func (m *pageMap) end() int {
	for i, w := range slices.Backward(m.taken) {
		if w != 0 {
			return i*64 + bits.Len64(w)
		}
	}
	return 0
}
