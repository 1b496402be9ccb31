package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A consumer works through a sniffer as without, and its fetches are seen with
// their answers.
func TestSnifferSeesFetches(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	addr := broker.ListenAddrs()[0]
	s, err := sniff(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	producer, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("orders"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	if err := producer.ProduceSync(t.Context(), kgo.SliceRecord(make([]byte, 10_000))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(s.addr()), kgo.ConsumeTopics("orders"), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.Dialer(dialAlways(s.addr())))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	if got := consumer.PollFetches(t.Context()); got.NumRecords() != 1 || got.Err() != nil {
		t.Fatalf("%d records, %v", got.NumRecords(), got.Err())
	}
	seen := s.seen()
	if len(seen) == 0 {
		t.Fatal("no fetch was seen")
	}
	largest := int64(0)
	for _, e := range seen {
		if e.Request < 40 || e.Request > 500 {
			t.Errorf("a fetch of one partition has %d bytes", e.Request)
		}
		largest = max(largest, e.Answer)
	}
	if largest < 10_000 || largest > 11_000 {
		t.Errorf("the largest answer has %d bytes", largest)
	}
}

// dialAlways leads every connection to one address, whatever is advertised.
func dialAlways(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}
