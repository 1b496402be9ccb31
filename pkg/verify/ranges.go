package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// Range is what is to be compared of one lane.
type Range struct {
	Lane        offsets.Lane
	TargetTopic string
	State       offsets.LaneState // with the position up to which it may be compared
	From, To    int64             // source offsets, next: [From, To)
	// TargetEnd is the end of the target's log, next: what stands between the lane's last record and
	// there is somebody else's. 0: not looked at.
	TargetEnd int64
	// Own are ranges of the target's log that are the target's own by decision, next offsets: records
	// that were stranded there when it was the source, sorted. They are counted apart.
	Own []Span
	Err error // why the lane cannot be compared; it is reported and not read
}

// Span is a range of offsets, next: [From, To).
type Span struct{ From, To int64 }

// Keep takes over which of the target's records were stranded there when it was the source: reverse
// is the lane of the link of the other direction, whose journal lies on the source.
func (r *Range) Keep(reverse offsets.LaneState) {
	for _, g := range reverse.Gaps() {
		if g.Stranded() {
			r.Own = append(r.Own, Span{g.From, g.To})
		}
	}
}

// KeepStranded does so for all ranges, with the journal of the link of the other direction, which
// lies on the source. A link that has never copied has none.
func KeepStranded(ctx context.Context, source *cluster.Cluster, journal string, ranges []Range, log *zap.Logger) error {
	j, err := offsets.OpenJournal(ctx, offsets.JournalConfig{Client: source.NewClient, Admin: source.Admin(), Topic: journal, ReadOnly: true, Log: log})
	if _, none := errors.AsType[*offsets.TopicError](err); none {
		return nil
	}
	if err != nil {
		return err
	}
	defer j.Close()
	for i := range ranges {
		ranges[i].Keep(j.State(ranges[i].Lane))
	}
	return nil
}

// Ranges returns what can be compared of lanes: the last records each has copied, or, with last 0,
// all that both sides still hold and the map knows. Tails are those of [offsets.ReadTails]. A lane
// of which nothing can be compared has Err, or an empty range where it has copied nothing. Where
// the source went back (its topic was made anew, or its log was cut), what stands on the target
// from before is left out. The ranges are sorted by lane. It needs DESCRIBE on the source's topics.
func Ranges(ctx context.Context, source *cluster.Cluster, tails map[offsets.Lane]offsets.Tail, last int64) ([]Range, error) {
	topics := map[string]bool{}
	for l := range tails {
		topics[l.Topic] = true
	}
	if len(topics) == 0 {
		return nil, nil
	}
	starts, err := source.Admin().ListStartOffsets(ctx, slices.Sorted(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("ask source for the starts of its logs: %w", err)
	}
	ranges := make([]Range, 0, len(tails))
	for l, tail := range tails {
		r := Range{Lane: l, TargetTopic: tail.TargetTopic, State: tail.State, TargetEnd: tail.End, Err: tail.Err}
		if start, ok := starts.Lookup(l.Topic, l.Partition); r.Err == nil && !ok {
			r.Err = errors.New("the source does not have this partition")
		} else if r.Err == nil && start.Err != nil {
			r.Err = explainStart(start.Err, l.Topic)
		} else if r.Err == nil {
			r.choose(start.Offset, tail.Start, last)
		}
		ranges = append(ranges, r)
	}
	slices.SortFunc(ranges, func(a, b Range) int {
		return cmp.Or(cmp.Compare(a.Lane.Topic, b.Lane.Topic), cmp.Compare(a.Lane.Partition, b.Lane.Partition))
	})
	return ranges, nil
}

func explainStart(err error, topic string) error {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		err = fmt.Errorf("%w; grant DESCRIBE on topic %s", err, topic)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		err = errors.New("the source does not have this topic any more")
	}
	return fmt.Errorf("ask for the start of the source's log: %w", err)
}

// choose sets From and To by where both logs start (next offsets) and how many records are wanted.
func (r *Range) choose(sourceStart, targetStart, last int64) {
	end, ok := endOf(r.State)
	if !ok {
		r.Err = errors.New("the lane was never opened: nothing is known of what was copied")
		return
	}
	from := max(sourceStart, r.life(end))
	if p, ok := r.State.SourceOf(targetStart); ok && p.Ordinal < end.Ordinal {
		from = max(from, p.Source)
	}
	if last > 0 {
		if p, ok := r.State.At(end.Ordinal - last); ok {
			from = max(from, p.Source)
		}
	}
	from = min(from, end.Source)
	// Below a trim the map knows nothing. It lies where the source's log no longer begins, in general.
	from += int64(sort.Search(int(end.Source-from), func(i int) bool {
		_, ok := r.State.TargetOf(from + int64(i))
		return ok
	}))
	r.From, r.To = from, end.Source
}

// life is where the present life of the source begins: from there on its offsets only went forwards.
func (r *Range) life(end offsets.Point) int64 {
	from := int64(0)
	epochs := r.State.Epochs()
	for i, e := range epochs {
		switch before, ok := r.State.At(e.Ordinal - 1); {
		case i == 0, ok && before.Source >= e.Source, e.Source < epochs[i-1].Source:
			from = e.Source
		}
	}
	return min(from, end.Source)
}
