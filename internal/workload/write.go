package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/pause"
)

// Result is what was written.
type Result struct {
	Spec         Spec  // with its defaults filled in
	Written      int64 // records the brokers acknowledged
	Aborted      int64 // of them, those in aborted transactions
	Transactions int64 // ended, both ways
	Holes        int64 // offsets of a compacted topic that hold no record any more
	Bytes        int64 // of keys and values written
	Notes        []string
}

// Visible is how many records a read_committed consumer sees.
func (r Result) Visible() int64 { return r.Written - r.Aborted - r.Holes }

// Write creates the topic, if it does not exist, and writes the records. The
// options say how to reach the cluster.
func Write(ctx context.Context, opts []kgo.Opt, spec Spec) (Result, error) {
	s, err := spec.withDefaults()
	if err == nil {
		err = create(ctx, opts, s)
	}
	result := Result{Spec: s}
	if err == nil {
		w := &writer{opts: opts, maker: newMaker(s), result: &result}
		err = w.write(ctx)
	}
	if err != nil {
		return result, fmt.Errorf("write workload %s to %s: %w", s.Kind, s.Topic, err)
	}
	return result, nil
}

func create(ctx context.Context, opts []kgo.Opt, s Spec) error {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.ClientID("workload")}, opts...)...)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	admin := kadm.NewClient(client)
	defer client.Close()
	resp, err := admin.CreateTopic(ctx, s.Partitions, s.ReplicationFactor, s.settings(), s.Topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create topic: %w %s", err, resp.ErrMessage)
	}
	// The answer comes before the brokers know the partitions.
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		topics, err := admin.ListTopics(ctx, s.Topic)
		if err != nil {
			return fmt.Errorf("wait for leaders: %w", err)
		}
		led := 0
		for _, p := range topics[s.Topic].Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		if led == int(s.Partitions) {
			return nil
		}
		if err := pause.For(ctx, wait); err != nil {
			return fmt.Errorf("wait for leaders: %d of %d partitions: %w", led, s.Partitions, err)
		}
	}
}

type writer struct {
	*maker
	opts   []kgo.Opt
	result *Result
}

func (w *writer) write(ctx context.Context) error {
	s := w.spec
	switch s.Kind {
	case Empty:
		return nil
	case Tiny:
		return w.byHand(ctx, 1)
	case Ten:
		return w.byHand(ctx, 10)
	case LogAppendTime:
		return w.byHand(ctx, max(1, s.BatchBytes/s.ValueBytes))
	case OldMessages:
		return w.oldMessages(ctx)
	case MixedCodec:
		return w.mixed(ctx)
	case Transactions:
		return w.transactions(ctx)
	case Compacted:
		return w.compacted(ctx)
	case PlainProducer:
		// One request at a time keeps the order without sequence numbers.
		return w.byClient(ctx, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	case Large:
		return w.byClient(ctx, kgo.ProducerBatchMaxBytes(int32(max(4<<20, 2*s.ValueBytes))), kgo.MaxBufferedBytes(64<<20))
	default:
		return w.byClient(ctx)
	}
}

// client makes a kgo producer for the Spec.
func (w *writer) client(codec Codec, more ...kgo.Opt) (*kgo.Client, error) {
	opts := append([]kgo.Opt{kgo.ClientID("workload")}, w.opts...)
	opts = append(opts, codec.producerOpts()...)
	opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond), kgo.ProducerBatchMaxBytes(int32(w.spec.BatchBytes)),
		kgo.MetadataMinAge(50*time.Millisecond)) // a topic just made is not known everywhere at once
	client, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("make producer: %w", err)
	}
	return client, nil
}

// byClient writes all records through kgo.
func (w *writer) byClient(ctx context.Context, more ...kgo.Opt) error {
	client, err := w.client(w.spec.Codec, more...)
	if err != nil {
		return err
	}
	defer client.Close()
	return w.produce(ctx, client, 0, w.spec.Records)
}

// produce writes the records [from, to) and waits until all are acknowledged.
func (w *writer) produce(ctx context.Context, client *kgo.Client, from, to int) error {
	var mu sync.Mutex
	var failed error
	for n := from; n < to && ctx.Err() == nil; n++ {
		client.Produce(ctx, w.record(n), func(r *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = fmt.Errorf("produce to partition %d: %w", r.Partition, err)
			} else if err == nil {
				w.wrote(r)
			}
		})
	}
	err := client.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(failed, err, ctx.Err())
}

func (w *writer) wrote(r *kgo.Record) {
	w.result.Written++
	w.result.Bytes += int64(len(r.Key) + len(r.Value))
}

// byHand writes batches of n records each.
func (w *writer) byHand(ctx context.Context, n int) error {
	s, err := newSender(ctx, w.opts, w.spec.Topic, 12, true)
	if err != nil {
		return err
	}
	defer s.close()
	stamped := true
	for from := 0; from < w.spec.Records; {
		round := w.round(&from, n)
		batches := make(map[int32][]byte, len(round))
		for p, records := range round {
			if batches[p], err = encodeBatch(records, w.spec.Codec, 0, s.by, s.sequence(p, len(records))); err != nil {
				return err
			}
		}
		appended, err := s.send(ctx, batches)
		if err != nil {
			return err
		}
		stamped = stamped && appended >= 0
		w.wroteRound(round)
	}
	if w.spec.Kind == LogAppendTime && !stamped {
		w.result.Notes = append(w.result.Notes, "the cluster does not stamp records: they keep the producer's time")
	}
	return nil
}

// round takes the next n records of every partition, and moves from.
func (w *writer) round(from *int, n int) map[int32][]*kgo.Record {
	out := make(map[int32][]*kgo.Record, w.spec.Partitions)
	for to := min(*from+n*int(w.spec.Partitions), w.spec.Records); *from < to; *from++ {
		r := w.record(*from)
		out[r.Partition] = append(out[r.Partition], r)
	}
	return out
}

func (w *writer) wroteRound(round map[int32][]*kgo.Record) {
	for _, records := range round {
		for _, r := range records {
			w.wrote(r)
		}
	}
}

// mixed lets producers of different codecs take turns.
func (w *writer) mixed(ctx context.Context) error {
	var clients []*kgo.Client
	for _, c := range Codecs() {
		client, err := w.client(c)
		if err != nil {
			return err
		}
		defer client.Close()
		clients = append(clients, client)
	}
	turn := max(1, min(200, w.spec.Records/(2*len(clients))))
	for from, i := 0, 0; from < w.spec.Records; from, i = from+turn, i+1 {
		if err := w.produce(ctx, clients[i%len(clients)], from, min(from+turn, w.spec.Records)); err != nil {
			return err
		}
	}
	return nil
}

// oldMessages writes message sets, with the produce version that carries them.
func (w *writer) oldMessages(ctx context.Context) error {
	s, err := newSender(ctx, w.opts, w.spec.Topic, int16(w.spec.Magic)+1, false)
	if err != nil {
		return err
	}
	defer s.close()
	for from := 0; from < w.spec.Records; {
		round := w.round(&from, max(1, w.spec.BatchBytes/w.spec.ValueBytes))
		batches := make(map[int32][]byte, len(round))
		for p, records := range round {
			if batches[p], err = encodeMessages(records, w.spec.Codec, w.spec.Magic); err != nil {
				return err
			}
		}
		if _, err := s.send(ctx, batches); err != nil {
			return err
		}
		w.wroteRound(round)
	}
	return nil
}
