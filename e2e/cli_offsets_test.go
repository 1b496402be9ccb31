package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/cluster"
)

// standbyFile writes the configuration of a link that keeps checkpoints and leaves
// the target's groups to people.
func standbyFile(t *testing.T, pair *kafkatest.ClusterPair) string {
	t.Helper()
	text := fmt.Sprintf(`clusters:
  east: {bootstrap_servers: [%s]}
  west: {bootstrap_servers: [%s]}
links:
  - from: east
    to: west
    topics: [orders, ledger]
    naming: prefix
    refresh_interval: 5s
    checkpoints: {interval: 1s, commit_groups: false}
http: {listen: ''}
`, strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","))
	file := filepath.Join(t.TempDir(), "standby.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// putInTransactions writes the records word-0 to word-n-1, ten a transaction: every
// eleventh source offset is a marker.
func putInTransactions(t *testing.T, c *kafkatest.Cluster, topic, word string, n int) {
	t.Helper()
	client := c.Client(t, kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := 0; i < n; i += 10 {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for j := i; j < i+10; j++ {
			client.Produce(t.Context(), &kgo.Record{Value: fmt.Append(nil, word, "-", j)}, nil)
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cluster.EndTransaction(t.Context(), client, kgo.TryCommit, topic); err != nil {
			t.Fatal(err)
		}
	}
}

// commitAs commits what a group has read, without joining it.
func commitAs(t *testing.T, c *kafkatest.Cluster, group, topic string, offsets ...int64) {
	t.Helper()
	want := kadm.Offsets{}
	for p, at := range offsets {
		want.Add(kadm.Offset{Topic: topic, Partition: int32(p), At: at, LeaderEpoch: -1})
	}
	if err := c.Admin().CommitAllOffsets(t.Context(), group, want); err != nil {
		t.Fatal(err)
	}
}

// committed is what a group has, by topic and partition.
func committed(t *testing.T, c *kafkatest.Cluster, group string) map[string]int64 {
	t.Helper()
	fetched, err := c.Admin().FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	fetched.Each(func(o kadm.OffsetResponse) { out[fmt.Sprintf("%s-%d", o.Topic, o.Partition)] = o.At })
	return out
}

// offsetsOf is where records with these values stand in a partition.
func offsetsOf(t *testing.T, c *kafkatest.Cluster, topic string, partition int32) map[string]int64 {
	t.Helper()
	at := map[string]int64{}
	err := compare.Read(t.Context(), compare.Seeds(c.Bootstrap()...), topic, func(r *kgo.Record) error {
		if r.Partition == partition {
			at[string(r.Value)] = r.Offset
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// translated is one offset as replicator offsets translate -o json prints it.
type translated struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Source    int64  `json:"source_offset"`
	Target    int64  `json:"target_offset"`
	Outcome   string `json:"outcome"`
	Missing   int64  `json:"missing"`
}

// says runs the program and wants an exit code.
func says(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, got := runCommand(t, args...)
	if got != code {
		t.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

func translations(t *testing.T, file string, args ...string) (out []translated) {
	t.Helper()
	stdout, stderr, code := runCommand(t, append([]string{"offsets", "translate", "-c", file, "-o", "json"}, args...)...)
	if code != 0 && code != 4 {
		t.Logf("exit code %d: %s", code, stderr)
		return nil
	}
	doc := struct{ Offsets []translated }{}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	return doc.Offsets
}

// The source region and the daemon die together. What is left on the target tells
// where the groups resume, feeds Kafka's own tool, and moves the groups.
func TestGroupsMoveToTheTargetWhenSourceAndDaemonAreGone(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	pair.Source.CreateTopic(t, "orders", 2)
	pair.Source.CreateTopic(t, "ledger", 1)
	put(t, pair.Source, "orders", 0, "zero", 100)
	put(t, pair.Source, "orders", 1, "one", 100)
	putInTransactions(t, pair.Source, "ledger", "entry", 50)
	const foreign = `audit, "eu"` // Kafka takes any text for a group's name
	commitAs(t, pair.Source, "billing", "orders", 37, 100)
	commitAs(t, pair.Source, "billing", "ledger", 23)
	commitAs(t, pair.Source, foreign, "ledger", 10) // a marker: the next record is entry-10
	commitAs(t, pair.Source, "busy", "orders", 50)
	commitAs(t, pair.Source, "eager", "orders", 150) // more than there is
	commitAs(t, pair.Source, "reset.one", "orders", 12, 34)
	commitAs(t, pair.Source, "reset.two", "orders", 56)
	commitAs(t, pair.Source, "reset.two", "ledger", 0)

	file := standbyFile(t, pair)
	daemon := startProcess(t, file, "daemon", "")
	eventually(t, "the checkpoints tell of all groups, and everything is copied", func() bool {
		if len(translations(t, file)) != 10 {
			return false
		}
		for _, o := range translations(t, file) {
			if o.Outcome == "unknown" || o.Outcome == "ahead" && o.Group != "eager" || o.Group == "eager" && o.Missing != 50 {
				return false
			}
		}
		_, stderr, _ := runCommand(t, "offsets", "translate", "-c", file)
		return strings.Contains(stderr, "commits of the source up to 20") // and how fresh they are
	})
	daemon.kill()
	pair.Source.Broker(1).Kill()

	zero := offsetsOf(t, pair.Target, "east.orders", 0)
	one := offsetsOf(t, pair.Target, "east.orders", 1)
	ledger := offsetsOf(t, pair.Target, "east.ledger", 0)
	want := []translated{
		{Group: foreign, Topic: "ledger", Source: 10, Target: ledger["entry-10"], Outcome: "next"},
		{Group: "billing", Topic: "ledger", Source: 23, Target: ledger["entry-21"], Outcome: "exact"},
		{Group: "billing", Topic: "orders", Source: 37, Target: zero["zero-37"], Outcome: "exact"},
		{Group: "billing", Topic: "orders", Partition: 1, Source: 100, Target: one["one-99"] + 1, Outcome: "end"},
		{Group: "busy", Topic: "orders", Source: 50, Target: zero["zero-50"], Outcome: "exact"},
		{Group: "eager", Topic: "orders", Source: 150, Target: zero["zero-99"] + 1, Outcome: "ahead", Missing: 50},
		{Group: "reset.one", Topic: "orders", Source: 12, Target: zero["zero-12"], Outcome: "exact"},
		{Group: "reset.one", Topic: "orders", Partition: 1, Source: 34, Target: one["one-34"], Outcome: "exact"},
		{Group: "reset.two", Topic: "ledger", Source: 0, Target: ledger["entry-0"], Outcome: "exact"},
		{Group: "reset.two", Topic: "orders", Source: 56, Target: zero["zero-56"], Outcome: "exact"},
	}
	if d := cmp.Diff(want, translations(t, file)); d != "" {
		t.Fatalf("translations (-want +got) %s", d)
	}
	table, stderr := says(t, 0, "offsets", "translate", "-c", file)
	wantContains(t, "translate", table, "REPEAT", "10 offsets: 7 exact, 1 next, 1 end, 1 ahead")
	wantContains(t, "translate's last line", stderr, "commits of the source up to 20", "are in the checkpoints (daemon")
	wide, _ := says(t, 0, "groups", "list", "-c", file, "-o", "wide")
	t.Logf("\n%s\n%s", table, wide)

	t.Run("one offset, there and back", func(t *testing.T) {
		got := translations(t, file, "--topic", "ledger", "--partition", "0", "--at-source-offset", "23")
		back := translations(t, file, "--topic", "ledger", "--partition", "0", "--at-target-offset", fmt.Sprint(ledger["entry-21"]))
		both := []translated{{Topic: "ledger", Source: 23, Target: ledger["entry-21"], Outcome: "exact"}}
		if d := cmp.Diff(both, got) + cmp.Diff(both, back); d != "" {
			t.Errorf("(-want +got) %s", d)
		}
		_, stderr := says(t, 4, "offsets", "translate", "-c", file, "--topic", "nothing", "--partition", "0", "--at-source-offset", "1")
		wantContains(t, "stderr", stderr, "error: translate offset of nothing-0: ")
	})
	t.Run("the map of lanes", func(t *testing.T) {
		stdout, _ := says(t, 0, "offsets", "show", "-c", file, "-o", "wide")
		wantContains(t, "lanes", stdout, "ledger-0", "orders-0", "orders-1", "NOT COPIED", "east.orders")
		stdout, _ = says(t, 0, "offsets", "show", "-c", file, "--topic", "ledger", "--partition", "0", "-o", "json")
		var doc struct {
			Lanes []struct {
				Spans    int
				Position struct {
					Source int64 `json:"source_offset"`
					Target int64 `json:"target_offset"`
				}
				End    int64 `json:"target_log_end"`
				Detail struct {
					Spans []struct {
						Source  int64 `json:"source_offset"`
						Target  int64 `json:"target_offset"`
						Records int64
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
			t.Fatal(err)
		}
		// A marker behind every ten records: five spans of ten.
		l := doc.Lanes[0]
		if l.Spans != 5 || len(l.Detail.Spans) != 5 || l.Detail.Spans[2].Source != 22 || l.Detail.Spans[2].Target != ledger["entry-20"] || l.Detail.Spans[2].Records != 10 {
			t.Errorf("spans of ledger-0: %+v", l)
		}
		if l.Position.Target != ledger["entry-49"]+1 || l.Position.Source < 54 || l.End != l.Position.Target {
			t.Errorf("position of ledger-0: %+v", l)
		}
	})
	t.Run("everything as JSON lines", func(t *testing.T) {
		stdout, _ := says(t, 0, "offsets", "export", "-c", file)
		kinds := map[string]int{}
		for line := range strings.Lines(stdout) {
			var doc struct{ Kind string }
			if err := json.Unmarshal([]byte(line), &doc); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			kinds[doc.Kind]++
		}
		if d := cmp.Diff(map[string]int{"link": 1, "lane": 3, "checkpoint": 10}, kinds); d != "" {
			t.Errorf("(-want +got) %s", d)
		}
	})
	t.Run("files for Kafka's own tool", func(t *testing.T) {
		resetByTool(t, pair.Target, file, "reset.one")
		resetByTool(t, pair.Target, file, "reset.two", foreign)
		got := []map[string]int64{committed(t, pair.Target, "reset.one"), committed(t, pair.Target, "reset.two"), committed(t, pair.Target, foreign)}
		want := []map[string]int64{
			{"east.orders-0": zero["zero-12"], "east.orders-1": one["one-34"]},
			{"east.ledger-0": ledger["entry-0"], "east.orders-0": zero["zero-56"]},
			{"east.ledger-0": ledger["entry-10"]},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("offsets after the reset (-want +got) %s", d)
		}
	})
	t.Run("what is not on the target is said", func(t *testing.T) {
		elsewhere := rewritten(t, file, func(text string) string { return strings.Replace(text, "to: west\n", "to: west\n    name: other\n", 1) })
		_, stderr := says(t, 1, "offsets", "show", "-c", elsewhere)
		wantContains(t, "without a journal", stderr, "replicator.other.journal", "hint: has link other copied to cluster west?")
		unkept := rewritten(t, file, func(text string) string {
			return strings.Replace(text, "checkpoints: {", "checkpoints: {topic: other.checkpoints, ", 1)
		})
		_, stderr = says(t, 1, "offsets", "translate", "-c", unkept)
		wantContains(t, "without checkpoints", stderr, "other.checkpoints", "no daemon has kept checkpoints of this link on cluster west", "hint: is checkpoints.follow off")
		says(t, 0, "offsets", "translate", "-c", unkept, "--topic", "orders", "--partition", "0", "--at-source-offset", "7")
		says(t, 0, "offsets", "show", "-c", unkept)
		_, stderr = says(t, 4, "offsets", "translate", "-c", file, "--group", "billing", "--group", "nobody")
		wantContains(t, "a group nobody has seen", stderr, "error: the target knows nothing of nobody")
	})
	t.Run("groups are moved, and proven", func(t *testing.T) {
		join(t, pair.Target, "busy", "east.orders")
		_, stderr := says(t, 3, "groups", "plan", "-c", file, "--group", "busy", "--group", "billing")
		wantContains(t, "refusal", stderr, "error: refuse groups: busy (group_active: it has 1 active")
		_, stderr = says(t, 3, "groups", "apply", "-c", file, "--group", "busy", "--yes")
		wantContains(t, "refusal", stderr, "error: refuse groups: busy (group_active", "nothing was written")
		_, stderr = says(t, 2, "groups", "apply", "-c", file, "--group", "billing")
		wantContains(t, "unasked", stderr, "no terminal", "--yes")
		if got := committed(t, pair.Target, "billing"); len(got) > 0 {
			t.Errorf("written without being told to: %v", got)
		}

		stdout, stderr := says(t, 4, "groups", "apply", "-c", file, "--yes")
		wantContains(t, "apply", stdout, "place 4 offsets of 2 groups\n", "keep 5 offsets of 3 groups\n", "skip 1 offset of 1 group: 1 group_active\n", "proved: 9 offsets of 5 groups are as planned")
		wantContains(t, "what was not placed", stderr, "error: not placed in full: busy (group_active")
		want := map[string]int64{"east.orders-0": zero["zero-37"], "east.orders-1": one["one-99"] + 1, "east.ledger-0": ledger["entry-21"]}
		if d := cmp.Diff(want, committed(t, pair.Target, "billing")); d != "" {
			t.Errorf("billing on the target (-want +got) %s", d)
		}
		stdout, _ = says(t, 0, "groups", "apply", "-c", file, "--yes", "--groups", "billing|eager|reset.*")
		wantContains(t, "a second apply", stdout, "keep 8 offsets of 4 groups\nproved: 8 offsets of 4 groups are as planned")
		if strings.Contains(stdout, "place") {
			t.Errorf("a second apply changes something:\n%s", stdout)
		}
		stdout, _ = says(t, 0, "groups", "list", "-c", file)
		wantContains(t, "states", stdout, "Stable", "Empty")
	})
	t.Run("the runbook, command by command", func(t *testing.T) {
		for _, args := range runbook(t, file) {
			stdout, stderr := says(t, 0, args...)
			if args[1] == "apply" {
				wantContains(t, "apply", stdout, "proved: 10 offsets of 6 groups are as planned")
			}
			if args[1] == "translate" {
				wantContains(t, "translate", stderr, "commits of the source up to 20")
			}
		}
	})
}

// runbook returns the commands of docs/operations.md for a source that is gone.
func runbook(t *testing.T, config string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "### The source region is gone: move the groups\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands [][]string
	for line := range strings.Lines(section) {
		if line, ok := strings.CutPrefix(strings.TrimSpace(line), "replicator "); ok {
			line, _, _ = strings.Cut(line, " > ")
			commands = append(commands, strings.Fields(strings.ReplaceAll(line, "pair.yaml", config)))
		}
	}
	if !found || len(commands) == 0 {
		t.Fatal("the document has no such commands")
	}
	return commands
}

// resetByTool feeds translations of groups to kafka-consumer-groups.
func resetByTool(t *testing.T, c *kafkatest.Cluster, config string, groups ...string) {
	t.Helper()
	ask := []string{"offsets", "translate", "-c", config, "-o", "csv"}
	reset := []string{"--bootstrap-server", c.InternalBootstrap()[0], "--reset-offsets", "--execute"}
	for _, g := range groups {
		ask, reset = append(ask, "--group", g), append(reset, "--group", g)
	}
	stdout, _ := says(t, 0, ask...)
	file := filepath.Join(t.TempDir(), "offsets.csv")
	if err := os.WriteFile(file, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := kafkatest.Tool(t.Context(), kafkatest.Kafka4, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", append(reset, "--from-file", file)...)
	if err != nil || strings.Contains(string(out), "Error") {
		t.Errorf("reset offsets of %v: %v\n%s\nwith\n%s", groups, err, out, stdout)
	}
}

// join has a consumer in a group until the test ends.
func join(t *testing.T, c *kafkatest.Cluster, group, topic string) {
	t.Helper()
	client := c.Client(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	client.PollFetches(t.Context())
	eventually(t, group+" is stable", func() bool {
		described, err := c.Admin().DescribeGroups(t.Context(), group)
		return err == nil && described[group].State == "Stable"
	})
}
