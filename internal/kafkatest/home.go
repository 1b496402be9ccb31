package kafkatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// TempDir makes a directory for files of a process that works with clusters. Until
// remove is called nobody touches it; if the process is killed before, it goes away
// with the next cluster or TempDir that is made.
func TempDir(name string) (dir string, remove func(), err error) {
	h, err := newHome(name)
	if err != nil {
		return "", nil, err
	}
	return h.dir, h.close, nil
}

// A home is the directory of one cluster. Its owner holds a lock on it; a home
// nobody holds was left by a process that was killed, and goes away when the
// next home is made.
type home struct {
	dir  string
	lock *os.File
}

func newHome(name string) (*home, error) {
	base := filepath.Join(os.TempDir(), fmt.Sprintf("replicator-kafka-%d", os.Getuid()))
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("make a cluster's directory: %w", err)
	}
	// Under this lock no home exists without its own lock being held.
	unlock, err := lockFile(filepath.Join(base, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", base, err)
	}
	defer unlock()
	sweep(base)
	dir, err := os.MkdirTemp(base, name+"-*")
	if err != nil {
		return nil, fmt.Errorf("make a cluster's directory: %w", err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, fmt.Errorf("lock a cluster's directory: %w", err)
	}
	return &home{dir: dir, lock: lock}, nil
}

// sweep removes the homes that nobody holds. What cannot be removed stays for
// the next time.
func sweep(base string) {
	locks, _ := filepath.Glob(filepath.Join(base, "*.lock"))
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(strings.TrimSuffix(path, ".lock"))
			_ = os.Remove(path)
		}
		_ = f.Close()
	}
}

func (h *home) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

func (h *home) close() {
	if os.Getenv("KAFKATEST_KEEP") != "" {
		// Without its lock file a later sweep does not see it.
		_ = os.Remove(h.lock.Name())
	} else {
		_ = os.RemoveAll(h.dir)
		_ = os.Remove(h.lock.Name())
	}
	_ = h.lock.Close()
}
