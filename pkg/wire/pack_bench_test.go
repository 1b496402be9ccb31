package wire

import (
	"fmt"
	"runtime/debug"
	"testing"
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

func BenchmarkPack(b *testing.B) {
	for _, codec := range allCodecs {
		small, smallBytes := smallBatches(b, codec)
		var large [][]byte
		largeBytes := 0
		for i := range 16 {
			base := int64(i * 64)
			large = append(large, makeBatch(b, srcBatch{codec: codec, base: base, lastDelta: -1}, plainRecords(base, 64, 1000)))
			largeBytes += 64 * 1000
		}
		for _, c := range []struct {
			name    string
			entries [][]byte
			bytes   int
		}{{"10x100B", small, smallBytes}, {"64x1000B", large, largeBytes}} {
			b.Run(fmt.Sprintf("%s/%s", codec, c.name), func(b *testing.B) {
				p := NewPacker(PackConfig{Pool: NewPool(64 << 20)})
				var out []Packed
				b.SetBytes(int64(c.bytes))
				b.ReportAllocs()
				batches := 0
				for b.Loop() {
					out = repackOnce(b, p, c.entries, out[:0])
					batches += len(out)
				}
				b.ReportMetric(float64(batches)/float64(b.N), "batches/op")
			})
		}
	}
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
