package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicator/internal/status"

	"replicator/internal/observe"
	"replicator/internal/stats"
	"replicator/internal/words"
	"replicator/pkg/mirror"
)

// screen turns a status into text for people.
type screen struct {
	width  int  // 0: any
	colour bool // terminals obey colours
	wide   bool
	lanes  int // at most so many a link; 0: all
}

func newScreen(out io.Writer, o statusOptions) screen {
	width, terminal := terminalWidth(out)
	return screen{width: width, colour: terminal && os.Getenv("NO_COLOR") == "", wide: o.output == "wide", lanes: o.lanes}
}

const (
	maxReasons = 8  // groups of lanes with the same reason
	maxEvents  = 10 // in a table; all with -o wide
)

// render prints a status; before, if any, is an earlier one to count rates from.
func (c screen) render(s, before *status.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "replicator %s on %s, up %s, buffers %s of %s\n", observe.Printable(s.Version), observe.Printable(s.Instance),
		words.Span(s.Time.Sub(s.Started)), words.Size(s.Memory.UsedBytes), words.Size(s.Memory.LimitBytes))
	for _, alias := range slices.Sorted(maps.Keys(s.BoundaryRefusals)) {
		if n := s.BoundaryRefusals[alias]; n > 0 {
			fmt.Fprintf(&b, "%s: %s of cluster %s refused, outside its boundary\n", c.paint(red, "boundary"), words.Count(n, "connection"), observe.Printable(alias))
		}
	}
	for i := range s.Authority {
		if a := &s.Authority[i]; a.Drill != nil {
			c.wrapped(&b, observe.Printable(a.Pair)+": ", lastDrill(c, a.Drill, s.Time))
		}
	}
	if len(s.Links) == 0 {
		b.WriteString("no link is running\n")
	}
	for i := range s.Links {
		b.WriteByte('\n')
		c.link(&b, s, &s.Links[i], rateOf(s, before, i))
	}
	return b.String()
}

// rate is what a link did between two looks.
type rate struct {
	records, bytes float64 // a second
	latency        stats.Histogram
}

// rateOf compares link i with itself in an earlier look; nil: there was none, or
// the daemon was started in between.
func rateOf(s, before *status.Status, i int) *rate {
	if before == nil || !before.Started.Equal(s.Started) || before.Instance != s.Instance {
		return nil
	}
	l := &s.Links[i]
	at := slices.IndexFunc(before.Links, func(o status.Link) bool { return o.Name == l.Name && o.State != observe.Silent })
	seconds := s.Time.Sub(before.Time).Seconds()
	if at < 0 || seconds <= 0 || l.State == observe.Silent {
		return nil
	}
	old := &before.Links[at]
	records, bytes := copied(l)
	oldRecords, oldBytes := copied(old)
	r := &rate{records: float64(records-oldRecords) / seconds, bytes: float64(bytes-oldBytes) / seconds}
	if len(old.Latency.Counts) == len(l.Latency.Counts) && l.Latency.Count >= old.Latency.Count {
		r.latency = stats.Histogram{Bounds: l.Latency.Bounds, Count: l.Latency.Count - old.Latency.Count}
		for k, n := range l.Latency.Counts {
			r.latency.Counts = append(r.latency.Counts, n-old.Latency.Counts[k])
		}
	}
	return r
}

// copied counts what went to the target, by any route.
func copied(l *status.Link) (records, bytes int64) {
	for _, r := range l.Routes {
		if r.Route == "forward" || r.Route == "repack" {
			records += r.Records
			bytes += r.Bytes
		}
	}
	return records, bytes
}

func (c screen) link(b *strings.Builder, s *status.Status, l *status.Link, r *rate) {
	fmt.Fprintf(b, "%s  %s", c.paint(bold, observe.Printable(l.Name)), c.state(string(l.State)))
	if l.State == observe.Silent {
		b.WriteString("\n  its loop does not answer: nothing else is known\n")
		return
	}
	if !l.Ready {
		b.WriteString("  " + c.paint(red, "not ready"))
	}
	fmt.Fprintf(b, "  %s\n", lag(l))
	if l.Reason != "" && !explained(l) {
		c.wrapped(b, "  ", observe.Printable(l.Reason))
	}
	c.facts(b, l, r)
	c.reasons(b, l)
	c.laneTable(b, l)
	c.groupTable(b, l)
	c.routeTable(b, l)
	c.eventTable(b, s, l)
}

// guardFacts says how the fence of a closed link is kept.
func guardFacts(g *mirror.GuardStatus) string {
	kept := fmt.Sprintf("%s of %s fenced by this daemon", words.Number(int64(g.Fenced)), words.Count(int64(g.Lanes), "lane"))
	if g.Last != nil {
		kept += ", last " + g.Last.UTC().Format(time.RFC3339)
	}
	if g.Denied > 0 {
		kept += fmt.Sprintf(", %s kept out by a rule", words.Count(int64(g.Denied), "lane"))
	}
	return kept + ", every " + words.Seconds(g.Every.Seconds())
}

func lag(l *status.Link) string {
	switch {
	case l.LagRecords == nil && l.LagSeconds == nil:
		return "lag unknown"
	case l.LagSeconds == nil:
		return "lag " + words.Count(*l.LagRecords, "record")
	case l.LagRecords == nil:
		return "behind " + words.Seconds(*l.LagSeconds)
	case *l.LagRecords == 0:
		return "up to date"
	}
	return fmt.Sprintf("lag %s, behind %s", words.Count(*l.LagRecords, "record"), words.Seconds(*l.LagSeconds))
}

// facts are the lines about the whole link.
func (c screen) facts(b *strings.Builder, l *status.Link, r *rate) {
	fact := func(name, value string) { c.wrapped(b, fmt.Sprintf("  %-9s ", name), value) }
	var states []string
	for _, st := range mirror.LaneStates {
		if n := l.LaneStates[st]; n > 0 {
			states = append(states, fmt.Sprintf("%s %s", words.Number(int64(n)), c.state(string(st))))
		}
	}
	if len(states) == 0 {
		states = []string{"none assigned to this daemon"}
	}
	fact("lanes", strings.Join(states, ", "))
	if l.Guard != nil {
		fact("fence", guardFacts(l.Guard))
		if l.Guard.Assumed != "" {
			fact("", c.paint(yellow, observe.Printable(l.Guard.Assumed)))
		}
		if l.Guard.Error != "" {
			fact("", c.paint(yellow, observe.Printable(l.Guard.Error)))
		}
	}
	if l.Checkpoints != nil {
		fact("groups", groupFacts(l.Checkpoints))
		if l.Checkpoints.Reason != "" {
			fact("", c.paint(yellow, observe.Printable(l.Checkpoints.Reason)))
		}
	}
	if l.Heartbeats != nil {
		fact("heartbeat", heartbeatFacts(l.Heartbeats))
		if l.Heartbeats.Error != "" {
			fact("", c.paint(yellow, observe.Printable(l.Heartbeats.Error)))
		}
	}
	if l.Verify != nil {
		fact("verify", c.verifyFacts(l.Verify))
		if l.Verify.Error != "" {
			fact("", c.paint(yellow, observe.Printable(l.Verify.Error)))
		}
	}
	latency := &l.Latency
	if r != nil {
		fact("rate", fmt.Sprintf("%s records/s, %s/s", words.Number(int64(math.Round(r.records))), words.Size(int64(r.bytes))))
		latency = &r.latency
	}
	if latency.Count > 0 {
		since := ""
		if r == nil {
			since = " since the start"
		}
		fact("latency", fmt.Sprintf("p50 %s, p99 %s%s", quantile(latency, 0.5), quantile(latency, 0.99), since))
	}
	flow := "in flight " + words.Size(l.InFlightBytes)
	if l.JournalAge != nil {
		flow += ", journal written " + words.Seconds(*l.JournalAge) + " ago"
	}
	flow += ", openings " + words.Number(l.Openings)
	fact("flow", flow)
	var throttled []string
	for _, side := range []struct {
		name string
		time float64
	}{{"source", l.ThrottleSource}, {"target", l.ThrottleTarget}} {
		if side.time > 0 {
			throttled = append(throttled, words.Seconds(side.time)+" by "+side.name)
		}
	}
	if len(throttled) > 0 {
		fact("throttled", strings.Join(throttled, ", ")+" since the start")
	}
	if len(l.Errors) > 0 {
		var parts []string
		for _, class := range slices.SortedFunc(maps.Keys(l.Errors), func(a, d string) int {
			return cmp.Or(cmp.Compare(l.Errors[d], l.Errors[a]), cmp.Compare(a, d))
		}) {
			parts = append(parts, observe.Printable(class)+" "+words.Number(l.Errors[class]))
		}
		fact("retried", strings.Join(parts, ", "))
	}
	if c.wide {
		fact("clusters", fmt.Sprintf("%s %s -> %s %s", observe.Printable(l.Source), observe.Printable(l.SourceID), observe.Printable(l.Target), observe.Printable(l.TargetID)))
		fact("network", fmt.Sprintf("%s read from source, %s written to target", words.Size(l.SourceBytes), words.Size(l.TargetBytes)))
	}
	for _, w := range l.Warnings {
		fact(c.paint(yellow, "warning")+"  ", observe.Printable(w))
	}
}

// explained reports whether reasons says more than the link's own reason, which
// is the first of them.
func explained(l *status.Link) bool {
	return slices.ContainsFunc(l.Lanes, func(ln mirror.LaneStatus) bool { return needsReason(&ln) })
}

func needsReason(ln *mirror.LaneStatus) bool {
	return ln.Reason != "" && ln.State != mirror.LaneCopying && ln.State != mirror.LaneClosed // the link's reason is theirs
}

// reasons says why lanes are not copying, lanes with the same reason together.
func (c screen) reasons(b *strings.Builder, l *status.Link) {
	type group struct {
		state  mirror.LaneState
		reason string
		lanes  []string
	}
	var groups []*group
	for i := range l.Lanes {
		ln := &l.Lanes[i]
		if !needsReason(ln) {
			continue
		}
		at := slices.IndexFunc(groups, func(g *group) bool { return g.state == ln.State && g.reason == ln.Reason })
		if at < 0 {
			if len(groups) > 200 {
				continue // 10,000 lanes with 10,000 reasons
			}
			at = len(groups)
			groups = append(groups, &group{state: ln.State, reason: ln.Reason})
		}
		groups[at].lanes = append(groups[at].lanes, laneName(ln))
	}
	if len(groups) == 0 {
		return
	}
	slices.SortStableFunc(groups, func(a, d *group) int { return cmp.Compare(rank(a.state), rank(d.state)) })
	b.WriteByte('\n')
	for i, g := range groups {
		if i == maxReasons && !c.wide {
			fmt.Fprintf(b, "  ... %s more\n", words.Count(int64(len(groups)-i), "reason"))
			break
		}
		names := g.lanes
		more := ""
		if len(names) > 3 {
			more = fmt.Sprintf(" and %s more", words.Number(int64(len(names)-3)))
			names = names[:3]
		}
		fmt.Fprintf(b, "  %s %s%s\n", c.state(string(g.state)), strings.Join(names, ", "), more)
		c.wrapped(b, "      ", observe.Printable(g.reason))
	}
}

func rank(s mirror.LaneState) int {
	if i := slices.Index(mirror.LaneStates, s); i >= 0 {
		return i
	}
	return len(mirror.LaneStates)
}

func laneName(ln *mirror.LaneStatus) string {
	return observe.Printable(ln.Topic) + "-" + strconv.Itoa(int(ln.Partition))
}

func (c screen) laneTable(b *strings.Builder, l *status.Link) {
	if len(l.Lanes) == 0 {
		return
	}
	sorted := make([]*mirror.LaneStatus, len(l.Lanes))
	for i := range l.Lanes {
		sorted[i] = &l.Lanes[i]
	}
	slices.SortFunc(sorted, func(a, d *mirror.LaneStatus) int {
		// A lag that is not known may be the largest.
		known := func(ln *mirror.LaneStatus) int64 {
			if ln.LagRecords == nil {
				return math.MaxInt64
			}
			return *ln.LagRecords
		}
		return cmp.Or(cmp.Compare(rank(a.State), rank(d.State)), cmp.Compare(known(d), known(a)),
			cmp.Compare(a.Topic, d.Topic), cmp.Compare(a.Partition, d.Partition))
	})
	shown := sorted
	if c.lanes > 0 && len(shown) > c.lanes {
		shown = shown[:c.lanes]
	}
	g := grid{flexible: 0, columns: []column{{name: "LANE"}, {name: "STATE"}, {name: "LAG", right: true}, {name: "BEHIND", right: true}, {name: "POSITION", right: true}, {name: "SOURCE END", right: true}}}
	if c.wide {
		g.columns = append(g.columns, column{name: "STABLE", right: true}, column{name: "START", right: true}, column{name: "TARGET"}, column{name: "TARGET END", right: true},
			column{name: "ORDINAL", right: true}, column{name: "EPOCH", right: true}, column{name: "BROKERS"}, column{name: "IN FLIGHT", right: true}, column{name: "QUEUED", right: true},
			column{name: "RECORDS", right: true}, column{name: "BYTES", right: true}, column{name: "OPENINGS", right: true})
	}
	for _, ln := range shown {
		row := []string{laneName(ln), c.state(string(ln.State)), words.Optional(ln.LagRecords, words.Number), words.Optional(ln.LagSeconds, words.Seconds), words.Offset(ln.Position), words.Offset(ln.SourceEnd)}
		if c.wide {
			row = append(row, words.Offset(ln.SourceStable), words.Offset(ln.SourceStart), observe.Printable(ln.TargetTopic), words.Offset(ln.TargetEnd),
				words.Offset(ln.Ordinal), epoch(ln), broker(ln.SourceBroker)+"->"+broker(ln.TargetBroker), words.Size(ln.InFlightBytes), words.Size(ln.QueuedBytes),
				words.Number(ln.Records), words.Size(ln.Bytes), words.Number(ln.Openings))
		}
		g.rows = append(g.rows, row)
	}
	c.table(b, g)
	if n := len(sorted) - len(shown); n > 0 {
		states := map[mirror.LaneState]int{}
		for _, ln := range sorted[len(shown):] {
			states[ln.State]++
		}
		var parts []string
		for _, st := range mirror.LaneStates {
			if states[st] > 0 {
				parts = append(parts, words.Number(int64(states[st]))+" "+string(st))
			}
		}
		fmt.Fprintf(b, "  ... %s more: %s (--lanes 0 shows all)\n", words.Number(int64(n)), strings.Join(parts, ", "))
	}
}

// epoch names the lane's holder, producer id and epoch; before the first opening
// there is none.
func epoch(ln *mirror.LaneStatus) string {
	if ln.Openings == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", ln.ProducerID, ln.Epoch)
}

func broker(id int32) string {
	if id < 0 {
		return "-"
	}
	return strconv.Itoa(int(id))
}

func (c screen) routeTable(b *strings.Builder, l *status.Link) {
	if len(l.Routes) == 0 {
		return
	}
	g := grid{flexible: -1, columns: []column{{name: "ROUTE"}, {name: "WHY"}, {name: "CODEC"}, {name: "BATCHES", right: true}, {name: "RECORDS", right: true}, {name: "BYTES", right: true}}}
	for _, r := range l.Routes {
		g.rows = append(g.rows, []string{c.state(r.Route), observe.Printable(r.Reason), observe.Printable(r.Codec), words.Number(r.Batches), words.Number(r.Records), words.Size(r.Bytes)})
	}
	c.table(b, g)
}

func (c screen) eventTable(b *strings.Builder, s *status.Status, l *status.Link) {
	if len(l.Events) == 0 {
		return
	}
	events := slices.Clone(l.Events)
	slices.Reverse(events) // the newest first
	rest := 0
	if !c.wide && len(events) > maxEvents {
		rest = len(events) - maxEvents
		events = events[:maxEvents]
	}
	g := grid{flexible: 3, wrap: true, columns: []column{{name: "EVENT"}, {name: "WHEN", right: true}, {name: "LANE"}, {name: "DETAIL"}}}
	for _, e := range events {
		when := words.Span(s.Time.Sub(e.Time)) + " ago"
		if c.wide {
			when = e.Time.UTC().Format("2006-01-02 15:04:05Z")
		}
		lane := observe.Printable(e.Lane)
		if lane == "" {
			lane = "-"
		}
		if c.width > 0 && !c.wide {
			lane = snip(lane, max(12, c.width/4))
		}
		g.rows = append(g.rows, []string{observe.Printable(e.Kind), when, lane, observe.Printable(e.Detail)})
	}
	c.table(b, g)
	if rest > 0 {
		fmt.Fprintf(b, "  ... %d older (-o wide shows them)\n", rest)
	}
}

// lines says the same in one line a link, for --watch without a terminal.
func lines(s, before *status.Status) string {
	var b strings.Builder
	for i := range s.Links {
		l := &s.Links[i]
		fmt.Fprintf(&b, "%s %s %s", s.Time.UTC().Format(time.RFC3339), observe.Printable(l.Name), observe.Printable(string(l.State)))
		if l.State != observe.Silent {
			fmt.Fprintf(&b, " %s", lag(l))
			for _, st := range mirror.LaneStates {
				if n := l.LaneStates[st]; n > 0 {
					fmt.Fprintf(&b, ", %d %s", n, st)
				}
			}
			if r := rateOf(s, before, i); r != nil {
				fmt.Fprintf(&b, ", %s records/s, %s/s", words.Number(int64(math.Round(r.records))), words.Size(int64(r.bytes)))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
