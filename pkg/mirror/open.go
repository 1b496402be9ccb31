package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

const (
	openTime       = 30 * time.Second // one batch of openings, all steps
	barrierTime    = 10 * time.Second // until our control record is seen
	epochsAtOnce   = 200              // lanes taking their epoch at the same time
	transactionTTL = 60 * time.Second // between AddPartitionsToTxn and EndTxn
	journalTime    = 10 * time.Second
)

// opening is one lane on its way through the steps of an opener: take the epoch,
// fence, read, go on. See DESIGN.md, "One writer per lane". The opener owns it
// until it is handed back to the loop.
type opening struct {
	lane         *lane // the loop's; not touched here
	key          offsets.Lane
	targetTopic  string
	targetID     [16]byte
	sourceID     [16]byte
	targetBroker int32
	serial       uint32  // of the connection the lane will append on
	barrierID    int64   // producer id whose first barrier stands, -1 none
	barrierAt    instant // since when
	restart      bool    // topics that were made again are copied anew
	later        bool    // its partition was made after the link began
	follow       int64   // see lane

	transactionalID string
	idGeneration    int32
	writer          offsets.Writer
	epochAt         instant // sending of InitProducerId
	fencedAt        instant // when our control record was seen
	log             targetLog
	known           map[int64]bool // producer ids of the lane
	first           bool           // no epoch record was known when reading began
	target          int64          // offset of the first append
	recovered       recovered
	quiet           bool
	check           *recordCheck
	events          []Event
	err             error
}

// secondBarrierError says that the producer id is not the one of the last epoch
// record (the transactional id had expired): our control record does not stop
// its holder, so the lease has to be waited out and the epoch taken once more.
type secondBarrierError struct {
	producerID int64
	at         instant
}

func (e *secondBarrierError) Error() string {
	return fmt.Sprintf("producer id changed to %d: waiting out the lease of the old one before the epoch is taken again", e.producerID)
}

// haltError stops the lane for a person to look at.
type haltError struct{ reason string }

func (e *haltError) Error() string { return e.reason }

func haltf(format string, args ...any) error { return &haltError{fmt.Sprintf(format, args...)} }

// startOpener opens a batch of lanes in the background. Each step is taken for
// all lanes before the next, a lane that fails drops out.
func (l *Link) startOpener(batch []*opening) {
	l.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		l.open(ctx, batch)
		l.inbox.post(func() {
			l.openers--
			l.openingDone(batch)
		})
	})
}

func (l *Link) open(ctx context.Context, batch []*opening) {
	conns := &brokerConns{link: l, conns: map[int32]*brokerConn{}}
	defer conns.close()

	l.leadersThere(ctx, conns, batch)
	l.takeEpochs(ctx, conns, alive(batch))
	l.readBarriers(ctx, alive(batch))
	// Our control records have been seen: nothing an earlier holder sends is
	// accepted any more, so what the journal holds now is all it will ever hold of it.
	if lanes := keys(alive(batch)); len(lanes) > 0 {
		syncing, cancel := context.WithTimeout(ctx, journalTime)
		if err := l.journal.Sync(syncing, lanes); err != nil {
			failAll(alive(batch), fmt.Errorf("read journal: %w", err))
		}
		cancel()
	}
	for _, o := range alive(batch) {
		o.err = l.recover(o)
	}
	l.firstPositions(ctx, alive(batch))
	l.writeEpochs(ctx, alive(batch))
}

func alive(batch []*opening) []*opening {
	out := make([]*opening, 0, len(batch))
	for _, o := range batch {
		if o.err == nil {
			out = append(out, o)
		}
	}
	return out
}

func keys(batch []*opening) []offsets.Lane {
	out := make([]offsets.Lane, len(batch))
	for i, o := range batch {
		out[i] = o.key
	}
	return out
}

func failAll(batch []*opening, err error) {
	for _, o := range batch {
		o.err = err
	}
}

// takeEpochs has every lane's coordinator hand out the next epoch and write its
// control record into the target partition. Coordinators that are not there yet,
// or moved, are looked for again.
func (l *Link) takeEpochs(ctx context.Context, conns *brokerConns, batch []*opening) {
	ctx, cancel := context.WithTimeout(ctx, barrierTime)
	defer cancel()
	for _, o := range batch {
		o.idGeneration = l.journal.State(o.key).Generation()
		o.transactionalID = l.opts.transactionalID(o.key.Topic, o.key.Partition, o.idGeneration)
	}
	left := batch
	for try := 0; len(left) > 0; try++ {
		coordinators, err := l.findCoordinators(ctx, left)
		if err != nil {
			failAll(left, fmt.Errorf("find transaction coordinators: %w", l.authorized(err)))
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
					err = l.takeEpoch(ctx, conn, o)
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
		if len(left) > 0 && !sleep(ctx, backoff(try, 50*time.Millisecond, time.Second)) {
			return
		}
	}
}

// coordinator is where a transactional id is looked after.
type coordinator struct {
	broker int32
	err    error
}

func (l *Link) findCoordinators(ctx context.Context, batch []*opening) (map[string]coordinator, error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType = 1
	for _, o := range batch {
		req.CoordinatorKeys = append(req.CoordinatorKeys, o.transactionalID)
	}
	resp, err := req.RequestWith(ctx, l.target.Client())
	if err != nil {
		return nil, err
	}
	out := make(map[string]coordinator, len(batch))
	for _, o := range batch {
		out[o.transactionalID] = coordinator{err: errors.New("find transaction coordinator: missing in the answer")}
	}
	for _, c := range resp.Coordinators {
		if err := kerr.ErrorForCode(c.ErrorCode); err != nil {
			out[c.Key] = coordinator{err: fmt.Errorf("find transaction coordinator: %w", l.authorized(err))}
		} else {
			out[c.Key] = coordinator{broker: c.NodeID}
		}
	}
	return out, nil
}

// authorized explains a missing right on our transactional ids.
func (l *Link) authorized(err error) error {
	return right(err, "WRITE", fmt.Sprintf("transactional ids with the prefix replicator.%s.%s.", l.opts.From, l.opts.To), l.opts.To)
}

// takeEpoch takes the lane's next epoch and the barrier: InitProducerId, then
// AddPartitionsToTxn and EndTxn (abort) in version 3, which neither raise the
// epoch nor go through the partition leader first.
func (l *Link) takeEpoch(ctx context.Context, conn *wire.Conn, o *opening) error {
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID = &o.transactionalID
	init.TransactionTimeoutMillis = int32(transactionTTL.Milliseconds())
	init.ProducerID, init.ProducerEpoch = -1, -1
	err := l.untilSettled(ctx, "init producer id", func() (int16, error) {
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
			if top, ok := l.journal.State(o.key).MaxEpoch(r.ProducerID); r.ErrorCode != 0 || !ok || top < r.ProducerEpoch {
				return r.ErrorCode, nil
			}
		}
	})
	if err != nil {
		return err
	}
	err = l.untilSettled(ctx, "add partition to barrier", func() (int16, error) {
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
		return l.targetRight(err, "WRITE", o.targetTopic)
	}
	return l.untilSettled(ctx, "end barrier", func() (int16, error) {
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
func (l *Link) untilSettled(ctx context.Context, what string, ask func() (int16, error)) error {
	for try := 0; ; try++ {
		code, err := ask()
		if err == nil {
			if err = kerr.ErrorForCode(code); err == nil {
				return nil
			}
		}
		settling := errors.Is(err, kerr.ConcurrentTransactions) || errors.Is(err, kerr.CoordinatorLoadInProgress)
		if !settling || !sleep(ctx, backoff(try, 10*time.Millisecond, 300*time.Millisecond)) {
			if !errors.Is(err, kerr.TopicAuthorizationFailed) { // the caller knows the topic
				err = l.authorized(err)
			}
			return fmt.Errorf("%s of %s: %w", what, l.opts.To, err)
		}
	}
}

// firstPositions decides where lanes begin that nobody has opened before, and
// those of a topic that was made again: the latter always at its start.
func (l *Link) firstPositions(ctx context.Context, batch []*opening) {
	var start, end []*opening
	for _, o := range batch {
		switch {
		case o.recovered.source >= 0:
		case o.recovered.first && l.opts.StartLatest && !o.later:
			end = append(end, o)
		default:
			start = append(start, o)
		}
	}
	l.positionsFrom(ctx, l.source.Admin().ListStartOffsets, start)
	l.positionsFrom(ctx, l.source.Admin().ListEndOffsets, end)
}

func (l *Link) positionsFrom(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), batch []*opening) {
	var topics []string
	seen := map[string]bool{}
	for _, o := range batch {
		if !seen[o.key.Topic] {
			seen[o.key.Topic] = true
			topics = append(topics, o.key.Topic)
		}
	}
	if len(topics) == 0 {
		return
	}
	listed, failed := listEach(ctx, list, topics)
	for _, o := range batch {
		at, ok := listed.Lookup(o.key.Topic, o.key.Partition)
		switch err := failed[o.key.Topic]; {
		case err != nil:
			o.err = fmt.Errorf("list offsets of source: %w", l.sourceRight(err, "READ", o.key.Topic))
		case !ok:
			o.err = errors.New("list offsets of source: partition missing in the answer")
		case at.Err != nil:
			o.err = fmt.Errorf("list offsets of source: %w", at.Err)
		default:
			o.recovered.source = at.Offset
		}
	}
}

// errNotWritten is how an opening ends whose epoch record is not acknowledged in time.
var errNotWritten = errors.New("write epoch record: no answer in time")

// writeEpochs journals the openings. A lane may append only after that.
func (l *Link) writeEpochs(ctx context.Context, batch []*opening) {
	type written struct {
		index int
		err   error
	}
	answers := make(chan written, len(batch)) // room for all: nobody waits for answers once ctx has ended
	for i, o := range batch {
		r := &o.recovered
		entries := []offsets.Entry{offsets.EpochRecord{
			Lane: o.key, Writer: o.writer, Generation: o.idGeneration, Ordinal: r.ordinal, Source: r.source, Target: o.target,
			SourceTopicID: o.sourceID, TargetTopicID: o.targetID, SourceLeaderEpoch: r.sourceEpoch, Digest: l.digest(), Time: time.Now(), Instance: l.instance,
		}}
		for _, s := range r.shifts {
			entries = append(entries, s)
		}
		if r.cut != nil {
			entries = append(entries, *r.cut)
		}
		l.journal.Append(func(err error) { answers <- written{i, err} }, entries...)
		o.err = errNotWritten
	}
	for range batch {
		select {
		case w := <-answers:
			if batch[w.index].err = w.err; w.err != nil {
				batch[w.index].err = fmt.Errorf("write epoch record: %w", w.err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// digest tells apart settings that change which records are copied.
func (l *Link) digest() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "read_uncommitted=%v", l.opts.ReadUncommitted)
	return h.Sum64()
}

// brokerConns are the connections of one opener, one a broker.
type brokerConns struct {
	link  *Link
	mu    sync.Mutex
	conns map[int32]*brokerConn
}

type brokerConn struct {
	made chan struct{} // closed when conn or err is there
	conn *wire.Conn
	err  error
}

func (b *brokerConns) get(ctx context.Context, broker int32) (*wire.Conn, error) {
	b.mu.Lock()
	c := b.conns[broker]
	if c == nil {
		c = &brokerConn{made: make(chan struct{})}
		b.conns[broker] = c
		b.mu.Unlock()
		c.conn, c.err = b.link.target.Connect(ctx, broker)
		close(c.made)
		return c.conn, c.err
	}
	b.mu.Unlock()
	<-c.made // whoever connects has the same context
	return c.conn, c.err
}

func (b *brokerConns) close() {
	for _, c := range b.conns {
		if c.conn != nil {
			c.conn.Close()
		}
	}
}
