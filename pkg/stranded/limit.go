package stranded

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// limiter holds a stream to so many bytes a second.
type limiter struct{ rate *rate.Limiter }

// newLimiter has no limit where bytesPerSecond is 0.
func newLimiter(bytesPerSecond int64) limiter {
	if bytesPerSecond <= 0 {
		return limiter{}
	}
	l := limiter{rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(bytesPerSecond, 1<<30)))}
	l.rate.AllowN(time.Now(), l.rate.Burst()) // the first second is no exception
	return l
}

// spend waits until n bytes may go.
func (l limiter) spend(ctx context.Context, n int64) error {
	if l.rate == nil {
		return nil
	}
	for n > 0 {
		part := min(n, int64(l.rate.Burst()))
		if err := l.rate.WaitN(ctx, int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
