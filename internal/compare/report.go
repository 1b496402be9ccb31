package compare

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says how a record of one side fails to be matched on the other.
type Kind string

// The kinds.
const (
	// Missing is a source record that the target does not hold.
	Missing Kind = "missing"
	// Doubled is a target record whose only counterpart is matched already.
	Doubled Kind = "doubled"
	// Extra is a target record that the source does not hold.
	Extra Kind = "extra"
	// Reordered is a record both sides hold, at another place in the order.
	Reordered Kind = "reordered"
	// Changed are records at the same place that differ in some field.
	Changed Kind = "changed"
	// Layout are topics whose partitions do not correspond.
	Layout Kind = "layout"
)

// Difference is one finding.
type Difference struct {
	Kind         Kind
	SourceOffset int64 // of the record on the source, -1 if it has none
	TargetOffset int64 // of the record on the target, -1 if it has none
	Detail       string

	hash uint64
}

func (d Difference) String() string {
	var b strings.Builder
	b.WriteString(string(d.Kind))
	if d.SourceOffset >= 0 {
		fmt.Fprintf(&b, " source offset %d", d.SourceOffset)
	}
	if d.TargetOffset >= 0 {
		fmt.Fprintf(&b, " target offset %d", d.TargetOffset)
	}
	if d.Detail != "" {
		b.WriteString(": ")
		b.WriteString(d.Detail)
	}
	return b.String()
}

// Counts are numbers of records.
type Counts struct {
	SourceRecords int64 // read from the source
	TargetRecords int64 // read from the target, Skipped included
	Matched       int64 // equal, in order

	Missing   int64
	Doubled   int64
	Extra     int64
	Reordered int64
	Changed   int64
	Layout    int64 // topics whose partition counts differ

	Skipped int64 // target records before the first source record, see Options.SkipTargetPrefix
	Lag     int64 // source records after the last target record, see Options.Prefix
}

// Differences is the number of findings of every kind.
func (c Counts) Differences() int64 {
	return c.Missing + c.Doubled + c.Extra + c.Reordered + c.Changed + c.Layout
}

func (c *Counts) add(o Counts) {
	c.SourceRecords += o.SourceRecords
	c.TargetRecords += o.TargetRecords
	c.Matched += o.Matched
	c.Missing += o.Missing
	c.Doubled += o.Doubled
	c.Extra += o.Extra
	c.Reordered += o.Reordered
	c.Changed += o.Changed
	c.Layout += o.Layout
	c.Skipped += o.Skipped
	c.Lag += o.Lag
}

func (c Counts) String() string {
	s := fmt.Sprintf("source %d, target %d, matched %d, missing %d, doubled %d, extra %d, reordered %d, changed %d",
		c.SourceRecords, c.TargetRecords, c.Matched, c.Missing, c.Doubled, c.Extra, c.Reordered, c.Changed)
	if c.Layout > 0 {
		s += fmt.Sprintf(", layout %d", c.Layout)
	}
	if c.Skipped > 0 {
		s += fmt.Sprintf(", skipped %d", c.Skipped)
	}
	if c.Lag > 0 {
		s += fmt.Sprintf(", lag %d", c.Lag)
	}
	return s
}

// PartitionReport is what one source partition and its target were found to be.
type PartitionReport struct {
	Source, Target         string // topic names
	Partition              int32
	SourceStart, SourceEnd int64 // source offsets read: [SourceStart, SourceEnd)
	TargetStart, TargetEnd int64 // target offsets read: [TargetStart, TargetEnd)
	Counts

	// SourceSum and TargetSum are checksums over the canonical form of all
	// records compared, in order: equal streams have equal sums, whatever
	// their offsets, batches and codecs. Skipped and lagging records are not in it.
	SourceSum, TargetSum uint64

	// First holds the first differences, at most Options.MaxDifferences.
	First []Difference
}

// Report is the outcome of one comparison.
type Report struct {
	Partitions []PartitionReport // sorted by pair, then partition
	Total      Counts

	// SourceSum and TargetSum combine the sums of all partitions.
	SourceSum, TargetSum uint64

	Took time.Duration
}

// Equal reports whether the target was proved to equal the source, but for
// what the options tolerate.
func (r Report) Equal() bool { return r.Total.Differences() == 0 }

// Err is nil for an equal report, and names the differences otherwise.
func (r Report) Err() error {
	if r.Equal() {
		return nil
	}
	return errors.New("compare target with source: " + r.String())
}

// String gives the totals, then the first differences of each partition that
// has any.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d partitions, %s, sums %016x %016x)", r.Total, len(r.Partitions), r.Took.Round(time.Millisecond), r.SourceSum, r.TargetSum)
	shown := 0
	for _, p := range r.Partitions {
		if p.Differences() == 0 {
			continue
		}
		if shown == 20 {
			b.WriteString("\n  ... more partitions differ")
			break
		}
		shown++
		fmt.Fprintf(&b, "\n  %s-%d [%d,%d) -> %s-%d [%d,%d): %s", p.Source, p.Partition, p.SourceStart, p.SourceEnd,
			p.Target, p.Partition, p.TargetStart, p.TargetEnd, p.Counts)
		for _, d := range p.First {
			b.WriteString("\n    ")
			b.WriteString(d.String())
		}
		if n := p.Differences() - int64(len(p.First)); n > 0 {
			fmt.Fprintf(&b, "\n    ... and %d more", n)
		}
	}
	return b.String()
}
