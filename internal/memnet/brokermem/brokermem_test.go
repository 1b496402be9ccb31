package brokermem

import (
	"hash/crc32"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/memnet"
)

const (
	topic = "orders"
	txnID = "replicator.east-west.orders.0"
)

// rig is one fake broker with one partition, and a client that speaks raw requests to it.
type rig struct {
	t      *testing.T
	n      *memnet.Network
	memory *Memory
	client *kgo.Client
}

func newRig(t *testing.T) *rig {
	n := memnet.New()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(n.ListenOn("10.0.0.1")), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m, err := Install(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers("10.0.0.1:9092"), kgo.Dialer(n.Dialer("10.9.0.1")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &rig{t: t, n: n, memory: m, client: cl}
}

func (r *rig) init() (id int64, epoch int16) {
	r.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = new(txnID)
	req.TransactionTimeoutMillis = 60_000
	req.ProducerID, req.ProducerEpoch = -1, -1
	resp, err := req.RequestWith(r.t.Context(), r.client)
	if err != nil || resp.ErrorCode != 0 {
		r.t.Fatalf("init: %v, %v", err, kerr.ErrorForCode(resp.ErrorCode))
	}
	return resp.ProducerID, resp.ProducerEpoch
}

func (r *rig) add(id int64, epoch int16) error {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = txnID, id, epoch
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	resp, err := r.request(req, 3)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode)
}

func (r *rig) end(id int64, epoch int16) error {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = txnID, id, epoch
	resp, err := r.request(req, 3)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.EndTxnResponse).ErrorCode)
}

// produce sends one plain batch with one record and returns its offset.
func (r *rig) produce(id int64, epoch int16, sequence int32, at time.Time) (int64, error) {
	rec := kmsg.Record{Value: []byte("v")}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1)
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: at.UnixMilli(), MaxTimestamp: at.UnixMilli(),
		ProducerID: id, ProducerEpoch: epoch, FirstSequence: sequence, NumRecords: 1, Records: rec.AppendTo(nil)}
	raw := b.AppendTo(nil)
	b.Length = int32(len(raw) - 12)
	raw = b.AppendTo(nil)
	b.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: b.AppendTo(nil)}}}}
	resp, err := r.request(req, 9)
	if err != nil {
		return 0, err
	}
	p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
}

// request sends a request to the one broker, in no higher version than the one given.
func (r *rig) request(req kmsg.Request, version int16) (kmsg.Response, error) {
	return r.client.Broker(0).Request(r.t.Context(), &pinned{req, version})
}

type pinned struct {
	kmsg.Request
	version int16
}

func (p *pinned) MaxVersion() int16 { return p.version }

func (r *rig) want(what string, got, want error) {
	r.t.Helper()
	if got != want {
		r.t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func TestAnEpochIsFencedByItsControlRecordNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id, first := r.init()
		_, err := r.produce(id, first, 0, time.Now())
		r.want("first", err, nil)
		_, second := r.init()
		_, err = r.produce(id, first, 1, time.Now())
		r.want("old epoch after InitProducerId", err, nil)
		r.want("add", r.add(id, second), nil)
		_, err = r.produce(id, first, 2, time.Now())
		r.want("old epoch while the transaction is open", err, nil)
		r.want("end", r.end(id, second), nil)
		_, err = r.produce(id, first, 3, time.Now())
		r.want("old epoch behind the control record", err, kerr.InvalidProducerEpoch)
		_, err = r.produce(id, second, 5, time.Now())
		r.want("new epoch out of sequence", err, kerr.OutOfOrderSequenceNumber)
		at, err := r.produce(id, second, 0, time.Now())
		r.want("new epoch", err, nil)
		if at != 4 {
			t.Errorf("three records and a control record, the next at %d", at)
		}
		r.want("old owner's add", r.add(id, first), kerr.ProducerFenced)
	})
}

func TestAProducerOfOldRecordsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		old := time.Now().Add(-48 * time.Hour)
		id, first := r.init()
		_, err := r.produce(id, first, 0, time.Now())
		r.want("first", err, nil)
		_, second := r.init()
		r.want("add", r.add(id, second), nil)
		r.want("end", r.end(id, second), nil)
		_, err = r.produce(id, second, 0, old)
		r.want("old record", err, nil)
		_, err = r.produce(id, first, 1, time.Now())
		r.want("old epoch, before the check", err, kerr.InvalidProducerEpoch)
		synctest.Wait()
		if epoch, ok := r.memory.Known(topic, 0, id); !ok || epoch != second {
			t.Fatalf("known: %d, %v", epoch, ok)
		}
		time.Sleep(11 * time.Minute)
		_, err = r.produce(id, first, 7, time.Now())
		r.want("old epoch, any sequence, after the check", err, nil)
		if r.memory.Forgets() != 1 {
			t.Errorf("forgot %d producers", r.memory.Forgets())
		}
		// The epoch the coordinator holds has not suffered.
		if _, third := r.init(); third != second+1 {
			t.Errorf("next epoch %d after %d", third, second)
		}
	})
}

func TestARestartForgetsAtOnceAndAControlRecordIsRememberedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id, first := r.init()
		r.want("add", r.add(id, first), nil)
		r.want("end", r.end(id, first), nil)
		_, second := r.init()
		r.want("add", r.add(id, second), nil)
		r.want("end", r.end(id, second), nil)
		time.Sleep(23 * time.Hour)
		r.memory.Restart()
		r.n.Cut(memnet.Match{})
		_, err := r.produce(id, first, 0, time.Now())
		r.want("old epoch within the day", err, kerr.InvalidProducerEpoch)
		_, err = r.produce(id, second, 0, time.Now().Add(-48*time.Hour))
		r.want("old record", err, nil)
		r.memory.Restart()
		_, err = r.produce(id, first, 3, time.Now())
		r.want("old epoch after the restart", err, nil)
	})
}
