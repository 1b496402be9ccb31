package bench

import (
	"strings"
	"testing"
	"time"
)

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	if err := DefaultOptions().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"choose partitions: 0":          func(o *Options) { o.Partitions = 0 },
		"choose partitions: 1001":       func(o *Options) { o.Partitions = 1001 },
		"choose record-bytes: 99":       func(o *Options) { o.RecordBytes = 99 },
		"choose record-bytes: 524289":   func(o *Options) { o.RecordBytes = 524289 },
		"choose size: 7999":             func(o *Options) { o.Bytes = 7999 },
		"choose size: 2TiB":             func(o *Options) { o.Bytes = 2 << 40 },
		"choose size: 1TiB":             func(o *Options) { o.Bytes, o.RecordBytes = 1<<40, 100 },
		`choose codec: "lzo"`:           func(o *Options) { o.Codec = "lzo" },
		"choose batch-bytes: 1000":      func(o *Options) { o.BatchBytes = 1000 },
		"choose batch-bytes: 1048576":   func(o *Options) { o.BatchBytes = 1 << 20 },
		"choose rate and duration: wan": func(o *Options) { o.Rate = 0 },
		"1 record a second for 1s":      func(o *Options) { o.Duration = time.Millisecond },
		"are more than 10000000":        func(o *Options) { o.Rate, o.Duration = 100_000, time.Hour },
	} {
		o := DefaultOptions()
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestThePlanSaysWhatItCosts(t *testing.T) {
	o := DefaultOptions()
	o.Bytes, o.Rate, o.Duration = 100_000_000, 1000, 10*time.Second
	p := Plan{
		Source: "east", Target: "west", Topic: "t", SourceReplication: 3, TargetReplication: -1, options: o,
		Bytes: 110_000_000, SteadyBytes: 10_000_000,
	}
	const want = "writes 100000 records (95.4 MiB) and then 1000 a second for 10s to t on cluster east (replication factor 3, 314.7 MiB in all), copies them to cluster west " +
		"(replication factor of the cluster's default), and compares all: 314.7 MiB between this machine and east, 219.3 MiB between it and west, before lz4 compression; then all of it is deleted"
	if got := p.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.Keep = true
	if got := p.String(); !strings.HasSuffix(got, "; nothing is deleted") {
		t.Errorf("got %s", got)
	}
}

func TestSpreadTakesTheRankItNames(t *testing.T) {
	var d []time.Duration
	for i := 1000; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	if got, want := spread(d), (Spread{0.5, 0.99, 0.999, 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := spread(d[:1]), (Spread{0.001, 0.001, 0.001, 0.001}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A bound is named only where the figures show it.
func TestHintsNameWhatIsCertain(t *testing.T) {
	calm := Result{Partitions: 8, Copy: CopyResult{Seconds: 100, CPUSeconds: 1, TargetThrottledSeconds: 4, TargetWireMBPerSecond: 10}}
	calm.RoundTrip.Target.P50Seconds = 0.001
	calm.Latency.RecordsPerSecond, calm.Latency.VisiblePerSecond = 1000, 990
	if got := calm.hints("east", "west"); len(got) > 0 {
		t.Errorf("nothing bounds it, but: %q", got)
	}
	for want, change := range map[string]func(*Result){
		"cluster west throttled the copy for 12.0 s": func(r *Result) { r.Copy.TargetThrottledSeconds = 12 },
		"cluster east throttled the copy for 12.0 s": func(r *Result) { r.Copy.SourceThrottledSeconds = 12 },
		"processors it may use":                      func(r *Result) { r.Copy.CPUSeconds = 1e6 },
		// 8 partitions, 5 batches of 25,000 bytes, 100 ms: 10 MB/s.
		"with a round trip of 100 ms to cluster west that is 10 MB/s": func(r *Result) {
			r.RoundTrip.Target.P50Seconds = 0.1
			r.Copy.batches, r.Copy.forwarded, r.Copy.forwardedBytes = 40, 40, 1_000_000
		},
		"800 became visible a second, so the latencies are those of a growing queue": func(r *Result) { r.Latency.RecordsPerSecond, r.Latency.VisiblePerSecond = 1100, 800 },
		"with a round trip of 80 ms to cluster west, 5 batches a partition in flight are 500 a second": func(r *Result) {
			r.RoundTrip.Target.P50Seconds = 0.08
			r.Latency.RecordsPerSecond, r.Latency.VisiblePerSecond = 1000, 510
		},
	} {
		r := calm
		change(&r)
		if got := r.hints("east", "west"); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("want %q, got %q", want, got)
		}
	}
	repacked := calm
	repacked.RoundTrip.Target.P50Seconds = 0.1
	repacked.Copy.batches, repacked.Copy.forwarded, repacked.Copy.forwardedBytes = 41, 40, 1_000_000
	if got := repacked.hints("east", "west"); len(got) > 0 {
		t.Errorf("batches were merged, so their size is not known, but: %q", got)
	}
}
