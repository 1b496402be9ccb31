package cutover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/authority"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
)

// world is what both regions show at a time.
type world struct {
	at       time.Time
	newState authority.State
	oldState authority.State
	oldErr   error // why the old region's record could not be read
	standby  *checkpoint.Standby
	// standbyErr: what the link keeps on the new region could not be read.
	standbyErr error
	lanes      []laneView // by topic and partition
}

// laneView is one lane as both sides show it. Offsets are next; -1 is not known.
type laneView struct {
	lane         offsets.Lane
	sourceEnd    int64 // high watermark
	sourceStable int64
	tail         offsets.Tail
	known        bool // the link has opened it
}

// position is the next source offset the lane would append, -1 if it never did.
func (l laneView) position() int64 { return positionOf(l.tail.State) }

func positionOf(s offsets.LaneState) int64 {
	if p, ok := s.Position(); ok {
		return p.Source
	}
	if e, ok := s.Last(); ok {
		return e.Source
	}
	return -1
}

// lag is how many source offsets the lane is behind, -1 if that is not known.
func (l laneView) lag() int64 {
	at := l.position()
	switch {
	case l.sourceEnd < 0:
		return -1
	case at < 0:
		return l.sourceEnd
	}
	return max(0, l.sourceEnd-at)
}

func (w *world) close() {
	if w != nil && w.standby != nil {
		w.standby.Close()
	}
}

// topic is the name on the other side: the same, for a governed link.
func topic(name string) string { return name }

// lookTime bounds reading the authority of both regions: one may die under it.
const lookTime = 30 * time.Second

// startTime is how long a daemon is waited for that has just begun: its journal is there a
// moment before the topic of its checkpoints.
const startTime = 10 * time.Second

// openStandby reads what the link keeps on the new region.
func openStandby(ctx context.Context, s Setup, req Request) (*checkpoint.Standby, error) {
	for began := time.Now(); ; {
		standby, err := checkpoint.OpenStandby(ctx, checkpoint.StandbyConfig{
			Target: s.New.Cluster, JournalTopic: s.Forward.Options.JournalTopic, CheckpointsTopic: s.Forward.CheckpointsTopic, TargetName: topic, Log: s.Log,
		})
		if !kerr.IsRetriable(err) || time.Since(began) > startTime {
			return standby, err
		}
		req.progress("gates", "waiting for the daemon of link %s, which may have just begun: %v", s.Forward.Name, err)
		if ended := pause.For(ctx, 200*time.Millisecond); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// look reads both regions. What cannot be read is in the world for the gates to name.
func look(ctx context.Context, s Setup, req Request) (*world, error) {
	w := &world{at: time.Now()}
	var err error
	asking, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if w.newState, err = authority.Read(asking, s.authorityOn(s.New)); err != nil {
		return nil, err
	}
	if s.Old.Cluster != nil {
		w.oldState, w.oldErr = authority.Read(asking, s.authorityOn(s.Old))
	} else {
		w.oldErr = s.Old.Err
	}
	w.standby, w.standbyErr = openStandby(ctx, s, req)
	if w.standbyErr != nil && ctx.Err() != nil {
		return nil, w.standbyErr
	}
	if w.standbyErr == nil {
		err = w.lookAtLanes(ctx, s)
	}
	return w, err
}

// lookAtLanes reads how far the lanes have come, and the source's ends if it is there.
func (w *world) lookAtLanes(ctx context.Context, s Setup) error {
	views := map[offsets.Lane]*laneView{}
	var known []offsets.Lane
	for _, l := range w.standby.Lanes() {
		if s.Forward.Topic(l.Topic) {
			views[l] = &laneView{lane: l, sourceEnd: -1, sourceStable: -1, known: true}
			known = append(known, l)
		}
	}
	if s.Old.Cluster != nil {
		ends, stable, err := sourceEnds(ctx, s.Old.Cluster, s.Forward.Topic)
		if err != nil {
			return err
		}
		for l, end := range ends {
			if views[l] == nil {
				views[l] = &laneView{lane: l}
			}
			views[l].sourceEnd, views[l].sourceStable = end, stable[l]
		}
	}
	tails, err := w.standby.Tails(ctx, known)
	if err != nil {
		return err
	}
	w.lanes = w.lanes[:0]
	for _, l := range slices.SortedFunc(maps.Keys(views), compareLanes) {
		v := views[l]
		v.tail = tails[l]
		w.lanes = append(w.lanes, *v)
	}
	return w.forgetGone(ctx, s)
}

func compareLanes(a, b offsets.Lane) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// listTopics asks a broker for the topics there are now: the client would answer from what
// it has known for some seconds, and a topic made in between must not be passed by.
func listTopics(ctx context.Context, c *cluster.Cluster) (map[string][16]byte, error) {
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, c.Client())
	if err != nil {
		return nil, fmt.Errorf("list topics of %s: %w", c.Alias(), err)
	}
	out := make(map[string][16]byte, len(resp.Topics))
	for _, t := range resp.Topics {
		if t.Topic != nil {
			out[*t.Topic] = t.TopicID
		}
	}
	return out, nil
}

// sourceEnds lists the high watermarks and last stable offsets of the topics that are copied.
func sourceEnds(ctx context.Context, c *cluster.Cluster, match func(string) bool) (ends, stable map[offsets.Lane]int64, err error) {
	topics, err := listTopics(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	var names []string
	for t := range topics {
		if match(t) {
			names = append(names, t)
		}
	}
	ends, stable = map[offsets.Lane]int64{}, map[offsets.Lane]int64{}
	if len(names) == 0 {
		return ends, stable, nil
	}
	for _, ask := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		into map[offsets.Lane]int64
	}{{c.Admin().ListCommittedOffsets, stable}, {c.Admin().ListEndOffsets, ends}} {
		listed, err := ask.list(ctx, names...)
		if err = errors.Join(err, listed.Error()); err != nil {
			return nil, nil, fmt.Errorf("list ends of %s: %w", c.Alias(), err)
		}
		listed.Each(func(o kadm.ListedOffset) { ask.into[offsets.Lane{Topic: o.Topic, Partition: o.Partition}] = o.Offset })
	}
	return ends, stable, nil
}

func (s Setup) authorityOn(r Region) authority.Config {
	return authority.Config{Cluster: r.Cluster, Pair: s.Pair, Log: s.Log}
}

// current is the authority record of the copy that is ahead, the zero record if there is none.
func (w *world) current() authority.Record {
	now, _ := w.newState.Current()
	if old, _ := w.oldState.Current(); w.oldErr == nil && old.Epoch > now.Epoch {
		return old
	}
	return now
}

func epochOf(s authority.State) int64 {
	r, _ := s.Current()
	return r.Epoch
}

// laneRows is the document of the lanes.
func (w *world) laneRows() evidence.LanesDoc {
	out := make(evidence.LanesDoc, 0, len(w.lanes))
	for _, l := range w.lanes {
		row := evidence.LaneRow{Topic: l.lane.Topic, Partition: l.lane.Partition, SourceEnd: l.sourceEnd, Position: l.position(), TargetEnd: -1}
		if lag := l.lag(); lag >= 0 {
			row.Lag = &lag
		}
		if l.known {
			row.TargetEnd = l.tail.End
			row.MapDigest = mapDigest(l.tail.State)
			if e, ok := l.tail.State.Last(); ok {
				row.Writer = e.Writer.String()
			}
		}
		out = append(out, row)
	}
	return out
}

// mapDigest is a digest of the runs of a lane's offset map.
func mapDigest(s offsets.LaneState) string {
	h := fnv.New64a()
	for run := range s.Runs() {
		fmt.Fprintf(h, "%v\n", run)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// regionTable is both regions in two rows.
func (w *world) regionTable(s Setup, when evidence.When) evidence.RegionsDoc {
	current := w.current()
	ok := current.Epoch > 0
	role := func(alias string) string {
		switch {
		case !ok && s.authoritativeWithoutRecord() == alias, ok && current.Region == alias:
			return evidence.RoleAuthoritative
		case !ok && s.authoritativeWithoutRecord() == "":
			return evidence.NotKnown
		}
		return evidence.RoleStandby
	}
	var lag int64 = -1
	for _, l := range w.lanes {
		if l.lag() >= 0 {
			lag = max(lag, 0) + l.lag()
		}
	}
	row := func(r Region, state authority.State, err error) evidence.RegionRow {
		out := evidence.RegionRow{Region: r.Alias, Reachable: r.Cluster != nil && err == nil, Role: role(r.Alias), Epoch: epochOf(state), Writers: evidence.NotKnown}
		if r.Cluster != nil {
			out.ClusterID = r.Cluster.ID()
			out.Writers = evidence.WritersOpen
			if _, fenced := state.Facts[writersFact]; fenced {
				out.Writers = evidence.WritersFenced
			}
		}
		from := s.Pair.Other(r.Alias)
		out.LinkState = "closed"
		if may, _ := state.MayAppend(from, r.Alias); may && out.Reachable {
			out.LinkState = "open"
		}
		if r.Alias == s.New.Alias && lag >= 0 {
			out.LagRecords = &lag
		}
		return out
	}
	return evidence.RegionsDoc{When: when, Rows: []evidence.RegionRow{row(s.Old, w.oldState, w.oldErr), row(s.New, w.newState, nil)}}
}

// authoritativeWithoutRecord is the region that is authoritative while nobody has said
// so: the one a single link copies from; of two links neither.
func (s Setup) authoritativeWithoutRecord() string {
	if s.Reverse != nil {
		return ""
	}
	return s.Forward.Options.From
}

// regions looks again and makes the table.
func (r *run) regions(ctx context.Context, when evidence.When) evidence.RegionsDoc {
	w := *r.world
	read := func(region Region) (authority.State, error) {
		if region.Cluster == nil {
			return authority.State{}, region.Err
		}
		asking, cancel := context.WithTimeout(ctx, oldTime)
		defer cancel()
		return authority.Read(asking, r.authorityOn(region))
	}
	if r.audit.down == nil {
		if s, err := read(r.New); err == nil {
			w.newState = s
		}
	}
	if s, err := read(r.Old); err == nil {
		w.oldState, w.oldErr = s, nil
	} else {
		w.oldErr = err
	}
	return w.regionTable(r.Setup, when)
}
