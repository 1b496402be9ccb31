package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"replicator/internal/pause"
)

// soakEvent is something that was done, and how long it took until all was as
// before.
type soakEvent struct {
	Kind      string   `json:"kind"`
	At        float64  `json:"at_seconds"`                  // of load
	Done      float64  `json:"done_seconds"`                // when it was over: the process is back
	Recovered *float64 `json:"recovered_seconds,omitempty"` // when the lag was at its floor again; absent: it never was
}

const (
	frozenTime  = 15 * time.Second // longer than session_timeout: the lanes are taken over
	recoverTime = 2 * time.Minute  // for the lag to return
)

type occurrence struct {
	name string
	do   func(context.Context) error
}

// occurrences are what happens, in turn.
func (s *soak) occurrences() []occurrence {
	return []occurrence{
		{"daemon stopped", func(context.Context) error {
			if err := s.victim.process().Stop(stopTime); err != nil {
				return err
			}
			return s.victim.start()
		}},
		{"daemon killed", func(context.Context) error {
			s.victim.process().Kill()
			return s.victim.start()
		}},
		{"source restarted", func(ctx context.Context) error {
			b := s.pair.Source.Broker(1)
			if err := b.Stop(); err != nil {
				return err
			}
			return b.Start(ctx)
		}},
		{"target killed", func(ctx context.Context) error {
			b := s.pair.Target.Broker(1)
			b.Kill()
			return b.Start(ctx)
		}},
		{"daemon frozen", func(ctx context.Context) error {
			p := s.victim.process()
			if err := p.Signal(syscall.SIGSTOP); err != nil {
				return err
			}
			err := pause.For(ctx, frozenTime)
			return errors.Join(err, p.Signal(syscall.SIGCONT))
		}},
	}
}

// happen lets the events happen until ctx ends. One that has begun is ended.
func (s *soak) happen(ctx context.Context) error {
	all := s.occurrences()
	for n := 0; ; n++ {
		if err := pause.For(ctx, s.pause); err != nil {
			return nil //nolint:nilerr // it is time
		}
		if end, ok := ctx.Deadline(); ok && time.Until(end) < s.pause/2 {
			continue // no event right before the end
		}
		o := all[n%len(all)]
		e := soakEvent{Kind: o.name, At: s.since()}
		doing, cancel := context.WithTimeout(context.WithoutCancel(ctx), recoverTime)
		err := o.do(doing)
		e.Done = s.since()
		if err == nil && s.settled(doing) == nil {
			at := s.since()
			e.Recovered = &at
		}
		cancel()
		s.mu.Lock()
		s.results.Events = append(s.results.Events, e)
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("let happen: %s: %w", o.name, err)
		}
		s.say("%s", e)
		if e.Recovered == nil {
			s.say("  the end of the daemons' logs:\n%s\n%s", s.steady.process().Tail(15), s.victim.process().Tail(15))
		}
	}
}

func (e soakEvent) String() string {
	if e.Recovered == nil {
		return fmt.Sprintf("%.0f s: %s, over after %.1f s, the lag did not return in %v", e.At, e.Kind, e.Done-e.At, recoverTime)
	}
	return fmt.Sprintf("%.0f s: %s, over after %.1f s, all copying and the lag at its floor %.1f s after it began", e.At, e.Kind, e.Done-e.At, *e.Recovered-e.At)
}

// settled waits until every lane is copying and the lag is no more than a
// second's records, three times in a row.
func (s *soak) settled(ctx context.Context) error {
	for good := 0; good < 3; {
		_, a, _ := s.steady.look(ctx)
		_, b, _ := s.victim.look(ctx)
		if l := s.lag(a, b); a != nil && b != nil && l.copying == soakLanes() && l.records != nil && *l.records <= float64(s.rate) {
			good++
		} else {
			good = 0
		}
		if err := pause.For(ctx, 300*time.Millisecond); err != nil { // between two looks
			return err
		}
	}
	return nil
}
