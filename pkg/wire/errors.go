package wire

import (
	"errors"
	"fmt"
)

// ErrNotSent is in the error of every request of which no byte was handed to
// the operating system: the broker cannot have seen it. An error without it
// leaves open whether the broker did.
var ErrNotSent = errors.New("request was not sent")

// ErrClosed is why a connection ended on which Close was called.
var ErrClosed = errors.New("connection closed")

// ErrSendRefused is why a connection ended when SendBy of a produce request
// said no.
var ErrSendRefused = errors.New("sending was refused by its owner")

// ConnError says what failed on which connection.
type ConnError struct {
	Op     string // "read Fetch answer", "write Produce request", ...
	Broker int32
	Addr   string
	Err    error
}

func (e *ConnError) Error() string {
	if e.Broker < 0 {
		return fmt.Sprintf("%s, broker at %s: %v", e.Op, e.Addr, e.Err)
	}
	return fmt.Sprintf("%s, broker %d at %s: %v", e.Op, e.Broker, e.Addr, e.Err)
}

func (e *ConnError) Unwrap() error { return e.Err }

// notSentError is an error that is also ErrNotSent.
type notSentError struct{ err error }

func (e *notSentError) Error() string        { return e.err.Error() + " (" + ErrNotSent.Error() + ")" }
func (e *notSentError) Unwrap() error        { return e.err }
func (e *notSentError) Is(target error) bool { return target == ErrNotSent }
