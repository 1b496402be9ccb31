package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
)

// copyOf is one copy of a pair's authority, on topics of the test's own.
func copyOf(t *testing.T, c *kafkatest.Cluster, pair authority.Pair) authority.Config {
	t.Helper()
	return authority.Config{
		Cluster: openCluster(t, pair.B, c.Bootstrap(), nil), Pair: pair, Log: logger(t),
		Topic: kafkatest.Topic(t, "authority"), AuditTopic: kafkatest.Topic(t, "audit"),
	}
}

func changer(t *testing.T, cfg authority.Config) *authority.Changer {
	t.Helper()
	c, err := authority.Change(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func watched(t *testing.T, cfg authority.Config) *authority.Watcher {
	t.Helper()
	w := authority.Watch(cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// untilKnown waits for what a watcher knows, and returns how long that took.
func untilKnown(t *testing.T, w *authority.Watcher, what string, ok func(authority.Knowledge) bool) time.Duration {
	t.Helper()
	begun := time.Now()
	end := time.NewTimer(60 * time.Second)
	defer end.Stop()
	for {
		changed := w.Changed()
		if ok(w.Knowledge()) {
			return time.Since(begun)
		}
		select {
		case <-changed:
		case <-end.C:
			t.Fatalf("not in time: %s; known is %+v", what, w.Knowledge())
		}
	}
}

// Two operators run their commands at the same moment, twenty times: each epoch is
// given once, and who lost is told so.
func TestTwoChangersRace(t *testing.T) {
	t.Parallel()
	cfg := copyOf(t, kafkatest.Pair(t).Target, authority.PairOf("race-a", "race-b"))
	changer(t, cfg).Close() // the topics are there
	fenced, late := 0, 0
	for round := int64(1); round <= 20; round++ {
		results := make([]error, 2)
		var both sync.WaitGroup
		for i, region := range []string{"race-a", "race-b"} {
			both.Go(func() {
				c, err := authority.Change(t.Context(), cfg)
				if err != nil {
					results[i] = err
					return
				}
				defer c.Close()
				results[i] = c.Set(t.Context(), authority.Record{Epoch: round, Region: region, Verb: "failover", By: region})
			})
		}
		both.Wait()
		winner := ""
		for i, region := range []string{"race-a", "race-b"} {
			_, wasFenced := errors.AsType[*authority.FencedError](results[i])
			_, wasLate := errors.AsType[*authority.EpochError](results[i])
			switch {
			case results[i] == nil && winner == "":
				winner = region
			case results[i] == nil:
				t.Fatalf("round %d: both were told that they won", round)
			case wasFenced:
				fenced++
			case wasLate:
				late++
			case strings.Contains(results[i].Error(), "nothing was written"):
				// A broker may answer a write that meets the end of its transaction with an error
				// of its own (UNKNOWN_SERVER_ERROR): it lost, and knows that nothing stands.
				fenced++
			default:
				t.Errorf("round %d: %s is told %v", round, region, results[i])
			}
		}
		s, err := authority.Read(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if s.Epoch() != round || len(s.Records) != int(round) || len(s.Conflicts) != 0 || s.Region("") != winner {
			t.Fatalf("round %d: %q won, the copy says %+v", round, winner, s)
		}
	}
	t.Logf("20 rounds: %d fenced, %d came too late", fenced, late)
}

// A command dies between write and commit. The next one reads the old record and
// ends the transaction at once; without a next one, what others write behind it is
// read when the transaction has timed out.
func TestAChangerDiesBetweenWriteAndCommit(t *testing.T) {
	t.Parallel()
	pair := authority.PairOf("dead-a", "dead-b")
	cfg := copyOf(t, kafkatest.Pair(t).Target, pair)
	c := changer(t, cfg)
	if err := c.Set(t.Context(), authority.Record{Epoch: 1, Region: "dead-a"}); err != nil {
		t.Fatal(err)
	}
	die := func(epoch int64, region string) {
		t.Helper()
		value, err := json.Marshal(map[string]any{"version": 1, "pair": pair.String(), "epoch": epoch, "region": region})
		if err != nil {
			t.Fatal(err)
		}
		cl, err := cfg.Cluster.NewClient(kgo.TransactionalID(pair.TransactionalID()), kgo.TransactionTimeout(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close() // which leaves the transaction as it is, as the death of the process does
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.Topic, Key: fmt.Appendf(nil, "%s/epoch/%d", pair, epoch), Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	die(2, "dead-b")
	if s, err := authority.Read(t.Context(), cfg); err != nil || s.Epoch() != 1 {
		t.Fatalf("an open transaction is read: %+v, %v", s, err)
	}
	begun := time.Now()
	next := changer(t, cfg)
	t.Logf("the next one has the right after %v", time.Since(begun))
	if next.State().Epoch() != 1 {
		t.Fatalf("the next one reads %+v", next.State())
	}
	if err := next.Set(t.Context(), authority.Record{Epoch: 2, Region: "dead-a"}); err != nil {
		t.Fatal(err)
	}

	die(3, "dead-b")
	w := watched(t, cfg)
	untilKnown(t, w, "epoch 2", func(k authority.Knowledge) bool { return k.Known && k.State.Epoch() == 2 })
	plain := kafkatest.Pair(t).Target.Client(t)
	by := fmt.Appendf(nil, `{"version":1,"pair":%q,"epoch":4,"region":"dead-b"}`, pair)
	if err := plain.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.Topic, Key: fmt.Appendf(nil, "%s/epoch/4", pair), Value: by}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	took := untilKnown(t, w, "epoch 4", func(k authority.Knowledge) bool { return k.State.Epoch() == 4 })
	t.Logf("what stands behind an open transaction is read after %v", took)
	if s, _ := w.State(); len(s.Records) != 3 {
		t.Errorf("the dead one's record is read: %+v", s)
	}
	if took > 25*time.Second { // the time-out, and the brokers' round of ten seconds
		t.Errorf("readers waited %v", took)
	}
}

// A daemon watches a topic that is not there yet; a promotion makes it, and every
// change is known within a second.
func TestAWatcherSeesAChangeWithinASecond(t *testing.T) {
	t.Parallel()
	cfg := copyOf(t, kafkatest.Pair(t).Target, authority.PairOf("seen-a", "seen-b"))
	w := watched(t, cfg)
	untilKnown(t, w, "the topic is missing", func(k authority.Knowledge) bool { return k.Known && k.State.Missing })
	c := changer(t, cfg)
	untilKnown(t, w, "the topic is there", func(k authority.Knowledge) bool { return k.Known && !k.State.Missing })
	var all []time.Duration
	for epoch := int64(1); epoch <= 10; epoch++ {
		if err := c.Set(t.Context(), authority.Record{Epoch: epoch, Region: "seen-b"}); err != nil {
			t.Fatal(err)
		}
		all = append(all, untilKnown(t, w, fmt.Sprint("epoch ", epoch), func(k authority.Knowledge) bool { return k.State.Epoch() == epoch }))
		if s, err := w.Sync(t.Context()); err != nil || s.Epoch() != epoch {
			t.Errorf("asked after epoch %d was set: %+v, %v", epoch, s, err)
		}
	}
	slices.Sort(all)
	t.Logf("a change was known %v after it was acknowledged, at most %v", all[5], all[9])
	if all[5] > time.Second { // the longest is the machine's, which may stand still
		t.Errorf("changes were known only after %v", all)
	}
}

// Of three brokers the one that leads the copy is killed: the next change is written
// to the others, and seen.
func TestAuthorityOutlivesABroker(t *testing.T) {
	t.Parallel()
	three := kafkatest.Start(t, kafkatest.Config{Brokers: 3, Heap: "320m"})
	cfg := copyOf(t, three, authority.PairOf("lost-a", "lost-b"))
	w := watched(t, cfg)
	c := changer(t, cfg)
	if err := c.Set(t.Context(), authority.Record{Epoch: 1, Region: "lost-a"}); err != nil {
		t.Fatal(err)
	}
	topics, err := three.Admin().ListTopics(t.Context(), cfg.Topic)
	if err != nil {
		t.Fatal(err)
	}
	p := topics[cfg.Topic].Partitions[0]
	if len(p.Replicas) != 3 {
		t.Errorf("the topic has %d replicas of three brokers", len(p.Replicas))
	}
	three.Broker(int(p.Leader)).Kill()
	// The changer that was writing may be left in doubt; the next one is not.
	epoch, deadline := int64(1), time.Now().Add(patience)
	for epoch == 1 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // one try
		next, err := authority.Change(ctx, cfg)
		if err == nil {
			if err = next.Set(ctx, authority.Record{Epoch: next.State().Epoch() + 1, Region: "lost-b"}); err == nil {
				epoch = next.State().Epoch()
			}
			next.Close()
		}
		cancel()
		if err != nil {
			t.Logf("change without the leader: %v", err)
		}
		if time.Now().After(deadline) {
			t.Fatal("no change was possible in time")
		}
	}
	took := untilKnown(t, w, "the change", func(k authority.Knowledge) bool { return k.Known && k.State.Epoch() == epoch })
	s, err := w.Sync(t.Context())
	if err != nil || s.Epoch() != epoch || s.Region("") != "lost-b" || len(s.Conflicts) != 0 {
		t.Errorf("asked after the change: %+v, %v", s, err)
	}
	t.Logf("epoch %d; the watcher knew %v later", epoch, took)
}

// An operator without a right is told which one to grant, one after the other, and
// never takes a topic that is hidden for one that is not there.
func TestChangingAuthorityTakesTheRightsInTheManual(t *testing.T) {
	t.Parallel()
	c := kafkatest.Start(t, kafkatest.Config{Name: "west", SASL: []string{kafkatest.Plain}, Users: []string{"operator"}, Authorizer: true})
	cc := cluster.DefaultConfig()
	cc.BootstrapServers = c.Bootstrap()
	cc.SASL.Mechanism, cc.SASL.Username, cc.SASL.Password = cluster.Plain, "operator", cluster.LiteralSecret(kafkatest.Password("operator"))
	opened, err := cluster.Open(t.Context(), "west", cc, cluster.Options{Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	pair := authority.PairOf("east", "west")
	cfg := authority.Config{Cluster: opened, Pair: pair}
	give := func(b *kadm.ACLBuilder, ops ...kadm.ACLOperation) {
		t.Helper()
		if err := c.Allow(t.Context(), "operator", b.Operations(ops...)); err != nil {
			t.Fatal(err)
		}
	}
	topic := func(name string) *kadm.ACLBuilder { return kadm.NewACLs().Topics(name) }
	change := func() error {
		next, err := authority.Change(t.Context(), cfg)
		if err != nil {
			return err
		}
		defer next.Close()
		return next.Set(t.Context(), authority.Record{Epoch: next.State().Epoch() + 1, Region: "west"})
	}
	untilSays := func(want string) {
		t.Helper()
		var err error
		eventually(t, want, func() bool { // an ACL takes a moment to be everywhere
			err = change()
			return err != nil && strings.Contains(err.Error(), want)
		})
	}
	if s, err := authority.Read(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "grant READ on topic replicator.authority of cluster west") {
		t.Fatalf("without any right: %+v, %v", s, err)
	}
	untilSays("grant READ on topic replicator.authority of cluster west")
	give(topic(authority.DefaultTopic), kadm.OpRead)
	eventually(t, "it is known to be missing", func() bool {
		s, err := authority.Read(t.Context(), cfg)
		return err == nil && s.Missing
	})
	untilSays("grant CREATE on topic replicator.authority of cluster west")
	give(topic(authority.DefaultTopic), kadm.OpCreate)
	untilSays("grant READ on topic replicator.audit of cluster west")
	give(topic(authority.DefaultAuditTopic), kadm.OpRead, kadm.OpCreate)
	untilSays("grant WRITE and DESCRIBE on transactional id replicator.authority.east.west of cluster west")
	give(kadm.NewACLs().TransactionalIDs(pair.TransactionalID()), kadm.OpWrite, kadm.OpDescribe)
	untilSays("grant WRITE on topic replicator.authority of cluster west")
	give(topic(authority.DefaultTopic), kadm.OpWrite)
	eventually(t, "with all rights it works", func() bool { return change() == nil })
	if s, err := authority.Read(t.Context(), cfg); err != nil || s.Region("") != "west" || len(s.Conflicts) != 0 {
		t.Errorf("read %+v, %v", s, err)
	}
}
