package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets())...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
