package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/rivo/uniseg"

	"replicator/internal/observe"
	"replicator/internal/stats"
	"replicator/internal/words"
)

// colour is a way to print on a terminal.
type colour int

const (
	bold   colour = 1
	red    colour = 31
	green  colour = 32
	yellow colour = 33
)

func (c screen) paint(how colour, s string) string {
	if !c.colour {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", how, s)
}

// state colours a word by how good it is.
func (c screen) state(s string) string {
	switch s {
	case "halted", "silent", "refuse":
		return c.paint(red, s)
	case "waiting", "opening", "draining", "starting", "degraded", "stopping":
		return c.paint(yellow, s)
	case "copying":
		return c.paint(green, s)
	}
	return observe.Printable(s)
}

// wrapped prints text behind a label, its further lines below its first.
func (c screen) wrapped(b *strings.Builder, label, s string) {
	indent := width(label)
	lines := []string{s}
	if c.width > 0 {
		lines = wrap(s, max(20, c.width-indent))
	}
	for i, line := range lines {
		if i > 0 {
			label = strings.Repeat(" ", indent)
		}
		b.WriteString(strings.TrimRight(label+line, " ") + "\n")
	}
}

// grid is a table of which one column gives way when the width is too small.
type grid struct {
	columns  []column
	rows     [][]string
	flexible int  // its number; -1: none
	wrap     bool // it goes on in the next line; else its middle is left out
}

type column struct {
	name  string
	right bool
}

const gap = 2 // between columns

// table prints a grid below an empty line.
func (c screen) table(b *strings.Builder, g grid) {
	widths := make([]int, len(g.columns))
	used := gap * (len(g.columns) - 1)
	for i, col := range g.columns {
		widths[i] = len(col.name)
		for _, row := range g.rows {
			widths[i] = max(widths[i], width(row[i]))
		}
		if i != g.flexible {
			used += widths[i]
		}
	}
	if c.width > 0 && !c.wide && g.flexible >= 0 {
		widths[g.flexible] = min(widths[g.flexible], max(12, c.width-used))
	}
	b.WriteByte('\n')
	head := make([]string, len(g.columns))
	for i, col := range g.columns {
		head[i] = col.name
	}
	g.row(b, widths, head)
	for _, row := range g.rows {
		if g.flexible < 0 {
			g.row(b, widths, row)
			continue
		}
		cell := []string{snip(row[g.flexible], widths[g.flexible])}
		if g.wrap {
			cell = wrap(row[g.flexible], widths[g.flexible])
		}
		for i, line := range cell {
			out := make([]string, len(row))
			if i == 0 {
				copy(out, row)
			}
			out[g.flexible] = line
			g.row(b, widths, out)
		}
	}
}

// row prints one line.
func (g grid) row(b *strings.Builder, widths []int, cells []string) {
	var line strings.Builder
	for i, cell := range cells {
		pad := strings.Repeat(" ", max(0, widths[i]-width(cell)))
		if g.columns[i].right {
			cell = pad + cell
		} else {
			cell += pad
		}
		line.WriteString(cell + strings.Repeat(" ", gap))
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// colours are what paint adds. Everything else in a cell is printable.
var colours = regexp.MustCompile("\x1b\\[[0-9]*m")

// width is how many columns of a terminal a text takes.
func width(s string) int { return uniseg.StringWidth(colours.ReplaceAllString(s, "")) }

// wrap cuts a text into lines, between words where it can.
func wrap(s string, limit int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(s, " ") {
		switch {
		case line == "":
			line = word
		case width(line)+1+width(word) <= limit:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
		for width(line) > limit && !strings.Contains(line, "\x1b") {
			r := []rune(line)
			n := min(limit, len(r)-1)
			for n > 1 && width(string(r[:n])) > limit {
				n--
			}
			lines = append(lines, string(r[:n]))
			line = string(r[n:])
		}
	}
	return append(lines, line)
}

// snip leaves out the middle of what is wider than limit: the beginning and the end
// of a lane's name tell it from others.
func snip(s string, limit int) string {
	r := []rune(s)
	if width(s) <= limit || len(r) <= limit || limit < 3 {
		return s
	}
	tail := (limit - 1) / 2
	return string(r[:limit-1-tail]) + "…" + string(r[len(r)-tail:])
}

// quantile says below which bound of a histogram a part of its observations lies.
func quantile(h *stats.Histogram, part float64) string {
	want := part * float64(h.Count)
	sum := uint64(0)
	for i, n := range h.Counts {
		if sum += n; float64(sum) >= want {
			return "<= " + words.Seconds(h.Bounds[i])
		}
	}
	if len(h.Bounds) == 0 {
		return "unknown"
	}
	return "> " + words.Seconds(h.Bounds[len(h.Bounds)-1])
}
