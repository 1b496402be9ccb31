package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// A Process is a program started by this package. It never outlives the
// process that started it.
type Process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	done  chan struct{} // closed when the program has ended and was waited for
	asked atomic.Bool   // its end was asked for
}

// StartProcess runs a program whose stdout and stderr are appended to the log
// file.
//
// The parent-death signal belongs to the thread that forked, not to the
// process: the kernel would kill the child when that thread ends. So one
// goroutine keeps its thread for as long as the program runs, and the thread
// ends with it.
func StartProcess(name, log string, cmd *exec.Cmd) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	bindToParent(cmd)
	p := &Process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		_ = out.Close()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the outcome is in cmd.ProcessState
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// LogPath is the file with everything the process printed.
func (p *Process) LogPath() string { return p.log }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running tells whether the process has not ended yet; a paused one is running.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// State is the outcome with the CPU time used, nil while the process runs.
func (p *Process) State() *os.ProcessState {
	if p.Running() {
		return nil
	}
	return p.cmd.ProcessState
}

// Signal sends a signal without waiting for an effect.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s with %s: %w", p.name, s, err)
	}
	return nil
}

// Kill ends the process by SIGKILL and waits until it is gone. It does nothing
// to a process that has ended.
func (p *Process) Kill() {
	p.asked.Store(true)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop ends the process by SIGTERM and waits until it is gone. After the grace
// time it is killed and that is an error.
func (p *Process) Stop(grace time.Duration) error {
	p.asked.Store(true)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("stop %s: still running %s after SIGTERM, killed", p.name, grace)
	}
}

// crashed tells whether the process ended without being asked to.
func (p *Process) crashed() bool { return !p.Running() && !p.asked.Load() }

// Tail is the last n lines the process printed.
func (p *Process) Tail(n int) string { return tailFile(p.log, n) }

func tailFile(path string, n int) string {
	const enough = 64 << 10 // bytes from the end
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	size := int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	buf := make([]byte, min(size, enough))
	read, _ := f.ReadAt(buf, size-int64(len(buf)))
	return lastLines(buf[:read], n)
}
