package fakeproducers

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The table of producers has the epoch of a fence, which no batch has brought, and does
// not go back to that of a writer that is refused.
func TestProducersAreRememberedAsBrokersDo(t *testing.T) {
	table := newTable()
	partition := kmsg.NewAddPartitionsToTxnRequestTopic()
	partition.Topic, partition.Partitions = "orders", []int32{1}
	table.added(&kmsg.AddPartitionsToTxnRequest{TransactionalID: "lane", ProducerID: 7, ProducerEpoch: 5, Topics: []kmsg.AddPartitionsToTxnRequestTopic{partition}})
	shown := func() []kmsg.DescribeProducersResponseTopicPartitionActiveProducer {
		req := kmsg.NewPtrDescribeProducersRequest()
		ask := kmsg.NewDescribeProducersRequestTopic()
		ask.Topic, ask.Partitions = "orders", []int32{1}
		req.Topics = append(req.Topics, ask)
		return table.describe(req).(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0].ActiveProducers
	}
	if got := shown(); len(got) != 0 {
		t.Errorf("before the end: %+v", got)
	}
	table.ended(&kmsg.EndTxnRequest{TransactionalID: "lane", ProducerID: 7, ProducerEpoch: 5})
	batch := (&kmsg.RecordBatch{Magic: 2, MaxTimestamp: 1000, ProducerID: 7, ProducerEpoch: 4}).AppendTo(nil)
	other := (&kmsg.RecordBatch{Magic: 2, MaxTimestamp: 2000, ProducerID: 8, ProducerEpoch: 2}).AppendTo(nil)
	for _, b := range [][]byte{batch, other, []byte("short")} {
		table.produced(&kmsg.ProduceRequest{Topics: []kmsg.ProduceRequestTopic{{Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 1, Records: b}}}}})
	}
	epochs := map[int64]int32{}
	for _, p := range shown() {
		epochs[p.ProducerID] = p.ProducerEpoch
		if p.ProducerID == 8 && p.LastTimestamp != 2000 || p.ProducerID == 7 && p.LastTimestamp < 2000 {
			t.Errorf("producer %d was seen at %d", p.ProducerID, p.LastTimestamp)
		}
	}
	if len(epochs) != 2 || epochs[7] != 5 || epochs[8] != 2 {
		t.Errorf("remembered %v", epochs)
	}
}
