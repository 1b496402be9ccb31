package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/verify"
)

// shownDifferences is how many of them stand below the table.
const shownDifferences = 20

// verifyRow is a line of the table: a topic, or a lane.
type verifyRow struct {
	name     string
	lanes    int
	failed   int
	counts   verify.Counts
	from, to int64 // of a lane
	checksum string
}

func (d *verifyDoc) rows(wide bool) []verifyRow {
	var rows []verifyRow
	at := map[string]int{}
	for i := range d.Lanes {
		l := &d.Lanes[i]
		name := observe.Printable(l.Topic)
		if wide {
			name = fmt.Sprintf("%s-%d", name, l.Partition)
		}
		n, ok := at[name]
		if !ok {
			n, at[name] = len(rows), len(rows)
			rows = append(rows, verifyRow{name: name, from: l.From, to: l.To, checksum: l.Checksum})
		}
		r := &rows[n]
		r.lanes++
		if l.Error != "" {
			r.failed++
		}
		r.counts = r.counts.Plus(l.Counts)
	}
	return rows
}

func (r *verifyRow) result(c screen) string {
	switch {
	case r.counts.Differences() > 0:
		return c.paint(red, "different")
	case r.failed > 0:
		return c.paint(yellow, "not compared")
	}
	return c.paint(green, "equal")
}

func (d *verifyDoc) table(c screen) string {
	var b strings.Builder
	g := grid{flexible: 0, columns: []column{
		{name: "TOPIC"}, {name: "LANES", right: true}, {name: "EQUAL", right: true}, {name: "CHANGED", right: true}, {name: "MISSING", right: true}, {name: "EXTRA", right: true},
		{name: "REORDERED", right: true}, {name: "REMOVED", right: true}, {name: "READ", right: true}, {name: "RESULT"},
	}}
	if c.wide {
		g.columns[0].name, g.columns[1].name = "LANE", "FROM"
		g.columns = append(g.columns, column{name: "TO", right: true}, column{name: "NOT OPENED", right: true}, column{name: "CHECKSUM"})
	}
	for _, r := range d.rows(c.wide) {
		n := r.counts
		second := words.Number(int64(r.lanes))
		if c.wide {
			second = words.Number(r.from)
		}
		row := []string{
			r.name, second, words.Number(n.Equal), words.Number(n.Changed), words.Number(n.Missing), words.Number(n.Extra), words.Number(n.Reordered),
			words.Number(n.Compacted + n.Retained + n.InGap + n.Stranded), words.Size(n.Bytes), r.result(c),
		}
		if c.wide {
			row = append(row, words.Number(r.to), words.Number(n.Closed), r.checksum)
		}
		g.rows = append(g.rows, row)
	}
	c.table(&b, g)
	d.differences(&b)
	fmt.Fprintf(&b, "\n%s compared in %s, checksum %s\n", words.Count(d.Total.Equal+d.Total.Differences(), "record"), words.Span(d.Took.Round(time.Millisecond)), d.Checksum)
	return unindented(&b)
}

// differences lists the first ones, those of each lane together, and what is not known.
func (d *verifyDoc) differences(b *strings.Builder) {
	shown, warned := 0, map[string]bool{}
	for i := range d.Lanes {
		l := &d.Lanes[i]
		for _, w := range l.Warnings {
			if !warned[w] {
				warned[w] = true
				fmt.Fprintf(b, "\nwarning: %s\n", observe.Printable(w))
			}
		}
		first := slices.Clone(l.First)
		slices.SortStableFunc(first, func(a, b verify.Difference) int {
			return cmp.Compare(max(a.SourceOffset, a.TargetOffset), max(b.SourceOffset, b.TargetOffset))
		})
		for _, f := range first {
			if shown == 0 {
				b.WriteByte('\n')
			}
			if shown++; shown <= shownDifferences {
				fmt.Fprintf(b, "%s-%d: %s\n", observe.Printable(l.Topic), l.Partition, observe.Printable(f.String()))
			}
		}
	}
	if n := d.Total.Differences() - int64(min(shown, shownDifferences)); n > 0 {
		fmt.Fprintf(b, "and %s more\n", words.Number(n))
	}
}

// verifyFacts tell how the daemon's own comparing does.
func (c screen) verifyFacts(v *verify.FollowStatus) string {
	text := fmt.Sprintf("%s compared of %s%% of the bytes", words.Count(v.Records, "record"), strconv.FormatFloat(100*v.Share, 'g', 3, 64))
	if v.LagSeconds != nil {
		text += ", up to " + words.Seconds(*v.LagSeconds) + " ago"
	}
	if v.Failed > 0 {
		text += ", " + c.paint(yellow, words.Count(v.Failed, "range")+" not compared")
	}
	if v.Differences > 0 {
		return text + ", " + c.paint(red, words.Count(v.Differences, "difference"))
	}
	return text + ", no difference"
}
