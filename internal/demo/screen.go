package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"replicator/internal/words"
)

const (
	defaultWidth = 80
	plainEvery   = 5 * time.Second // a line of progress where there is no terminal
	indent       = "         "     // of lines below a time
)

// screen is where the demo is told: lines that stay, and on a terminal a bar
// below them while it runs. It is safe for use by many.
type screen struct {
	out      io.Writer
	terminal bool
	color    bool
	width    int

	mu     sync.Mutex
	began  time.Time
	last   time.Time // of the last plain line of progress
	length time.Duration
	bar    *progressbar.ProgressBar
}

func newScreen(o Options) *screen {
	s := &screen{out: o.Out, terminal: o.Terminal, color: o.Color, width: o.Width}
	if s.width <= 0 {
		s.width = defaultWidth
	}
	return s
}

// color is a number of SGR, what terminals understand.
type color int

const (
	bold   color = 1
	faint  color = 2
	red    color = 31
	green  color = 32
	yellow color = 33
)

// paint colours a text, if there is colour.
func (s *screen) paint(t string, colors ...color) string {
	if !s.color {
		return t
	}
	for _, c := range colors {
		t = fmt.Sprintf("\x1b[%dm%s", c, t)
	}
	return t + "\x1b[0m"
}

// heading begins a part.
func (s *screen) heading(title string) { s.text(s.paint(title, bold) + "\n") }

// say prints a line below a heading.
func (s *screen) say(format string, args ...any) {
	s.text(s.fold("  ", fmt.Sprintf(format, args...)))
}

// begin starts the clock, and the bar for this long.
func (s *screen) begin(length time.Duration) {
	s.text("\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began, s.length = time.Now(), length
	s.last = s.began
	if !s.terminal {
		return
	}
	s.bar = progressbar.NewOptions(1000,
		progressbar.OptionSetWriter(s.out), progressbar.OptionSetWidth(20), progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionSetRenderBlankState(false),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}))
}

// event prints a line with its time; alarm the same, to be seen.
func (s *screen) event(format string, args ...any) { s.timed(fmt.Sprintf(format, args...)) }

func (s *screen) alarm(format string, args ...any) {
	s.timed(fmt.Sprintf(format, args...), yellow, bold)
}

// command prints a command line as a user would type it.
func (s *screen) command(format string, args ...any) {
	s.timed("$ "+fmt.Sprintf(format, args...), bold)
}

// step prints how one step of a command went.
func (s *screen) step(name, outcome, proof string, took float64) {
	c := green
	if outcome != "done" {
		c = yellow
	}
	label := fmt.Sprintf("%s  %-14s %s %5.1f s  ", indent, name, s.paint(fmt.Sprintf("%-7s", outcome), c), took)
	s.text(label + strings.TrimPrefix(s.fold(strings.Repeat(" ", len(indent)+34), proof), strings.Repeat(" ", len(indent)+34)))
}

// finding prints one part of the proof.
func (s *screen) finding(good bool, what, detail string) {
	word, c := "ok", green
	if !good {
		word, c = "FAIL", red
	}
	prefix := strings.Repeat(" ", 8)
	s.text("  " + s.paint(fmt.Sprintf("%-4s", word), c, bold) + "  " + strings.TrimPrefix(s.fold(prefix, what+": "+detail), prefix))
}

func (s *screen) timed(line string, colors ...color) {
	at := fmt.Sprintf("%6.1f s ", time.Since(s.began).Seconds())
	lines := strings.SplitAfter(s.fold(indent, line), "\n")
	for i, l := range lines {
		if body, ok := strings.CutSuffix(l, "\n"); ok && len(colors) > 0 {
			lines[i] = indent + s.paint(strings.TrimPrefix(body, indent), colors...) + "\n"
		}
	}
	s.text(s.paint(at, faint) + strings.TrimPrefix(strings.Join(lines, ""), indent))
}

// progress shows how far the consumer is.
func (s *screen) progress(processed, acknowledged int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("processed %s of %s records", words.Number(processed), words.Number(acknowledged))
	if s.began.IsZero() {
		return
	}
	if !s.terminal {
		if time.Since(s.last) >= plainEvery {
			s.last = time.Now()
			fmt.Fprintf(s.out, "%6.1f s %s\n", time.Since(s.began).Seconds(), line)
		}
		return
	}
	if s.bar == nil {
		return
	}
	s.bar.Describe(fmt.Sprintf("%-46s", "  "+line))
	// Full is what is proved, not what time has passed.
	_ = s.bar.Set(int(min(990, 1000*time.Since(s.began)/(s.length+s.length/10+1)))) // a bar that cannot be drawn is no fault
}

// close takes the bar away.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		_ = s.bar.Clear()
		s.bar = nil
	}
}

// print writes above the bar.
func (s *screen) text(t string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		_ = s.bar.Clear()
	}
	_, _ = io.WriteString(s.out, t) // nobody is left to tell
	if s.bar != nil {
		_ = s.bar.RenderBlank()
	}
}

// verdict prints the last line.
func (s *screen) verdict(good bool, line string) {
	c := green
	if !good {
		c = red
	}
	body := strings.TrimSuffix(s.fold("", line), "\n")
	lines := strings.Split(body, "\n")
	for i := range lines {
		lines[i] = s.paint(lines[i], c, bold)
	}
	s.text("\n" + strings.Join(lines, "\n") + "\n")
}

// fold breaks a line at spaces so that it fits a terminal; a file gets it whole.
func (s *screen) fold(prefix, line string) string {
	if !s.terminal {
		return prefix + line + "\n"
	}
	var b strings.Builder
	at := 0
	for word := range strings.SplitSeq(line, " ") {
		switch {
		case at == 0:
			b.WriteString(prefix)
			at = len(prefix)
		case at+1+len(word) > s.width-1:
			b.WriteString("\n" + prefix)
			at = len(prefix)
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String() + "\n"
}

// table prints rows of ASCII below a header. Columns from the number `left` on
// hold numbers and are aligned to the right.
func (s *screen) table(left int, rows ...[]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for i, row := range rows {
		line := ""
		for j, cell := range row {
			width := widths[j]
			if j < left {
				width = -width
			}
			line += fmt.Sprintf("  %*s", width, cell)
		}
		line = strings.TrimRight(line, " ")
		if i == 0 {
			line = s.paint(line, faint)
		}
		b.WriteString(line + "\n")
	}
	s.text(b.String())
}
