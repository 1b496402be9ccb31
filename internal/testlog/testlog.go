// Package testlog is a logger for tests whose code has goroutines that nobody can wait for.
package testlog

import (
	"bytes"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// New is a logger that writes to a test's log until the test has ended, from a level on
// (default: debug). Connections of a Kafka client that are under way when it is closed still
// log behind that; testing takes a line behind a test's end for a fault and panics.
func New(t testing.TB, level ...zapcore.Level) *zap.Logger {
	from := zap.DebugLevel
	if len(level) > 0 {
		from = level[0]
	}
	w := &writer{t: t}
	t.Cleanup(w.end) // runs behind what is registered later, so behind the end of whoever logs here
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), w, from))
}

type writer struct {
	mu sync.Mutex
	t  testing.TB // nil: it has ended
}

func (w *writer) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}

// Write is called by the logger, a line at a time.
func (w *writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimRight(line, "\n"))
	}
	return len(line), nil
}

// Sync does nothing.
func (w *writer) Sync() error { return nil }
