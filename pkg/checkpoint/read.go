package checkpoint

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// readTime bounds one reading of all commits.
const readTime = 30 * time.Second

// Commits are what the groups of a cluster have committed at a time.
type Commits struct {
	Commits []Commit // sorted
	Active  []string // groups that have members, sorted: they may commit more
}

// ReadCommits asks a cluster for what its groups have committed in the topics wanted:
// the last word before a planned cutover, where a [Standby] would know only what a
// daemon has written down. A group that cannot be read is an error. So is one of those
// known that may not be seen: a cluster leaves it out of its list without a word.
func ReadCommits(ctx context.Context, c *cluster.Cluster, known []Key, group, topic func(string) bool) (Commits, error) {
	names := map[GroupType][]string{}
	for _, k := range known {
		if n := names[k.Type]; group(k.Group) && (len(n) == 0 || n[len(n)-1] != k.Group) {
			names[k.Type] = append(n, k.Group)
		}
	}
	p := poller{cluster: c, wanted: group, timeout: readTime, known: names[Consumer]}
	polled := p.poll(ctx)
	if polled.problem != nil {
		return Commits{}, fmt.Errorf("read commits of %s: %w", c.Alias(), polled.problem)
	}
	var out Commits
	for _, g := range polled.groups {
		for _, t := range g.Topics {
			if !topic(t.Topic) {
				continue
			}
			for _, o := range t.Partitions {
				if o.Offset < 0 {
					continue
				}
				commit := Commit{Key: Key{Group: g.Group, Lane: offsets.Lane{Topic: t.Topic, Partition: o.Partition}}, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Time: polled.began}
				if o.Metadata != nil {
					commit.Metadata = *o.Metadata
				}
				out.Commits = append(out.Commits, commit)
			}
		}
	}
	shares, err := pollShares(ctx, c, names[Share], group, topic)
	if err == nil {
		err = shares.refused
		out.Commits = append(out.Commits, shares.commits...)
	}
	if notAuthorized(err) { // of other errors: brokers that do not know share groups have none
		return Commits{}, fmt.Errorf("read commits of share groups of %s: %w; grant DESCRIBE on group %s of cluster %s", c.Alias(), err, cmp.Or(strings.Join(names[Share], ", "), "of each of them"), c.Alias())
	}
	slices.SortFunc(out.Commits, func(a, b Commit) int { return a.compare(b.Key) })
	states := (Placer{Target: c}).consumerGroups(ctx, slices.Collect(maps.Keys(polled.listed)))
	for name, s := range states {
		if s.reason == GroupActive {
			out.Active = append(out.Active, name)
		}
	}
	slices.Sort(out.Active)
	return out, nil
}

// Merge returns the kept checkpoints with newer commits in their place: what was placed
// for a group before is still known.
func (s *Standby) Merge(commits []Commit) []*Checkpoint {
	out := make([]*Checkpoint, 0, len(commits))
	for i := range commits {
		c := &Checkpoint{Key: commits[i].Key, Target: -1, Outcome: offsets.Unknown, Placed: -1}
		if kept := s.kept.checkpoints[c.Key]; kept != nil {
			*c = *kept
		}
		c.Source, c.LeaderEpoch, c.Metadata, c.Committed = commits[i].Offset, commits[i].LeaderEpoch, commits[i].Metadata, commits[i].Time
		out = append(out, c)
	}
	return out
}
