package mirror_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/testlog"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

const scratchTopic = "replicator.drill.east.west.run"

func rehearse(t *testing.T, target *kfake.Cluster, partitions int32) (mirror.Rehearsal, error) {
	t.Helper()
	return mirror.Rehearse(t.Context(), mirror.RehearseConfig{
		Options: mirror.Options{From: "east", To: "west", Only: scratchTopic, JournalTopic: scratchTopic + ".journal", JournalPartitions: 1},
		Target:  open(t, "west", target.ListenAddrs(), wire.NewPool(1<<20)), Log: testlog.New(t), Instance: "drill", Partitions: partitions,
	})
}

// showProducers has a fake cluster tell of the producers whose transactions it has ended,
// as brokers do.
func showProducers(c *kfake.Cluster) {
	var mu sync.Mutex
	epochs := map[int64]int16{}
	c.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		r := req.(*kmsg.EndTxnRequest)
		epochs[r.ProducerID] = max(epochs[r.ProducerID], r.ProducerEpoch)
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		r := req.(*kmsg.DescribeProducersRequest)
		resp := r.ResponseKind().(*kmsg.DescribeProducersResponse)
		for _, t := range r.Topics {
			topic := kmsg.NewDescribeProducersResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				part := kmsg.NewDescribeProducersResponseTopicPartition()
				part.Partition = p
				for id, epoch := range epochs {
					active := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					active.ProducerID, active.ProducerEpoch = id, int32(epoch)
					part.ActiveProducers = append(part.ActiveProducers, active)
				}
				topic.Partitions = append(topic.Partitions, part)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
}

// A fence that is rehearsed has every former writer refused, on every broker. A link
// of all topics does not know the scratch topic.
func TestAFenceIsRehearsedOnAScratchTopic(t *testing.T) {
	t.Parallel()
	// Leaders are drawn: of so many partitions some lie on another broker.
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.NumBrokers(3), kfake.SeedTopics(12, scratchTopic), kfake.SeedTopics(1, "orders"))
	showProducers(dst)
	r, err := rehearse(t, dst, 12)
	if err != nil {
		t.Fatal(err)
	}
	leaders := map[int32]bool{}
	for _, p := range r.Proofs {
		if !p.Holds || p.Tried.ProducerID < 0 {
			t.Errorf("not refused: %+v", p)
		}
		leaders[p.Leader] = true
	}
	if len(r.Lanes) != 12 || len(r.Proofs) != 12 || len(leaders) < 2 || r.Took <= 0 || r.Proved <= 0 {
		t.Errorf("rehearsed %+v", r)
	}
	if report := fenceLink(t, dst.ListenAddrs(), "run"); len(report.Lanes) != 1 {
		t.Errorf("a link has the lanes %+v", report.Lanes)
	}
}

// A broker that takes what it has to refuse is found out.
func TestARehearsalFindsABrokerThatDoesNotRefuse(t *testing.T) {
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(1, scratchTopic))
	showProducers(dst)
	probes := 0
	dst.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		dst.KeepControl()
		p := req.(*kmsg.ProduceRequest)
		if len(p.Topics) != 1 || len(p.Topics[0].Partitions) != 1 || !bytes.Contains(p.Topics[0].Partitions[0].Records, []byte(mirror.ProbeKey)) {
			return nil, nil, false
		}
		if probes++; probes == 1 {
			return nil, nil, false // the writer's own record
		}
		resp := p.ResponseKind().(*kmsg.ProduceResponse)
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = p.Topics[0].Topic, p.Topics[0].TopicID
		topic.Partitions = []kmsg.ProduceResponseTopicPartition{kmsg.NewProduceResponseTopicPartition()}
		resp.Topics = []kmsg.ProduceResponseTopic{topic}
		return resp, nil, true
	})
	if _, err := rehearse(t, dst, 1); err == nil || !strings.Contains(err.Error(), "APPENDED") {
		t.Errorf("a broker that took the former writer's record passes: %v", err)
	}
}

// What the writer itself could not append proves nothing when it is refused later.
func TestARehearsalNeedsAWriterThatMayAppend(t *testing.T) {
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(1, scratchTopic))
	dst.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		dst.KeepControl()
		p := req.(*kmsg.ProduceRequest)
		if len(p.Topics) != 1 || !bytes.Contains(p.Topics[0].Partitions[0].Records, []byte(mirror.ProbeKey)) {
			return nil, nil, false
		}
		resp := p.ResponseKind().(*kmsg.ProduceResponse)
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = p.Topics[0].Topic, p.Topics[0].TopicID
		part := kmsg.NewProduceResponseTopicPartition()
		part.ErrorCode = kerr.TopicAuthorizationFailed.Code
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	if _, err := rehearse(t, dst, 1); err == nil || !strings.Contains(err.Error(), "as its writer") {
		t.Errorf("a writer that may not append passes: %v", err)
	}
}
