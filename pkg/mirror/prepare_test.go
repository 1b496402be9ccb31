package mirror_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"replicator/internal/testlog"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// The way back: what the promoted side had copied is not copied again, a daemon goes
// on by its ordinary rules with what was written there since. A run that is
// started again keeps what it has done.
func TestPreparedLinkCopiesOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	east := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders"))
	west := fakeCluster(t, kfake.ClusterID("west-id"))
	const n, more = 400, 60
	produce(t, east.ListenAddrs(), "orders", 2, 0, n)
	a := newAuthority(eastMay)
	_, stop := startGoverned(t, east.ListenAddrs(), west.ListenAddrs(), mirror.Options{Topics: []string{"orders"}}, a)
	consume(t, west.ListenAddrs(), "orders", n)
	a.say(eastMayNot, nil)
	fenced := fenceLink(t, west.ListenAddrs(), "run 7")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	produce(t, west.ListenAddrs(), "orders", 2, n, more)
	produce(t, east.ListenAddrs(), "orders", 2, 1_000_000, 20) // stranded

	var lanes []mirror.PreparedLane
	for _, ln := range fenced.Lanes {
		lanes = append(lanes, mirror.PreparedLane{
			// Record i of the lane lies at east's offset i and, behind the control record of
			// its opening, at west's i+1.
			Lane: ln.Lane(), Ordinal: ln.Ordinal, Position: ln.End, SourceLeaderEpoch: -1,
			Inverse: []offsets.Entry{offsets.EpochRecord{
				Lane: ln.Lane(), Writer: offsets.Writer{ProducerID: -2}, Ordinal: 0, Source: 1, Target: 0, SourceLeaderEpoch: -1, Time: time.Now(), Instance: "inverse",
			}},
		})
	}
	back := mirror.Options{From: "west", To: "east", Topics: []string{"orders"}}
	prepare := func(run string, lanes []mirror.PreparedLane) (mirror.PrepareReport, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return mirror.Prepare(ctx, mirror.PrepareConfig{
			Options: back, Target: open(t, "east", east.ListenAddrs(), wire.NewPool(1<<20)), Log: testlog.New(t), Run: run, Lanes: lanes,
		})
	}
	first, err := prepare("run 7", lanes)
	if err != nil {
		t.Fatal(err)
	}
	again, err := prepare("run 7", lanes)
	if err != nil {
		t.Fatal(err)
	}
	for i, ln := range again.Lanes {
		if f := first.Lanes[i]; !f.Done || f.Kept || !ln.Kept || !ln.Done || ln.Writer != f.Writer || ln.Target != f.Target || f.Source != lanes[i].Position || f.Ordinal != n/2 {
			t.Errorf("first %+v, again %+v", f, ln)
		}
	}

	may := newAuthority(mirror.Permission{Append: true, Epoch: 1})
	pool := wire.NewPool(32 << 20)
	o := back
	l, err := mirror.New(mirror.Config{
		Options: o, Source: open(t, "west", west.ListenAddrs(), pool), Target: open(t, "east", east.ListenAddrs(), pool), Pool: pool,
		Log: testlog.New(t), Instance: "test", Authority: may,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	got := consume(t, east.ListenAddrs(), "orders", n+20+more)
	waitUntil(t, func() bool { s, _ := l.Status(t.Context()); return s.LagRecords != nil && *s.LagRecords == 0 })
	live, err := l.Live(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for p, records := range got {
		if len(records) != (n+20+more)/2 {
			t.Errorf("orders-%d holds %d records, want %d", p, len(records), (n+20+more)/2)
		}
		for i, r := range records[len(records)-more/2:] {
			if want := fmt.Sprint("key-", n+2*i+int(p)); string(r.Key) != want {
				t.Fatalf("orders-%d: record %d of those copied back has key %s, want %s", p, i, r.Key, want)
			}
		}
		// What was copied over and what was copied back are found, either way.
		state := live[offsets.Lane{Topic: "orders", Partition: p}].State
		for _, at := range []struct{ west, east int64 }{{1, 0}, {n / 2, n/2 - 1}, {fenced.Lanes[p].End, records[len(records)-more/2].Offset}} {
			if to := state.Translate(at.west); to.To != at.east || to.Outcome != offsets.Exact {
				t.Errorf("orders-%d: west's offset %d is east's %d (%v), want %d", p, at.west, to.To, to.Outcome, at.east)
			}
		}
	}

	// An inverse that was made before the lane went on is refused.
	_, err = prepare("run 8", lanes)
	if err == nil || !strings.Contains(err.Error(), "make it again") {
		t.Errorf("an old inverse: %v", err)
	}
}
