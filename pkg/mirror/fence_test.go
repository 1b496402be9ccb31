package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/fakeproducers"
	"replicator/internal/testlog"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// authority is one that a test sets.
type testAuthority struct {
	mu      sync.Mutex
	says    mirror.Permission
	err     error
	changed chan struct{}
}

var _ mirror.Authority = (*testAuthority)(nil)

func newAuthority(p mirror.Permission) *testAuthority {
	return &testAuthority{says: p, changed: make(chan struct{})}
}

func (a *testAuthority) Sync(context.Context) (mirror.Permission, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.says, a.err
}

func (a *testAuthority) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

func (a *testAuthority) say(p mirror.Permission, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.says, a.err = p, err
	close(a.changed)
	a.changed = make(chan struct{})
}

var (
	eastMay    = mirror.Permission{Append: true, Why: "east is authoritative"}
	eastMayNot = mirror.Permission{Why: "west is authoritative since noon (epoch 1)", Epoch: 1}
	eastAgain  = mirror.Permission{Append: true, Why: "east is authoritative (epoch 2)", Epoch: 2}
)

func fenceLink(t *testing.T, target []string, run string) mirror.FenceReport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	progress := 0
	report, err := mirror.Fence(ctx, mirror.FenceConfig{
		Options: mirror.Options{From: "east", To: "west", Topics: []string{"orders", "empty"}},
		Target:  open(t, "west", target, wire.NewPool(1<<20)), Log: testlog.New(t), Instance: run,
		Progress: func(done, _ int) { progress = done },
	})
	if err != nil {
		t.Fatal(err)
	}
	if progress != len(report.Lanes) {
		t.Errorf("progress came to %d of %d lanes", progress, len(report.Lanes))
	}
	return report
}

// A fence ends every lane of a link that copies, without its source: the report has
// exactly what is on the target, and the link that obeys stays out.
func TestFenceEndsALinkThatCopies(t *testing.T) {
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(4, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(2, "empty"))
	const n = 4000
	produce(t, src.ListenAddrs(), "orders", 4, 0, n)
	a := newAuthority(eastMay)
	l, _ := startGoverned(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}}, a)
	consume(t, dst.ListenAddrs(), "orders", n)

	a.say(eastMayNot, nil)
	report := fenceLink(t, dst.ListenAddrs(), "run 1")
	if len(report.Lanes) != 6 {
		t.Fatalf("fenced %d lanes, want 4 of orders and 2 of empty", len(report.Lanes))
	}
	for _, ln := range report.Lanes {
		if !ln.Fenced || ln.Gone || ln.Error != "" || ln.Kept || ln.New.ProducerID < 0 {
			t.Errorf("lane is not fenced: %+v", ln)
		}
		switch {
		case ln.Topic == "empty" && (ln.Source != -1 || ln.End != 1 || ln.Old.ProducerID != -1):
			t.Errorf("lane nobody opened: %+v", ln)
		case ln.Topic == "orders" && (ln.Source != n/4 || ln.Ordinal != n/4 || ln.Old.ProducerID != ln.New.ProducerID || ln.Old.Epoch >= ln.New.Epoch):
			t.Errorf("lane ended elsewhere: %+v", ln)
		}
	}
	waitUntil(t, func() bool {
		s, _ := l.Status(t.Context())
		return s.State == mirror.LinkClosed && s.Ready && s.LaneStates[mirror.LaneClosed] == 4 && s.Guard != nil
	})
	// What the source takes now stays there.
	produce(t, src.ListenAddrs(), "orders", 4, n, 400)

	// Applications write on the promoted side; the end stays where it was.
	produce(t, dst.ListenAddrs(), "orders", 4, 0, 40)
	again := fenceLink(t, dst.ListenAddrs(), "run 1")
	for i, ln := range again.Lanes {
		before := report.Lanes[i]
		if ln.Topic != "orders" {
			continue
		}
		if !ln.Kept || ln.Source != before.Source || ln.Ordinal != before.Ordinal || ln.End != before.End || ln.Old != before.Old || ln.Foreign != 0 || ln.New.Epoch <= before.New.Epoch {
			t.Errorf("second fence says %+v, the first %+v", ln, before)
		}
	}
	got := consume(t, dst.ListenAddrs(), "orders", n+40)
	for p, records := range got {
		if len(records) != n/4+10 {
			t.Errorf("orders-%d holds %d records, want %d", p, len(records), n/4+10)
		}
	}
}

// A link that may append again goes on where it was; what was not said to be known
// keeps lanes waiting, and names the reason.
func TestLinkObeysItsAuthority(t *testing.T) {
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	produce(t, src.ListenAddrs(), "orders", 2, 0, 200)
	a := newAuthority(eastMayNot)
	a.err = errors.New("grant READ on topic replicator.authority of cluster west")
	l, _ := startGoverned(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}}, a)
	waitUntil(t, func() bool {
		s, _ := l.Status(t.Context())
		return s.State == mirror.LinkDegraded && !s.Ready && slices.ContainsFunc(s.Lanes, func(ln mirror.LaneStatus) bool {
			return ln.State == mirror.LaneWaiting && ln.Reason == "ask on west who is authoritative: "+a.err.Error()
		})
	})
	if s, _ := l.Status(t.Context()); s.Openings != 0 || l.Appends() {
		t.Errorf("a link that knows of no authority opened %d lanes", s.Openings)
	}
	a.say(eastMayNot, nil)
	closed := func() bool {
		s, _ := l.Status(t.Context())
		return s.State == mirror.LinkClosed && s.Ready && s.Reason == eastMayNot.Why && s.LaneStates[mirror.LaneClosed] == 2 && *s.AuthorityEpoch == 1
	}
	waitUntil(t, closed)
	if s, _ := l.Status(t.Context()); s.Openings != 0 {
		t.Errorf("a closed link opened %d lanes", s.Openings)
	}
	for i := range 3 {
		a.say(eastAgain, nil)
		consume(t, dst.ListenAddrs(), "orders", 200*(i+1))
		waitUntil(t, func() bool {
			s, _ := l.Status(t.Context())
			return s.State == mirror.LinkCopying && s.Guard == nil && s.LagRecords != nil && *s.LagRecords == 0
		})
		produce(t, src.ListenAddrs(), "orders", 2, 200*(i+1), 100)
		a.say(eastMayNot, nil) // with records on their way
		waitUntil(t, closed)
		produce(t, src.ListenAddrs(), "orders", 2, 200*(i+1)+100, 100)
	}
	a.say(eastAgain, nil)
	for p, records := range consume(t, dst.ListenAddrs(), "orders", 800) {
		for i, r := range records {
			if want := fmt.Sprint("key-", i*2+int(p)); string(r.Key) != want {
				t.Fatalf("orders-%d record %d has key %s, want %s", p, i, r.Key, want)
			}
		}
	}
}

// An opening asks again behind its control record: what was allowed a moment ago is
// not when the promotion came in between.
func TestOpeningReadsTheAuthority(t *testing.T) {
	t.Parallel()
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(1, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(1, "orders"))
	produce(t, src.ListenAddrs(), "orders", 1, 0, 100)
	a := &turningAuthority{testAuthority: newAuthority(eastMay)}
	l, _ := startGoverned(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}}, a)
	waitUntil(t, func() bool {
		s, _ := l.Status(t.Context())
		return s.State == mirror.LinkClosed && s.LaneStates[mirror.LaneClosed] == 1
	})
	if n := dataEnd(t, dst.ListenAddrs(), "orders"); n > 0 {
		t.Errorf("%d records were appended", n)
	}
}

// turningAuthority allows the link when it starts, and no more when it opens.
type turningAuthority struct {
	*testAuthority
	asked int
}

func (a *turningAuthority) Sync(ctx context.Context) (mirror.Permission, error) {
	a.mu.Lock()
	a.asked++
	if a.asked == 2 {
		a.says = eastMayNot // and nobody is told of the change
	}
	a.mu.Unlock()
	return a.testAuthority.Sync(ctx)
}

// dataEnd counts the records of partition 0.
func dataEnd(t *testing.T, addrs []string, topic string) (n int) {
	t.Helper()
	c := client(t, addrs, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for ctx.Err() == nil {
		c.PollFetches(ctx).EachRecord(func(*kgo.Record) { n++ })
	}
	return n
}

// The guard takes the epochs of all lanes without the source, even those that no
// daemon was given.
func TestGuardNeedsNoSource(t *testing.T) {
	t.Parallel()
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.SeedTopics(2, "orders"), kfake.BrokerConfigs(map[string]string{"producer.id.expiration.ms": "4000"}))
	fakeproducers.Describe(dst)
	produce(t, src.ListenAddrs(), "orders", 2, 0, 200)
	a := newAuthority(eastMay)
	l, _ := startGoverned(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}, RefreshInterval: time.Second}, a)
	consume(t, dst.ListenAddrs(), "orders", 200)
	west := open(t, "west", dst.ListenAddrs(), wire.NewPool(1<<20))
	shown := func(want mirror.FenceState) {
		t.Helper()
		ages, remembered, err := mirror.FenceAges(t.Context(), west, mirror.Options{From: "east", To: "west", Topics: []string{"orders"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if remembered != (mirror.Remembered{For: 4 * time.Second}) || len(ages) != 2 || ages[0].State != want || ages[1].State != want {
			t.Errorf("%d lanes, %v: %+v; want them %s", len(ages), remembered, ages, want)
		}
	}
	shown(mirror.FenceNone)
	a.say(eastMayNot, nil)
	src.Close()
	waitUntil(t, func() bool {
		s, _ := l.Status(t.Context())
		return s.Guard != nil && s.Guard.Lanes == 2 && s.Guard.Fenced == 2 && s.Guard.Renewed >= 6 && s.Guard.Error == "" && s.Guard.Every == time.Second
	})
	shown(mirror.FenceHolds) // no command has fenced them: the journal has the daemon's epochs alone
}

// A daemon without the right to ask says what it goes by, and asks on: given the right it
// is closer without a restart.
func TestGuardAsksOnForHowLongBrokersRemember(t *testing.T) {
	t.Parallel()
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(1, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"), kfake.BrokerConfigs(map[string]string{"producer.id.expiration.ms": "60000"}))
	produce(t, src.ListenAddrs(), "orders", 1, 0, 10)
	a := newAuthority(eastMay)
	l, _ := startGoverned(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}, RefreshInterval: time.Second}, a)
	consume(t, dst.ListenAddrs(), "orders", 10)
	refused := dst.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
	a.say(eastMayNot, nil)
	guard := func() mirror.GuardStatus {
		s, _ := l.Status(t.Context())
		if s.Guard == nil {
			return mirror.GuardStatus{}
		}
		return *s.Guard
	}
	waitUntil(t, func() bool { return guard().Every > 0 })
	if g := guard(); g.Every != 15*time.Minute || !strings.Contains(g.Assumed, "grant DESCRIBE_CONFIGS on the cluster resource of cluster west") {
		t.Errorf("without the right the fence is renewed every %v, assumed: %q", g.Every, g.Assumed)
	}
	refused.Remove()
	waitUntil(t, func() bool { g := guard(); return g.Every == 15*time.Second && g.Assumed == "" })
}

// A lane whose target topic was deleted has nothing to fence; it keeps nobody waiting.
func TestFencePassesWhatIsGone(t *testing.T) {
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(1, "orders", "old"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	produce(t, src.ListenAddrs(), "orders", 1, 0, 10)
	produce(t, src.ListenAddrs(), "old", 1, 0, 10)
	_, stop := startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders", "old"}})
	consume(t, dst.ListenAddrs(), "orders", 10)
	consume(t, dst.ListenAddrs(), "old", 10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(client(t, dst.ListenAddrs())).DeleteTopics(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	report := fenceLink(t, dst.ListenAddrs(), "run 1")
	for _, ln := range report.Lanes {
		if gone := ln.Topic == "old"; len(report.Lanes) != 2 || ln.Gone != gone || ln.Fenced == gone || ln.Error != "" {
			t.Errorf("of %d lanes one is %+v", len(report.Lanes), ln)
		}
	}
}

// A partition without a leader keeps nobody waiting longer than patience: its lane is left
// pending, the others are fenced, and the next fence ends it too.
func TestFenceLeavesWhatHasNoLeaderPending(t *testing.T) {
	t.Parallel()
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(2, "orders"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	produce(t, src.ListenAddrs(), "orders", 2, 0, 20)
	_, stop := startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{"orders"}})
	consume(t, dst.ListenAddrs(), "orders", 20)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	dark := dst.Fault(kfake.Fault{
		Keys:  []kmsg.Key{kmsg.ListOffsets, kmsg.Fetch, kmsg.AddPartitionsToTxn, kmsg.Produce},
		Topic: "orders", Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1,
	})
	fence := func(patience time.Duration) (mirror.FenceReport, error) {
		return mirror.Fence(t.Context(), mirror.FenceConfig{
			Options: mirror.Options{From: "east", To: "west", Topics: []string{"orders"}}, Patience: patience,
			Target: open(t, "west", dst.ListenAddrs(), wire.NewPool(1<<20)), Log: testlog.New(t), Instance: "run 1",
		})
	}
	report, err := fence(500 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range report.Lanes {
		if dark := ln.Partition == 1; ln.Pending != dark || ln.Fenced == dark || (ln.Error != "") != dark {
			t.Errorf("%+v", ln)
		}
	}
	dark.Remove()
	if report, err = fence(500 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, ln := range report.Lanes {
		if ln.Pending || !ln.Fenced || ln.Error != "" || ln.Source != 10 {
			t.Errorf("when the leader is back: %+v", ln)
		}
	}
}
