package observe

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"replicator/internal/status"
)

func TestSnapshotsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		source := NewSource(func(context.Context) status.Status {
			asked.Add(1)
			time.Sleep(10 * time.Millisecond) // of the bubble's clock
			return healthy()
		})
		done := make(chan error, 100)
		for range 100 {
			go func() {
				_, err := source.Get(t.Context())
				done <- err
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the loops were asked %d times for 100 at once", n)
		}
		time.Sleep(shareTime)
		if _, err := source.Get(t.Context()); err != nil {
			t.Error(err)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("an old snapshot was shown: asked %d times", n)
		}
	})
}

func TestWhoGivesUpDoesNotSpoilTheSnapshotOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := NewSource(func(ctx context.Context) status.Status {
			select {
			case <-time.After(time.Second):
				return healthy()
			case <-ctx.Done():
				return silent()
			}
		})
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		first := make(chan error)
		go func() {
			_, err := source.Get(hasty)
			first <- err
		}()
		synctest.Wait()
		waits, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := source.Get(waits); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited for its turn longer than it may: %v", err)
		}
		<-first
		if err := source.Alive(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLoopThatHangsIsNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := NewSource(func(ctx context.Context) status.Status {
			<-ctx.Done()
			return silent()
		})
		began := time.Now()
		if err := source.Alive(t.Context()); err == nil {
			t.Error("called alive")
		}
		if d := time.Since(began); d != answerTime {
			t.Errorf("found out after %v", d)
		}
	})
}
