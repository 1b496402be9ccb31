package memnet_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/memnet"
)

var brokers = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}

// cluster starts three fake brokers at 10.0.0.1 to 3, port 9092, with the topic "orders" of four partitions.
func cluster(t *testing.T, n *memnet.Network) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(len(brokers)), kfake.ListenFn(n.ListenOn(brokers...)), kfake.SeedTopics(4, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newClient(t *testing.T, n *memnet.Network, host string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers("10.0.0.1:9092"), kgo.Dialer(n.Dialer(host))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func TestAKafkaClientRunsInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		cluster(t, n)
		cl := newClient(t, n, "10.9.0.1", kgo.ConsumeTopics("orders"))
		defer cl.Close()
		n.Delay(memnet.Match{}, memnet.ToListener, 40*time.Millisecond)
		n.Delay(memnet.Match{}, memnet.ToDialer, 40*time.Millisecond)

		start := time.Now()
		for i := range 100 {
			r := &kgo.Record{Topic: "orders", Partition: int32(i % 4), Value: []byte(fmt.Sprint(i))}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 100*80*time.Millisecond {
			t.Errorf("100 round trips of 80 ms took %v of fake time", took)
		}
		seen := 0
		for seen < 100 {
			fs := cl.PollFetches(t.Context())
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			seen += fs.NumRecords()
		}

		// An hour goes by in no time, with its long polls and refreshes.
		idle := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if fs := cl.PollFetches(ctx); !errors.Is(fs.Err0(), context.DeadlineExceeded) || time.Since(idle) < time.Hour {
			t.Fatalf("after %v: %v", time.Since(idle), fs.Err0())
		}
	})
}

func TestAGroupRebalancesWhenAMemberIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		cluster(t, n)
		var mu sync.Mutex
		owned := map[string]int{}
		member := func(host string) *kgo.Client {
			count := func(by int) func(context.Context, *kgo.Client, map[string][]int32) {
				return func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
					mu.Lock()
					defer mu.Unlock()
					owned[host] += by * len(m["orders"])
				}
			}
			return newClient(t, n, host, kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("lanes"), kgo.SessionTimeout(10*time.Second),
				kgo.OnPartitionsAssigned(count(1)), kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1)))
		}
		a, b := member("10.9.0.1"), member("10.9.0.2")
		defer a.Close()
		defer b.Close()
		holds := func(host string) int {
			mu.Lock()
			defer mu.Unlock()
			return owned[host]
		}
		time.Sleep(30 * time.Second)
		if holds("10.9.0.1") != 2 || holds("10.9.0.2") != 2 {
			t.Fatalf("two members hold %v", owned)
		}
		part := n.Partition([]string{"10.9.0.1"}, brokers)
		start := time.Now()
		for holds("10.9.0.2") != 4 {
			if time.Since(start) > time.Minute {
				t.Fatalf("after a minute: %v", owned)
			}
			time.Sleep(time.Second)
		}
		t.Logf("taken over after %v", time.Since(start))
		part.Lift()
		time.Sleep(time.Minute)
		if holds("10.9.0.1") != 2 || holds("10.9.0.2") != 2 {
			t.Fatalf("after the partition healed: %v", owned)
		}
	})
}

func TestATransactionalIDIsTakenAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		cluster(t, n)
		cl := newClient(t, n, "10.9.0.1")
		defer cl.Close()
		take := func() (int64, int16) {
			req := kmsg.NewPtrInitProducerIDRequest()
			id := "replicator.east-west.orders.0"
			req.TransactionalID = &id
			req.TransactionTimeoutMillis = 10_000
			req.ProducerID, req.ProducerEpoch = -1, -1
			resp, err := req.RequestWith(t.Context(), cl)
			if err != nil || resp.ErrorCode != 0 {
				t.Fatalf("take: %v, code %d", err, resp.ErrorCode)
			}
			return resp.ProducerID, resp.ProducerEpoch
		}
		id, first := take()
		again, second := take()
		if id != again || first != 0 || second != 1 {
			t.Fatalf("took %d/%d, then %d/%d", id, first, again, second)
		}
		time.Sleep(8 * 24 * time.Hour)
		if _, epoch := take(); epoch != 0 {
			t.Errorf("eight days later the epoch is %d, not forgotten", epoch)
		}
	})
}

func TestABrokerGoesAndComesBackAtItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		c := cluster(t, n)
		cl := newClient(t, n, "10.9.0.1", kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer cl.Close()
		produce := func() {
			for p := range int32(4) {
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: p, Value: []byte("v")}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		produce()
		gone := c.LeaderFor("orders", 0)
		at := memnet.Match{To: brokers[gone]}
		if err := c.RemoveNode(gone); err != nil {
			t.Fatal(err)
		}
		if n.Cut(at) == 0 {
			t.Error("nobody was connected to the broker that went")
		}
		produce()
		if _, _, err := c.AddNode(gone, 9092); err != nil {
			t.Fatal(err)
		}
		if err := c.MoveTopicPartition("orders", 0, gone); err != nil {
			t.Fatal(err)
		}
		produce()
		if n.Open(at) == 0 {
			t.Error("nobody is connected to the broker that came back")
		}
	})
}
