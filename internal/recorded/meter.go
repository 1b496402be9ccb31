package recorded

import (
	"runtime"
	"testing"
)

// Meter measures what a batch costs in a benchmark, where one iteration handles
// many of them.
type Meter struct {
	b       *testing.B
	mallocs uint64
}

// Start begins to measure; the next thing is the benchmark's loop. bytes are
// those of the batches of one iteration, on the wire; 0 where their contents are
// not looked at, so that a speed would say nothing.
func Start(b *testing.B, bytes int) Meter {
	b.Helper()
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	return Meter{b, mallocs()}
}

// Report says what each of the batches of all iterations has cost: time and
// allocations of the whole process.
func (m Meter) Report(batches int) {
	allocs := mallocs() - m.mallocs
	m.b.ReportMetric(float64(m.b.Elapsed().Nanoseconds())/float64(batches), "ns/batch")
	m.b.ReportMetric(float64(allocs)/float64(batches), "allocs/batch")
}

func mallocs() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs
}
