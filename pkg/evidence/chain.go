package evidence

import (
	"encoding/json"
	"fmt"
	"time"
)

// Chain makes the events of one run and knows the last one. It is not safe for use by several
// goroutines.
type Chain struct {
	run  string
	seq  int
	head string
	now  func() time.Time
}

// NewChain begins a run's chain.
func NewChain(run string) *Chain { return &Chain{run: run, head: origin(run), now: time.Now} }

// ResumeChain goes on behind events, which are all there are of the run, and are checked.
func ResumeChain(run string, events []Event) (*Chain, error) {
	c := NewChain(run)
	for i := range events {
		if err := c.Follow(events[i]); err != nil {
			return nil, fmt.Errorf("resume run %s: %w", run, err)
		}
	}
	return c, nil
}

// Head is the hash of the last event, or of the run's id while there is none.
func (c *Chain) Head() string { return c.head }

// Seq is the number of the last event, 0 while there is none.
func (c *Chain) Seq() int { return c.seq }

// Append makes the next event. data is the document that kind names.
func (c *Chain) Append(kind Kind, step string, data any) (Event, error) {
	return c.append(kind, step, 0, 0, data)
}

func (c *Chain) append(kind Kind, step string, part, of int, data any) (Event, error) {
	body, err := json.Marshal(data)
	if err != nil {
		return Event{}, fmt.Errorf("encode %s: %w", kind, err)
	}
	e := Event{
		Run: c.run, Seq: c.seq + 1, Time: c.now().UTC().Truncate(time.Millisecond), Kind: kind, Step: step, Part: part, Of: of, Data: body, Prev: c.head,
	}
	if e.Hash, err = e.hash(); err != nil {
		return Event{}, err
	}
	line, err := e.Encode()
	if err != nil {
		return Event{}, err
	}
	if len(line) > MaxEventBytes {
		return Event{}, fmt.Errorf("encode %s: %d bytes are more than the %d an event may have", kind, len(line), MaxEventBytes)
	}
	c.seq, c.head = e.Seq, e.Hash
	return e, nil
}

// Follow checks that an event is the next one, and takes it.
func (c *Chain) Follow(e Event) error {
	want := c.seq + 1
	switch {
	case e.Run != c.run:
		return fmt.Errorf("event %d is of run %.80q, not of %s", e.Seq, e.Run, c.run)
	case e.Seq > want:
		return fmt.Errorf("event %d follows event %d: what was between is missing, or stands elsewhere", e.Seq, c.seq)
	case e.Seq < want:
		return fmt.Errorf("event %d follows event %d: it stands in the wrong place, or twice", e.Seq, c.seq)
	}
	sum, err := e.hash()
	switch {
	case err != nil:
		return err
	case sum != e.Hash:
		return fmt.Errorf("event %d was changed: its content does not have its hash", e.Seq)
	case e.Prev != c.head:
		return fmt.Errorf("event %d follows another event %d than the one there is: one of them was written anew", e.Seq, c.seq)
	}
	c.seq, c.head = e.Seq, e.Hash
	return nil
}
