package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/cluster"
)

// txn is a transactional producer with what is left of its open transaction.
type txn struct {
	client *kgo.Client
	open   bool
	left   int   // records still to write
	wrote  int64 // records in the open transaction
	rest   int   // steps it rests before it goes on: a transaction open for long
}

// transactions writes with four transactional producers and a plain one, in an
// order the seed decides. Transactions have 1 to 100 records; a quarter is
// aborted; one in eight stays open while the others go on. All are ended when
// it returns.
func (w *writer) transactions(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(w.spec.Seed, 0x7478))
	producers := make([]*txn, 4)
	for i := range producers {
		id := fmt.Sprintf("workload-%s-%d", w.spec.Topic, i)
		client, err := w.client(w.spec.Codec, kgo.TransactionalID(id), kgo.TransactionTimeout(time.Minute))
		if err != nil {
			return err
		}
		defer client.Close()
		producers[i] = &txn{client: client}
	}
	plain, err := w.client(w.spec.Codec)
	if err != nil {
		return err
	}
	defer plain.Close()

	open := 0
	for from := 0; from < w.spec.Records || open > 0; {
		if from < w.spec.Records && rng.IntN(10) == 0 {
			to := min(from+1+rng.IntN(10), w.spec.Records)
			if err := w.produce(ctx, plain, from, to); err != nil {
				return err
			}
			from = to
			continue
		}
		t := producers[rng.IntN(len(producers))]
		over := from == w.spec.Records
		if t.rest > 0 && !over {
			t.rest--
			continue
		}
		switch {
		case !t.open && over:
		case !t.open:
			if err := t.client.BeginTransaction(); err != nil {
				return fmt.Errorf("begin transaction: %w", err)
			}
			t.open, t.wrote, t.left = true, 0, 1+rng.IntN(100)
			open++
		case t.left > 0 && !over:
			before := w.result.Written
			to := min(from+1+rng.IntN(t.left), w.spec.Records)
			if err := w.produce(ctx, t.client, from, to); err != nil {
				return err
			}
			t.wrote += w.result.Written - before
			t.left -= to - from
			from = to
			if rng.IntN(8) == 0 {
				t.rest = 50
			}
		default:
			if err := w.end(ctx, t, rng.IntN(4) != 0); err != nil {
				return err
			}
			open--
		}
	}
	return nil
}

func (w *writer) end(ctx context.Context, t *txn, commit bool) error {
	if err := endTransaction(ctx, t.client, w.spec.Topic, commit && t.wrote > 0); err != nil {
		return err
	}
	t.open = false
	if t.wrote > 0 {
		w.result.Transactions++
	}
	if !commit {
		w.result.Aborted += t.wrote
	}
	return nil
}

// OpenTransaction is a transaction that a test leaves open for as long as it
// wants: the last stable offset of the partitions it wrote to stands still.
type OpenTransaction struct {
	client *kgo.Client
	topic  string
	done   bool
}

// Begin opens a transaction in an existing topic and writes n records of the
// Spec to it, in partitions by turn; First should be set so that sequence
// numbers are not used twice. The transaction must be ended.
func Begin(ctx context.Context, opts []kgo.Opt, spec Spec, n int) (*OpenTransaction, error) {
	s, err := spec.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("begin transaction in %s: %w", spec.Topic, err)
	}
	s.Kind, s.Records = Transactions, n
	w := &writer{opts: opts, maker: newMaker(s), result: &Result{Spec: s}}
	id := fmt.Sprintf("workload-open-%s-%d-%d", s.Topic, s.Seed, s.First)
	client, err := w.client(s.Codec, kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute))
	if err != nil {
		return nil, err
	}
	err = client.BeginTransaction()
	if err == nil {
		err = w.produce(ctx, client, 0, n)
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("begin transaction in %s: %w", s.Topic, err)
	}
	return &OpenTransaction{client: client, topic: s.Topic}, nil
}

// End commits or aborts. It may be called once.
func (o *OpenTransaction) End(ctx context.Context, commit bool) error {
	if o.done {
		return errors.New("end transaction: it has ended")
	}
	o.done = true
	defer o.client.Close()
	return endTransaction(ctx, o.client, o.topic, commit)
}

func endTransaction(ctx context.Context, client *kgo.Client, topic string, commit bool) error {
	if err := cluster.EndTransaction(ctx, client, kgo.TransactionEndTry(commit), topic); err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	return nil
}

// Abandon leaves the transaction open as a producer that died does; brokers
// abort it after ten minutes.
func (o *OpenTransaction) Abandon() {
	o.done = true
	o.client.Close()
}
