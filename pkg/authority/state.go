package authority

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"
)

// State is what one copy says of a pair.
type State struct {
	Records []Record         // by epoch, all there are
	Ready   map[string]Ready // by Direction
	Facts   map[string]Fact  // by name, those that have data
	Missing bool             // the topic is not there
	// Conflicts are epochs that were given to two regions in this very copy, which
	// only a record written by hand does. The last one is in Records: it is what
	// compaction keeps, so a reader of tomorrow finds the same.
	Conflicts []int64
}

// Current returns the record of the highest epoch, false if there is none.
func (s State) Current() (Record, bool) {
	if len(s.Records) == 0 {
		return Record{}, false
	}
	return s.Records[len(s.Records)-1], true
}

// Epoch is the highest epoch, 0 without a record.
func (s State) Epoch() int64 {
	r, _ := s.Current()
	return r.Epoch
}

// Region is the authoritative region, implied where there is no record.
func (s State) Region(implied string) string {
	if r, ok := s.Current(); ok {
		return r.Region
	}
	return implied
}

// MayAppend says whether the link from->to may append, by the copy on its target;
// why is for people, either way. Without a record it may: which of two opposite
// links the configuration implies is not known here.
func (s State) MayAppend(from, to string) (ok bool, why string) {
	current, found := s.Current()
	if !found {
		return true, fmt.Sprintf("no authority was ever set, %s is implied", from)
	}
	said := fmt.Sprintf("%s is authoritative since %s (epoch %d, %s by %s)",
		current.Region, current.Since.UTC().Format(time.RFC3339), current.Epoch, orNone(current.Verb), orNone(current.By))
	if slices.Contains(s.Conflicts, current.Epoch) {
		return false, fmt.Sprintf("epoch %d was given to two regions by records written by hand; replicator authority settle ends that", current.Epoch)
	}
	if current.Region != from {
		return false, said
	}
	ready, found := s.Ready[Direction(from, to)]
	switch {
	case !found || ready.Epoch < current.Epoch:
		return false, fmt.Sprintf("%s, but link %s was not prepared for epoch %d; %s", said, Direction(from, to), current.Epoch, prepares(current.Verb, to))
	case ready.Epoch > current.Epoch:
		return false, fmt.Sprintf("%s, but link %s was prepared for epoch %d: this copy lacks records; bring them from the other cluster's copy", said, Direction(from, to), ready.Epoch)
	}
	return true, said
}

// prepares is what to run where the link to a region is not prepared: of what gave a region up,
// or decided between two, preparing it is no part.
func prepares(verb, to string) string {
	switch verb {
	case "failover", "settle":
		return fmt.Sprintf("replicator failback run --from %s does that", to)
	}
	return fmt.Sprintf("run the %s again, it goes on where it stopped", orNone(verb))
}

// Relation is how two copies stand to each other.
type Relation string

// Relations.
const (
	Equal  Relation = "equal"   // same epoch, same region
	StaleA Relation = "stale_a" // the first copy lacks the newest records
	StaleB Relation = "stale_b" // the second copy does
	Split  Relation = "split"   // both gave one epoch to different regions, and no higher one settles it
)

// Difference is what comparing two copies found.
type Difference struct {
	Relation Relation
	// Epoch is the highest of both copies; of a split, the lowest given to
	// different regions.
	Epoch int64
	// Missing are the records the stale copy lacks, by epoch. None unless stale.
	Missing []Record
}

// Compare compares two copies of a pair's records. A difference below the newest
// epoch that both have in common is past: that epoch settled it.
func Compare(a, b State) Difference {
	inA, inB := byEpoch(a.Records), byEpoch(b.Records)
	settled, split := int64(0), int64(0) // highest epoch in common; lowest above it that is not
	for _, r := range a.Records {
		other, both := inB[r.Epoch]
		switch {
		case both && other.Region == r.Region:
			settled, split = r.Epoch, 0
		case both && split == 0:
			split = r.Epoch
		}
	}
	d := Difference{Relation: Equal, Epoch: max(a.Epoch(), b.Epoch())}
	switch {
	case split > 0:
		d.Relation, d.Epoch = Split, split
	case a.Epoch() < b.Epoch():
		d.Relation, d.Missing = StaleA, lacking(b.Records, inA, settled)
	case b.Epoch() < a.Epoch():
		d.Relation, d.Missing = StaleB, lacking(a.Records, inB, settled)
	}
	return d
}

func byEpoch(records []Record) map[int64]Record {
	m := make(map[int64]Record, len(records))
	for _, r := range records {
		m[r.Epoch] = r
	}
	return m
}

// lacking are the records above an epoch that are not in have.
func lacking(records []Record, have map[int64]Record, above int64) []Record {
	var out []Record
	for _, r := range records {
		if _, ok := have[r.Epoch]; !ok && r.Epoch > above {
			out = append(out, r)
		}
	}
	return out
}

// equal tells whether two states say the same.
func (s State) equal(o State) bool {
	if s.Missing != o.Missing || len(s.Ready) != len(o.Ready) || !slices.Equal(s.Conflicts, o.Conflicts) ||
		!slices.EqualFunc(s.Records, o.Records, sameRecord) {
		return false
	}
	if !maps.EqualFunc(s.Facts, o.Facts, func(a, b Fact) bool { return a.Run == b.Run && a.Since.Equal(b.Since) && bytes.Equal(a.Data, b.Data) }) {
		return false
	}
	for k, r := range s.Ready {
		if p, ok := o.Ready[k]; !ok || p.Epoch != r.Epoch || p.Run != r.Run || !p.Since.Equal(r.Since) {
			return false
		}
	}
	return true
}

func sameRecord(a, b Record) bool {
	since := a.Since.Equal(b.Since)
	a.Since, b.Since = time.Time{}, time.Time{}
	return a == b && since
}
