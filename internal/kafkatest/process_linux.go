package kafkatest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// bindToParent has the kernel kill the program when its parent is gone. A
// process group of its own keeps a Ctrl-C in the terminal from the brokers, so
// that they are stopped in order.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// awaitStop returns when every thread of a process that was sent SIGSTOP stands
// still: the signal is sent before they do, and one of many may go on for a moment.
func awaitStop(pid int) error {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if standsStill(pid) {
			return nil
		}
	}
	return fmt.Errorf("stop process %d: it still runs after 5 s", pid)
}

func standsStill(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		// proc(5): the state follows the name, which is in parentheses.
		if rest := stat[bytes.LastIndexByte(stat, ')')+1:]; len(rest) < 2 || rest[1] != 'T' {
			return false
		}
	}
	return true
}
