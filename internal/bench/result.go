package bench

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"replicator/internal/stats"
	"replicator/internal/words"
)

// Result is what was measured. Bytes of records are of keys and values, before
// compression; a MB is 10^6 of them, a GB 10^9.
type Result struct {
	Link        string `json:"link"`
	Topic       string `json:"topic"`
	Partitions  int32  `json:"partitions"`
	RecordBytes int    `json:"record_bytes"`
	Codec       string `json:"codec"`
	BatchBytes  int    `json:"batch_bytes"`

	Write     WriteResult     `json:"write"`
	Copy      CopyResult      `json:"copy"`
	RoundTrip RoundTripResult `json:"round_trip"`
	Latency   LatencyResult   `json:"latency"`
	Compared  ComparedResult  `json:"compared"`

	Hints []string  `json:"hints"` // what bounded it, where that is certain
	Left  []Trace   `json:"left"`  // what is still on the clusters
	Began time.Time `json:"began"`
}

// WriteResult is the writing to the source, by one idempotent producer.
type WriteResult struct {
	Records          int64   `json:"records"`
	Bytes            int64   `json:"bytes"`
	Seconds          float64 `json:"seconds"`
	MBPerSecond      float64 `json:"mb_per_second"`
	ThrottledSeconds float64 `json:"throttled_seconds"` // asked for by the source
}

// CopyResult is the copy of what was written.
type CopyResult struct {
	Records          int64   `json:"records"`
	Bytes            int64   `json:"bytes"`
	Seconds          float64 `json:"seconds"` // from before the first partition is open to the last acknowledgement
	RecordsPerSecond float64 `json:"records_per_second"`
	MBPerSecond      float64 `json:"mb_per_second"`
	// The wire is what the data connections read from the source and wrote to the target.
	SourceWireBytes       int64   `json:"source_wire_bytes"`
	TargetWireBytes       int64   `json:"target_wire_bytes"`
	SourceWireMBPerSecond float64 `json:"source_wire_mb_per_second"`
	TargetWireMBPerSecond float64 `json:"target_wire_mb_per_second"`
	// CPU is of this whole process; 0 where the system does not tell.
	CPUSeconds      float64 `json:"cpu_seconds"`
	CPUSecondsPerGB float64 `json:"cpu_seconds_per_gb"`
	PeakMemoryBytes int64   `json:"peak_memory_bytes"` // resident, of this process while copying
	// Throttled is the time the clusters asked data connections to wait, all added up.
	SourceThrottledSeconds float64 `json:"source_throttled_seconds"`
	TargetThrottledSeconds float64 `json:"target_throttled_seconds"`

	batches, forwarded int64 // routed
	forwardedBytes     int64
}

// RoundTripResult is how long a request that asks for nothing takes, beside the copy.
type RoundTripResult struct {
	Source PingResult `json:"source"`
	Target PingResult `json:"target"`
}

// PingResult is the round trip to the brokers of one cluster.
type PingResult struct {
	Requests   int     `json:"requests"`
	P50Seconds float64 `json:"p50_seconds"`
	P99Seconds float64 `json:"p99_seconds"`
}

// LatencyResult is the time from the source to a read_committed consumer of the
// target, all on this machine's clock. A record is appended to the source between
// the moment it is due to be sent and the moment its acknowledgement is here: the
// latency from its append lies between FromAcknowledged and FromSent.
type LatencyResult struct {
	Records          int64   `json:"records"`
	RecordsPerSecond float64 `json:"records_per_second"` // acknowledged by the source
	VisiblePerSecond float64 `json:"visible_per_second"` // on the target, from the first sent to the last visible
	FromSent         Spread  `json:"from_sent"`
	FromAcknowledged Spread  `json:"from_acknowledged"` // 0 where it was visible before
}

// Spread is a distribution.
type Spread struct {
	P50Seconds  float64 `json:"p50_seconds"`
	P99Seconds  float64 `json:"p99_seconds"`
	P999Seconds float64 `json:"p999_seconds"`
	MaxSeconds  float64 `json:"max_seconds"`
}

// ComparedResult is the comparison of all records on both sides.
type ComparedResult struct {
	Records     int64   `json:"records"` // found equal, in order
	Differences int64   `json:"differences"`
	Seconds     float64 `json:"seconds"`
}

// spread sorts durations and takes the smallest one that the part of them is not above.
func spread(d []time.Duration) Spread {
	slices.Sort(d)
	at := func(part float64) float64 { return stats.Quantile(d, part).Seconds() }
	return Spread{at(0.5), at(0.99), at(0.999), at(1)}
}

func per(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}

// window is how many batches of a lane may be unanswered.
const window = 5

// hints names what bounded the copy, where the figures leave no doubt.
func (r *Result) hints(source, target string) []string {
	c := r.Copy
	out := []string{}
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if t := c.TargetThrottledSeconds; t > 0.05*c.Seconds {
		add("cluster %s throttled the copy for %.1f s: the quota producer_byte_rate or request_percentage of this client bounds it", target, t)
	}
	if t := c.SourceThrottledSeconds; t > 0.05*c.Seconds {
		add("cluster %s throttled the copy for %.1f s: the quota consumer_byte_rate or request_percentage of this client bounds it", source, t)
	}
	if n := float64(runtime.GOMAXPROCS(0)); c.CPUSeconds > 0.9*n*c.Seconds {
		add("this process used %.1f of the %.0f processors it may use: they bound the copy", c.CPUSeconds/c.Seconds, n)
	}
	// Only where every batch was forwarded is it known what was in flight.
	if trip := r.RoundTrip.Target.P50Seconds; c.batches > 0 && c.forwarded == c.batches && trip > 0 {
		batch := c.forwardedBytes / c.forwarded
		limit := float64(window) * float64(r.Partitions) * float64(batch) / trip
		if c.TargetWireMBPerSecond*1e6 > 0.6*limit {
			add("%d batches of %s a partition are in flight at most: with a round trip of %.0f ms to cluster %s that is %.0f MB/s on the wire for %d partitions; larger batches of the producers or more partitions raise it",
				window, words.Size(batch), trip*1000, target, limit/1e6, r.Partitions)
		}
	}
	if l := r.Latency; l.VisiblePerSecond < 0.8*l.RecordsPerSecond {
		add("the copy did not keep up with %.0f records/s: %.0f became visible a second, so the latencies are those of a growing queue%s",
			l.RecordsPerSecond, l.VisiblePerSecond, r.alone(target))
	}
	return out
}

// alone explains a rate that is that of one record a batch: what is fetched one by
// one is appended one by one.
func (r *Result) alone(target string) string {
	trip := r.RoundTrip.Target.P50Seconds
	if trip <= 0 {
		return ""
	}
	limit := float64(window) * float64(r.Partitions) / trip
	if v := r.Latency.VisiblePerSecond; v < 0.7*limit || v > 1.5*limit {
		return ""
	}
	return fmt.Sprintf("; with a round trip of %.0f ms to cluster %s, %d batches a partition in flight are %.0f a second, and records that are fetched one by one are a batch each: nearer to %s a fetch brings several",
		trip*1000, target, window, limit, target)
}
