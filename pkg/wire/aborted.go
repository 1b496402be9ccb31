package wire

import (
	"cmp"
	"slices"
)

// AbortedTxn is a transaction that was aborted, from the answer to a fetch:
// the transactional batches of the producer from FirstOffset (source) up to
// the producer's next abort marker are not to be read.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// AbortedFilter tells which batches of one fetch answer belong to aborted
// transactions, the way KIP-98 has consumers do it. The zero value filters
// nothing. It is not safe for concurrent use.
type AbortedFilter struct {
	pending []AbortedTxn // not yet begun, by first offset
	next    int          // in pending
	open    map[int64]struct{}
}

// Reset starts with the answer that came with this list. The list need not be
// sorted and is not kept. It may name transactions that began below the fetch
// offset.
func (f *AbortedFilter) Reset(list []AbortedTxn) {
	f.pending = append(f.pending[:0], list...)
	slices.SortFunc(f.pending, func(a, b AbortedTxn) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	f.next = 0
	clear(f.open)
}

// Aborted reports whether the batch holds data of an aborted transaction. It
// is asked about every batch of the answer, in order, control batches
// included: those are never aborted themselves, but end transactions. The
// batches are verified. A control record that cannot be read ends nothing;
// ControlType tells.
func (f *AbortedFilter) Aborted(b Batch) bool {
	last := b.LastOffset()
	for f.next < len(f.pending) && f.pending[f.next].FirstOffset <= last {
		if f.open == nil {
			f.open = make(map[int64]struct{})
		}
		f.open[f.pending[f.next].ProducerID] = struct{}{}
		f.next++
	}
	if len(f.open) == 0 {
		return false
	}
	if b.IsControl() {
		if t, err := b.ControlType(); err == nil && t == ControlAbort {
			delete(f.open, b.ProducerID())
		}
		return false
	}
	if !b.IsTransactional() {
		return false
	}
	_, aborted := f.open[b.ProducerID()]
	return aborted
}
