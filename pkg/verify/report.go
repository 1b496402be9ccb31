package verify

import (
	"fmt"
	"time"
)

// Kind says how a record differs.
type Kind string

// Kinds of differences.
const (
	Changed   Kind = "changed"   // at its place stands a record with another content
	Missing   Kind = "missing"   // the source has it, the target lacks it
	Extra     Kind = "extra"     // the target has it, the source lacks it: also a foreign writer's record
	Reordered Kind = "reordered" // its content stands at another place of the target than the map says
)

// Difference is one record that is not as it should be.
type Difference struct {
	Kind         Kind   `json:"kind"`
	SourceOffset int64  `json:"source_offset"` // where it stands or should stand; -1: no place
	TargetOffset int64  `json:"target_offset"` // the same
	Detail       string `json:"detail"`        // what differs, and who wrote it
}

// String is the difference in one line.
func (d Difference) String() string {
	at := func(offset int64) string {
		if offset < 0 {
			return "none"
		}
		return fmt.Sprint(offset)
	}
	return fmt.Sprintf("%s: source offset %s, target offset %s: %s", d.Kind, at(d.SourceOffset), at(d.TargetOffset), d.Detail)
}

// Counts count records, but for the bytes.
type Counts struct {
	Equal  int64 `json:"equal"`  // on both sides, at their places, with the same content
	Closed int64 `json:"closed"` // of these, in batches that had the same bytes and were not opened

	Changed   int64 `json:"changed"`
	Missing   int64 `json:"missing"`
	Extra     int64 `json:"extra"`
	Reordered int64 `json:"reordered"`

	// What one side has and the other cannot be blamed for.
	Compacted int64 `json:"compacted"` // one side's compaction removed it
	Retained  int64 `json:"retained"`  // one side's retention removed it while it was compared
	InGap     int64 `json:"in_gap"`    // on the source, in a gap the link has recorded
	Stranded  int64 `json:"stranded"`  // on the target, where it took them as the source and was given up

	Bytes int64 `json:"bytes"` // read from both sides
}

// Differences is how many records are not as they should be.
func (c Counts) Differences() int64 { return c.Changed + c.Missing + c.Extra + c.Reordered }

// Plus is the sum of both.
func (c Counts) Plus(o Counts) Counts {
	c.Equal += o.Equal
	c.Closed += o.Closed
	c.Changed += o.Changed
	c.Missing += o.Missing
	c.Extra += o.Extra
	c.Reordered += o.Reordered
	c.Compacted += o.Compacted
	c.Retained += o.Retained
	c.InGap += o.InGap
	c.Stranded += o.Stranded
	c.Bytes += o.Bytes
	return c
}

// LaneReport is what was found of one lane. Offsets are next offsets.
type LaneReport struct {
	Topic       string `json:"topic"` // of the source
	Partition   int32  `json:"partition"`
	TargetTopic string `json:"target_topic"`
	From        int64  `json:"from_source_offset"`
	To          int64  `json:"to_source_offset"`
	TargetFrom  int64  `json:"from_target_offset"`
	TargetTo    int64  `json:"to_target_offset"`
	Counts
	// Checksum is one over all that was found equal, in order, in hexadecimal digits.
	// It is the same again as long as both logs keep their batches as they are.
	Checksum string       `json:"checksum"`
	First    []Difference `json:"differences"` // the first ones, by their order in the logs
	Warnings []string     `json:"warnings,omitempty"`
	Error    string       `json:"error,omitempty"` // why it was not compared, or not to the end
}

// Report is the outcome of a comparison.
type Report struct {
	Begun    time.Time     `json:"begun"`
	Took     time.Duration `json:"took_ns"`
	Lanes    []LaneReport  `json:"lanes"` // in the order of the ranges
	Total    Counts        `json:"total"`
	Checksum string        `json:"checksum"` // over those of the lanes, in their order
}

// Different reports whether any record is not as it should be.
func (r Report) Different() bool { return r.Total.Differences() > 0 }

// Failed is how many lanes were not compared to the end.
func (r Report) Failed() (n int) {
	for i := range r.Lanes {
		if r.Lanes[i].Error != "" {
			n++
		}
	}
	return n
}

// Equal reports whether every lane was compared and no record differs.
func (r Report) Equal() bool { return !r.Different() && r.Failed() == 0 }
