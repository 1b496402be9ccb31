package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"replicator/internal/kafkatest"
)

// A topic that the region which is left has deleted, and one that only the other has, stop
// no switchover: they are named before it, left out, and what the promoted region has of
// them is copied back from its start. The way home is open, and where one name has stood
// for two topics that lane alone waits for a decision.
func TestSwitchoverWithTopicsThatOneRegionLacks(t *testing.T) {
	t.Parallel()
	pair := kafkatest.Pair(t)
	name := "lone" + fmt.Sprint(time.Now().UnixNano()%1e6)
	th := newTheatre(t, pair, name, "stopped", 2)
	deleted, made := name+".deleted", name+".made"
	pair.Source.CreateTopic(t, deleted, 1)
	putEach(t, pair.Source, deleted, 1, 20)
	for _, topic := range th.topics {
		putEach(t, pair.Source, topic, 2, 20)
	}
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.keeper, "daemon", "")
	mustEqual(t, pair.Source, pair.Target, append(th.topics, deleted)...)

	if _, err := pair.Source.Admin().DeleteTopics(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	pair.Target.CreateTopic(t, made, 1)
	putEach(t, pair.Target, made, 1, 30)
	eventually(t, "the daemon knows", func() bool { return th.daemon.says("source topic " + deleted + " is gone") })

	move := func(to string, want ...string) {
		t.Helper()
		th.passes("switchover", "--to", to)
		stdout, stderr, code := th.run("switchover", "--to", to, "--yes")
		if code != 0 {
			t.Fatalf("switchover to %s: exit code %d\n%s\n%s", to, code, stdout, stderr)
		}
		said := strings.Join(strings.Fields(stdout+stderr), " ") // tables break lines
		for _, w := range want {
			if !strings.Contains(said, w) {
				t.Errorf("switchover to %s does not say %q:\n%s\n%s", to, w, stdout, stderr)
			}
		}
	}
	move(th.west(),
		"only "+th.west()+" has "+made, "left out: "+th.east()+" has deleted "+deleted, // the gate
		"left out, because "+th.east()+" has deleted them: "+deleted,            // verify
		"has no partition for them on "+th.east()+": "+deleted+"-0, "+made+"-0") // reverse
	for _, topic := range append(th.topics, made) {
		putEach(t, pair.Target, topic, 1, 5)
	}
	mustEqual(t, pair.Target, pair.Source, append(th.topics, made, deleted)...)

	move(th.east(), "their topic was deleted on "+th.east()+" and made again: "+deleted+"-0")
	for _, topic := range append(th.topics, made) {
		putEach(t, pair.Source, topic, 1, 5)
	}
	mustEqual(t, pair.Source, pair.Target, append(th.topics, made)...)
	eventually(t, "the lane whose topic is another one has halted", func() bool {
		return th.daemon.says("source topic " + deleted + " was deleted and created again")
	})
}
