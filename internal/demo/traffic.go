package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// topic is what one producer writes.
type topic struct {
	name       string
	partitions int32
	about      string // for people
	rate       int    // records a second
	valueBytes int
	each       int // abort every each-th transaction; 0: no transactions
	opts       []kgo.Opt
	shape      func(r *kgo.Record, n int64) // what is particular about the n-th record
}

// topics are what the regions share. Between them they take every route through
// the replicator that healthy data takes.
var topics = []topic{
	{
		name: "orders", partitions: 4, about: "large lz4 batches", rate: 4000, valueBytes: 900,
		opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(100 * time.Millisecond), kgo.ProducerBatchMaxBytes(128 << 10)},
	},
	{
		name: "clicks", partitions: 3, about: "small records, few in a batch", rate: 800, valueBytes: 60,
		opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0)},
	},
	{
		name: "payments", partitions: 2, about: "transactions, every fourth aborted", rate: 600, valueBytes: 300, each: 4,
		opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.ProducerLinger(5 * time.Millisecond)},
	},
	{
		name: "audit", partitions: 2, about: "zstd; headers, null keys, empty and null values", rate: 1600, valueBytes: 500,
		opts:  []kgo.Opt{kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerLinger(100 * time.Millisecond), kgo.ProducerBatchMaxBytes(128 << 10)},
		shape: auditRecord,
	},
}

func partitions() (n int) {
	for _, t := range topics {
		n += int(t.partitions)
	}
	return n
}

func auditRecord(r *kgo.Record, n int64) {
	r.Headers = []kgo.RecordHeader{{Key: "trace", Value: fmt.Appendf(nil, "%016x", n)}, {Key: "trace", Value: nil}, {Key: "", Value: []byte{}}}
	switch n % 10 {
	case 3:
		r.Key = nil
	case 5:
		r.Value = nil // a tombstone
	case 7:
		r.Value = []byte{}
	}
}

// traffic is all producers, one for each topic.
type traffic struct {
	producers []*producer
	group     errgroup.Group
	end       context.CancelFunc // asks them to end
}

// producer writes one topic at a steady rate. What it counts is what the source
// acknowledged, and what must be on the target in the end.
type producer struct {
	topic
	client   *kgo.Client
	text     []byte
	written  atomic.Int64 // acknowledged, and committed where there are transactions
	aborted  atomic.Int64 // acknowledged in transactions that were then aborted
	failed   atomic.Pointer[error]
	sequence int64
}

// startTraffic starts the producers. One that fails ends the demo through fail.
func startTraffic(ctx context.Context, source []string, fail context.CancelCauseFunc) (*traffic, error) {
	t := &traffic{}
	text := filler()
	for _, tp := range topics {
		opts := append([]kgo.Opt{kgo.SeedBrokers(source...), kgo.DefaultProduceTopic(tp.name), kgo.ClientID("demo-producer"), kgo.MetadataMinAge(100 * time.Millisecond)}, tp.opts...)
		if tp.each > 0 {
			opts = append(opts, kgo.TransactionalID("demo-"+tp.name))
		}
		client, err := kgo.NewClient(opts...)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("make producer of %s: %w", tp.name, err)
		}
		t.producers = append(t.producers, &producer{topic: tp, client: client, text: text})
	}
	ctx, t.end = context.WithCancel(ctx)
	for _, p := range t.producers {
		t.group.Go(func() error {
			err := p.run(ctx)
			if err != nil {
				err = fmt.Errorf("produce %s: %w", p.name, err)
				fail(err)
			}
			return err
		})
	}
	return t, nil
}

// stop lets the producers end what they have begun and waits for it.
func (t *traffic) stop(ctx context.Context) error {
	t.end()
	if err := t.group.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (t *traffic) close() {
	if t.end != nil {
		t.end()
	}
	_ = t.group.Wait() // told through fail
	for _, p := range t.producers {
		p.client.Close()
	}
}

// visible is how many records a consumer that reads committed ones should find.
func (t *traffic) visible() (n int64) {
	for _, p := range t.producers {
		n += p.written.Load()
	}
	return n
}

func (t *traffic) aborted() (n int64) {
	for _, p := range t.producers {
		n += p.aborted.Load()
	}
	return n
}

// flushTime bounds waiting for the last acknowledgements.
const flushTime = 10 * time.Second

func (p *producer) run(ctx context.Context) error {
	if p.each > 0 {
		return p.transactions(ctx)
	}
	chunk := max(1, p.rate/100)
	pace := rate.NewLimiter(rate.Limit(p.rate), chunk)
	for pace.WaitN(ctx, chunk) == nil {
		for range chunk {
			p.produce(&p.written)
		}
		if err := p.failed.Load(); err != nil {
			return *err
		}
	}
	return p.flush(ctx)
}

// flush waits for acknowledgements, also when ctx has ended.
func (p *producer) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	if err := p.client.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	if err := p.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// transactions writes transactions of 10 to 60 records.
func (p *producer) transactions(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Limit(p.rate), 60)
	for n := 1; ; n++ {
		size := 10 + rand.IntN(51)
		if pace.WaitN(ctx, size) != nil {
			return nil //nolint:nilerr // the time to produce is over
		}
		if err := p.client.BeginTransaction(); err != nil {
			return fmt.Errorf("begin transaction: %w", err)
		}
		var acknowledged atomic.Int64
		for range size {
			p.produce(&acknowledged)
		}
		if err := p.flush(ctx); err != nil {
			return err
		}
		commit := n%p.each != 0
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		err := p.client.EndTransaction(ending, kgo.TransactionEndTry(commit))
		cancel()
		if err != nil {
			return fmt.Errorf("end transaction: %w", err)
		}
		if commit {
			p.written.Add(acknowledged.Load())
		} else {
			p.aborted.Add(acknowledged.Load())
		}
	}
}

// produce hands over the next record; count gets one when it is acknowledged.
func (p *producer) produce(count *atomic.Int64) {
	n := p.sequence
	p.sequence++
	r := &kgo.Record{Key: fmt.Appendf(nil, "%s-%d", p.name, n%5000), Value: p.value(n)}
	if p.shape != nil {
		p.shape(r, n)
	}
	p.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			p.failed.CompareAndSwap(nil, &err)
			return
		}
		count.Add(1)
	})
}

// value is unique: it begins with the record's number.
func (p *producer) value(n int64) []byte {
	v := make([]byte, 0, p.valueBytes+40)
	v = fmt.Appendf(v, `{"topic":%q,"number":%d,"text":"`, p.name, n)
	if room := p.valueBytes - len(v) - 2; room > 0 {
		at := int(uint64(n)*7919) % (len(p.text) - room)
		v = append(v, p.text[at:at+room]...)
	}
	return append(v, `"}`...)
}

// filler is text of 256 words, which codecs make smaller about as they do JSON.
func filler() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var words [256][]byte
	for i := range words {
		for range 4 + rng.IntN(6) {
			words[i] = append(words[i], "etaoinshrdlucmfw"[rng.IntN(16)])
		}
		words[i] = append(words[i], ' ')
	}
	out := make([]byte, 0, 1<<20)
	for len(out) < 1<<20-16 {
		out = append(out, words[rng.IntN(len(words))]...)
	}
	return out
}
