package bench

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// watch tells every two seconds how far a phase is and ends its context when
// nothing has moved for as long as one has patience. why adds to that error what
// is known of the reason. The phase calls the function it gets when it is done.
func (b *Bench) watch(ctx context.Context, what string, total int64, count func() int64, why func() string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		last, moved := int64(0), time.Now()
		for second := 1; ; second++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			n := count()
			if n != last {
				last, moved = n, time.Now()
			}
			if second%2 == 0 {
				b.o.Progress(fmt.Sprintf("  %s: %d of %d records", what, n, total))
			}
			if time.Since(moved) < b.o.Patience {
				continue
			}
			err := fmt.Errorf("no record for %s: %d of %d records %s", b.o.Patience, n, total, what)
			if why != nil {
				if reason := why(); reason != "" {
					err = fmt.Errorf("%w: %s", err, reason)
				}
			}
			cancel(err)
			return
		}
	})
	return ctx, func() {
		cancel(nil)
		watcher.Wait()
	}
}

// cause is what ended a context, where an error only says that it ended.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
