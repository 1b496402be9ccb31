package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

const (
	chartLeft   = 150 // pixels, for the names of workloads
	chartRight  = 70  // for the value behind the longest bar
	chartWidth  = 760
	chartTop    = 64
	chartBar    = 13 // a bar's height
	chartGap    = 12 // between workloads
	chartBottom = 34
)

// series are the bars of each workload.
var series = []struct {
	mover  mover
	colour string
}{
	{ours, "#0b6e4f"}, {mmTuned, "#d08c3f"}, {mmDefault, "#b9b3a9"},
}

// chart draws CPU seconds per GB of keys and values by workload and mover, on a
// logarithmic axis, as SVG; the thin line is the range of the rounds, the
// broken one what the relay took. It is empty without a figure.
func (r *results) chart() string {
	least, most := math.Inf(1), 0.0
	var shown []*trialResult
	for _, t := range r.Trials {
		has := false
		for _, s := range series {
			if runs := t.of(s.mover); len(runs) > 0 {
				v := over(runs, t.cpuPerGB)
				least, most, has = min(least, v.Min), max(most, v.Max), true
			}
		}
		if floor := t.floor(); has && floor > 0 {
			least = min(least, floor)
		}
		if has {
			shown = append(shown, t)
		}
	}
	if most == 0 || least <= 0 {
		return ""
	}
	// The axis begins below the least, so that its bar can be seen, at a power of ten.
	low, high := math.Floor(math.Log10(least/1.5)), math.Log10(most*1.1)
	x := func(v float64) float64 {
		return chartLeft + (chartWidth-chartLeft-chartRight)*(math.Log10(v)-low)/(high-low)
	}
	group := len(series)*chartBar + chartGap
	height := chartTop + len(shown)*group + chartBottom
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="Helvetica, Arial, sans-serif" font-size="12">`, chartWidth, height, chartWidth, height)
	line(`<rect width="%d" height="%d" fill="#ffffff"/>`, chartWidth, height)
	line(`<text x="16" y="24" font-size="15" font-weight="bold" fill="#222222">CPU seconds per GB of keys and values, logarithmic: less is better</text>`)
	at := 16
	for _, s := range series {
		line(`<rect x="%d" y="38" width="12" height="12" fill="%s"/><text x="%d" y="48" fill="#222222">%s</text>`, at, s.colour, at+18, html.EscapeString(s.mover.title()))
		at += 40 + 7*len(s.mover.title())
	}
	line(`<line x1="%d" y1="37" x2="%d" y2="51" stroke="#222222" stroke-width="2" stroke-dasharray="3 2"/><text x="%d" y="48" fill="#222222">TCP relay of the same bytes</text>`, at+6, at+6, at+18)
	bottom := height - chartBottom
	for exponent := low; exponent <= high; exponent++ {
		v := math.Pow(10, exponent)
		line(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/>`, x(v), chartTop, x(v), bottom)
		line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%g</text>`, x(v), bottom+16, v)
	}
	for i, t := range shown {
		top := chartTop + i*group + chartGap/2
		line(`<text x="%d" y="%d" text-anchor="end" fill="#222222">%s</text>`, chartLeft-8, top+len(series)*chartBar/2+4, html.EscapeString(t.Name))
		for j, s := range series {
			runs := t.of(s.mover)
			if len(runs) == 0 {
				continue
			}
			v, y := over(runs, t.cpuPerGB), top+j*chartBar
			line(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, chartLeft, y, x(v.Median)-chartLeft, chartBar-2, s.colour)
			middle := float64(y) + (chartBar-2)/2.0
			line(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222222"/>`, x(v.Min), middle, x(v.Max), middle)
			line(`<text x="%.1f" y="%d" font-size="11" fill="#222222">%s</text>`, x(v.Max)+5, y+chartBar-3, digits(v.Median))
		}
		if floor := x(t.floor()); floor > chartLeft {
			line(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#222222" stroke-width="2" stroke-dasharray="3 2"/>`, floor, top-3, floor, top+len(series)*chartBar)
		}
	}
	line(`</svg>`)
	return b.String()
}

// floor are the CPU seconds the relay took for a GB of keys and values, 0 where
// it did not run.
func (t *trialResult) floor() float64 { return over(t.of(relay), t.cpuPerGB).Median }
