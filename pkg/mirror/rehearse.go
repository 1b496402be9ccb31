package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// RehearseConfig is what rehearsing a fence needs.
type RehearseConfig struct {
	// Options of a link that copies nothing: Only is a topic that exists on the target
	// and is empty, JournalTopic one that nobody else uses.
	Options    Options
	Target     *cluster.Cluster
	Log        *zap.Logger // nil: none
	Instance   string      // who rehearses, kept in the journal
	Partitions int32       // of the topic
}

// Rehearsal is what came of it, by lane.
type Rehearsal struct {
	Lanes  []FencedLane
	Proofs []FenceProof
	// Took is how long taking all epochs took, with the journal's records; Proved how
	// long it took to have the former writers refused.
	Took, Proved time.Duration
}

// Rehearse does with a scratch topic what a fence does with a link: every lane is
// opened, its writer appends a record, which has to be taken; the link is fenced, and
// the writer's next append has to be refused. The error says where it was otherwise.
func Rehearse(ctx context.Context, c RehearseConfig) (Rehearsal, error) {
	var out Rehearsal
	var lanes []PreparedLane
	for n := range c.Partitions {
		lanes = append(lanes, PreparedLane{Lane: offsets.Lane{Topic: c.Options.Only, Partition: n}, SourceLeaderEpoch: -1})
	}
	opened, err := Prepare(ctx, PrepareConfig{Options: c.Options, Target: c.Target, Log: c.Log, Run: c.Instance, Lanes: lanes})
	if err != nil {
		return out, err
	}
	for _, l := range opened.Lanes {
		if err := appendAs(ctx, c.Target, l); err != nil {
			return out, fmt.Errorf("append to %s-%d as its writer, %s: %w", l.Topic, l.Partition, l.Writer, err)
		}
	}
	began := time.Now()
	report, err := Fence(ctx, FenceConfig{Options: c.Options, Target: c.Target, Log: c.Log, Instance: c.Instance})
	out.Lanes, out.Took = report.Lanes, time.Since(began)
	if err != nil {
		return out, err
	}
	if len(report.Lanes) != len(opened.Lanes) {
		return out, fmt.Errorf("fence topic %s: %d lanes were opened, %d fenced", c.Options.Only, len(opened.Lanes), len(report.Lanes))
	}
	for i, l := range report.Lanes {
		if was := opened.Lanes[i].Writer; l.Old != was || l.Ordinal != 1 || l.Source != 1 {
			return out, fmt.Errorf("fence lane %s: it ended writer %s behind %d records, not %s behind the one it appended", l.Lane(), l.Old, l.Ordinal, was)
		}
	}
	began = time.Now()
	out.Proofs, err = Prove(ctx, c.Target, report.Lanes)
	out.Proved = time.Since(began)
	return out, err
}

// appendAs appends the first record of a lane that was just opened.
func appendAs(ctx context.Context, target *cluster.Cluster, l PreparedLaneReport) error {
	listed, err := listTopics(ctx, target.Client(), []string{l.Topic})
	if err != nil {
		return err
	}
	leader := placeOf(listed[l.Topic], l.Partition).leader
	if leader < 0 {
		return errors.New("partition has no leader")
	}
	conn, err := target.Connect(ctx, leader)
	if err != nil {
		return err
	}
	defer conn.Close()
	return sendProbe(ctx, conn, l.Topic, l.Partition, probeBatch(l.Writer, 0, time.Now()))
}
