package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

const (
	openTime       = 30 * time.Second // one batch of openings, all steps
	barrierTime    = 10 * time.Second // until our control record is seen
	epochsAtOnce   = 200              // lanes taking their epoch at the same time
	endTime        = 5 * time.Second  // EndTxn
	transactionTTL = 60 * time.Second // between AddPartitionsToTxn and EndTxn
	journalTime    = 10 * time.Second
)

// opener has what the steps of an opening need: the target and the journal on it,
// nothing of the source. A link opens its lanes with it, and so do the commands
// that fence a link or prepare one. One mechanism, so that what one of them has
// fenced, all others see.
type opener struct {
	opts     Options
	filter   topicFilter
	target   *cluster.Cluster
	journal  *offsets.Journal
	openPool *wire.Pool // frames of openings, so that they never wait for data
	log      *zap.Logger
	instance string
}

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
	leaderEpoch  int32   // of the target partition's leader, -1 unknown; only where no link has the lane
	serial       uint32  // of the connection the lane will append on
	barrierID    int64   // producer id whose first barrier stands, -1 none
	barrierAt    instant // since when
	restart      bool    // topics that were made again are copied anew
	later        bool    // its partition was made after the link began
	follow       int64   // see lane

	// fromEnd begins to read where the partition ended before the epoch was taken,
	// instead of where the journal says: nothing is wanted but our control record.
	fromEnd   bool
	listedEnd int64 // that end, next
	governed  bool  // its pair has an authority record

	gap *offsets.Gap // journalled with the epoch record; nil: none

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

// takeOver takes the lanes' epochs and waits for the control records that fence
// whoever held them before.
func (op *opener) takeOver(ctx context.Context, batch []*opening) {
	conns := &brokerConns{target: op.target, conns: map[int32]*brokerConn{}}
	defer conns.close()
	op.leadersThere(ctx, conns, batch)
	op.takeEpochs(ctx, conns, alive(batch))
	op.readBarriers(ctx, alive(batch))
}

// syncJournal reads the journal to its end. The lanes' control records have been
// seen: nothing an earlier holder sends is accepted any more, so what the journal
// holds now is all it will ever hold of it.
func (op *opener) syncJournal(ctx context.Context, batch []*opening) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	if err := op.journal.Sync(ctx, keys(batch)); err != nil {
		failAll(batch, fmt.Errorf("read journal: %w", err))
	}
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

// errNotWritten is how an opening ends whose epoch record is not acknowledged in time.
var errNotWritten = errors.New("write epoch record: no answer in time")

// writeEpochs journals the openings. A lane may append only after that.
func (op *opener) writeEpochs(ctx context.Context, batch []*opening) {
	type written struct {
		index int
		err   error
	}
	answers := make(chan written, len(batch)) // room for all: nobody waits for answers once ctx has ended
	for i, o := range batch {
		r := &o.recovered
		var entries []offsets.Entry
		if o.gap != nil { // before the epoch record, without which it counts for nothing
			entries = append(entries, *o.gap)
		}
		entries = append(entries, offsets.EpochRecord{
			Lane: o.key, Writer: o.writer, Generation: o.idGeneration, Ordinal: r.ordinal, Source: r.source, Target: o.target,
			SourceTopicID: o.sourceID, TargetTopicID: o.targetID, SourceLeaderEpoch: r.sourceEpoch, Digest: op.digest(), Time: time.Now(), Instance: op.instance,
		})
		for _, s := range r.shifts {
			entries = append(entries, s)
		}
		if r.cut != nil {
			entries = append(entries, *r.cut)
		}
		op.journal.Append(func(err error) { answers <- written{i, err} }, entries...)
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
func (op *opener) digest() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "read_uncommitted=%v", op.opts.ReadUncommitted)
	return h.Sum64()
}

// brokerConns are the connections of one opener, one a broker.
type brokerConns struct {
	target *cluster.Cluster
	mu     sync.Mutex
	conns  map[int32]*brokerConn
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
		c.conn, c.err = b.target.Connect(ctx, broker)
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

func compareLanes(a, b offsets.Lane) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}
