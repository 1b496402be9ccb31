package wire

// ring is a queue of calls that reuses its memory.
type ring struct {
	calls []call
	head  int
	len   int
}

func (r *ring) at(i int) *call { return &r.calls[(r.head+i)&(len(r.calls)-1)] }

func (r *ring) push(k call) {
	if r.len == len(r.calls) {
		grown := make([]call, max(8, 2*r.len))
		for i := range r.len {
			grown[i] = *r.at(i)
		}
		r.calls, r.head = grown, 0
	}
	r.len++
	*r.at(r.len - 1) = k
}

func (r *ring) pop() call {
	first := r.at(0)
	k := *first
	*first = call{}
	r.head = (r.head + 1) & (len(r.calls) - 1)
	r.len--
	return k
}
