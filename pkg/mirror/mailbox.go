package mirror

import "sync"

// mailbox carries functions into the loop. Posting never blocks, so that a
// callback may post from any stack, the loop's own included; it is bounded by
// its posters, each of which has a fixed number of things under way.
type mailbox struct {
	mu   sync.Mutex
	fns  []func()
	wake chan struct{} // capacity 1
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

func (m *mailbox) post(fn func()) {
	m.mu.Lock()
	m.fns = append(m.fns, fn)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take hands out all functions posted so far; spare is reused for those to come.
func (m *mailbox) take(spare []func()) []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	fns := m.fns
	m.fns = spare[:0]
	return fns
}
