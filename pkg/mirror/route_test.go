package mirror

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/wire"
)

// batchSpec says what a source batch looks like.
type batchSpec struct {
	base          int64
	deltas        []int64 // offset deltas of its records
	last          int64   // offset delta of the last offset; 0: of the last record
	size          int     // of each value
	transactional bool
	control       bool
	appendTime    bool
	producer      int64
}

func dense(base int64, n, size int) batchSpec {
	s := batchSpec{base: base, size: size, producer: -1}
	for i := range n {
		s.deltas = append(s.deltas, int64(i))
	}
	return s
}

func (s batchSpec) bytes() []byte {
	var records []byte
	for _, d := range s.deltas {
		r := kmsg.Record{OffsetDelta: int32(d), TimestampDelta64: d, Key: fmt.Append(nil, "key-", s.base+d), Value: bytes.Repeat([]byte{'v'}, s.size)}
		if s.control {
			r.Key, r.Value = []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0, 0, 0}
		}
		body := r.AppendTo(nil)
		// The length a record begins with is of what follows it.
		_, n := binary.Varint(body)
		r.Length = int32(len(body) - n)
		records = r.AppendTo(records)
	}
	last := s.last
	if n := len(s.deltas); last == 0 && n > 0 {
		last = s.deltas[n-1]
	}
	b := kmsg.RecordBatch{
		FirstOffset: s.base, PartitionLeaderEpoch: 7, Magic: 2, LastOffsetDelta: int32(last), FirstTimestamp: 1000, MaxTimestamp: 1000 + last,
		ProducerID: s.producer, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(s.deltas)), Records: records,
	}
	if s.appendTime {
		b.Attributes |= 1 << 3
	}
	if s.transactional {
		b.Attributes |= 1 << 4
	}
	if s.control {
		b.Attributes |= 1 << 5
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

// told is an item in words: route, reason, source offsets, records.
func told(items []item, next int64) string {
	var b strings.Builder
	for _, it := range items {
		fmt.Fprintf(&b, "%s %s", it.route, it.reason)
		if it.data != nil {
			runs := it.runs
			if runs == nil {
				runs = []wire.Run{{Source: it.first, Count: it.records}}
			}
			for _, r := range runs {
				fmt.Fprintf(&b, " %d+%d", r.Source, r.Count)
			}
		}
		fmt.Fprintf(&b, " next %d\n", it.next)
	}
	fmt.Fprintf(&b, "fetch %d", next)
	return b.String()
}

func TestRoutes(t *testing.T) {
	const big = 20000 // a value that makes a batch too large to be merged
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	marker := func(at, producer int64) batchSpec {
		return batchSpec{base: at, deltas: []int64{0}, control: true, transactional: true, producer: producer}
	}
	txn := func(base, producer int64) batchSpec {
		s := dense(base, 2, big)
		s.transactional, s.producer = true, producer
		return s
	}
	holes := batchSpec{base: 100, deltas: []int64{0, 1, 4, 6}, last: 8, size: big, producer: -1}
	stamped := dense(100, 2, big)
	stamped.appendTime = true
	empty := batchSpec{base: 100, last: 5, producer: 3}

	tests := []struct {
		name    string
		log     [][]byte
		aborted []wire.AbortedTxn
		from    int64
		limit   int
		split   int64
		want    string
	}{
		{"a dense batch is forwarded", [][]byte{dense(100, 3, big).bytes()}, nil, 100, 0, 0, "forward dense 100+3 next 103\nfetch 103"},
		{"small batches become one", [][]byte{dense(100, 2, 10).bytes(), dense(102, 3, 10).bytes()}, nil, 100, 0, 0, "repack small 100+5 next 105\nfetch 105"},
		{"a small batch alone is forwarded", [][]byte{dense(100, 2, 10).bytes()}, nil, 100, 0, 0, "forward dense 100+2 next 102\nfetch 102"},
		{"small ones before a large one", [][]byte{dense(100, 1, 10).bytes(), dense(101, 1, 10).bytes(), dense(102, 2, big).bytes()}, nil, 100, 0, 0, "repack small 100+2 next 102\nforward dense 102+2 next 104\nfetch 104"},
		{"holes are packed dense and mapped", [][]byte{holes.bytes()}, nil, 100, 0, 0, "repack hole 100+2 104+1 106+1 next 109\nfetch 109"},
		{"append time goes into each record", [][]byte{stamped.bytes()}, nil, 100, 0, 0, "repack append_time 100+2 next 102\nfetch 102"},
		{"the position lies inside a batch", [][]byte{dense(100, 5, big).bytes()}, nil, 103, 0, 0, "repack partial 103+2 next 105\nfetch 105"},
		{"a batch below the position", [][]byte{dense(90, 5, big).bytes(), dense(95, 5, big).bytes()}, nil, 95, 0, 0, "forward dense 95+5 next 100\nfetch 100"},
		{"too large for the target", [][]byte{dense(100, 4, big).bytes()}, nil, 100, 45000, 0, "repack too_large 100+2 next 102\nrepack too_large 102+2 next 104\nfetch 104"},
		{"one record too large", [][]byte{dense(100, 1, 10).bytes(), dense(101, 1, big).bytes()}, nil, 100, 1000, 0, "repack small 100+1 next 101\nrefuse too_large next 101\nfetch 102"},
		{"split into single records", [][]byte{dense(100, 3, 10).bytes(), dense(103, 2, big).bytes()}, nil, 100, 0, 103, "repack too_large 100+1 next 101\nrepack too_large 101+1 next 102\nrepack too_large 102+1 next 103\nforward dense 103+2 next 105\nfetch 105"},
		{"committed transaction", [][]byte{txn(100, 5).bytes(), marker(102, 5).bytes()}, nil, 100, 0, 0, "forward dense 100+2 next 102\nskip marker next 103\nfetch 103"},
		{
			"aborted and committed transactions interleaved, the list unsorted",
			[][]byte{txn(100, 5).bytes(), txn(102, 6).bytes(), txn(104, 7).bytes(), marker(106, 6).bytes(), txn(107, 6).bytes(), marker(109, 5).bytes()},
			[]wire.AbortedTxn{{ProducerID: 6, FirstOffset: 102}, {ProducerID: 5, FirstOffset: 50}},
			100, 0, 0,
			"skip aborted next 102\nskip aborted next 104\nforward dense 104+2 next 106\nskip marker next 107\nforward dense 107+2 next 109\nskip marker next 110\nfetch 110",
		},
		{"compaction left no record", [][]byte{empty.bytes()}, nil, 100, 0, 0, "skip empty next 106\nfetch 106"},
		{"a flipped bit", [][]byte{dense(100, 2, big).bytes(), flip(dense(102, 2, big).bytes())}, nil, 100, 0, 0, "forward dense 100+2 next 102\nrefuse corrupt next 102\nfetch 102"},
		{"cut off at the end", [][]byte{dense(100, 2, big).bytes(), dense(102, 2, big).bytes()[:500]}, nil, 100, 0, 0, "forward dense 100+2 next 102\nfetch 102"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pool := wire.NewPool(8 << 20)
			r := newRouter(pool, routing{readCommitted: true, smallBytes: 16 << 10, packBytes: 256 << 10, maxDecoded: 1 << 20})
			frame := pool.Overdraw(len(bytes.Join(tt.log, nil)))
			copy(frame.Bytes(), bytes.Join(tt.log, nil))
			items, next := r.route(nil, frame, frame.Bytes(), tt.aborted, tt.from, tt.limit, tt.split, nil)
			if got := told(items, next); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
			for i := range items {
				if d := items[i].data; d != nil {
					wire.Batch(d).Stamp(1, 0, 0)
					if err := wire.Batch(d).Verify(); err != nil {
						t.Errorf("item %d does not verify: %v", i, err)
					}
				}
			}
			frame.Release()
			releaseItems(items)
			if pool.Used() != 0 {
				t.Errorf("%d bytes of frames are still held", pool.Used())
			}
		})
	}
}

// A record that was copied must still be the source's: else its log was cut and
// grew again.
func TestRouteComparesTheLastRecord(t *testing.T) {
	pool := wire.NewPool(8 << 20)
	r := newRouter(pool, routing{smallBytes: 16 << 10, packBytes: 256 << 10, maxDecoded: 1 << 20})
	log := dense(100, 5, 20000).bytes()
	digest, ok, err := r.packer.Digest(wire.Batch(log), 102)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, tt := range []struct {
		digest uint64
		want   string
	}{{digest, "repack partial 103+2 next 105\nfetch 105"}, {digest + 1, "refuse corrupt next 102\nfetch 103"}} {
		frame := pool.Overdraw(len(log))
		copy(frame.Bytes(), log)
		items, next := r.route(nil, frame, frame.Bytes(), nil, 103, 0, 0, &recordCheck{source: 102, digest: tt.digest})
		if got := told(items, next); got != tt.want {
			t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
		}
		releaseItems(items)
		frame.Release()
	}
}
