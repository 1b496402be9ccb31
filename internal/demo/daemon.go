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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"replicator/internal/status"

	"replicator/internal/config"
	"replicator/pkg/cluster"
)

const (
	startTime = 20 * time.Second // for a daemon to say that it copies
	urlTime   = time.Second      // more, for where it listens
	stopTime  = 12 * time.Second // for a clean stop
	askTime   = 2 * time.Second  // for a status
	keptLines = 12               // of a daemon's log
)

// daemon is a replicator in a process of its own. It can be started again after
// it was killed.
type daemon struct {
	name    string
	command []string
	fail    context.CancelCauseFunc

	mu       sync.Mutex
	process  *process        // the running one; nil: none
	statuses []status.Status // the last of every process there was
}

// process is one run of a daemon.
type process struct {
	cmd    *exec.Cmd
	log    *logReader
	wanted chan struct{} // closed when its end is our doing
	ended  chan struct{} // closed when it has ended
	err    error         // of its end, then
}

// newDaemon writes the configuration file of a daemon.
func newDaemon(name, dir string, command, source, target []string, fail context.CancelCauseFunc) (*daemon, error) {
	cfg := config.Default()
	cfg.Instance = "demo-" + name
	cfg.HTTP.Listen = "127.0.0.1:0"
	east, west := cluster.DefaultConfig(), cluster.DefaultConfig()
	east.BootstrapServers, east.ClusterID = source, "demo-east"
	west.BootstrapServers, west.ClusterID = target, "demo-west"
	cfg.Clusters = map[string]cluster.Config{"east": east, "west": west}
	link := config.DefaultLink()
	link.From, link.To = "east", "west"
	link.SessionTimeout = sessionTimeout
	for _, t := range topics {
		link.Topics = append(link.Topics, t.name)
	}
	cfg.Links = []config.Link{link}
	text, err := config.Show(&cfg)
	if err != nil {
		return nil, fmt.Errorf("write configuration of daemon %s: %w", name, err)
	}
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("write configuration of daemon %s: %w", name, err)
	}
	return &daemon{name: name, command: append(slices.Clone(command), file), fail: fail}, nil
}

// start starts the process and waits until it runs.
func (d *daemon) start(ctx context.Context) error {
	p := &process{cmd: exec.CommandContext(context.WithoutCancel(ctx), d.command[0], d.command[1:]...), log: newLogReader(), wanted: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = time.Second
	// The user's own replicator settings are not meant for this one.
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	bindToParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start daemon %s: %w", d.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
		select {
		case <-p.wanted:
		default:
			d.fail(fmt.Errorf("daemon %s (pid %d) ended by itself: %s\n%s", d.name, p.cmd.Process.Pid, p.cmd.ProcessState, p.log.tail()))
		}
	}()
	d.mu.Lock()
	d.process = p
	d.mu.Unlock()

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
		return fmt.Errorf("start daemon %s: it ended at once: %s\n%s", d.name, p.cmd.ProcessState, p.log.tail())
	case <-patience.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("start daemon %s: it does not copy after %s\n%s", d.name, startTime, p.log.tail())
	}
}

func (d *daemon) current() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.process
}

func (d *daemon) pid() int {
	if p := d.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// url is where the daemon answers; empty: nowhere.
func (d *daemon) url() string {
	if p := d.current(); p != nil {
		return p.log.url()
	}
	return ""
}

// kill ends the process as a power cut would, and waits for its end. It fails if
// there was nothing left to kill.
func (d *daemon) kill() error {
	p := d.let()
	if p == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	<-p.ended
	if errors.Is(err, os.ErrProcessDone) || err == nil && p.cmd.ProcessState.Exited() {
		return fmt.Errorf("kill daemon %s: it had ended before: %s\n%s", d.name, p.cmd.ProcessState, p.log.tail())
	}
	if err != nil {
		return fmt.Errorf("kill daemon %s: %w", d.name, err)
	}
	return nil
}

// stop asks the process to end and waits until it has; it must do so cleanly.
func (d *daemon) stop(ctx context.Context) error {
	p := d.let()
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
			return fmt.Errorf("stop daemon %s: %w\n%s", d.name, p.err, p.log.tail())
		}
		return nil
	case <-patience.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("stop daemon %s: it goes on after %s\n%s", d.name, stopTime, p.log.tail())
	}
}

// let takes the process out: its end is no surprise from here on.
func (d *daemon) let() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.process
	if p != nil {
		close(p.wanted)
	}
	d.process = nil
	return p
}

// lastWords keeps the status of a process that is about to end, and returns it.
// A daemon that does not answer just leaves no counts.
func (d *daemon) lastWords(ctx context.Context) (status.Status, bool) {
	s, ok := d.ask(ctx)
	if ok {
		d.mu.Lock()
		d.statuses = append(d.statuses, s)
		d.mu.Unlock()
	}
	return s, ok
}

// ask takes the status of the running process; false: it does not answer.
func (d *daemon) ask(ctx context.Context) (s status.Status, ok bool) {
	url := d.url()
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

// logReader reads a daemon's log: that it runs, where it listens, and the last
// lines for when it fails.
type logReader struct {
	running chan struct{} // closed when it copies
	listens chan struct{} // closed when it has said where it listens

	mu      sync.Mutex
	rest    []byte
	lines   []string
	address string
	copies  bool
}

func newLogReader() *logReader {
	return &logReader{running: make(chan struct{}), listens: make(chan struct{})}
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
	switch {
	case entry.Message == "listening" && entry.URL != "" && r.address == "":
		r.address = entry.URL
		close(r.listens)
	case entry.Message == "copying" && !r.copies:
		r.copies = true
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
