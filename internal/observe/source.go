package observe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"replicator/internal/status"

	"replicator/pkg/mirror"
)

// Silent is the state of a link whose loop did not answer in time. Such a link
// is not alive; nothing but its name and state is known.
const Silent mirror.LinkState = "silent"

// Snapshot takes the state of the whole daemon. It returns at the latest soon
// after ctx has ended; a link whose loop did not answer by then has the state
// Silent and nothing else.
type Snapshot func(ctx context.Context) status.Status

const (
	// answerTime is how long a loop may take to answer before the daemon counts
	// as hung. Its loops never wait for the network.
	answerTime = 5 * time.Second
	// shareTime is how old a shared snapshot may be.
	shareTime = 250 * time.Millisecond
)

// Source shares the snapshots of one daemon among all who ask.
type Source struct {
	ask  Snapshot
	turn chan struct{} // holds one token: whoever has it may ask
	last status.Status
	at   time.Time // when last was taken; zero: never
}

// NewSource makes a source of a function that takes snapshots.
func NewSource(ask Snapshot) *Source {
	s := &Source{ask: ask, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// Get returns a snapshot that is at most a quarter of a second old. Its maps,
// slices and pointers are shared and must not be changed. It fails only if
// nothing was to be had before ctx ended.
func (s *Source) Get(ctx context.Context) (status.Status, error) {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return status.Status{}, fmt.Errorf("take status: %w", ctx.Err())
	}
	defer func() { s.turn <- struct{}{} }()
	if s.at.IsZero() || time.Since(s.at) >= shareTime {
		// Not with ctx: whoever gave up must not make others see a silent link.
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		s.last = s.ask(asking)
		s.at = time.Now()
	}
	return s.last, nil
}

// Alive reports which loops do not answer; nil: all do.
func (s *Source) Alive(ctx context.Context) error {
	status, err := s.Get(ctx)
	if err != nil {
		return err
	}
	return alive(status)
}

func alive(s status.Status) error {
	var silent []string
	for _, l := range s.Links {
		if l.State == Silent {
			silent = append(silent, l.Name)
		}
	}
	if len(silent) > 0 {
		return fmt.Errorf("link %s does not answer", strings.Join(silent, ", "))
	}
	return nil
}

// unready lists why the daemon is not ready; empty: it is.
func unready(s status.Status) []string {
	if len(s.Links) == 0 {
		return []string{"no link is running"}
	}
	var out []string
	for _, l := range s.Links {
		if l.Ready && l.State != Silent {
			continue
		}
		why := l.Reason
		if why == "" {
			why = string(l.State)
		}
		out = append(out, "link "+l.Name+": "+why)
	}
	return out
}
