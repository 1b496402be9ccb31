package verify

import (
	"context"
	"errors"

	"github.com/cespare/xxhash/v2"

	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// record is what is kept of a record: hashes of its parts.
type record struct {
	offset, timestamp   int64
	key, value, headers uint64
	tombstone           bool // has no value
}

const noBytes = 0x6e756c6c // stands for a key or value that is null, which is not an empty one

func hash(b []byte) uint64 {
	if b == nil {
		return noBytes
	}
	return xxhash.Sum64(b)
}

// side is the records of one side of a lane, in order. A batch stays closed until
// somebody asks for its records.
type side struct {
	in     <-chan answer
	frame  *wire.Frame // being read, nil none
	rest   []byte      // of it
	filter wire.AbortedFilter
	opener *wire.Opener

	next, to int64 // offsets: what is to come, and the end
	start    int64 // first offset the log still holds, as last seen
	end      int64 // high watermark, as last seen
	bytes    int64 // read
	ended    bool  // nothing is to come

	batch  []byte         // closed, nil none
	writer offsets.Writer // of the batch, or of the records
	// aborted: they are of a transaction that was aborted. The source's are passed over.
	aborted     bool
	keepAborted bool
	opened      []record
	at          int // in opened
}

// has reports whether a record lies open.
func (s *side) has() bool { return s.at < len(s.opened) }

// fill makes sure that a batch or records are there. It reports false at the end.
func (s *side) fill(ctx context.Context) (bool, error) {
	for !s.has() && s.batch == nil {
		s.opened, s.at = s.opened[:0], 0
		if s.ended || s.next >= s.to {
			s.release()
			s.ended = true
			return false, nil
		}
		entry, rest, err := wire.Split(s.rest)
		if errors.Is(err, wire.ErrPartial) {
			if err := s.receive(ctx); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, err
		}
		s.rest = rest
		if err := s.look(entry); err != nil {
			return false, err
		}
	}
	return true, nil
}

// receive takes the next answer.
func (s *side) receive(ctx context.Context) error {
	s.release()
	select {
	case a, ok := <-s.in:
		if !ok {
			s.ended = true
			return nil
		}
		s.frame, s.rest = a.frame, a.records
		s.bytes += int64(len(a.records))
		s.start, s.end = max(s.start, a.start), max(s.end, a.end)
		s.next = max(s.next, s.start) // a batch may begin below it: no reader sees that part
		s.filter.Reset(a.aborted)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look keeps an entry, or passes over it where a reader would.
func (s *side) look(entry []byte) error {
	next, first := wire.NextOffset(entry), int64(-1)
	s.writer, s.aborted = offsets.Writer{ProducerID: -1, Epoch: -1}, false
	if wire.Magic(entry) == 2 {
		b := wire.Batch(entry)
		if err := b.Verify(); err != nil {
			return err
		}
		first = b.BaseOffset()
		s.writer = offsets.Writer{ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch()}
		s.aborted = s.filter.Aborted(b)
		if s.aborted && !s.keepAborted || b.IsControl() || b.RecordCount() == 0 {
			s.next = max(s.next, next)
			return nil
		}
	}
	switch {
	case next <= s.next:
	case first >= s.to:
		s.next = s.to
	default:
		s.batch = entry
	}
	return nil
}

// whole returns the closed batch if all of its offsets are asked for.
func (s *side) whole() (wire.Batch, bool) {
	if s.has() || s.batch == nil || wire.Magic(s.batch) != 2 {
		return nil, false
	}
	b := wire.Batch(s.batch)
	return b, b.BaseOffset() >= s.next && b.NextOffset() <= s.to
}

// pass goes on behind the closed batch.
func (s *side) pass() {
	s.next, s.batch = wire.NextOffset(s.batch), nil
}

// open opens the closed batch, if there is one.
func (s *side) open() error {
	if s.batch == nil || s.has() {
		return nil
	}
	s.opened, s.at = s.opened[:0], 0
	err := s.opener.Records(s.batch, s.next, func(r wire.Record) {
		if r.Offset >= s.to {
			return
		}
		key, value, headers := r.Parts()
		s.opened = append(s.opened, record{
			offset: r.Offset, timestamp: r.Timestamp, key: hash(key), value: hash(value), headers: hash(headers), tombstone: value == nil,
		})
	})
	if err == nil {
		s.pass()
	}
	return err
}

// release gives the frame back. Nothing that lies in it is used afterwards.
func (s *side) release() {
	if s.frame != nil {
		s.frame.Release()
	}
	s.frame, s.rest = nil, nil
}
