//go:build unix

package evidence

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock keeps other commands off the events of a run that is being written.
func lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
