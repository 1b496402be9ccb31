package workload_test

import (
	"testing"

	"replicator/internal/compare"
	"replicator/internal/workload"
)

// BenchmarkCompare reads and compares a million records a round, both sides on
// fakes in this process: the fakes' part is in the time.
func BenchmarkCompare(b *testing.B) {
	for _, codec := range []workload.Codec{workload.None, workload.LZ4} {
		b.Run(string(codec), func(b *testing.B) {
			const n = 1_000_000
			clusters := make([]compare.Cluster, 2)
			spec := workload.Spec{Topic: "orders", Kind: workload.Plain, Codec: codec, Records: n, Partitions: 8, ValueBytes: 100}
			spec.Start = day
			for i := range clusters {
				_, clusters[i] = fake(b)
				if _, err := workload.Write(b.Context(), clusters[i], spec); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for b.Loop() {
				r, err := compare.Topics(b.Context(), clusters[0], clusters[1], compare.Same("orders"), compare.Options{})
				if err != nil || r.Err() != nil || r.Total.Matched != n {
					b.Fatal(err, r)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
