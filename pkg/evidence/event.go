package evidence

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// MaxEventBytes bounds an encoded event: a topic with Kafka's default max.message.bytes takes it.
const MaxEventBytes = 900_000

// Event is one fact of a run.
type Event struct {
	Run  string          `json:"run"`
	Seq  int             `json:"seq"` // from 1, without holes
	Time time.Time       `json:"time"`
	Kind Kind            `json:"kind"`
	Step string          `json:"step,omitempty"`  // of the run's plan
	Part int             `json:"part,omitempty"`  // from 1, where the rows of a document are more than one event takes
	Of   int             `json:"parts,omitempty"` // how many parts there are
	Data json.RawMessage `json:"data"`            // the document that Kind names
	Prev string          `json:"prev"`            // hash of the event before
	Hash string          `json:"hash,omitempty"`
}

// runs are ids: verb, time, four or more random digits. They are names of directories.
var runs = regexp.MustCompile(`^[a-z][a-z-]{0,30}-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4,16}$`)

// ErrRun tells that a text is no run's id.
var ErrRun = errors.New("want a run's id as switchover-20261126T184501Z-3f9a")

// NewRun makes the id of a run that begins now.
func NewRun(verb string, now time.Time) string {
	var random [2]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	return verb + "-" + now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(random[:])
}

// CheckRun returns an error if a text is no run's id.
func CheckRun(run string) error {
	if !runs.MatchString(run) {
		return fmt.Errorf("read run %.80q: %w", run, ErrRun)
	}
	return nil
}

// origin is what the first event of a run has as the hash before it.
func origin(run string) string { return digest([]byte(run)) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Encode writes an event in the one form that is hashed and kept: one line of JSON, without the
// line's end.
func (e Event) Encode() ([]byte, error) {
	line, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %d: %w", e.Seq, err)
	}
	return line, nil
}

// hash is that of an event's content.
func (e Event) hash() (string, error) {
	e.Hash = ""
	line, err := e.Encode()
	if err != nil {
		return "", err
	}
	return digest(line), nil
}

// ParseEvent reads what Encode wrote, and nothing else: the same event in other words has another
// hash. It does not look at the hash; a [Chain] does.
func ParseEvent(line []byte) (Event, error) {
	if len(line) > MaxEventBytes {
		return Event{}, fmt.Errorf("read event: %d bytes are more than the %d an event may have", len(line), MaxEventBytes)
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("read event: %w", err)
	}
	again, err := e.Encode()
	if err != nil {
		return Event{}, err
	}
	if !bytes.Equal(line, again) {
		return Event{}, errors.New("read event: it is not written as events are")
	}
	return e, nil
}

// Decode reads an event's document.
func Decode[T any](e Event) (T, error) {
	var doc T
	if err := json.Unmarshal(e.Data, &doc); err != nil {
		return doc, fmt.Errorf("read %s of event %d: %w", e.Kind, e.Seq, err)
	}
	return doc, nil
}
