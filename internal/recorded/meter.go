package recorded

import (
	"runtime"
	"testing"
	"time"

	"replicator/internal/rusage"
)

// Meter measures what a batch costs in a benchmark, where one iteration handles
// many of them.
type Meter struct {
	b     *testing.B
	began sample
}

// sample is what the process has used so far.
type sample struct {
	at      time.Time
	cpu     time.Duration
	mallocs uint64
}

func take() sample {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return sample{time.Now(), rusage.CPU(), s.Mallocs}
}

// Start begins to measure; the next thing is the benchmark's loop. bytes are
// those of the batches of one iteration, on the wire; 0 where their contents are
// not looked at, so that a speed would say nothing.
func Start(b *testing.B, bytes int) Meter {
	b.Helper()
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	return Meter{b, take()}
}

// Report says what each of the batches of all iterations has cost: time, CPU time
// and allocations of the whole process. CPU time is what compares on a machine
// that others use as well. It returns the time.
func (m Meter) Report(batches int) time.Duration {
	m.b.Helper()
	end, n := take(), float64(batches)
	took := end.at.Sub(m.began.at)
	m.b.ReportMetric(float64(took.Nanoseconds())/n, "ns/batch")
	m.b.ReportMetric(float64((end.cpu-m.began.cpu).Nanoseconds())/n, "cpu-ns/batch")
	m.b.ReportMetric(float64(end.mallocs-m.began.mallocs)/n, "allocs/batch")
	return took
}
