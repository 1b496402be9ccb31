package wire

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestFramesAreAtMostAQuarterTooLarge(t *testing.T) {
	last := int64(0)
	for n := 0; n < 1<<20; n += 1 + n/200 {
		class, size := classOf(n)
		if size < int64(n) || size < last {
			t.Fatalf("%d bytes: class %d of %d bytes after %d", n, class, size, last)
		}
		if n >= 1<<10 && size > int64(n)+int64(n)/4 {
			t.Fatalf("%d bytes get %d", n, size)
		}
		last = size
	}
	for _, n := range []int{1 << 10, 1<<10 + 1, 1 << 16, 5 << 14, 1 << 30, 1<<31 - 1} {
		class, size := classOf(n)
		if again, same := classOf(int(size)); again != class || same != size {
			t.Errorf("%d bytes: class %d, its size %d has class %d", n, class, size, again)
		}
	}
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

func TestBudgetHoldsInUseAndKeptTogether(t *testing.T) {
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
	if again := get(64 << 10); &again.Bytes()[0] != first {
		t.Error("the kept buffer was not used again")
	} else {
		again.Release()
	}
	b.Release()
	if p.Used() != 0 || p.Kept() != 192<<10 {
		t.Errorf("%d used, %d kept", p.Used(), p.Kept())
	}
	c := get(80 << 10) // a class of its own; the one released first has to go
	if p.Used() != 80<<10 || p.Kept() != 128<<10 {
		t.Errorf("%d used, %d kept", p.Used(), p.Kept())
	}
	d := get(160 << 10)
	if p.Used() != 240<<10 || p.Kept() != 0 {
		t.Errorf("%d used, %d kept", p.Used(), p.Kept())
	}
	if p.TryGet(20<<10) != nil {
		t.Error("beyond the budget")
	}
	e := p.Overdraw(100 << 10)
	if p.Used() != 240<<10+112<<10 {
		t.Errorf("%d used", p.Used())
	}
	e.Release()
	if p.Kept() != 0 {
		t.Errorf("kept %d beyond the budget", p.Kept())
	}
	c.Release()
	d.Release()
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
				seen := map[*byte]bool{}
				for _, f := range out {
					used += int64(f.Cap())
					if seen[&f.buf[0]] {
						t.Fatal("two frames, one buffer")
					}
					seen[&f.buf[0]] = true
				}
				if used != p.Used() {
					t.Fatalf("%d used, %d counted", used, p.Used())
				}
				if used-drawn > p.Limit() && len(out)-len(overdrawn) > 1 {
					t.Fatalf("%d used beyond what was overdrawn, limit %d", used-drawn, p.Limit())
				}
				if p.Kept() > 0 && p.Used()+p.Kept() > p.Limit() {
					t.Fatalf("%d used and %d kept, limit %d", p.Used(), p.Kept(), p.Limit())
				}
				var kept int64
				for i := range p.free {
					for f := p.free[i].newest; f != nil; f = f.older {
						kept += int64(len(f.buf))
					}
				}
				if kept != p.Kept() {
					t.Fatalf("%d kept, %d counted", kept, p.Kept())
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
