package kafkatest

import (
	"os/exec"
	"syscall"
)

// bindToParent has the kernel kill the program when its parent is gone. A
// process group of its own keeps a Ctrl-C in the terminal from the brokers, so
// that they are stopped in order.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
