package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/stats"
	"replicator/pkg/cluster"
)

const (
	pings    = 100             // of a cluster
	pingTime = 3 * time.Second // and no more than what fits in this
)

// roundTrips asks the brokers of both clusters in turn which versions they speak:
// they answer at once, so the time is that of the way and of the request itself.
func (b *Bench) roundTrips(ctx context.Context, r *RoundTripResult) (err error) {
	b.o.Progress("measuring the round trips")
	if r.Source, err = roundTrip(ctx, b.source); err == nil {
		r.Target, err = roundTrip(ctx, b.target)
	}
	return err
}

func roundTrip(ctx context.Context, c *cluster.Cluster) (PingResult, error) {
	brokers, err := c.Admin().ListBrokers(ctx)
	if err != nil || len(brokers) == 0 {
		return PingResult{}, fmt.Errorf("list brokers of cluster %s: %w", c.Alias(), err)
	}
	ping := func(i int) (time.Duration, error) {
		id := brokers[i%len(brokers)].NodeID
		began := time.Now()
		if _, err := c.Client().Broker(int(id)).Request(ctx, kmsg.NewPtrApiVersionsRequest()); err != nil {
			return 0, fmt.Errorf("measure the round trip to broker %d of cluster %s: %w", id, c.Alias(), err)
		}
		return time.Since(began), nil
	}
	for i := range brokers { // connects
		if _, err := ping(i); err != nil {
			return PingResult{}, err
		}
	}
	var took []time.Duration
	for began := time.Now(); len(took) < pings && time.Since(began) < pingTime; {
		d, err := ping(len(took))
		if err != nil {
			return PingResult{}, err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	return PingResult{Requests: len(took), P50Seconds: stats.Quantile(took, 0.5).Seconds(), P99Seconds: stats.Quantile(took, 0.99).Seconds()}, nil
}
