//go:build !unix

package rusage

import "time"

// CPU is 0: it cannot be had here.
func CPU() time.Duration { return 0 }

// ResetPeak does nothing.
func ResetPeak() {}

// PeakMemory is 0: it cannot be had here.
func PeakMemory() int64 { return 0 }
