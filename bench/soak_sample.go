package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// soakSample is everything at one moment. What is not known is absent.
type soakSample struct {
	At            float64                 `json:"at_seconds"` // of load
	Daemons       map[string]daemonSample `json:"daemons"`
	LagRecords    *float64                `json:"lag_records,omitempty"` // over all lanes
	LagSeconds    *float64                `json:"lag_seconds,omitempty"` // of the lane that is furthest behind
	CheckpointAge *float64                `json:"checkpoint_age_seconds,omitempty"`
	Written       int64                   `json:"source_offsets,omitempty"` // sum of the source's ends
	Copied        int64                   `json:"target_offsets,omitempty"`
}

// lag is what both daemons say together; records is nil unless every lane is
// held by exactly one of them and knows its lag.
type lag struct {
	copying       int
	records       *float64
	seconds       *float64
	checkpointAge *float64
}

func (s *soak) lag(said ...metrics) lag {
	var l lag
	lanes, unknown, records := 0.0, 0.0, 0.0
	for _, m := range said {
		if m == nil {
			continue
		}
		lanes += m.sum("replicator_lanes")
		unknown += m.sum("replicator_lag_unknown_lanes")
		records += m.sum("replicator_lag_records")
		l.copying += int(m.sum("replicator_lanes", "state", "copying"))
		l.seconds = larger(l.seconds, m.highest("replicator_lag_seconds"))
		l.checkpointAge = larger(l.checkpointAge, m.highest("replicator_checkpoint_current_age_seconds"))
	}
	if int(lanes) == soakLanes() && unknown == 0 {
		l.records = &records
	} else {
		l.seconds = nil
	}
	return l
}

func larger(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// sample takes samples until ctx ends.
func (s *soak) sample(ctx context.Context) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		one := s.look(ctx)
		if ctx.Err() != nil {
			return // it was cut off
		}
		s.mu.Lock()
		s.results.Samples = append(s.results.Samples, one)
		s.mu.Unlock()
		if n%6 == 0 {
			s.say("  %s", one.line())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *soak) look(ctx context.Context) soakSample {
	one := soakSample{At: s.since(), Daemons: map[string]daemonSample{}}
	var said []metrics
	for _, d := range []*soakDaemon{s.steady, s.victim} {
		ds, m, err := d.look(ctx)
		if err != nil {
			continue // it is being started again
		}
		one.Daemons[d.name] = ds
		said = append(said, m)
	}
	l := s.lag(said...)
	one.LagRecords, one.LagSeconds, one.CheckpointAge = l.records, l.seconds, l.checkpointAge
	one.Written, one.Copied = s.ends(ctx, s.pair.Source.Admin()), s.ends(ctx, s.pair.Target.Admin())
	return one
}

// ends is the sum of the ends of all topics, 0 while the broker does not answer.
func (s *soak) ends(ctx context.Context, admin *kadm.Client) (n int64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	listed, err := admin.ListEndOffsets(ctx, soakTopicNames()...)
	if err != nil || listed.Error() != nil {
		return 0
	}
	listed.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

func (o soakSample) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f s:", o.At)
	for _, name := range []string{"steady", "victim"} {
		if d, ok := o.Daemons[name]; ok {
			fmt.Fprintf(&b, " %s %d MiB, %.0f lanes, %.0f goroutines, %d files;", name, d.RSS>>20, d.Lanes, d.Goroutines, d.Files)
		}
	}
	if o.LagRecords != nil {
		fmt.Fprintf(&b, " lag %.0f records", *o.LagRecords)
	}
	return b.String()
}
