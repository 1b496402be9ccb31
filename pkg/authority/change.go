package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/cluster"
)

const (
	// transactionTime is how long a transaction may stay open after its changer
	// died; brokers look for such ones every ten seconds. Others of this topic's
	// readers see nothing written behind it until then, another changer ends it at
	// once.
	transactionTime = 10 * time.Second
	// writeTime is how long one write may take, and the reading before it: writers may be
	// kept off meanwhile.
	writeTime = 15 * time.Second
	// provingTime is how long it may take to find out whether it was written: until
	// the brokers have ended a transaction left open.
	provingTime = 2*transactionTime + 10*time.Second
	// maxValue bounds an audit event, in bytes: brokers take batches of a MiB.
	maxValue = 900 << 10
)

// ErrTooLarge is the error of an audit event that no broker would take.
var ErrTooLarge = errors.New("event is too large")

// Changer has the exclusive right to change one copy of a pair's authority, until
// somebody else takes it. After an error that left a write in doubt it can do
// nothing more: take the right again. Its methods may be called from many
// goroutines, one works at a time.
type Changer struct {
	cfg    Config
	client *kgo.Client

	mu   sync.Mutex
	copy *copyReader
	now  State
	over error // why it can write nothing more
}

// Change takes the right, which ends the one of any other changer, and then reads
// the copy. Missing topics are created. Close gives the connections back; the right
// needs no giving back.
func Change(ctx context.Context, cfg Config) (*Changer, error) {
	cfg = cfg.withDefaults()
	alias := cfg.Cluster.Alias()
	if err := ensure(ctx, cfg, cfg.Topic, authoritySettings); err != nil {
		return nil, err
	}
	if err := ensure(ctx, cfg, cfg.AuditTopic, auditSettings); err != nil {
		return nil, err
	}
	client, err := cfg.Cluster.NewClient(
		kgo.TransactionalID(cfg.transactionalID()),
		kgo.TransactionTimeout(transactionTime),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		return nil, err
	}
	if _, _, err := client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("take the right to change authority of %s on cluster %s: %w", cfg.Pair, alias, cfg.right(err))
	}
	c := &Changer{cfg: cfg, client: client, copy: newCopyReader(cfg, cfg.Cluster.Client())}
	if err := c.read(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return c, nil
}

// right adds to a refused authorization of a write what has to be granted.
func (cfg Config) right(err error) error {
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return right(err, "WRITE and DESCRIBE", "transactional id "+cfg.transactionalID(), cfg.Cluster.Alias())
	}
	return err
}

func (c *Changer) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := c.copy.sync(ctx); err != nil {
		return err
	}
	s, err := c.copy.state()
	if err != nil {
		return err
	}
	c.now = s
	return nil
}

// State is what the copy said when it was last read, and what this changer wrote.
func (c *Changer) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Close ends the connections.
func (c *Changer) Close() { c.client.Close() }

// SetOption changes what Set accepts.
type SetOption func(*setOptions)

type setOptions struct{ gap bool }

// AllowGap accepts any higher epoch, to bring a copy forward that two regions gave
// the same epoch, or whose records are lost.
func AllowGap() SetOption { return func(o *setOptions) { o.gap = true } }

// Set writes the record of the next epoch. The pair is filled in, and the time if
// there is none. An *EpochError says that the epoch is not the next one, a
// *FencedError that another changer took over, an *UnknownError that it may have
// been written; every other error that it was not.
func (c *Changer) Set(ctx context.Context, r Record, opts ...SetOption) error {
	var o setOptions
	for _, opt := range opts {
		opt(&o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(ctx); err != nil { // somebody may have written by hand
		return err
	}
	current, _ := c.now.Current()
	if r.Epoch <= current.Epoch || r.Epoch != current.Epoch+1 && !o.gap {
		return &EpochError{Pair: c.cfg.Pair, Cluster: c.cfg.Cluster.Alias(), Want: r.Epoch, Current: current.Epoch, Region: current.Region, WrittenBy: current.By}
	}
	r.Pair = c.cfg.Pair.String()
	if r.Since.IsZero() {
		r.Since = time.Now()
	}
	r.Since = r.Since.UTC()
	return c.writeRecords(ctx, []Record{r})
}

// Copy brings a stale copy up to date with the records of the other one, all or
// none. A *SplitError says that the two gave an epoch to different regions.
func (c *Changer) Copy(ctx context.Context, records []Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(ctx); err != nil {
		return err
	}
	d := Compare(c.now, State{Records: records})
	switch d.Relation {
	case Split:
		have, got := byEpoch(c.now.Records), byEpoch(records)
		return &SplitError{Pair: c.cfg.Pair, Cluster: c.cfg.Cluster.Alias(), Have: have[d.Epoch], Got: got[d.Epoch]}
	case StaleA:
		return c.writeRecords(ctx, d.Missing)
	case Equal, StaleB:
	}
	return nil
}

func (c *Changer) writeRecords(ctx context.Context, records []Record) error {
	if err := c.mayChange(); err != nil {
		return fmt.Errorf("set authority of %s: %w", c.cfg.Pair, err)
	}
	out := make([]*kgo.Record, 0, len(records))
	for _, r := range records {
		if err := checkRecord(c.cfg.Pair, r, r.Epoch); err != nil {
			return fmt.Errorf("set authority of %s: %w", c.cfg.Pair, err)
		}
		value, err := encodeRecord(r)
		if err != nil {
			return fmt.Errorf("set authority of %s: %w", c.cfg.Pair, err)
		}
		out = append(out, kgo.KeySliceRecord([]byte(recordKey(c.cfg.Pair, r.Epoch)), value))
	}
	if err := c.write(ctx, c.cfg.Topic, out...); err != nil {
		return err
	}
	if err := c.reread(ctx); err != nil { // it stands: who took it for not written would undo a cutover that counts
		c.over = &UnknownError{c.cfg.Pair, c.cfg.Cluster.Alias(), err}
		return c.over
	}
	return nil
}

// mayChange is nil for who has the right to change the authority.
func (c *Changer) mayChange() error {
	if c.cfg.Role != "" {
		return fmt.Errorf("the role %s gives no right to", c.cfg.Role)
	}
	return nil
}

// Ready writes that a link was prepared under the present epoch. The copy has to be
// the one on the link's target.
func (c *Changer) Ready(ctx context.Context, r Ready) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(ctx); err != nil {
		return err
	}
	current, _ := c.now.Current()
	switch direction := Direction(r.From, r.To); {
	case c.mayChange() != nil:
		return fmt.Errorf("set link %s ready: %w", direction, c.mayChange())
	case c.cfg.Pair.Other(r.From) != r.To || r.To == "":
		return fmt.Errorf("set link %s ready: it is none of pair %s", direction, c.cfg.Pair)
	case r.Epoch < 1 || r.Epoch != current.Epoch || r.From != current.Region:
		return fmt.Errorf("set link %s ready under epoch %d: %w", direction, r.Epoch,
			&EpochError{Pair: c.cfg.Pair, Cluster: c.cfg.Cluster.Alias(), Want: r.Epoch, Current: current.Epoch, Region: current.Region, WrittenBy: current.By})
	}
	if r.Since.IsZero() {
		r.Since = time.Now()
	}
	r.Since = r.Since.UTC()
	value, err := encodeReady(r)
	if err != nil {
		return fmt.Errorf("set link %s ready: %w", Direction(r.From, r.To), err)
	}
	if err := c.write(ctx, c.cfg.Topic, kgo.KeySliceRecord([]byte(readyKey(c.cfg.Pair, r.From, r.To)), value)); err != nil {
		return err
	}
	return c.reread(ctx)
}

// Put writes a fact. Data nil takes it away.
func (c *Changer) Put(ctx context.Context, name, run string, data any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write fact %s: %w", name, err)
	}
	value, err := encodeFact(Fact{Name: name, Run: run, Since: time.Now().UTC(), Data: raw})
	if err != nil {
		return fmt.Errorf("write fact %s: %w", name, err)
	}
	if len(value) > maxValue {
		return fmt.Errorf("write fact %s: %w: %d bytes, at most %d", name, ErrTooLarge, len(value), maxValue)
	}
	if err := c.write(ctx, c.cfg.Topic, kgo.KeySliceRecord([]byte(factKey(c.cfg.Pair, name)), value)); err != nil {
		return err
	}
	return c.reread(ctx)
}

// Audit appends an event of a run to the audit topic, under the same right.
func (c *Changer) Audit(ctx context.Context, run string, value []byte) error {
	if len(value) > maxValue {
		return fmt.Errorf("write audit event of run %s: %w: %d bytes, at most %d", run, ErrTooLarge, len(value), maxValue)
	}
	if run == "" || len(value) == 0 {
		return errors.New("write audit event: it has no run or no content")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rec := kgo.KeySliceRecord([]byte(run), value)
	rec.Headers = []kgo.RecordHeader{{Key: pairHeader, Value: []byte(c.cfg.Pair.String())}}
	return c.write(ctx, c.cfg.AuditTopic, rec)
}

// AuditEnd is an offset of the audit topic that every event written from now on stands
// at or behind.
func (c *Changer) AuditEnd(ctx context.Context) (int64, error) {
	l := &log{c.cfg.Cluster.Client(), c.cfg.Cluster.Alias(), c.cfg.AuditTopic}
	end := int64(0)
	err := insist(ctx, func() error {
		at, err := l.locate(ctx)
		if err == nil {
			end, err = l.list(ctx, at, atEnd)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read end of topic %s of cluster %s: %w", c.cfg.AuditTopic, c.cfg.Cluster.Alias(), err)
	}
	return end, nil
}

// reread takes in what was just written. That it was written is known already.
func (c *Changer) reread(ctx context.Context) error {
	if err := c.read(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("read back what was written: %w", err)
	}
	return nil
}

// write writes records in a transaction of their own, and returns when every
// reader sees them.
func (c *Changer) write(ctx context.Context, topic string, records ...*kgo.Record) error {
	if c.over != nil {
		return c.over
	}
	if ctx.Err() != nil { // nothing is begun, so nothing is in doubt
		return fmt.Errorf("write to topic %s of cluster %s: %w", topic, c.cfg.Cluster.Alias(), context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	for _, r := range records {
		r.Topic = topic
	}
	err := c.client.BeginTransaction()
	if err == nil {
		err = c.client.ProduceSync(ctx, records...).FirstErr()
	}
	if err != nil {
		c.abort(err)
		return c.failed(topic, err)
	}
	committed := cluster.EndTransaction(ctx, c.client, kgo.TryCommit, topic)
	if committed != nil {
		c.abort(committed) // which undoes nothing if the commit came through
	}
	proof, stop := context.WithTimeout(context.WithoutCancel(ctx), provingTime)
	defer stop()
	l := &log{c.cfg.Cluster.Client(), c.cfg.Cluster.Alias(), topic}
	written, err := l.holds(proof, records[len(records)-1])
	switch {
	case err != nil:
		c.over = &UnknownError{c.cfg.Pair, c.cfg.Cluster.Alias(), errors.Join(committed, err)}
		return c.over
	case written && committed == nil:
		return nil
	case written: // the answer was lost, the commit was not
		_ = c.failed(topic, committed)
		return nil
	case committed == nil:
		committed = errors.New("the transaction was committed and its records are not there")
	}
	return c.failed(topic, committed)
}

// failed ends the changer after a write of which it is known that it was not done.
func (c *Changer) failed(topic string, err error) error {
	if fenced(err) {
		c.over = &FencedError{c.cfg.Pair, c.cfg.Cluster.Alias(), c.cfg.Role, err}
		return c.over
	}
	if errors.Is(err, kerr.InvalidTimestamp) {
		err = fmt.Errorf("%w; the clocks of this machine and of that cluster are too far apart, set them right (NTP)", err)
	}
	err = c.cfg.right(right(err, "WRITE", "topic "+topic, c.cfg.Cluster.Alias()))
	c.over = fmt.Errorf("write to topic %s of cluster %s: nothing was written: %w", topic, c.cfg.Cluster.Alias(), err)
	return c.over
}

// abort ends a transaction after an error, so that readers need not wait for its
// time-out. It is no matter if that fails. One that was fenced was ended by who
// fenced it.
func (c *Changer) abort(because error) {
	if fenced(because) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), transactionTime)
	defer cancel()
	_ = c.client.AbortBufferedRecords(ctx)
	_ = c.client.EndTransaction(ctx, kgo.TryAbort)
}

// holds waits until the transaction of a record is over, and tells whether the
// record is one of the log.
func (l *log) holds(ctx context.Context, record *kgo.Record) (bool, error) {
	found := false
	err := insist(ctx, func() error {
		at, err := l.locate(ctx)
		if err != nil {
			return err
		}
		end, err := l.list(ctx, at, atEnd)
		if err != nil {
			return err
		}
		if end <= record.Offset {
			return fmt.Errorf("offset %d of topic %s is not stable yet: %w", record.Offset, l.topic, kerr.OffsetNotAvailable)
		}
		got, err := l.fetch(ctx, at, record.Offset, pollWait)
		if err != nil {
			return err
		}
		found = len(got.records) > 0 && got.records[0].Offset == record.Offset && bytes.Equal(got.records[0].Key, record.Key)
		return nil
	})
	return found, err
}
