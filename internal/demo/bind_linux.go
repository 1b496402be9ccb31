package demo

import (
	"os/exec"
	"syscall"
)

// bindToParent has the kernel kill the process when its parent is gone, however
// that came. A process group of its own keeps a Ctrl-C in the terminal from it:
// the demo ends its daemons itself.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
