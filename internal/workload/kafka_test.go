package workload_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// copyTopic copies what a read_committed consumer sees, record by record.
func copyTopic(t *testing.T, source, target []kgo.Opt, topic string, partitions int32) {
	t.Helper()
	if _, err := workload.Write(t.Context(), target, workload.Spec{Topic: topic, Kind: workload.Empty, Partitions: partitions, Settings: map[string]string{"max.message.bytes": "4194304"}}); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(slices.Clone(target), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(4<<20))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	err = compare.Read(t.Context(), source, topic, func(r *kgo.Record) error {
		c := &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
		if r.Timestamp.IsZero() {
			c.Timestamp = time.UnixMilli(-1)
		}
		cl.Produce(t.Context(), c, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What is said of the kinds holds on a real broker, where its cleaner, its
// transactions and its clock are at work; and the comparer reads them all.
func TestEveryKindOnKafka(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Config{Properties: map[string]string{"log.cleaner.backoff.ms": "200"}})
	opts := c.ClientOpts()
	_, fakeOpts := fake(t)
	for _, spec := range workload.Catalogue("w-", 1200, false) {
		t.Run(spec.Topic, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			r, err := workload.Write(ctx, opts, spec)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Notes) > 0 {
				t.Errorf("notes %q", r.Notes)
			}
			records := read(t, opts, spec.Topic)
			if int64(len(records)) != r.Visible() {
				t.Errorf("%d records visible, result says %d: %+v", len(records), r.Visible(), r)
			}
			switch spec.Kind {
			case workload.LogAppendTime:
				for _, rec := range records {
					if rec.Attrs.TimestampType() != 1 {
						t.Fatalf("offset %d has timestamp type %d", rec.Offset, rec.Attrs.TimestampType())
					}
				}
			case workload.Compacted:
				if r.Holes < 100 {
					t.Errorf("%d holes", r.Holes)
				}
			case workload.Transactions:
				if r.Aborted == 0 || r.Transactions == 0 {
					t.Errorf("%+v", r)
				}
			}
			copyTopic(t, opts, fakeOpts, spec.Topic, r.Spec.Partitions)
			report, err := compare.WaitEqual(ctx, opts, fakeOpts, compare.Same(spec.Topic), compare.Options{})
			if err != nil {
				t.Error(err)
			}
			if report.Total.Matched != r.Visible() {
				t.Errorf("matched %d of %d", report.Total.Matched, r.Visible())
			}
		})
	}
}

func TestOldMessagesOnKafka2(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Config{Version: kafkatest.Kafka2})
	opts := c.ClientOpts()
	_, fakeOpts := fake(t)
	for _, spec := range workload.Catalogue("w-", 600, true) {
		if spec.Kind != workload.OldMessages {
			continue
		}
		t.Run(spec.Topic, func(t *testing.T) {
			r, err := workload.Write(t.Context(), opts, spec)
			if err != nil {
				t.Fatal(err)
			}
			if magic := storedMagic(t, opts, spec.Topic); magic != spec.Magic {
				t.Errorf("stored as format %d", magic)
			}
			copyTopic(t, opts, fakeOpts, spec.Topic, r.Spec.Partitions)
			report, err := compare.WaitEqual(t.Context(), opts, fakeOpts, compare.Same(spec.Topic), compare.Options{})
			if err != nil {
				t.Error(err)
			}
			if report.Total.Matched != 600 {
				t.Errorf("matched %d", report.Total.Matched)
			}
		})
	}
}

func TestStampedOldMessagesOnKafka2(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Config{Version: kafkatest.Kafka2})
	opts := c.ClientOpts()
	for _, codec := range []workload.Codec{workload.None, workload.LZ4} {
		begun := time.Now().Truncate(time.Millisecond)
		spec := workload.Spec{Topic: "stamped-" + string(codec), Kind: workload.OldMessages, Magic: 1, Codec: codec, Age: time.Hour, Settings: map[string]string{"message.timestamp.type": "LogAppendTime"}}
		if _, err := workload.Write(t.Context(), opts, spec); err != nil {
			t.Fatal(err)
		}
		for _, r := range read(t, opts, spec.Topic) {
			if r.Timestamp.Before(begun) || r.Timestamp.After(time.Now()) {
				t.Fatalf("%s: offset %d has the time %s", codec, r.Offset, r.Timestamp)
			}
		}
	}
}

// storedMagic is the message format at the start of a topic's partition 0.
func storedMagic(t *testing.T, opts []kgo.Opt, topic string) int8 {
	t.Helper()
	v := kversion.Stable()
	v.SetMaxKeyVersion(1, 11)
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.MaxVersions(v))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.SessionEpoch, req.MaxWaitMillis, req.MaxBytes = -1, -1, 1000, 1<<20
	rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	rt.Topic, rp.PartitionMaxBytes = topic, 1<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), cl.Broker(1))
	if err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil || len(p.RecordBatches) < 17 {
		t.Fatalf("%d bytes: %v", len(p.RecordBatches), err)
	}
	return int8(p.RecordBatches[16])
}

func TestLiveSurvivesABrokersDeathOnKafka(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Config{})
	opts := c.ClientOpts()
	live, err := workload.StartLive(t.Context(), opts, workload.LiveConfig{Spec: workload.Spec{Topic: "orders", Kind: workload.Plain, ValueBytes: 200}, Rate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	until := func(n int64) {
		t.Helper()
		for live.Counts().Acknowledged < n {
			select {
			case <-ctx.Done():
				t.Fatalf("stuck at %+v", live.Counts())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	until(2000)
	c.Broker(1).Kill()
	if err := c.Broker(1).Start(ctx); err != nil {
		t.Fatal(err)
	}
	until(live.Counts().Acknowledged + 4000)
	r, err := live.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Audit(ctx, opts, "orders")
	if err != nil || a.Err() != nil || r.Failed != 0 || a.Unknown != 0 {
		t.Errorf("%+v %+v %v", r.LiveCounts, a, err)
	}
}
