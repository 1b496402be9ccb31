package mirror

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// guardOn is a guard of the topic orders, on a target with three brokers.
func guardOn(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, *renewer) {
	t.Helper()
	west, err := kfake.NewCluster(append(opts, kfake.NumBrokers(3), kfake.SeedTopics(3, "orders"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(west.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = west.ListenAddrs()
	c, err := cluster.Open(t.Context(), "west", cfg, cluster.Options{Log: testlog.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	op, err := newOpener(t.Context(), Options{From: "east", To: "west", Topics: []string{"orders"}}, c, testlog.New(t), "test", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(op.journal.Close)
	return west, newRenewer(op)
}

// A leader that changes may not know the epochs: its lanes are due at once, and
// those of others are not.
func TestGuardRenewsWhereALeaderChanged(t *testing.T) {
	west, g := guardOn(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if every := g.interval(ctx); every != 6*time.Hour {
		t.Errorf("the fence is renewed every %v, want a quarter of a day", every)
	}
	look := func() {
		t.Helper()
		if err := g.look(ctx, 6*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	look()
	for _, ln := range g.lanes {
		if wait := time.Until(ln.due); wait > firstRenewal || wait < firstRenewal/2-time.Second {
			t.Errorf("%s is first due in %v", ln.key, wait)
		}
		ln.due = time.Now()
	}
	g.renew(ctx, g.due(), 6*time.Hour)
	g.note(nil)
	if s := g.snapshot(); s.Lanes != 3 || s.Fenced != 3 || s.Renewed != 3 || s.Error != "" || s.Next == nil || time.Until(*s.Next) < 5*time.Hour {
		t.Errorf("after a round the guard is %+v", s)
	}
	if look(); len(g.due()) != 0 {
		t.Errorf("%d lanes are due though nothing has changed", len(g.due()))
	}
	moved := offsets.Lane{Topic: "orders", Partition: 1}
	if err := west.MoveTopicPartition(moved.Topic, moved.Partition, (g.lanes[moved].place.leader+1)%3); err != nil {
		t.Fatal(err)
	}
	if look(); len(g.due()) != 1 || g.due()[0].key != moved {
		t.Errorf("%d lanes are due after the leader of one has changed", len(g.due()))
	}
	g.renew(ctx, g.due(), 6*time.Hour)
	g.note(nil)
	if s := g.snapshot(); s.Renewed != 4 || s.Error != "" {
		t.Errorf("after the leader changed the guard is %+v", s)
	}
}

// saying has each broker answer for how long it remembers a producer, in milliseconds;
// "" is refused, a broker that is not named answers as it is.
func saying(t *testing.T, west *kfake.Cluster, ms map[int32]string) {
	t.Helper()
	west.ControlKey(int16(kmsg.DescribeConfigs), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		west.KeepControl()
		said, ok := ms[west.CurrentNode()]
		if !ok {
			return nil, nil, false
		}
		resp := kreq.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, asked := range kreq.(*kmsg.DescribeConfigsRequest).Resources {
			r := kmsg.NewDescribeConfigsResponseResource()
			r.ResourceType, r.ResourceName = asked.ResourceType, asked.ResourceName
			if said == "" {
				r.ErrorCode = kerr.ClusterAuthorizationFailed.Code
			} else {
				r.Configs = append(r.Configs, kmsg.DescribeConfigsResponseResourceConfig{Name: "producer.id.expiration.ms", Value: &said})
			}
			resp.Resources = append(resp.Resources, r)
		}
		return resp, nil, true
	})
}

// The fence is forgotten first where producers are forgotten first: every broker is asked,
// and the least counts. One that does not tell is not taken for the default.
func TestGuardGoesByTheBrokerThatForgetsFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says    map[int32]string
		every   time.Duration
		assumed string
	}{
		"one of three forgets after a minute": {map[int32]string{0: "86400000", 1: "60000", 2: "86400000"}, 15 * time.Second, ""},
		"all remember for a week":             {map[int32]string{0: "604800000", 1: "604800000", 2: "604800000"}, 6 * time.Hour, ""},
		"one may not be asked":                {map[int32]string{0: "86400000", 1: "", 2: "86400000"}, 15 * time.Minute, "1 of 3 brokers of west"},
		"one may not be asked, one forgets":   {map[int32]string{0: "86400000", 1: "", 2: "60000"}, 15 * time.Second, "1 of 3 brokers of west"},
		"none may be asked":                   {map[int32]string{0: "", 1: "", 2: ""}, 15 * time.Minute, "grant DESCRIBE_CONFIGS on the cluster resource of cluster west"},
	} {
		t.Run(name, func(t *testing.T) {
			west, g := guardOn(t)
			saying(t, west, c.says)
			if every := g.interval(t.Context()); every != c.every {
				t.Errorf("the fence is renewed every %v, want %v", every, c.every)
			}
			if s := g.snapshot(); s.Every != c.every || (s.Assumed == "") != (c.assumed == "") || !strings.Contains(s.Assumed, c.assumed) {
				t.Errorf("the guard says every %v, assumed %q; want %q", s.Every, s.Assumed, c.assumed)
			}
		})
	}
}

// A lane that was to wait for hours does not when brokers turn out to forget sooner.
func TestGuardHurriesWhenBrokersForgetSooner(t *testing.T) {
	west, g := guardOn(t)
	ctx := t.Context()
	every := g.interval(ctx)
	if err := g.look(ctx, every); err != nil {
		t.Fatal(err)
	}
	for _, ln := range g.lanes {
		ln.due = time.Now()
	}
	g.renew(ctx, g.due(), every)

	saying(t, west, map[int32]string{0: "86400000", 1: "86400000", 2: "40000"})
	g.asked = time.Time{}
	if every = g.interval(ctx); every != 10*time.Second {
		t.Fatalf("the fence is renewed every %v", every)
	}
	if err := g.look(ctx, every); err != nil {
		t.Fatal(err)
	}
	for _, ln := range g.lanes {
		if wait := time.Until(ln.due); wait > every {
			t.Errorf("%s waits %v, brokers forget it after 40 s", ln.key, wait)
		}
	}
}
