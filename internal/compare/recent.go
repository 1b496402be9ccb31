package compare

// recent remembers the hashes of the last matched records, to tell a doubled
// record from one the source never had. While all is well it is only a ring;
// the index is built at the first difference and kept from then on.
type recent struct {
	ring  []matched
	next  int
	index map[uint64]int64 // hash -> source offset of its newest match, nil until needed
}

type matched struct {
	hash   uint64
	source int64
}

func newRecent(n int) *recent { return &recent{ring: make([]matched, 0, n)} }

func (r *recent) add(hash uint64, source int64) {
	m := matched{hash, source}
	if len(r.ring) < cap(r.ring) {
		r.ring = append(r.ring, m)
	} else {
		if old := r.ring[r.next]; r.index != nil && r.index[old.hash] == old.source {
			delete(r.index, old.hash)
		}
		r.ring[r.next] = m
		r.next = (r.next + 1) % len(r.ring)
	}
	if r.index != nil {
		r.index[hash] = source
	}
}

// find returns the source offset of the newest match with this hash.
func (r *recent) find(hash uint64) (source int64, ok bool) {
	if r.index == nil {
		r.index = make(map[uint64]int64, len(r.ring))
		for i := range r.ring {
			m := r.ring[(r.next+i)%len(r.ring)]
			r.index[m.hash] = m.source
		}
	}
	source, ok = r.index[hash]
	return source, ok
}
