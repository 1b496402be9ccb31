//go:build unix

package hooks

import (
	"os/exec"
	"sync"
	"syscall"
)

// group is the process group of a command.
type group struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	ended bool // the group's number may belong to somebody else from now on
}

func newGroup(cmd *exec.Cmd) *group {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &group{cmd: cmd}
}

func (g *group) terminate() { g.signal(syscall.SIGTERM) }
func (g *group) kill()      { g.signal(syscall.SIGKILL) }

// signal reaches all of the group. That none is left is no failure.
func (g *group) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		_ = syscall.Kill(-g.cmd.Process.Pid, s)
	}
}

// killLeftovers waits for the end of the command where that can be awaited without
// taking its exit status: until then its number is nobody else's.
func (g *group) killLeftovers() {
	if !awaitEnd(g.cmd.Process.Pid) {
		return
	}
	g.kill()
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
}
