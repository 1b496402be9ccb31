package checkpoint

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// shareOffsets are the start offsets of share groups (KIP-932): below a
// partition's, every record has been dealt with. Behind it some may have been.
type shareOffsets struct {
	began   time.Time
	commits []Commit
	asked   map[string]bool // groups that were read
	refused error           // why some may not be read
	err     error           // nothing was read
}

// pollShares reads the start offsets of the share groups wanted, and of those
// known: a group that is not listed may be gone or hidden.
func pollShares(ctx context.Context, c *cluster.Cluster, known []string, group, topic func(string) bool) (*shareOffsets, error) {
	listed, err := c.Admin().ListGroupsByType(ctx, []string{"share"})
	if err != nil {
		return nil, err
	}
	ask := map[string]bool{}
	for _, name := range known {
		ask[name] = true
	}
	for _, g := range listed {
		if g.ProtocolType == "share" && group(g.Group) { // old brokers do not filter
			ask[g.Group] = true
		}
	}
	out := &shareOffsets{began: time.Now(), asked: map[string]bool{}}
	if len(ask) == 0 {
		return out, nil
	}
	names := make([]string, 0, len(ask))
	for name := range ask {
		names = append(names, name)
	}
	described, err := c.Admin().DescribeShareGroupOffsets(ctx, names...)
	if _, partly := errors.AsType[*kadm.ShardErrors](err); err != nil && !partly {
		return nil, err
	}
	if notAuthorized(err) {
		out.refused = err
	}
	for _, d := range described {
		if d.Err != nil && !errors.Is(d.Err, kerr.GroupIDNotFound) {
			if notAuthorized(d.Err) {
				out.refused = d.Err
			}
			continue
		}
		out.asked[d.Group] = true
		for _, partitions := range d.Offsets {
			for _, o := range partitions {
				if o.Err != nil {
					delete(out.asked, d.Group)
					continue
				}
				if o.StartOffset < 0 || !topic(o.Topic) { // -1: nothing was read yet
					continue
				}
				out.commits = append(out.commits, Commit{
					Key:    Key{Group: d.Group, Type: Share, Lane: offsets.Lane{Topic: o.Topic, Partition: o.Partition}},
					Offset: o.StartOffset, LeaderEpoch: o.LeaderEpoch, Time: out.began,
				})
			}
		}
	}
	return out, nil
}
