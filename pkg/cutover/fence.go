package cutover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/writers"
)

// fencedLink is what the fence of the link OLD->NEW found: where each lane ended.
type fencedLink struct {
	lanes   map[offsets.Lane]mirror.FencedLane
	pending map[offsets.Lane]string // whose end is not known yet, and why: the partition has no leader
}

// waiting names the lanes whose end is not known yet.
func (f *fencedLink) waiting() string {
	var names []string
	for _, lane := range slices.SortedFunc(maps.Keys(f.pending), compareLanes) {
		names = append(names, fmt.Sprintf("%s (%s)", lane, f.pending[lane]))
	}
	return first(names)
}

// patience is how long lanes are tried that only time can help, behind the last one that
// was done. Writers have no region meanwhile.
const patience = 20 * time.Second

// patience is that of the fence. Writers have no region meanwhile: leaders that the gates have
// waited for in vain are not waited for again.
func (w *world) patience() time.Duration {
	if w != nil && slices.ContainsFunc(w.lanes, func(l laneView) bool { return l.known && l.tail.Unread }) {
		return time.Second
	}
	return patience
}

// fenceLink opens every lane of the old direction and proves that its former writer
// is refused.
func (r *run) fenceLink(ctx context.Context) (string, error) {
	if err := r.notLockedOut(ctx); err != nil {
		return "", err
	}
	report, err := r.fence(ctx)
	if err != nil {
		return "", err
	}
	tried, unproven := mirror.Prove(ctx, r.New.Cluster, report.Lanes)
	proofs := map[offsets.Lane]mirror.FenceProof{}
	for _, p := range tried {
		proofs[offsets.Lane{Topic: p.Topic, Partition: p.Partition}] = p
	}
	doc := evidence.FenceDoc{Lanes: len(report.Lanes)}
	for _, l := range report.Lanes {
		if l.Fenced || l.Gone {
			doc.Fenced++
		}
		row := evidence.FenceRow{Topic: l.Topic, Partition: l.Partition, NewWriter: l.New.String(), End: l.End, Answer: "not tried: nobody had opened the lane"}
		switch {
		case l.Pending:
			row.Answer = "not fenced yet: " + l.Error
		case l.Old.ProducerID >= 0 && !l.Gone:
			p := proofs[l.Lane()]
			row.OldWriter, row.Answer = l.Old.String(), cmp.Or(p.Error, p.Answer)
			if p.Holds && p.Tried.ProducerID >= 0 {
				doc.Refused++
			}
		}
		doc.Rows = append(doc.Rows, row)
	}
	doc.Basis = append(doc.Basis, "the brokers refuse every epoch below the ones taken")
	if _, remembered, err := mirror.FenceAges(ctx, r.New.Cluster, r.Forward.Options, r.Log); err == nil && remembered.Assumed == "" {
		until := time.Now().Add(remembered.For).UTC()
		doc.HoldsUntil = &until
	} else if err == nil {
		doc.Basis = append(doc.Basis, remembered.Assumed)
	}
	rules, lasting, err := r.lastingFence(ctx)
	if err != nil {
		return "", err
	}
	doc.Basis = append(doc.Basis, rules)
	if lasting {
		doc.HoldsUntil = nil
	}
	if err := r.event(ctx, evidence.KindFence, "fence-link", doc); err != nil {
		return "", err
	}
	if unproven != nil { // what brokers answered is kept by now
		return "", unproven
	}
	late, err := r.lateOnOld(ctx)
	if err != nil {
		return "", err
	}
	taken := "all epochs taken"
	if n := len(r.fenced.pending); n > 0 {
		taken = fmt.Sprintf("all epochs taken but those of %d without a leader, which the guard takes when they have one (WARNING: until then %s)", n, r.fenced.waiting())
	}
	return fmt.Sprintf("%d lanes, %s; %d appends of former writers tried, %d refused; %s%s", doc.Lanes, taken, doc.Refused, doc.Refused, rules, late), nil
}

// lateOnOld looks whether the old region took records between the last look at its ends and
// the fence: they are in no copy.
func (r *run) lateOnOld(ctx context.Context) (string, error) {
	if r.req.Verb == Failover {
		return "", nil
	}
	late, err := r.lateRecords(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", err
	case err != nil: // writers wait for this run: it is looked at when the region answers
		if r.Old.Cluster != nil {
			r.forgo(err)
		}
		return fmt.Sprintf("; whether %s took records behind the copy is not known: %v", r.Old.Alias, err), nil
	}
	return r.tellLate(ctx, "fence-link", late)
}

// tellLate says what the old region took behind the copy.
func (r *run) tellLate(ctx context.Context, step string, late []string) (string, error) {
	if len(late) == 0 {
		return "", nil
	}
	return fmt.Sprintf("; WARNING: %s has taken records that were not copied: %s; copy them by hand", r.Old.Alias, first(late)), r.event(ctx, evidence.KindChecks, step,
		evidence.ChecksDoc{{Name: "records of " + r.Old.Alias + " behind the copy", Detail: strings.Join(late, "; ")}})
}

// lateAgain looks once more before the link back writes to the old region, behind whose
// records nobody looks any more: groups may have been waited for since the fence, and only
// rules of ours would have kept writers off meanwhile.
func (r *run) lateAgain(ctx context.Context) (string, error) {
	if r.req.Verb == Failback {
		return "", nil // what came behind the count is refused, and counted
	}
	late, err := r.lateRecords(ctx)
	if err != nil {
		return "", err
	}
	return r.tellLate(ctx, "reverse", late)
}

// lateRecords names the partitions of the old region with records behind the fence, as long
// as the link back does not write there.
func (r *run) lateRecords(ctx context.Context) ([]string, error) {
	if r.Old.Cluster == nil {
		return nil, r.Old.Err
	}
	asking, cancel := context.WithTimeout(ctx, oldTime)
	defer cancel()
	state, err := authority.Read(asking, r.authorityOn(r.Old))
	if err != nil || takenIn(r.Setup, state, r.record.Epoch) {
		return nil, err
	}
	ends, _, err := sourceEnds(asking, r.Old.Cluster, r.Forward.Topic)
	if err != nil {
		return nil, err
	}
	from := map[offsets.Lane]int64{}
	for lane := range ends {
		if _, waits := r.fenced.pending[lane]; waits {
			delete(ends, lane)
			continue
		}
		from[lane] = max(0, r.fenced.lanes[lane].Source)
	}
	return recordsBehind(ctx, r.Old.Cluster, from, ends)
}

// fence opens every lane and keeps where each ended.
func (r *run) fence(ctx context.Context) (mirror.FenceReport, error) {
	report, err := mirror.Fence(ctx, mirror.FenceConfig{
		Options: r.Forward.Options, Target: r.New.Cluster, Log: r.Log, Instance: fmt.Sprintf("%s by %s", r.id, r.req.By),
		Progress: func(done, total int) { r.progress("fence-link", "%d of %d lanes", done, total) }, Patience: r.world.patience(),
	})
	if err != nil {
		return report, err
	}
	r.fenced = &fencedLink{lanes: map[offsets.Lane]mirror.FencedLane{}, pending: map[offsets.Lane]string{}}
	for _, l := range report.Lanes {
		switch {
		case l.Pending:
			r.fenced.pending[l.Lane()] = l.Error
		case !l.Gone:
			r.fenced.lanes[l.Lane()] = l
		}
	}
	return report, nil
}

// lastingFence takes WRITE from the daemon's principal on the new region's topics, if
// that can be done: it is what lasts when the brokers have forgotten the epochs.
func (r *run) lastingFence(ctx context.Context) (what string, lasting bool, err error) {
	if r.New.Principal == "" {
		return "no rule: cutover.principals does not name the daemon's principal on " + r.New.Alias, false, nil
	}
	topics, err := r.topicsOf(ctx, r.New)
	if err != nil {
		return "no rule: " + err.Error(), false, nil //nolint:nilerr // it lasts without one for a while, and that is said
	}
	plan, err := writers.LinkFence(ctx, r.New.Cluster, topics, r.New.Principal)
	if err == nil && !plan.Possible {
		return "no rule: " + plan.Why, false, nil
	}
	if err == nil {
		err = writers.Apply(ctx, r.New.Cluster, plan)
	}
	if err != nil {
		return "no rule: " + err.Error(), false, nil //nolint:nilerr // it lasts without one for a while, and that is said
	}
	// Whoever runs the commands has to take these lanes' epochs again.
	if missing := missingRights(ctx, r.New.Cluster, topics, []kmsg.ACLOperation{kmsg.ACLOperationWrite}); len(missing) > 0 {
		_, err := r.mayWriteAgain(ctx, r.New)
		return "no rule: it would keep out whoever runs this command, too; give the daemon a principal of its own", false, err
	}
	return fmt.Sprintf("a rule denies WRITE to %s on %d topics", r.New.Principal, len(plan.Topics)), true, nil
}

// notLockedOut lifts the lasting fence where it keeps out whoever runs this command, which
// a run that was killed between making the rule and looking may have left.
func (r *run) notLockedOut(ctx context.Context) error {
	topics, err := r.topicsOf(ctx, r.New)
	if err != nil {
		return err
	}
	if len(missingRights(ctx, r.New.Cluster, topics, []kmsg.ACLOperation{kmsg.ACLOperationWrite})) == 0 {
		return nil
	}
	_, err = r.mayWriteAgain(ctx, r.New)
	return err
}

// mayWriteAgain lifts the lasting fence of a region: the link to it is to copy. It says
// what it could not find out.
func (r *run) mayWriteAgain(ctx context.Context, region Region) (warning string, err error) {
	if region.Principal == "" {
		return "", nil
	}
	plan, err := r.standingLinkFence(ctx, region)
	switch {
	case err != nil:
		return "", err
	case !plan.Possible:
		return fmt.Sprintf("warning: whether a rule keeps %s from writing to %s is not known: %s", region.Principal, region.Alias, plan.Why), nil
	}
	return "", writers.Lift(ctx, region.Cluster, plan)
}

// standingLinkFence is the lasting fence of the link to a region, as a run of either
// direction has left it.
func (s Setup) standingLinkFence(ctx context.Context, region Region) (writers.Plan, error) {
	return writers.StandingLinkFence(ctx, region.Cluster, region.Principal, func(topic string) bool {
		return s.Forward.Topic(topic) || s.Reverse != nil && s.Reverse.Topic(topic)
	})
}

// takenUp is how long a daemon is waited for that takes the prepared link up.
const takenUp = 20 * time.Second

// reverse prepares the link NEW->OLD: its journal learns what came from OLD, and that it
// goes on behind that.
func (r *run) reverse(ctx context.Context) (string, error) {
	old, err := r.onOld(ctx)
	if err != nil {
		return "", err
	}
	if r.fenced == nil || len(r.fenced.pending) > 0 { // resumed behind it, or a leader is there by now
		if _, err := r.fence(ctx); err != nil {
			return "", err
		}
	}
	if n := len(r.fenced.pending); n > 0 {
		return "", fmt.Errorf("where %d lanes on %s ended is not known: %s", n, r.New.Alias, r.fenced.waiting())
	}
	lanes, records, recreated, err := r.inverses(ctx)
	if err != nil {
		return "", err
	}
	r.progress("reverse", "%d records' inverses are known", records)
	report, err := mirror.Prepare(ctx, mirror.PrepareConfig{
		Options: r.Reverse.Options, Target: r.Old.Cluster, Log: r.Log, Run: r.id, Lanes: lanes,
		Progress: func(done, total int) { r.progress("reverse", "%d of %d lanes", done, total) }, Patience: patience,
	})
	if err != nil {
		return "", err
	}
	leftOut, err := r.unprepared(ctx, report, recreated)
	if err != nil {
		return "", err
	}
	prepared := 0
	for _, l := range report.Lanes {
		if l.Missing == "" {
			prepared++
		}
	}
	r.progress("reverse", "%d lanes are prepared", prepared)
	if err := r.nothingSince(ctx); err != nil {
		return "", err
	}
	late, err := r.lateAgain(ctx)
	if err != nil {
		return "", err
	}
	warning, err := r.mayWriteAgain(ctx, r.Old)
	if err != nil {
		return "", err
	}
	if err := old.Ready(ctx, authority.Ready{From: r.New.Alias, To: r.Old.Alias, Epoch: r.record.Epoch, Run: r.id}); err != nil {
		return "", err
	}
	proof := fmt.Sprintf("%d lanes, %d records are known to be on both sides%s%s", prepared, records, leftOut, late)
	up, err := r.waitTakenUp(ctx, report)
	if err != nil {
		return "", err
	}
	if warning != "" {
		up += "; " + warning
	}
	return proof + "; " + up, nil
}

// inverses are the lanes of the reverse link: what this link copied since the reverse link
// copied last, seen from the other side. recreated are lanes that none can be made for.
func (r *run) inverses(ctx context.Context) (out []mirror.PreparedLane, records int64, recreated []offsets.Lane, err error) {
	forward, err := r.openJournal(ctx, r.New, r.Forward)
	if err != nil {
		return nil, 0, nil, err
	}
	defer forward.Close()
	reverse, err := r.openJournal(ctx, r.Old, *r.Reverse)
	if _, none := errors.AsType[*offsets.TopicError](err); err != nil && !none {
		return nil, 0, nil, err
	}
	if reverse != nil {
		defer reverse.Close()
	}
	ids, err := listTopics(ctx, r.New.Cluster)
	if err != nil {
		return nil, 0, nil, err
	}
	for lane, f := range r.fenced.lanes {
		p := mirror.PreparedLane{Lane: lane, Position: f.End, SourceTopicID: ids[lane.Topic], SourceLeaderEpoch: -1}
		if f.Source < 0 {
			p.Position = 0 // nothing was ever copied here: all there is is the new region's own
		}
		var other offsets.LaneState
		if reverse != nil {
			other = reverse.State(lane)
		}
		if mirror.PreparedBy(other, r.id) { // and a daemon may have copied since
			out = append(out, mirror.PreparedLane{Lane: lane})
			continue
		}
		if earlier, ok := mirror.PreparedFor(other, p.Position); ok { // the region was taken in before, and follows again
			out = append(out, mirror.PreparedLane{Lane: lane, Earlier: earlier})
			continue
		}
		state := forward.State(lane)
		inverse, err := state.Inverse(offsets.InverseConfig{From: state.CopiedFrom(), To: f.End, Other: other, Time: time.Now(), Instance: r.id})
		if err != nil && anotherLife(other, ids[lane.Topic]) {
			recreated = append(recreated, lane)
			continue
		}
		if err != nil {
			return nil, 0, nil, fmt.Errorf("lane %s: %w", lane, err)
		}
		p.Inverse, p.Ordinal = inverse.Entries, inverse.Next.Ordinal
		records += inverse.Records
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b mirror.PreparedLane) int { return compareLanes(a.Lane, b.Lane) })
	slices.SortFunc(recreated, compareLanes)
	return out, records, recreated, nil
}

func (s Setup) openJournal(ctx context.Context, region Region, l Link) (*offsets.Journal, error) {
	return offsets.OpenJournal(ctx, offsets.JournalConfig{
		Client: region.Cluster.NewClient, Admin: region.Cluster.Admin(), Topic: l.Options.JournalTopic, ReadOnly: true, Log: s.Log,
	})
}

// waitTakenUp waits for a daemon to open the lanes that were prepared. That there is
// none is said, and no failure: it may be started later.
func (r *run) waitTakenUp(ctx context.Context, report mirror.PrepareReport) (string, error) {
	journal, err := r.openJournal(ctx, r.Old, *r.Reverse)
	if err != nil {
		return "", err
	}
	defer journal.Close()
	began := time.Now()
	for {
		left := 0
		for _, l := range report.Lanes {
			if last, ok := journal.State(offsets.Lane{Topic: l.Topic, Partition: l.Partition}).Last(); ok && last.Writer == l.Writer {
				left++
			}
		}
		switch {
		case left == 0:
			return fmt.Sprintf("a daemon has opened them, after %v", time.Since(began).Round(10*time.Millisecond)), nil
		case time.Since(began) > takenUp:
			return fmt.Sprintf("warning: no daemon has opened %d of them yet: start the one of link %s", left, r.Reverse.Name), nil
		}
		r.progress("reverse", "waiting for a daemon to open %d lanes", left)
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// writtenSince names the partitions of the region that was promoted that have taken
// records of their own since: behind the fence of the link to it stands more than
// control records.
func writtenSince(ctx context.Context, s Setup) ([]string, error) {
	if s.Reverse == nil {
		return nil, errors.New("look for records written since: the link of the other direction is not configured")
	}
	journal, err := offsets.OpenJournal(ctx, offsets.JournalConfig{
		Client: s.Old.Cluster.NewClient, Admin: s.Old.Cluster.Admin(), Topic: s.Reverse.Options.JournalTopic, ReadOnly: true, Log: s.Log,
	})
	if err != nil {
		return nil, err
	}
	defer journal.Close()
	ends, _, err := sourceEnds(ctx, s.Old.Cluster, s.Forward.Topic)
	if err != nil {
		return nil, err
	}
	from := map[offsets.Lane]int64{}
	for lane := range ends {
		// Of a lane that was never opened nothing was copied: whatever stands there is its own.
		last, _ := journal.State(lane).Last()
		from[lane] = last.Target
	}
	return recordsBehind(ctx, s.Old.Cluster, from, ends)
}

// behindTime bounds the look behind a fence.
const behindTime = time.Minute

// logStarts lists where the logs of partitions begin.
func logStarts(ctx context.Context, c *cluster.Cluster, of map[offsets.Lane]int64) (map[offsets.Lane]int64, error) {
	var topics []string
	for lane := range of {
		if !slices.Contains(topics, lane.Topic) {
			topics = append(topics, lane.Topic)
		}
	}
	out := map[offsets.Lane]int64{}
	if len(topics) == 0 {
		return out, nil
	}
	listed, err := c.Admin().ListStartOffsets(ctx, topics...)
	if err = errors.Join(err, listed.Error()); err != nil {
		return nil, fmt.Errorf("list start offsets of %s: %w", c.Alias(), err)
	}
	listed.Each(func(o kadm.ListedOffset) { out[offsets.Lane{Topic: o.Topic, Partition: o.Partition}] = o.Offset })
	return out, nil
}

// recordsBehind names the partitions that have records in [from, ends), control records
// aside. Data of aborted transactions counts: somebody wrote.
func recordsBehind(ctx context.Context, c *cluster.Cluster, from, ends map[offsets.Lane]int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, behindTime)
	defer cancel()
	starts := map[string]map[int32]kgo.Offset{}
	left := map[offsets.Lane]int64{}
	begins, err := logStarts(ctx, c, ends)
	if err != nil {
		return nil, err
	}
	var written []string
	for lane, end := range ends {
		if from[lane] >= end {
			continue
		}
		if begin := begins[lane]; begin > from[lane] {
			written = append(written, fmt.Sprintf("%s, whose log begins at offset %d: what stood before it cannot be told", lane, begin))
			continue
		}
		left[lane] = end
		if starts[lane.Topic] == nil {
			starts[lane.Topic] = map[int32]kgo.Offset{}
		}
		starts[lane.Topic][lane.Partition] = kgo.NewOffset().At(from[lane])
	}
	if len(left) == 0 {
		slices.Sort(written)
		return written, nil
	}
	client, err := c.NewClient(kgo.ConsumePartitions(starts), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(), kgo.FetchMaxPartitionBytes(1<<20))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s behind the fence: %w", c.Alias(), err)
		}
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("read %s-%d of %s behind the fence: %w", e.Topic, e.Partition, c.Alias(), e.Err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			lane := offsets.Lane{Topic: rec.Topic, Partition: rec.Partition}
			end, ok := left[lane]
			switch {
			case !ok:
			case rec.Offset < end && !rec.Attrs.IsControl():
				written = append(written, fmt.Sprintf("%s at offset %d", lane, rec.Offset))
				delete(left, lane)
			case rec.Offset >= end-1:
				delete(left, lane)
			}
		})
	}
	slices.Sort(written)
	return written, nil
}
