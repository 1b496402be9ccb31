package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"replicator/internal/observe"
	"replicator/internal/status"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/heartbeat"
)

// groupFacts says in a line how the groups of a link are kept.
func groupFacts(s *checkpoint.Status) string {
	if s.Mode == "starting" {
		return "not followed yet"
	}
	parts := []string{words.Number(int64(len(s.Groups))) + " followed by " + observe.Printable(s.Mode)}
	if s.CurrentAge != nil {
		parts = append(parts, "all commits known up to "+words.Seconds(*s.CurrentAge)+" ago")
	}
	if s.Latency.Count > 0 {
		parts = append(parts, fmt.Sprintf("checkpointed p50 %s, p99 %s", quantile(&s.Latency, 0.5), quantile(&s.Latency, 0.99)))
	}
	return strings.Join(parts, ", ")
}

// heartbeatFacts says in a line how heartbeats are written.
func heartbeatFacts(s *heartbeat.Status) string {
	if s.Age == nil {
		return "none written yet"
	}
	return words.Number(s.Written) + " written, the last " + words.Seconds(*s.Age) + " ago"
}

// groupTable shows the groups, those first whose offsets the target has not got.
func (c screen) groupTable(b *strings.Builder, l *status.Link) {
	if l.Checkpoints == nil || len(l.Checkpoints.Groups) == 0 {
		return
	}
	groups := slices.Clone(l.Checkpoints.Groups)
	notPlaced := func(g *checkpoint.GroupStatus) (n int) {
		for _, of := range g.NotPlaced {
			n += of
		}
		return n
	}
	slices.SortStableFunc(groups, func(x, y checkpoint.GroupStatus) int {
		return cmp.Or(cmp.Compare(notPlaced(&y), notPlaced(&x)), cmp.Compare(y.Missing, x.Missing), cmp.Compare(y.Delay, x.Delay))
	})
	shown := groups
	if c.lanes > 0 && len(shown) > c.lanes {
		shown = shown[:c.lanes]
	}
	g := grid{flexible: 0, columns: []column{{name: "GROUP"}, {name: "PARTITIONS", right: true}, {name: "OUTCOMES"}, {name: "BEHIND", right: true}, {name: "MISSING", right: true}, {name: "NOT PLACED"}}}
	if c.wide {
		g.columns = append(g.columns, column{name: "PLACED", right: true}, column{name: "DELAY", right: true}, column{name: "TYPE"}, column{name: "WHY"})
	}
	for i := range shown {
		gr := &shown[i]
		row := []string{
			observe.Printable(gr.Group), words.Number(int64(gr.Partitions)), counts(gr.Outcomes), words.Number(gr.Behind), words.Number(gr.Missing), cmp.Or(counts(gr.NotPlaced), "-"),
		}
		if c.wide {
			row = append(row, words.Number(int64(gr.Placed)), words.Seconds(gr.Delay), gr.Type, cmp.Or(observe.Printable(gr.Detail), "-"))
		}
		g.rows = append(g.rows, row)
	}
	c.table(b, g)
	if n := len(groups) - len(shown); n > 0 {
		fmt.Fprintf(b, "  ... %s more (--lanes 0 shows all)\n", words.Count(int64(n), "group"))
	}
}

// counts writes "2 exact, 1 end".
func counts[K ~string](of map[K]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, words.Number(int64(of[k]))+" "+observe.Printable(string(k)))
	}
	return strings.Join(parts, ", ")
}
