package cutover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/mirrormaker"
	"replicator/pkg/offsets"
)

// oneSided are topics that only one region has. Sorted.
type oneSided struct {
	deleted []string // the old region has deleted them, their copies stand on the new one
	topics  []string // only the new region has ever had them
	grown   []string // both have them, the new region with more partitions: "orders: 4 and 2"
}

// oneSided compares the topics of both regions that are copied.
func (s Setup) oneSided(ctx context.Context, w *world) (oneSided, error) {
	var out oneSided
	copied := func(name string) bool {
		return s.Forward.Topic(name) && (name != mirrormaker.HeartbeatsTopic || !s.Forward.Options.Heartbeats) // that one has another name there
	}
	old, err := partitionsOf(ctx, s.Old.Cluster, copied)
	if err != nil {
		return out, err
	}
	now, err := partitionsOf(ctx, s.New.Cluster, copied)
	if err != nil {
		return out, err
	}
	var missing []string
	for name, n := range now {
		switch has, ok := old[name]; {
		case !ok:
			missing = append(missing, name)
		case n > has:
			out.grown = append(out.grown, fmt.Sprintf("%s: %d and %d", name, n, has))
		}
	}
	gone, err := topicsGone(ctx, s.Old.Cluster, missing)
	if err != nil {
		return out, err
	}
	known := map[string]bool{} // to the link: it has opened a lane of it
	for _, l := range w.lanes {
		known[l.lane.Topic] = known[l.lane.Topic] || l.known
	}
	for name := range gone {
		if known[name] {
			out.deleted = append(out.deleted, name)
		} else {
			out.topics = append(out.topics, name)
		}
	}
	slices.Sort(out.deleted)
	slices.Sort(out.topics)
	slices.Sort(out.grown)
	return out, nil
}

// partitionsOf counts the partitions of topics.
func partitionsOf(ctx context.Context, c *cluster.Cluster, match func(string) bool) (map[string]int, error) {
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, c.Client())
	if err != nil {
		return nil, fmt.Errorf("list topics of %s: %w", c.Alias(), err)
	}
	out := map[string]int{}
	for _, t := range resp.Topics {
		if t.Topic != nil && match(*t.Topic) {
			out[*t.Topic] = len(t.Partitions)
		}
	}
	return out, nil
}

// topicsGone are those of the topics that a cluster does not have. They are asked for by
// name: a broker leaves out of its list what may not be described.
func topicsGone(ctx context.Context, c *cluster.Cluster, names []string) (map[string]bool, error) {
	gone := map[string]bool{}
	if len(names) == 0 {
		return gone, nil
	}
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.Client())
	if err != nil {
		return nil, fmt.Errorf("ask %s for topics: %w", c.Alias(), err)
	}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			gone[*t.Topic] = true
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return nil, refused(fmt.Sprintf("grant DESCRIBE on topic %s of cluster %s", *t.Topic, c.Alias()),
				"whether %s has topic %s or has deleted it is not known: %v", c.Alias(), *t.Topic, err)
		}
	}
	return gone, nil
}

// forgetGone takes out lanes whose topic neither region has any more: the journal alone
// knows them, and they could never be read.
func (w *world) forgetGone(ctx context.Context, s Setup) error {
	if s.Old.Cluster == nil {
		return nil
	}
	left := map[string]bool{}
	for _, l := range w.lanes {
		if l.known && l.sourceEnd < 0 && l.tail.Err != nil {
			left[l.lane.Topic] = true
		}
	}
	for _, c := range []*cluster.Cluster{s.New.Cluster, s.Old.Cluster} {
		gone, err := topicsGone(ctx, c, slices.Collect(maps.Keys(left)))
		if _, unknown := errors.AsType[*RefusedError](err); unknown {
			return nil // they are named as lanes that cannot be read
		}
		if err != nil {
			return err
		}
		left = gone
	}
	w.lanes = slices.DeleteFunc(w.lanes, func(l laneView) bool { return l.known && left[l.lane.Topic] })
	return nil
}

// topics: what only one region has is named, and is decided upon where nothing would copy it.
func (g *gates) topics(ctx context.Context, s Setup, req Request, w *world) error {
	const name = "topics"
	only, err := s.oneSided(ctx, w)
	if no, ok := errors.AsType[*RefusedError](err); ok {
		g.fail(name, no.Fix, "%v", no)
		return nil
	}
	if err != nil {
		return err
	}
	old, now := s.Old.Alias, s.New.Alias
	var said, stay []string
	if len(only.topics) > 0 {
		what := fmt.Sprintf("only %s has %s", now, first(only.topics))
		if why := s.notMadeOnOld(only.topics); why != "" {
			stay = append(stay, fmt.Sprintf("%s, and nothing of it would be copied to %s: %s", what, old, why))
		} else {
			said = append(said, fmt.Sprintf("%s: link %s makes it on %s and copies it from its start", what, s.Reverse.Name, old))
		}
	}
	if len(only.grown) > 0 {
		what := fmt.Sprintf("%s has more partitions than %s (%s)", now, old, first(only.grown))
		if s.Reverse == nil || s.Reverse.Options.KeepPartitions || s.Reverse.Options.StartLatest {
			stay = append(stay, fmt.Sprintf("%s, and nothing of those would be copied to %s", what, old))
		} else {
			said = append(said, fmt.Sprintf("%s: link %s makes them on %s and copies them from their start", what, s.Reverse.Name, old))
		}
	}
	if len(only.deleted) > 0 {
		text := fmt.Sprintf("left out: %s has deleted %s, the copy on %s stays", old, first(only.deleted), now)
		if s.notMadeOnOld(only.deleted) == "" {
			text += fmt.Sprintf("; link %s makes it on %s again, unless topics_exclude names it or it is deleted on %s", s.Reverse.Name, old, now)
		}
		said = append(said, text)
	}
	switch {
	case len(stay) > 0 && req.Verb != Failback: // what a region that returned lacks may be made at any time
		g.fail(name, fmt.Sprintf("create it on %s, with as many partitions, or leave it out with topics_exclude on both links", old), "%s", strings.Join(slices.Concat(stay, said), "; "))
	case len(stay)+len(said) > 0:
		g.pass(name, "warning: %s", strings.Join(slices.Concat(stay, said), "; "))
	default:
		g.pass(name, "none that only one region has")
	}
	return nil
}

// notMadeOnOld says why the link back does not make topics that only the new region has,
// and copy what they hold; "" if it does.
func (s Setup) notMadeOnOld(topics []string) string {
	switch {
	case s.Reverse == nil:
		return "there is no link back"
	case s.Reverse.Options.KeepTopics:
		return "sync.create_topics of link " + s.Reverse.Name + " is off"
	case s.Reverse.Options.StartLatest:
		return "link " + s.Reverse.Name + " begins new topics at their end (start: latest)"
	}
	for _, name := range topics {
		if !s.Reverse.Topic(name) {
			return fmt.Sprintf("topics of link %s do not include %s", s.Reverse.Name, name)
		}
	}
	return ""
}

// withoutDeleted takes out lanes whose topic the old region has deleted, and names the topics.
func withoutDeleted[V any](ctx context.Context, s Setup, lanes map[offsets.Lane]V) (deleted []string, err error) {
	listed, err := partitionsOf(ctx, s.Old.Cluster, s.Forward.Topic)
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	for lane := range lanes {
		if _, ok := listed[lane.Topic]; !ok {
			missing[lane.Topic] = true
		}
	}
	gone, err := topicsGone(ctx, s.Old.Cluster, slices.Collect(maps.Keys(missing)))
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(lanes, func(l offsets.Lane, _ V) bool { return gone[l.Topic] })
	return slices.Sorted(maps.Keys(gone)), nil
}

// leftOut is what a step adds to its proof.
func (s Setup) leftOut(deleted []string) string {
	if len(deleted) == 0 {
		return ""
	}
	return fmt.Sprintf("; left out, because %s has deleted them: %s", s.Old.Alias, first(deleted))
}

// anotherLife says that a lane of the link back was copied from a topic of the same name that was
// deleted and made again since: its records there are not those that were copied from here. No
// inverse describes both, and its daemon halts the lane until somebody decides (on_recreate).
func anotherLife(other offsets.LaneState, topicID [16]byte) bool {
	for _, e := range slices.Backward(other.Epochs()) {
		if e.SourceTopicID != [16]byte{} {
			return topicID != [16]byte{} && e.SourceTopicID != topicID
		}
	}
	return false
}

// unprepared says which lanes of the link back were not prepared, and keeps them all as evidence.
func (r *run) unprepared(ctx context.Context, report mirror.PrepareReport, recreated []offsets.Lane) (string, error) {
	var missing, again, all []string
	for _, l := range report.Lanes {
		if l.Missing != "" {
			lane := offsets.Lane{Topic: l.Topic, Partition: l.Partition}.String()
			missing = append(missing, lane)
			all = append(all, lane+": "+l.Missing)
		}
	}
	for _, lane := range recreated {
		again = append(again, lane.String())
		all = append(all, fmt.Sprintf("%s: topic %s was deleted on %s and made again", lane, lane.Topic, r.New.Alias))
	}
	var text string
	if len(missing) > 0 {
		text += fmt.Sprintf("; left out, because link %s has no partition for them on %s: %s", r.Reverse.Name, r.Old.Alias, first(missing))
	}
	if len(again) > 0 {
		text += fmt.Sprintf("; WARNING: left out, because their topic was deleted on %s and made again: %s; on_recreate of link %s decides", r.New.Alias, first(again), r.Reverse.Name)
	}
	if len(all) == 0 {
		return "", nil
	}
	return text, r.event(ctx, evidence.KindChecks, "reverse", evidence.ChecksDoc{{Name: "partitions that are not prepared", OK: len(again) == 0, Detail: strings.Join(all, "; ")}})
}
