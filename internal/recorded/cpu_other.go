//go:build !unix

package recorded

import "time"

// CPUTime is 0: it cannot be had here.
func CPUTime() time.Duration { return 0 }
