//go:build unix && !race

package mirror

import (
	"runtime"
	"testing"
	"time"

	"replicator/internal/recorded"
)

// In steady state a link allocates nothing for a batch, forwarded or repacked, but
// some lists now and then, and some hundreds of things a second for the journal
// and the group. The limits are several times what was measured; one allocation
// for every batch is beyond them.
func TestALinkAllocatesByTimeAndNotByBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("copies for some seconds")
	}
	const lanes, perBatch, perSecond = 4, 0.25, 1000
	for _, log := range []string{recorded.Named(recorded.Medium, "lz4"), recorded.Named(recorded.Medium, "none")} {
		t.Run(log, func(t *testing.T) {
			l := startBenchLink(t, log, lanes)
			defer l.stop()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			n := l.copied(t, 20_000)
			runtime.ReadMemStats(&after)
			took := time.Since(began).Seconds()
			l.steady(t)
			allocs := float64(after.Mallocs - before.Mallocs)
			t.Logf("%.0f allocations for %d batches in %.2f s", allocs, n, took)
			if allowed := perBatch*float64(n) + perSecond*took; allocs > allowed {
				t.Errorf("%.0f allocations for %d batches in %.2f s, allowed %.0f", allocs, n, took, allowed)
			}
		})
	}
}
