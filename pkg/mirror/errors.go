package mirror

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// baseOffsetError says that the target partition does not end where the lane
// left it: somebody else wrote, or the log lost its tail.
type baseOffsetError struct{ want, got int64 }

func (e *baseOffsetError) Error() string {
	return fmt.Sprintf("target partition ends at offset %d, the lane left it at %d", e.got, e.want)
}

// errEpochAge opens a lane once a day: its transactional id would expire under a
// healthy writer, and the next opener would fence nobody.
var errEpochAge = errors.New("epoch is taken anew at its regular interval")

// errSequence opens a lane before its sequence numbers run out.
var errSequence = errors.New("sequence numbers begin again")

// brokerError adds what the broker said to its error code.
type brokerError struct {
	err     error
	message string
}

func (e *brokerError) Error() string { return e.err.Error() + " (" + e.message + ")" }
func (e *brokerError) Unwrap() error { return e.err }

// hintError adds what the operator can do.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() + "; " + e.hint }
func (e *hintError) Unwrap() error { return e.err }

// backoff is a random time between half of and the whole of base doubled for
// every failure, at most limit.
func backoff(failures int, base, limit time.Duration) time.Duration {
	d := min(limit, base<<min(max(failures, 0), 16))
	return d/2 + rand.N(d/2+1)
}

// jitter is a random part of n.
func jitter(n int64) int64 { return rand.Int64N(n + 1) }
