package demo

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"replicator/internal/pause"
)

// signs are files in which hooks of the commands say where applications are to work,
// as a change of DNS or of a routing table would: a region, or none.
type signs struct {
	dir  string
	last context.Context // ends with the run

	mu      sync.Mutex
	told    map[string]*told
	working map[string]int
}

// told is what the applications of a kind were told last.
type told struct {
	region string
	until  context.Context // ends when they are told something else
	end    context.CancelFunc
}

func newTold(ctx context.Context, region string) *told {
	t := &told{region: region}
	t.until, t.end = context.WithCancel(ctx)
	return t
}

// The kinds of applications. Each has a file of that name, and another, NAME.busy, as
// long as one of them is at work.
const (
	writersSign = "writers"
	readersSign = "readers"

	lookEvery = 20 * time.Millisecond
)

func newSigns(ctx context.Context, dir string) *signs {
	s := &signs{dir: dir, last: ctx, told: map[string]*told{}, working: map[string]int{}}
	for _, kind := range []string{writersSign, readersSign} {
		s.told[kind] = newTold(ctx, "")
	}
	return s
}

// tell writes a sign as a hook does.
func (s *signs) tell(kind, region string) error {
	return os.WriteFile(filepath.Join(s.dir, kind), []byte(region), 0o600)
}

// run reads the signs until ctx ends.
func (s *signs) run(ctx context.Context) {
	for {
		for _, kind := range []string{writersSign, readersSign} {
			// An empty file is one that is being written.
			if b, err := os.ReadFile(filepath.Join(s.dir, kind)); err == nil && len(b) > 0 {
				s.set(kind, strings.TrimSpace(string(b)))
			}
		}
		if pause.For(ctx, lookEvery) != nil {
			return
		}
	}
}

func (s *signs) set(kind, region string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.told[kind]; t.region != region {
		t.end()
		s.told[kind] = newTold(s.last, region)
	}
}

// now is where a kind of applications is to work, and until when.
func (s *signs) now(kind string) (region string, until context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told[kind].region, s.told[kind].until
}

// work notes that one of a kind begins or ends its work.
func (s *signs) work(kind string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working[kind] += n
	busy := filepath.Join(s.dir, kind+".busy")
	// A hook that waits for nothing, or for ever, fails the demo: nothing more is needed.
	if s.working[kind] > 0 {
		_ = os.WriteFile(busy, nil, 0o600)
	} else {
		_ = os.Remove(busy)
	}
}

// follow works wherever it is told to until ctx ends.
func (s *signs) follow(ctx context.Context, kind string, addrs map[string][]string, work func(until context.Context, region string, addrs []string) error) error {
	for ctx.Err() == nil {
		region, until := s.now(kind)
		if addrs[region] == nil {
			select {
			case <-until.Done():
			case <-ctx.Done():
			}
			continue
		}
		s.work(kind, 1)
		err := work(until, region, addrs[region])
		s.work(kind, -1)
		if err != nil {
			return err
		}
	}
	return nil
}

// grace is a context that ends a while after another.
func grace(until context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(until))
	stop := context.AfterFunc(until, func() {
		_ = pause.For(ctx, after)
		cancel()
	})
	return ctx, func() { stop(); cancel() }
}
