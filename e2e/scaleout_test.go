package e2e

import (
	"context"
	"testing"
	"time"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// Two daemons of a link share its lanes. One that is killed is replaced when its
// session has ended, one that stops hands over at once.
func TestTwoDaemonsShareTheLanes(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "shared")
	src, dst := opts(pair.Source), opts(pair.Target)
	spec := workload.Spec{Topic: topic, Kind: workload.ManyParts, Partitions: 20, Records: 200}
	write := func(first int64) {
		t.Helper()
		spec.First = first
		if _, err := workload.Write(t.Context(), src, spec); err != nil {
			t.Fatal(err)
		}
	}
	equal := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if r, err := compare.WaitEqual(ctx, src, dst, compare.Same(topic), compare.Options{}); err != nil {
			t.Fatalf("%v\n%v", err, r)
		}
	}
	write(0)
	file := daemonFile(t, pair, topic)
	group := t.Name()
	a, b := startProcess(t, file, "a", group), startProcess(t, file, "b", group)
	equal()
	shared := func() map[string]int {
		members := map[string]int{}
		groups, err := pair.Source.Admin().DescribeGroups(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range groups[group].Members {
			if assigned, ok := m.Assigned.AsConsumer(); ok {
				for _, topic := range assigned.Topics {
					members[m.MemberID] += len(topic.Partitions)
				}
			}
		}
		return members
	}
	eventually(t, "both daemons to have ten lanes each", func() bool {
		members := shared()
		for _, n := range members {
			if n != 10 {
				return false
			}
		}
		return len(members) == 2
	})

	a.kill()
	killed := time.Now()
	write(10)
	equal()
	took := time.Since(killed)
	t.Logf("a daemon was killed: its lanes were copied again after %v", took)
	if took > 30*time.Second {
		t.Errorf("take-over took %v, the session time-out is 10 s", took)
	}

	a.start()
	eventually(t, "both daemons to share again", func() bool { return len(shared()) == 2 })
	stopping := time.Now()
	t.Logf("stopped cleanly in %v", b.stop())
	write(20)
	equal()
	t.Logf("a daemon stopped: its lanes were copied again after %v", time.Since(stopping))
	if took := time.Since(stopping); took > 8*time.Second {
		t.Errorf("hand-over took %v", took)
	}
}
