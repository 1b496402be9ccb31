package cutover

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"replicator/internal/pause"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
	"replicator/pkg/verify"
)

// drain waits until every lane has come to its source's end.
func (r *run) drain(ctx context.Context) (string, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, r.Settings.DrainTimeout, fmt.Errorf("not done after cutover.drain_timeout, %v", r.Settings.DrainTimeout))
	defer cancel()
	var last string
	for {
		err := r.world.lookAtLanes(ctx, r.Setup)
		if time.Since(began) >= r.Settings.DrainTimeout {
			<-ctx.Done() // requests of the same deadline may end a moment before
		}
		if ctx.Err() != nil { // which a lane may have as its own error
			return "", fmt.Errorf("%w: %s", context.Cause(ctx), cmp.Or(last, "the lanes could not be read in that time"))
		}
		if err != nil {
			return "", err
		}
		var behind []string
		var records int64
		var unread error
		for _, l := range r.world.lanes {
			switch {
			case l.known && l.tail.Unread: // a leader moves, or a quota makes us wait
				unread = l.tail.Err
				behind = append(behind, l.lane.String())
			case l.known && l.tail.Err != nil:
				return "", fmt.Errorf("lane %s: %w", l.lane, l.tail.Err)
			case l.sourceEnd > 0 && !known(r.ends, l.lane):
				return "", refused("run the command again", "partition %s appeared after writers were fenced", l.lane)
			case l.position() < r.ends[l.lane] && r.ends[l.lane] > 0:
				behind = append(behind, l.lane.String())
				records += l.lag()
			}
		}
		if len(behind) == 0 {
			proof := fmt.Sprintf("%d lanes stand at their source's end, after %v", len(r.world.lanes), time.Since(began).Round(10*time.Millisecond))
			if r.req.Verb == Drill {
				return proof, nil // its gates have the table
			}
			return proof, r.lanesEvent(ctx, "drain")
		}
		last = fmt.Sprintf("%d of %d partitions are behind, %d records: %s", len(behind), len(r.world.lanes), records, first(behind))
		if unread != nil {
			last = fmt.Sprintf("%d of %d partitions are behind or could not be read: %s: %v", len(behind), len(r.world.lanes), first(behind), unread)
		}
		r.progress("drain", "%s (%v)", last, time.Since(began).Round(time.Second))
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return "", fmt.Errorf("%w: %s", err, last)
		}
	}
}

func known(ends map[offsets.Lane]int64, lane offsets.Lane) bool {
	_, ok := ends[lane]
	return ok
}

// verify compares the last records of each lane on both sides.
func (r *run) verify(ctx context.Context) (string, error) {
	if err := r.world.lookAtLanes(ctx, r.Setup); err != nil {
		return "", err
	}
	tails := r.world.tails()
	deleted, err := withoutDeleted(ctx, r.Setup, tails)
	if err != nil {
		return "", err
	}
	ranges, err := verify.Ranges(ctx, r.Old.Cluster, tails, r.Settings.VerifyRecords)
	if err != nil {
		return "", err
	}
	if r.Reverse != nil { // records the new region has by decision, from when it was the old one and was given up
		if err := verify.KeepStranded(ctx, r.Old.Cluster, r.Reverse.Options.JournalTopic, ranges, r.Log); err != nil {
			return "", err
		}
	}
	report, err := verify.Run(ctx, r.Old.Cluster, r.New.Cluster, ranges, verify.Options{
		ReadCommitted: !r.Forward.Options.ReadUncommitted, MaxDecodedBytes: r.Forward.Options.MaxDecodedBytes,
		Progress: func(p verify.Progress) {
			r.progress("verify", "%d of %d lanes, %d of %d offsets, %d differences", p.LanesDone, p.Lanes, p.Done, p.Offsets, p.Differences)
		},
	})
	if err != nil {
		return "", err
	}
	doc := verifyDoc(report)
	if err := r.event(ctx, evidence.KindVerify, "verify", doc); err != nil {
		return "", err
	}
	if n := report.Failed(); n > 0 && !report.Different() {
		return "", refused("replicator verify says more", "%d of %d lanes cannot be compared, such as %s-%d: %s", n, doc.Lanes,
			doc.First[0].Topic, doc.First[0].Partition, strings.TrimPrefix(doc.First[0].What, "not compared: "))
	}
	if !report.Equal() {
		why := fmt.Sprintf("%d differences in %d records", doc.Differences, doc.Records)
		if len(doc.First) > 0 {
			d := doc.First[0]
			why += fmt.Sprintf(", first %s-%d at source offset %d, target offset %d: %s", d.Topic, d.Partition, d.SourceOffset, d.TargetOffset, d.What)
		}
		return "", refused("replicator verify says more", "the copies differ: %s", why)
	}
	return fmt.Sprintf("%d records of %d lanes compared, none differs, checksum %s%s", doc.Records, doc.Lanes, doc.Sum, r.leftOut(deleted)), nil
}

func verifyDoc(report verify.Report) evidence.VerifyDoc {
	doc := evidence.VerifyDoc{Lanes: len(report.Lanes), Records: report.Total.Equal + report.Total.Differences(), Differences: report.Total.Differences(), Sum: report.Checksum}
	for _, l := range report.Lanes {
		switch {
		case l.Error != "":
			doc.First = append(doc.First, evidence.Difference{Topic: l.Topic, Partition: l.Partition, SourceOffset: l.From, TargetOffset: l.TargetFrom, What: "not compared: " + l.Error})
		case len(l.First) > 0:
			d := l.First[0]
			doc.First = append(doc.First, evidence.Difference{Topic: l.Topic, Partition: l.Partition, SourceOffset: d.SourceOffset, TargetOffset: d.TargetOffset, What: string(d.Kind) + ": " + d.Detail})
		}
	}
	return doc
}
