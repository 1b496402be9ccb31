// Package pause waits in a way that ends with a context.
package pause

import (
	"context"
	"time"
)

// For waits for d, or until ctx ends; the error is the cause of that.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
