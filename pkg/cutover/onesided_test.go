package cutover

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// topicsOn opens an embedded cluster with topics of so many partitions.
func topicsOn(t *testing.T, alias string, topics map[string]int32) Region {
	t.Helper()
	opts := []kfake.Opt{kfake.NumBrokers(2)}
	for name, n := range topics {
		opts = append(opts, kfake.SeedTopics(n, name))
	}
	r, _ := fakeBrokers(t, alias, opts...)
	return r
}

// betweenTopics is a pair whose links copy all topics that begin with "shop.", both ways,
// of which the link to west has opened some.
func betweenTopics(t *testing.T, east, west map[string]int32, opened ...string) Setup {
	t.Helper()
	link := func(from, to string) Link {
		o := mirror.Options{From: from, To: to, Topics: []string{`shop\..*`}, JournalTopic: "replicator." + from + "." + to + ".journal", JournalPartitions: 2}
		match, err := o.Match()
		if err != nil {
			t.Fatal(err)
		}
		return Link{Name: from + "->" + to, Options: o, Topic: match, Group: func(string) bool { return true }}
	}
	back := link("west", "east")
	s := Setup{
		Pair: authority.PairOf("east", "west"), Old: topicsOn(t, "east", east), New: topicsOn(t, "west", west),
		Forward: link("east", "west"), Reverse: &back, Tool: "test", Log: zap.NewNop(),
		Settings: Settings{LagLimit: 1000, ClockLimit: time.Minute, Writers: "stopped", Settle: time.Millisecond, DrainTimeout: 10 * time.Second, VerifyRecords: 100},
	}
	var lanes []mirror.PreparedLane
	for _, name := range opened {
		for p := range west[name] {
			lanes = append(lanes, mirror.PreparedLane{Lane: offsets.Lane{Topic: name, Partition: p}, SourceLeaderEpoch: -1})
		}
	}
	if _, err := mirror.Prepare(t.Context(), mirror.PrepareConfig{Options: s.Forward.Options, Target: s.New.Cluster, Run: "opened", Lanes: lanes}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheTopicsGateNamesWhatOnlyOneRegionHas(t *testing.T) {
	both := map[string]int32{"shop.orders": 2}
	with := func(name string, n int32) map[string]int32 { return map[string]int32{"shop.orders": 2, name: n} }
	for name, c := range map[string]struct {
		west   map[string]int32
		opened []string
		link   func(*Link) // that back
		verb   Verb
		ok     bool
		want   []string
	}{
		"the same in both":                          {west: both, ok: true, want: []string{"none that only one region has"}},
		"made in west alone, and the link makes it": {west: with("shop.new", 1), ok: true, want: []string{"warning", "only west has shop.new", "link west->east makes it on east and copies it from its start"}},
		"made in west alone, and nobody makes it":   {west: with("shop.new", 1), link: func(l *Link) { l.Options.KeepTopics = true }, want: []string{"only west has shop.new", "nothing of it would be copied to east", "sync.create_topics"}},
		"the link back does not copy it":            {west: with("shop.new", 1), link: func(l *Link) { l.Topic = func(n string) bool { return n == "shop.orders" } }, want: []string{"topics of link west->east do not include shop.new"}},
		"of a region that returned it is only said": {west: with("shop.new", 1), link: func(l *Link) { l.Options.KeepTopics = true }, verb: Failback, ok: true, want: []string{"warning", "nothing of it would be copied to east"}},
		"deleted in east":                           {west: with("shop.old", 2), opened: []string{"shop.old"}, ok: true, want: []string{"left out: east has deleted shop.old, the copy on west stays", "topics_exclude"}},
		"grown in west alone":                       {west: map[string]int32{"shop.orders": 3}, ok: true, want: []string{"west has more partitions than east (shop.orders: 3 and 2)", "makes them on east"}},
		"grown in west alone, and nobody follows":   {west: map[string]int32{"shop.orders": 3}, link: func(l *Link) { l.Options.KeepPartitions = true }, want: []string{"shop.orders: 3 and 2", "nothing of those would be copied to east"}},
		"topics of others do not count":             {west: with("stock.levels", 1), ok: true, want: []string{"none that only one region has"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := betweenTopics(t, both, c.west, append(c.opened, "shop.orders")...)
			if c.link != nil {
				c.link(s.Reverse)
			}
			w, err := look(t.Context(), s, Request{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			if c.verb == "" {
				c.verb = Switchover
			}
			all, err := judgeGates(t.Context(), s, Request{Verb: c.verb, ExpectEpoch: -1}, &Plan{world: w})
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(all, func(g evidence.Gate) bool { return g.Name == "topics" })
			if i < 0 {
				t.Fatalf("there is no such gate: %+v", all)
			}
			g := all[i]
			if g.OK != c.ok || !c.ok && !strings.Contains(g.Fix, "create it on east") {
				t.Errorf("passed %v, want %v: %s; %s", g.OK, c.ok, g.Detail, g.Fix)
			}
			for _, want := range c.want {
				if !strings.Contains(g.Detail, want) {
					t.Errorf("%q is missing in %q", want, g.Detail)
				}
			}
		})
	}
}

// A topic that was deleted on the source cannot be compared, and need not be.
func TestVerifyLeavesOutWhatTheSourceHasDeleted(t *testing.T) {
	s := betweenTopics(t, map[string]int32{"shop.orders": 2}, map[string]int32{"shop.orders": 2, "shop.old": 2}, "shop.orders", "shop.old")
	r := inMemory(t, s)
	proof, err := r.verify(t.Context())
	if want := "of 2 lanes compared, none differs"; err != nil || !strings.Contains(proof, want) || !strings.Contains(proof, "left out, because east has deleted them: shop.old") {
		t.Errorf("%q, %v", proof, err)
	}
}

// A region that returned without a topic has nothing stranded in it, and is taken in.
func TestAFailbackLeavesOutWhatTheReturnedRegionHasDeleted(t *testing.T) {
	s := betweenTopics(t, map[string]int32{"shop.orders": 2}, map[string]int32{"shop.orders": 2, "shop.old": 2}, "shop.orders", "shop.old")
	produceTo(t, s.Old, "shop.orders", 3)
	r := inMemory(t, s)
	r.req = Request{Verb: Failback, Stranded: Discard, By: "ann"}
	if doc, err := r.world.findStranded(t.Context(), s); err != nil || len(doc.Rows) == 0 {
		t.Errorf("the plan counts %+v, %v", doc, err)
	}
	proof, err := r.stranded(t.Context())
	if want := "3 records stay on east alone, by decision of ann; left out, because east has deleted them: shop.old"; err != nil || proof != want {
		t.Errorf("%q, %v; want %q", proof, err, want)
	}
}

// A topic that only the returned region has, because it died before anything of it was
// copied, is dealt with like the others.
func TestAFailbackDealsWithATopicThatWasNeverCopied(t *testing.T) {
	s := betweenTopics(t, map[string]int32{"shop.orders": 2, "shop.new": 1}, map[string]int32{"shop.orders": 2}, "shop.orders")
	produceTo(t, s.Old, "shop.new", 3)
	r := inMemory(t, s)
	r.req = Request{Verb: Failback, Stranded: Discard, By: "ann"}
	proof, err := r.stranded(t.Context())
	if want := "3 records stay on east alone, by decision of ann"; err != nil || proof != want {
		t.Errorf("%q, %v; want %q", proof, err, want)
	}
}

// A topic that both regions have deleted is no lane any more, whatever the journal says.
func TestATopicThatBothRegionsHaveDeletedIsForgotten(t *testing.T) {
	s := betweenTopics(t, map[string]int32{"shop.orders": 2}, map[string]int32{"shop.orders": 2, "shop.old": 2}, "shop.orders", "shop.old")
	if _, err := s.New.Cluster.Admin().DeleteTopics(t.Context(), "shop.old"); err != nil {
		t.Fatal(err)
	}
	w, err := look(t.Context(), s, Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, l := range w.lanes {
		if l.lane.Topic != "shop.orders" || l.tail.Err != nil {
			t.Errorf("%s is a lane still: %v", l.lane, l.tail.Err)
		}
	}
	if len(w.lanes) != 2 {
		t.Errorf("%d lanes", len(w.lanes))
	}
}

// What cannot be compared is not called a difference.
func TestVerifySaysWhatItCannotCompare(t *testing.T) {
	s := betweenTopics(t, map[string]int32{"shop.orders": 1}, map[string]int32{"shop.orders": 2}, "shop.orders")
	r := inMemory(t, s)
	_, err := r.verify(t.Context())
	if want := "1 of 2 lanes cannot be compared, such as shop.orders-1: the source does not have this partition"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// The link back is prepared for what both regions have, and does not wait for the rest.
func TestReverseLeavesOutWhatTheOldRegionLacks(t *testing.T) {
	s := betweenTopics(t, map[string]int32{"shop.orders": 2, "shop.excluded": 1}, map[string]int32{"shop.orders": 3, "shop.excluded": 1, "shop.old": 1, "shop.new": 1},
		"shop.orders", "shop.excluded", "shop.old")
	produceTo(t, s.New, "shop.new", 5)
	s.Reverse.Options.TopicsExclude = []string{"shop.excluded"}
	r := inMemory(t, s)
	if _, err := r.fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	lanes, _, recreated, err := r.inverses(t.Context())
	if err != nil || len(recreated) > 0 {
		t.Fatal(err, recreated)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it would try for ever
	defer cancel()
	report, err := mirror.Prepare(ctx, mirror.PrepareConfig{Options: s.Reverse.Options, Target: s.Old.Cluster, Run: r.id, Lanes: lanes})
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.unprepared(t.Context(), report, nil)
	if want := "; left out, because link west->east has no partition for them on east: shop.excluded-0, shop.new-0, shop.old-0 and 1 more"; err != nil || text != want {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
	done := 0
	for _, l := range report.Lanes {
		if l.Done && l.Topic == "shop.orders" && l.Missing == "" && l.Error == "" {
			done++
		}
	}
	if done != 2 || len(report.Lanes) != 6 {
		t.Errorf("%d of %d lanes are prepared: %+v", done, len(report.Lanes), report.Lanes)
	}
}

// inMemory is a run whose events are kept nowhere.
func inMemory(t *testing.T, s Setup) *run {
	t.Helper()
	r := newRun(s, Request{Verb: Switchover, By: "ann"})
	r.id = evidence.NewRun(string(Switchover), time.Now())
	var err error
	if r.rec, err = evidence.Start(evidence.Config{Run: r.id, Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if r.world, err = look(t.Context(), s, Request{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func produceTo(t *testing.T, r Region, topic string, n int) {
	t.Helper()
	c, err := r.Cluster.NewClient(kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if err := c.ProduceSync(t.Context(), &kgo.Record{Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}
