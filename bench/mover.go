package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/workload"
)

const catchUpTime = 5 * time.Minute // for a mover to copy a few GB at most

// A mover is one of those that are compared.
type mover string

const (
	ours      mover = "replicator"
	mmTuned   mover = "mm2-tuned"
	mmDefault mover = "mm2-default"
	relay     mover = "relay"  // of bytes, between two sockets: the floor
	direct    mover = "direct" // none: what is written is read on the source
)

// title is what the reports call it.
func (m mover) title() string {
	switch m {
	case ours:
		return "replicator"
	case mmTuned:
		return "MirrorMaker 2, tuned"
	case mmDefault:
		return "MirrorMaker 2, default"
	case direct:
		return "no mover, read on the source"
	default:
		return "TCP relay"
	}
}

// job is what a mover is asked to copy.
type job struct {
	pair      *kafkatest.ClusterPair
	topic     string         // on the source
	codec     workload.Codec // of its batches
	committed bool           // leave aborted records out
	link      string         // further settings of the replicator's link, as ", key: value"
	more      []string       // further settings of MirrorMaker 2
}

// moving is a mover at work.
type moving struct {
	*kafkatest.Process
	mover  mover
	alias  string                             // what it calls the source
	target string                             // topic on the target
	admin  *kadm.Client                       // of the target
	yaml   string                             // configuration of a replicator
	again  func() (*kafkatest.Process, error) // starts it, also once more after its end
}

// start starts a mover on a job. Nothing of earlier runs is found by it.
func (l *lab) start(m mover, j job) (*moving, error) {
	n, dir, err := l.run()
	if err != nil {
		return nil, err
	}
	w := &moving{mover: m, alias: fmt.Sprintf("east%d", n), admin: j.pair.Target.Admin()}
	w.target = w.alias + "." + j.topic
	if m == ours {
		// Aborted records are left out by default.
		w.yaml = daemonConfig{pair: j.pair, from: w.alias, topics: map[string]string{j.topic: w.target}, link: j.link}.yaml()
		w.again = func() (*kafkatest.Process, error) { return l.startDaemon(dir, w.yaml) }
	} else {
		c := mirrorMakerConfig{pair: j.pair, alias: w.alias, topic: j.topic}
		if m == mmTuned {
			c.more = tuned(w.alias, j.codec)
		}
		if j.committed {
			c.more = append(c.more, w.alias+".consumer.isolation.level = read_committed")
		}
		c.more = append(c.more, j.more...)
		w.again = func() (*kafkatest.Process, error) { return l.startMirrorMaker(dir, c.properties()) }
	}
	w.Process, err = w.again()
	return w, err
}

// stop ends it: nothing is written to the target after that.
func (w *moving) stop() error {
	if !w.Running() {
		return w.ended()
	}
	if w.mover == ours {
		return w.Stop(stopTime)
	}
	w.Kill() // a clean stop takes MirrorMaker 2 half a minute, and nothing is measured of it
	return nil
}

// clean deletes what the run left on both clusters.
func (w *moving) clean(ctx context.Context, pair *kafkatest.ClusterPair) error {
	return errors.Join(deleteTopics(ctx, pair.Target.Admin(), w.alias), deleteTopics(ctx, pair.Source.Admin(), "mm2-offset-syncs"))
}

// ended is the error of a mover that ended by itself.
func (w *moving) ended() error {
	return fmt.Errorf("run %s: it ended by itself (%s), the end of its log:\n%s", w.mover, w.State(), w.Tail(30))
}

// copied is how many records the target holds, by its end offsets: the
// replicator puts one control record in front of every partition.
func (w *moving) copied(ctx context.Context) (int64, error) {
	ends, err := endOffsets(ctx, w.admin, w.target)
	var n int64
	for _, end := range ends {
		if w.mover == ours {
			end--
		}
		n += max(0, end)
	}
	return n, err
}

// caughtUp waits until the target holds all records.
func (w *moving) caughtUp(ctx context.Context, records int64) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	for {
		n, err := w.copied(ctx)
		if err == nil && n >= records {
			return nil
		}
		if !w.Running() {
			return w.ended()
		}
		if pause.For(ctx, 100*time.Millisecond) != nil { // between two looks
			return fmt.Errorf("run %s: %s holds %d of %d records: %w, the end of its log:\n%s", w.mover, w.target, n, records, context.Cause(ctx), w.Tail(30))
		}
	}
}

// A copyRun is one run of a mover over one workload.
type copyRun struct {
	Mover   mover         `json:"mover"`
	Round   int           `json:"round"`
	Wall    time.Duration `json:"wall_ns"`    // from the first sight of records on the target to the last record
	CPU     time.Duration `json:"cpu_ns"`     // of the process in that time
	CPUAll  time.Duration `json:"cpu_all_ns"` // of the process from its start
	Peak    int64         `json:"peak_rss_bytes"`
	Wire    int64         `json:"wire_bytes,omitempty"` // that the relay copied
	Share   float64       `json:"share"`                // of the records that were copied in that time
	Compare string        `json:"compared,omitempty"`   // what a full comparison with the source found
}

// follow waits until the target holds all records, and measures the process
// from the first one on.
func (w *moving) follow(ctx context.Context, records int64, every time.Duration) (copyRun, error) {
	r := copyRun{Mover: w.mover}
	var began time.Time
	var first reading
	var before, last int64
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.Done():
			return r, w.ended()
		case <-ctx.Done():
			return r, fmt.Errorf("run %s: %s holds %d of %d records: %w, the end of its log:\n%s", w.mover, w.target, last, records, context.Cause(ctx), w.Tail(30))
		}
		n, err := w.copied(ctx)
		if err != nil {
			continue // the topic is being made; ctx ends the wait
		}
		last = n
		now, err := usage(w.PID())
		if err != nil {
			return r, fmt.Errorf("%w; %w", err, w.ended())
		}
		if n > 0 && began.IsZero() {
			began, first, before = time.Now(), now, n
		}
		if n >= records {
			r.Wall, r.CPU, r.CPUAll, r.Peak = time.Since(began), now.CPU-first.CPU, now.CPU, now.Peak
			r.Share = float64(records-before) / float64(records)
			if r.Share < 0.2 {
				return r, fmt.Errorf("run %s: %d of %d records were there at the first look: take more records", w.mover, before, records)
			}
			return r, nil
		}
	}
}
