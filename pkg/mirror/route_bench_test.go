package mirror

import (
	"testing"

	"replicator/internal/recorded"
	"replicator/pkg/wire"
)

// The records of one partition in an answer become items, checked and, where they
// have to be, repacked. Results are of a source batch, whatever its route. Every
// case says which routes its log takes, so that it cannot measure another one.
func BenchmarkRoute(b *testing.B) {
	defaults := Options{From: "east", To: "west"}.withDefaults()
	zstd := wire.Zstd
	get := func(name string) recorded.Log { return recorded.Get(b, name) }
	long := func(shape, codec string) recorded.Log {
		l := get(recorded.Named(shape, codec))
		return l.Until(256 << 10)
	}
	markers := recorded.Log{Name: "markers"}
	txns := get(recorded.Transactions)
	for _, batch := range txns.Batches() {
		if wire.Batch(batch).IsControl() {
			markers.Records = append(markers.Records, batch...)
		}
	}
	type routes [nRoutes]bool
	for _, c := range []struct {
		name  string
		log   recorded.Log
		codec *wire.Codec
		want  routes
	}{
		{"forward/large-none", long(recorded.Large, "none"), nil, routes{Forward: true}},
		{"forward/large-lz4", long(recorded.Large, "lz4"), nil, routes{Forward: true}},
		{"repack/small-none", long(recorded.Small, "none"), nil, routes{Repack: true}},
		{"repack/small-lz4", long(recorded.Small, "lz4"), nil, routes{Repack: true}},
		{"repack/small-zstd", long(recorded.Small, "zstd"), nil, routes{Repack: true}},
		{"repack/compacted", get(recorded.Compacted), nil, routes{Repack: true}},
		{"repack/large-lz4-to-zstd", get(recorded.Named(recorded.Large, "lz4")), &zstd, routes{Repack: true}},
		{"skip/markers", markers, nil, routes{Skip: true}},
		{"mixed/transactions", txns, nil, routes{Forward: true, Repack: true, Skip: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			pool := wire.NewPool(64 << 20)
			r := newRouter(pool, routing{readCommitted: true, smallBytes: defaults.SmallBatchBytes, packBytes: defaults.BatchBytes, maxDecoded: defaults.MaxDecodedBytes, codec: c.codec})
			frame := pool.Overdraw(len(c.log.Records))
			copy(frame.Bytes(), c.log.Records)
			var aborted []wire.AbortedTxn
			for _, a := range c.log.Aborted {
				aborted = append(aborted, wire.AbortedTxn{ProducerID: a.ProducerID, FirstOffset: a.FirstOffset})
			}
			first, batches := c.log.First(), len(c.log.Batches())
			var items []item
			route := func() {
				items, _ = r.route(items[:0], frame, frame.Bytes(), aborted, first, 1<<20, 0, nil)
				for i := range items {
					if items[i].frame != nil {
						items[i].frame.Release()
					}
				}
			}
			route()
			var took routes
			seen := 0
			for i := range items {
				took[items[i].route] = true
				seen += int(items[i].batches)
			}
			if took != c.want || seen != batches {
				b.Fatalf("routes taken %v, batches %d of %d", took, seen, batches)
			}
			m := recorded.Start(b, len(c.log.Records))
			for b.Loop() {
				route()
			}
			m.Report(b.N * batches)
			frame.Release()
			if n := pool.Used(); n != 0 {
				b.Errorf("%d bytes of frames are held", n)
			}
		})
	}
}
