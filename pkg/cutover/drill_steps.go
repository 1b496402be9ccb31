package cutover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"replicator/internal/newtopic"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// leftovers removes what was left on both regions: the direction may have been the other one.
func (d *drill) leftovers(ctx context.Context) (string, error) {
	var all []string
	for _, region := range []Region{d.New, d.Old} {
		if region.Cluster == nil {
			continue
		}
		deleted, err := d.scratch.sweep(ctx, region.Cluster, true)
		if err != nil && region.Alias == d.New.Alias {
			return "", err
		}
		all = append(all, deleted...)
	}
	if len(all) == 0 {
		return "", skip("there were none")
	}
	return fmt.Sprintf("%d removed: %s", len(all), first(all)), nil
}

// gates are those of a switchover. None stops the drill.
func (d *drill) gates(ctx context.Context) (string, error) {
	as := *d.run
	as.req.Verb, as.req.ExpectEpoch, as.req.rehearsal = Switchover, -1, true
	before := len(d.rec.Events())
	proof, err := as.gates(ctx)
	d.world = as.world
	for _, e := range d.rec.Events()[before:] {
		if e.Kind == evidence.KindGates {
			some, bad := evidence.Decode[evidence.GatesDoc](e)
			if bad != nil {
				return "", bad
			}
			d.out.Gates = append(d.out.Gates, some...)
		}
	}
	if no := d.failedGates(); len(no) > 0 {
		return "", fmt.Errorf("%d of %d failed: %s", len(no), len(d.out.Gates), strings.Join(no, ", "))
	}
	return proof, err
}

// fenceMost bounds the partitions of the scratch topic.
const fenceMost = 16

// fence does with a scratch topic what a cutover does with the link, on every broker.
func (d *drill) fence(ctx context.Context) (string, error) {
	brokers, err := d.New.Cluster.Admin().ListBrokers(ctx)
	if err != nil {
		return "", fmt.Errorf("list brokers of %s: %w", d.New.Alias, err)
	}
	o := mirror.Options{
		From: d.Old.Alias, To: d.New.Alias, Name: d.scratch.topic(), Only: d.scratch.topic(), JournalTopic: d.scratch.journal(), JournalPartitions: 1,
		JournalReplicationFactor: d.Forward.Options.JournalReplicationFactor, MaxDecodedBytes: d.Forward.Options.MaxDecodedBytes,
	}
	partitions := int32(min(max(len(brokers), 1), fenceMost))
	if err := newtopic.Create(ctx, d.New.Cluster.Admin(), newtopic.Topic{Name: o.Only, Partitions: partitions, Replicas: d.Forward.Options.ReplicationFactor}); err != nil {
		return "", fmt.Errorf("create topic %s on %s: %w", o.Only, d.New.Alias, err)
	}
	tried, err := mirror.Rehearse(ctx, mirror.RehearseConfig{Options: o, Target: d.New.Cluster, Log: d.Log, Instance: d.id, Partitions: partitions})
	doc := evidence.FenceDoc{Lanes: len(tried.Lanes), Basis: []string{"a scratch topic with " + fmt.Sprint(partitions) + " partitions; no lane of the link was touched"}}
	answers := map[offsets.Lane]string{}
	leaders := map[int32]bool{}
	for _, p := range tried.Proofs {
		answers[offsets.Lane{Topic: p.Topic, Partition: p.Partition}] = p.Answer + p.Error
		leaders[p.Leader] = true
		if p.Holds && p.Tried.ProducerID >= 0 {
			doc.Refused++
		}
	}
	for _, l := range tried.Lanes {
		if l.Fenced {
			doc.Fenced++
		}
		doc.Rows = append(doc.Rows, evidence.FenceRow{Topic: l.Topic, Partition: l.Partition, OldWriter: l.Old.String(), NewWriter: l.New.String(), End: l.End, Answer: answers[l.Lane()]})
	}
	if err := errors.Join(err, d.event(ctx, evidence.KindFence, "fence", doc)); err != nil {
		return "", err
	}
	if doc.Refused < int(partitions) {
		return "", fmt.Errorf("appends of former writers were tried on %d of %d partitions only", doc.Refused, partitions)
	}
	d.took["fence"] = tried.Took + tried.Proved
	d.check("fence", true, "%d lanes on %d brokers fenced in %v, %d appends of former writers refused; the link has %d lanes",
		doc.Fenced, len(leaders), tried.Took.Round(time.Millisecond), doc.Refused, len(d.world.lanes))
	return fmt.Sprintf("%d lanes of a scratch topic fenced in %v, %d of %d appends of former writers refused", doc.Fenced, tried.Took.Round(time.Millisecond), doc.Refused, partitions), nil
}

// lookAgain brings the lanes up to date. Without a journal there are none.
func (d *drill) lookAgain(ctx context.Context) error {
	if d.world.standbyErr != nil {
		return d.world.standbyErr
	}
	d.world.at = time.Now()
	return d.world.lookAtLanes(ctx, d.Setup)
}

// drain measures how long the link takes to come to where its source ends now.
func (d *drill) drain(ctx context.Context) (string, error) {
	if err := d.lookAgain(ctx); err != nil {
		return "", err
	}
	loss, err := d.world.estimateLoss(ctx, d.Setup)
	if err != nil {
		return "", err
	}
	d.out.Drill.LagRecords, d.out.Drill.LagSeconds = 0, 0
	for _, row := range loss.Rows {
		d.out.Drill.LagRecords += row.Records
		if row.Records > 0 && row.Seconds != nil {
			d.out.Drill.LagSeconds = max(d.out.Drill.LagSeconds, *row.Seconds)
		}
	}
	kept := *loss
	kept.Rows = shortened(loss.Rows, lost)
	if err := d.event(ctx, evidence.KindLoss, "drain", kept); err != nil {
		return "", err
	}
	if d.out.Drill.LagRecords == 0 {
		d.check("RPO", true, "all that %s had was copied: a failover would have lost nothing of it", d.Old.Alias)
	} else {
		d.check("RPO", true, "of what %s had, %d records of the last %.1f s were not copied yet: a failover would have lost them", d.Old.Alias, d.out.Drill.LagRecords, d.out.Drill.LagSeconds)
	}
	if d.Old.Cluster == nil {
		return "", skip("%s cannot be reached", d.Old.Alias)
	}
	if d.ends, _, err = sourceEnds(ctx, d.Old.Cluster, d.Forward.Topic); err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := d.run.drain(ctx); err != nil {
		return "", err
	}
	d.took["drain"] = time.Since(began)
	return fmt.Sprintf("what %s had is on %s, after %v", d.Old.Alias, d.New.Alias, d.took["drain"].Round(time.Millisecond)), nil
}

func (d *drill) verify(ctx context.Context) (string, error) {
	if d.Old.Cluster == nil {
		return "", skip("%s cannot be reached", d.Old.Alias)
	}
	if d.world.standbyErr != nil {
		return "", d.world.standbyErr
	}
	began := time.Now()
	proof, err := d.run.verify(ctx)
	if err == nil {
		d.took["verify"] = time.Since(began)
	}
	return proof, err
}

// groups translates what the groups have committed into scratch groups.
func (d *drill) groups(ctx context.Context) (string, error) {
	began := time.Now()
	standby, err := checkpoint.OpenStandby(ctx, checkpoint.StandbyConfig{
		Target: d.New.Cluster, JournalTopic: d.Forward.Options.JournalTopic, CheckpointsTopic: d.Forward.CheckpointsTopic, TargetName: topic, Log: d.Log,
	})
	if err != nil {
		return "", err
	}
	defer standby.Close()
	found, _, err := groupCommits(ctx, d.Setup, standby)
	if err != nil {
		return "", err
	}
	found = slices.DeleteFunc(found, func(c *checkpoint.Checkpoint) bool {
		return strings.HasPrefix(c.Group, scratchPrefix) || slices.Contains(d.req.SkipGroups, c.Group)
	})
	if len(found) == 0 {
		return "", skip("no group has committed anything")
	}
	if d.placements, err = standby.Placements(ctx, found); err != nil {
		return "", err
	}
	for _, p := range d.placements {
		p.Group, p.Placed = d.scratch.group(p.Group), -1
	}
	placer := checkpoint.Placer{Target: d.New.Cluster}
	if err := placer.ApplyAll(ctx, d.placements); err != nil {
		return "", err
	}
	differ, err := placer.Prove(ctx, d.placements)
	if err != nil {
		return "", err
	}
	d.took["groups"] = time.Since(began)
	var no []string
	groups := map[string]bool{}
	for _, p := range d.placements {
		groups[p.Group] = true
		if p.Action == checkpoint.Skip {
			no = append(no, fmt.Sprintf("%s %s (%s)", d.scratch.groupOf(p.Group), p.Lane, strings.TrimSuffix(string(p.Reason)+": "+p.Detail, ": ")))
		}
	}
	switch {
	case len(differ) > 0:
		return "", fmt.Errorf("%d offsets were read back otherwise, such as %s %s", len(differ), d.scratch.groupOf(differ[0].Group), differ[0].Lane)
	case len(no) > 0:
		return "", fmt.Errorf("%d offsets cannot be placed: %s", len(no), first(no))
	}
	proof := fmt.Sprintf("%s of %s committed to scratch groups and read back", words.Count(int64(len(d.placements)), "offset"), words.Count(int64(len(groups)), "group"))
	d.check("groups", true, "%s, in %v", proof, d.took["groups"].Round(time.Millisecond))
	return proof, nil
}

// What the evidence of a drill has of a table: one is run every night, and says of most
// rows what it said the night before.
const (
	wrongKept = 1000 // rows with which something is wrong
	rightKept = 100  // other rows
)

// shortened is what a drill keeps of a table, rows with which something is wrong first.
// What it says of all of them is in the step's proof.
func shortened[T any](rows []T, wrong func(T) bool) []T {
	var bad, good []T
	for _, r := range rows {
		if wrong(r) {
			bad = append(bad, r)
		} else {
			good = append(good, r)
		}
	}
	return append(bad[:min(len(bad), wrongKept)], good[:min(len(good), rightKept)]...)
}

// behind: the lane is not at its source's end, or that is not known.
func behind(r evidence.LaneRow) bool { return r.Lag == nil || *r.Lag > 0 || r.TargetEnd < 0 }

// lost: records of the topic were not copied yet.
func lost(r evidence.LossRow) bool { return r.Records > 0 }

// groupsEvent keeps the table of groups, those with which something is wrong first. failed
// are positions that were probed in vain, nil if none was probed.
func (d *drill) groupsEvent(ctx context.Context, failed map[checkpoint.Key]bool) error {
	rows := groupRows(d.placements, failed)
	for i := range rows {
		rows[i].Group = d.scratch.groupOf(rows[i].Group)
	}
	d.out.Groups = rows
	wrong := func(r evidence.GroupRow) bool {
		return checkpoint.Action(r.Action) == checkpoint.Skip || r.Proved != nil && !*r.Proved
	}
	return d.event(ctx, evidence.KindGroups, "probe", evidence.GroupsDoc(shortened(rows, wrong)))
}

// probe reads what each group would read first.
func (d *drill) probe(ctx context.Context) (string, error) {
	if d.Old.Cluster == nil {
		if err := d.groupsEvent(ctx, nil); err != nil {
			return "", err
		}
		return "", skip("%s cannot be reached: there is nothing to compare with", d.Old.Alias)
	}
	type at struct {
		lane           offsets.Lane
		source, target int64
	}
	index := map[at]*probe{}
	var probes []*probe
	n := 0
	for _, p := range d.placements {
		if p.Action == checkpoint.Skip {
			continue
		}
		n++
		k := at{p.Lane, p.Source, p.Target}
		if index[k] == nil {
			index[k] = &probe{lane: p.Lane, source: p.Source, target: p.Target}
			probes = append(probes, index[k])
		}
	}
	if n == 0 {
		if len(d.placements) > 0 {
			if err := d.groupsEvent(ctx, nil); err != nil {
				return "", err
			}
		}
		return "", skip("no group was placed")
	}
	if err := d.compareFirst(ctx, probes); err != nil {
		return "", err
	}
	compacted := compactedTopics(ctx, []Region{d.Old, d.New}, probes)
	lost, err := lostOnSource(ctx, d.Old, probes)
	if err != nil {
		return "", err
	}
	failed := map[checkpoint.Key]bool{}
	var wrong []string
	atEnd, removed := 0, 0
	for _, p := range d.placements {
		k := index[at{p.Lane, p.Source, p.Target}]
		switch {
		case k == nil || p.Action == checkpoint.Skip:
		case k.why != "" && (compacted[p.Lane.Topic] || lost[k]):
			removed++ // one side may have let go of what the other still has
		case k.why != "":
			failed[p.Key] = true
			wrong = append(wrong, fmt.Sprintf("%s %s at source offset %d, target offset %d: %s", d.scratch.groupOf(p.Group), p.Lane, p.Source, p.Target, k.why))
		case k.first[0] == nil:
			atEnd++
		}
	}
	if err := d.groupsEvent(ctx, failed); err != nil {
		return "", err
	}
	if len(wrong) > 0 {
		return "", fmt.Errorf("%d of %d positions go on with another record: %s", len(wrong), n, first(wrong))
	}
	proof := fmt.Sprintf("the next record of %d positions is the same on both sides", n-atEnd-removed)
	if atEnd > 0 {
		proof += fmt.Sprintf("; %d are at the end of both", atEnd)
	}
	if removed > 0 {
		proof += fmt.Sprintf("; of %d nothing can be said: compaction or retention has removed records", removed)
	}
	d.check("probe", true, "%s", proof)
	return proof, nil
}

// lostOnSource are probes whose record the source's own retention has removed: its groups
// would go on behind it, those of the target need not.
func lostOnSource(ctx context.Context, source Region, probes []*probe) (map[*probe]bool, error) {
	topics := map[string]bool{}
	for _, p := range probes {
		if p.why != "" {
			topics[p.lane.Topic] = true
		}
	}
	out := map[*probe]bool{}
	if len(topics) == 0 {
		return out, nil
	}
	starts, err := source.Cluster.Admin().ListStartOffsets(ctx, slices.Sorted(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("list starts of %s: %w", source.Alias, err)
	}
	for _, p := range probes {
		if start, ok := starts.Lookup(p.lane.Topic, p.lane.Partition); ok && start.Err == nil && start.Offset > p.source {
			out[p] = true
		}
	}
	return out, nil
}

// compactedTopics are topics that are compacted on either side.
func compactedTopics(ctx context.Context, regions []Region, probes []*probe) map[string]bool {
	var names []string
	for _, p := range probes {
		if p.why != "" && !slices.Contains(names, p.lane.Topic) {
			names = append(names, p.lane.Topic)
		}
	}
	out := map[string]bool{}
	if len(names) == 0 {
		return out
	}
	for _, r := range regions {
		configs, err := r.Cluster.Admin().DescribeTopicConfigs(ctx, names...)
		if err != nil {
			continue // then a difference is one
		}
		for _, t := range configs {
			for _, kv := range t.Configs {
				if kv.Key == "cleanup.policy" && strings.Contains(kv.MaybeValue(), "compact") {
					out[t.Name] = true
				}
			}
		}
	}
	return out
}

// cleanUp removes what this drill made.
func (d *drill) cleanUp(ctx context.Context) (string, error) {
	deleted, err := d.scratch.sweep(ctx, d.New.Cluster, false)
	if err != nil {
		return "", fmt.Errorf("%w; the next drill tries again", err)
	}
	return fmt.Sprintf("%d scratch topics and groups removed", len(deleted)), nil
}
