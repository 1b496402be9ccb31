package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/kafkatest"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// followed is a follower and what its sink was told.
type followed struct {
	*checkpoint.Follower
	t    *testing.T
	stop func()

	mu      sync.Mutex
	now     map[checkpoint.Key]checkpoint.Commit
	history map[checkpoint.Key][]int64 // offsets in their order, -1 for a deletion
	seen    map[checkpoint.Key]time.Time
	current time.Time
	said    []string // mode and reason
}

func (f *followed) Commits(commits []checkpoint.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range commits {
		f.seen[c.Key] = time.Now()
		if c.Deleted {
			delete(f.now, c.Key)
			f.history[c.Key] = append(f.history[c.Key], -1)
			continue
		}
		f.now[c.Key] = c
		f.history[c.Key] = append(f.history[c.Key], c.Offset)
	}
}

func (f *followed) Current(asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if asOf.Before(f.current) {
		f.t.Errorf("current went back from %v to %v", f.current, asOf)
	}
	f.current = asOf
}

func (f *followed) Following(mode, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, mode+": "+reason)
}

func (f *followed) following() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.said) == 0 {
		return ""
	}
	return f.said[len(f.said)-1]
}

func follow(t *testing.T, c *cluster.Cluster, change func(*checkpoint.FollowConfig)) *followed {
	t.Helper()
	cfg := checkpoint.FollowConfig{
		Cluster: c, Mode: checkpoint.FollowAuto, Interval: 500 * time.Millisecond, Safety: 2 * time.Second, Retry: 500 * time.Millisecond,
		Group: func(name string) bool { return !strings.HasPrefix(name, "not.") },
		Topic: func(name string) bool { return !strings.HasPrefix(name, "not.") && name != "__share_group_state" },
		Log:   logger(t),
	}
	if change != nil {
		change(&cfg)
	}
	fo, err := checkpoint.NewFollower(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &followed{Follower: fo, t: t, now: map[checkpoint.Key]checkpoint.Commit{}, history: map[checkpoint.Key][]int64{}, seen: map[checkpoint.Key]time.Time{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- fo.Run(ctx, f) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
		if s := fo.Stats(); s.Missed != 0 || s.Undecodable != 0 {
			t.Errorf("missed or not understood: %+v", s)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// untilCurrent waits until the follower vouches for now.
func (f *followed) untilCurrent() {
	f.t.Helper()
	now := time.Now()
	eventually(f.t, "it is current", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.current.Before(now)
	})
}

func key(group, topic string, p int32) checkpoint.Key {
	return checkpoint.Key{Group: group, Lane: offsets.Lane{Topic: topic, Partition: p}}
}

// mustAgree compares what the sink has, once it is current, with what the
// broker tells of the groups.
func (f *followed) mustAgree(admin *kadm.Client, groups ...string) {
	f.t.Helper()
	f.untilCurrent()
	want := map[string]string{}
	for _, group := range groups {
		fetched, err := admin.FetchOffsets(f.t.Context(), group)
		if err != nil {
			f.t.Fatal(err)
		}
		fetched.Each(func(o kadm.OffsetResponse) {
			if o.At >= 0 && !strings.HasPrefix(o.Topic, "not.") {
				want[fmt.Sprint(group, " ", o.Topic, " ", o.Partition)] = fmt.Sprintf("%d %q", o.At, o.Metadata)
			}
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	got := map[string]string{}
	for k, c := range f.now {
		for _, group := range groups {
			if k.Group == group && k.Type == checkpoint.Consumer {
				got[fmt.Sprint(group, " ", k.Lane.Topic, " ", k.Lane.Partition)] = fmt.Sprintf("%d %q", c.Offset, c.Metadata)
			}
		}
	}
	if !maps.Equal(got, want) {
		f.t.Errorf("followed\n%v\nthe broker has\n%v\nfollowing %q", got, want, f.following())
	}
}

func commit(t *testing.T, admin *kadm.Client, group, topic string, p int32, at int64, metadata string) {
	t.Helper()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: topic, Partition: p, At: at, LeaderEpoch: -1, Metadata: metadata})
	if err := admin.CommitAllOffsets(t.Context(), group, o); err != nil {
		t.Fatalf("commit for %s: %v", group, err)
	}
}

// consume reads a topic as a member of a group and commits what it read.
func consume(t *testing.T, c *kafkatest.Cluster, group, topic string, more ...kgo.Opt) {
	t.Helper()
	cl := c.Client(t, append([]kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}, more...)...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := cl.PollFetches(ctx).Err(); err != nil {
		t.Fatalf("consume %s as %s: %v", topic, group, err)
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatalf("commit %s as %s: %v", topic, group, err)
	}
	cl.Close()
}

// inTransaction commits offsets of a group inside a transaction and ends it.
func inTransaction(t *testing.T, c *kafkatest.Cluster, group, topic string, end kgo.TransactionEndTry, before func()) {
	t.Helper()
	s, err := kgo.NewGroupTransactSession(append(c.ClientOpts(), kgo.TransactionalID(group), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.PollFetches(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before()
	}
	if _, err := s.End(ctx, end); err != nil {
		t.Fatalf("end transaction of %s: %v", group, err)
	}
}

// Whatever kind of group commits, whichever way it is followed, the sink ends
// up with what the broker has.
func TestFollowedCommitsAreTheBrokers(t *testing.T) {
	pair := kafkatest.Pair(t)
	c := pair.Source
	for _, mode := range []string{checkpoint.FollowTail, checkpoint.FollowPoll} {
		t.Run(mode, func(t *testing.T) {
			topic, other := kafkatest.Topic(t, "a"), kafkatest.Topic(t, "b")
			c.CreateTopic(t, topic, 2)
			c.CreateTopic(t, other, 1)
			putEach(t, c, topic, 2, 20)
			admin := c.Admin()
			name := func(group string) string { return topic + "." + group }
			all := []string{name("classic"), name("next"), name("tx"), name("plain"), name("before"), name("dead")}
			commit(t, admin, name("before"), topic, 0, 7, "was there before")
			commit(t, admin, "not."+topic, topic, 0, 7, "")

			f := follow(t, openCluster(t, "east", c.Bootstrap(), nil), func(cfg *checkpoint.FollowConfig) { cfg.Mode = mode })
			f.mustAgree(admin, all...)
			if want := mode + ": "; f.following() != want {
				t.Errorf("following %q, want %q", f.following(), want)
			}

			consume(t, c, name("classic"), topic)
			consume(t, c, name("next"), topic, kgo.ServerSideBalancer())
			inTransaction(t, c, name("tx"), topic, kgo.TryCommit, nil)
			for i := range int64(20) {
				commit(t, admin, name("plain"), topic, 0, i, fmt.Sprint("at ", i))
			}
			f.mustAgree(admin, all...)
			commit(t, admin, name("plain"), topic, 0, 3, "back")
			commit(t, admin, name("plain"), other, 0, 0, "")
			commit(t, admin, name("dead"), topic, 1, 5, "")
			commit(t, admin, name("dead"), other, 0, 5, "")
			f.mustAgree(admin, all...)

			if _, err := admin.DeleteOffsets(t.Context(), name("plain"), kadm.TopicsSet{topic: {0: {}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := admin.DeleteGroups(t.Context(), name("dead"), name("classic")); err != nil {
				t.Fatal(err)
			}
			f.mustAgree(admin, all...)
			if _, err := admin.DeleteTopics(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the deleted topic's commit is gone", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				_, there := f.now[key(name("plain"), other, 0)]
				return !there
			})
			f.mustAgree(admin, all...)
			f.stop()
			for k, h := range f.history {
				if strings.HasPrefix(k.Group, "not.") {
					t.Errorf("%v was not asked for", k)
				}
				for i := 1; i < len(h); i++ {
					if k == key(name("plain"), topic, 0) && h[i] < h[i-1] && h[i] != 3 && h[i] != -1 {
						t.Errorf("%v went back: %v", k, h)
					}
				}
			}
			t.Logf("%+v", f.Stats())
		})
	}
}

// openTransaction commits an offset of a group in a transaction, and returns
// what ends it.
func openTransaction(t *testing.T, cl *kgo.Client, group, topic string, at int64) (end func(commit bool)) {
	t.Helper()
	ctx := t.Context()
	check := func(code int16, err error) {
		t.Helper()
		if err == nil {
			err = kerr.ErrorForCode(code)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis = &group, 60000
	id, err := init.RequestWith(ctx, cl)
	check(0, err)
	check(id.ErrorCode, nil)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = group, id.ProducerID, id.ProducerEpoch, group
	added, err := add.RequestWith(ctx, cl)
	check(0, err)
	check(added.ErrorCode, nil)
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch = group, group, id.ProducerID, id.ProducerEpoch
	ct, cp := kmsg.NewTxnOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitRequestTopicPartition()
	cp.Offset, ct.Topic = at, topic
	ct.Partitions = append(ct.Partitions, cp)
	commit.Topics = append(commit.Topics, ct)
	committed, err := commit.RequestWith(ctx, cl)
	check(0, err)
	check(committed.Topics[0].Partitions[0].ErrorCode, nil)
	return func(commit bool) {
		t.Helper()
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = group, id.ProducerID, id.ProducerEpoch, commit
		resp, err := req.RequestWith(ctx, cl)
		check(0, err)
		check(resp.ErrorCode, nil)
	}
}

// An open transaction holds back all groups of its partition of the log. They
// are polled until it ends; nothing goes back to what was before, not even
// when the transaction was open before the tail began.
func TestFollowBesideAnOpenTransaction(t *testing.T) {
	c := kafkatest.Pair(t).Source
	topic := kafkatest.Topic(t, "a")
	c.CreateTopic(t, topic, 1)
	putEach(t, c, topic, 1, 100)
	admin, cl := c.Admin(), c.Client(t)
	group := func(i int) string { return fmt.Sprint(topic, ".", i) } // some in the transaction's partition
	kept, aborted := topic+".kept", topic+".aborted"
	commit(t, admin, kept, topic, 0, 1, "")
	endKept, endAborted := openTransaction(t, cl, kept, topic, 50), openTransaction(t, cl, aborted, topic, 60)
	all := []string{kept, aborted}
	for i := range 12 {
		all = append(all, group(i))
		commit(t, admin, group(i), topic, 0, 1, "")
		commit(t, admin, group(i), topic, 0, 2, "")
	}
	f := follow(t, openCluster(t, "east", c.Bootstrap(), nil), nil)
	f.mustAgree(admin, all...)
	for at := int64(3); at < 8; at++ {
		for i := range 12 {
			commit(t, admin, group(i), topic, 0, at, "")
		}
	}
	f.mustAgree(admin, all...)
	eventually(t, "it says what holds it back", func() bool { return strings.Contains(f.following(), "a transaction may be open") })
	for i := range 12 {
		commit(t, admin, group(i), topic, 0, 8, "")
	}
	f.mustAgree(admin, all...)
	endKept(true)
	endAborted(false)
	eventually(t, "all is well", func() bool { return f.following() == "tail: " })
	f.mustAgree(admin, all...)
	f.stop()
	for k, h := range f.history {
		for i := 1; i < len(h); i++ {
			if strings.HasPrefix(k.Group, topic) && h[i] < h[i-1] {
				t.Errorf("%v went back: %v", k, h)
			}
		}
	}
	if f.now[key(kept, topic, 0)].Offset != 50 {
		t.Errorf("the transaction's commit is %+v", f.now[key(kept, topic, 0)])
	}
	t.Logf("%+v", f.Stats())
}

// A commit reaches the sink of a tail within tens of milliseconds, and is
// vouched for about a second later.
func TestFollowIsFast(t *testing.T) {
	c := kafkatest.Pair(t).Source
	topic := kafkatest.Topic(t, "a")
	c.CreateTopic(t, topic, 1)
	f := follow(t, openCluster(t, "east", c.Bootstrap(), nil), nil)
	f.untilCurrent()
	var all []time.Duration
	for i := range int64(50) {
		time.Sleep(10 * time.Millisecond) // a rhythm
		commit(t, c.Admin(), topic, topic, 0, i, "")
		acknowledged := time.Now()
		var at time.Time
		for deadline := acknowledged.Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			f.mu.Lock()
			got, there := f.now[key(topic, topic, 0)]
			at = f.seen[key(topic, topic, 0)]
			f.mu.Unlock()
			if there && got.Offset == i {
				break
			}
		}
		all = append(all, at.Sub(acknowledged))
	}
	slices.Sort(all)
	t.Logf("after the acknowledgement: median %v, p90 %v, worst %v", all[25], all[45], all[49])
	if all[25] > 300*time.Millisecond { // the longest are the machine's
		t.Errorf("commits took %v", all)
	}
}

// A broker that stops and comes back costs time, and no commit.
func TestFollowOverABrokerRestart(t *testing.T) {
	c := kafkatest.Pair(t).Source
	topic := kafkatest.Topic(t, "a")
	c.CreateTopic(t, topic, 1)
	admin := c.Admin()
	groups := []string{topic + ".1", topic + ".2", topic + ".3", topic + ".4"}
	tailing := follow(t, openCluster(t, "east", c.Bootstrap(), nil), nil)
	polling := follow(t, openCluster(t, "east", c.Bootstrap(), nil), func(cfg *checkpoint.FollowConfig) { cfg.Mode = checkpoint.FollowPoll })
	for i, g := range groups {
		commit(t, admin, g, topic, 0, int64(i), "before")
	}
	tailing.mustAgree(admin, groups...)
	if err := c.Broker(1).Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Broker(1).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, g := range groups {
		commit(t, admin, g, topic, 0, int64(10*i), "after")
	}
	for _, f := range []*followed{tailing, polling} {
		f.mustAgree(admin, groups...)
		eventually(t, "all is well", func() bool { return strings.HasSuffix(f.following(), ": ") })
		t.Logf("%+v %q", f.Stats(), f.said)
	}
}

// With READ on __consumer_offsets it tails, without it polls and says what to
// grant, whenever that changes. A group or topic that may not be seen any more
// is not taken for deleted.
func TestFollowWithTheRightsItHas(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Config{Name: "east", SASL: []string{kafkatest.Plain}, Users: []string{"replicator"}, Authorizer: true})
	const topic, group = "orders", "orders.group"
	c.CreateTopic(t, topic, 1)
	admin := c.Admin()
	give := func(b *kadm.ACLBuilder) {
		t.Helper()
		if err := c.Allow(t.Context(), "replicator", b); err != nil {
			t.Fatal(err)
		}
	}
	take := func(b *kadm.ACLBuilder) {
		t.Helper()
		res, err := admin.DeleteACLs(t.Context(), b.Allow("User:replicator").AllowHosts("*"))
		if err != nil || len(res) != 1 || len(res[0].Deleted) != 1 {
			t.Fatalf("take a right away: %+v, %v", res, err)
		}
	}
	readOffsets := func() *kadm.ACLBuilder { return kadm.NewACLs().Operations(kadm.OpRead).Topics("__consumer_offsets") }
	describeOffsets := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Operations(kadm.OpDescribe).Topics("__consumer_offsets")
	}
	seeGroup := func() *kadm.ACLBuilder { return kadm.NewACLs().Operations(kadm.OpDescribe).Groups(group) }
	seeTopic := func() *kadm.ACLBuilder { return kadm.NewACLs().Operations(kadm.OpDescribe).Topics(topic) }
	give(seeGroup())
	give(seeTopic())
	commit(t, admin, group, topic, 0, 1, "")

	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = c.Bootstrap()
	cfg.SASL.Mechanism, cfg.SASL.Username, cfg.SASL.Password = kafkatest.Plain, "replicator", cluster.LiteralSecret(kafkatest.Password("replicator"))
	east, err := cluster.Open(t.Context(), "east", cfg, cluster.Options{Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(east.Close)
	f := follow(t, east, nil)
	says := func(want string) {
		t.Helper()
		eventually(t, "it follows by "+want, func() bool { return strings.HasPrefix(f.following(), want) })
		commit(t, admin, group, topic, 0, time.Now().UnixMilli(), want)
		f.mustAgree(admin, group)
	}
	grant := func() {
		t.Helper()
		if want := "grant READ on topic __consumer_offsets of cluster east to follow commits within a second"; !strings.Contains(f.following(), want) {
			t.Errorf("it says %q, want %q", f.following(), want)
		}
	}
	says("poll: ")
	grant()
	give(describeOffsets()) // is not enough
	time.Sleep(time.Second) // two tries, which must not succeed
	says("poll: ")
	grant()
	give(readOffsets())
	says("tail: ")
	take(readOffsets())
	says("poll: ")
	grant()
	give(readOffsets())
	says("tail: ")
	for what, right := range map[string]func() *kadm.ACLBuilder{"group " + group: seeGroup, "topic " + topic: seeTopic} {
		take(right())
		eventually(t, what+" cannot be seen any more", func() bool { return strings.Contains(f.following(), "grant DESCRIBE on "+what) })
		give(right())
		says("tail: ")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, h := range f.history {
		if slices.Contains(h, -1) {
			t.Errorf("%v was taken for deleted: %v", k, h)
		}
	}
	t.Logf("%+v %q", f.Stats(), f.said)
}

// Share groups' start offsets are followed where the cluster has them.
func TestFollowShareGroups(t *testing.T) {
	c := kafkatest.Pair(t).Source
	topic := kafkatest.Topic(t, "a")
	c.CreateTopic(t, topic, 1)
	putEach(t, c, topic, 1, 20)
	f := follow(t, openCluster(t, "east", c.Bootstrap(), nil), func(cfg *checkpoint.FollowConfig) { cfg.Shares = true })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := c.Client(t, kgo.ShareGroup(topic), kgo.ConsumeTopics(topic))
	go func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx)
		}
	}()
	eventually(t, "the group is there", func() bool {
		d, err := c.Admin().DescribeShareGroupOffsets(ctx, topic)
		return err == nil && len(d[topic].Offsets) > 0
	})
	cancel()
	cl.Close()
	share := checkpoint.Key{Group: topic, Type: checkpoint.Share, Lane: offsets.Lane{Topic: topic}}
	for _, at := range []int64{12, 4} {
		var o kadm.Offsets
		o.Add(kadm.Offset{Topic: topic, At: at, LeaderEpoch: -1})
		eventually(t, "the start offset is set", func() bool {
			r, err := c.Admin().AlterShareGroupOffsets(t.Context(), topic, o)
			return err == nil && r.Ok()
		})
		eventually(t, fmt.Sprintf("the start offset %d is followed", at), func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.now[share].Offset == at
		})
	}
	if _, err := c.Admin().DeleteGroups(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deletion is followed", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, there := f.now[share]
		return !there
	})
}
