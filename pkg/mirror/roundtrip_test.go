package mirror_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/testlog"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// A pair switches over four times, with records written on both sides. Each time the link of the other
// direction is prepared from the inverse of what this one has copied since, and copies only what is new; in
// the end each side's journal finds every record of the other.
func TestFourSwitchoversKeepEveryRecord(t *testing.T) {
	t.Parallel()
	regions := map[string]*kfake.Cluster{
		"east": fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders")),
		"west": fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(2, "orders")),
	}
	from, to := "east", "west"
	written, stranded := 0, map[string]int{} // records: in order, and those that were never copied
	write := func(region string, n int) {
		produce(t, regions[region].ListenAddrs(), "orders", 2, written, n)
		written += n
	}
	target := func(region string) mirror.PrepareConfig {
		return mirror.PrepareConfig{Target: open(t, region, regions[region].ListenAddrs(), wire.NewPool(1<<20)), Log: testlog.New(t)}
	}
	options := func(from, to string) mirror.Options {
		return mirror.Options{From: from, To: to, Topics: []string{"orders"}, AppendToExisting: true}
	}
	for trip := range 4 {
		write(from, 200)
		pool := wire.NewPool(32 << 20)
		a := newAuthority(mirror.Permission{Append: true, Epoch: int64(trip)})
		l, err := mirror.New(mirror.Config{
			Options: options(from, to), Source: open(t, from, regions[from].ListenAddrs(), pool), Target: open(t, to, regions[to].ListenAddrs(), pool),
			Pool: pool, Log: testlog.New(t), Instance: "test", Authority: a,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		write(from, 100)
		waitUntil(t, func() bool {
			s, _ := l.Status(t.Context())
			return s.LagRecords != nil && *s.LagRecords == 0 && len(s.Lanes) == 2
		})
		consume(t, regions[to].ListenAddrs(), "orders", written-stranded[from])
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c := target(to)
		fencing, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		fenced, err := mirror.Fence(fencing, mirror.FenceConfig{Options: options(from, to), Target: c.Target, Log: c.Log, Instance: fmt.Sprint("run ", trip)})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		write(to, 40)
		if trip == 1 { // the old side goes on: nobody copies these
			write(from, 30)
			stranded[from] += 30
		}
		here := journalOf(t, to, regions[to], from, to)
		there := journalOf(t, from, regions[from], to, from)
		c = target(from)
		c.Options, c.Run = options(to, from), fmt.Sprint("run ", trip)
		for _, ln := range fenced.Lanes {
			s := here[ln.Lane()]
			inv, err := s.Inverse(offsets.InverseConfig{From: s.CopiedFrom(), Other: there[ln.Lane()], Time: time.Now(), Instance: c.Run})
			if err != nil {
				t.Fatal(err)
			}
			c.Lanes = append(c.Lanes, mirror.PreparedLane{Lane: ln.Lane(), Inverse: inv.Entries, Ordinal: inv.Next.Ordinal, Position: ln.End, SourceLeaderEpoch: -1})
		}
		preparing, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err = mirror.Prepare(preparing, c)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		from, to = to, from
		everyRecord(t, regions[from], regions[to], written, journalOf(t, to, regions[to], from, to))
	}
}

// journalOf is what the journal of a link says of its lanes.
func journalOf(t *testing.T, alias string, region *kfake.Cluster, from, to string) map[offsets.Lane]offsets.LaneState {
	t.Helper()
	c := open(t, alias, region.ListenAddrs(), wire.NewPool(1<<20))
	j, err := offsets.OpenJournal(t.Context(), offsets.JournalConfig{
		Client: func(o ...kgo.Opt) (*kgo.Client, error) { return c.NewClient(o...) }, Admin: c.Admin(), Topic: "replicator." + from + "." + to + ".journal",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	all := map[offsets.Lane]offsets.LaneState{}
	for _, l := range j.Lanes() {
		all[l] = j.State(l)
	}
	return all
}

// everyRecord compares a journal with the records' keys: what stands on both sides is found, both ways.
func everyRecord(t *testing.T, source, target *kfake.Cluster, written int, journal map[offsets.Lane]offsets.LaneState) {
	t.Helper()
	read := func(c *kfake.Cluster) map[string]*kgo.Record {
		all := map[string]*kgo.Record{}
		cl := client(t, c.ListenAddrs(), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			f := cl.PollFetches(ctx)
			cancel()
			if f.NumRecords() == 0 {
				return all
			}
			f.EachRecord(func(r *kgo.Record) {
				if all[string(r.Key)] != nil {
					t.Errorf("%s is there twice", r.Key)
				}
				all[string(r.Key)] = r
			})
		}
	}
	x, y := read(source), read(target)
	both := 0
	for key, r := range x {
		g := y[key]
		if g == nil {
			continue
		}
		both++
		s := journal[offsets.Lane{Topic: "orders", Partition: r.Partition}]
		if got, want := s.Translate(r.Offset), (offsets.Translation{From: r.Offset, To: g.Offset, Outcome: offsets.Exact}); got != want {
			t.Errorf("%s: %+v, want %+v", key, got, want)
		}
		if got, want := s.TranslateBack(g.Offset), (offsets.Translation{From: g.Offset, To: r.Offset, Outcome: offsets.Exact}); got != want {
			t.Errorf("%s, back: %+v, want %+v", key, got, want)
		}
	}
	t.Logf("%d records on both sides of %d written", both, written)
	if both < written/2 {
		t.Errorf("%d records on both sides", both)
	}
}
