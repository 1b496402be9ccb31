package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

const (
	groupsAtOnce  = 100 // in one request to the target
	commitsAtOnce = 8   // groups committed to at the same time
	// freshFor is how old what was read of a group may be when it is written to. A
	// consumer that joined in between is seen by the broker, which then refuses us;
	// one that joined, committed and left again within this time is not.
	freshFor = time.Second
	// commitTime is how long a commit is tried after that: a client that tries for
	// longer writes by what it read long ago.
	commitTime = time.Second
)

// Placer commits translated offsets to the groups of a target. It writes to
// groups without members only, and to none whose state it has not just read.
type Placer struct {
	Target *cluster.Cluster
	// beforeCommit is for tests: called between reading a group and writing to it.
	beforeCommit func(group string)
}

// Plan fills in what the target's groups have and decides about each placement.
// It writes nothing. The error is of not being able to ask at all; what cannot be
// read of one group is the reason of its placements.
func (pl Placer) Plan(ctx context.Context, placements []*Placement) error {
	return pl.inBatches(ctx, placements, func(ctx context.Context, batch []*Placement, log bounds) error {
		pl.read(ctx, batch, log)
		return nil
	})
}

// Apply plans and commits. Afterwards the placements with [Place] are committed,
// the others say why not.
func (pl Placer) Apply(ctx context.Context, placements []*Placement) error {
	return pl.inBatches(ctx, placements, func(ctx context.Context, batch []*Placement, log bounds) error {
		read := pl.read(ctx, batch, log)
		var g errgroup.Group
		g.SetLimit(commitsAtOnce)
		for group := range byGroup(batch) {
			g.Go(func() error {
				pl.commit(ctx, group, read)
				return nil
			})
		}
		return g.Wait()
	})
}

// ApplyAll applies, and applies again what was read too long before its turn to be
// written came, as long as that gets on.
func (pl Placer) ApplyAll(ctx context.Context, placements []*Placement) error {
	for before := len(placements) + 1; len(placements) > 0 && len(placements) < before; {
		if err := pl.Apply(ctx, placements); err != nil {
			return err
		}
		before = len(placements)
		var late []*Placement
		for _, p := range placements {
			if p.Reason == TooSlow {
				late = append(late, p)
			}
		}
		placements = late
	}
	return nil
}

// inBatches calls do for some groups at a time, with the bounds of the logs they
// stand in.
func (pl Placer) inBatches(ctx context.Context, placements []*Placement, do func(context.Context, []*Placement, bounds) error) error {
	if len(placements) == 0 {
		return nil
	}
	slices.SortFunc(placements, comparePlacements)
	log, err := pl.bounds(ctx, placements)
	if err != nil {
		return err
	}
	for len(placements) > 0 {
		n, groups := 0, 0
		for n < len(placements) {
			if n == 0 || placements[n].Group != placements[n-1].Group || placements[n].Type != placements[n-1].Type {
				if groups == groupsAtOnce {
					break
				}
				groups++
			}
			n++
		}
		if err := do(ctx, placements[:n], log); err != nil {
			return err
		}
		placements = placements[n:]
	}
	return ctx.Err()
}

// byGroup yields the placements of each group; they must be sorted.
func byGroup(placements []*Placement) func(func([]*Placement) bool) {
	return func(yield func([]*Placement) bool) {
		for len(placements) > 0 {
			n := 1
			for n < len(placements) && placements[n].Group == placements[0].Group && placements[n].Type == placements[0].Type {
				n++
			}
			if !yield(placements[:n]) {
				return
			}
			placements = placements[n:]
		}
	}
}

// bounds are where the target's logs start and end.
type bounds struct {
	starts, ends kadm.ListedOffsets
	err          error // why some may be missing
}

func (pl Placer) bounds(ctx context.Context, placements []*Placement) (b bounds, err error) {
	seen := map[string]bool{}
	var topics []string
	for _, p := range placements {
		if p.TargetTopic != "" && !seen[p.TargetTopic] {
			seen[p.TargetTopic] = true
			topics = append(topics, p.TargetTopic)
		}
	}
	if len(topics) == 0 {
		return b, nil // none would be taken for all
	}
	admin := pl.Target.Admin()
	var notStarts, notEnds error
	b.starts, notStarts = admin.ListStartOffsets(ctx, topics...)
	b.ends, notEnds = admin.ListEndOffsets(ctx, topics...)
	b.err = errors.Join(notStarts, notEnds)
	if len(b.starts) == 0 && len(b.ends) == 0 && b.err != nil && !errors.Is(b.err, kerr.TopicAuthorizationFailed) {
		return b, fmt.Errorf("list offsets of %s: %w", pl.Target.Alias(), b.err)
	}
	return b, nil // partitions that did not answer are decided one by one
}

// lookup finds a partition; what is wrong with a topic stands at partition -1.
func lookup(l kadm.ListedOffsets, topic string, partition int32) (kadm.ListedOffset, bool) {
	if o, ok := l.Lookup(topic, partition); ok {
		return o, true
	}
	return l.Lookup(topic, -1)
}

// clamp moves a placement into the target's log; false if that is not known.
func (b bounds) clamp(p *Placement, cluster string) bool {
	if p.Outcome == offsets.Unknown || p.Target < 0 {
		return true // there is nothing to move
	}
	start, ok1 := lookup(b.starts, p.TargetTopic, p.Lane.Partition)
	end, ok2 := lookup(b.ends, p.TargetTopic, p.Lane.Partition)
	err := errors.Join(start.Err, end.Err)
	if !ok1 || !ok2 {
		err = errors.Join(err, b.err)
	}
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		p.skip(NotAllowed, right(kerr.TopicAuthorizationFailed, "DESCRIBE", "topic "+p.TargetTopic, cluster).Error())
		return false
	case err == nil && (!ok1 || !ok2) || errors.Is(err, kerr.UnknownTopicOrPartition):
		p.skip(NoTopic, fmt.Sprintf("partition %d of topic %s is not there", p.Lane.Partition, p.TargetTopic))
		return false
	case err != nil:
		p.skip(LogUnreadable, fmt.Sprintf("where the log of %s, partition %d, starts and ends is not known: %v", p.TargetTopic, p.Lane.Partition, err))
		return false
	}
	t := offsets.Translation{From: p.Source, To: p.Target, Outcome: p.Outcome, Missing: p.Missing}
	if within := t.Within(start.Offset, end.Offset); within.To != p.Target {
		p.Target, p.Outcome, p.Clamped = within.To, within.Outcome, within.Reason
	}
	return true
}

// read finds out what the target's groups are and decides about their partitions.
// What they had committed is not older than the time it returns.
func (pl Placer) read(ctx context.Context, batch []*Placement, log bounds) time.Time {
	var consumers, shares []string
	for group := range byGroup(batch) {
		if group[0].Type == Share {
			shares = append(shares, group[0].Group)
		} else {
			consumers = append(consumers, group[0].Group)
		}
	}
	states := map[GroupType]map[string]groupState{
		Consumer: pl.consumerGroups(ctx, consumers),
		Share:    pl.shareGroups(ctx, shares),
	}
	// After the states: what members committed that left before this is seen.
	asOf := time.Now()
	fetched := pl.committed(ctx, consumers, states[Consumer])
	pl.shareOffsets(ctx, shares, states[Share], fetched)
	for _, p := range batch {
		p.Current, p.CurrentMetadata, p.Action, p.Reason, p.Detail = -1, "", "", "", ""
		if !log.clamp(p, pl.Target.Alias()) {
			continue
		}
		state := states[p.Type][p.Group]
		if state.reason != "" {
			p.skip(state.reason, state.detail)
			continue
		}
		if o, ok := fetched[p.Type][p.Group].Lookup(p.TargetTopic, p.Lane.Partition); ok {
			if o.Err != nil {
				p.skip(GroupUnreadable, o.Err.Error())
				continue
			}
			p.Current, p.CurrentMetadata = o.At, o.Metadata
		}
		p.decide()
	}
	return asOf
}

// groupState is what stands against writing to a group; zero: nothing.
type groupState struct {
	reason Reason
	detail string
}

func unreadable(err error, group, cluster string) groupState {
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return groupState{NotAllowed, right(err, "DESCRIBE", "group "+group, cluster).Error()}
	}
	return groupState{GroupUnreadable, err.Error()}
}

func active(state string, members int) groupState {
	if members == 0 {
		return groupState{GroupActive, "it is in state " + state + " on the target"}
	}
	return groupState{GroupActive, fmt.Sprintf("it has %d active members on the target", members)}
}

// describe asks about groups: all at once, and one by one those that are missing
// because one of them was refused, for which the client drops the whole answer.
func describe[M ~map[string]D, D any](ctx context.Context, groups []string, ask func(context.Context, ...string) (M, error)) (M, map[string]error) {
	out, err := ask(ctx, groups...)
	if out == nil {
		out = M{}
	}
	failed := map[string]error{}
	var missing []string
	for _, g := range groups {
		if _, ok := out[g]; !ok {
			missing = append(missing, g)
			failed[g] = orNoAnswer(err)
		}
	}
	if len(groups) == 1 || !refused(err) {
		return out, failed
	}
	var mu sync.Mutex
	var each errgroup.Group
	each.SetLimit(commitsAtOnce)
	for _, g := range missing {
		each.Go(func() error {
			one, err := ask(ctx, g)
			mu.Lock()
			defer mu.Unlock()
			if d, ok := one[g]; ok {
				out[g] = d
				delete(failed, g)
			} else {
				failed[g] = orNoAnswer(err)
			}
			return nil
		})
	}
	_ = each.Wait() // none fails as a whole
	return out, failed
}

// refused tells whether a right was missing, to some part of a request too.
func refused(err error) bool { return errors.Is(err, kerr.GroupAuthorizationFailed) }

// consumerGroups asks for the states of consumer groups of both protocols.
func (pl Placer) consumerGroups(ctx context.Context, groups []string) map[string]groupState {
	out := make(map[string]groupState, len(groups))
	if len(groups) == 0 {
		return out
	}
	described, failed := describe(ctx, groups, pl.Target.Admin().DescribeGroups)
	var next []string // that may be of the newer protocol
	for _, g := range groups {
		d, ok := described[g]
		switch {
		case !ok:
			out[g] = unreadable(failed[g], g, pl.Target.Alias())
		case errors.Is(d.Err, kerr.GroupIDNotFound) || d.Err == nil && d.State == "Dead":
			next = append(next, g)
		case d.Err != nil:
			out[g] = unreadable(d.Err, g, pl.Target.Alias())
		case len(d.Members) > 0 || d.State != "Empty":
			out[g] = active(d.State, len(d.Members))
		case d.ProtocolType != "" && d.ProtocolType != "consumer":
			out[g] = groupState{GroupOtherType, fmt.Sprintf("the target's group is one of %s", d.ProtocolType)}
		}
	}
	if len(next) == 0 {
		return out
	}
	newer, failed := describe(ctx, next, pl.Target.Admin().DescribeConsumerGroups)
	if len(failed) > 0 && !pl.knows(ctx, kmsg.ConsumerGroupDescribe) {
		return out // groups of the newer protocol cannot be there
	}
	for _, g := range next {
		d, ok := newer[g]
		if !ok {
			d.Err = failed[g]
		}
		switch {
		case errors.Is(d.Err, kerr.UnsupportedVersion), errors.Is(d.Err, kerr.GroupIDNotFound):
			// It does not exist: the commit makes it.
		case d.Err != nil:
			out[g] = unreadable(d.Err, g, pl.Target.Alias())
		case len(d.Members) > 0 || d.State != "Empty":
			out[g] = active(d.State, len(d.Members))
		}
	}
	return out
}

func (pl Placer) shareGroups(ctx context.Context, groups []string) map[string]groupState {
	out := make(map[string]groupState, len(groups))
	if len(groups) == 0 {
		return out
	}
	described, failed := describe(ctx, groups, pl.Target.Admin().DescribeShareGroups)
	for _, g := range groups {
		d, ok := described[g]
		if !ok {
			d.Err = failed[g]
		}
		switch {
		case errors.Is(d.Err, kerr.GroupIDNotFound):
		case d.Err != nil:
			out[g] = unreadable(d.Err, g, pl.Target.Alias())
		case len(d.Members) > 0 || d.GroupState != "Empty":
			out[g] = active(d.GroupState, len(d.Members))
		}
	}
	return out
}

// committed fetches what groups have committed; a group that cannot be read gets
// a state that says so.
func (pl Placer) committed(ctx context.Context, groups []string, states map[string]groupState) map[GroupType]map[string]kadm.OffsetResponses {
	out := map[GroupType]map[string]kadm.OffsetResponses{Consumer: {}, Share: {}}
	var ask []string
	for _, g := range groups {
		if states[g].reason == "" {
			ask = append(ask, g)
		}
	}
	if len(ask) == 0 {
		return out
	}
	fetched := pl.Target.Admin().FetchManyOffsets(ctx, ask...)
	for _, g := range ask {
		f, ok := fetched[g]
		if !ok {
			f.Err = errNoAnswer
		}
		if f.Err != nil && !errors.Is(f.Err, kerr.GroupIDNotFound) {
			states[g] = unreadable(f.Err, g, pl.Target.Alias())
			continue
		}
		out[Consumer][g] = f.Fetched
	}
	return out
}

func (pl Placer) shareOffsets(ctx context.Context, groups []string, states map[string]groupState, out map[GroupType]map[string]kadm.OffsetResponses) {
	var ask []string
	for _, g := range groups {
		if states[g].reason == "" {
			ask = append(ask, g)
		}
	}
	if len(ask) == 0 {
		return
	}
	described, failed := describe(ctx, ask, pl.Target.Admin().DescribeShareGroupOffsets)
	for _, g := range ask {
		d, ok := described[g]
		if !ok {
			d.Err = failed[g]
		}
		if d.Err != nil && !errors.Is(d.Err, kerr.GroupIDNotFound) {
			states[g] = unreadable(d.Err, g, pl.Target.Alias())
			continue
		}
		have := kadm.OffsetResponses{}
		for _, partitions := range d.Offsets {
			for _, o := range partitions {
				have.Add(kadm.OffsetResponse{Offset: kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.StartOffset}, Err: o.Err})
			}
		}
		out[Share][g] = have
	}
}

// commit writes the placements of one group that are to be placed. What it had
// committed is not older than read.
func (pl Placer) commit(ctx context.Context, group []*Placement, read time.Time) {
	want := kadm.Offsets{}
	for _, p := range group {
		if p.Action == Place {
			// The source's leader epoch would send consumers of the target looking for
			// an epoch that is not there.
			want.Add(kadm.Offset{Topic: p.TargetTopic, Partition: p.Lane.Partition, At: p.Target, LeaderEpoch: -1, Metadata: p.Metadata})
		}
	}
	if len(want) == 0 {
		return
	}
	name := group[0].Group
	if pl.beforeCommit != nil {
		pl.beforeCommit(name)
	}
	if time.Since(read) > freshFor {
		for _, p := range group {
			if p.Action == Place {
				p.skip(TooSlow, "")
			}
		}
		return
	}
	ctx, cancel := context.WithDeadline(ctx, read.Add(freshFor+commitTime))
	defer cancel()
	answer := pl.send(ctx, group[0].Type, name, want)
	for _, p := range group {
		if p.Action != Place {
			continue
		}
		switch err := answer(p); {
		case err == nil:
			p.Placed = p.Target
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.NonEmptyGroup), errors.Is(err, kerr.RebalanceInProgress),
			errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.StaleMemberEpoch):
			p.skip(GroupActive, "a member joined it in between: "+err.Error())
		case errors.Is(err, kerr.GroupAuthorizationFailed):
			p.skip(NotAllowed, right(err, "READ", "group "+name, pl.Target.Alias()).Error())
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			p.skip(NotAllowed, right(err, "READ", "topic "+p.TargetTopic, pl.Target.Alias()).Error())
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			p.skip(NoTopic, err.Error())
		case group[0].Type == Consumer && (errors.Is(err, kerr.GroupIDNotFound) || errors.Is(err, kerr.InconsistentGroupProtocol)):
			p.skip(GroupOtherType, "the target's group of this name is no consumer group: "+err.Error())
		default:
			p.skip(CommitFailed, err.Error())
		}
	}
}

// send commits offsets to a group and returns what came of each placement.
func (pl Placer) send(ctx context.Context, kind GroupType, group string, want kadm.Offsets) func(*Placement) error {
	given := func(all error, lookup func(topic string, partition int32) (error, bool)) func(*Placement) error {
		return func(p *Placement) error {
			if all != nil {
				return all
			}
			if err, ok := lookup(p.TargetTopic, p.Lane.Partition); ok {
				return err
			}
			return errNoAnswer
		}
	}
	if kind == Share {
		resp, err := pl.Target.Admin().AlterShareGroupOffsets(ctx, group, want)
		return given(err, resp.Lookup)
	}
	resp, err := pl.Target.Admin().CommitOffsets(ctx, group, want)
	return given(err, func(topic string, partition int32) (error, bool) {
		o, ok := resp.Lookup(topic, partition)
		return o.Err, ok
	})
}

var errNoAnswer = errors.New("missing in the answer")

func orNoAnswer(err error) error {
	if err != nil {
		return err
	}
	return errNoAnswer
}

// knows tells whether a broker of the target knows a request.
func (pl Placer) knows(ctx context.Context, request kmsg.Key) bool {
	versions, err := pl.Target.Admin().ApiVersions(ctx)
	if err != nil {
		return true // not known: its answer decides
	}
	for _, v := range versions {
		if _, ok := v.KeyMaxVersion(request.Int16()); ok {
			return true
		}
	}
	return false
}
