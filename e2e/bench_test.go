package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/bench"
	"replicator/internal/compare"
	"replicator/internal/kafkatest"
)

// held lists topics and groups of both clusters, but for Kafka's own.
func held(t *testing.T, pair *kafkatest.ClusterPair) (out []string) {
	t.Helper()
	for side, c := range map[string]*kafkatest.Cluster{"source": pair.Source, "target": pair.Target} {
		topics, err := c.Admin().ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		groups, err := c.Admin().ListGroups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range topics.Names() {
			out = append(out, side+" topic "+name)
		}
		for _, name := range groups.Groups() {
			out = append(out, side+" group "+name)
		}
	}
	slices.Sort(out)
	return out
}

// A pair is measured while a daemon copies between the same clusters, with
// patterns that match the scratch topic's name: figures are plausible, all records
// are compared, and nothing is left, also after an interrupt.
func TestBenchMeasuresAPairAndLeavesNothing(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "beside")
	pair.Source.CreateTopic(t, topic, 2)
	putEach(t, pair.Source, topic, 2, 20)
	file := daemonFile(t, pair, topic, "replicator.*")
	daemon := startProcess(t, file, "beside", "")
	source, target := compare.Cluster(opts(pair.Source)), compare.Cluster(opts(pair.Target))
	eventually(t, "the daemon copies", func() bool {
		r, err := compare.Topics(t.Context(), source, target, compare.Same(topic), compare.Options{})
		return err == nil && r.Equal()
	})
	eventually(t, "the daemon has made its topics", func() bool {
		return slices.Contains(held(t, pair), "target topic east.checkpoints.internal")
	})
	before := held(t, pair)

	t.Run("measured", func(t *testing.T) {
		stdout, stderr, code := runCommand(t, "bench", "-c", file, "--yes", "-o", "json", "--size", "16MiB", "--duration", "3s", "--partitions", "4")
		var r bench.Result
		if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v\n%s", code, err, stderr)
		}
		t.Logf("%s", stdout)
		const bulk = (16 << 20) / 1000
		if r.Write.Records != bulk || r.Copy.Records != bulk || r.Latency.Records != 3000 || r.Compared.Records != bulk+3000+4 || r.Compared.Differences != 0 {
			t.Errorf("counts are not those of what was asked for")
		}
		c, l := r.Copy, r.Latency
		// lz4 makes these records three to five times smaller.
		if c.Seconds <= 0 || c.SourceWireBytes < c.Bytes/5 || c.SourceWireBytes > c.Bytes/2 || c.TargetWireBytes < c.Bytes/5 || c.TargetWireBytes > c.Bytes/2 {
			t.Errorf("bytes on the wire are not plausible")
		}
		if c.CPUSeconds <= 0 || c.CPUSeconds > c.Seconds*64 || c.PeakMemoryBytes < 10<<20 || c.PeakMemoryBytes > 1<<30 {
			t.Errorf("cost is not plausible")
		}
		if p := r.RoundTrip; p.Source.Requests < 10 || p.Target.Requests < 10 || p.Source.P50Seconds <= 0 || p.Target.P99Seconds < p.Target.P50Seconds || p.Target.P50Seconds > 1 {
			t.Errorf("round trips are not plausible")
		}
		if l.FromSent.P50Seconds <= r.RoundTrip.Target.P50Seconds/2 || l.FromSent.P50Seconds > l.FromSent.P999Seconds || l.FromSent.MaxSeconds > 60 || l.FromAcknowledged.P50Seconds > l.FromSent.P50Seconds || l.RecordsPerSecond < 50 || l.RecordsPerSecond > 1010 {
			t.Errorf("latency is not plausible")
		}
		if after := held(t, pair); !slices.Equal(after, before) {
			t.Errorf("before: %q\nafter: %q", before, after)
		}
	})
	t.Run("throttled", func(t *testing.T) {
		quota := func(op kadm.AlterClientQuotaOp) {
			t.Helper()
			op.Key = "producer_byte_rate"
			client := "replicator"
			done, err := pair.Target.Admin().AlterClientQuotas(context.WithoutCancel(t.Context()), []kadm.AlterClientQuotaEntry{
				{Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &client}}, Ops: []kadm.AlterClientQuotaOp{op}},
			})
			if err != nil || len(done) != 1 || done[0].Err != nil {
				t.Fatalf("alter quota: %+v, %v", done, err)
			}
		}
		quota(kadm.AlterClientQuotaOp{Value: 300_000}) // less than the 5 MB in the ten seconds a broker looks at
		defer quota(kadm.AlterClientQuotaOp{Remove: true})
		stdout, stderr, code := runCommand(t, "bench", "-c", file, "--yes", "-o", "json", "--size", "16MiB", "--rate", "50", "--duration", "1s")
		var r bench.Result
		if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v\n%s", code, err, stderr)
		}
		if c := r.Copy; c.TargetThrottledSeconds < 1 || c.SourceThrottledSeconds != 0 || c.Seconds < 1 || !slices.ContainsFunc(r.Hints, func(h string) bool { return strings.HasPrefix(h, "cluster west throttled the copy for") }) {
			t.Errorf("%+v, hints %q", c, r.Hints)
		}
	})
	for _, phase := range []string{"writing to", "copying to", "measuring latency"} {
		t.Run("interrupted when "+phase, func(t *testing.T) {
			stderr, code := interrupted(t, phase, "bench", "-c", file, "--yes", "--size", "64MiB", "--duration", "1m")
			if code != 1 || !strings.Contains(stderr, "error: interrupted") || !strings.Contains(stderr, "hint: everything that was made was deleted") {
				t.Errorf("exit code %d\n%s", code, stderr)
			}
			if after := held(t, pair); !slices.Equal(after, before) {
				t.Errorf("before: %q\nafter: %q", before, after)
			}
		})
	}
	// The daemon was there all the time, and took no notice.
	select {
	case <-daemon.done:
		t.Error("the daemon ended")
	default:
	}
}

// interrupted runs the program and interrupts it when it says something.
func interrupted(t *testing.T, at string, args ...string) (stderr string, code int) {
	t.Helper()
	program, err := command()
	if err != nil {
		t.Fatalf("build the command: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	var b strings.Builder
	for lines := bufio.NewScanner(says); lines.Scan(); {
		fmt.Fprintln(&b, lines.Text())
		if strings.HasPrefix(lines.Text(), at) {
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}
	if err := cmd.Wait(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// benchRights are what replicator bench needs, as docs/security.md has it.
func benchRights(from, to string) []grant {
	const all = "replicator.bench."
	return []grant{
		{kind: "topic", name: all, prefix: true, operation: kadm.OpCreate},
		{kind: "topic", name: all, prefix: true, operation: kadm.OpRead},
		{kind: "topic", name: all, prefix: true, operation: kadm.OpWrite},
		{kind: "topic", name: all, prefix: true, operation: kadm.OpDelete},
		{kind: "group", name: all, prefix: true, operation: kadm.OpRead},
		{kind: "group", name: all, prefix: true, operation: kadm.OpDelete},
		{target: true, kind: "topic", name: all, prefix: true, operation: kadm.OpCreate},
		{target: true, kind: "topic", name: all, prefix: true, operation: kadm.OpRead},
		{target: true, kind: "topic", name: all, prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: all, prefix: true, operation: kadm.OpDelete},
		{target: true, kind: "topic", name: all, prefix: true, operation: kadm.OpDescribeConfigs},
		{target: true, kind: "transactional id", name: "replicator." + from + "." + to + ".", prefix: true, operation: kadm.OpWrite},
	}
}

// With exactly these rights a pair is measured; without one of them, whichever, it
// is refused before anything is made, and the right is named.
func benchLeastPrivilege(t *testing.T, pair *kafkatest.ClusterPair) {
	from := side{alias: "be", Cluster: pair.Source, user: "measurer", mechanism: kafkatest.OAuthBearer}
	to := side{alias: "bw", Cluster: pair.Target, user: "measurer"}
	rights := benchRights(from.alias, to.alias)
	for _, g := range rights {
		g.give(t, from, to)
	}
	file := linkFile(t, from, to, "nothing", recordsOnly, "")
	run := func() (stderr string, code int) {
		_, stderr, code = runCommand(t, "bench", "-c", file, "--yes", "--size", "2MiB", "--duration", "1s", "--partitions", "2")
		return stderr, code
	}
	before := held(t, pair)
	for _, g := range rights {
		g.take(t, from, to)
		var stderr string
		var code int
		want := fmt.Sprintf("%v", g.operation)
		eventually(t, fmt.Sprintf("without %v it is refused", g), func() bool { // an ACL takes a moment to be everywhere
			stderr, code = run()
			return code == 3
		})
		_, hint, _ := strings.Cut(stderr, "hint: grant ")
		if !strings.Contains(hint, want) || !strings.Contains(hint, g.kind+" replicator.") {
			t.Errorf("without %v: %s", g, stderr)
		}
		g.give(t, from, to)
	}
	eventually(t, "with all rights it measures", func() bool {
		stderr, code := run()
		if code != 0 {
			t.Logf("exit code %d: %s", code, stderr)
		}
		return code == 0
	})
	if after := held(t, pair); !slices.Equal(after, before) {
		t.Errorf("before: %q\nafter: %q", before, after)
	}
}
