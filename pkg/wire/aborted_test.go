package wire

import (
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func makeTxn(tb testing.TB, offset, producerID int64) []byte {
	return makeBatch(tb, srcBatch{base: offset, lastDelta: -1, attributes: attrTransactional, producerID: producerID},
		[]srcRecord{{Offset: offset, Timestamp: 1, Value: []byte("v")}})
}

func TestAbortedTransactionsAreFilteredUpToTheirMarker(t *testing.T) {
	plain := func(offset, producerID int64) []byte {
		return makeBatch(t, srcBatch{base: offset, lastDelta: -1, producerID: producerID}, []srcRecord{{Offset: offset}})
	}
	var f AbortedFilter
	// Unsorted; producer 1 aborts twice, its first transaction began below
	// what was fetched.
	f.Reset([]AbortedTxn{{1, 106}, {2, 103}, {1, 40}})
	for i, step := range []struct {
		batch []byte
		want  bool
	}{
		{makeTxn(t, 100, 1), true},
		{makeTxn(t, 101, 2), false},        // an earlier, committed transaction
		{makeControl(t, 102, 2, 1), false}, // its commit
		{makeTxn(t, 103, 2), true},
		{plain(104, 1), false}, // not transactional
		{makeControl(t, 105, 1, 0), false},
		{makeTxn(t, 106, 1), true}, // again
		{makeControl(t, 107, 2, 0), false},
		{makeTxn(t, 108, 2), false}, // committed later
		{makeControl(t, 109, 1, 0), false},
		{makeTxn(t, 110, 1), false},
	} {
		if got := f.Aborted(step.batch); got != step.want {
			t.Errorf("batch %d at offset %d: aborted %t", i, Batch(step.batch).BaseOffset(), got)
		}
	}
	f.Reset([]AbortedTxn{{9, 1}})
	f.Aborted(makeTxn(t, 5, 9))
	f.Reset(nil)
	if f.Aborted(makeTxn(t, 6, 9)) {
		t.Error("a transaction of the answer before is still filtered")
	}
}

// A random log of interleaved transactions, read from a random offset, is
// filtered as a read_committed kgo consumer does it.
func TestAbortedFilterAgreesWithKgo(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		type open struct{ first int64 }
		var (
			batches [][]byte
			txns    = map[int64]open{}
			aborted []struct{ id, first, last int64 }
		)
		for offset := range int64(60) {
			id := int64(rng.IntN(4))
			txn, isOpen := txns[id]
			switch {
			case isOpen && rng.IntN(3) == 0:
				kind := uint16(rng.IntN(2))
				batches = append(batches, makeControl(t, offset, id, kind))
				if kind == 0 {
					aborted = append(aborted, struct{ id, first, last int64 }{id, txn.first, offset})
				}
				delete(txns, id)
			default:
				if !isOpen {
					txns[id] = open{offset}
				}
				batches = append(batches, makeTxn(t, offset, id))
			}
		}
		from := int64(rng.IntN(50))
		var (
			f    AbortedFilter
			list []AbortedTxn
			rp   kmsg.FetchResponseTopicPartition
			want = map[int64]bool{}
			got  = map[int64]bool{}
		)
		for _, a := range aborted {
			if a.last >= from {
				list = append(list, AbortedTxn{a.id, a.first})
				rp.AbortedTransactions = append(rp.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: a.id, FirstOffset: a.first})
			}
		}
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		f.Reset(list)
		for _, b := range batches[from:] {
			rp.RecordBatches = append(rp.RecordBatches, b...)
			if !f.Aborted(b) && !Batch(b).IsControl() {
				got[Batch(b).BaseOffset()] = true
			}
		}
		fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: from, IsolationLevel: kgo.ReadCommitted()}, &rp, kgo.DefaultDecompressor(), nil)
		for _, r := range fp.Records {
			want[r.Offset] = true
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d records, kgo reads %d", seed, len(got), len(want))
		}
		for offset := range want {
			if !got[offset] {
				t.Fatalf("seed %d: record at %d is missing", seed, offset)
			}
		}
	}
}
