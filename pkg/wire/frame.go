package wire

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Pool hands out frames, the byte buffers of the hot path, under one budget
// for the process. The budget counts the real capacity of the buffers, those
// in use and those kept for reuse together, so that it bounds memory and not a
// wish. A Pool is safe for concurrent use.
//
// Buffers come in size classes, four to a doubling, so that a frame of more
// than a KiB is at most a quarter larger than what was asked for. A released
// buffer is kept for the next frame of its class; when room is needed, the
// buffers that have been unused for the longest time go first.
type Pool struct {
	limit  int64
	poison atomic.Bool

	mu      sync.Mutex
	used    int64 // capacity of all frames in somebody's hands
	kept    int64 // capacity of the buffers kept for reuse
	tick    uint64
	free    [classes]frameList
	waiters waiterList
}

// Frame is one buffer of a Pool. It is counted: whoever keeps a slice of it
// beyond the owner's Release calls Retain first. Its content is not zeroed.
type Frame struct {
	pool  *Pool
	buf   []byte // of full capacity
	n     int
	class int
	refs  atomic.Int32

	// While the frame lies in the pool.
	newer, older *Frame
	tick         uint64 // when it was released, in releases of the pool
}

// poisonByte fills released frames of a poisoned pool.
const poisonByte = 0xDB

// NewPool returns a pool with a budget of limit bytes.
func NewPool(limit int64) *Pool {
	return &Pool{limit: max(limit, 0)}
}

// Poison makes the pool fill every released buffer with 0xDB and never use a
// Frame value twice, so that tests see who reads or releases what he has
// already given back.
func (p *Pool) Poison() { p.poison.Store(true) }

// Limit is the budget in bytes.
func (p *Pool) Limit() int64 { return p.limit }

// Used is the capacity in bytes of all frames not yet released. It is above
// Limit only by overdrawn frames, or by one frame larger than the budget.
func (p *Pool) Used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// Kept is the capacity in bytes of the buffers kept for reuse.
func (p *Pool) Kept() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept
}

// Waiting is the number of callers that Get keeps waiting.
func (p *Pool) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiters.len
}

// Get returns a frame of n bytes, held once, as soon as the budget has room
// for it and every earlier caller has been served. A frame larger than the
// whole budget is given when no other is out. It fails only when ctx ends.
func (p *Pool) Get(ctx context.Context, n int) (*Frame, error) {
	class, size := classOf(n)
	p.mu.Lock()
	if p.waiters.len == 0 && p.fits(size) {
		f := p.take(class, size)
		p.mu.Unlock()
		return p.fill(f, class, size, n), nil
	}
	w := &waiter{class: class, size: size, granted: make(chan *Frame, 1)}
	p.waiters.push(w)
	p.mu.Unlock()

	select {
	case f := <-w.granted:
		return p.fill(f, class, size, n), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	if w.queued {
		p.waiters.remove(w)
		p.serve() // a smaller one behind may fit now
		p.mu.Unlock()
		return nil, context.Cause(ctx)
	}
	p.mu.Unlock()
	p.fill(<-w.granted, class, size, n).Release()
	return nil, context.Cause(ctx)
}

// TryGet returns a frame of n bytes, or nil if Get would have to wait.
func (p *Pool) TryGet(n int) *Frame {
	class, size := classOf(n)
	p.mu.Lock()
	if p.waiters.len > 0 || !p.fits(size) {
		p.mu.Unlock()
		return nil
	}
	f := p.take(class, size)
	p.mu.Unlock()
	return p.fill(f, class, size, n)
}

// Overdraw returns a frame of n bytes at once, whatever the budget says. The
// frame counts against the budget. It is for output made while input frames
// are held: there waiting could wait for itself.
func (p *Pool) Overdraw(n int) *Frame {
	class, size := classOf(n)
	p.mu.Lock()
	f := p.take(class, size)
	p.mu.Unlock()
	return p.fill(f, class, size, n)
}

// fits reports whether a buffer of size may go out now.
func (p *Pool) fits(size int64) bool {
	return p.used == 0 || p.used+size <= p.limit
}

// take books a buffer of the class as used. It returns a kept one, or nil if
// the caller has to make one, and drops what is kept beyond the budget.
func (p *Pool) take(class int, size int64) *Frame {
	f := p.free[class].popNewest()
	if f != nil {
		p.kept -= size
	}
	p.used += size
	for p.kept > 0 && p.used+p.kept > p.limit {
		p.dropOldest()
	}
	return f
}

// dropOldest leaves the buffer unused for the longest time to the collector.
func (p *Pool) dropOldest() {
	var oldest *frameList
	for i := range p.free {
		l := &p.free[i]
		if l.oldest != nil && (oldest == nil || l.oldest.tick < oldest.oldest.tick) {
			oldest = l
		}
	}
	p.kept -= int64(len(oldest.popOldest().buf))
}

// fill makes a booked buffer a frame of n bytes. Buffers are made here,
// outside the lock, because zeroing a large one takes its time.
func (p *Pool) fill(f *Frame, class int, size int64, n int) *Frame {
	if f == nil {
		f = &Frame{pool: p, buf: make([]byte, size), class: class}
	}
	f.n = n
	f.refs.Store(1)
	return f
}

// giveBack takes a frame nobody holds any more.
func (p *Pool) giveBack(f *Frame) {
	size := int64(len(f.buf))
	kept := f
	if p.poison.Load() {
		for i := range f.buf {
			f.buf[i] = poisonByte
		}
		kept = &Frame{pool: p, buf: f.buf, class: f.class}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= size
	if p.used+size <= p.limit {
		p.tick++
		kept.tick = p.tick
		p.free[f.class].push(kept)
		p.kept += size
		for p.used+p.kept > p.limit {
			p.dropOldest()
		}
	}
	p.serve()
}

// serve grants buffers to those who wait, in their order.
func (p *Pool) serve() {
	for w := p.waiters.first; w != nil && p.fits(w.size); w = p.waiters.first {
		p.waiters.remove(w)
		w.granted <- p.take(w.class, w.size)
	}
}

// Bytes is the content, of the length asked for or last set by Resize.
func (f *Frame) Bytes() []byte { return f.buf[:f.n] }

// Cap is the largest length Resize can set.
func (f *Frame) Cap() int { return len(f.buf) }

// Resize sets the length of the content. It reports false, and changes
// nothing, if n is beyond the capacity.
func (f *Frame) Resize(n int) bool {
	if n < 0 || n > len(f.buf) {
		return false
	}
	f.n = n
	return true
}

// Retain adds a holder. Only a holder may call it.
func (f *Frame) Retain() { f.refs.Add(1) }

// Release takes a holder away; the last one gives the buffer and its share of
// the budget back. It panics when called more often than the frame is held.
func (f *Frame) Release() {
	switch refs := f.refs.Add(-1); {
	case refs == 0:
		f.pool.giveBack(f)
	case refs < 0:
		panic("wire: frame released more often than held")
	}
}

// Size classes: minClass, then four to every doubling.
const (
	minClassBits = 10 // 1 KiB
	classes      = 4 * (63 - minClassBits)
)

// classOf returns the class of n bytes and the size of its buffers.
func classOf(n int) (class int, size int64) {
	if n <= 1<<minClassBits {
		return 0, 1 << minClassBits
	}
	// n-1 lies in [2^e, 2^(e+1)); its two bits below the highest choose the
	// quarter, whose end is the size.
	e := bits.Len64(uint64(n-1)) - 1
	quarter := int64(uint64(n-1)>>(e-2)) & 3
	size = (4 + quarter + 1) << (e - 2)
	return 4*(e-minClassBits) + int(quarter) + 1, size
}

// frameList is a list of kept frames of one class by time of release.
type frameList struct{ newest, oldest *Frame }

func (l *frameList) push(f *Frame) {
	f.older = l.newest
	if l.newest != nil {
		l.newest.newer = f
	} else {
		l.oldest = f
	}
	l.newest = f
}

// popNewest takes the frame whose memory is most likely still in a cache.
func (l *frameList) popNewest() *Frame {
	f := l.newest
	if f == nil {
		return nil
	}
	l.newest = f.older
	if l.newest != nil {
		l.newest.newer = nil
	} else {
		l.oldest = nil
	}
	f.older = nil
	return f
}

func (l *frameList) popOldest() *Frame {
	f := l.oldest
	l.oldest = f.newer
	if l.oldest != nil {
		l.oldest.older = nil
	} else {
		l.newest = nil
	}
	f.newer = nil
	return f
}

// waiter is a caller of Get that waits for its turn.
type waiter struct {
	class      int
	size       int64
	granted    chan *Frame // nil: booked, but to be made
	queued     bool
	prev, next *waiter
}

type waiterList struct {
	first, last *waiter
	len         int
}

func (l *waiterList) push(w *waiter) {
	w.queued = true
	w.prev = l.last
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.len++
}

func (l *waiterList) remove(w *waiter) {
	w.queued = false
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
	l.len--
}
