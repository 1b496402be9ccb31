package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

var errNoFaketime = errors.New("libfaketime is not there, which moves the clock of a broker (Debian: apt-get install faketime)")

// faketimeLibrary is what is loaded into a JVM to move its clock.
func faketimeLibrary() (string, error) {
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errNoFaketime
}

// clock is the wall clock of a cluster's brokers, moved by what a file says. Their
// monotonic clocks are the machine's.
type clock struct {
	library string
	file    string
}

func (c *Cluster) newClock() (*clock, error) {
	library, err := faketimeLibrary()
	if err != nil {
		return nil, err
	}
	k := &clock{library: library, file: c.home.path("clock")}
	if err := k.move(0); err != nil {
		return nil, err
	}
	return k, nil
}

// env is the environment of a JVM with this clock.
func (k *clock) env() []string {
	if k == nil {
		return nil
	}
	return []string{
		"LD_PRELOAD=" + k.library,
		"FAKETIME_TIMESTAMP_FILE=" + k.file, "FAKETIME_NO_CACHE=1", // it may be moved at any time
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1",
		// The JVM waits by the monotonic clock. With the fix such a wait ends at once.
		"FAKETIME_FORCE_MONOTONIC_FIX=0",
	}
}

func (k *clock) move(ahead time.Duration) error {
	next := k.file + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+fs\n", ahead.Seconds()), 0o600); err != nil {
		return fmt.Errorf("move clock: %w", err)
	}
	if err := os.Rename(next, k.file); err != nil { // a broker reads it at any time
		return fmt.Errorf("move clock: %w", err)
	}
	return nil
}

// MoveClock puts the wall clock of all brokers ahead of the machine's, or behind it. The
// cluster has to have a [Config.MovableClock].
func (c *Cluster) MoveClock(ahead time.Duration) error {
	if c.clock == nil {
		return errors.New("move clock: the cluster's is the machine's")
	}
	return c.clock.move(ahead)
}
