package wire

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// The lowest run of free pages that is long enough, whatever was taken and freed
// before: the simplest map, one bool a page, finds the same.
func TestPageMapFindsTheLowestRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300).Draw(t, "n")
		m, plain := newPageMap(n), make([]bool, n)
		type run struct{ at, k int }
		var runs []run
		lowest := func(k int) int {
			for at := 0; at+k <= n; at++ {
				if !slices.Contains(plain[at:at+k], true) {
					return at
				}
			}
			return -1
		}
		set := func(r run, taken bool) {
			m.set(r.at, r.k, taken)
			for i := range r.k {
				plain[r.at+i] = taken
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				k := rapid.IntRange(1, 150).Draw(t, "k")
				at := m.find(k)
				if want := lowest(k); at != want {
					t.Fatalf("%d pages at %d, lowest is %d", k, at, want)
				}
				if at >= 0 {
					runs = append(runs, run{at, k})
					set(run{at, k}, true)
				}
			},
			"free": func(t *rapid.T) {
				if len(runs) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(runs)-1).Draw(t, "i")
				set(runs[i], false)
				runs = slices.Delete(runs, i, i+1)
			},
			"": func(t *rapid.T) {
				if want := 1 + slices.Index(reversed(plain), true); want > 0 && m.end() != n+1-want || want == 0 && m.end() != 0 {
					t.Fatalf("ends at %d: %v", m.end(), plain)
				}
			},
		})
	})
}

func reversed(b []bool) []bool {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

func TestFrameLength(t *testing.T) {
	f := NewPool(1 << 20).Overdraw(3000)
	if len(f.Bytes()) != 3000 || f.Cap() < 3000 {
		t.Errorf("%d of %d bytes", len(f.Bytes()), f.Cap())
	}
	if !f.Resize(f.Cap()) || f.Resize(f.Cap()+1) || f.Resize(-1) || len(f.Bytes()) != f.Cap() {
		t.Errorf("resized to %d of %d bytes", len(f.Bytes()), f.Cap())
	}
}

func TestMemoryIsUsedAgainBeforeOtherIs(t *testing.T) {
	p := NewPool(256 << 10)
	get := func(n int) *Frame {
		f := p.TryGet(n)
		if f == nil {
			t.Fatalf("no room for %d bytes, %d used", n, p.Used())
		}
		return f
	}
	a, b := get(64<<10), get(128<<10)
	first := &a.Bytes()[0]
	a.Release()
	c := get(50 << 10) // of another size, in the same place
	if &c.Bytes()[0] != first {
		t.Error("free memory was not used again")
	}
	if p.TryGet(100<<10) != nil {
		t.Error("beyond the budget")
	}
	d := p.Overdraw(100 << 10)
	if want := int64(128<<10 + 52<<10 + 100<<10); p.Used() != want {
		t.Errorf("%d used, expected %d", p.Used(), want)
	}
	for _, f := range []*Frame{b, c, d} {
		f.Release()
	}
	if p.Used() != 0 {
		t.Errorf("%d used", p.Used())
	}
}

func TestTrimGivesBackWhatNobodyNeeded(t *testing.T) {
	p := NewPool(1 << 20)
	fill := func(n int) *Frame {
		f := p.Overdraw(n)
		for i := range f.Bytes() {
			f.Bytes()[i] = 1
		}
		return f
	}
	low, high := fill(64<<10), fill(128<<10)
	high.Release()
	p.Trim() // needed since the last time
	if p.touched != 48 {
		t.Fatalf("%d pages held, expected 48", p.touched)
	}
	p.Trim()
	if p.touched != 16 {
		t.Errorf("%d pages held, expected 16", p.touched)
	}
	if !bytes.Equal(low.Bytes(), bytes.Repeat([]byte{1}, 64<<10)) {
		t.Error("a frame in use lost its content")
	}
	fill(128 << 10).Release() // can be used again
	low.Release()
}

func TestFramesAreGivenInTheOrderAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(64 << 10)
		held, _ := p.Get(t.Context(), 64<<10)
		var mu sync.Mutex
		var order []int
		ask := func(i, n int) {
			go func() {
				f, err := p.Get(t.Context(), n)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Second)
				f.Release()
			}()
			synctest.Wait()
		}
		ask(0, 48<<10)
		ask(1, 1<<20) // larger than the budget: alone
		ask(2, 1<<10) // would fit beside the first, but came later
		if p.Waiting() != 3 {
			t.Errorf("%d waiting", p.Waiting())
		}
		if p.TryGet(1) != nil {
			t.Error("jumped the queue")
		}
		held.Release()
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(order) != 3 || order[0] != 0 || order[1] != 1 || order[2] != 2 {
			t.Errorf("order %v", order)
		}
		if p.Used() != 0 {
			t.Errorf("%d used", p.Used())
		}
	})
}

// Room in pieces is no room; it becomes some when neighbours come free.
func TestAFrameWaitsForRoomInOnePiece(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(64 << 10)
		var small [4]*Frame
		for i := range small {
			small[i] = p.TryGet(16 << 10)
		}
		small[0].Release()
		small[2].Release()
		got := make(chan *Frame)
		go func() {
			f, _ := p.Get(t.Context(), 32<<10)
			got <- f
		}()
		synctest.Wait()
		if p.Waiting() != 1 {
			t.Fatal("given in two pieces")
		}
		small[1].Release()
		(<-got).Release()
		small[3].Release()
		if p.Used() != 0 {
			t.Errorf("%d used", p.Used())
		}
	})
}

func TestWaitingForAFrameEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(64 << 10)
		held, _ := p.Get(t.Context(), 48<<10)
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error)
		go func() {
			_, err := p.Get(ctx, 64<<10)
			failed <- err
		}()
		synctest.Wait()
		behind := make(chan *Frame)
		go func() {
			f, _ := p.Get(t.Context(), 16<<10)
			behind <- f
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-failed; !errors.Is(err, gone) {
			t.Error(err)
		}
		(<-behind).Release() // fits, now that nobody is before it
		held.Release()
		if p.Used() != 0 || p.Waiting() != 0 {
			t.Errorf("%d used, %d waiting", p.Used(), p.Waiting())
		}
	})
}

func TestMisuseOfFramesIsSeen(t *testing.T) {
	p := NewPool(1 << 20)
	p.Poison()
	f := p.Overdraw(100)
	old := f.Bytes()
	f.Retain()
	f.Release()
	f.Release()
	if !bytes.Equal(old, bytes.Repeat([]byte{0xDB}, 100)) {
		t.Error("a released frame still reads well")
	}
	g := p.Overdraw(100)
	defer g.Release()
	if &g.Bytes()[0] != &old[0] {
		t.Error("the buffer was not used again")
	}
	defer func() {
		if recover() == nil {
			t.Error("released twice, and nobody said so")
		}
	}()
	f.Release()
}

// Whatever is asked in whatever order: the budget holds, the books add up, and
// buffers in use never overlap.
func TestPoolKeepsItsBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPool(int64(rapid.IntRange(0, 1<<18).Draw(t, "limit")))
		var out []*Frame
		var drawn int64 // beyond the budget, by right
		overdrawn := map[*Frame]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"get": func(t *rapid.T) {
				if f := p.TryGet(rapid.IntRange(0, 1<<17).Draw(t, "n")); f != nil {
					out = append(out, f)
				}
			},
			"overdraw": func(t *rapid.T) {
				f := p.Overdraw(rapid.IntRange(0, 1<<16).Draw(t, "n"))
				overdrawn[f] = true
				drawn += int64(f.Cap())
				out = append(out, f)
			},
			"trim": func(*rapid.T) { p.Trim() },
			"release": func(t *rapid.T) {
				if len(out) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(out)-1).Draw(t, "i")
				f := out[i]
				out = append(out[:i], out[i+1:]...)
				if overdrawn[f] {
					delete(overdrawn, f)
					drawn -= int64(f.Cap())
				}
				f.Release()
			},
			"": func(t *rapid.T) {
				var used int64
				for i, f := range out {
					used += int64(f.Cap())
					for _, g := range out[:i] {
						if f.page >= 0 && g.page >= 0 && f.page < g.page+g.Cap()/pageBytes && g.page < f.page+f.Cap()/pageBytes {
							t.Fatalf("two frames, one buffer: pages %d and %d", f.page, g.page)
						}
					}
				}
				if used != p.Used() {
					t.Fatalf("%d used, %d counted", used, p.Used())
				}
				if used-drawn > p.Limit() && len(out)-len(overdrawn) > 1 {
					t.Fatalf("%d used beyond what was overdrawn, limit %d", used-drawn, p.Limit())
				}
				if p.high < p.pages.end() || p.touched < p.high {
					t.Fatalf("taken up to page %d, needed up to %d, held up to %d", p.pages.end(), p.high, p.touched)
				}
			},
		})
	})
}

func TestPoolUnderManyHands(t *testing.T) {
	p := NewPool(100 << 10)
	p.Poison()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				n := (g*7919 + i*104729) % (30 << 10)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if i%5 == 0 {
					ctx, cancel = context.WithCancel(ctx)
					if i%10 == 0 {
						cancel()
					}
				}
				f, err := p.Get(ctx, n)
				cancel()
				if err != nil {
					continue
				}
				if n > 0 {
					f.Bytes()[0], f.Bytes()[n-1] = byte(g), byte(g)
				}
				if used := p.Used(); used > p.Limit() {
					t.Errorf("%d used", used)
				}
				if n > 0 && (f.Bytes()[0] != byte(g) || f.Bytes()[n-1] != byte(g)) {
					t.Error("somebody else wrote into a frame")
				}
				f.Release()
			}
		})
	}
	wg.Wait()
	if p.Used() != 0 || p.Waiting() != 0 {
		t.Errorf("%d used, %d waiting", p.Used(), p.Waiting())
	}
}

func BenchmarkPool(b *testing.B) {
	p := NewPool(64 << 20)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f, err := p.Get(b.Context(), 64<<10+i%3*(200<<10))
		if err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
}
