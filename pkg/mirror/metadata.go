package mirror

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicDetail is a topic as a broker tells it.
type topicDetail struct {
	name       string
	id         [16]byte // zero where the cluster has no topic ids
	internal   bool
	partitions map[int32]partitionDetail
	err        error
}

type partitionDetail struct {
	leader      int32 // -1 none
	leaderEpoch int32 // -1 unknown
}

// listTopics asks a broker for topics, nil for all. It asks anew each time:
// kadm answers from kgo's cache, which does not know a topic made a moment ago.
func listTopics(ctx context.Context, client *kgo.Client, names []string) (map[string]topicDetail, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	out := make(map[string]topicDetail, len(resp.Topics))
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		d := topicDetail{name: *t.Topic, id: t.TopicID, internal: t.IsInternal, err: kerr.ErrorForCode(t.ErrorCode), partitions: make(map[int32]partitionDetail, len(t.Partitions))}
		for _, p := range t.Partitions {
			leader := p.Leader
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil && !errors.Is(err, kerr.ReplicaNotAvailable) {
				leader = -1
			}
			d.partitions[p.Partition] = partitionDetail{leader, p.LeaderEpoch}
		}
		out[d.name] = d
	}
	return out, nil
}
