package mirror_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/mirror"
)

// No epoch is taken for a lane before the named leader of its target partition
// leads: the control record could not be written, and the transaction would stay
// open until the coordinator's own time-out.
func TestNoEpochIsTakenBeforeTheLeaderLeads(t *testing.T) {
	t.Parallel()
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(2, "orders"))
	produce(t, src.ListenAddrs(), "orders", 2, 0, 10)
	const refusals = 3
	var refused atomic.Int32
	var early atomic.Value // the transactional id whose epoch was taken too soon
	dst.ControlKey(kmsg.ListOffsets.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		dst.KeepControl()
		asked := req.(*kmsg.ListOffsetsRequest)
		late := false // orders-1 is made later
		resp := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range asked.Topics {
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Partition, rp.Offset = p.Partition, 0
				if topic.Topic == "orders" && p.Partition == 1 {
					late = true
					rp.ErrorCode = kerr.NotLeaderForPartition.Code
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		if !late || refused.Load() >= refusals {
			return nil, nil, false
		}
		refused.Add(1)
		return resp, nil, true
	})
	dst.ControlKey(kmsg.InitProducerID.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		dst.KeepControl()
		if id := req.(*kmsg.InitProducerIDRequest).TransactionalID; id != nil && *id == "replicator.east.west.orders.1" && refused.Load() < refusals {
			early.CompareAndSwap(nil, *id)
		}
		return nil, nil, false
	})
	startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}})
	got := consume(t, dst.ListenAddrs(), "orders", 10)
	if len(got[0]) != 5 || len(got[1]) != 5 {
		t.Errorf("got %d and %d records", len(got[0]), len(got[1]))
	}
	if n := refused.Load(); n != refusals {
		t.Errorf("leader was asked %d times before it led, want %d", n, refusals)
	}
	if id := early.Load(); id != nil {
		t.Error(fmt.Sprint("epoch of ", id, " was taken before the leader led"))
	}
}
