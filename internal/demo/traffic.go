package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"replicator/internal/pause"
)

// topic is what one producer writes.
type topic struct {
	name       string
	partitions int32
	about      string // for people
	rate       int    // records a second
	valueBytes int
	opts       []kgo.Opt
	shape      func(r *kgo.Record, n int64) // what is particular about the n-th record
}

// topics are what the regions share. There are no transactions among them: kfake, killed
// within one, aborts it without a control record, and consumers then pass over later ones.
var topics = []topic{
	{
		name: "orders", partitions: 4, about: "large lz4 batches", rate: 1600, valueBytes: 900,
		opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(100 * time.Millisecond), kgo.ProducerBatchMaxBytes(128 << 10)},
	},
	{
		name: "clicks", partitions: 3, about: "small records, few in a batch", rate: 500, valueBytes: 60,
		opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0)},
	},
	{
		name: "payments", partitions: 2, about: "small snappy batches", rate: 400, valueBytes: 300,
		opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.ProducerLinger(5 * time.Millisecond)},
	},
	{
		name: "audit", partitions: 2, about: "zstd; headers, null keys, empty and null values", rate: 800, valueBytes: 500,
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

func topicNames() (names []string) {
	for _, t := range topics {
		names = append(names, t.name)
	}
	return names
}

func topicIndex(name string) int {
	for i, t := range topics {
		if t.name == name {
			return i
		}
	}
	return -1
}

const numberHeader = "number" // where a record's value may be empty

func auditRecord(r *kgo.Record, n int64) {
	r.Headers = []kgo.RecordHeader{{Key: numberHeader, Value: strconv.AppendInt(nil, n, 10)}, {Key: "trace", Value: fmt.Appendf(nil, "%016x", n)}, {Key: "trace", Value: nil}, {Key: "", Value: []byte{}}}
	switch n % 10 {
	case 3:
		r.Key = nil
	case 5:
		r.Value = nil // a tombstone
	case 7:
		r.Value = []byte{}
	}
}

// nameOf reads which record it is from what it holds; false: none of the producers'.
func nameOf(r *kgo.Record) (key, bool) {
	k := key{topic: topicIndex(r.Topic)}
	for _, h := range r.Headers {
		if h.Key == numberHeader {
			n, err := strconv.ParseInt(string(h.Value), 10, 64)
			k.number = n
			return k, err == nil
		}
	}
	var value struct {
		Topic  string `json:"topic"`
		Number *int64 `json:"number"`
	}
	if json.Unmarshal(r.Value, &value) != nil || value.Number == nil || value.Topic != r.Topic {
		return k, false
	}
	k.number = *value.Number
	return k, true
}

// producer writes one topic at a steady rate, to the region it is told to. A record
// without an answer is written again where it works next, as applications do.
type producer struct {
	topic
	index  int
	ledger *ledger
	text   []byte

	mu      sync.Mutex
	pending []int64 // handed over without an answer, to be written again
}

const (
	maxBuffered = 2000                    // records a producer holds while its region does not answer
	leaveTime   = 1500 * time.Millisecond // for the last answers of a region that is left
)

// work writes to one region until it ends.
func (p *producer) work(until context.Context, region string, addrs []string) error {
	opts := append([]kgo.Opt{kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic(p.name), kgo.ClientID("demo-producer"), kgo.MetadataMinAge(100 * time.Millisecond)}, p.opts...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("make producer of %s: %w", p.name, err)
	}
	defer client.Close() // what has no answer then is pending
	err = p.records(until, client, region)
	// Another client takes over after an error, unless the work is over anyway.
	if err != nil && until.Err() == nil {
		_ = pause.For(until, 100*time.Millisecond)
	}
	return nil
}

func (p *producer) records(until context.Context, client *kgo.Client, region string) error {
	chunk := max(1, p.rate/100)
	pace := rate.NewLimiter(rate.Limit(p.rate), chunk)
	var broken atomic.Bool
	for pace.WaitN(until, chunk) == nil {
		if broken.Load() { // a client may need to be made anew
			return errors.New("records were refused")
		}
		if client.BufferedProduceRecords() > maxBuffered {
			continue
		}
		for range chunk {
			p.produce(client, p.take(), func(k key, at position, err error) {
				if err != nil {
					broken.Store(true)
					p.again(k.number)
					return
				}
				p.ledger.ack(k, region, at)
			})
		}
	}
	ctx, cancel := grace(until, leaveTime)
	defer cancel()
	return client.Flush(ctx)
}

// take is the next record to write: one without an answer first.
func (p *producer) take() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) == 0 {
		return p.ledger.next(p.index)
	}
	n := p.pending[0]
	p.pending = p.pending[1:]
	return n
}

func (p *producer) again(n int64) {
	p.ledger.doubt(key{p.index, n})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = append(p.pending, n)
}

// produce hands a record over.
func (p *producer) produce(client *kgo.Client, n int64, done func(key, position, error)) {
	r := &kgo.Record{Key: fmt.Appendf(nil, "%s-%d", p.name, n%5000), Value: p.value(n)}
	if p.shape != nil {
		p.shape(r, n)
	}
	client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		done(key{p.index, n}, position{r.Partition, r.Offset}, err)
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
