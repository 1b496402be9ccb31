package bench

import (
	"cmp"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// What a thousand groups of a hundred partitions each cost a daemon.
//
//	BENCH=1 go test ./bench -run ManyGroups -v -timeout 15m
func TestManyGroups(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("a benchmark: set BENCH=1")
	}
	groups, partitions := setting("BENCH_GROUPS", 1000), int32(setting("BENCH_PARTITIONS", 100))
	pair := kafkatest.StartPair(t, kafkatest.Config{FullJIT: true, Heap: "1g"}, kafkatest.Config{FullJIT: true, Heap: "1g"})
	spec := workload.Spec{Topic: "bench", Kind: workload.Plain, Partitions: partitions, Records: int(partitions) * 1000, ValueBytes: 100}
	if _, err := workload.Write(t.Context(), pair.Source.ClientOpts(), spec); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, pair, built(t), "east", "ours", "interval: 5s, follow: "+cmp.Or(os.Getenv("BENCH_FOLLOW"), "tail"))
	time.Sleep(10 * time.Second) // all is copied
	cpu0, rss0 := usage(t, d.pid())
	name := func(g int) string { return fmt.Sprintf("group-%04d", g) }
	commit := func(at int64, from, to int32) {
		var work errgroup.Group
		work.SetLimit(8)
		for g := range groups {
			work.Go(func() error {
				o := kadm.Offsets{}
				for p := from; p < to; p++ {
					o.AddOffset("bench", p, at, -1)
				}
				return pair.Source.Admin().CommitAllOffsets(t.Context(), name(g), o)
			})
		}
		if err := work.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	commit(100, 0, partitions)
	t.Logf("%d groups committed %d partitions in %v", groups, partitions, time.Since(began).Round(time.Millisecond))
	names := make([]string, groups)
	for g := range names {
		names[g] = name(g)
	}
	for placed := 0; placed < groups*int(partitions); {
		if time.Since(began) > 5*time.Minute {
			t.Fatalf("%d placed after %v", placed, time.Since(began))
		}
		time.Sleep(500 * time.Millisecond) // between two looks, bounded above
		placed = 0
		for _, f := range pair.Target.Admin().FetchManyOffsets(t.Context(), names...) {
			f.Fetched.Each(func(o kadm.OffsetResponse) {
				if o.At >= 0 {
					placed++
				}
			})
		}
	}
	cpu1, rss1 := usage(t, d.pid())
	t.Logf("all placed %v after the first commit; CPU %v; peak RSS %d MiB, before the groups %d MiB", time.Since(began).Round(time.Millisecond), cpu1-cpu0, rss1>>20, rss0>>20)
	const during = 20 * time.Second
	time.Sleep(during) // nothing happens: what does that cost?
	cpu2, _ := usage(t, d.pid())
	t.Logf("nothing committed: %.2f %% of a core", 100*(cpu2-cpu1).Seconds()/during.Seconds())
	began = time.Now()
	rounds := 0
	for ; time.Since(began) < during; rounds++ {
		commit(101+int64(rounds), int32(rounds%10)*partitions/10, int32(rounds%10+1)*partitions/10)
		time.Sleep(max(0, time.Duration(rounds+1)*5*time.Second-time.Since(began))) // a rate
	}
	took := time.Since(began)
	cpu3, rss3 := usage(t, d.pid())
	t.Logf("a tenth of the partitions committed every 5 s, %d offsets a second: %.1f %% of a core, peak RSS %d MiB",
		int(float64(rounds*groups*int(partitions)/10)/took.Seconds()), 100*(cpu3-cpu2).Seconds()/took.Seconds(), rss3>>20)
}
