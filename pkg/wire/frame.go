package wire

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// Pool hands out frames, the byte buffers of the hot path, under one budget
// for the process. Its buffers lie side by side in one arena of the budget's
// size, outside of the collected heap: a frame takes whole pages of it, the
// lowest run of free ones that is long enough. So memory that was touched is
// used again before any other is, and what the process holds is what its frames
// needed at once, however their sizes vary. A Pool is safe for concurrent use.
type Pool struct {
	limit  int64
	poison atomic.Bool

	mu      sync.Mutex
	used    int64   // capacity of all frames in somebody's hands
	arena   []byte  // mapped with the first frame
	pages   pageMap // of the arena
	high    int     // end of the highest page in use since the last Trim
	touched int     // end of the highest page that may hold memory
	spare   []*Frame
	waiters waiterList
}

// Frame is one buffer of a Pool. It is counted: whoever keeps a slice of it
// beyond the owner's Release calls Retain first. Its content is not zeroed.
type Frame struct {
	pool *Pool
	buf  []byte // of full capacity
	n    int
	page int // the first in the arena, -1: from the heap
	refs atomic.Int32
}

const (
	// pageBytes is the unit of the arena.
	pageBytes = 4 << 10
	// maxSpare bounds the Frame values kept for reuse; their buffers are the arena's.
	maxSpare = 1 << 10
	// poisonByte fills released frames of a poisoned pool.
	poisonByte = 0xDB
)

// NewPool returns a pool with a budget of limit bytes, of which it uses whole
// pages. The arena takes address space at once and memory as it is used.
func NewPool(limit int64) *Pool {
	p := &Pool{limit: max(limit, 0)}
	p.pages = newPageMap(int(p.limit / pageBytes))
	return p
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

// Waiting is the number of callers that Get keeps waiting.
func (p *Pool) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiters.len
}

// Trim gives memory back to the system that no frame has needed since the last
// Trim.
func (p *Pool) Trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	page := os.Getpagesize() // of the system, which may be larger than ours
	if from := (p.high*pageBytes + page - 1) / page * page; from < p.touched*pageBytes {
		discard(p.arena[from : p.touched*pageBytes])
		p.touched = from / pageBytes
	}
	p.high = p.pages.end()
}

// Get returns a frame of n bytes, held once, as soon as the budget has room
// for it and every earlier caller has been served. A frame larger than the
// whole budget is given when no other is out. It fails only when ctx ends.
func (p *Pool) Get(ctx context.Context, n int) (*Frame, error) {
	p.mu.Lock()
	if p.waiters.len == 0 {
		if f := p.take(n); f != nil {
			p.mu.Unlock()
			return f, nil
		}
	}
	w := &waiter{n: n, granted: make(chan *Frame, 1)}
	p.waiters.push(w)
	p.mu.Unlock()

	select {
	case f := <-w.granted:
		return f, nil
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
	(<-w.granted).Release()
	return nil, context.Cause(ctx)
}

// TryGet returns a frame of n bytes, or nil if Get would have to wait.
func (p *Pool) TryGet(n int) *Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters.len > 0 {
		return nil
	}
	return p.take(n)
}

// Overdraw returns a frame of n bytes at once, whatever the budget says. The
// frame counts against the budget. It is for output made while input frames
// are held: there waiting could wait for itself.
func (p *Pool) Overdraw(n int) *Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	pages := pagesOf(n)
	if at := p.pages.find(pages); at >= 0 {
		return p.occupy(at, pages, n)
	}
	return p.fromHeap(n)
}

// pagesOf is how many pages a frame of n bytes takes; an empty one has one too.
func pagesOf(n int) int { return max(1, (n+pageBytes-1)/pageBytes) }

// take returns a frame of n bytes, nil if there is no room for it now.
func (p *Pool) take(n int) *Frame {
	pages := pagesOf(n)
	if p.used > 0 && p.used+int64(pages)*pageBytes > p.limit {
		return nil
	}
	if at := p.pages.find(pages); at >= 0 {
		return p.occupy(at, pages, n)
	}
	if p.used > 0 {
		return nil // room enough, but in pieces
	}
	return p.fromHeap(n) // larger than the whole budget
}

// occupy makes a frame of free pages.
func (p *Pool) occupy(at, pages, n int) *Frame {
	if p.arena == nil {
		p.mapArena()
	}
	p.pages.set(at, pages, true)
	p.high, p.touched = max(p.high, at+pages), max(p.touched, at+pages)
	p.used += int64(pages) * pageBytes
	f := p.frame()
	f.buf, f.n, f.page = p.arena[at*pageBytes:(at+pages)*pageBytes:(at+pages)*pageBytes], n, at
	return f
}

// fromHeap makes a frame that the collector takes back.
func (p *Pool) fromHeap(n int) *Frame {
	f := p.frame()
	f.buf, f.n, f.page = make([]byte, max(1, n)), n, -1
	p.used += int64(len(f.buf))
	return f
}

// frame returns a Frame value held once.
func (p *Pool) frame() *Frame {
	var f *Frame
	if last := len(p.spare) - 1; last >= 0 {
		f, p.spare = p.spare[last], p.spare[:last]
	} else {
		f = &Frame{pool: p}
	}
	f.refs.Store(1)
	return f
}

func (p *Pool) mapArena() {
	arena, unmap := mapMemory(p.pages.n * pageBytes)
	p.arena = arena
	if unmap != nil {
		runtime.AddCleanup(p, func(unmap func()) { unmap() }, unmap)
	}
}

// giveBack takes a frame nobody holds any more.
func (p *Pool) giveBack(f *Frame) {
	poisoned := p.poison.Load()
	if poisoned {
		for i := range f.buf {
			f.buf[i] = poisonByte
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= int64(len(f.buf))
	if f.page >= 0 {
		p.pages.set(f.page, len(f.buf)/pageBytes, false)
	}
	if !poisoned {
		f.buf = nil
		if len(p.spare) < maxSpare {
			p.spare = append(p.spare, f)
		}
	}
	p.serve()
}

// serve grants buffers to those who wait, in their order.
func (p *Pool) serve() {
	for w := p.waiters.first; w != nil; w = p.waiters.first {
		f := p.take(w.n)
		if f == nil {
			return
		}
		p.waiters.remove(w)
		w.granted <- f
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

// waiter is a caller of Get that waits for its turn.
type waiter struct {
	n          int         // bytes asked for
	granted    chan *Frame // cap 1
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
