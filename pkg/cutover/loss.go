package cutover

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
)

// The rate of writing is the highest of these buckets in the window.
const (
	rateWindow = time.Minute
	rateBucket = 5 * time.Second
)

// positionDelay is how long a position takes to the journal, at most, while all is well.
const positionDelay = 3 * time.Second

// estimateLoss says how many records of each topic the new region lacks, from what the target
// alone knows. At least those that were seen on the source and not copied; they are all if it
// took no writes after that. At most, if it took them until now, as many more as the highest
// rate at which the partition grew makes of the time since; more only if it was written to
// faster than that.
func (w *world) estimateLoss(ctx context.Context, s Setup) (*evidence.LossDoc, error) {
	doc := &evidence.LossDoc{Basis: "the journal has no position yet"}
	if w.standbyErr != nil {
		return doc, nil //nolint:nilerr // a gate says it
	}
	rates, sizes, err := w.rates(ctx, s)
	if err != nil {
		return nil, err
	}
	// When the source last answered the daemon. A lane that has moved since is written
	// down within the time positions take, so one that is not had not moved.
	answered := time.Time{}
	if fresh, ok := w.standby.Current(); ok {
		answered = fresh.Current.Add(-positionDelay)
	}
	return w.lossOf(s.Old.Alias, rates, sizes, answered), nil
}

// lossOf adds up what was not copied. The time since a position is by two clocks, that of
// whoever copied and ours: where its is ahead, what was seen still counts, and what came
// since cannot be guessed.
func (w *world) lossOf(old string, rates map[offsets.Lane]float64, sizes map[string]float64, answered time.Time) *evidence.LossDoc {
	doc := &evidence.LossDoc{Basis: "the journal has no position yet"}
	var ahead time.Duration // at least
	type sum struct {
		seen    int64
		records float64
		bytes   float64
		oldest  time.Time
	}
	topics := map[string]*sum{}
	var unknown []string // lanes without a position
	for _, l := range w.lanes {
		p, ok := l.tail.State.Position()
		if !ok {
			unknown = append(unknown, l.lane.String())
			continue
		}
		t := topics[l.lane.Topic]
		if t == nil {
			t = &sum{}
			topics[l.lane.Topic] = t
		}
		known := p.SourceEnd
		if l.sourceEnd >= 0 {
			known = l.sourceEnd // it answers: nothing has to be guessed
		}
		seen := max(0, known-l.position())
		n := float64(seen)
		at := p.Time
		if answered.After(at) {
			at = answered
		}
		if at.After(w.at) {
			ahead, at = max(ahead, at.Sub(w.at)), w.at
		}
		if l.sourceEnd < 0 {
			n += rates[l.lane] * w.at.Sub(at).Seconds()
		}
		t.seen += seen
		t.records += n
		t.bytes += n * sizes[l.lane.Topic]
		if t.oldest.IsZero() || at.Before(t.oldest) {
			t.oldest = at
		}
	}
	oldest := w.at
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		t := topics[name]
		row := evidence.LossRow{Topic: name, Seen: &t.seen, Records: int64(t.records + 0.999)}
		secs := w.at.Sub(t.oldest).Seconds()
		row.Seconds = &secs
		if t.bytes > 0 {
			b := int64(t.bytes + 0.999)
			row.Bytes = &b
		}
		doc.Rows = append(doc.Rows, row)
		if t.oldest.Before(oldest) {
			oldest = t.oldest
		}
	}
	if len(topics) > 0 {
		doc.Basis = fmt.Sprintf("at least: the ends of %s as last seen (%s, %v before); at most: if it took writes until now, as fast as ever in the last minute",
			old, oldest.UTC().Format(time.RFC3339), w.at.Sub(oldest).Round(time.Second))
		if len(unknown) > 0 {
			doc.Basis += "; not in the numbers, because the journal has no position of them yet: " + first(unknown)
		}
	}
	if ahead > 0 {
		doc.Basis += fmt.Sprintf("; warning: the clock of the daemon was ahead of here, by %v or more: what was written since it saw them last is not in the numbers", ahead.Round(time.Millisecond))
	}
	return doc
}

// rates are each partition's highest rate, in records a second, over a bucket of the last
// minute its topic has on the target; and the mean size of a topic's records.
func (w *world) rates(ctx context.Context, s Setup) (map[offsets.Lane]float64, map[string]float64, error) {
	newest := map[string]int64{}
	ends := map[offsets.Lane]int64{}
	for _, l := range w.lanes {
		ends[l.lane] = l.tail.End
		at := int64(0)
		if p, ok := l.tail.State.Position(); ok {
			at = p.NewestTimestamp
		}
		newest[l.lane.Topic] = max(newest[l.lane.Topic], at)
	}
	// A lane that has copied nothing since it was opened tells no time; its log does.
	var silent []string
	for name, at := range newest {
		if at == 0 {
			silent = append(silent, name)
		}
	}
	if len(silent) > 0 {
		listed, err := s.New.Cluster.Admin().ListMaxTimestampOffsets(ctx, silent...)
		if err != nil && ctx.Err() != nil {
			return nil, nil, err
		}
		listed.Each(func(o kadm.ListedOffset) { // before Kafka 3.0 none is told
			if o.Err == nil && o.Timestamp > 0 {
				newest[o.Topic] = max(newest[o.Topic], o.Timestamp)
			}
		})
	}
	// Topics that ended at about the same time are asked for together.
	step := rateBucket.Milliseconds()
	groups := map[int64][]string{}
	for name, at := range newest {
		if at == 0 {
			continue // an empty log, or one that nobody tells the time of
		}
		last := at/step*step + step
		groups[last] = append(groups[last], name)
	}
	rates := map[offsets.Lane]float64{}
	for last, names := range groups {
		next := map[offsets.Lane]int64{} // where the bucket behind this one begins
		for from := last - step; from >= last-rateWindow.Milliseconds(); from -= step {
			listed, err := s.New.Cluster.Admin().ListOffsetsAfterMilli(ctx, from, names...)
			if err != nil && ctx.Err() != nil {
				return nil, nil, err
			}
			listed.Each(func(o kadm.ListedOffset) {
				lane := offsets.Lane{Topic: o.Topic, Partition: o.Partition}
				end, ok := ends[lane]
				if !ok || o.Err != nil {
					return
				}
				at := o.Offset
				if at < 0 || at > end {
					at = end
				}
				if n, ok := next[lane]; ok {
					end = n
				}
				rates[lane] = max(rates[lane], float64(end-at)/rateBucket.Seconds())
				next[lane] = at
			})
		}
	}
	return rates, sizesOf(ctx, s, w), nil
}

// sizesOf is the mean size in bytes of a record on the target's disks, by topic; a topic
// whose size brokers do not tell is left out.
func sizesOf(ctx context.Context, s Setup, w *world) map[string]float64 {
	out := map[string]float64{}
	set := kadm.TopicsSet{}
	for _, l := range w.lanes {
		set.Add(l.lane.Topic, l.lane.Partition)
	}
	dirs, err := s.New.Cluster.Admin().DescribeAllLogDirs(ctx, set)
	if err != nil {
		return out
	}
	bytes, records := map[string]int64{}, map[string]int64{}
	counted := map[string]bool{}
	for _, broker := range dirs {
		broker.EachPartition(func(p kadm.DescribedLogDirPartition) {
			key := fmt.Sprintf("%s-%d", p.Topic, p.Partition)
			if !counted[key] { // one replica of each
				counted[key] = true
				bytes[p.Topic] += p.Size
			}
		})
	}
	for _, l := range w.lanes {
		records[l.lane.Topic] += max(0, l.tail.End-l.tail.Start)
	}
	for name, n := range records {
		if n > 0 && bytes[name] > 0 {
			out[name] = float64(bytes[name]) / float64(n)
		}
	}
	return out
}
