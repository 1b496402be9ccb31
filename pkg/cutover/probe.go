package cutover

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// probe is a position of groups: what a consumer reads first there on the source, and
// at the translated offset on the target, has to be the same record. Nothing of the
// offset map is believed for it. Offsets are next offsets.
type probe struct {
	lane           offsets.Lane
	source, target int64
	first          [2]*kgo.Record // on the source, on the target; nil: there is none
	why            string         // it failed
}

// quiet is how long a partition may bring no record and no control record although its
// log goes on: nothing in it is for a consumer.
const quiet = 5 * time.Second

// compareFirst reads both sides of each probe and judges them. A record that the target
// lacks is waited for: it may be on its way.
func (r *run) compareFirst(ctx context.Context, probes []*probe) error {
	// The target first: what it has then, the source has had before.
	if err := readFirst(ctx, r.New.Cluster, probes, 1, false); err != nil {
		return err
	}
	if err := readFirst(ctx, r.Old.Cluster, probes, 0, !r.Forward.Options.ReadUncommitted); err != nil {
		return err
	}
	for deadline := time.Now().Add(r.Settings.DrainTimeout); ; {
		var late []*probe
		for _, p := range probes {
			if p.first[0] != nil && p.first[1] == nil {
				late = append(late, p)
			}
		}
		if len(late) == 0 || time.Now().After(deadline) {
			break
		}
		r.progress("probe", "%d records are not on %s yet", len(late), r.New.Alias)
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if err := readFirst(ctx, r.New.Cluster, late, 1, false); err != nil {
			return err
		}
	}
	for _, p := range probes {
		p.judge(r.Old.Alias, r.New.Alias)
	}
	return nil
}

// judge compares the two records.
func (p *probe) judge(old, now string) {
	s, t := p.first[0], p.first[1]
	at := func(r *kgo.Record) string {
		return fmt.Sprintf("offset %d of %s", r.Offset, r.Timestamp.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	switch {
	case s == nil && t == nil: // at the end of both
	case t == nil:
		p.why = fmt.Sprintf("%s goes on with %s, %s has no record there", old, at(s), now)
	case s == nil:
		p.why = fmt.Sprintf("%s has no record there, %s goes on with %s", old, now, at(t))
	default:
		if parts := differing(s, t); len(parts) > 0 {
			p.why = fmt.Sprintf("%s goes on with %s, %s with %s: another %s", old, at(s), now, at(t), strings.Join(parts, ", "))
		}
	}
}

// differing names what is not the same of two records. What it is may be secret.
func differing(a, b *kgo.Record) []string {
	var parts []string
	same := func(name string, ok bool) {
		if !ok {
			parts = append(parts, name)
		}
	}
	null := func(x, y []byte) bool { return (x == nil) == (y == nil) }
	same("key", bytes.Equal(a.Key, b.Key) && null(a.Key, b.Key))
	same("value", bytes.Equal(a.Value, b.Value) && null(a.Value, b.Value))
	same("headers", slices.EqualFunc(a.Headers, b.Headers, func(x, y kgo.RecordHeader) bool { return x.Key == y.Key && bytes.Equal(x.Value, y.Value) }))
	same("timestamp", a.Timestamp.Equal(b.Timestamp))
	return parts
}

func (p *probe) offset(side int) int64 {
	if side == 0 {
		return p.source
	}
	return p.target
}

// readFirst reads the first record at or behind each probe's offset on one side. Of a
// partition with several offsets one is read at a time.
func readFirst(ctx context.Context, c *cluster.Cluster, probes []*probe, side int, committed bool) error {
	byLane := map[offsets.Lane][]*probe{}
	for _, p := range probes {
		p.first[side] = nil
		byLane[p.lane] = append(byLane[p.lane], p)
	}
	names := map[string]bool{}
	for lane, some := range byLane {
		names[topic(lane.Topic)] = true
		slices.SortFunc(some, func(a, b *probe) int { return cmp.Compare(a.offset(side), b.offset(side)) })
	}
	if len(names) == 0 {
		return nil
	}
	list := c.Admin().ListEndOffsets
	if committed {
		list = c.Admin().ListCommittedOffsets
	}
	ends, err := list(ctx, slices.Sorted(maps.Keys(names))...)
	if err != nil {
		return fmt.Errorf("list ends of %s: %w", c.Alias(), err)
	}
	for len(byLane) > 0 {
		round := map[offsets.Lane]*probe{}
		until := map[offsets.Lane]int64{}
		for lane, some := range byLane {
			end, ok := ends.Lookup(topic(lane.Topic), lane.Partition)
			if err := end.Err; err != nil || !ok {
				return fmt.Errorf("list end of %s on %s: %w", lane, c.Alias(), cmp.Or(err, errors.New("no answer")))
			}
			if some[0].offset(side) >= end.Offset { // as are all behind it
				delete(byLane, lane)
				continue
			}
			round[lane], until[lane] = some[0], end.Offset
		}
		found, err := readRound(ctx, c, round, until, side, committed)
		if err != nil {
			return err
		}
		for lane := range round {
			some, rec := byLane[lane], found[lane]
			if rec == nil { // nothing behind the lowest: nothing behind the others
				delete(byLane, lane)
				continue
			}
			for len(some) > 0 && some[0].offset(side) <= rec.Offset {
				some[0].first[side] = rec
				some = some[1:]
			}
			if byLane[lane] = some; len(some) == 0 {
				delete(byLane, lane)
			}
		}
	}
	return nil
}

// readRound reads one record of each lane, if there is one below until.
func readRound(ctx context.Context, c *cluster.Cluster, round map[offsets.Lane]*probe, until map[offsets.Lane]int64, side int, committed bool) (map[offsets.Lane]*kgo.Record, error) {
	found := map[offsets.Lane]*kgo.Record{}
	if len(round) == 0 {
		return found, nil
	}
	starts := map[string]map[int32]kgo.Offset{}
	for lane, p := range round {
		name := topic(lane.Topic)
		if starts[name] == nil {
			starts[name] = map[int32]kgo.Offset{}
		}
		starts[name][lane.Partition] = kgo.NewOffset().At(p.offset(side))
	}
	opts := []kgo.Opt{kgo.ConsumePartitions(starts), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(),
		kgo.FetchMaxPartitionBytes(64 << 10), kgo.FetchMaxWait(500 * time.Millisecond)}
	if committed {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	client, err := c.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	left := maps.Clone(until)
	done := func(lane offsets.Lane) {
		delete(left, lane)
		client.PauseFetchPartitions(map[string][]int32{topic(lane.Topic): {lane.Partition}})
	}
	for last := time.Now(); len(left) > 0 && time.Since(last) < quiet; {
		poll, cancel := context.WithTimeout(ctx, time.Second)
		fetches := client.PollFetches(poll)
		cancel()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", c.Alias(), context.Cause(ctx))
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("read %s-%d of %s: %w", e.Topic, e.Partition, c.Alias(), e.Err)
			}
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			lane := offsets.Lane{Topic: rec.Topic, Partition: rec.Partition}
			end, ok := left[lane]
			if !ok || rec.Offset < round[lane].offset(side) {
				return
			}
			last = time.Now()
			if !rec.Attrs.IsControl() {
				found[lane] = rec
				done(lane)
			} else if rec.Offset >= end-1 {
				done(lane)
			}
		})
	}
	return found, nil
}
