package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A reading is what a process has used until now.
type reading struct {
	CPU  time.Duration // user and system time of all its threads, ended ones too
	RSS  int64         // resident bytes now
	Peak int64         // resident bytes at most, since its start
}

// usage reads a process. Its CPU clock counts nanoseconds; /proc/PID/stat has
// hundredths of a second.
func usage(pid int) (reading, error) {
	var at unix.Timespec
	// The clock id of a process, see clock_getcpuclockid(3).
	if err := unix.ClockGettime(int32(^pid<<3|2), &at); err != nil {
		return reading{}, fmt.Errorf("read CPU clock of process %d: %w", pid, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return reading{}, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	r := reading{CPU: time.Duration(at.Nano())}
	r.RSS, r.Peak, err = parseStatus(string(status))
	if err != nil {
		return reading{}, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return r, nil
}

// parseStatus takes resident bytes, now and at most, out of /proc/PID/status.
func parseStatus(text string) (rss, peak int64, err error) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		var to *int64
		switch key {
		case "VmRSS":
			to = &rss
		case "VmHWM":
			to = &peak
		default:
			continue
		}
		kib, found := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseInt(kib, 10, 64)
		if !found || err != nil {
			return 0, 0, fmt.Errorf("parse %q", strings.TrimSpace(line))
		}
		*to = n << 10
	}
	if rss == 0 || peak == 0 {
		return 0, 0, errors.New("no VmRSS or VmHWM: the process has ended")
	}
	return rss, peak, nil
}
