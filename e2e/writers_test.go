package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/kafkatest"
	"replicator/pkg/cluster"
	"replicator/pkg/writers"
)

// Users of the clusters of TestWriters. None is a super user.
var writersUsers = []string{"literal", "prefixed", "wildcard", "hosted", "reader", "replicator", "operator", "late", "tx"}

// east refuses what no ACL allows, on two brokers; west lets everybody do everything
// with a topic that no ACL is about.
func TestWriters(t *testing.T) {
	t.Parallel()
	users := kafkatest.Config{Name: "east", Authorizer: true, SASL: []string{kafkatest.Plain}, Users: writersUsers, Brokers: 2}
	open := users
	open.Name, open.Brokers = "west", 1
	open.Properties = map[string]string{"allow.everyone.if.no.acl.found": "true"}
	pair := kafkatest.StartPair(t, users, open)
	w := &writersTest{Cluster: pair.Source, admin: openAs(t, "east", pair.Source, kafkatest.AdminUser)}
	t.Run("fence and lift", func(t *testing.T) { w.fenceAndLift(t) })
	t.Run("everybody may write", func(t *testing.T) { w.everybody(t) })
	t.Run("writers that come later", func(t *testing.T) { w.drift(t) })
	t.Run("a link's own principal", func(t *testing.T) { w.linkFence(t) })
	t.Run("exact rights", func(t *testing.T) { w.rights(t) })
	t.Run("what still grows", func(t *testing.T) { w.grown(t) })
	t.Run("no rule is about the topic", func(t *testing.T) { w.uncovered(t, pair.Target) })
}

func TestWritersWithoutAuthorizer(t *testing.T) {
	t.Parallel()
	pair := kafkatest.Pair(t)
	c := openCluster(t, "east", pair.Source.Bootstrap(), nil)
	for _, plan := range []func() (writers.Plan, error){
		func() (writers.Plan, error) {
			return writers.Fence{Cluster: c, Topics: []string{"orders"}}.Plan(t.Context())
		},
		func() (writers.Plan, error) {
			return writers.LinkFence(t.Context(), c, []string{"orders"}, "User:replicator")
		},
	} {
		p, err := plan()
		if err != nil || p.Possible || !strings.Contains(p.Why, "no authorizer") || !strings.Contains(p.Why, "--writers-stopped") {
			t.Errorf("%+v, %v", p, err)
		}
		if err := writers.Apply(t.Context(), c, p); err == nil || !strings.Contains(err.Error(), "no authorizer") {
			t.Errorf("applied: %v", err)
		}
	}
}

// openAs opens a cluster as one of its users.
func openAs(t *testing.T, alias string, c *kafkatest.Cluster, user string) *cluster.Cluster {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = c.Bootstrap()
	cfg.SASL = cluster.SASL{Mechanism: cluster.Plain, Username: user, Password: cluster.LiteralSecret(kafkatest.Password(user)), AllowPlaintext: true}
	opened, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	return opened
}

type writersTest struct {
	*kafkatest.Cluster
	admin *cluster.Cluster
	marks int
}

func (w *writersTest) allow(t *testing.T, user string, b *kadm.ACLBuilder) {
	t.Helper()
	if err := w.Allow(t.Context(), user, b); err != nil {
		t.Fatal(err)
	}
}

func write() *kadm.ACLBuilder { return kadm.NewACLs().Operations(kadm.OpWrite) }

// producer is a client of a user that tries once.
func (w *writersTest) producer(t *testing.T, user string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(w.ClientOptsAs(user, kafkatest.Plain), append([]kgo.Opt{
		kgo.DefaultProduceTopic(""), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10 * time.Millisecond), kgo.ProducerLinger(0),
	}, opts...)...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func putOne(ctx context.Context, cl *kgo.Client, topic string, partition int32) error {
	return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: partition, Value: []byte("v")}).FirstErr()
}

// refused by an ACL. Who may write to no topic at all is already refused a producer id,
// which is a right on the cluster.
func refused(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}

// agree waits until every broker knows the ACLs that were changed before: they follow
// the controller in its order, each at its own pace.
func (w *writersTest) agree(t *testing.T) {
	t.Helper()
	w.marks++
	mark := fmt.Sprintf("mark-%d", w.marks)
	if _, err := w.Admin().CreateACLs(t.Context(), kadm.NewACLs().Operations(kadm.OpRead).Topics(mark).Allow("User:nobody")); err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName, req.ResourcePatternType = kmsg.ACLResourceTypeTopic, &mark, kmsg.ACLResourcePatternTypeLiteral
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	for _, b := range w.Brokers() {
		eventually(t, fmt.Sprintf("broker %d knows the ACLs", b.ID()), func() bool {
			resp, err := w.admin.Client().Broker(b.ID()).RetriableRequest(t.Context(), req)
			return err == nil && len(resp.(*kmsg.DescribeACLsResponse).Resources) == 1
		})
	}
}

func (w *writersTest) rulesNow(t *testing.T) []string {
	t.Helper()
	res, err := w.Admin().DescribeACLs(t.Context(), kadm.NewACLs().Topics().Allow().AllowHosts().Deny().DenyHosts().Operations(kadm.OpAny).ResourcePatternType(kadm.ACLPatternAny))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range res {
		for _, a := range r.Described {
			if strings.HasPrefix(a.Name, "mark-") {
				continue
			}
			out = append(out, fmt.Sprint(a.Name, a.Pattern, a.Principal, a.Host, a.Operation, a.Permission))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (w *writersTest) fenceAndLift(t *testing.T) {
	topics := []string{"fence.orders", "fence.billing"}
	for _, topic := range topics {
		w.CreateTopic(t, topic, 2)
	}
	w.CreateTopic(t, "elsewhere", 1)
	w.allow(t, "literal", write().Topics("fence.orders"))
	w.allow(t, "prefixed", kadm.NewACLs().Operations(kadm.OpAll).ResourcePatternType(kadm.ACLPatternPrefixed).Topics("fence."))
	w.allow(t, "wildcard", write().Topics("*"))
	w.allow(t, "replicator", write().ResourcePatternType(kadm.ACLPatternPrefixed).Topics("fence."))
	w.allow(t, "reader", kadm.NewACLs().Operations(kadm.OpRead).Topics(topics...))
	if _, err := w.Admin().CreateACLs(t.Context(), write().Topics("fence.orders").Allow("User:hosted").AllowHosts("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	// A rule of ours stands already: somebody else's, to be left alone.
	if _, err := w.Admin().CreateACLs(t.Context(), write().Topics("fence.orders").Deny("User:wildcard")); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	before := w.rulesNow(t)

	p, err := writers.Fence{Cluster: w.admin, Topics: topics, Except: []string{"User:replicator"}}.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, w.rulesNow(t)); d != "" {
		t.Fatalf("a plan changed something: %s", d)
	}
	if !p.Possible {
		t.Fatalf("not possible: %s", p.Why)
	}
	want := []writers.Rule{
		{Topic: "fence.billing", Principal: "User:prefixed"},
		{Topic: "fence.billing", Principal: "User:wildcard"},
		{Topic: "fence.orders", Principal: "User:hosted"},
		{Topic: "fence.orders", Principal: "User:literal"},
		{Topic: "fence.orders", Principal: "User:prefixed"},
		{Topic: "fence.orders", Principal: "User:wildcard", Existed: true},
	}
	if d := cmp.Diff(want, p.Rules); d != "" {
		t.Fatal(d)
	}
	t.Logf("writers %v, warnings %q", p.Writers, p.Warnings)
	// What is kept is what is applied.
	kept, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	p = writers.Plan{}
	if err := json.Unmarshal(kept, &p); err != nil {
		t.Fatal(err)
	}

	producers := map[string]*kgo.Client{}
	for _, user := range []string{"literal", "prefixed", "wildcard", "hosted", "replicator"} {
		producers[user] = w.producer(t, user)
		topic := "fence.orders"
		if user == "wildcard" {
			topic = "elsewhere"
		}
		if err := putOne(t.Context(), producers[user], topic, 0); err != nil {
			t.Fatal(err)
		}
	}
	flood := w.flood(t, "literal", "fence.orders")
	for try := range 2 { // twice is once
		began := time.Now()
		if err := writers.Apply(t.Context(), w.admin, p); err != nil {
			t.Fatal(err)
		}
		t.Logf("applied in %v", time.Since(began))
		if try == 0 {
			// What was authorized before may come yet; then nothing does, however much is tried.
			o, err := writers.AwaitStill(t.Context(), w.admin, topics, 300*time.Millisecond, 5*time.Second)
			if err != nil || !o.Still() {
				t.Errorf("it grows after the fence: %+v %v", o, err)
			}
			if written, denied := flood(); written == 0 || denied == 0 {
				t.Errorf("the flood has %d written and %d refused", written, denied)
			} else {
				t.Logf("the flood had %d written and %d refused", written, denied)
			}
		}
		for partition := range int32(2) { // on either broker, at the first try
			for _, user := range []string{"literal", "prefixed", "wildcard", "hosted"} {
				if err := putOne(t.Context(), producers[user], "fence.orders", partition); !refused(err) {
					t.Errorf("%s wrote to partition %d: %v", user, partition, err)
				}
			}
			if err := putOne(t.Context(), producers["replicator"], "fence.orders", partition); err != nil {
				t.Errorf("the replicator: %v", err)
			}
		}
		if err := putOne(t.Context(), producers["wildcard"], "elsewhere", 0); err != nil {
			t.Errorf("another topic: %v", err)
		}
	}
	// A producer that starts now and may write nowhere else gets no producer id.
	if err := putOne(t.Context(), w.producer(t, "literal"), "fence.orders", 0); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Errorf("a new idempotent producer: %v", err)
	}
	if err := putOne(t.Context(), w.producer(t, "literal", kgo.DisableIdempotentWrite()), "fence.orders", 0); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("a new producer that is not idempotent: %v", err)
	}
	// Denying WRITE leaves DESCRIBE, which it implies where it is allowed.
	if ends, err := kadm.NewClient(producers["literal"]).ListEndOffsets(t.Context(), "fence.orders"); err != nil || ends.Error() != nil {
		t.Errorf("describing: %v %v", err, ends.Error())
	}
	reader := w.producer(t, "reader", kgo.ConsumeTopics("fence.orders"))
	if f := reader.PollFetches(t.Context()); f.Err() != nil || f.NumRecords() == 0 {
		t.Errorf("reading: %v", f.Err())
	}
	for range 2 {
		if err := writers.Lift(t.Context(), w.admin, p); err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"literal", "prefixed", "hosted"} {
			if err := putOne(t.Context(), producers[user], "fence.orders", 0); err != nil {
				t.Errorf("%s after the lifting: %v", user, err)
			}
		}
		if d := cmp.Diff(before, w.rulesNow(t)); d != "" {
			t.Errorf("the rules are not those of before: %s", d)
		}
	}
	if err := putOne(t.Context(), producers["wildcard"], "fence.orders", 0); !refused(err) {
		t.Errorf("the rule that stood before is gone: %v", err)
	}
}

// flood writes as a user as fast as it goes, until the returned function is called,
// which tells how many records were written and how many refused. It returns when
// the first have been written.
func (w *writersTest) flood(t *testing.T, user, topic string) func() (written, denied int) {
	t.Helper()
	cl := w.producer(t, user)
	ctx, cancel := context.WithCancel(t.Context())
	if err := putOne(ctx, cl, topic, 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan [2]int)
	go func() {
		n := [2]int{1, 0}
		for ctx.Err() == nil {
			batch := make([]*kgo.Record, 200)
			for i := range batch {
				batch[i] = &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: []byte("flood")}
			}
			for _, r := range cl.ProduceSync(ctx, batch...) {
				switch {
				case r.Err == nil:
					n[0]++
				case refused(r.Err):
					n[1]++
				}
			}
		}
		done <- n
	}()
	return func() (int, int) {
		cancel()
		n := <-done
		return n[0], n[1]
	}
}

func (w *writersTest) everybody(t *testing.T) {
	const topic = "everybody.orders"
	w.CreateTopic(t, topic, 1)
	if _, err := w.Admin().CreateACLs(t.Context(), write().Topics(topic).Allow(writers.Everybody)); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	f := writers.Fence{Cluster: w.admin, Topics: []string{topic}, Except: []string{"User:replicator"}}
	fenced := func(says string, stopped map[string]bool) {
		t.Helper()
		p, err := f.Plan(t.Context())
		if err != nil || !p.Possible || !strings.Contains(strings.Join(p.Warnings, "\n"), says) {
			t.Fatalf("%+v, %v, want a warning %q", p, err, says)
		}
		if err := writers.Apply(t.Context(), w.admin, p); err != nil {
			t.Fatal(err)
		}
		for user, stop := range stopped {
			if err := putOne(t.Context(), w.producer(t, user), topic, 0); refused(err) != stop || !stop && err != nil {
				t.Errorf("%s is to be stopped: %t, and has %v", user, stop, err)
			}
		}
		if err := writers.Lift(t.Context(), w.admin, p); err != nil {
			t.Fatal(err)
		}
	}
	fenced("User:replicator cannot write there either", map[string]bool{"late": true, "replicator": true})
	f.Principals = []string{"User:late"}
	fenced("only User:late are denied", map[string]bool{"late": true, "replicator": false, "reader": false})
}

func (w *writersTest) drift(t *testing.T) {
	const topic = "drift.orders"
	w.CreateTopic(t, topic, 1)
	w.allow(t, "literal", write().Topics(topic))
	f := writers.Fence{Cluster: w.admin, Topics: []string{topic}}
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ours := writers.Rule{Topic: topic, Principal: "User:literal"}
	theirs := writers.Rule{Topic: topic, Principal: "User:wildcard"} // by the first test's rule
	if d := cmp.Diff([]writers.Rule{ours, theirs}, p.Rules); d != "" {
		t.Fatal(d)
	}
	check := func(want writers.Drift) {
		t.Helper()
		got, err := writers.Check(t.Context(), w.admin, p)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s %v", d, err)
		}
	}
	check(writers.Drift{Missing: []writers.Rule{ours, theirs}})
	if err := writers.Apply(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
	check(writers.Drift{})
	w.allow(t, "late", write().Topics(topic))
	w.agree(t)
	check(writers.Drift{New: []writers.Rule{{Topic: topic, Principal: "User:late"}}})
	if _, err := w.Admin().DeleteACLs(t.Context(), write().Topics(topic).Deny("User:literal").DenyHosts("*")); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	check(writers.Drift{New: []writers.Rule{{Topic: topic, Principal: "User:late"}}, Missing: []writers.Rule{ours}})
	// A plan that is made anew takes what stands for somebody else's, and the old one lifts its own only.
	again, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := writers.Apply(t.Context(), w.admin, again); err != nil {
		t.Fatal(err)
	}
	if err := writers.Lift(t.Context(), w.admin, again); err != nil {
		t.Fatal(err)
	}
	if d, err := writers.Check(t.Context(), w.admin, p); err != nil || !slices.Equal(d.Missing, []writers.Rule{ours}) {
		t.Errorf("%+v, %v", d, err)
	}
	if err := writers.Lift(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
}
