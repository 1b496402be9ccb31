package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/offsets"
)

type showOptions struct {
	targetOptions
	selection
	spans int
}

func newOffsetsShow(a *app) *cobra.Command {
	o := &showOptions{}
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what the link knows of the offsets of its lanes",
		Long: `Shows each lane's map of offsets: how far it was copied, where the source ended
when that was last seen and how long ago, and how large the map is. SOURCE and
TARGET are the next offsets of both sides; NOT COPIED is the source's end as last
seen minus SOURCE, an upper bound of the records that are not on the target.

With one lane chosen, -o wide and -o json also have its openings, gaps, cuts and
spans (runs of offsets that both sides count alike).

Exit codes: 0 done, 1 failed, 4 some lane could not be read.`,
		Example: `  replicator offsets show
  replicator offsets show --topic orders --partition 3 -o wide`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.showOffsets(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.targetOptions.add(a, cmd, "table", "wide", "json", "yaml")
	o.addLane(cmd)
	cmd.Flags().IntVar(&o.spans, "spans", 20, "show at most the last `n` spans of one lane; 0: all")
	return cmd
}

// lanesDoc is what offsets show prints as JSON.
type lanesDoc struct {
	Link  string    `json:"link"`
	Time  time.Time `json:"time"`  // when the target was read
	Lanes []laneDoc `json:"lanes"` // by topic and partition
}

// laneDoc is one lane. All offsets are next offsets.
type laneDoc struct {
	Topic       string `json:"topic"` // of the source
	Partition   int32  `json:"partition"`
	TargetTopic string `json:"target_topic,omitempty"`
	// Position is how far the lane was copied, as the target's log shows; absent: it
	// was opened and nothing is known yet.
	Position *pointDoc `json:"position,omitempty"`
	// SourceEnd is the source's high watermark as last seen, at AsOf.
	SourceEnd *int64     `json:"source_end,omitempty"`
	AsOf      *time.Time `json:"source_end_as_of,omitempty"`
	NotCopied *int64     `json:"not_copied_at_most,omitempty"` // source end minus position
	Newest    *time.Time `json:"newest_record,omitempty"`      // newest timestamp among the records copied
	Closed    bool       `json:"closed"`                       // its last writer stopped cleanly
	LogStart  *int64     `json:"target_log_start,omitempty"`
	LogEnd    *int64     `json:"target_log_end,omitempty"`
	Openings  int        `json:"openings"`
	Spans     int        `json:"spans"`
	MapBytes  int        `json:"map_bytes"`
	Gaps      int        `json:"gaps"`
	InGaps    int64      `json:"offsets_in_gaps"`
	Cuts      int        `json:"cuts"`
	Warning   string     `json:"warning,omitempty"`
	Error     string     `json:"error,omitempty"` // why nothing more is known

	Detail *laneDetailDoc `json:"detail,omitempty"` // with one lane only
}

type pointDoc struct {
	Ordinal int64 `json:"ordinal"`
	Source  int64 `json:"source_offset"`
	Target  int64 `json:"target_offset"`
}

type laneDetailDoc struct {
	Openings []openingDoc `json:"openings"` // the oldest first
	Gaps     []gapDoc     `json:"gaps"`
	Cuts     []cutDoc     `json:"cuts"`
	Spans    []spanDoc    `json:"spans"` // the last ones
}

type openingDoc struct {
	pointDoc
	ProducerID int64     `json:"producer_id"`
	Epoch      int16     `json:"epoch"`
	Time       time.Time `json:"time"`
	Instance   string    `json:"instance"`
}

type gapDoc struct {
	From   int64     `json:"from_source_offset"`
	To     int64     `json:"to_source_offset"` // the first after it
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

type cutDoc struct {
	pointDoc
	Time time.Time `json:"time"`
}

type spanDoc struct {
	pointDoc
	Records int64 `json:"records"`
}

func laneOf(l offsets.Lane, targetTopic string, tail offsets.Tail, found bool) laneDoc {
	d := laneDoc{Topic: l.Topic, Partition: l.Partition, TargetTopic: targetTopic}
	switch {
	case targetTopic == "":
		d.Error = "the topic is not among those the link copies"
		return d
	case !found:
		d.Error = "the link has not copied this partition"
		return d
	case tail.Err != nil:
		d.Error = tail.Err.Error()
	default:
		d.LogStart, d.LogEnd, d.Warning = known(tail.Start), known(tail.End), tail.Warning
	}
	s := tail.State
	d.Openings, d.MapBytes, d.Cuts, d.Gaps = len(s.Epochs()), s.Bytes(), len(s.Cuts()), len(s.Gaps())
	for _, g := range s.Gaps() {
		d.InGaps += g.To - g.From
	}
	for range s.Runs() {
		d.Spans++
	}
	if p, ok := s.Position(); ok {
		d.Position = &pointDoc{p.Ordinal, p.Source, p.Target}
		d.SourceEnd, d.AsOf, d.Closed = known(p.SourceEnd), when(p.Time), p.Closed
		d.NotCopied = known(max(0, p.SourceEnd-p.Source))
		d.Newest = when(time.UnixMilli(p.NewestTimestamp))
	}
	return d
}

func detailOf(s offsets.LaneState, spans int) *laneDetailDoc {
	d := &laneDetailDoc{Openings: []openingDoc{}, Gaps: []gapDoc{}, Cuts: []cutDoc{}, Spans: []spanDoc{}}
	for _, e := range s.Epochs() {
		d.Openings = append(d.Openings, openingDoc{pointDoc{e.Ordinal, e.Source, e.Target}, e.ProducerID, e.Epoch, e.Time.UTC(), e.Instance})
	}
	for _, g := range s.Gaps() {
		d.Gaps = append(d.Gaps, gapDoc{g.From, g.To, g.Reason, g.Time.UTC()})
	}
	for _, c := range s.Cuts() {
		d.Cuts = append(d.Cuts, cutDoc{pointDoc{c.Ordinal, c.Source, c.Target}, c.Time.UTC()})
	}
	for r := range s.Runs() {
		if spans > 0 && len(d.Spans) >= 2*spans {
			d.Spans = append(d.Spans[:0], d.Spans[len(d.Spans)-spans:]...)
		}
		d.Spans = append(d.Spans, spanDoc{pointDoc(r.Point), r.Records})
	}
	if spans > 0 && len(d.Spans) > spans {
		d.Spans = d.Spans[len(d.Spans)-spans:]
	}
	return d
}

func (a *app) showOffsets(ctx context.Context, out io.Writer, o *showOptions) error {
	err := errors.Join(o.targetOptions.validate(), o.selection.validate())
	if err == nil && o.spans < 0 {
		err = fmt.Errorf("choose spans: %d is negative", o.spans)
	}
	if err != nil {
		return coded(exitUsage, err, "see replicator offsets show --help")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, err := a.openTarget(ctx, &o.targetOptions, false)
	if err != nil {
		return err
	}
	defer t.close()
	doc, err := t.lanes(ctx, &o.selection, &o.targetOptions, o.spans)
	if err != nil {
		return err
	}
	if len(doc.Lanes) == 0 && o.topic != "" {
		return coded(exitPartial, fmt.Errorf("show offsets: link %s has copied nothing of %s", t.link.Name, o.what()), "replicator offsets show lists what it has copied; a topic has the name it has on the source")
	}
	if o.output == "json" || o.output == "yaml" {
		err = writeDocument(out, o.output, doc)
	} else {
		err = printText(out, doc.table(targetScreen(out, &o.targetOptions)))
	}
	if err != nil {
		return err
	}
	return doc.partial()
}

// lanes reads the lanes that are chosen; a single one in all detail.
func (t *target) lanes(ctx context.Context, chosen *selection, o *targetOptions, spans int) (*lanesDoc, error) {
	var lanes []offsets.Lane
	for _, l := range t.standby.Lanes() {
		if chosen.lane(l.Topic, l.Partition) {
			lanes = append(lanes, l)
		}
	}
	tails, err := t.tails(ctx, lanes, o)
	if err != nil {
		return nil, err
	}
	doc := &lanesDoc{Link: t.link.Name, Time: t.standby.Time().UTC(), Lanes: make([]laneDoc, 0, len(lanes))}
	for _, l := range lanes {
		tail, found := tails[l]
		d := laneOf(l, t.link.TargetName(l.Topic), tail, found)
		if len(lanes) == 1 && found {
			d.Detail = detailOf(tail.State, spans)
		}
		doc.Lanes = append(doc.Lanes, d)
	}
	return doc, nil
}

// partial is the error of lanes that could not be read.
func (d *lanesDoc) partial() error {
	var bad []string
	for i := range d.Lanes {
		if l := &d.Lanes[i]; l.Error != "" {
			bad = append(bad, fmt.Sprintf("%s-%d (%s)", l.Topic, l.Partition, l.Error))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return coded(exitPartial, fmt.Errorf("read lanes: %s of %s could not be read: %s", words.Number(int64(len(bad))), words.Number(int64(len(d.Lanes))), named(bad)), "")
}

func (d *lanesDoc) table(c screen) string {
	if len(d.Lanes) == 0 {
		return "the link has copied nothing yet\n"
	}
	g := grid{flexible: 0, columns: []column{
		{name: "LANE"}, {name: "SOURCE", right: true}, {name: "TARGET", right: true}, {name: "SOURCE END", right: true}, {name: "NOT COPIED", right: true}, {name: "SEEN", right: true},
		{name: "SPANS", right: true}, {name: "GAPS", right: true},
	}}
	if c.wide {
		g.columns = append(g.columns, column{name: "CUTS", right: true}, column{name: "MAP", right: true}, column{name: "ORDINAL", right: true}, column{name: "OPENINGS", right: true}, column{name: "TARGET TOPIC"},
			column{name: "LOG START", right: true}, column{name: "LOG END", right: true}, column{name: "NEWEST RECORD"}, column{name: "CLOSED"}, column{name: "DETAIL"})
	}
	for i := range d.Lanes {
		l := &d.Lanes[i]
		p := pointDoc{-1, -1, -1}
		if l.Position != nil {
			p = *l.Position
		}
		row := []string{
			fmt.Sprintf("%s-%d", observe.Printable(l.Topic), l.Partition), words.Offset(p.Source), words.Offset(p.Target), optionalOffset(l.SourceEnd), optionalOffset(l.NotCopied), age(d.Time, l.AsOf),
			words.Number(int64(l.Spans)), words.Number(int64(l.Gaps)),
		}
		if c.wide {
			closed := "no"
			if l.Closed {
				closed = "yes"
			}
			row = append(row, words.Number(int64(l.Cuts)), words.Size(int64(l.MapBytes)), words.Offset(p.Ordinal), words.Number(int64(l.Openings)), orDash(l.TargetTopic), optionalOffset(l.LogStart), optionalOffset(l.LogEnd),
				words.Optional(l.Newest, instant), closed, orDash(strings.TrimSpace(l.Error+" "+l.Warning)))
		}
		g.rows = append(g.rows, row)
	}
	var b strings.Builder
	c.table(&b, g)
	if len(d.Lanes) == 1 && c.wide && d.Lanes[0].Detail != nil {
		d.Lanes[0].Detail.tables(c, &b)
	}
	return unindented(&b)
}

// tables print one lane in all detail.
func (d *laneDetailDoc) tables(c screen, b *strings.Builder) {
	at := func(p pointDoc) []string {
		return []string{words.Number(p.Ordinal), words.Number(p.Source), words.Number(p.Target)}
	}
	points := []column{{name: "ORDINAL", right: true}, {name: "SOURCE", right: true}, {name: "TARGET", right: true}}
	table := func(g grid) {
		if len(g.rows) > 0 {
			g.flexible = -1
			c.table(b, g)
		}
	}
	openings := grid{columns: append([]column{{name: "OPENED"}, {name: "WRITER"}, {name: "BY"}}, points...)}
	for _, e := range d.Openings {
		openings.rows = append(openings.rows, append([]string{instant(e.Time), writerName(e), orDash(e.Instance)}, at(e.pointDoc)...))
	}
	table(openings)
	gaps := grid{columns: []column{{name: "GAP FROM", right: true}, {name: "TO", right: true}, {name: "FOUND"}, {name: "REASON"}}}
	for _, e := range d.Gaps {
		gaps.rows = append(gaps.rows, []string{words.Number(e.From), words.Number(e.To), instant(e.Time), orDash(e.Reason)})
	}
	table(gaps)
	cuts := grid{columns: append([]column{{name: "CUT"}}, points...)}
	for _, e := range d.Cuts {
		cuts.rows = append(cuts.rows, append([]string{instant(e.Time)}, at(e.pointDoc)...))
	}
	table(cuts)
	spans := grid{columns: append([]column{{name: "SPAN OF", right: true}}, points...)}
	for _, e := range d.Spans {
		spans.rows = append(spans.rows, append([]string{words.Number(e.Records)}, at(e.pointDoc)...))
	}
	table(spans)
}

// writerName is the producer of an opening, or says that it is no opening but what the link of the other
// direction had copied.
func writerName(e openingDoc) string {
	if e.ProducerID == offsets.InverseProducer {
		return fmt.Sprintf("inverse/%d", e.Epoch)
	}
	return fmt.Sprintf("%d/%d", e.ProducerID, e.Epoch)
}
