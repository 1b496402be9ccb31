package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"replicator/internal/compare"
	"replicator/pkg/mirror"
)

// ErrNotProved is returned when the regions were compared and are not alike.
var ErrNotProved = errors.New("the copy is not right")

// prove reads both regions, as consumers that know nothing of the replicator
// would, and says what was found.
func (d *demo) prove(ctx context.Context) error {
	if d.opts.BeforeProof != nil {
		if err := d.opts.BeforeProof(ctx, d.source.addrs, d.target.addrs); err != nil {
			return fmt.Errorf("before the proof: %w", err)
		}
	}
	d.screen.event("both regions are read back and compared record by record")
	var pairs []compare.Pair
	for _, t := range topics {
		pairs = append(pairs, compare.Pair{Source: t.name, Target: t.name})
	}
	report, err := compare.Topics(ctx, compare.Seeds(d.source.addrs...), compare.Seeds(d.target.addrs...), pairs, compare.Options{MaxDifferences: 3})
	if err != nil {
		return fmt.Errorf("compare regions: %w", err)
	}
	d.screen.close()
	d.tables(report)
	f := d.findings(report)
	d.screen.verdict(f.err() == nil, f.String())
	return f.err()
}

// findings are what a proof rests on.
type findings struct {
	report   compare.Report
	produced int64 // records the producers know to be written
	kills    int
	planned  int // kills there should have been
}

func (d *demo) findings(r compare.Report) findings {
	f := findings{report: r, produced: d.traffic.visible(), kills: d.kills, planned: 3}
	if d.opts.Quick {
		f.planned = 1
	}
	return f
}

// err is nil if nothing is missing from the proof.
func (f findings) err() error {
	t := f.report.Total
	var faults []string
	for _, c := range []struct {
		n    int64
		what string
	}{
		{t.Missing, "lost"}, {t.Doubled, "doubled"}, {t.Extra, "that no producer wrote"},
		{t.Reordered, "out of order"}, {t.Changed, "changed"},
	} {
		if c.n > 0 {
			faults = append(faults, fmt.Sprintf("%s %s", number(c.n), c.what))
		}
	}
	if t.Layout > 0 {
		faults = append(faults, fmt.Sprintf("%d topics with other partitions", t.Layout))
	}
	switch {
	case len(faults) > 0:
	case f.report.SourceSum != f.report.TargetSum:
		faults = append(faults, "the checksums differ")
	case t.SourceRecords != f.produced:
		faults = append(faults, fmt.Sprintf("east holds %s records, its producers wrote %s", number(t.SourceRecords), number(f.produced)))
	case f.produced == 0:
		faults = append(faults, "nothing was written")
	case f.kills != f.planned:
		faults = append(faults, fmt.Sprintf("%d of %d kills were made", f.kills, f.planned))
	default:
		return nil
	}
	var text strings.Builder
	for i, fault := range faults {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(fault)
	}
	for _, p := range f.report.Partitions {
		for _, diff := range p.First {
			return fmt.Errorf("%w: %s; first %s-%d: %s", ErrNotProved, text.String(), p.Source, p.Partition, diff)
		}
	}
	return fmt.Errorf("%w: %s", ErrNotProved, text.String())
}

// String is the last line of the demo.
func (f findings) String() string {
	if err := f.err(); err != nil {
		return "NOT PROVED: " + err.Error()
	}
	kills := "1 kill -9"
	if f.kills != 1 {
		kills = fmt.Sprintf("%d kill -9", f.kills)
	}
	return fmt.Sprintf("PROVED: %s records in %d partitions, %s: 0 lost, 0 doubled, order kept, checksums equal.",
		number(f.report.Total.Matched), len(f.report.Partitions), kills)
}

// tables prints what was counted, how records went, and how long they took.
func (d *demo) tables(r compare.Report) {
	d.screen.text("\n")
	d.screen.heading("Read back")
	rows := [][]string{{"topic", "produced", "aborted", "in east", "in west", "sum east", "sum west"}}
	for i, t := range topics {
		var c compare.Counts
		var s, g uint64
		for _, p := range r.Partitions {
			if p.Source == t.name {
				c.SourceRecords += p.SourceRecords
				c.TargetRecords += p.TargetRecords
				// Sums of partitions, each with its place.
				s, g = s*31+p.SourceSum, g*31+p.TargetSum
			}
		}
		p := d.traffic.producers[i]
		rows = append(rows, []string{t.name, number(p.written.Load()), number(p.aborted.Load()), number(c.SourceRecords), number(c.TargetRecords),
			fmt.Sprintf("%08x", s>>32), fmt.Sprintf("%08x", g>>32)})
	}
	d.screen.table(1, rows...)

	if routes, read := d.routes(); read {
		d.screen.text("\n")
		d.screen.heading("Routes batches took, as the daemons counted until just before their end")
		d.screen.table(3, routes...)
	}

	d.screen.text("\n")
	d.screen.heading("From a producer in east to a consumer in west")
	rows = [][]string{{"topic", "p50", "p99", "max", "max at a kill"}}
	for _, t := range topics {
		waits, longest := d.steady(d.watch.arrivals[t.name])
		if len(waits) == 0 {
			continue
		}
		at := func(q float64) string { return milliseconds(waits[int(q*float64(len(waits)-1))]) }
		rows = append(rows, []string{t.name, at(0.5), at(0.99), milliseconds(waits[len(waits)-1]), milliseconds(longest)})
	}
	d.screen.table(1, rows...)
}

// routes adds up what the daemons counted; false: none of them answered.
func (d *demo) routes() ([][]string, bool) {
	type key struct{ route, reason, codec string }
	sums := map[key]mirror.RouteCount{}
	read := false
	for _, dm := range d.daemons {
		for _, s := range dm.statuses {
			read = true
			for _, l := range s.Links {
				for _, r := range l.Routes {
					k := key{r.Route, r.Reason, r.Codec}
					sum := sums[k]
					sum.Batches += r.Batches
					sum.Records += r.Records
					sum.Bytes += r.Bytes
					sums[k] = sum
				}
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(sums), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.route, b.route), -cmp.Compare(sums[a].Records, sums[b].Records), cmp.Compare(a.reason, b.reason), cmp.Compare(a.codec, b.codec))
	})
	rows := [][]string{{"route", "why", "codec", "batches", "records", "KiB"}}
	for _, k := range keys {
		rows = append(rows, []string{k.route, k.reason, k.codec, number(sums[k].Batches), number(sums[k].Records), number(sums[k].Bytes / 1024)})
	}
	return rows, read
}
