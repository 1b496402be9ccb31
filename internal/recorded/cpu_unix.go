//go:build unix

package recorded

import (
	"syscall"
	"time"
)

// CPUTime is what this process has used so far, in user's and kernel's time; 0
// where it cannot be had.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
