package writers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"replicator/pkg/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fake struct {
	*kfake.Cluster
	t *testing.T
	c *cluster.Cluster // as a super user
}

func newFake(t *testing.T, o ...kfake.Opt) *fake {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(2), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "secret"), kfake.SeedTopics(2, "orders", "billing"),
	}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = k.ListenAddrs()
	cfg.SASL = cluster.SASL{Mechanism: cluster.Plain, Username: "admin", Password: cluster.LiteralSecret("secret"), AllowPlaintext: true}
	c, err := cluster.Open(t.Context(), "east", cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &fake{k, t, c}
}

func (f *fake) allow(user, topic string) {
	f.t.Helper()
	if _, err := f.c.Admin().CreateACLs(f.t.Context(), kadm.NewACLs().Operations(kadm.OpWrite).Topics(topic).Allow("User:"+user)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) plan(topics ...string) Plan {
	f.t.Helper()
	p, err := Fence{Cluster: f.c, Topics: topics}.Plan(f.t.Context())
	if err != nil || !p.Possible {
		f.t.Fatalf("%+v, %v", p, err)
	}
	return p
}

// standing are the rules that stand.
func (f *fake) standing() map[Rule]bool {
	f.t.Helper()
	acls, err := listACLs(f.t.Context(), f.c)
	if err != nil {
		f.t.Fatal(err)
	}
	return rulesOf(acls)
}

func TestRulesOfAPlan(t *testing.T) {
	allow := func(name, principal string, more ...func(*acl)) acl {
		a := acl{name: name, principal: principal, host: anyHost, operation: kmsg.ACLOperationWrite}
		for _, m := range more {
			m(&a)
		}
		return a
	}
	prefixed := func(a *acl) { a.prefixed = true }
	all := func(a *acl) { a.operation = kmsg.ACLOperationAll }
	read := func(a *acl) { a.operation = kmsg.ACLOperationRead }
	denied := func(a *acl) { a.deny = true }
	hosted := func(a *acl) { a.host = "10.0.0.1" }
	for _, c := range []struct {
		name string
		acls []acl
		f    Fence
		want string // rules, those that existed in parentheses
	}{
		{"literal", []acl{allow("a", "User:x"), allow("c", "User:y")}, Fence{}, "a:User:x"},
		{"prefixed", []acl{allow("", "User:x", prefixed)}, Fence{}, "a:User:x b:User:x"},
		{"a prefix that is not", []acl{allow("ab", "User:x", prefixed)}, Fence{}, ""},
		{"a prefix is no name", []acl{allow("*", "User:x", prefixed)}, Fence{}, ""},
		{"wildcard", []acl{allow("*", "User:x")}, Fence{}, "a:User:x b:User:x"},
		{"all", []acl{allow("a", "User:x", all)}, Fence{}, "a:User:x"},
		{"from one host", []acl{allow("a", "User:x", hosted)}, Fence{}, "a:User:x"},
		{"several ways", []acl{allow("a", "User:x"), allow("*", "User:x"), allow("a", "User:x", all, prefixed)}, Fence{}, "a:User:x b:User:x"},
		{"readers", []acl{allow("a", "User:x", read)}, Fence{}, ""},
		{"other denials are not ours", []acl{allow("a", "User:x"), allow("a", "User:x", denied, all), allow("a", "User:x", denied, hosted), allow("*", "User:x", denied)}, Fence{}, "a:User:x"},
		{"ours already", []acl{allow("a", "User:x"), allow("a", "User:x", denied)}, Fence{}, "(a:User:x)"},
		{"who goes on", []acl{allow("*", "User:x"), allow("a", "User:y")}, Fence{Except: []string{"User:x"}}, "a:User:y"},
		{"everybody", []acl{allow("a", "User:*"), allow("a", "User:x")}, Fence{Except: []string{"User:r"}}, "a:User:* a:User:x"},
		{"everybody, by name", []acl{allow("a", "User:*"), allow("a", "User:y")}, Fence{Principals: []string{"User:x"}}, "a:User:x a:User:y b:User:x"},
		{"named besides", []acl{allow("a", "User:y")}, Fence{Principals: []string{"User:x"}}, "a:User:x a:User:y b:User:x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Plan{Topics: []string{"a", "b"}, Except: c.f.Except, Named: c.f.Principals}
			p.fill(c.acls)
			var got []string
			for _, r := range p.Rules {
				s := r.Topic + ":" + r.Principal
				if r.Existed {
					s = "(" + s + ")"
				}
				got = append(got, s)
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whatever ACLs there are, whoever may write before the plan may not after it, but for
// those that go on, who may as before.
func TestAPlanStopsWhoMayWrite(t *testing.T) {
	principals := []string{"User:a", "User:b", "User:r", Everybody}
	topics := []string{"t", "tt", "u"}
	// By the rules of Kafka's authorizer: a denial wins.
	may := func(acls []acl, who, topic, host string) bool {
		allowed := false
		for _, a := range acls {
			applies := a.covers(topic) && (a.principal == who || a.principal == Everybody) && (a.host == anyHost || a.host == host) && a.writing()
			if applies && a.deny {
				return false
			}
			allowed = allowed || applies
		}
		return allowed
	}
	rapid.Check(t, func(t *rapid.T) {
		acls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) acl {
			return acl{
				name: rapid.SampledFrom([]string{"t", "tt", "u", "*", "x"}).Draw(t, "name"), prefixed: rapid.Bool().Draw(t, "prefixed"),
				principal: rapid.SampledFrom(principals).Draw(t, "principal"), host: rapid.SampledFrom([]string{anyHost, "h"}).Draw(t, "host"),
				operation: rapid.SampledFrom([]kmsg.ACLOperation{kmsg.ACLOperationWrite, kmsg.ACLOperationAll, kmsg.ACLOperationRead}).Draw(t, "operation"),
				deny:      rapid.IntRange(0, 4).Draw(t, "deny") == 0,
			}
		}), 0, 8).Draw(t, "acls")
		p := Plan{Topics: []string{"t", "tt"}, Except: []string{"User:r"}}
		p.fill(acls)
		after := slices.Clone(acls)
		everybody := false
		for _, r := range p.Rules {
			everybody = everybody || r.Principal == Everybody
			after = append(after, acl{name: r.Topic, principal: r.Principal, host: anyHost, operation: kmsg.ACLOperationWrite, deny: true})
		}
		for _, who := range []string{"User:a", "User:b", "User:r", "User:new"} {
			for _, topic := range topics {
				for _, host := range []string{"h", "g"} {
					was, is := may(acls, who, topic, host), may(after, who, topic, host)
					switch {
					case topic == "u" || who == "User:r" && !everybody:
						if is != was {
							t.Fatalf("%s may write to %s from %s: %t, was %t; %v", who, topic, host, is, was, p.Rules)
						}
					case is && who != "User:r":
						t.Fatalf("%s writes to %s from %s; %v", who, topic, host, p.Rules)
					}
				}
			}
		}
	})
}

func TestPlanRefusesNonsense(t *testing.T) {
	f := newFake(t, kfake.EnableACLs())
	for says, fence := range map[string]Fence{
		"no topics":                      {},
		"write User:replicator":          {Topics: []string{"orders"}, Except: []string{"replicator"}},
		"write User:app":                 {Topics: []string{"orders"}, Principals: []string{"app"}},
		"is to go on and to be kept out": {Topics: []string{"orders"}, Principals: []string{"User:a"}, Except: []string{"User:a"}},
	} {
		fence.Cluster = f.c
		if _, err := fence.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	f.allow("x", "orders")
	p := f.plan("orders")
	p.ClusterID = "another"
	for _, act := range []func(context.Context, *cluster.Cluster, Plan) error{Apply, Lift} {
		if err := act(t.Context(), f.c, p); err == nil || !strings.Contains(err.Error(), `made for cluster id "another"`) {
			t.Errorf("a plan of another cluster: %v", err)
		}
	}
	if len(f.standing()) != 0 {
		t.Error("something was made")
	}
}

func TestAPlanSurvivesItsFile(t *testing.T) {
	f := newFake(t, kfake.EnableACLs())
	f.allow("x", "orders")
	f.allow("*", "billing")
	p, err := Fence{Cluster: f.c, Topics: []string{"orders", "billing", "orders"}, Except: []string{"User:r"}}.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Plan
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, back); d != "" || len(p.Rules) != 2 || len(p.Topics) != 2 {
		t.Errorf("%s %s", d, b)
	}
}

func TestApplyAndLiftInParts(t *testing.T) {
	f := newFake(t, kfake.EnableACLs())
	f.allow("*", "*")
	var topics []string
	for i := range rulesPerRequest + 7 {
		topics = append(topics, fmt.Sprintf("t%04d", i))
	}
	p := f.plan(topics...)
	if err := Apply(t.Context(), f.c, p); err != nil {
		t.Fatal(err)
	}
	if n := len(f.standing()); n != len(topics) {
		t.Errorf("%d rules stand, want %d", n, len(topics))
	}
	if err := Lift(t.Context(), f.c, p); err != nil {
		t.Fatal(err)
	}
	if n := len(f.standing()); n != 0 {
		t.Errorf("%d rules stand", n)
	}
}

func TestAPartThatFailsIsTold(t *testing.T) {
	f := newFake(t, kfake.EnableACLs())
	f.allow("x", "orders")
	f.allow("x", "billing")
	p := f.plan("orders", "billing")
	// The second rule is refused: what was asked for the first is done beforehand.
	if err := create(t.Context(), f.c, p.Rules[:1]); err != nil {
		t.Fatal(err)
	}
	f.ControlKey(int16(kmsg.CreateACLs), func(r kmsg.Request) (kmsg.Response, error, bool) {
		resp := r.ResponseKind().(*kmsg.CreateACLsResponse)
		for i := range r.(*kmsg.CreateACLsRequest).Creations {
			res := kmsg.NewCreateACLsResponseResult()
			if i == 1 {
				res.ErrorCode, res.ErrorMessage = kerr.PolicyViolation.Code, new("no more")
			}
			resp.Results = append(resp.Results, res)
		}
		return resp, nil, true
	})
	err := Apply(t.Context(), f.c, p)
	var stands *StandsError
	if !errors.As(err, &stands) || !errors.Is(err, kerr.PolicyViolation) || stands.Unknown {
		t.Fatal(err)
	}
	if d := cmp.Diff([][]Rule{p.Rules[:1], p.Rules[1:]}, [][]Rule{stands.Standing, stands.Missing}); d != "" {
		t.Error(d)
	}
	for _, part := range []string{"DENY WRITE on topic orders for User:x: POLICY_VIOLATION", `"no more"`, "1 of 2 stand: repeat it, or lift the fence"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if err := Apply(t.Context(), f.c, p); err != nil || len(f.standing()) != 2 {
		t.Errorf("again: %v, %v", err, f.standing())
	}
	if err := Lift(t.Context(), f.c, p); err != nil || len(f.standing()) != 0 {
		t.Errorf("lifted: %v, %v", err, f.standing())
	}
}

func TestARuleOfSomebodyElseThatIsGone(t *testing.T) {
	f := newFake(t, kfake.EnableACLs())
	f.allow("x", "orders")
	f.allow("y", "orders")
	deny := kadm.NewACLs().Operations(kadm.OpWrite).Topics("orders").Deny("User:x").DenyHosts("*")
	if _, err := f.c.Admin().CreateACLs(t.Context(), deny); err != nil {
		t.Fatal(err)
	}
	p := f.plan("orders")
	if _, err := f.c.Admin().DeleteACLs(t.Context(), deny.ResourcePatternType(kadm.ACLPatternLiteral)); err != nil {
		t.Fatal(err)
	}
	err := Apply(t.Context(), f.c, p)
	var stands *StandsError
	if !errors.As(err, &stands) || !strings.Contains(err.Error(), "make a new plan") || len(stands.Missing) != 1 || stands.Missing[0].Principal != "User:x" || len(stands.Standing) != 1 {
		t.Errorf("%v: %+v", err, stands)
	}
	if err := Lift(t.Context(), f.c, p); err != nil || len(f.standing()) != 0 {
		t.Errorf("lifted: %v, %v", err, f.standing())
	}
}

// emptyAt has one broker show no ACLs while behind is set.
func (f *fake) emptyAt(node int32, behind *atomic.Bool) {
	f.ControlKey(int16(kmsg.DescribeACLs), func(r kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if f.CurrentNode() == node && behind.Load() {
			return r.ResponseKind(), nil, true
		}
		return nil, nil, false
	})
}

func TestApplyWaitsForEveryBroker(t *testing.T) {
	f := newFake(t, kfake.EnableACLs())
	f.allow("x", "orders")
	p := f.plan("orders")
	var behind atomic.Bool
	behind.Store(true)
	f.emptyAt(1, &behind)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := Apply(ctx, f.c, p)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "broker 1 lacks 1 rules, the first: DENY WRITE on topic orders for User:x") {
		t.Errorf("error %v", err)
	}
	var stands *StandsError
	if !errors.As(err, &stands) || stands.Unknown || len(stands.Standing) != 1 {
		t.Errorf("what stands is not told when the context is over: %+v", stands)
	}
	applied := make(chan error)
	go func() { applied <- Apply(t.Context(), f.c, p) }()
	select {
	case err := <-applied:
		t.Fatalf("returned before the broker knew: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	behind.Store(false)
	if err := <-applied; err != nil {
		t.Error(err)
	}
}

// The lasting fence of a link is lifted by the rules that stand, also that of a topic that
// was deleted; what others have made stays.
func TestTheFenceOfALinkIsLiftedWithTheRulesOfDeletedTopics(t *testing.T) {
	f := newFake(t)
	f.allow("replicator", "orders")
	f.allow("replicator", "billing")
	p, err := LinkFence(t.Context(), f.c, []string{"orders", "billing"}, "User:replicator")
	if err != nil || !p.Possible {
		t.Fatalf("%+v, %v", p, err)
	}
	others := []Rule{{Topic: "orders", Principal: "User:app"}, {Topic: "stock", Principal: "User:replicator"}}
	if err := errors.Join(Apply(t.Context(), f.c, p), create(t.Context(), f.c, others)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.c.Admin().DeleteTopic(t.Context(), "billing"); err != nil {
		t.Fatal(err)
	}
	ofLink := func(topic string) bool { return topic == "orders" || topic == "billing" }
	standing, err := StandingLinkFence(t.Context(), f.c, "User:replicator", ofLink)
	if err != nil || !standing.Possible {
		t.Fatalf("%+v, %v", standing, err)
	}
	if d := cmp.Diff(p.Rules, standing.Rules); d != "" {
		t.Error(d)
	}
	if err := Lift(t.Context(), f.c, standing); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[Rule]bool{others[0]: true, others[1]: true}, f.standing()); d != "" {
		t.Errorf("what stands: %s", d)
	}
	again, err := StandingLinkFence(t.Context(), f.c, "User:replicator", ofLink)
	if err != nil || len(again.Rules) != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	if err := Lift(t.Context(), f.c, again); err != nil {
		t.Errorf("lifting nothing: %v", err)
	}
}

func TestNoAuthorizer(t *testing.T) {
	f := newFake(t)
	for _, code := range []*kerr.Error{kerr.SecurityDisabled, kerr.ClusterAuthorizationFailed} {
		f.ControlKey(int16(kmsg.DescribeACLs), func(r kmsg.Request) (kmsg.Response, error, bool) {
			resp := r.ResponseKind().(*kmsg.DescribeACLsResponse)
			resp.ErrorCode = code.Code
			return resp, nil, true
		})
		p, err := Fence{Cluster: f.c, Topics: []string{"orders"}}.Plan(t.Context())
		if err != nil || p.Possible || !strings.Contains(p.Why, "--writers-stopped") {
			t.Errorf("%v: %+v, %v", code, p, err)
		}
	}
}
