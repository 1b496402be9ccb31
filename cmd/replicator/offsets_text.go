package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/offsets"
)

// outcome colours a word by how much it costs.
func (c screen) outcome(o offsets.Outcome) string {
	switch o {
	case offsets.Unknown:
		return c.paint(red, o.String())
	case offsets.Ahead, offsets.InGap, offsets.Before:
		return c.paint(yellow, o.String())
	}
	return o.String()
}

// repeat writes how many records are read again.
func repeat(most *int64) string {
	switch {
	case most == nil:
		return "?"
	case *most == 0:
		return "0"
	}
	return "<= " + words.Number(*most)
}

func optionalOffset(n *int64) string { return words.Optional(n, words.Offset) }

// instant writes a time of a log or journal.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// table is for groups.
func (d *translationsDoc) table(c screen) string {
	var b strings.Builder
	if len(d.Offsets) == 0 {
		b.WriteString("no offsets\n")
		return b.String()
	}
	g := grid{flexible: 0, columns: []column{
		{name: "GROUP"}, {name: "TOPIC"}, {name: "PARTITION", right: true}, {name: "SOURCE", right: true}, {name: "TARGET", right: true},
		{name: "OUTCOME"}, {name: "REPEAT", right: true}, {name: "AGE", right: true},
	}}
	if c.wide {
		g.columns = append(g.columns, column{name: "TARGET TOPIC"}, column{name: "TYPE"}, column{name: "COMMITTED"}, column{name: "MISSING", right: true}, column{name: "DETAIL"})
	}
	outcomes := map[offsets.Outcome]int{}
	for i := range d.Offsets {
		o := &d.Offsets[i]
		outcomes[o.Outcome]++
		row := []string{
			observe.Printable(o.Group), observe.Printable(o.Topic), strconv.Itoa(int(o.Partition)), optionalOffset(o.Source), optionalOffset(o.Target),
			c.outcome(o.Outcome), repeat(o.Repeat), age(d.Time, o.Committed),
		}
		if c.wide {
			row = append(row, orDash(o.TargetTopic), o.Type, words.Optional(o.Committed, instant), words.Number(o.Missing), orDash(o.Detail))
		}
		g.rows = append(g.rows, row)
	}
	c.table(&b, g)
	fmt.Fprintf(&b, "\n%s: %s\n", words.Count(int64(len(d.Offsets)), "offset"), outcomeCounts(c, outcomes))
	return unindented(&b)
}

// single is for one offset without a group.
func (d *translationsDoc) single(c screen, back bool) string {
	g := grid{flexible: 0, columns: []column{
		{name: "TOPIC"}, {name: "PARTITION", right: true}, {name: "SOURCE", right: true}, {name: "TARGET", right: true}, {name: "OUTCOME"}, {name: "MISSING", right: true}, {name: "REPEAT", right: true},
	}}
	if back {
		g.columns[2], g.columns[3] = g.columns[3], g.columns[2]
	}
	if c.wide {
		g.columns = append(g.columns, column{name: "TARGET TOPIC"}, column{name: "DETAIL"})
	}
	var b strings.Builder
	for i := range d.Offsets {
		o := &d.Offsets[i]
		row := []string{observe.Printable(o.Topic), strconv.Itoa(int(o.Partition)), optionalOffset(o.Source), optionalOffset(o.Target), c.outcome(o.Outcome), words.Number(o.Missing), repeat(o.Repeat)}
		if back {
			row[2], row[3] = row[3], row[2]
		}
		if c.wide {
			row = append(row, orDash(o.TargetTopic), orDash(o.Detail))
		}
		g.rows = append(g.rows, row)
	}
	c.table(&b, g)
	return unindented(&b)
}

// csv prints what kafka-consumer-groups --reset-offsets --from-file takes. Offsets
// that cannot stand in it are left out and named.
func (d *translationsDoc) csv(out io.Writer, oneGroup bool) (left []string, err error) {
	w := csv.NewWriter(out)
	for i := range d.Offsets {
		o := &d.Offsets[i]
		name := fmt.Sprintf("%s %s-%d", o.Group, o.Topic, o.Partition)
		switch {
		case o.Target == nil:
			left = append(left, name+" (unknown)")
			continue
		case o.Type == "share":
			left = append(left, name+" (share group)")
			continue
		case strings.ContainsAny(o.Group, "\r\n"): // Kafka's tool cuts the file into lines first
			left = append(left, name+" (line break in its name)")
			continue
		}
		row := []string{o.TargetTopic, strconv.Itoa(int(o.Partition)), strconv.FormatInt(*o.Target, 10)}
		if !oneGroup {
			row = append([]string{o.Group}, row...)
		}
		if err := w.Write(row); err != nil {
			return left, fmt.Errorf("print csv: %w", err)
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return left, fmt.Errorf("print csv: %w", err)
	}
	return left, nil
}

// oneGroup tells whether all offsets are of one group.
func (d *translationsDoc) oneGroup() bool {
	for i := range d.Offsets {
		if d.Offsets[i].Group != d.Offsets[0].Group {
			return false
		}
	}
	return true
}

func outcomeCounts(c screen, counts map[offsets.Outcome]int) string {
	var parts []string
	for o := offsets.Unknown; o <= offsets.Before; o++ {
		if n := counts[o]; n > 0 {
			parts = append(parts, words.Number(int64(n))+" "+c.outcome(o))
		}
	}
	return strings.Join(parts, ", ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return observe.Printable(s)
}

// unindented takes off the empty line that a table begins with.
func unindented(b *strings.Builder) string { return strings.TrimPrefix(b.String(), "\n") }
