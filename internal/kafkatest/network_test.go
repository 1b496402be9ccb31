package kafkatest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/wan"
)

func TestBrokersRunBehindAWAN(t *testing.T) {
	far, err := wan.Open(context.WithoutCancel(t.Context()), wan.Config{})
	if errors.Is(err, wan.ErrUnavailable) { // also where Kafka is required: no package brings root's rights
		tally.notRun(t.Name(), err.Error())
		t.Skip("not run: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := far.Close(); err != nil {
			t.Error(err)
		}
	})
	Need(t, Kafka4)
	c := started(t, Config{TLS: ServerTLS, Network: Network{Host: far.Far.String(), Command: far.Command}})
	if addr := c.Broker(1).Addr(); !strings.HasPrefix(addr, far.Far.String()+":") {
		t.Fatalf("the broker is told to be at %s, not at %s", addr, far.Far)
	}
	c.CreateTopic(t, "orders", 1)
	cl := c.Client(t)
	produce(t, cl, "orders", 100)

	const oneWay = 40 * time.Millisecond
	if err := far.Set(oneWay, 0, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	broker := cl.Broker(1)
	if _, err := broker.Request(ctx, kmsg.NewPtrApiVersionsRequest()); err != nil { // connects
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := broker.Request(ctx, kmsg.NewPtrApiVersionsRequest()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 2*oneWay {
		t.Errorf("a request over a round trip of %v was answered in %v", 2*oneWay, took)
	}
	produce(t, cl, "orders", 1)
	if n := ends(t, c, "orders"); n != 101 {
		t.Errorf("%d records, want 101", n)
	}
}
