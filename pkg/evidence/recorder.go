package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Sink is where events go, each in its order. An error names the sink; the event is handed over
// again before the next one, so a sink that took it although it failed sees it twice.
type Sink interface {
	Write(ctx context.Context, e Event) error
}

// Config is what a recorder needs.
type Config struct {
	Run string // its id
	Dir string // below it lies the bundle, Dir/Run; empty: no bundle is kept
	// Sinks get every event after it is in the bundle.
	Sinks []Sink
	// Secrets are values that are left out wherever they stand. Those shorter than four bytes
	// are not looked for.
	Secrets []string
}

// Recorder writes what a run does. It may be used by several goroutines.
type Recorder struct {
	mu       sync.Mutex
	chain    *Chain
	events   []Event
	redactor *redactor
	bundle   *bundle // nil: none is kept
	sinks    []Sink
	taken    []int // by sink, how many events it has
}

// Start begins a run.
func Start(cfg Config) (*Recorder, error) { return Resume(cfg, nil) }

// Resume goes on with a run of which events are in the audit topic. A bundle that is there
// already is continued, events that only it has are handed to the sinks; one that is not there
// is written. One that tells another story than the topic was left by a run that somebody else
// went on with: it is moved aside, Dir/Run.left-<events>. Resume does not write to the sinks;
// Record and Flush do.
func Resume(cfg Config, events []Event) (*Recorder, error) {
	if err := CheckRun(cfg.Run); err != nil {
		return nil, err
	}
	events = once(events)
	chain, err := ResumeChain(cfg.Run, events)
	if err != nil {
		return nil, err
	}
	r := &Recorder{chain: chain, events: events, sinks: cfg.Sinks, taken: make([]int, len(cfg.Sinks))}
	for i := range r.taken {
		r.taken[i] = len(events)
	}
	if r.redactor, err = newRedactor(cfg.Secrets); err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return r, nil
	}
	if err := r.openBundle(filepath.Join(cfg.Dir, cfg.Run), cfg.Run); err != nil {
		return nil, err
	}
	return r, nil
}

// openBundle brings bundle and recorder to the same events.
func (r *Recorder) openBundle(dir, run string) error {
	b, local, err := openBundle(dir, run)
	if err != nil {
		return err
	}
	common := min(len(local), len(r.events))
	if common > 0 && local[common-1].Hash != r.events[common-1].Hash {
		if err := b.close(); err != nil {
			return fmt.Errorf("close bundle: %w", err)
		}
		aside := fmt.Sprintf("%s.left-%d", dir, len(local))
		if _, err := os.Lstat(aside); err == nil {
			return fmt.Errorf("move bundle %s aside: %s is there already: move one of them away", dir, aside)
		}
		if err := os.Rename(dir, aside); err != nil {
			return fmt.Errorf("move bundle aside: %w", err)
		}
		if b, local, err = openBundle(dir, run); err != nil {
			return err
		}
		common = 0
	}
	r.bundle = b
	for _, e := range local[common:] { // only the bundle has them
		if err := r.chain.Follow(e); err != nil {
			return errors.Join(fmt.Errorf("resume run %s: %w", run, err), b.close())
		}
		r.events = append(r.events, e)
	}
	if err := r.flushBundle(); err != nil { // only the topic has them
		return errors.Join(err, b.close())
	}
	return nil
}

// Record writes one event, or several where the rows of doc need them, and at the end of a step
// the report. An error means that a place lacks the event for now: it is written there before
// the next one. The others have it.
func (r *Recorder) Record(ctx context.Context, kind Kind, step string, doc any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	docs, err := parts(doc)
	if err != nil {
		return err
	}
	for i, d := range docs {
		body, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode %s: %w", kind, err)
		}
		if body, err = r.redactor.clean(kind, body); err != nil {
			return err
		}
		part, of := 0, 0
		if len(docs) > 1 {
			part, of = i+1, len(docs)
		}
		e, err := r.chain.append(kind, step, part, of, json.RawMessage(body))
		if err != nil {
			return err
		}
		r.events = append(r.events, e)
	}
	err = r.flush(ctx)
	if r.bundle == nil || kind != KindStep && kind != KindOutcome {
		return err
	}
	return errors.Join(err, r.report(kind == KindOutcome))
}

// report writes the report of what the bundle has, which may be less than there is while its disk
// does not take it.
func (r *Recorder) report(seal bool) error {
	if r.bundle.seq < len(r.events) {
		return nil // said already
	}
	return r.bundle.report(r.events, seal)
}

// Flush hands over what bundle and sinks lack.
func (r *Recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flush(ctx)
}

func (r *Recorder) flush(ctx context.Context) error {
	err := r.flushBundle()
	for i, sink := range r.sinks {
		for r.taken[i] < len(r.events) {
			if failed := sink.Write(ctx, r.events[r.taken[i]]); failed != nil {
				err = errors.Join(err, failed)
				break
			}
			r.taken[i]++
		}
	}
	return err
}

func (r *Recorder) flushBundle() error {
	if r.bundle == nil {
		return nil
	}
	for r.bundle.seq < len(r.events) {
		if err := r.bundle.append(r.events[r.bundle.seq]); err != nil {
			return err
		}
	}
	return nil
}

// Events are all of the run, in order.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Anchor is the last event's, for the operator to keep.
func (r *Recorder) Anchor() Anchor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Anchor{Seq: r.chain.Seq(), Hash: r.chain.Head()}
}

// Head is the hash of the last event.
func (r *Recorder) Head() string { return r.Anchor().Hash }

// Bundle is the directory, or empty.
func (r *Recorder) Bundle() string {
	if r.bundle == nil {
		return ""
	}
	return r.bundle.dir
}

// Close closes the bundle. What was recorded is on disk already.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bundle == nil {
		return nil
	}
	if err := r.bundle.close(); err != nil {
		return fmt.Errorf("close bundle: %w", err)
	}
	return nil
}

// once drops events that come again, as a sink has them whose answer was lost. It returns a copy.
func once(events []Event) []Event {
	var distinct []Event
	for _, e := range events {
		if n := len(distinct); n > 0 && distinct[n-1].Seq == e.Seq && distinct[n-1].Hash == e.Hash {
			continue
		}
		distinct = append(distinct, e)
	}
	return distinct
}

// FromLines reads and checks the events of a run as a sink keeps them.
func FromLines(run string, lines [][]byte) ([]Event, error) {
	events := make([]Event, len(lines))
	for i, line := range lines {
		var err error
		if events[i], err = ParseEvent(line); err != nil {
			return nil, fmt.Errorf("read run %s: line %d: %w", run, i+1, err)
		}
	}
	events = once(events)
	if _, err := ResumeChain(run, events); err != nil {
		return nil, err
	}
	return events, nil
}

// Export writes the bundle of a run below dir from its events alone.
func Export(dir, run string, events []Event) (bundle string, err error) {
	if len(events) == 0 {
		return "", fmt.Errorf("export run %s: there are no events of it", run)
	}
	r, err := Resume(Config{Run: run, Dir: dir}, events)
	if err != nil {
		return "", err
	}
	ended := events[len(events)-1].Kind == KindOutcome
	r.mu.Lock()
	err = r.report(ended)
	r.mu.Unlock()
	return r.Bundle(), errors.Join(err, r.Close())
}
