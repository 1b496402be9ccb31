// Command testpair is two small Kafka clusters in one process, for the test of
// the systemd unit: east on 127.0.0.1:9091 with a topic orders of 500 records,
// west on 127.0.0.1:9092, empty.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	const session = 1 * time.Second // the least a consumer group may ask for
	east, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9091), kfake.ClusterID("testpair-east"), kfake.SeedTopics(2, "orders"), kfake.GroupMinSessionTimeout(session))
	if err != nil {
		return fmt.Errorf("start east: %w", err)
	}
	defer east.Close()
	west, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ClusterID("testpair-west"), kfake.GroupMinSessionTimeout(session))
	if err != nil {
		return fmt.Errorf("start west: %w", err)
	}
	defer west.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(east.ListenAddrs()...), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		return fmt.Errorf("connect to east: %w", err)
	}
	defer client.Close()
	records := make([]*kgo.Record, 500)
	for i := range records {
		records[i] = kgo.KeyStringRecord(strconv.Itoa(i), "order "+strconv.Itoa(i))
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write orders: %w", err)
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	<-ctx.Done()
	return nil
}
