package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A figure is panels of lines below each other over one axis, as an SVG.
type figure struct {
	title  string
	x      axis
	panels []panel
	marks  []mark // in every panel
}

// axis is how numbers become places.
type axis struct {
	label string
	log   bool
	zero  bool // begins at 0
}

type panel struct {
	title string
	y     axis
	lines []line
}

// line is one series. Where y is NaN, nothing is known and nothing is drawn.
type line struct {
	name  string
	x, y  []float64
	color string
	dots  bool // mark each sample
}

// mark is something that happened: a vertical line.
type mark struct {
	x     float64
	label string
}

const (
	figureWidth                                      = 1000.0 // pixels
	panelHeight                                      = 190.0
	leftMargin, rightMargin, topMargin, bottomMargin = 70.0, 20.0, 58.0, 44.0
	panelGap                                         = 46.0
)

// svg draws it.
func (f figure) svg() []byte {
	height := topMargin + bottomMargin + float64(len(f.panels))*(panelHeight+panelGap)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="sans-serif" font-size="12" fill="#222">`+"\n", figureWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%.0f" y="24" font-size="16">%s</text>`+"\n", leftMargin, html.EscapeString(f.title))
	var xs []float64
	for _, p := range f.panels {
		for _, l := range p.lines {
			xs = append(xs, l.x...)
		}
	}
	across := scaleOf(f.x, xs, leftMargin, figureWidth-rightMargin)
	for i, p := range f.panels {
		top := topMargin + float64(i)*(panelHeight+panelGap)
		f.panel(&b, p, across, top, i == len(f.panels)-1)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func (f figure) panel(b *strings.Builder, p panel, across scale, top float64, last bool) {
	var ys []float64
	for _, l := range p.lines {
		ys = append(ys, l.y...)
	}
	up := scaleOf(p.y, ys, top+panelHeight, top)
	fmt.Fprintf(b, `<text x="%.0f" y="%.1f" font-weight="bold">%s</text>`+"\n", leftMargin, top-10, html.EscapeString(p.title))
	for _, v := range up.ticks() {
		y := up.at(v)
		fmt.Fprintf(b, `<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%s</text>`+"\n",
			leftMargin, figureWidth-rightMargin, y, y, leftMargin-6, y+4, number(v))
	}
	for _, v := range across.ticks() {
		x := across.at(v)
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#eee"/><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n",
			x, x, top, top+panelHeight, x, top+panelHeight+15, number(v))
	}
	if last {
		fmt.Fprintf(b, `<text x="%.0f" y="%.1f" text-anchor="middle">%s</text>`+"\n", (leftMargin+figureWidth-rightMargin)/2, top+panelHeight+34, html.EscapeString(f.x.label))
	}
	free := 0.0 // where the last label ends
	for _, m := range f.marks {
		x := across.at(m.x)
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#c33" stroke-dasharray="2,3"/>`, x, x, top, top+panelHeight)
		if x >= free { // where many happen not each has room for its name
			fmt.Fprintf(b, `<text x="%.1f" y="%.1f" font-size="9" fill="#c33">%s</text>`, x+2, top+9, html.EscapeString(m.label))
			free = x + 6 + 5*float64(len(m.label))
		}
		b.WriteByte('\n')
	}
	legend := figureWidth - rightMargin
	for _, l := range slices.Backward(p.lines) {
		if l.name != "" {
			legend -= 7*float64(len(l.name)) + 26
			fmt.Fprintf(b, `<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="3"/><text x="%.0f" y="%.1f">%s</text>`+"\n",
				legend, legend+16, top-14, top-14, l.color, legend+20, top-10, html.EscapeString(l.name))
		}
		for _, run := range known(l, across, up) {
			fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`+"\n", l.color, strings.Join(run, " "))
			if l.dots || len(run) == 1 {
				for _, at := range run {
					x, y, _ := strings.Cut(at, ",")
					fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="3" fill="%s"/>`, x, y, l.color)
				}
				b.WriteByte('\n')
			}
		}
	}
}

// known splits a line at samples that are not known, into runs of "x,y".
func known(l line, across, up scale) (runs [][]string) {
	var run []string
	for i := range l.x {
		if math.IsNaN(l.y[i]) {
			if len(run) > 0 {
				runs = append(runs, run)
			}
			run = nil
			continue
		}
		run = append(run, fmt.Sprintf("%.1f,%.1f", across.at(l.x[i]), up.at(l.y[i])))
	}
	if len(run) > 0 {
		runs = append(runs, run)
	}
	return runs
}

// scale maps values low..high to pixels from..to.
type scale struct {
	axis
	low, high, from, to float64
}

func scaleOf(a axis, values []float64, from, to float64) scale {
	s := scale{axis: a, low: math.Inf(1), high: math.Inf(-1), from: from, to: to}
	for _, v := range values {
		if !math.IsNaN(v) && (!a.log || v > 0) {
			s.low, s.high = min(s.low, v), max(s.high, v)
		}
	}
	if s.low > s.high {
		s.low, s.high = 1, 1
	}
	if a.log {
		// Whole decades.
		s.low, s.high = math.Pow(10, math.Floor(math.Log10(s.low))), math.Pow(10, math.Ceil(math.Log10(s.high)))
		if s.low == s.high {
			s.high *= 10
		}
		return s
	}
	if a.zero {
		s.low = min(0, s.low)
	}
	if s.low == s.high {
		s.high++
	}
	s.high += (s.high - s.low) / 20
	return s
}

// at is the place of a value. On a logarithmic scale 0 lies at the bottom.
func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log10(max(v, s.low)), math.Log10(s.low), math.Log10(s.high)
	}
	return s.from + (v-low)/(high-low)*(s.to-s.from)
}

// ticks are round values on the scale.
func (s scale) ticks() (out []float64) {
	if s.log {
		for v := s.low; v <= s.high*1.0001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/2)))
	for _, f := range []float64{5, 2} {
		if (s.high-s.low)/(step*f) >= 3 {
			step *= f
			break
		}
	}
	for v := math.Ceil(s.low/step) * step; v <= s.high; v += step {
		out = append(out, v)
	}
	return out
}

// number writes a tick in few characters.
func number(v float64) string {
	switch {
	case math.Abs(v) >= 1e6:
		return fmt.Sprintf("%gM", math.Round(v/1e4)/100)
	case math.Abs(v) >= 1e4:
		return fmt.Sprintf("%gk", math.Round(v/1e1)/100)
	default:
		return fmt.Sprintf("%g", math.Round(v*1e4)/1e4)
	}
}
