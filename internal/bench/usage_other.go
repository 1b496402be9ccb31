//go:build !unix

package bench

import "time"

func cpuTime() time.Duration { return 0 }

func resetPeak() {}

func peakMemory() int64 { return 0 }
