package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"replicator/internal/status"
)

const (
	startTime = 20 * time.Second // for a child to say that it works
	urlTime   = time.Second      // more, for where it listens
	stopTime  = 12 * time.Second // for a clean stop
	askTime   = 2 * time.Second  // for a status
	keptLines = 12               // of a child's log
)

// child is a process of the demo's own: a daemon or a region. It can be started again
// after it was killed.
type child struct {
	name    string
	ready   string
	command []string
	fail    context.CancelCauseFunc

	mu      sync.Mutex
	process *process // the running one; nil: none
}

// process is one run of a child.
type process struct {
	cmd    *exec.Cmd
	log    *logReader
	wanted chan struct{} // closed when its end is our doing
	ended  chan struct{} // closed when it has ended
	err    error         // of its end, then
}

// newChild names a process; ready is the message of its log that says it works.
func newChild(name, ready string, command []string, fail context.CancelCauseFunc) *child {
	return &child{name: name, ready: ready, command: command, fail: fail}
}

// start starts the process and waits until it runs.
func (c *child) start(ctx context.Context) error {
	p := &process{cmd: exec.CommandContext(context.WithoutCancel(ctx), c.command[0], c.command[1:]...), log: newLogReader(c.ready), wanted: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = time.Second
	p.cmd.Env = cleanEnvironment()
	bindToParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
		select {
		case <-p.wanted:
		default:
			c.fail(fmt.Errorf("%s (pid %d) ended by itself: %s\n%s", c.name, p.cmd.Process.Pid, p.cmd.ProcessState, p.log.tail()))
		}
	}()
	c.mu.Lock()
	c.process = p
	c.mu.Unlock()

	patience, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select {
	case <-p.log.running:
		// Not worth failing for: the proof does not need what it says there.
		soon, cancel := context.WithTimeout(ctx, urlTime)
		defer cancel()
		select {
		case <-p.log.listens:
		case <-soon.Done():
		}
		return nil
	case <-p.ended:
		return fmt.Errorf("start %s: it ended at once: %s\n%s", c.name, p.cmd.ProcessState, p.log.tail())
	case <-patience.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("start %s: it does not work after %s\n%s", c.name, startTime, p.log.tail())
	}
}

func (c *child) current() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

func (c *child) pid() int {
	if p := c.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// url is where the daemon answers; empty: nowhere.
func (c *child) url() string {
	if p := c.current(); p != nil {
		return p.log.url()
	}
	return ""
}

// kill ends the process as a power cut would, and waits for its end. It fails if
// there was nothing left to kill.
func (c *child) kill() error {
	p := c.let()
	if p == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	<-p.ended
	if errors.Is(err, os.ErrProcessDone) || err == nil && p.cmd.ProcessState.Exited() {
		return fmt.Errorf("kill %s: it had ended before: %s\n%s", c.name, p.cmd.ProcessState, p.log.tail())
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	return nil
}

// stop asks the process to end and waits until it has; it must do so cleanly.
func (c *child) stop(ctx context.Context) error {
	p := c.let()
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = p.cmd.Process.Kill() // where there is no such signal, or no process any more
	}
	patience, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("stop %s: %w\n%s", c.name, p.err, p.log.tail())
		}
		return nil
	case <-patience.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("stop %s: it goes on after %s\n%s", c.name, stopTime, p.log.tail())
	}
}

// freeze stops the process where it is, as a suspended virtual machine or a long
// pause does; thaw lets it go on.
func (c *child) freeze() error { return c.signal("freeze", suspend) }
func (c *child) thaw() error   { return c.signal("wake", unsuspend) }

func (c *child) signal(what string, send func(*os.Process) error) error {
	p := c.current()
	if p == nil {
		return fmt.Errorf("%s %s: it does not run", what, c.name)
	}
	if err := send(p.cmd.Process); err != nil {
		return fmt.Errorf("%s %s: %w", what, c.name, err)
	}
	return nil
}

// let takes the process out: its end is no surprise from here on.
func (c *child) let() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.process
	if p != nil {
		close(p.wanted)
	}
	c.process = nil
	return p
}

// ask takes the status of the running process; false: it does not answer.
func (c *child) ask(ctx context.Context) (s status.Status, ok bool) {
	url := c.url()
	if url == "" {
		return s, false
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/status", nil)
	if err != nil {
		return s, false
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&s) != nil {
		return s, false
	}
	return s, true
}

// logReader reads a child's log: that it works, where it listens, and the last
// lines for when it fails.
type logReader struct {
	ready   string
	running chan struct{} // closed when it has said that it works
	listens chan struct{} // closed when it has said where it listens

	mu      sync.Mutex
	rest    []byte
	lines   []string
	address string
	works   bool
}

func newLogReader(ready string) *logReader {
	return &logReader{ready: ready, running: make(chan struct{}), listens: make(chan struct{})}
}

func (r *logReader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, b...)
	for {
		line, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		r.line(string(line))
		r.rest = rest
	}
}

func (r *logReader) line(text string) {
	if len(r.lines) == keptLines {
		r.lines = r.lines[1:]
	}
	r.lines = append(r.lines, text)
	var entry struct {
		Message string `json:"msg"`
		URL     string `json:"url"`
	}
	if json.Unmarshal([]byte(text), &entry) != nil {
		return // what a crash prints is no JSON
	}
	if entry.Message == "listening" && entry.URL != "" && r.address == "" {
		r.address = entry.URL
		close(r.listens)
	}
	if entry.Message == r.ready && !r.works {
		r.works = true
		close(r.running)
	}
}

func (r *logReader) url() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.address
}

func (r *logReader) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := slices.Clone(r.lines)
	if len(r.rest) > 0 {
		lines = append(lines, string(r.rest))
	}
	if len(lines) == 0 {
		return "it said nothing"
	}
	return "its last lines:\n  " + strings.Join(lines, "\n  ")
}
