package wire

import (
	"runtime/debug"
	"testing"

	"replicator/internal/recorded"
)

// smallBatches are batches of ten records of 100 bytes, the worst there is to
// repack, about 1 MB of records in all.
func smallBatches(tb testing.TB, codec Codec) (entries [][]byte, bytes int) {
	for i := range 1000 {
		base := int64(i * 10)
		entries = append(entries, makeBatch(tb, srcBatch{codec: codec, base: base, lastDelta: -1}, plainRecords(base, 10, 100)))
		bytes += 1000
	}
	return entries, bytes
}

// Logs are repacked as they are read: merged where batches are small, without
// holes, in the codec of the source or another. A batch is one of the source's.
func BenchmarkPack(b *testing.B) {
	pack := func(name string, l recorded.Log, cfg PackConfig) {
		b.Run(name, func(b *testing.B) {
			cfg.Pool = NewPool(64 << 20)
			p := NewPacker(cfg)
			var entries [][]byte
			for _, e := range l.Batches() {
				if !Batch(e).IsControl() {
					entries = append(entries, e)
				}
			}
			out := repackOnce(b, p, entries, nil)
			m := recorded.Start(b, len(l.Records))
			for b.Loop() {
				out = repackOnce(b, p, entries, out[:0])
			}
			m.Report(b.N * len(entries))
		})
	}
	for _, codec := range recorded.Codecs {
		for _, shape := range []string{recorded.Small, recorded.Large} {
			l := recorded.Get(b, recorded.Named(shape, codec))
			pack(codec+"/"+shape, l.Until(256<<10), PackConfig{})
		}
	}
	zstd, none := Zstd, None
	lz4 := recorded.Get(b, recorded.Named(recorded.Large, "lz4"))
	pack("lz4-to-zstd/large", lz4, PackConfig{Codec: &zstd})
	pack("lz4-to-none/large", lz4, PackConfig{Codec: &none})
	pack("lz4/transactions", recorded.Get(b, recorded.Transactions), PackConfig{})
	pack("lz4/compacted", recorded.Get(b, recorded.Compacted), PackConfig{})
}

func repackOnce(tb testing.TB, p *Packer, entries [][]byte, out []Packed) []Packed {
	for _, e := range entries {
		if err := p.Add(e, 0); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := p.Finish(out)
	if err != nil {
		tb.Fatal(err)
	}
	release(out)
	return out
}

// In steady state a packed batch allocates its list of runs, and nothing else
// of note; records and entries nothing at all.
func TestRepackingAllocatesPerBatchAndNotPerRecord(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the libraries' pools keep what they have
	for _, codec := range allCodecs {
		t.Run(codec.String(), func(t *testing.T) {
			entries, _ := smallBatches(t, codec)
			p := NewPacker(PackConfig{Pool: NewPool(64 << 20)})
			out := repackOnce(t, p, entries, nil)
			out = repackOnce(t, p, entries, out[:0])
			allocs := testing.AllocsPerRun(5, func() { out = repackOnce(t, p, entries, out[:0]) })
			if allocs > float64(len(out)+1) {
				t.Errorf("%.0f allocations for %d batches of %d entries", allocs, len(out), len(entries))
			}
		})
	}
}

func TestForwardingAllocatesNothing(t *testing.T) {
	records := makeBatch(t, srcBatch{codec: LZ4, lastDelta: -1}, plainRecords(0, 64, 1000))
	var filter AbortedFilter
	filter.Reset([]AbortedTxn{{5, 1}, {6, 0}})
	allocs := testing.AllocsPerRun(100, func() {
		entry, _, err := Split(records)
		if err != nil || Batch(entry).Verify() != nil || filter.Aborted(entry) {
			t.Fatal("refused")
		}
		Batch(entry).Stamp(1, 2, 3)
	})
	if allocs != 0 {
		t.Errorf("%.0f allocations per batch", allocs)
	}
}
