package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// report is the results in words, as Markdown that is also readable as it is.
// The chart is named if there is one.
func (r *results) report(chart string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: against MirrorMaker 2\n\n", r.Date)
	fmt.Fprintf(&b, "%s One broker a side, all on these cores and loopback; took %s.\n", r.Machine.line(), r.Took.Round(time.Second))
	b.WriteString("Medians, with the least and the most of all rounds behind them. Ratios are of medians within this run; absolute figures are of this machine. How it is measured: [bench/](../README.md).\n\n")
	fmt.Fprintf(&b, "    %s\n\n", r.Command)
	if len(r.Errors) > 0 {
		b.WriteString("## Failed\n")
		for _, e := range r.Errors {
			lines := strings.Split(strings.TrimSpace(e), "\n")
			if last := len(lines) - 1; last > 0 { // of a log: all of it is in the JSON file
				lines = []string{lines[0], lines[last]}
			}
			fmt.Fprintf(&b, "- %s\n", strings.Join(lines, " ... "))
		}
		b.WriteByte('\n')
	}
	if len(r.NotRun) > 0 {
		fmt.Fprintf(&b, "Not run here: %s.\n\n", strings.Join(r.NotRun, "; "))
	}
	b.WriteString("## Aims\n" + r.aimsTable() + "\n")
	if len(r.Trials) > 0 {
		fmt.Fprintf(&b, "## Copying\n%s\n", r.trialsTable())
		fmt.Fprintf(&b, "### CPU seconds per GB of keys and values\n")
		if chart != "" {
			fmt.Fprintf(&b, "![CPU seconds per GB of keys and values, by workload](%s)\n\n", chart)
		}
		fmt.Fprintf(&b, "%s\n", r.moversTable(less, (*trialResult).cpuPerGB))
		fmt.Fprintf(&b, "### MB/s of keys and values\n%s\n", r.moversTable(times, (*trialResult).speed))
		fmt.Fprintf(&b, "### Peak RSS, MiB\n%s\n", r.moversTable(less, func(_ *trialResult, run copyRun) float64 { return peakMiB(run) }))
		fmt.Fprintf(&b, "### CPU seconds per GB on the wire, against a plain relay of the same bytes\n%s\n", r.wireTable())
	}
	if len(r.Latency) > 0 {
		fmt.Fprintf(&b, "## Latency at %d records a second\nFrom the producer (`acks=all`, no linger) to a consumer of the target.\n\n%s\n", latencyRate, r.latencyTable())
	}
	if len(r.Kill) > 0 {
		fmt.Fprintf(&b, "## kill -9 under %d records a second\nOne of two replicators; a MirrorMaker 2 that is started again at once. Seconds until a record produced after the kill arrives.\n\n%s\n", killRate, r.killTable())
	}
	if len(r.Resume) > 0 {
		fmt.Fprintf(&b, "## Records that groups read again on the target\n%s\n", resumeTable(r.Resume))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func (r *results) aimsTable() string {
	rows := [][]string{{"aim", "wanted", "measured", ""}}
	for _, a := range aims() {
		v := a.judge(r)
		rows = append(rows, []string{v.Aim, v.Wanted, v.Got, v.String()})
	}
	return table(rows)
}

// trialsTable says what the workloads are.
func (r *results) trialsTable() string {
	rows := [][]string{{"workload", "", "records", "GB", "GB on the wire"}}
	for _, t := range r.Trials {
		rows = append(rows, []string{t.Name, t.Doc, fmt.Sprint(t.Records), digits(float64(t.Bytes) / 1e9), digits(float64(t.WireBytes) / 1e9)})
	}
	return table(rows)
}

// moversTable is one figure of every workload and mover, with the ratio of
// those of MirrorMaker 2 to ours, in the sense that more is better for us.
func (r *results) moversTable(ratio string, figure func(*trialResult, copyRun) float64) string {
	rows := [][]string{{"workload", ours.title(), mmTuned.title(), "ratio", mmDefault.title(), "ratio"}}
	for _, t := range r.Trials {
		row := []string{t.Name}
		mine := over(t.of(ours), func(run copyRun) float64 { return figure(t, run) })
		for _, m := range []mover{ours, mmTuned, mmDefault} {
			s := over(t.of(m), func(run copyRun) float64 { return figure(t, run) })
			row = append(row, s.String())
			if m == ours {
				continue
			}
			cell := ""
			if s.Median > 0 && mine.Median > 0 {
				quotient := s.Median / mine.Median
				if ratio == times {
					quotient = 1 / quotient
				}
				cell = fmt.Sprintf(ratio, digits(quotient))
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return table(rows)
}

func (r *results) wireTable() string {
	rows := [][]string{{"workload", relay.title(), ours.title(), "ratio", mmTuned.title(), "ratio"}}
	for _, t := range r.Trials {
		floor := over(t.of(relay), t.cpuPerWireGB)
		if floor.Median == 0 {
			continue
		}
		row := []string{t.Name, floor.String()}
		for _, m := range []mover{ours, mmTuned} {
			s := over(t.of(m), t.cpuPerWireGB)
			row = append(row, s.String(), "")
			if s.Median > 0 {
				row[len(row)-1] = fmt.Sprintf(times, digits(s.Median/floor.Median))
			}
		}
		rows = append(rows, row)
	}
	return table(rows)
}

func (r *results) latencyTable() string {
	rows := [][]string{{"ms", "p50", "p99", "p99.9", "max"}}
	for _, m := range []mover{direct, ours, mmTuned} {
		row := []string{m.title()}
		for _, figure := range []func(latencyRun) time.Duration{
			func(l latencyRun) time.Duration { return l.P50 }, func(l latencyRun) time.Duration { return l.P99 },
			func(l latencyRun) time.Duration { return l.P999 }, func(l latencyRun) time.Duration { return l.Max },
		} {
			row = append(row, over(r.latencies(m), func(l latencyRun) float64 { return inMillis(figure(l)) }).String())
		}
		rows = append(rows, row)
	}
	return table(rows)
}

func (r *results) killTable() string {
	rows := [][]string{{"", "partitions that stood still", "first moves, s", "all move, s", "records", "doubled", "lost", "out of order"}}
	for _, m := range []mover{ours, mmTuned} {
		runs := r.kills(m)
		if len(runs) == 0 {
			continue
		}
		row := []string{m.title()}
		for _, figure := range []func(killRun) float64{
			func(k killRun) float64 { return float64(k.Stalled) },
			func(k killRun) float64 { return k.First.Seconds() },
			func(k killRun) float64 { return k.All.Seconds() },
			func(k killRun) float64 { return float64(k.Acknowledged) },
			func(k killRun) float64 { return float64(k.Doubled) },
			func(k killRun) float64 { return float64(k.Lost) },
			func(k killRun) float64 { return float64(k.Disordered) },
		} {
			row = append(row, over(runs, figure).String())
		}
		rows = append(rows, row)
	}
	return table(rows)
}

// digits writes a figure with three digits that count, or all before the point.
func digits(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// String is the median, with the range where there is one.
func (s spread) String() string {
	if s.N == 0 {
		return ""
	}
	median, least, most := digits(s.Median), digits(s.Min), digits(s.Max)
	if least == most {
		return median
	}
	return median + " (" + least + " to " + most + ")"
}

// table is a table of Markdown whose columns are as wide as their widest cell.
func table(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			b.WriteString("| " + cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+1))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}
