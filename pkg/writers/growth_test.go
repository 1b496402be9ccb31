package writers

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (f *fake) produce(topic string, partition int32, o ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	client, err := f.c.NewClient(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, o...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(client.Close)
	if len(o) == 0 {
		f.put(client, topic, partition)
	}
	return client
}

func (f *fake) put(client *kgo.Client, topic string, partition int32) {
	f.t.Helper()
	if err := client.ProduceSync(f.t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("v")}).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

func TestGrown(t *testing.T) {
	f := newFake(t)
	client := f.produce("orders", 1)
	o, err := Grown(t.Context(), f.c, []string{"orders", "billing"}, time.Millisecond)
	want := []End{{"billing", 0, 0, 0, 0}, {"billing", 1, 0, 0, 0}, {"orders", 0, 0, 0, 0}, {"orders", 1, 1, 1, 1}}
	if d := cmp.Diff(want, o.Ends); d != "" || err != nil || !o.Still() {
		t.Errorf("%s %v", d, err)
	}
	looking := make(chan Observation)
	go func() {
		o, err := Grown(t.Context(), f.c, []string{"orders"}, time.Second)
		if err != nil {
			t.Error(err)
		}
		looking <- o
	}()
	time.Sleep(300 * time.Millisecond) // between the two looks
	f.put(client, "orders", 1)
	f.put(client, "orders", 1)
	o = <-looking
	if len(o.Grown) != 1 || o.Still() {
		t.Fatalf("%+v", o)
	}
	g := o.Grown[0]
	if g.PerSecond <= 1 || g.PerSecond > 2 {
		t.Errorf("%v a second", g.PerSecond)
	}
	g.PerSecond = 2
	if d := cmp.Diff("topic orders partition 1: offset 1 -> 3 (+2, 2.0 a second)", g.String()); d != "" || g.Control {
		t.Error(d)
	}
}

func TestOpenTransactionsAreNamed(t *testing.T) {
	f := newFake(t)
	tx := f.produce("orders", 0, kgo.TransactionalID("payments"))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	f.put(tx, "orders", 0)
	look := func(apart time.Duration) Observation {
		o, err := Grown(t.Context(), f.c, []string{"orders"}, apart)
		if err != nil {
			t.Error(err)
		}
		return o
	}
	o := look(time.Millisecond)
	if len(o.Grown) != 0 || len(o.Open) != 1 || o.Still() || o.Open[0].TransactionalID != "payments" || o.Open[0].LastStable != 0 || o.Open[0].HighWatermark != 1 {
		t.Fatalf("%+v", o)
	}
	looking := make(chan Observation)
	go func() { looking <- look(time.Second) }()
	time.Sleep(300 * time.Millisecond) // between the two looks
	if err := tx.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Error(err)
	}
	o = <-looking
	if !o.Still() || len(o.Grown) != 1 || !o.Grown[0].Control || len(o.Written()) != 0 {
		t.Errorf("its end counts as writing: %+v", o)
	}
}

// A record that waits for its replicas is no growth, and not at rest.
func TestWaitingForReplicas(t *testing.T) {
	f := newFake(t)
	var replicated atomic.Bool
	f.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		req := r.(*kmsg.ListOffsetsRequest)
		resp := r.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Partition, rp.Offset = p.Partition, 10
				if req.ReplicaID >= 0 || replicated.Load() {
					rp.Offset = 11
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	o, err := AwaitStill(t.Context(), f.c, []string{"orders"}, time.Millisecond, 50*time.Millisecond)
	if err != nil || o.Still() || len(o.Grown) != 0 || len(o.Open) != 0 {
		t.Fatalf("%+v, %v", o, err)
	}
	want := []End{{"orders", 0, 11, 10, 10}, {"orders", 1, 11, 10, 10}}
	if d := cmp.Diff([][]End{want, want}, [][]End{o.Waiting, o.Ends}); d != "" {
		t.Error(d)
	}
	time.AfterFunc(100*time.Millisecond, func() { replicated.Store(true) })
	if o, err = AwaitStill(t.Context(), f.c, []string{"orders"}, time.Millisecond, 5*time.Second); err != nil || !o.Still() {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestGrownFails(t *testing.T) {
	f := newFake(t)
	if _, err := Grown(t.Context(), f.c, nil, 0); err == nil {
		t.Error("no topics are none, not all")
	}
	if _, err := Grown(t.Context(), f.c, []string{"orders", "nowhere"}, 0); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("a topic that is not there: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	time.AfterFunc(200*time.Millisecond, func() { cancel(why) })
	began := time.Now()
	if _, err := Grown(ctx, f.c, []string{"orders"}, time.Hour); !errors.Is(err, why) || time.Since(began) > 10*time.Second {
		t.Errorf("the context: %v", err)
	}
}
