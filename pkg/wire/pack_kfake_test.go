package wire

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Producers write with every codec; batches go to another topic as they are or
// packed anew; consumers of both topics read the same.
func TestAConsumerOfTheTargetReadsWhatAConsumerOfTheSourceReads(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "source", "forwarded", "packed"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client := func(opts ...kgo.Opt) *kgo.Client {
		c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(cluster.ListenAddrs()...))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	total := 0
	for i, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		producer := client(kgo.DefaultProduceTopic("source"), kgo.ProducerBatchCompression(codec))
		for round := range 4 {
			var records []*kgo.Record
			for j := range 25 {
				r := &kgo.Record{Key: fmt.Appendf(nil, "%d-%d", i, j), Value: drawText(20 * j), Timestamp: time.UnixMilli(1_790_000_000_000 + int64(1000*round-j))}
				switch j % 5 {
				case 1:
					r.Key = nil
				case 2:
					r.Value = nil
				case 3:
					r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "h", Value: nil}, {Key: "", Value: []byte{}}}
				}
				records = append(records, r)
			}
			if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			total += len(records)
		}
	}
	raw := fetchRaw(ctx, t, client(), "source")
	for _, topic := range []string{"forwarded", "packed"} {
		pool := NewPool(1 << 20)
		p := NewPacker(PackConfig{TargetBytes: 3000, Pool: pool})
		var batches []Batch
		for rest := raw; len(rest) > 0; {
			var entry []byte
			if entry, rest, err = Split(rest); err != nil {
				t.Fatal(err)
			}
			if err := Batch(entry).Verify(); err != nil {
				t.Fatal(err)
			}
			if topic == "forwarded" {
				batches = append(batches, append(Batch(nil), entry...))
			} else if err := p.Add(entry, 0); err != nil {
				t.Fatal(err)
			}
		}
		packed, err := p.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range packed {
			batches = append(batches, b.Batch())
		}
		target := client()
		sequence := int32(0)
		for _, b := range batches {
			b.Stamp(4000, 0, sequence)
			sequence += b.RecordCount()
			produceRaw(ctx, t, target, topic, b)
		}
		release(packed)
		read := func(topic string) []srcRecord {
			start := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}
			return consume(ctx, t, client(kgo.ConsumePartitions(start)), total)
		}
		want, got := read("source"), read(topic)
		if d := diffRecords(got, want); d != "" {
			t.Errorf("%s: %s", topic, d)
		}
	}
}

func topicID(ctx context.Context, t *testing.T, c *kgo.Client, topic string) [16]byte {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = new(topic)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}

func fetchRaw(ctx context.Context, t *testing.T, c *kgo.Client, topic string) []byte {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MaxWaitMillis, req.SessionEpoch = 100<<20, 100, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, topicID(ctx, t, c, topic)
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 100 << 20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := c.Broker(0).Request(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	p := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		t.Fatal(err)
	}
	return p.RecordBatches
}

func produceRaw(ctx context.Context, t *testing.T, c *kgo.Client, topic string, b Batch) {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 1000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, topicID(ctx, t, c, topic)
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := c.Broker(0).Request(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}

func consume(ctx context.Context, t *testing.T, c *kgo.Client, n int) (out []srcRecord) {
	for len(out) < n {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			s := srcRecord{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				s.Headers = append(s.Headers, srcHeader{h.Key, h.Value})
			}
			out = append(out, s)
		})
	}
	return out
}
