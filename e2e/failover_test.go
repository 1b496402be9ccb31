package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/evidence"
)

// payloads reads all records of topics as a read_committed consumer and counts each by
// its value.
func payloads(t *testing.T, c *kafkatest.Cluster, topics []string) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, topic := range topics {
		if err := compare.Read(t.Context(), compare.Seeds(c.Bootstrap()...), topic, func(r *kgo.Record) error {
			out[string(r.Value)]++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// The source cluster is killed under load. Failover says about how many records are
// lost; groups go on at the exact record. Then the old region returns: what only it has is
// counted and replayed, the difference is copied back, and a switchover goes home.
func TestFailoverAndFailback(t *testing.T) {
	t.Parallel()
	cfg := func(name string) kafkatest.Config { return kafkatest.Config{Name: name, Brokers: 1} }
	pair := kafkatest.StartPair(t, cfg("east"), cfg("west"))
	th := newTheatre(t, pair, "fail", "hook", 4)
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.keeper, "daemon", "")
	th.startApps("fail")
	th.acked(3000)
	th.passes("switchover", "--to", th.west())

	// What a group commits that no daemon hears of any more it reads again; here the groups
	// rest, and all they committed is known in the west.
	th.tell("readers", "none")
	waitGone(t, th, "reading")
	th.knows(time.Now())
	// The copy falls behind: the daemon stands still while applications go on writing. So
	// there is something to lose.
	th.daemon.signal(syscall.SIGSTOP)
	th.acked(500)
	th.tell("writers", "none")
	waitGone(t, th, "writing")
	ackedByEast := th.sentRecords()
	for _, b := range pair.Source.Brokers() {
		b.Kill()
	}
	died := time.Now()
	th.daemon.signal(syscall.SIGCONT)

	_, stderr, code := th.run("switchover", "--to", th.west(), "--yes")
	if code != 3 || !strings.Contains(stderr, "cannot be reached") {
		t.Errorf("switchover without a source: exit code %d\n%s", code, stderr)
	}
	stdout, stderr, code := th.run("failover", "--to", th.west(), "--dry-run", "-o", "json")
	if code != 0 {
		t.Fatalf("dry run: exit code %d\n%s%s", code, stdout, stderr)
	}
	plan := resultOf[struct {
		Loss struct {
			Rows []struct {
				Topic   string
				Seen    int64
				Records int64
			}
			Basis string
		}
	}](t, stdout)
	least, estimated := map[string]int64{}, map[string]int64{}
	for _, row := range plan.Loss.Rows {
		least[row.Topic], estimated[row.Topic] = row.Seen, row.Records
	}

	began := time.Now()
	stdout, stderr, code = th.run("failover", "--to", th.west(), "--accept-loss", "--yes", "-o", "json", "--why", "the test killed it")
	t.Logf("%s", stderr)
	if code != 0 {
		t.Fatalf("failover: exit code %d\n%s", code, stdout)
	}
	r := resultOf[cutoverResult](t, stdout)
	onWest := payloads(t, pair.Target, th.topics)
	eventually(t, "a group to read a record of west", func() bool {
		th.readers[0].mu.Lock()
		defer th.readers[0].mu.Unlock()
		return th.readers[0].by[th.west()] > 0
	})
	t.Logf("failover in %.2f s; first record read on %s %.2f s after the command began, %.1f s after the brokers died", r.Outcome.Took, th.west(), time.Since(began).Seconds(), time.Since(died).Seconds())
	checkEvidence(t, r.Bundle)
	lost := map[string]int64{}
	for id := range ackedByEast {
		if onWest[id] == 0 {
			lost[th.topicOf(id)]++
		}
		if onWest[id] > 1 {
			t.Errorf("record %s is %d times on %s", id, onWest[id], th.west())
		}
	}
	for _, topic := range th.topics {
		t.Logf("%s: estimated loss %d to %d, actually lost %d (%s)", topic, least[topic], estimated[topic], lost[topic], plan.Loss.Basis)
		if lost[topic] > 2*estimated[topic]+100 { // applications may have been quicker at the end
			t.Errorf("%s: %d records are lost, the estimate was %d", topic, lost[topic], estimated[topic])
		}
	}
	th.acked(1000) // in the new region

	// The old region returns.
	for _, b := range pair.Source.Brokers() {
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code = th.run("failback", "plan", "--from", th.east(), "-o", "json")
	if code != 3 {
		t.Errorf("failback plan without a decision: exit code %d\n%s%s", code, stdout, stderr)
	}
	found := resultOf[struct {
		Stranded evidence.StrandedDoc
	}](t, stdout)
	var ours, theirs int64
	for _, row := range found.Stranded.Rows {
		ours += row.Records
	}
	onEast := payloads(t, pair.Source, th.topics)
	stranded := map[string]bool{}
	for id, n := range onEast {
		if onWest[id] == 0 {
			stranded[id] = true
			theirs += int64(n)
		}
	}
	t.Logf("stranded: %d by us, %d by an independent reader", ours, theirs)
	if ours != theirs {
		t.Errorf("stranded records: we count %d, the independent reader %d", ours, theirs)
	}
	if listed := th.must("evidence", "list", "--link", th.east()+"->"+th.west()); !strings.Contains(listed, r.Run) || !strings.Contains(listed, "events of runs on "+th.west()+": all, the first of ") {
		t.Errorf("evidence list does not know run %s, or not where it begins:\n%s", r.Run, listed)
	}
	archive := filepath.Join(th.dir, "exported.tar.zst")
	th.must("evidence", "export", r.Run, "--link", th.east()+"->"+th.west(), "--to", archive)
	th.must("evidence", "verify", archive, "--anchor", r.Anchor)
	before := logBytes(t, pair.Source, th.topics)
	stdout, stderr, code = th.run("failback", "run", "--from", th.east(), "--stranded", "replay", "--yes", "-o", "json")
	t.Logf("%s", stderr)
	if code != 0 {
		t.Fatalf("failback: exit code %d\n%s", code, stdout)
	}
	checkEvidence(t, resultOf[cutoverResult](t, stdout).Bundle)
	th.acked(1000)
	th.passes("switchover", "--to", th.east())
	copied := logBytes(t, pair.Source, th.topics) - before
	t.Logf("failback copied %d bytes to %s, which held %d; %s holds %d", copied, th.east(), before, th.west(), logBytes(t, pair.Target, th.topics))

	stdout, stderr, code = th.run("switchover", "--to", th.east(), "--yes", "-o", "json")
	t.Logf("%s", stderr)
	if code != 0 {
		t.Fatalf("switchover home: exit code %d\n%s", code, stdout)
	}
	th.acked(500)
	th.quiet()
	th.settled(stranded)
}

// knows waits until the checkpoints have all that was committed by a time.
func (th *theatre) knows(at time.Time) {
	th.t.Helper()
	eventually(th.t, "the commits to be followed", func() bool {
		stdout, _, code := th.run("offsets", "translate", "--link", th.east()+"->"+th.west(), "-o", "json")
		if code != 0 {
			return false
		}
		doc := resultOf[struct {
			Current struct {
				UpTo time.Time `json:"up_to"`
			}
		}](th.t, stdout)
		return doc.Current.UpTo.After(at)
	})
}

func waitGone(t *testing.T, th *theatre, name string) {
	t.Helper()
	eventually(t, name+" to end", func() bool {
		_, err := os.Stat(filepath.Join(th.dir, name))
		return os.IsNotExist(err)
	})
}

// sentRecords are the records that were acknowledged so far.
func (th *theatre) sentRecords() map[string]bool {
	out := map[string]bool{}
	for _, w := range th.writers {
		w.mu.Lock()
		for id := range w.sent {
			out[id] = true
		}
		w.mu.Unlock()
	}
	return out
}

// topicOf is where a writer writes.
func (th *theatre) topicOf(id string) string {
	if strings.Contains(id, ".a-") {
		return th.topics[0]
	}
	return th.topics[1]
}

// checkEvidence verifies a bundle with the command a person would use.
func checkEvidence(t *testing.T, bundle string) {
	t.Helper()
	stdout, stderr, code := runCommand(t, "evidence", "verify", bundle)
	if code != 0 {
		t.Errorf("evidence %s: exit code %d\n%s%s", bundle, code, stdout, stderr)
	}
}

// logBytes is what topics hold on a cluster's disks.
func logBytes(t *testing.T, c *kafkatest.Cluster, topics []string) int64 {
	t.Helper()
	listed, err := c.Admin().ListTopics(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := c.Admin().DescribeAllLogDirs(t.Context(), listed.TopicsSet())
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, d := range dirs {
		n += d.Size()
	}
	return n
}
