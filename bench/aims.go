package main

import "fmt"

// An aim is what a figure should be: at most or at least a limit.
type aim struct {
	name   string
	limit  float64
	most   bool   // the limit is the most it should be, else the least
	format string // of figure and limit
	// figure is false where it was not measured.
	figure func(*results) (float64, bool)
}

// A verdict is an aim that was judged.
type verdict struct {
	Aim      string  `json:"aim"`
	Wanted   string  `json:"wanted"`
	Got      string  `json:"got"` // "not measured"
	Met      bool    `json:"met"`
	Measured bool    `json:"measured"`
	MissedBy float64 `json:"missed_by,omitempty"` // factor between figure and limit
}

const (
	less  = "1/%s"
	times = "%sx"
)

// aims lists all of them. Ratios are of medians of one run.
func aims() []aim {
	cpu := func(workload string, other mover, limit float64) aim {
		return aim{fmt.Sprintf("CPU per GB, %s, against %s", workload, other.title()), limit, false, less, func(r *results) (float64, bool) {
			return r.ratio(workload, other, ours, (*trialResult).cpuPerGB)
		}}
	}
	wire := func(workload string) aim {
		return aim{fmt.Sprintf("CPU per GB on the wire, %s, against the relay", workload), 3, true, times, func(r *results) (float64, bool) {
			return r.ratio(workload, ours, relay, (*trialResult).cpuPerWireGB)
		}}
	}
	latency := func(name string, limit float64, most bool, format string, figure func(ours, theirs float64) float64) aim {
		return aim{name, limit, most, format, func(r *results) (float64, bool) {
			p99 := func(l latencyRun) float64 { return inMillis(l.P99) }
			a, b := over(r.latencies(ours), p99), over(r.latencies(mmTuned), p99)
			return figure(a.Median, b.Median), a.N > 0 && (b.N > 0 || most)
		}}
	}
	kill := func(name string, limit float64, format string, figure func(killRun) float64) aim {
		return aim{name, limit, true, format, func(r *results) (float64, bool) {
			s := over(r.kills(ours), figure)
			return s.Max, len(r.kills(ours)) > 0
		}}
	}
	resumed := func(name string, figure func(resumeRow) int64) aim {
		return aim{name, 0, true, "%s", func(r *results) (float64, bool) {
			most, have := int64(0), false
			for _, row := range r.Resume {
				if row.Who == string(ours) {
					most, have = max(most, figure(row)), true
				}
			}
			return float64(most), have
		}}
	}
	return []aim{
		cpu("lz4", mmTuned, 30), cpu("lz4", mmDefault, 70),
		cpu("none", mmTuned, 6), cpu("none", mmDefault, 14),
		wire("lz4"), wire("none"),
		{"throughput, lz4, against MirrorMaker 2, tuned", 4, false, times, func(r *results) (float64, bool) {
			return r.ratio("lz4", ours, mmTuned, (*trialResult).speed)
		}},
		cpu("small", mmTuned, 4), cpu("compacted", mmTuned, 4), cpu("transactions", mmTuned, 4),
		{"peak RSS, lz4, against MirrorMaker 2, tuned", 20, false, less, func(r *results) (float64, bool) {
			return r.ratio("lz4", mmTuned, ours, func(_ *trialResult, run copyRun) float64 { return peakMiB(run) })
		}},
		latency("latency, p99", 10, true, "%s ms", func(a, _ float64) float64 { return a }),
		latency("latency, p99, against MirrorMaker 2, tuned", 2, false, less, func(a, b float64) float64 { return b / a }),
		{"one partition over 80 ms of round trip", 50, false, "%s MB/s", func(r *results) (float64, bool) {
			t := r.trial("wan")
			if t == nil || len(t.of(ours)) == 0 {
				return 0, false
			}
			return over(t.of(ours), t.speed).Median, true
		}},
		kill("kill -9 until every partition moves again, the worst", 12, "%s s", func(k killRun) float64 { return k.All.Seconds() }),
		kill("kill -9, records doubled", 0, "%s", func(k killRun) float64 { return float64(k.Doubled) }),
		kill("kill -9, records lost", 0, "%s", func(k killRun) float64 { return float64(k.Lost) }),
		resumed("records that groups read again, any lag, the worst", func(r resumeRow) int64 { return r.Most }),
		resumed("records that groups skipped, any lag", func(r resumeRow) int64 { return r.Skipped }),
		resumed("group partitions without an offset on the target", func(r resumeRow) int64 { return r.NotPlaced }),
	}
}

// judge compares the figure with the limit.
func (a aim) judge(r *results) verdict {
	word := "at least "
	if a.most || a.format == less {
		word = "at most "
	}
	v := verdict{Aim: a.name, Wanted: word + fmt.Sprintf(a.format, digits(a.limit)), Got: "not measured"}
	if a.limit == 0 {
		v.Wanted = "0"
	}
	got, measured := a.figure(r)
	if !measured {
		return v
	}
	v.Measured, v.Got = true, fmt.Sprintf(a.format, digits(got))
	if a.most {
		v.Met = got <= a.limit
	} else {
		v.Met = got >= a.limit
	}
	switch {
	case v.Met || a.limit == 0 || got == 0:
	case a.most:
		v.MissedBy = got / a.limit
	default:
		v.MissedBy = a.limit / got
	}
	return v
}

// String is met, missed and by how much, or not measured.
func (v verdict) String() string {
	switch {
	case !v.Measured:
		return "not measured"
	case v.Met:
		return "met"
	case v.MissedBy > 0:
		return fmt.Sprintf("missed by a factor of %.2f", v.MissedBy)
	default:
		return "missed"
	}
}

// ratio is the median of one mover over that of another, in a workload that
// both copied.
func (r *results) ratio(workload string, above, below mover, figure func(*trialResult, copyRun) float64) (float64, bool) {
	t := r.trial(workload)
	if t == nil {
		return 0, false
	}
	of := func(run copyRun) float64 { return figure(t, run) }
	a, b := over(t.of(above), of).Median, over(t.of(below), of).Median
	if a == 0 || b == 0 {
		return 0, false
	}
	return a / b, true
}

// trial is what is known of a workload, nil where it was not tried.
func (r *results) trial(name string) *trialResult {
	for _, t := range r.Trials {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// latencies are the runs of one mover.
func (r *results) latencies(m mover) []latencyRun {
	var out []latencyRun
	for _, l := range r.Latency {
		if l.Mover == m {
			out = append(out, l)
		}
	}
	return out
}

// kills are the runs of one mover.
func (r *results) kills(m mover) []killRun {
	var out []killRun
	for _, k := range r.Kill {
		if k.Mover == m {
			out = append(out, k)
		}
	}
	return out
}
