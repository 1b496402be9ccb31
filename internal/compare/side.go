package compare

import (
	"context"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

// side is one partition of one cluster as the lockstep sees it: a stream of
// entries with a bounded look ahead. A goroutine of the comparison reads one
// fetch answer ahead of it.
type side struct {
	in       <-chan []*kgo.Record // closed at the end of the partition
	entries  []entry              // looked at, not yet taken
	bytes    int                  // of keys and values in entries
	done     bool                 // nothing comes after entries
	scratch  []byte
	read     int64 // records taken
	checksum sum
}

func newSide(in <-chan []*kgo.Record) *side { return &side{in: in, checksum: newSum()} }

// more reads the next answer into entries. It returns false at the end.
func (s *side) more(ctx context.Context) (bool, error) {
	if s.done {
		return false, nil
	}
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case records, ok := <-s.in:
		if !ok {
			s.done = true
			return false, nil
		}
		for _, r := range records {
			s.scratch = canonical(s.scratch[:0], r)
			s.entries = append(s.entries, entry{r, xxhash.Sum64(s.scratch)})
			s.bytes += len(r.Key) + len(r.Value)
		}
		return true, nil
	}
}

// fill looks ahead until there are n entries, the byte limit is passed, or the
// partition ends.
func (s *side) fill(ctx context.Context, n, limit int) error {
	for len(s.entries) < n && (s.bytes < limit || len(s.entries) == 0) {
		ok, err := s.more(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
	}
	return nil
}

// take removes the first n entries and returns them; they are valid until the
// next look ahead.
func (s *side) take(n int) []entry {
	out := s.entries[:n]
	for _, e := range out {
		s.checksum.add(e.hash)
		s.bytes -= len(e.record.Key) + len(e.record.Value)
	}
	s.drop(n)
	return out
}

// skip removes the first n entries without putting them into the checksum.
func (s *side) skip(n int) {
	for _, e := range s.entries[:n] {
		s.bytes -= len(e.record.Key) + len(e.record.Value)
	}
	s.drop(n)
}

func (s *side) drop(n int) {
	s.read += int64(n)
	s.entries = s.entries[n:]
	if len(s.entries) == 0 {
		s.entries = nil
	}
}
