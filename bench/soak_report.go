package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// What may grow in the time of the samples without anybody caring, where the
	// samples' own noise is smaller.
	allowedRSS        = 3.0 // MiB
	allowedGoroutines = 2.0
	allowedFiles      = 2.0
)

// judge looks for what grows.
func (s *soak) judge() {
	r := &s.results
	warm := min(5*time.Minute, s.length/4).Seconds()
	var rss, goroutines, files []sample
	for _, one := range r.Samples {
		d, ok := one.Daemons["steady"]
		if !ok || d.Age < warm || d.Goroutines == 0 || one.At > s.length.Seconds() {
			continue
		}
		at := one.At / 3600
		rss, goroutines, files = append(rss, sample{at, mib(d.RSS)}), append(goroutines, sample{at, d.Goroutines}), append(files, sample{at, float64(d.Files)})
	}
	const enough = 10
	for _, q := range []struct {
		question string
		values   []sample
		allowed  float64
	}{
		{"resident memory (MiB) of the daemon that is never restarted does not grow", rss, allowedRSS},
		{"its goroutines do not grow", goroutines, allowedGoroutines},
		{"its open files do not grow", files, allowedFiles},
	} {
		t := trendOf(q.values)
		s.add(q.question, t.N >= enough && t.flat(q.allowed), "%v, after its first %v", t, time.Duration(warm)*time.Second)
	}
	var slowest soakEvent
	longest, lost := 0.0, 0
	for _, e := range r.Events {
		if e.Recovered == nil {
			lost++
		} else if took := *e.Recovered - e.Done; took >= longest {
			longest, slowest = took, e
		}
	}
	s.add("after each event all lanes copy again and the lag returns", lost == 0 && len(r.Events) > 0,
		"%d events, %d without; the slowest %.1f s after it was over (%s at %.0f s)", len(r.Events), lost, longest, slowest.Kind, slowest.At)
	t := trendOf(r.floor(s.every.Seconds()))
	s.add("the floor of the lag (records) does not drift", t.N >= enough && t.flat(float64(s.rate)/20), "%v", t)
}

// floor is the lag while nothing happens: without the samples from an event's
// beginning to its recovery.
func (r *soakResults) floor(every float64) (records []sample) {
	for _, one := range r.Samples {
		disturbed := one.LagRecords == nil || one.At > r.Length.Seconds() ||
			slices.ContainsFunc(r.Events, func(e soakEvent) bool {
				return e.Recovered == nil || one.At >= e.At-1 && one.At <= *e.Recovered+every
			})
		if !disturbed {
			records = append(records, sample{one.At / 3600, *one.LagRecords})
		}
	}
	return records
}

// verdict is an error if one was not passed.
func (s *soak) verdict() error {
	failed := 0
	for _, v := range s.results.Verdicts {
		if !v.Passed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d verdicts failed, see the report", failed, len(s.results.Verdicts))
	}
	if len(s.results.Verdicts) == 0 {
		return errors.New("no verdict was reached")
	}
	return nil
}

func (s *soak) save() error {
	if err := keep(s.out, s.name, &s.results, s.results.figure().svg(), s.results.markdown(s.name)); err != nil {
		return err
	}
	s.say("written: %s/%s.md, .json, .svg", s.out, s.name)
	return nil
}

// figure is the run over time.
func (r *soakResults) figure() figure {
	nan := math.NaN()
	series := func(name, color string, of func(soakSample) float64) line {
		l := line{name: name, color: color}
		for _, one := range r.Samples {
			l.x, l.y = append(l.x, one.At/60), append(l.y, of(one))
		}
		return l
	}
	daemon := func(name string, of func(daemonSample) float64) func(soakSample) float64 {
		return func(one soakSample) float64 {
			if d, ok := one.Daemons[name]; ok {
				return of(d)
			}
			return nan
		}
	}
	known := func(p *float64) float64 {
		if p == nil {
			return nan
		}
		return *p
	}
	memory := func(d daemonSample) float64 { return mib(d.RSS) }
	routines := func(d daemonSample) float64 {
		if d.Goroutines == 0 {
			return nan
		}
		return d.Goroutines
	}
	count := func(d daemonSample) float64 { return float64(d.Files) }
	both := func(of func(daemonSample) float64) []line {
		return []line{series("never restarted", "#1b6ca8", daemon("steady", of)), series("restarted, killed, frozen", "#e08a1e", daemon("victim", of))}
	}
	f := figure{
		title: fmt.Sprintf("Soak of %v: %d lanes, %d records/s, %d groups", r.Length, r.Lanes, r.Rate, r.Groups),
		x:     axis{label: "minutes", zero: true},
		panels: []panel{
			{title: "Resident memory, MiB", y: axis{zero: true}, lines: both(memory)},
			{title: "Goroutines", y: axis{zero: true}, lines: both(routines)},
			{title: "Open files", y: axis{zero: true}, lines: both(count)},
			{title: "CPU, % of a core", y: axis{zero: true}, lines: []line{r.cpu("steady", "never restarted", "#1b6ca8"), r.cpu("victim", "restarted, killed, frozen", "#e08a1e")}},
			{title: "Lag, records", y: axis{log: true}, lines: []line{series("", "#7a3b9a", func(one soakSample) float64 { return known(one.LagRecords) })}},
			{title: "Lag and age of checkpoints, s", y: axis{zero: true}, lines: []line{
				series("lag", "#7a3b9a", func(one soakSample) float64 { return known(one.LagSeconds) }),
				series("age of checkpoints", "#2c8a57", func(one soakSample) float64 { return known(one.CheckpointAge) }),
			}},
			{title: "Offsets a second", y: axis{zero: true}, lines: []line{r.rate("source", "#999", func(one soakSample) int64 { return one.Written }), r.rate("target", "#1b6ca8", func(one soakSample) int64 { return one.Copied })}},
		},
	}
	for _, e := range r.Events {
		f.marks = append(f.marks, mark{x: e.At / 60, label: e.Kind})
	}
	return f
}

// cpu is the load of a daemon between samples of the same process.
func (r *soakResults) cpu(daemon, name, color string) line {
	l := line{name: name, color: color}
	for i := 1; i < len(r.Samples); i++ {
		a, b := r.Samples[i-1], r.Samples[i]
		was, is := a.Daemons[daemon], b.Daemons[daemon]
		v := math.NaN()
		if was.PID == is.PID && is.PID != 0 {
			v = 100 * (is.CPU - was.CPU) / (b.At - a.At)
		}
		l.x, l.y = append(l.x, b.At/60), append(l.y, v)
	}
	return l
}

// rate is how fast a sum of offsets grows.
func (r *soakResults) rate(name, color string, of func(soakSample) int64) line {
	l := line{name: name, color: color}
	for i := 1; i < len(r.Samples); i++ {
		a, b := r.Samples[i-1], r.Samples[i]
		v := math.NaN()
		if of(a) > 0 && of(b) > 0 {
			v = float64(of(b)-of(a)) / (b.At - a.At)
		}
		l.x, l.y = append(l.x, b.At/60), append(l.y, v)
	}
	return l
}

func (r *soakResults) markdown(name string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# %s: soak\n", r.Date)
	p("    %s\n", r.Command)
	p("%v of load: %d records a second of five kinds (plain lz4, headers zstd, small snappy batches, transactions, a compacted topic) in %d partitions, %d groups that commit every second.",
		r.Length, r.Rate, r.Lanes, r.Groups)
	p("Two daemons of one group on one broker a side. One is stopped, killed and frozen in turn with the brokers; the other is never restarted, and what is said of memory, goroutines and files is said of it.\n")
	p("%s\n", r.Machine.line())
	p("| question | found | |\n|---|---|---|")
	for _, v := range r.Verdicts {
		answer := "passed"
		if !v.Passed {
			answer = "**failed**"
		}
		p("| %s | %s | %s |", v.Question, v.Found, answer)
	}
	p("\nSlopes are medians over all pairs of samples (Theil and Sen), noise is the median distance from that line. Flat is: the rise over the run is at most twice the noise, or %g MiB, %g goroutines, %g files, a twentieth of a second's records.\n",
		allowedRSS, allowedGoroutines, allowedFiles)
	p("![over time](%s.svg)\n", name)
	p("| event | times | over after, s: median (most) | all copying, lag at its floor, s after it was over: median (most) |\n|---|---|---|---|")
	for _, k := range r.kinds() {
		p("%s", k)
	}
	p("\n| topic | records acknowledged by the source | rounds (failed while it was away) |\n|---|---|---|")
	for _, w := range r.Load {
		p("| %s | %d | %d (%d) |", w.Topic, w.Acknowledged, w.Rounds, w.FailedRounds)
	}
	p("\nLogs of both sides in the end: %.2f GB.", float64(r.Disk)/1e9)
	return b.String()
}

// kinds are the table's lines of events.
func (r *soakResults) kinds() (lines []string) {
	var order []string
	over, back := map[string][]float64{}, map[string][]float64{}
	for _, e := range r.Events {
		if over[e.Kind] == nil {
			order = append(order, e.Kind)
		}
		over[e.Kind] = append(over[e.Kind], e.Done-e.At)
		if e.Recovered != nil {
			back[e.Kind] = append(back[e.Kind], *e.Recovered-e.Done)
		}
	}
	for _, kind := range order {
		o, b := spreadOf(over[kind]), spreadOf(back[kind])
		lines = append(lines, fmt.Sprintf("| %s | %d | %.1f (%.1f) | %.1f (%.1f) |", kind, len(over[kind]), o.Median, o.Max, b.Median, b.Max))
	}
	return lines
}
