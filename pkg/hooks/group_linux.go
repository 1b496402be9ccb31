package hooks

import (
	"errors"

	"golang.org/x/sys/unix"
)

// awaitEnd returns true when a child has ended and still has its number.
func awaitEnd(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}
