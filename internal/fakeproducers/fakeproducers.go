// Package fakeproducers has an embedded cluster answer DescribeProducers as brokers do.
package fakeproducers

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// table is every producer that a partition remembers, which is what brokers answer. kfake
// lists those of open transactions only, and so nothing of a fence, which is an epoch
// without one. The table is what the cluster has seen of produced batches and of ended
// transactions; whether an append of an older epoch is refused is kfake's own decision and
// not taken from here. It forgets with its process.
type table struct {
	mu    sync.Mutex
	known map[lane]map[int64]remembered // by producer id
	open  map[string]map[lane]bool      // partitions of open transactions, by transactional id
}

type remembered struct {
	epoch int16
	at    time.Time
}

type lane struct {
	topic     string
	partition int32
}

// Describe has a cluster answer from a table of the batches it is sent from now on. Those
// that name their topic by its id, as kgo's producers do, are not taken in.
func Describe(c *kfake.Cluster) {
	t := newTable()
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		t.produced(req.(*kmsg.ProduceRequest))
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.AddPartitionsToTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		t.added(req.(*kmsg.AddPartitionsToTxnRequest))
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		t.ended(req.(*kmsg.EndTxnRequest))
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return t.describe(req.(*kmsg.DescribeProducersRequest)), nil, true
	})
}

func newTable() *table {
	return &table{known: map[lane]map[int64]remembered{}, open: map[string]map[lane]bool{}}
}

// remember takes a producer in. A request of an older epoch than is known is one the
// broker refuses.
func (t *table) remember(l lane, id int64, epoch int16, at time.Time) {
	if id < 0 {
		return
	}
	if t.known[l] == nil {
		t.known[l] = map[int64]remembered{}
	}
	if was, ok := t.known[l][id]; !ok || epoch >= was.epoch {
		t.known[l][id] = remembered{epoch, at}
	}
}

// Where a record batch has its producer.
const (
	batchMaxTimestamp  = 35
	batchProducerID    = 43
	batchProducerEpoch = 51
	batchHeader        = 61
)

func (t *table) produced(req *kmsg.ProduceRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, topic := range req.Topics {
		if topic.Topic == "" { // by id
			continue
		}
		for _, p := range topic.Partitions {
			if b := p.Records; len(b) >= batchHeader {
				t.remember(lane{topic.Topic, p.Partition}, int64(binary.BigEndian.Uint64(b[batchProducerID:])), int16(binary.BigEndian.Uint16(b[batchProducerEpoch:])),
					time.UnixMilli(int64(binary.BigEndian.Uint64(b[batchMaxTimestamp:]))))
			}
		}
	}
}

func (t *table) added(req *kmsg.AddPartitionsToTxnRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	add := func(id, topic string, partitions []int32) {
		if t.open[id] == nil {
			t.open[id] = map[lane]bool{}
		}
		for _, p := range partitions {
			t.open[id][lane{topic, p}] = true
		}
	}
	for _, topic := range req.Topics {
		add(req.TransactionalID, topic.Topic, topic.Partitions)
	}
	for _, txn := range req.Transactions {
		for _, topic := range txn.Topics {
			add(txn.TransactionalID, topic.Topic, topic.Partitions)
		}
	}
}

// ended: the control record of the end has the producer's epoch and the broker's time.
func (t *table) ended(req *kmsg.EndTxnRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.open[req.TransactionalID] {
		t.remember(l, req.ProducerID, req.ProducerEpoch, time.Now())
	}
	delete(t.open, req.TransactionalID)
}

func (t *table) describe(req *kmsg.DescribeProducersRequest) kmsg.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	for _, topic := range req.Topics {
		answer := kmsg.NewDescribeProducersResponseTopic()
		answer.Topic = topic.Topic
		for _, partition := range topic.Partitions {
			p := kmsg.NewDescribeProducersResponseTopicPartition()
			p.Partition = partition
			for id, r := range t.known[lane{topic.Topic, partition}] {
				a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
				a.ProducerID, a.ProducerEpoch, a.LastTimestamp = id, int32(r.epoch), r.at.UnixMilli()
				a.LastSequence, a.CurrentTxnStartOffset = -1, -1
				p.ActiveProducers = append(p.ActiveProducers, a)
			}
			answer.Partitions = append(answer.Partitions, p)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}
