package cutover

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/writers"
)

// pairOf is a setup whose regions are east, the old one, and west.
func pairOf(bothWays bool) Setup {
	s := Setup{
		Pair: authority.PairOf("east", "west"), Old: Region{Alias: "east"}, New: Region{Alias: "west"},
		Forward: Link{Name: "east->west", Options: mirror.Options{From: "east", To: "west"}},
	}
	if bothWays {
		s.Reverse = &Link{Name: "west->east", Options: mirror.Options{From: "west", To: "east"}}
	}
	return s
}

// said is a copy with one record an epoch, by region.
func said(regions ...string) authority.State {
	s := authority.State{Ready: map[string]authority.Ready{}, Facts: map[string]authority.Fact{}}
	for i, region := range regions {
		s.Records = append(s.Records, authority.Record{Pair: "east/west", Epoch: int64(i + 1), Region: region, Verb: string(Switchover), Run: fmt.Sprintf("run-%d", i+1), Since: time.Unix(1e9, 0)})
	}
	return s
}

func TestTheAuthorityGateNamesWhatStandsAgainst(t *testing.T) {
	taken := said("east", "west")
	taken.Ready["west->east"] = authority.Ready{From: "west", To: "east", Epoch: 2}
	failedOver := said("east", "west")
	failedOver.Records[1].Verb = string(Failover)
	failedHome := said("west", "east")
	failedHome.Records[1].Verb = string(Failover)
	for name, c := range map[string]struct {
		verb     Verb
		old, new authority.State
		oldErr   error
		expect   int64
		single   bool
		resumes  string
		want     string // of the detail; "" the gate is passed
	}{
		"a switchover from where the record says":        {verb: Switchover, old: said("east"), new: said("east"), expect: -1},
		"the epoch that was expected":                    {verb: Switchover, old: said("east"), new: said("east"), expect: 1},
		"the epoch has moved on":                         {verb: Switchover, old: said("east", "west", "east"), new: said("east", "west", "east"), expect: 1, want: "the epoch is 3, not 1 as expected"},
		"authority is there already":                     {verb: Switchover, old: said("east", "west"), new: said("east", "west"), expect: -1, want: "west is authoritative already"},
		"nobody was ever named, and links run both ways": {verb: Switchover, old: said(), new: said(), expect: -1, want: "no region is authoritative yet"},
		"nobody was named, and one link implies it":      {verb: Switchover, old: said(), new: said(), expect: -1, single: true},
		"one epoch, two regions":                         {verb: Switchover, old: said("east", "east"), new: said("east", "west"), expect: -1, want: "split: at epoch 2 east says east, west says west"},
		"a split stops a failover too":                   {verb: Failover, old: said("east", "east"), new: said("east", "west"), expect: -1, want: "split"},
		"a copy that is behind":                          {verb: Switchover, old: said("east", "west", "east"), new: said("east"), expect: -1, want: "the copies differ"},
		"nobody was ever named, and the region is gone":  {verb: Failover, new: said(), oldErr: fmt.Errorf("dark"), expect: -1, want: "west has no record and east does not answer"},
		"the same, and the link back is left out":        {verb: Failover, new: said(), oldErr: fmt.Errorf("dark"), expect: -1, single: true},
		"a failover does not need the other copy":        {verb: Failover, new: said("east"), oldErr: fmt.Errorf("dark"), expect: -1},
		"a failback brings it up to date":                {verb: Failback, old: said("east"), new: failedOver, expect: -1},
		"a failback to where authority is":               {verb: Failback, old: said("east"), new: said("east"), expect: -1, want: "east is authoritative, not west"},
		"a region that was taken in":                     {verb: Failback, old: taken, new: said("east", "west"), expect: -1, want: "has been taken in under epoch 2 already"},
		"the run that takes it in goes on":               {verb: Failback, old: taken, new: said("east", "west"), expect: -1, resumes: "failback-1"},
		"a rollback of a switchover":                     {verb: Rollback, old: said("west", "east"), new: said("west", "east"), expect: -1},
		"a rollback of a failover":                       {verb: Rollback, old: failedHome, new: failedHome, expect: -1, want: "there is nothing to roll back"},
	} {
		t.Run(name, func(t *testing.T) {
			s := pairOf(!c.single)
			w := &world{oldState: c.old, newState: c.new, oldErr: c.oldErr}
			epoch := epochOf(c.new)
			if c.oldErr == nil {
				epoch = max(epoch, epochOf(c.old))
			}
			g := &gates{}
			g.authority(s, Request{Verb: c.verb, ExpectEpoch: c.expect}, &Plan{world: w, PlanDoc: evidence.PlanDoc{Epoch: epoch}, Resumes: c.resumes})
			if len(g.all) != 1 {
				t.Fatalf("%d gates", len(g.all))
			}
			gate := g.all[0]
			switch {
			case c.want == "" && !gate.OK:
				t.Errorf("refused: %s", gate.Detail)
			case c.want != "" && (gate.OK || !strings.Contains(gate.Detail, c.want)):
				t.Errorf("passed %v: %q, want %q", gate.OK, gate.Detail, c.want)
			case c.want != "" && gate.Fix == "" && c.verb != Failback:
				t.Error("it does not say what to do")
			case c.want != "" && c.oldErr != nil && strings.Contains(gate.Fix, "authority init"):
				t.Errorf("authority init needs the region that is gone: %s", gate.Fix)
			}
		})
	}
}

// What an earlier run has made stays its own to lift, and what has come since is denied too.
func TestAPlanTakesStandingRulesAlong(t *testing.T) {
	rule := func(topic, who string, existed bool) writers.Rule {
		return writers.Rule{Topic: topic, Principal: "User:" + who, Existed: existed}
	}
	standing := writers.Plan{Rules: []writers.Rule{rule("orders", "app", false), rule("orders", "kept", true), rule("gone", "app", false)}}
	// Made now, it takes the rules that stand for somebody else's.
	plan := writers.Plan{Rules: []writers.Rule{rule("orders", "app", true), rule("orders", "kept", true), rule("new", "app", false)}}
	got := withStanding(plan, standing)
	want := []writers.Rule{rule("orders", "app", false), rule("orders", "kept", true), rule("new", "app", false), rule("gone", "app", false)}
	if fmt.Sprint(got.Rules) != fmt.Sprint(want) {
		t.Errorf("rules are\n%v\nwant\n%v", got.Rules, want)
	}
}

func TestAPlanOfTenThousandRulesIsKept(t *testing.T) {
	var plan writers.Plan
	for i := range 10_000 {
		plan.Rules = append(plan.Rules, writers.Rule{Topic: fmt.Sprintf("orders.region-%d.v1", i/10), Principal: fmt.Sprintf("User:application-%d", i%10)})
	}
	packed, err := packPlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	data := fmt.Sprintf(`{"run":"r","packed":%q}`, base64.StdEncoding.EncodeToString(packed))
	got, ok, err := standingFence(authority.State{Facts: map[string]authority.Fact{writersFact: {Name: writersFact, Data: []byte(data)}}})
	if err != nil || !ok || len(got.Rules) != len(plan.Rules) || got.Rules[9_999] != plan.Rules[9_999] {
		t.Errorf("read back: %v, %v, %d rules", ok, err, len(got.Rules))
	}
	if _, ok, err := standingFence(authority.State{}); ok || err != nil {
		t.Errorf("without a fact: %v, %v", ok, err)
	}
	if _, _, err := standingFence(authority.State{Facts: map[string]authority.Fact{writersFact: {Data: []byte(`{"packed":"AAAA"}`)}}}); err == nil {
		t.Error("garbage is read")
	}
}

// A failover does not wait for a switchover that a dying region has left; anything else does.
func TestWhichRunsAFailoverPassesBy(t *testing.T) {
	unfinishedRun := &unfinished{run: "switchover-1", plan: evidence.PlanDoc{Verb: string(Switchover)}}
	before := said("east")
	after := said("east", "west")
	after.Records[1].Run = "switchover-1"
	for _, c := range []struct {
		verb  Verb
		run   *unfinished
		state authority.State
		want  bool
	}{
		{Failover, unfinishedRun, before, true},
		{Failover, unfinishedRun, after, false}, // it has changed the authority: it is finished first
		{Switchover, unfinishedRun, before, false},
		{Failover, &unfinished{run: "failover-1", plan: evidence.PlanDoc{Verb: string(Failover)}}, before, false},
		{Failover, nil, before, false},
	} {
		if got := c.run.supersededBy(c.verb, c.state); got != c.want {
			t.Errorf("%s, %v: %v", c.verb, c.run, got)
		}
	}
}

// A partition of the new region without a leader does not hold up a failover that is told
// to go on without it.
func TestAFailoverGoesOnWithoutWhatCannotBeRead(t *testing.T) {
	w := &world{lanes: []laneView{{lane: offsets.Lane{Topic: "orders"}, known: true}, {lane: offsets.Lane{Topic: "orders", Partition: 1}, known: true, tail: offsets.Tail{Err: errors.New("no leader")}}}}
	for _, c := range []struct {
		verb      Verb
		force, ok bool
	}{{Failover, true, true}, {Failover, false, false}, {Switchover, true, false}} {
		g := &gates{}
		g.lanes(pairOf(true), Request{Verb: c.verb, Force: c.force}, w)
		if got := g.all[0]; got.OK != c.ok || !strings.Contains(got.Detail, "1 of 2 cannot be read") || !c.ok && got.Fix == "" {
			t.Errorf("%s, --force %v: %+v", c.verb, c.force, got)
		}
	}
}

// Brokers that do not tell who has written to a partition prove neither that writers have
// stopped nor that a fence holds.
func TestBrokersThatCannotProveAFenceAreRefused(t *testing.T) {
	for version, c := range map[string]struct {
		max *kversion.Versions
		ok  bool
	}{"2.7": {kversion.V2_7_0(), false}, "2.8": {kversion.V2_8_0(), true}} {
		r, _ := fakeBrokers(t, "west", kfake.NumBrokers(2), kfake.MaxVersions(c.max))
		g := &gates{}
		g.brokers(t.Context(), r, false)
		want := map[bool]string{true: "ok 2, all inside the boundary", false: "2 of 2 do not tell who has written to a partition"}[c.ok]
		judged(t, version, g, map[string]string{"brokers of west": want})
	}
}

// A planned move needs all brokers; a failover goes to what is left.
func TestABrokerThatIsDownHoldsUpAPlannedMoveOnly(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	addrs := k.ListenAddrs()
	down, err := net.Listen("tcp4", "127.0.0.1:0") // an address where nobody is
	if err != nil {
		t.Fatal(err)
	}
	down.Close()
	_, port, _ := net.SplitHostPort(down.Addr().String())
	k.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		for id, addr := range addrs {
			b := kmsg.NewMetadataResponseBroker()
			host, p, _ := net.SplitHostPort(addr)
			if id == 2 {
				p = port
			}
			n, _ := strconv.Atoi(p)
			b.NodeID, b.Host, b.Port = int32(id), host, int32(n)
			resp.Brokers = append(resp.Brokers, b)
		}
		return resp, nil, true
	})
	r := regionAt(t, "west", addrs[0])
	for partly, want := range map[bool]string{true: "ok warning: 1 of 3 do not answer: ", false: "1 of 3 cannot be used: "} {
		g := &gates{}
		g.brokers(t.Context(), r, partly)
		judged(t, fmt.Sprintf("partly %v", partly), g, map[string]string{"brokers of west": want})
	}
}
