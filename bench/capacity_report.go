package main

import (
	"fmt"
	"strings"
	"time"
)

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// points makes a line of results.
func points[T any](name, color string, all []T, x, y func(T) float64) line {
	l := line{name: name, color: color, dots: true}
	for _, r := range all {
		l.x, l.y = append(l.x, x(r)), append(l.y, y(r))
	}
	return l
}

// figure shows how costs grow; its axis counts lanes, groups or bytes.
func (r *capacityResults) figure() figure {
	const blue, orange, green = "#1b6ca8", "#e08a1e", "#2c8a57"
	f := figure{title: "What lanes, groups and message sizes cost a daemon", x: axis{log: true, label: "lanes, groups of 100 partitions, or bytes of a message"}}
	if len(r.Lanes) > 0 {
		x := func(l lanesResult) float64 { return float64(l.Lanes) }
		f.panels = append(f.panels,
			panel{title: "Lanes: from exec to all lanes open, s", y: axis{log: true}, lines: []line{
				points("first start, topics made", orange, r.Lanes, x, func(l lanesResult) float64 { return l.First.Open.Seconds() }),
				points("second start", blue, r.Lanes, x, func(l lanesResult) float64 { return l.Second.Open.Seconds() }),
			}},
			panel{title: "Lanes: resident memory at rest, MiB", y: axis{zero: true}, lines: []line{points("", blue, r.Lanes, x, func(l lanesResult) float64 { return mib(l.IdleRSS) })}},
			panel{title: "Lanes: CPU at rest, % of a core", y: axis{zero: true}, lines: []line{points("", blue, r.Lanes, x, func(l lanesResult) float64 { return 100 * l.IdleCPU })}},
		)
	}
	if len(r.Groups) > 0 {
		some := r.Groups
		if some[0].Groups == 0 {
			some = some[1:] // has no place on this axis
		}
		x := func(g groupsResult) float64 { return float64(g.Groups) }
		f.panels = append(f.panels, panel{title: "Groups: peak of resident memory, MiB", y: axis{zero: true}, lines: []line{points("", green, some, x, func(g groupsResult) float64 { return mib(g.Peak) })}})
	}
	if len(r.Sizes) > 0 {
		x := func(s sizeResult) float64 { return float64(s.Bytes) }
		f.panels = append(f.panels,
			panel{title: "Message size: CPU s/GB of keys and values, lz4", y: axis{zero: true}, lines: []line{points("", orange, r.Sizes, x, func(s sizeResult) float64 { return s.CPUPerGB })}},
			panel{title: "Message size: MB/s, brokers on the same cores", y: axis{zero: true}, lines: []line{points("", orange, r.Sizes, x, func(s sizeResult) float64 { return s.Speed })}},
		)
	}
	return f
}

func (r *capacityResults) markdown(name string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# %s: capacity\n", r.Date)
	p("    %s\n", r.Command)
	p("%s One broker a side and the daemon share these cores, so absolute times are those of this machine.\n", r.Machine.line())
	if len(r.Lanes) > 0 {
		p("## Idle lanes\n")
		p("Topics of 100 partitions. Start: from exec to all lanes open; the first start also makes the topics, and in brackets is when the target's broker led all of their partitions. CPU at rest over %v. The group is the record in which the source's coordinator keeps the daemon's consumer group, with one member.\n", r.Idle)
		p("| lanes | first start, s | second start, s | its CPU, s | stop, s | at rest: %% of a core | RSS, MiB (peak) | largest fetch after a start: request, answer, bytes | fetch at rest | journal, KiB | group, KiB |\n|---|---|---|---|---|---|---|---|---|---|---|")
		for _, l := range r.Lanes {
			p("| %d | %.1f (%.1f) | %.1f | %.2f | %.1f | %.2f | %.0f (%.0f) | %d, %d | %d, %d | %.0f | %.1f |", l.Lanes, l.First.Open.Seconds(), l.First.Made.Seconds(), l.Second.Open.Seconds(), l.Second.CPU.Seconds(),
				l.StopTime.Seconds(), 100*l.IdleCPU, mib(l.IdleRSS), mib(max(l.First.Peak, l.Second.Peak)), l.FetchFirst.Request, l.FetchFirst.Answer, l.FetchSteady.Request, l.FetchSteady.Answer, float64(l.JournalBytes)/1024, float64(l.GroupBytes)/1024)
		}
		p("\n| lanes | source broker: files, memory maps, RSS in MiB | target broker | /metrics with partitions: MB, s, CPU s, MiB the daemon grows by |\n|---|---|---|---|")
		for _, l := range r.Lanes {
			p("| %d | %d, %d, %.0f | %d, %d, %.0f | %.2f, %.2f, %.2f, %.0f |", l.Lanes, l.Source.Files, l.Source.Maps, mib(l.Source.RSS), l.Target.Files, l.Target.Maps, mib(l.Target.RSS), float64(l.ScrapeBytes)/1e6, l.Scrape.Seconds(), l.ScrapeCPU.Seconds(), mib(l.ScrapeMemory))
		}
		p("\nThe brokers had a heap of 2 GiB and `log.index.size.max.bytes=%s`; they need a file and two memory maps a partition (`ulimit -n`, `vm.max_map_count`).\n", manyProperties["log.index.size.max.bytes"])
	}
	if len(r.Active) > 0 {
		p("## Active lanes\n")
		p("The same records over few and over many lanes, %d bytes each, for %v. Latency is from the record's timestamp (ms) until a read_committed consumer has it; the producer waits 5 ms for more records.\n", r.Active[0].Bytes, activeTime)
		p("| lanes | records/s | batches/s | %% of a core | RSS, MiB | p50, ms | p99, ms | most, ms | p99 from the source itself, ms |\n|---|---|---|---|---|---|---|---|---|")
		ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
		for _, a := range r.Active {
			p("| %d | %d | %.0f | %.1f | %.0f | %.1f | %.1f | %.1f | %.1f |", a.Lanes, a.Rate, a.Batches, 100*a.CPU, mib(a.RSS), ms(a.P50), ms(a.P99), ms(a.Max), ms(a.SourceP99))
		}
		p("")
	}
	if len(r.Groups) > 0 {
		p("## Groups\n")
		p("Each commits 100 partitions at once, then nothing for 20 s, then a tenth of them every 5 s.\n")
		p("| groups | all placed after, s | CPU for that, s | nothing committed: %% of a core | with commits | at offsets/s | peak RSS, MiB: before, in all |\n|---|---|---|---|---|---|---|")
		for _, g := range r.Groups {
			p("| %d | %.1f | %.2f | %.2f | %.1f | %.0f | %.0f, %.0f |", g.Groups, g.Placed.Seconds(), g.PlacedCPU.Seconds(), 100*g.IdleCPU, 100*g.BusyCPU, g.Rate, mib(g.Before), mib(g.Peak))
		}
		p("")
	}
	if len(r.Sizes) > 0 {
		p("## Message sizes\n")
		p("lz4, 8 partitions, batches of 200 KB before compression or of one message.\n")
		p("| bytes | messages | GB of records | GB in the log | CPU s/GB of records | CPU s/GB in the log | MB/s of records | peak RSS, MiB |\n|---|---|---|---|---|---|---|---|")
		for _, s := range r.Sizes {
			p("| %d | %d | %.2f | %.2f | %.3f | %.3f | %.0f | %.0f |", s.Bytes, s.Messages, s.GB, s.WireGB, s.CPUPerGB, s.CPUPerGB*s.GB/s.WireGB, s.Speed, mib(s.Peak))
		}
		p("")
	}
	p("![how costs grow](%s.svg)", name)
	for _, e := range r.Errors {
		p("\nFailed: %s", strings.ReplaceAll(e, "\n", "\n    "))
	}
	p("\nMeasured in %v.", r.Took.Round(time.Second))
	return b.String()
}
