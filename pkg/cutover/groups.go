package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/internal/pause"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
	"replicator/pkg/verify"
)

// tails are those of the lanes that are known.
func (w *world) tails() map[offsets.Lane]offsets.Tail {
	out := make(map[offsets.Lane]offsets.Tail, len(w.lanes))
	for _, l := range w.lanes {
		if l.known {
			out[l.lane] = l.tail
		}
	}
	return out
}

// groupCommits are the groups' positions: asked of the old region where it answers,
// else what the daemon has written down. active are groups that have members there.
func groupCommits(ctx context.Context, s Setup, standby *checkpoint.Standby) (found []*checkpoint.Checkpoint, active []string, err error) {
	if s.Old.Cluster == nil {
		for _, c := range standby.Checkpoints() {
			if s.Forward.Group(c.Group) {
				found = append(found, c)
			}
		}
		return found, nil, nil
	}
	var known []checkpoint.Key
	for _, c := range standby.Checkpoints() {
		known = append(known, c.Key)
	}
	commits, err := checkpoint.ReadCommits(ctx, s.Old.Cluster, known, s.Forward.Group, s.Forward.Topic) // its own time bounds it
	if err != nil {
		return nil, nil, err
	}
	return standby.Merge(commits.Commits), commits.Active, nil
}

// planGroups translates the groups as they are now and says what would be done. Where
// somebody is still reading, the plan is of the moment.
func (w *world) planGroups(ctx context.Context, s Setup) (evidence.GroupsDoc, error) {
	found, _, err := groupCommits(ctx, s, w.standby)
	if err != nil {
		return nil, err
	}
	var placements []*checkpoint.Placement
	if s.Old.Cluster == nil {
		placements = w.standby.PlacementsAt(w.tails(), found) // nothing is copied any more, and leaders may be waited for
	} else if placements, err = w.standby.Placements(ctx, found); err != nil {
		return nil, err
	}
	if err := (checkpoint.Placer{Target: s.New.Cluster}).Plan(ctx, placements); err != nil {
		return nil, err
	}
	return groupRows(placements, nil), nil
}

func groupRows(placements []*checkpoint.Placement, differ map[checkpoint.Key]bool) evidence.GroupsDoc {
	rows := make(evidence.GroupsDoc, 0, len(placements))
	for _, p := range placements {
		row := evidence.GroupRow{Group: p.Group, Topic: p.Lane.Topic, Partition: p.Lane.Partition, Outcome: p.Outcome.String(), Action: string(p.Action), Reason: string(p.Reason)}
		if p.Detail != "" {
			row.Reason += ": " + p.Detail
		}
		if p.Source >= 0 {
			row.Source = &p.Source
		}
		if p.Target >= 0 {
			row.Target = &p.Target
		}
		if differ != nil && p.Action != checkpoint.Skip {
			proved := !differ[p.Key]
			row.Proved = &proved
		}
		rows = append(rows, row)
	}
	return rows
}

// placeGroups translates the groups with the final map, commits, and reads back. As long
// as groups of the old region go on committing it is done again.
func (r *run) placeGroups(ctx context.Context) (string, error) {
	if r.forgone && r.req.Verb != Failover { // it may answer again in a moment: whoever runs this again decides
		return "", fmt.Errorf("what the groups have committed last is on %s: %w", r.Old.Alias, r.Old.Err)
	}
	standby, err := checkpoint.OpenStandby(ctx, checkpoint.StandbyConfig{
		Target: r.New.Cluster, JournalTopic: r.Forward.Options.JournalTopic, CheckpointsTopic: r.Forward.CheckpointsTopic, TargetName: topic, Log: r.Log,
	})
	if err != nil {
		return "", err
	}
	defer standby.Close()
	placer := checkpoint.Placer{Target: r.New.Cluster}
	deadline := time.Now().Add(r.Settings.GroupsTimeout)
	var placements []*checkpoint.Placement
	var active []string
	for last := ""; ; {
		found, members, err := groupCommits(ctx, r.Setup, standby)
		if err != nil && r.req.Verb == Failover && ctx.Err() == nil {
			r.Old.Cluster, r.Old.Err = nil, err // given up: what the new region knows has to do
			continue
		}
		if err != nil {
			return "", err
		}
		active = members
		// Members that have not stopped yet may commit what they are working on: offsets are
		// placed when they have gone, or stand still for the time that is allowed.
		now := positions(found)
		if len(active) > 0 && r.Old.Cluster != nil && time.Now().Before(deadline) {
			r.progress("groups", "waiting for the members of %s on %s to stop", first(active), r.Old.Alias)
			if err := pause.For(ctx, 200*time.Millisecond); err != nil {
				return "", err
			}
			last = now
			continue
		}
		// Who goes on committing for ever is named, not waited for.
		if placements != nil && (now == last || len(active) > 0 && time.Now().After(deadline.Add(r.Settings.GroupsTimeout/2))) {
			break
		}
		last = now
		if placements, err = standby.Placements(ctx, found); err != nil {
			return "", err
		}
		if err := placer.ApplyAll(ctx, placements); err != nil {
			return "", err
		}
		if r.Old.Cluster == nil {
			break
		}
	}
	differ, err := placer.Prove(ctx, placements)
	if err != nil {
		return "", err
	}
	bad := map[checkpoint.Key]bool{}
	for _, p := range differ {
		bad[p.Key] = true
	}
	rows := groupRows(placements, bad)
	if err := r.event(ctx, evidence.KindGroups, "groups", rows); err != nil {
		return "", err
	}
	return r.judgeGroups(ctx, rows, active, placements)
}

// positions tells two readings apart.
func positions(found []*checkpoint.Checkpoint) string {
	var b strings.Builder
	for _, c := range found {
		fmt.Fprintf(&b, "%v=%d\n", c.Key, c.Source)
	}
	return b.String()
}

// judgeGroups says what came of the groups.
func (r *run) judgeGroups(ctx context.Context, rows evidence.GroupsDoc, active []string, placements []*checkpoint.Placement) (string, error) {
	var no, differ []string
	groups := map[string]bool{}
	placed := 0
	for _, row := range rows {
		text := fmt.Sprintf("%s %s-%d", row.Group, row.Topic, row.Partition)
		switch {
		case row.Proved != nil && *row.Proved:
			placed++
			groups[row.Group] = true
		case row.Proved != nil:
			differ = append(differ, text)
		case !slices.Contains(r.req.SkipGroups, row.Group) && !strings.HasPrefix(row.Reason, string(checkpoint.TargetAhead)):
			no = append(no, fmt.Sprintf("%s (%s)", text, row.Reason))
		}
	}
	switch {
	case len(differ) > 0:
		return "", fmt.Errorf("%d offsets were read back otherwise: somebody else commits on %s: %s", len(differ), r.New.Alias, first(differ))
	case len(no) > 0:
		return "", &RefusedError{Reasons: []string{fmt.Sprintf("%d offsets are not placed: %s", len(no), first(no))},
			Fix: "stop the group's members on " + r.New.Alias + " and run the command again, or leave it out with --skip-group"}
	}
	proof := fmt.Sprintf("%s of %s on %s, read back", words.Count(int64(placed), "offset"), words.Count(int64(len(groups)), "group"), r.New.Alias)
	same, err := r.sameRecords(ctx, placements)
	if err != nil {
		return "", err
	}
	if same != "" {
		proof += "; " + same
	}
	if len(active) > 0 {
		proof += fmt.Sprintf("; warning: %s still have members on %s: what they commit from now on is not known here, and is read again", first(active), r.Old.Alias)
	}
	return proof, nil
}

// sameRecords compares the record each group goes on with on both sides, where the old
// region answers.
func (r *run) sameRecords(ctx context.Context, placements []*checkpoint.Placement) (string, error) {
	if r.Old.Cluster == nil {
		return "", nil
	}
	if err := r.world.lookAtLanes(ctx, r.Setup); err != nil {
		return "", err
	}
	tails := r.world.tails()
	type at struct {
		lane   offsets.Lane
		source int64
	}
	seen := map[at]bool{}
	var ranges []verify.Range
	for _, p := range placements {
		tail, ok := tails[p.Lane]
		if p.Outcome != offsets.Exact || !ok || tail.Err != nil || seen[at{p.Lane, p.Source}] {
			continue
		}
		seen[at{p.Lane, p.Source}] = true
		ranges = append(ranges, verify.Range{Lane: p.Lane, TargetTopic: p.TargetTopic, State: tail.State, From: p.Source, To: p.Source + 1})
	}
	if len(ranges) == 0 {
		return "", nil
	}
	report, err := verify.Run(ctx, r.Old.Cluster, r.New.Cluster, ranges, verify.Options{ReadCommitted: !r.Forward.Options.ReadUncommitted, MaxDecodedBytes: r.Forward.Options.MaxDecodedBytes})
	if err != nil {
		return "", err
	}
	if report.Different() {
		doc := verifyDoc(report)
		return "", errors.Join(r.event(ctx, evidence.KindVerify, "groups", doc), fmt.Errorf("the record a group goes on with is another one on %s: %+v", r.New.Alias, doc.First))
	}
	return fmt.Sprintf("the next record of %d positions is the same on both sides", report.Total.Equal), nil
}
