package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/wire"
)

type drillResult struct {
	Run     string
	Success bool
	Failed  []string
	RTO     *float64 `json:"rto_seconds"`
	Outcome struct{ Outcome, Error string }
	Checks  []struct {
		Name, Detail string
		OK           bool
	}
	Steps  []struct{ Name, Outcome, Proof string }
	Groups []struct {
		Group  string
		Proved *bool
	}
	Bundle string
}

// check returns what a check said.
func (r *drillResult) check(name string) string {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Detail
		}
	}
	return ""
}

// drill runs one, which has to end with a code.
func (th *theatre) drill(code int) (drillResult, string) {
	th.t.Helper()
	stdout, stderr, got := th.run("drill", "-o", "json", "--by", "timer")
	if got != code {
		th.t.Fatalf("drill: exit code %d, want %d\n%s\n%s", got, code, stdout, stderr)
	}
	var r drillResult
	if stdout != "" {
		r = resultOf[drillResult](th.t, stdout)
	}
	return r, stderr
}

// names are the topics and groups of a cluster.
func names(t *testing.T, c *kafkatest.Cluster) (topics, groups []string) {
	t.Helper()
	client, err := kgo.NewClient(opts(c)...) // a new one: it has no list from before
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	listed, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := admin.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return listed.Names(), all.Groups()
}

// standsAt is where a group stands, by partition.
func standsAt(t *testing.T, admin *kadm.Client, group string) string {
	t.Helper()
	o, err := admin.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, at := range o.Sorted() {
		fmt.Fprintf(&b, "%s-%d=%d ", at.Topic, at.Partition, at.At)
	}
	return b.String()
}

func adminOf(t *testing.T, c *kafkatest.Cluster) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(opts(c)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// cutShort runs a drill, and does something as soon as that has done a step.
func (th *theatre) cutShort(step string, do func(*os.Process)) (said string, code int) {
	th.t.Helper()
	program, err := command()
	if err != nil {
		th.t.Fatal(err)
	}
	cmd := exec.CommandContext(th.t.Context(), program, "drill", "-o", "json", "--config", th.file)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		th.t.Fatal(err)
	}
	var b strings.Builder
	sent := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		b.WriteString(lines.Text() + "\n")
		if f := strings.Fields(lines.Text()); len(f) > 2 && f[1] == step && f[2] == evidence.StepDone && !sent {
			sent = true
			do(cmd.Process)
		}
	}
	_ = cmd.Wait() // its exit code tells
	if !sent {
		th.t.Fatalf("the drill did not do the step %s:\n%s", step, b.String())
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// changerSink writes events as a cutover does.
type changerSink struct{ *authority.Changer }

func (s changerSink) Write(ctx context.Context, e evidence.Event) error {
	line, err := e.Encode()
	if err != nil {
		return err
	}
	return s.Audit(ctx, e.Run, line)
}

// A drill under load passes and nobody notices; what is wrong with one group is found; a
// drill keeps out of the way of a run, and cleans up after one that was killed.
func TestADrillTouchesNothingAndFindsWhatIsWrong(t *testing.T) {
	pair := kafkatest.Pair(t)
	th := newTheatre(t, pair, "drill"+fmt.Sprint(time.Now().UnixNano()%1e6), "hook", 2)
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.file, "daemon", "")
	prefix, _, _ := strings.Cut(th.topics[0], ".")
	th.startApps(prefix)
	th.acked(1000)
	east, west := adminOf(t, pair.Source), adminOf(t, pair.Target)

	// A group that has stopped in the middle of what is there.
	idle := prefix + ".idle"
	var at kadm.Offsets
	at.AddOffset(th.topics[0], 0, 20, -1)
	if err := east.CommitAllOffsets(t.Context(), idle, at); err != nil {
		t.Fatal(err)
	}
	th.passes("switchover", "--to", th.west())
	eventually(t, "the daemon to place the idle group", func() bool {
		o, err := west.FetchOffsets(t.Context(), idle)
		return err == nil && len(o) > 0
	})

	// A command that is about to change the authority has its right all the while.
	c := openCluster(t, th.west(), pair.Target.Bootstrap(), wire.NewPool(1<<20))
	cfg := authority.Config{Cluster: c, Pair: authority.PairOf(th.east(), th.west())}
	changer, err := authority.Change(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer changer.Close()

	// What looks like the leftovers of a drill, and is of a pair whose name is longer.
	prefix = "replicator.drill." + strings.ReplaceAll(cfg.Pair.String(), "/", ".") + "."
	foreign := prefix + "x.drill-20260101T000000Z-abcd"
	pair.Target.CreateTopic(t, foreign, 1)
	if err := west.CommitAllOffsets(t.Context(), foreign+"."+idle, at); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = west.DeleteTopics(context.WithoutCancel(t.Context()), foreign)
		_, _ = west.DeleteGroups(context.WithoutCancel(t.Context()), foreign+"."+idle)
	}()
	scratch := func() (found []string) {
		topics, groups := names(t, pair.Target)
		for _, name := range slices.Concat(topics, groups) {
			if strings.HasPrefix(name, prefix+"drill-") {
				found = append(found, name)
			}
		}
		return found
	}

	type world struct {
		eastTopics, eastGroups, westTopics, westGroups []string
		idleEast, idleWest                             string
		authority                                      [2][]authority.Record
	}
	look := func() (w world) {
		w.eastTopics, w.eastGroups = names(t, pair.Source)
		w.westTopics, w.westGroups = names(t, pair.Target)
		// The daemon's links join groups of their own when they find something to copy.
		daemons := func(name string) bool {
			return name == "replicator."+th.east()+"."+th.west() || name == "replicator."+th.west()+"."+th.east()
		}
		w.eastGroups, w.westGroups = slices.DeleteFunc(w.eastGroups, daemons), slices.DeleteFunc(w.westGroups, daemons)
		w.idleEast, w.idleWest = standsAt(t, east, idle), standsAt(t, west, idle)
		for i, region := range []string{th.east(), th.west()} {
			on := cfg
			on.Cluster = openCluster(t, region, th.cluster(region).Bootstrap(), wire.NewPool(1<<20))
			s, err := authority.Read(t.Context(), on)
			if err != nil {
				t.Fatal(err)
			}
			w.authority[i] = s.Records
		}
		return w
	}
	same := func(before, after world) {
		t.Helper()
		if x, y := fmt.Sprintf("%+v", before), fmt.Sprintf("%+v", after); x != y {
			t.Errorf("the world was changed:\nbefore %s\nafter  %s", x, y)
		}
	}

	before := look()
	th.acked(1)
	r, stderr := th.drill(0)
	t.Logf("%s", stderr)
	for _, check := range r.Checks {
		t.Logf("%-8s %v %s", check.Name, check.OK, check.Detail)
	}
	after := look()
	same(before, after)
	if !r.Success || r.RTO == nil || r.Outcome.Outcome != evidence.OutcomeDone || r.check("fence") == "" || r.check("RPO") == "" {
		t.Errorf("the drill says %+v", r)
	}
	proved := map[string]bool{}
	for _, g := range r.Groups {
		if g.Proved == nil || !*g.Proved {
			t.Errorf("group %s is not proved", g.Group)
		}
		proved[g.Group] = true
	}
	if len(proved) != 3 {
		t.Errorf("groups %v were tried, want the two that read and the idle one", proved)
	}
	if err := changer.Audit(t.Context(), "note", []byte("still mine")); err != nil {
		t.Errorf("the drill took the right of a command that changes the authority: %v", err)
	}
	if th.told("writers") != th.east() || th.told("readers") != th.east() {
		t.Error("a hook was run")
	}
	for _, w := range th.writers {
		if n := w.refusals.Load(); n > 0 {
			t.Errorf("writer %s was refused %d times", w.name, n)
		}
	}
	if events, err := authority.ReadAudit(t.Context(), cfg, r.Run); err != nil || len(events) < 10 {
		t.Errorf("the audit topic has %d events of the drill, %v", len(events), err)
	}
	th.must("evidence", "verify", r.Bundle)
	shown := func() (d authority.Drill) {
		var doc struct{ Drill *authority.Drill }
		if err := json.Unmarshal([]byte(th.must("authority", "show", "-o", "json")), &doc); err != nil || doc.Drill == nil {
			t.Fatalf("authority show tells of no drill: %v", err)
		}
		return *doc.Drill
	}
	passed := shown()
	if !passed.Success || passed.LastSuccess == nil || passed.Run != r.Run || passed.By != "timer" {
		t.Errorf("authority show tells of %+v", passed)
	}

	// Interrupted, or in the way of a run that begins, a drill cleans up. Killed, it
	// cannot, and the next one does.
	said, code := th.cutShort("fence", func(p *os.Process) { _ = p.Signal(syscall.SIGTERM) })
	if left := scratch(); code != 4 || len(left) > 0 || !strings.Contains(said, "error: interrupted") {
		t.Errorf("interrupted, the drill ended with %d, left %v and said\n%s", code, left, said)
	}
	run, err := evidence.Start(evidence.Config{Run: evidence.NewRun("switchover", time.Now()), Sinks: []evidence.Sink{changerSink{changer}}})
	if err != nil {
		t.Fatal(err)
	}
	said, code = th.cutShort("fence", func(*os.Process) {
		if err := run.Record(t.Context(), evidence.KindPlan, "", evidence.PlanDoc{Verb: "switchover", From: th.east(), To: th.west(), Epoch: 1, NextEpoch: 2, By: "ann"}); err != nil {
			t.Error(err)
		}
		id := run.Events()[0].Run
		if err := changer.Put(t.Context(), authority.LastRunFact, id, authority.LastRun{Run: id}); err != nil {
			t.Error(err)
		}
	})
	if left := scratch(); code != 4 || len(left) > 0 || !strings.Contains(said, "gave way: run "+run.Events()[0].Run) {
		t.Errorf("in the way of a run, the drill ended with %d, left %v and said\n%s", code, left, said)
	}
	if _, stderr := th.drill(3); !strings.Contains(stderr, "is not finished") {
		t.Errorf("a drill while a run is unfinished says %s", stderr)
	}
	if err := run.Record(t.Context(), evidence.KindOutcome, "", evidence.OutcomeDoc{Outcome: evidence.OutcomeUndone}); err != nil {
		t.Errorf("the drill took the right of a run: %v", err)
	}
	th.cutShort("groups", func(p *os.Process) { _ = p.Kill() })
	left := scratch()
	if len(left) != 5 { // a topic, a journal, three groups
		t.Errorf("killed, the drill left %v", left)
	}
	if d := shown(); d.Run != passed.Run {
		t.Errorf("drills that were cut short count: %+v", d)
	}

	// The target loses records the idle group has still to read: it would go on behind them.
	stands, err := west.FetchOffsets(t.Context(), idle)
	if err != nil {
		t.Fatal(err)
	}
	on, _ := stands.Lookup(th.topics[0], 0)
	var cut kadm.Offsets
	cut.AddOffset(th.topics[0], 0, on.At+30, -1)
	if resp, err := west.DeleteRecords(t.Context(), cut); err != nil || resp.Error() != nil {
		t.Fatal(err, resp.Error())
	}
	r, stderr = th.drill(3)
	t.Logf("%s", stderr)
	if left := scratch(); len(left) > 0 || !strings.Contains(stderr, "5 removed") {
		t.Errorf("of the killed drill %v is left", left)
	}
	stood, _ := stands.Lookup(th.topics[0], 0)
	after = look()
	if want := fmt.Sprintf("%s-0=%d ", th.topics[0], stood.At); after.idleWest != want {
		t.Errorf("the idle group stands at %s, not at %s", after.idleWest, want)
	}
	after.idleWest = before.idleWest
	same(before, after)
	if r.Success || !slices.Contains(r.Failed, "probe") || !strings.Contains(r.check("probe"), idle+" "+th.topics[0]+"-0 at source offset 20") {
		t.Errorf("the drill says %v, probe: %s", r.Failed, r.check("probe"))
	}
	for _, g := range r.Groups {
		if (g.Group == idle) == (g.Proved != nil && *g.Proved) {
			t.Errorf("group %s: proved %v", g.Group, g.Proved)
		}
	}
	if d := shown(); d.Success || d.LastSuccess == nil || !d.LastSuccess.Equal(*passed.LastSuccess) {
		t.Errorf("authority show tells of %+v", d)
	}

	th.quiet()
}
