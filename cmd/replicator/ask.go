package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// ask puts a question that only yes answers with yes. It ends with ctx, too: the reading of
// a terminal does not hear of an interrupt.
func ask(ctx context.Context, in io.Reader, out io.Writer, question string) (bool, error) {
	type answer struct {
		line string
		err  error
	}
	fmt.Fprintf(out, "%s [y/N] ", question)
	got := make(chan answer, 1)
	go func() { // ends with the process if nobody answers
		line, err := bufio.NewReader(in).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case a := <-got:
		if a.err != nil && a.line == "" {
			return false, fmt.Errorf("read answer: %w", a.err)
		}
		said := strings.ToLower(strings.TrimSpace(a.line))
		return said == "y" || said == "yes", nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// timeLimit is a context that ends after a time, which does not run while an operator is
// asked, and begins anew behind the answer.
type timeLimit struct {
	context.Context // of the command: ends with an interrupt
	limit           time.Duration
	timer           *time.Timer
	done            chan struct{}
	mu              sync.Mutex
	deadline        time.Time
	err             error
}

func newTimeLimit(parent context.Context, limit time.Duration) (*timeLimit, context.CancelFunc) {
	l := &timeLimit{Context: parent, limit: limit, done: make(chan struct{}), deadline: time.Now().Add(limit)}
	l.timer = time.AfterFunc(limit, func() { l.end(context.DeadlineExceeded) })
	stop := context.AfterFunc(parent, func() { l.end(parent.Err()) })
	return l, func() {
		stop()
		l.end(context.Canceled)
	}
}

func (l *timeLimit) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.timer.Stop()
		l.err = err
		close(l.done)
	}
}

// ask is as ask, outside of the time.
func (l *timeLimit) ask(in io.Reader, out io.Writer, question string) (bool, error) {
	l.timer.Stop()
	yes, err := ask(l, in, out, question)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.deadline = time.Now().Add(l.limit)
		l.timer.Reset(l.limit)
	}
	return yes, err
}

// Deadline is when the time is over as things are: a question puts it off.
func (l *timeLimit) Deadline() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline, true
}

// Done is closed at the end of the time or of the command.
func (l *timeLimit) Done() <-chan struct{} { return l.done }

// Err says which of them it was.
func (l *timeLimit) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
