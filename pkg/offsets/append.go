package offsets

import (
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	maxPendingBytes = 64 << 20 // of entries appended and not yet answered
	entryOverhead   = 256      // counted for each entry beside its bytes
	maxRuns         = 8192     // spans in one record; more are cut into several
)

// Append writes entries. done runs exactly once, when all are acknowledged by all in-sync
// replicas or one has failed, on a goroutine of the journal's or, when the journal refuses at
// once ([ErrFull], [ErrReadOnly], an impossible entry, closed), before Append returns; it must not block. An
// entry of a failed append may still be written.
//
// Entries of one lane are written in the order given. Append takes no part in the journal's Err,
// unless the topic is gone: lanes that are open may go on when an entry of another one cannot be
// read.
func (j *Journal) Append(done func(error), entries ...Entry) {
	records, facts, size, err := j.records(entries)
	if err == nil && j.pending.Add(size) > maxPendingBytes {
		j.pending.Add(-size)
		err = ErrFull
	}
	if err != nil || len(records) == 0 {
		done(err)
		return
	}
	c := commit{open: len(records), done: func(err error) {
		j.pending.Add(-size)
		switch {
		case err == nil:
			j.learn(facts)
		case j.ctx.Err() != nil:
			err = ErrClosed
		default:
			err = fmt.Errorf("append to journal %s: %w", j.cfg.Topic, right(err, "WRITE", j.cfg.Topic))
		}
		done(err)
	}}
	for _, r := range records {
		j.client.TryProduce(j.ctx, r, c.answered)
	}
}

// learn takes in facts that were acknowledged before the reader comes past them, so that a
// lane's State has the spans of every record that was sent. The reader takes them in again, which
// changes nothing. That is not so of what a newer entry replaces, or removes: that is left to it.
func (j *Journal) learn(facts []Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.usable() != nil {
		return
	}
	for _, e := range facts {
		j.lane(e.Key().Lane).apply(e)
	}
}

// records encodes entries, and counts their bytes. facts are those of them that never change.
func (j *Journal) records(entries []Entry) (records []*kgo.Record, facts []Entry, size int64, err error) {
	j.mu.Lock()
	closed, lost := j.closed, j.lost
	err = j.err
	j.mu.Unlock()
	if closed {
		return nil, nil, 0, ErrClosed
	}
	if j.cfg.ReadOnly {
		return nil, nil, 0, ErrReadOnly
	}
	if lost {
		return nil, nil, 0, err
	}
	for _, e := range entries {
		if fault := check(e); fault != "" {
			k := e.Key()
			return nil, nil, 0, fmt.Errorf("append to journal %s: %v of %v, writer %v: %s", j.cfg.Topic, k.Kind, k.Lane, k.Writer, fault)
		}
		for _, part := range split(e) {
			key, value := EncodeEntry(part)
			records = append(records, &kgo.Record{
				Topic: j.cfg.Topic, Partition: j.Partition(part.Key().Lane), Key: key, Value: value,
			})
			size += int64(len(key) + len(value) + entryOverhead)
			switch part.(type) {
			case EpochRecord, Spans, Gap, Shift, Shifts, Cut, Generation:
				facts = append(facts, part)
			}
		}
	}
	return records, facts, size, nil
}

// split cuts spans that would make a very large record. Merged spans are one fact and stay whole.
func split(e Entry) []Entry {
	s, ok := e.(Spans)
	if !ok || s.Merged || len(s.Runs) <= maxRuns {
		return []Entry{e}
	}
	var parts []Entry
	for runs := s.Runs; len(runs) > 0; runs = runs[min(maxRuns, len(runs)):] {
		part := s
		part.Runs = runs[:min(maxRuns, len(runs))]
		parts = append(parts, part)
	}
	return parts
}

// commit counts the answers to the records of one append.
type commit struct {
	mu   sync.Mutex
	open int
	err  error
	done func(error)
}

func (c *commit) answered(_ *kgo.Record, err error) {
	c.mu.Lock()
	c.open--
	if c.err == nil {
		c.err = err
	}
	last := c.open == 0
	err = c.err
	c.mu.Unlock()
	if last {
		c.done(err)
	}
}
