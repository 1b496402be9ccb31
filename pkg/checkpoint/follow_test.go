package checkpoint

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// told is a sink that remembers.
type told struct {
	mu      sync.Mutex
	commits []Commit
	now     map[Key]Commit
	current time.Time
	says    string
}

func (s *told) Commits(commits []Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits = append(s.commits, commits...)
	for _, c := range commits {
		if s.now[c.Key] = c; c.Deleted {
			delete(s.now, c.Key)
		}
	}
}

func (s *told) Current(asOf time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = asOf
}

func (s *told) Following(mode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says = mode + ": " + reason
}

func (s *told) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) { // between two looks
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("not in time: %s; following %q, commits %+v", what, s.says, s.commits)
		}
	}
}

func (s *told) untilCurrent(t *testing.T) {
	t.Helper()
	now := time.Now()
	s.until(t, "it is current", func() bool { return !s.current.Before(now) })
}

// fake is a fake cluster with a topic, and a follower of it.
type fake struct {
	*kfake.Cluster
	admin *kadm.Client
	*told
	*Follower
}

func startFake(t *testing.T, mode string, opts ...kfake.Opt) *fake {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(2), kfake.SeedTopics(4, "orders", "payments")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = k.ListenAddrs()
	cfg.Timeouts.Retry = time.Second
	east, err := cluster.Open(t.Context(), "east", cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(east.Close)
	f := &fake{Cluster: k, admin: kadm.NewClient(cl), told: &told{now: map[Key]Commit{}}}
	f.Follower, err = NewFollower(FollowConfig{
		Cluster: east, Mode: mode, Interval: 50 * time.Millisecond, Safety: 200 * time.Millisecond, Retry: 50 * time.Millisecond,
		Group: func(name string) bool { return name != "unwanted" },
		Topic: func(name string) bool { return name != "payments" },
		Log:   testlog.New(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fake) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, f.told) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (f *fake) commit(t *testing.T, group, topic string, p int32, at int64) {
	t.Helper()
	o := kadm.Offsets{}
	o.Add(kadm.Offset{Topic: topic, Partition: p, At: at, LeaderEpoch: -1})
	if err := f.admin.CommitAllOffsets(t.Context(), group, o); err != nil {
		t.Fatal(err)
	}
}

func orders(group string, p int32) Key {
	return Key{Group: group, Lane: offsets.Lane{Topic: "orders", Partition: p}}
}

func TestPollingTellsOnlyWhatChanged(t *testing.T) {
	f := startFake(t, FollowPoll)
	for i := range 120 { // three requests
		f.commit(t, fmt.Sprintf("g%03d", i), "orders", 0, int64(i))
	}
	f.commit(t, "unwanted", "orders", 0, 1)
	f.commit(t, "g000", "payments", 0, 1)
	f.run(t)
	f.untilCurrent(t)
	f.commit(t, "g007", "orders", 0, 3)
	f.untilCurrent(t)
	if _, err := f.admin.DeleteGroups(t.Context(), "g008"); err != nil {
		t.Fatal(err)
	}
	f.untilCurrent(t)
	f.told.mu.Lock()
	defer f.told.mu.Unlock()
	if len(f.commits) != 122 {
		t.Errorf("told %d commits, want 122: %+v", len(f.commits), f.commits)
	}
	if last := f.commits[len(f.commits)-2:]; last[0].Key != orders("g007", 0) || last[0].Offset != 3 || last[1].Key != orders("g008", 0) || !last[1].Deleted {
		t.Errorf("the last were %+v", last)
	}
	if f.says != "poll: " {
		t.Errorf("it says %q", f.says)
	}
}

// One group's coordinator is away: the others are read, nothing is taken for
// deleted, nobody vouches for the whole, and the reason names group and cause.
func TestAGroupThatCannotBeReadHoldsUpNoOther(t *testing.T) {
	f := startFake(t, FollowPoll)
	f.commit(t, "lost", "orders", 0, 1)
	f.commit(t, "fine", "orders", 0, 1)
	f.run(t)
	f.untilCurrent(t)
	var away sync.Once
	over := make(chan struct{})
	t.Cleanup(func() { away.Do(func() { close(over) }) })
	f.ControlKey(int16(kmsg.OffsetFetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-over:
			return nil, nil, false
		default:
		}
		f.KeepControl()
		req := kreq.(*kmsg.OffsetFetchRequest)
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		for _, g := range req.Groups {
			rg := kmsg.NewOffsetFetchResponseGroup()
			rg.Group = g.Group
			if g.Group == "lost" {
				rg.ErrorCode = kerr.GroupAuthorizationFailed.Code
			} else {
				rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				rp.Offset = 9
				rt := kmsg.NewOffsetFetchResponseGroupTopic()
				rt.Topic = "orders"
				rt.TopicID = f.TopicInfo("orders").TopicID
				rt.Partitions = append(rt.Partitions, rp)
				rg.Topics = append(rg.Topics, rt)
			}
			resp.Groups = append(resp.Groups, rg)
		}
		return resp, nil, true
	})
	f.until(t, "the other group is read", func() bool { return f.now[orders("fine", 0)].Offset == 9 })
	f.until(t, "it says what is wrong", func() bool {
		return strings.Contains(f.says, "group lost") && strings.Contains(f.says, "GROUP_AUTHORIZATION_FAILED") && strings.Contains(f.says, "grant DESCRIBE on group lost of cluster east")
	})
	f.told.mu.Lock()
	before := f.current
	f.told.mu.Unlock()
	polls := f.Stats().Polls
	f.until(t, "more polls", func() bool { return f.Stats().Polls > polls+3 })
	f.told.mu.Lock()
	if !f.current.Equal(before) || f.now[orders("lost", 0)].Offset != 1 {
		t.Errorf("current moved from %v to %v, the lost group is %+v", before, f.current, f.now[orders("lost", 0)])
	}
	f.told.mu.Unlock()
	away.Do(func() { close(over) })
	f.untilCurrent(t)
}

// The fake cluster does not write __consumer_offsets itself; records written
// into a topic of that name are what a broker would write.
func TestTailStandsAgainstAPollAndAnUnknownVersionAgainstTheTail(t *testing.T) {
	f := startFake(t, FollowAuto, kfake.SeedTopics(1, offsetsTopic))
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.ListenAddrs()...), kgo.DefaultProduceTopic(offsetsTopic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	write := func(version int16, at int64) {
		t.Helper()
		key := kmsg.OffsetCommitKey{Version: 1, Group: "g", Topic: "orders"}
		value := (&kmsg.OffsetCommitValue{Version: min(version, lastCommitValue), Offset: at, CommitTimestamp: 1000 + at}).AppendTo(nil)
		value[1] = byte(version)
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Key: key.AppendTo(nil), Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	f.commit(t, "g", "orders", 0, 1)
	write(3, 1)
	f.run(t)
	f.untilCurrent(t)
	f.until(t, "it tails", func() bool { return f.says == "tail: " })

	write(4, 5) // the coordinator still tells 1
	f.until(t, "the tailed commit", func() bool { return f.now[orders("g", 0)].Offset == 5 })
	polls := f.Stats().Polls
	f.until(t, "more polls", func() bool { return f.Stats().Polls > polls+3 })
	f.told.mu.Lock()
	if c := f.now[orders("g", 0)]; c.Offset != 5 || !c.Time.Equal(time.UnixMilli(1005)) {
		t.Errorf("a poll overruled the tail: %+v", c)
	}
	f.told.mu.Unlock()
	f.commit(t, "g", "orders", 0, 5) // the coordinator has caught up

	write(5, 6)
	f.commit(t, "g", "orders", 0, 6)
	f.until(t, "it polls and says why", func() bool {
		return strings.HasPrefix(f.says, "poll: ") && strings.Contains(f.says, "value of version 5, which is not known here")
	})
	f.until(t, "the commit it could not read", func() bool { return f.now[orders("g", 0)].Offset == 6 })
	f.untilCurrent(t)
	if s := f.Stats(); s.Undecodable != 1 || s.Missed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAPollAndTheTailAgreeWhoIsRight(t *testing.T) {
	k := orders("g", 0)
	at := func(offset int64) *Commit { return &Commit{Key: k, Offset: offset} }
	now := time.Now()
	later := now.Add(2 * coordinatorLag)
	b := newBook()
	if v := b.polled(at(5), now); v != news {
		t.Errorf("first seen: %v", v)
	}
	if v := b.polled(at(5), now); v != same {
		t.Errorf("seen again: %v", v)
	}
	b.tail(at(7))
	if v := b.polled(at(5), now); v != aside {
		t.Errorf("an older poll: %v", v)
	}
	if v := b.gone(k, now); v != aside {
		t.Errorf("not in an older poll: %v", v)
	}
	b.tail(&Commit{Key: k, Deleted: true})
	if v := b.polled(at(7), now); v != aside {
		t.Errorf("deleted since: %v", v)
	}
	if v := b.gone(k, now); v != same {
		t.Errorf("deleted, and not found: %v", v)
	}
	if v := b.gone(k, later); v != same || len(b.groups) != 0 {
		t.Errorf("deleted long ago: %v, %v", v, b.groups)
	}
	b.tail(at(7))
	if v := b.polled(at(3), later); v != news {
		t.Errorf("a later poll: %v", v)
	}
}
