package cutover

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/authority"
)

// A broker answers the end of a transaction before its control record is there. Until then
// the partition shows that of the command before, which had the same producer id.
func TestTheTimeOfAnEarlierCommandIsNotTakenForTheClock(t *testing.T) {
	west, fake := fakeBrokers(t, "west", kfake.SeedTopics(1, authority.DefaultAuditTopic))
	const ahead, before = 3 * time.Second, 10 * time.Minute
	var mu sync.Mutex
	var ended *kmsg.EndTxnRequest
	asked := 0
	fake.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		ended = req.(*kmsg.EndTxnRequest)
		return nil, nil, false
	})
	fake.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		shown := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		shown.ProducerID, shown.ProducerEpoch, shown.LastTimestamp = ended.ProducerID, int32(ended.ProducerEpoch), time.Now().Add(ahead).UnixMilli()
		if asked++; asked < 3 {
			shown.ProducerEpoch, shown.LastTimestamp = shown.ProducerEpoch-1, time.Now().Add(-before).UnixMilli()
		}
		partition, topic := kmsg.NewDescribeProducersResponseTopicPartition(), kmsg.NewDescribeProducersResponseTopic()
		partition.ActiveProducers = append(partition.ActiveProducers, shown)
		topic.Topic, topic.Partitions = authority.DefaultAuditTopic, append(topic.Partitions, partition)
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	off, err := clockOffset(t.Context(), west.Cluster, authority.PairOf("east", "west"))
	if err != nil {
		t.Fatal(err)
	}
	if apart := (off - ahead).Abs(); apart > 2*time.Second {
		t.Errorf("the clock is %v ahead, want %v", off, ahead)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked < 3 {
		t.Errorf("it was told after %d questions", asked)
	}
}

// The brokers of a region that may be ill are asked for its clock a few times a second.
func TestAClockThatIsNotToldIsAskedForWithPauses(t *testing.T) {
	east, k := fakeBrokers(t, "east", kfake.SeedTopics(1, authority.DefaultAuditTopic))
	var asked atomic.Int64
	k.ControlKey(kmsg.DescribeProducers.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		asked.Add(1)
		return req.ResponseKind(), nil, true // no producer is seen
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := clockOffset(ctx, east.Cluster, authority.PairOf("east", "west")); err == nil {
		t.Error("the clock is known without a control record")
	}
	if n := asked.Load(); n < 2 || n > 120 {
		t.Errorf("asked %d times in two seconds", n)
	}
}

// A region that does not tell its time stands beside those that do, not among their numbers.
func TestTheClockGateSaysWhoDoesNotTell(t *testing.T) {
	west, _ := fakeBrokers(t, "west", kfake.SeedTopics(1, authority.DefaultAuditTopic))
	r := &run{}
	r.New, r.Pair = Region{Alias: "west", Cluster: west.Cluster}, authority.PairOf("east", "west")
	g, err := r.clockGate(t.Context())
	if err != nil || !g.OK || !strings.HasPrefix(g.Detail, "warning: west does not tell: ") {
		t.Errorf("%+v, %v", g, err)
	}
}
