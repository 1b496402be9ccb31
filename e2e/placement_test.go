package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
)

// groupOn is one group on both clusters of a pair.
type groupOn struct {
	t     *testing.T
	pair  *kafkatest.ClusterPair
	topic string
	name  string
}

// commit has the source's group stand at an offset.
func (g groupOn) commit(at int64) { commitAs(g.t, g.pair.Source, g.name, g.topic, at) }

// target is where the target's group stands, -1 nowhere, and the leader epoch it
// committed with.
func (g groupOn) target() (offset int64, epoch int32) {
	g.t.Helper()
	fetched, err := g.pair.Target.Admin().FetchOffsets(g.t.Context(), g.name)
	if err != nil {
		return -1, -1
	}
	o, ok := fetched.Lookup(g.topic, 0)
	if !ok {
		return -1, -1
	}
	return o.At, o.LeaderEpoch
}

// comesTo waits until the target's group was placed at an offset.
func (g groupOn) comesTo(at int64) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("%s stands at target offset %d", g.name, at), func() bool {
		now, epoch := g.target()
		if now == at && epoch >= 0 {
			g.t.Errorf("%s was given the leader epoch %d: consumers would look for it on the target", g.name, epoch)
		}
		return now == at
	})
}

// stays looks for three of the daemon's intervals whether the target's group moves.
func (g groupOn) stays(at int64) {
	g.t.Helper()
	for range 30 {
		if now, _ := g.target(); now != at {
			g.t.Fatalf("%s was moved from target offset %d to %d", g.name, at, now)
		}
		time.Sleep(100 * time.Millisecond) // nothing is to happen in this time
	}
}

// consume joins the group on the target, as a consumer of one of the two
// protocols, and waits for its first record.
func (g groupOn) consume(next bool, opts ...kgo.Opt) (*kgo.Client, *kgo.Record) {
	g.t.Helper()
	ctx := g.t.Context()
	if next {
		ctx = context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true) //nolint:revive,staticcheck // kgo's own key
	}
	client, err := kgo.NewClient(append(append(g.pair.Target.ClientOpts(),
		kgo.WithContext(ctx), kgo.ConsumerGroup(g.name), kgo.ConsumeTopics(g.topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), opts...)...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(client.Close)
	polling, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	records := client.PollRecords(polling, 1).Records()
	if len(records) == 0 {
		g.t.Fatalf("%s reads nothing on the target", g.name)
	}
	return client, records[0]
}

// The target's groups follow the source's while nobody reads there, and are left
// alone as soon as somebody does. The topic's records are n, 1 to 100; on the
// target, record n lies one offset further, behind the control record of the
// lane's opening.
func TestGroupsOfTheTargetFollowUntilSomebodyReadsThere(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	const topic = "orders"
	pair.Source.CreateTopic(t, topic, 1)
	putEach(t, pair.Source, topic, 1, 100)
	startProcess(t, checkpointFile(t, pair, "auto", topic), "daemon", "")
	waitCopied(t, pair.Target, topic)
	group := func(name string) groupOn { return groupOn{t, pair, topic, name} }

	t.Run("forwards, and back when the source's group is set back", func(t *testing.T) {
		g := group("follower")
		for _, at := range []int64{10, 60, 20, 0, 100} {
			g.commit(at)
			g.comesTo(at + 1)
		}
	})
	for _, next := range []bool{false, true} {
		t.Run(fmt.Sprintf("not while it has members, KIP-848 %t", next), func(t *testing.T) {
			g := group(fmt.Sprintf("reader-%t", next))
			g.commit(10)
			g.comesTo(11)
			consumer, first := g.consume(next)
			if first.Offset != 11 {
				t.Errorf("it resumes at target offset %d, want 11", first.Offset)
			}
			g.commit(50)
			g.stays(11)
			// It leaves without a commit: nobody has moved it, so it follows again.
			consumer.Close()
			g.comesTo(51)
		})
	}
	t.Run("never back when its own consumer has moved it", func(t *testing.T) {
		g := group("moved-on")
		g.commit(10)
		g.comesTo(11)
		consumer, _ := g.consume(false)
		if err := consumer.CommitRecords(t.Context(), &kgo.Record{Topic: topic, Offset: 30}); err != nil {
			t.Fatal(err)
		}
		consumer.Close()
		g.commit(20)
		g.stays(31)
		g.commit(5)
		g.stays(31)
		g.commit(70) // the source's group has read further: it is taken along
		g.comesTo(71)
	})
	t.Run("into the log that retention has left", func(t *testing.T) {
		var cut kadm.Offsets
		cut.AddOffset(topic, 0, 41, -1)
		if _, err := pair.Target.Admin().DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		g := group("behind-retention")
		g.commit(10)
		g.comesTo(41)
	})
	t.Run("what a group lets go of is left on the target", func(t *testing.T) {
		g := group("gone")
		g.commit(60)
		g.comesTo(61)
		if _, err := pair.Source.Admin().DeleteGroups(t.Context(), g.name); err != nil {
			t.Fatal(err)
		}
		g.stays(61)
	})
}
