package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/wire"
)

// leadersThere asks the leaders of the lanes' target partitions whether they
// have them; a lane whose leader has not fails and is tried again.
//
// A cluster names the leader of a new partition at once, but a broker that makes
// a thousand logs, or loads them after a start, needs seconds until it leads. A
// coordinator that is told to write our control record there meanwhile has an
// open transaction on its hands until its broker-to-broker request has worked,
// or has timed out after 30 s (request.timeout.ms of brokers): a broker of one
// replica leaves such a request unanswered when one of its partitions is
// missing. All that time the lane's next epoch is refused.
func (op *opener) leadersThere(ctx context.Context, conns *brokerConns, batch []*opening) {
	byBroker := map[int32][]*opening{}
	for _, o := range batch {
		byBroker[o.targetBroker] = append(byBroker[o.targetBroker], o)
	}
	var wg sync.WaitGroup
	for broker, some := range byBroker {
		wg.Go(func() {
			conn, err := conns.get(ctx, broker)
			if err == nil {
				err = op.leaderHas(ctx, conn, some)
			}
			if err != nil {
				failAll(some, fmt.Errorf("ask leaders of target partitions: %w", err))
			}
		})
	}
	wg.Wait()
}

// errNotLed is how an opening ends whose target partition the named leader does
// not lead (yet).
var errNotLed = errors.New("target broker does not lead the partition yet")

func (op *opener) leaderHas(ctx context.Context, conn *wire.Conn, batch []*opening) error {
	req := newEndsRequest()
	of := map[partitionKey]*opening{}
	for _, o := range batch {
		of[partitionKey{o.targetTopic, o.key.Partition}] = o
		req.add(o.targetTopic, o.key.Partition)
	}
	resp, err := conn.Request(ctx, req.ListOffsetsRequest)
	if err != nil {
		return err
	}
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			o := of[partitionKey{t.Topic, p.Partition}]
			if o == nil {
				continue
			}
			o.listedEnd = p.Offset
			// What is not about the leader, a missing right, is told better by the step it stops.
			if err := kerr.ErrorForCode(p.ErrorCode); kerr.IsRetriable(err) {
				o.err = fmt.Errorf("%w: %w", errNotLed, err)
			} else if o.fromEnd && err != nil {
				o.err = fmt.Errorf("ask where the target partition ends: %w", op.targetRight(err, "DESCRIBE", o.targetTopic))
			}
		}
	}
	return nil
}
