package mirror

import (
	"container/heap"
	"time"
)

// timers is what the loop wants to do later, soonest first.
type timers []timed

type timed struct {
	at time.Time
	fn func()
}

func (t *timers) Len() int           { return len(*t) }
func (t *timers) Less(i, j int) bool { return (*t)[i].at.Before((*t)[j].at) }
func (t *timers) Swap(i, j int)      { (*t)[i], (*t)[j] = (*t)[j], (*t)[i] }
func (t *timers) Push(x any)         { *t = append(*t, x.(timed)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = timed{}
	*t = old[:len(old)-1]
	return last
}

func (t *timers) add(at time.Time, fn func()) { heap.Push(t, timed{at, fn}) }

// due takes the functions whose time has come, in order.
func (t *timers) due(now time.Time) (fns []func()) {
	for len(*t) > 0 && !(*t)[0].at.After(now) {
		fns = append(fns, heap.Pop(t).(timed).fn)
	}
	return fns
}

// next is how long until the soonest, at most limit.
func (t *timers) next(now time.Time, limit time.Duration) time.Duration {
	if len(*t) == 0 {
		return limit
	}
	return min(limit, max(0, (*t)[0].at.Sub(now)))
}
