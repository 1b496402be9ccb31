package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
)

// clockGate compares the clocks of both regions with our own: gates, leases and the ages
// of records go by them. nil: the cluster does not tell.
func (r *run) clockGate(ctx context.Context) (*evidence.Gate, error) {
	var apart, told, said []string
	for _, region := range []Region{r.Old, r.New} {
		if region.Cluster == nil {
			continue
		}
		off, err := clockOffset(ctx, region.Cluster, r.Pair)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			said = append(said, fmt.Sprintf("warning: %s does not tell: %v", region.Alias, err))
			continue
		}
		text := fmt.Sprintf("%s %v", region.Alias, off.Round(time.Millisecond))
		if off.Abs() > r.Settings.ClockLimit {
			apart = append(apart, text)
		}
		told = append(told, text)
	}
	if len(told) > 0 {
		said = append([]string{"ahead of here: " + strings.Join(told, ", ")}, said...)
	}
	g := &evidence.Gate{Name: "clocks", OK: len(apart) == 0, Detail: strings.Join(said, "; ")}
	if !g.OK {
		g.Detail = fmt.Sprintf("ahead of here by more than %v: %s", r.Settings.ClockLimit, strings.Join(apart, ", "))
		g.Fix = "set them right (NTP), or raise cutover.clock_limit"
	}
	return g, nil
}

// clockOffset is how far a cluster's clock is ahead of ours. No request asks for the
// time, but a transaction coordinator writes its own into the control record that ends a
// transaction, and the partition shows it with the producer: so a transaction with
// nothing in it is ended in the audit topic, under an id of its own. What it took is the
// error.
func clockOffset(ctx context.Context, c *cluster.Cluster, pair authority.Pair) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	id := pair.TransactionalID() + ".clock"
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.ProducerID, init.ProducerEpoch, init.TransactionTimeoutMillis = &id, -1, -1, 10_000
	producer, err := init.RequestWith(ctx, c.Client())
	if err == nil {
		err = kerr.ErrorForCode(producer.ErrorCode)
	}
	if err != nil {
		return 0, err
	}
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = id, producer.ProducerID, producer.ProducerEpoch
	t := kmsg.NewAddPartitionsToTxnRequestTopic()
	t.Topic, t.Partitions = authority.DefaultAuditTopic, []int32{0}
	add.Topics = append(add.Topics, t)
	added, err := add.RequestWith(ctx, c.Client())
	if err == nil && len(added.Topics) == 1 && len(added.Topics[0].Partitions) == 1 {
		err = kerr.ErrorForCode(added.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return 0, err
	}
	before := time.Now()
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch = id, producer.ProducerID, producer.ProducerEpoch
	ended, err := end.RequestWith(ctx, c.Client())
	if err == nil {
		err = kerr.ErrorForCode(ended.ErrorCode)
	}
	if err != nil {
		return 0, err
	}
	return controlTime(ctx, c, producer.ProducerID, producer.ProducerEpoch, before)
}

// controlTime waits for the control record of a producer in the audit topic and says how
// far its time is ahead of the middle of the time it took. The partition goes on showing
// that of the run before, with a lower epoch, until the record is written.
func controlTime(ctx context.Context, c *cluster.Cluster, producer int64, epoch int16, before time.Time) (time.Duration, error) {
	for {
		req := kmsg.NewPtrDescribeProducersRequest()
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic, t.Partitions = authority.DefaultAuditTopic, []int32{0}
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, c.Client())
		if err != nil {
			return 0, err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return 0, err
				}
				for _, a := range p.ActiveProducers {
					if a.ProducerID == producer && a.ProducerEpoch >= int32(epoch) && a.LastTimestamp > 0 {
						middle := before.Add(time.Since(before) / 2)
						return time.UnixMilli(a.LastTimestamp).Sub(middle), nil
					}
				}
			}
		}
		if pause.For(ctx, 20*time.Millisecond) != nil {
			return 0, errors.New("the control record was not seen in time")
		}
	}
}
