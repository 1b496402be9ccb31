package cutover

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/authority"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
	"replicator/pkg/writers"
)

// guarded is a cluster with ACLs, as a super user and as an operator see it.
type guarded struct {
	t               *testing.T
	admin, operator *cluster.Cluster
}

func startGuarded(t *testing.T) *guarded {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "admin", "secret"), kfake.User("PLAIN", "operator", "secret"), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	open := func(user string) *cluster.Cluster {
		cfg := cluster.DefaultConfig()
		cfg.BootstrapServers = k.ListenAddrs()
		cfg.SASL = cluster.SASL{Mechanism: cluster.Plain, Username: user, Password: cluster.LiteralSecret("secret"), AllowPlaintext: true}
		c, err := cluster.Open(t.Context(), "west", cfg, cluster.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	return &guarded{t, open("admin"), open("operator")}
}

func (g *guarded) allow(b *kadm.ACLBuilder) {
	g.t.Helper()
	if _, err := g.admin.Admin().CreateACLs(g.t.Context(), b.Allow("User:operator").AllowHosts("*")); err != nil {
		g.t.Fatal(err)
	}
}

// Whoever may only look at a group is told before the run that it cannot be placed.
func TestTheRightToCommitIsAskedForWithoutCommitting(t *testing.T) {
	g := startGuarded(t)
	var at kadm.Offsets
	at.AddOffset("orders", 0, 0, -1)
	for _, group := range []string{"billing", "stock"} {
		if err := g.admin.Admin().CommitAllOffsets(t.Context(), group, at); err != nil {
			t.Fatal(err)
		}
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpDescribe).Groups("billing"))
	g.allow(kadm.NewACLs().Operations(kadm.OpRead).Groups("stock"))
	no := mayNotCommit(t.Context(), g.operator, []string{"billing", "stock"})
	if len(no) != 1 || no[0] != "READ on group billing of cluster west" {
		t.Errorf("missing: %q", no)
	}
	described, err := g.admin.Admin().DescribeGroups(t.Context(), "billing", "stock")
	if err != nil || described["stock"].State != "Empty" || described["billing"].State != "Empty" {
		t.Errorf("the groups after being asked for: %+v, %v", described, err)
	}
}

// A group that may not be seen is in no list of the cluster's: what the daemon has written
// down tells that it is there.
func TestAGroupThatIsHiddenIsNotTakenForNone(t *testing.T) {
	g := startGuarded(t)
	var at kadm.Offsets
	at.AddOffset("orders", 0, 0, -1)
	if err := g.admin.Admin().CommitAllOffsets(t.Context(), "billing", at); err != nil {
		t.Fatal(err)
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpRead).Topics("orders"))
	all := func(string) bool { return true }
	known := []checkpoint.Key{{Group: "billing", Lane: offsets.Lane{Topic: "orders"}}}
	_, err := checkpoint.ReadCommits(t.Context(), g.operator, known, all, all)
	if err == nil || !strings.Contains(err.Error(), "grant DESCRIBE on group billing of cluster west") {
		t.Errorf("hidden: %v", err)
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpDescribe).Groups("billing"))
	known = append(known, checkpoint.Key{Group: "gone", Lane: offsets.Lane{Topic: "orders"}})
	g.allow(kadm.NewACLs().Operations(kadm.OpDescribe).Groups("gone"))
	got, err := checkpoint.ReadCommits(t.Context(), g.operator, known, all, all)
	if err != nil || len(got.Commits) != 1 || got.Commits[0].Group != "billing" {
		t.Errorf("seen: %+v, %v", got, err)
	}
}

func TestTheRightToMakeATopicIsAskedForWithoutMakingIt(t *testing.T) {
	g := startGuarded(t)
	names := []string{"orders", "journal", "other"}
	for _, name := range names {
		g.allow(kadm.NewACLs().Operations(kadm.OpRead).Topics(name))
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpCreate).Topics("other"))
	if no := mayNotCreate(t.Context(), g.operator, names); len(no) != 1 || no[0] != "CREATE on topic journal of cluster west" {
		t.Errorf("missing: %q", no)
	}
	if topics, err := listTopics(t.Context(), g.admin); err != nil || len(topics) != 1 {
		t.Errorf("topics after being asked for: %v, %v", topics, err)
	}
}

// Asking for the right on a transactional id disturbs nobody who has it.
func TestTheRightOnATransactionalIDIsAskedForWithoutTakingIt(t *testing.T) {
	g := startGuarded(t)
	const id = "replicator.authority.east.west"
	holder, err := g.admin.NewClient(kgo.TransactionalID(id), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if err := holder.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := holder.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if mayWriteUnder(t.Context(), g.operator, id) {
		t.Error("without the right it may")
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpWrite).TransactionalIDs(id))
	if !mayWriteUnder(t.Context(), g.operator, id) || !mayWriteUnder(t.Context(), g.admin, id) {
		t.Error("with the right it may not")
	}
	if err := cluster.EndTransaction(t.Context(), holder, kgo.TryCommit, "orders"); err != nil {
		t.Errorf("its holder was disturbed: %v", err)
	}
}

// Every step's rights are asked for on the regions it works on.
func TestWhatEachVerbNeeds(t *testing.T) {
	s := pairOf(true)
	s.Forward.Options.JournalTopic, s.Reverse.Options.JournalTopic = "journal.west", "journal.east"
	for name, c := range map[string]struct {
		req  Request
		want map[string][]string // by region, among what is asked
		none string              // a region that nothing is asked of
	}{
		"a switchover": {req: Request{Verb: Switchover}, want: map[string][]string{
			"west": {"journal.west", "replicator.audit", "replicator.authority.east.west", "replicator.east.west.rights", "billing"},
			"east": {"journal.east", "replicator.authority", "replicator.authority.east.west", "replicator.west.east.rights"},
		}},
		"a failover leaves the old region alone": {req: Request{Verb: Failover}, want: map[string][]string{"west": {"journal.west", "billing"}}, none: "east"},
		"a failback fences, replays, prepares": {req: Request{Verb: Failback, Stranded: Replay}, want: map[string][]string{
			"west": {"journal.west", "replicator.east.west.rights", "replicator.stranded", "replicator.stranded.east"},
			"east": {"journal.east", "replicator.west.east.rights"},
		}},
		"a drill commits to scratch groups": {req: Request{Verb: Switchover, rehearsal: true}, want: map[string][]string{"west": {"replicator.east.west.rights"}}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := map[string]string{}
			for _, n := range needsOf(s, c.req, []string{"billing"}) {
				asked[n.region.Alias] += "\n" + strings.Join(append(append(append([]string{}, n.own...), n.ids...), n.groups...), "\n") + "\n"
			}
			for region, names := range c.want {
				for _, want := range names {
					if !strings.Contains(asked[region], "\n"+want+"\n") {
						t.Errorf("%s is not asked for on %s:%s", want, region, asked[region])
					}
				}
			}
			if got := asked[c.none]; got != "" {
				t.Errorf("%s is asked for %s", c.none, got)
			}
			if c.req.rehearsal && strings.Contains(asked["west"], "billing") {
				t.Errorf("asked for %s", asked["west"])
			}
		})
	}
	rows := evidence.GroupsDoc{{Group: "b", Action: "place"}, {Group: "a", Action: "keep"}, {Group: "b", Action: "keep"}, {Group: "c", Action: "skip"}, {Group: "d", Action: "place"}}
	if got := strings.Join(committedTo(rows, []string{"d"}), " "); got != "a b" {
		t.Errorf("committed to %s", got)
	}
}

// Rules that have to be lifted behind the irreversible point need their right before it.
func TestRulesThatHaveToBeLiftedNeedTheRightTo(t *testing.T) {
	g := startGuarded(t)
	s := pairOf(true)
	match := func(topic string) bool { return topic == "orders" || topic == "deleted" }
	s.Forward.Topic, s.Reverse.Topic = match, match
	s.Old.Cluster, s.New.Cluster = g.operator, g.operator
	s.Old.Principal = "User:replicator"
	w := &world{newState: authority.State{}}
	ask := func(req Request) (string, string) {
		missing, warnings := s.rightsOnRules(t.Context(), req, w)
		return strings.Join(missing, "\n"), strings.Join(warnings, "\n")
	}
	if no, warned := ask(Request{Verb: Switchover}); no != "" || !strings.Contains(warned, "may not be listed; grant ALTER") {
		t.Errorf("missing %q, warnings %q", no, warned)
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpDescribe).Clusters())
	if no, warned := ask(Request{Verb: Switchover}); no != "" || warned != "" {
		t.Errorf("no rule stands, missing %q, warnings %q", no, warned)
	}
	// The lasting fence of a topic that was deleted.
	deny := kmsg.NewCreateACLsRequestCreation()
	deny.ResourceType, deny.ResourceName, deny.ResourcePatternType = kmsg.ACLResourceTypeTopic, "deleted", kmsg.ACLResourcePatternTypeLiteral
	deny.Principal, deny.Host, deny.Operation, deny.PermissionType = "User:replicator", "*", kmsg.ACLOperationWrite, kmsg.ACLPermissionTypeDeny
	req := kmsg.NewPtrCreateACLsRequest()
	req.Creations = append(req.Creations, deny)
	if _, err := req.RequestWith(t.Context(), g.admin.Client()); err != nil {
		t.Fatal(err)
	}
	if no, _ := ask(Request{Verb: Switchover}); !strings.Contains(no, "ALTER on cluster east: rules that keep User:replicator from writing") {
		t.Errorf("missing %q", no)
	}
	if no, _ := ask(Request{Verb: Failover}); no != "" {
		t.Errorf("a failover misses %q", no)
	}
	// Rules against applications on the region that is to be promoted.
	packed, err := packPlan(writers.Plan{Rules: []writers.Rule{{Topic: "orders", Principal: "User:app"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.newState = fencedState(t, packed)
	if no, _ := ask(Request{Verb: Failover}); !strings.Contains(no, "ALTER on cluster west: rules that keep applications from writing") {
		t.Errorf("missing %q", no)
	}
	g.allow(kadm.NewACLs().Operations(kadm.OpAlter).Clusters())
	if no, _ := ask(Request{Verb: Switchover}); no != "" {
		t.Errorf("with ALTER %q is missing", no)
	}
	w.newState = authority.State{Facts: map[string]authority.Fact{writersFact: {Data: []byte(`{"packed":"AAAA"}`)}}}
	if no, _ := ask(Request{Verb: Failover}); !strings.Contains(no, "read fact writers") {
		t.Errorf("rules that nobody can read, and so lift, are passed by: %q", no)
	}
	r := newRun(s, Request{Verb: Switchover})
	if warning, err := r.mayWriteAgain(t.Context(), s.Old); err != nil || warning != "" {
		t.Errorf("lifting: %q, %v", warning, err)
	}
	if left, err := s.standingLinkFence(t.Context(), s.Old); err != nil || len(left.Rules) > 0 {
		t.Errorf("left: %+v, %v", left.Rules, err)
	}
}

// fencedState is a copy with the fact of rules against writers.
func fencedState(t *testing.T, packed []byte) authority.State {
	t.Helper()
	data, err := json.Marshal(writersFenced{Run: "switchover-1", Packed: packed})
	if err != nil {
		t.Fatal(err)
	}
	return authority.State{Facts: map[string]authority.Fact{writersFact: {Name: writersFact, Data: data}}}
}
