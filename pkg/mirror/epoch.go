package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"replicator/internal/pause"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// takeEpochs has every lane's coordinator hand out the next epoch and write its
// control record into the target partition. Coordinators that are not there yet,
// or moved, are looked for again.
func (op *opener) takeEpochs(ctx context.Context, conns *brokerConns, batch []*opening) {
	ctx, cancel := context.WithTimeout(ctx, barrierTime)
	defer cancel()
	for _, o := range batch {
		o.idGeneration = op.journal.State(o.key).Generation()
		o.transactionalID = op.opts.transactionalID(o.key.Topic, o.key.Partition, o.idGeneration)
	}
	left := batch
	for try := 0; len(left) > 0; try++ {
		coordinators, err := op.findCoordinators(ctx, left)
		if err != nil {
			failAll(left, fmt.Errorf("find transaction coordinators: %w", op.authorized(err)))
			return
		}
		var g errgroup.Group
		g.SetLimit(epochsAtOnce)
		for _, o := range left {
			at := coordinators[o.transactionalID]
			if o.err = at.err; o.err != nil {
				continue
			}
			g.Go(func() error {
				conn, err := conns.get(ctx, at.broker)
				if err == nil {
					err = op.takeEpoch(ctx, conn, o)
				}
				o.err = err
				return nil
			})
		}
		_ = g.Wait() // each opening keeps its own error
		var again []*opening
		for _, o := range left {
			if errors.Is(o.err, kerr.CoordinatorNotAvailable) || errors.Is(o.err, kerr.NotCoordinator) {
				again = append(again, o)
			}
		}
		left = again
		if len(left) > 0 && pause.For(ctx, backoff(try, 50*time.Millisecond, time.Second)) != nil {
			return
		}
	}
}

// coordinator is where a transactional id is looked after.
type coordinator struct {
	broker int32
	err    error
}

func (op *opener) findCoordinators(ctx context.Context, batch []*opening) (map[string]coordinator, error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType = 1
	for _, o := range batch {
		req.CoordinatorKeys = append(req.CoordinatorKeys, o.transactionalID)
	}
	resp, err := req.RequestWith(ctx, op.target.Client())
	if err != nil {
		return nil, err
	}
	out := make(map[string]coordinator, len(batch))
	for _, o := range batch {
		out[o.transactionalID] = coordinator{err: errors.New("find transaction coordinator: missing in the answer")}
	}
	for _, c := range resp.Coordinators {
		if err := kerr.ErrorForCode(c.ErrorCode); err != nil {
			out[c.Key] = coordinator{err: fmt.Errorf("find transaction coordinator: %w", op.authorized(err))}
		} else {
			out[c.Key] = coordinator{broker: c.NodeID}
		}
	}
	return out, nil
}

// authorized explains a missing right on our transactional ids.
func (op *opener) authorized(err error) error {
	return right(err, "WRITE", fmt.Sprintf("transactional ids with the prefix replicator.%s.%s.", op.opts.From, op.opts.To), op.opts.To)
}

// takeEpoch takes the lane's next epoch and the barrier: InitProducerId, then
// AddPartitionsToTxn and EndTxn (abort) in version 3, which neither raise the
// epoch nor go through the partition leader first.
func (op *opener) takeEpoch(ctx context.Context, conn *wire.Conn, o *opening) error {
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID = &o.transactionalID
	init.TransactionTimeoutMillis = int32(transactionTTL.Milliseconds())
	init.ProducerID, init.ProducerEpoch = -1, -1
	err := op.untilSettled(ctx, "init producer id", func() (int16, error) {
		for {
			o.epochAt = now()
			resp, err := conn.Request(ctx, wire.Pin(init, 4))
			if err != nil {
				return 0, err
			}
			r := resp.(*kmsg.InitProducerIDResponse)
			o.writer = offsets.Writer{ProducerID: r.ProducerID, Epoch: r.ProducerEpoch}
			// A coordinator that lost its log hands out epochs that were in use: on to
			// the first that was not.
			if top, ok := op.journal.State(o.key).MaxEpoch(r.ProducerID); r.ErrorCode != 0 || !ok || top < r.ProducerEpoch {
				return r.ErrorCode, nil
			}
		}
	})
	if err != nil {
		return err
	}
	err = op.untilSettled(ctx, "add partition to barrier", func() (int16, error) {
		add := kmsg.NewPtrAddPartitionsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch = o.transactionalID, o.writer.ProducerID, o.writer.Epoch
		t := kmsg.NewAddPartitionsToTxnRequestTopic()
		t.Topic, t.Partitions = o.targetTopic, []int32{o.key.Partition}
		add.Topics = append(add.Topics, t)
		resp, err := conn.Request(ctx, wire.Pin(add, 3))
		if err != nil {
			return 0, err
		}
		r := resp.(*kmsg.AddPartitionsToTxnResponse)
		if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
			return 0, fmt.Errorf("answer holds %d topics", len(r.Topics))
		}
		return r.Topics[0].Partitions[0].ErrorCode, nil
	})
	if err != nil {
		return op.targetRight(err, "WRITE", o.targetTopic)
	}
	// What has been begun is ended even when we are asked to stop: an open transaction
	// holds back consumers of the target until it times out.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	return op.untilSettled(ctx, "end barrier", func() (int16, error) {
		end := kmsg.NewPtrEndTxnRequest()
		end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = o.transactionalID, o.writer.ProducerID, o.writer.Epoch, false
		resp, err := conn.Request(ctx, wire.Pin(end, 3))
		if err != nil {
			return 0, err
		}
		return resp.(*kmsg.EndTxnResponse).ErrorCode, nil
	})
}

// untilSettled repeats a request of the coordinator while its answer says that
// something before it is still under way.
func (op *opener) untilSettled(ctx context.Context, what string, ask func() (int16, error)) error {
	for try := 0; ; try++ {
		code, err := ask()
		if err == nil {
			if err = kerr.ErrorForCode(code); err == nil {
				return nil
			}
		}
		settling := errors.Is(err, kerr.ConcurrentTransactions) || errors.Is(err, kerr.CoordinatorLoadInProgress)
		if !settling || pause.For(ctx, backoff(try, 10*time.Millisecond, 300*time.Millisecond)) != nil {
			if !errors.Is(err, kerr.TopicAuthorizationFailed) { // the caller knows the topic
				err = op.authorized(err)
			}
			return fmt.Errorf("%s of %s: %w", what, op.opts.To, err)
		}
	}
}
