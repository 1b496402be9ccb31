package authority

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pairHeader names the pair in each event's header: a cluster keeps the runs of all its
// pairs in one topic.
const pairHeader = "pair"

// LastRunFact is the name of the fact that says which run began last on a cluster.
const LastRunFact = "lastrun"

// LastRun is the run that began last on a copy's cluster. It is written when the run
// has written its first events, and before it changes anything. Drills have none.
type LastRun struct {
	Run  string `json:"run"`
	From int64  `json:"from"` // offset in the audit topic; its events stand from there on
	// Over is how it ended, "" as long as it may have to be finished.
	Over string `json:"over,omitempty"`
	// Passed is the run before that this one did not wait for. It may still have to be
	// finished or undone, unless this one changed the authority.
	Passed *LastRun `json:"passed,omitempty"`
}

// LastRun returns the run that began last, false if none did. What it says cannot be
// read is an error: a run that has to be finished must not be passed by.
func (s State) LastRun() (LastRun, bool, error) {
	fact, ok := s.Facts[LastRunFact]
	if !ok {
		return LastRun{}, false, nil
	}
	var last LastRun
	err := json.Unmarshal(fact.Data, &last)
	if err == nil && (last.Run == "" || last.From < 0) {
		err = errors.New("it names no run")
	}
	if err != nil {
		return LastRun{}, false, fmt.Errorf("read fact %s: %w", LastRunFact, err)
	}
	return last, true, nil
}

// RunInfo is what the audit topic has of one run.
type RunInfo struct {
	ID          string
	Events      int
	First, Last time.Time // when its events were written, by the brokers' or writer's clock
	// FirstEvent and LastEvent are those that are kept: what stood before was removed
	// by the topic's retention.
	FirstEvent, LastEvent []byte
}

// ReadAudit returns the events of a run in the order they were written; none if
// there is no such run, or no audit topic. It reads the whole topic.
func ReadAudit(ctx context.Context, cfg Config, run string) ([][]byte, error) {
	return ReadRun(ctx, cfg, LastRun{Run: run})
}

// ReadRun is [ReadAudit] from where the run's events begin.
func ReadRun(ctx context.Context, cfg Config, run LastRun) ([][]byte, error) {
	var events [][]byte
	err := scanAudit(ctx, cfg, run.From, func() { events = nil }, func(r *kgo.Record) {
		if string(r.Key) == run.Run {
			events = append(events, r.Value)
		}
	})
	return events, err
}

// Runs returns the pair's runs in the audit topic, in the order they began. It reads
// the whole topic.
func Runs(ctx context.Context, cfg Config) ([]RunInfo, error) {
	var runs []RunInfo
	at := map[string]int{}
	again := func() { runs = nil; clear(at) }
	err := scanAudit(ctx, cfg, 0, again, func(r *kgo.Record) {
		if !ofPair(r, cfg.Pair) {
			return
		}
		i, ok := at[string(r.Key)]
		if !ok {
			i = len(runs)
			at[string(r.Key)] = i
			runs = append(runs, RunInfo{ID: string(r.Key), First: r.Timestamp, FirstEvent: r.Value})
		}
		runs[i].Events++
		runs[i].Last, runs[i].LastEvent = r.Timestamp, r.Value
	})
	return runs, err
}

func ofPair(r *kgo.Record, p Pair) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == pairHeader && string(h.Value) == p.String() })
}

// scanAudit reads the audit topic; again comes before it has to begin anew.
func scanAudit(ctx context.Context, cfg Config, from int64, again func(), each func(*kgo.Record)) error {
	cfg = cfg.withDefaults()
	l := &log{cfg.Cluster.Client(), cfg.Cluster.Alias(), cfg.AuditTopic}
	err := l.scan(ctx, from, again, each)
	switch {
	case errors.Is(err, errMissing):
		return nil
	case err != nil:
		return fmt.Errorf("read topic %s of cluster %s: %w", cfg.AuditTopic, cfg.Cluster.Alias(), err)
	}
	return nil
}

// AuditStart says from when on a cluster's audit topic has the events of runs, of all pairs.
type AuditStart struct {
	// Since is when the first event it has was written; zero: it has none.
	Since time.Time
	// Removed: there were earlier ones, which retention has removed.
	Removed bool
	// Retention is how long an event is kept at least; negative: for ever, zero: not known.
	Retention time.Duration
}

// AuditBegins reads where the audit topic begins.
func AuditBegins(ctx context.Context, cfg Config) (AuditStart, error) {
	cfg = cfg.withDefaults()
	l := &log{cfg.Cluster.Client(), cfg.Cluster.Alias(), cfg.AuditTopic}
	var out AuditStart
	err := insist(ctx, func() error {
		out = AuditStart{}
		at, err := l.locate(ctx)
		if err != nil {
			return err
		}
		next, err := l.list(ctx, at, atStart)
		if err != nil {
			return err
		}
		out.Removed = next > 0
		end, err := l.list(ctx, at, atEnd)
		for err == nil && next < end && out.Since.IsZero() {
			var got fetched
			if got, err = l.fetch(ctx, at, next, pollWait); err == nil {
				next = got.next
				if len(got.records) > 0 {
					out.Since = got.records[0].Timestamp.UTC()
				}
			}
		}
		return err
	})
	switch {
	case errors.Is(err, errMissing):
		return AuditStart{}, nil
	case err != nil:
		return AuditStart{}, fmt.Errorf("read topic %s of cluster %s: %w", cfg.AuditTopic, cfg.Cluster.Alias(), err)
	}
	out.Retention = retention(ctx, cfg)
	return out, nil
}

// retention is how long the audit topic keeps events, zero if that may not be asked.
func retention(ctx context.Context, cfg Config) time.Duration {
	ms, err := strconv.ParseInt(settingsOf(ctx, cfg, cfg.AuditTopic)[retentionMs], 10, 64)
	switch {
	case err != nil:
		return 0
	case ms < 0 || ms > math.MaxInt64/int64(time.Millisecond):
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}
