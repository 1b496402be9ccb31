package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/config"
	"replicator/internal/kafkatest"
	"replicator/pkg/evidence"
)

// A verb and where its command is killed. before, undone and after name points of a run: a
// hook's "before drain" and "after drain" kill the command itself; the others are what a run
// says between two writes of one step, or that a step has begun or is done, where the same
// run in a process of this test kills itself.
type killedVerb struct {
	name  string
	steps []string
	// sides of every step and points inside of them, at each of which one run is killed, and
	// taken up every time.
	sides  []string
	inside []point
	// undone are points of runs that are taken back then, finished of those that are run again.
	undone, finished []point
	// point is the step behind which nothing can be undone.
	point string
	// begin brings the pair to where the verb can be begun, end back; nil: nothing is needed.
	begin, end func(*killing)
	// also are runs that are killed in a way of their own.
	also func(*killing)
}

var (
	switchoverSteps = []string{"gates", "fence-writers", "drain", "verify", "promote", "fence-link", "open-writers", "groups", "reverse"}
	failoverSteps   = []string{"gates", "promote", "fence-link", "open-writers", "groups"}
	failbackSteps   = []string{"gates", "authority", "fence-returned", "stranded", "reverse"}
	drillSteps      = []string{"leftovers", "gates", "fence", "drain", "verify", "groups", "probe", "clean-up"}

	rulesPlanned  = point{"fence-writers", "written down"}
	rulesUndone   = point{"fence-writers", "rules lifted"} // of an undo
	recordOnNew   = point{"promote", "the record stands on"}
	rulesLifted   = point{"open-writers", "rules lifted"}
	firstReplayed = point{"stranded", fmt.Sprintf("%d of %d records", strandedRecords/4, strandedRecords)} // one of four partitions
	lastReplayed  = point{"stranded", fmt.Sprintf("%d of %d records", strandedRecords, strandedRecords)}
	firstNoted    = point{"stranded", "the 1. of 4 partitions, is noted"}
	linkFenced    = point{"reverse", "inverses are known"}
	linkPrepared  = point{"reverse", "lanes are prepared"}
	beforeOutcome = point{"", "before the outcome"}
)

// strandedRecords are as many as a region that was given up takes each time, the same number in
// each of its four partitions.
const strandedRecords = 40

var hookSides = []string{"before", "after"}

var killedVerbs = []killedVerb{
	{
		name: "switchover", steps: switchoverSteps, sides: hookSides, point: "promote",
		undone:   slices.Concat(each(switchoverSteps[:5], "before"), []point{rulesPlanned}, each(switchoverSteps[:4], "after")),
		finished: []point{rulesPlanned, {"promote", "before"}, recordOnNew, {"fence-link", "before"}, rulesLifted, {"groups", "before"}, linkFenced, linkPrepared, beforeOutcome},
		also:     (*killing).switchoverToo,
	},
	{
		// What was switched is rolled back before anything is written there.
		name: "rollback", steps: switchoverSteps, sides: hookSides, point: "promote",
		inside:   []point{rulesPlanned, recordOnNew, rulesLifted, linkFenced, linkPrepared},
		undone:   []point{rulesPlanned, {"drain", "before"}, {"verify", "after"}},
		finished: []point{recordOnNew},
		begin:    (*killing).switched,
	},
	{
		// The region that is given up is alive and has come to rest, so that nothing is lost by
		// it; it is taken in again each time.
		name: "failover", steps: failoverSteps, sides: hookSides, point: "promote",
		undone:   []point{{"gates", "before"}, {"gates", "after"}, {"promote", "before"}},
		finished: []point{{"promote", "before"}, recordOnNew, {"fence-link", "before"}, {"groups", "before"}, beforeOutcome},
		begin:    (*killing).rest, end: (*killing).failback,
	},
	{
		// It has taken records since it was given up, which are replayed.
		name: "failback", steps: failbackSteps, sides: hookSides, point: "reverse",
		inside:   []point{rulesPlanned, firstReplayed, lastReplayed, firstNoted, linkFenced, linkPrepared},
		undone:   []point{{"stranded", "before"}},
		finished: []point{beforeOutcome},
		begin:    (*killing).returned,
		also:     (*killing).failbackToo,
	},
	{
		// It has no hooks: that a step is done is that the next has begun.
		name: "drill", steps: drillSteps, sides: []string{evidence.StepBegun}, inside: []point{{"clean-up", evidence.StepDone}},
		finished: []point{beforeOutcome},
	},
}

// The command of each verb is killed at every step, before and behind it and between the
// writes of those that have several, and is run again.
func TestCutoverKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	cfg := kafkatest.Config{Authorizer: true, SASL: []string{kafkatest.Plain}, Users: []string{appUser}}
	pair := kafkatest.StartPair(t, cfg, cfg)
	t.Run("verbs", func(t *testing.T) {
		for _, v := range killedVerbs {
			t.Run(v.name, func(t *testing.T) { t.Parallel(); newKilling(t, pair, "killed-"+v.name).all(v) })
		}
	})
}

// all kills runs of a verb at its points.
func (k *killing) all(v killedVerb) {
	begin := func() {
		if v.begin != nil {
			v.begin(k)
		}
	}
	finishes := func(p point) {
		k.finishes(v.name, p)
		if v.end != nil {
			v.end(k)
		}
	}
	begin()
	for _, p := range v.undone {
		k.kill(v.name, p, false)
		k.undoes(v.name, p)
	}
	for i, p := range v.finished {
		if i > 0 {
			begin()
		}
		k.kill(v.name, p, false)
		if at := slices.Index(v.steps, p.step); v.point != "" && (at > slices.Index(v.steps, v.point) || p == recordOnNew || p == beforeOutcome) {
			k.refusesUndo(v.name, p)
		}
		finishes(p)
	}
	begin()
	finishes(k.killedAgain(v))
	if v.also != nil {
		v.also(k)
	}
	k.finish()
}

func newKilling(t *testing.T, pair *kafkatest.ClusterPair, name string) *killing {
	t.Helper()
	k := &killing{theatre: newTheatre(t, pair, name, "acl", 2), t: t, epoch: 1, seen: map[string]bool{}, lostOn: map[string]string{}}
	k.pace = 50 * time.Millisecond
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		for _, b := range []*kadm.ACLBuilder{
			kadm.NewACLs().Operations(kadm.OpRead, kadm.OpWrite).Topics(k.topics...),
			kadm.NewACLs().Operations(kadm.OpRead).Groups(name).ResourcePatternType(kadm.ACLPatternPrefixed),
		} {
			if err := c.Allow(t.Context(), appUser, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The first hooks of each side of each step kill the command once, if it is told.
	var kills strings.Builder
	for _, step := range config.Steps {
		for _, when := range hookSides {
			fmt.Fprintf(&kills, "    - {step: %s, when: %s, command: [sh, -c, %q]}\n", step, when,
				fmt.Sprintf("rm %s/kill.%s.%s 2>&- && kill -9 $PPID; true", k.dir, when, step))
		}
	}
	k.file = rewritten(t, k.file, func(text string) string {
		return strings.NewReplacer("settle: 300ms", "settle: 100ms\n  verify_records: 100", "  hooks:\n", "  hooks:\n"+kills.String(),
			// Nobody goes where nothing is to be written.
			"echo $REPLICATOR_TO > "+k.dir+"/writers", "test -e "+k.dir+"/stay || echo $REPLICATOR_TO > "+k.dir+"/writers").Replace(text)
	})
	k.must("authority", "init", "--region", k.east(), "--yes")
	k.at = k.east()
	k.daemon = startProcess(t, k.file, "daemon", "")
	k.startWriter(name+".writer", k.topics[0], false, &holding{file: filepath.Join(k.dir, "writing")})
	k.startReader(name+".group", &holding{file: filepath.Join(k.dir, "reading")})
	k.acked(200)
	k.passes("switchover", "--to", k.west())
	k.lost = &writerApp{name: name + ".lost", sent: map[string]bool{}}
	k.writers = append(k.writers, k.lost)
	return k
}

func (k *killing) other() string {
	if k.at == k.east() {
		return k.west()
	}
	return k.east()
}

// args are those of a verb, as things stand.
func (k *killing) args(verb string) []string {
	switch verb {
	case "failover":
		return []string{verb, "--to", k.other(), "--accept-loss", "--force", "--yes"}
	case "failback":
		return []string{verb, "run", "--from", k.other(), "--stranded", "replay", "--yes"}
	case "rollback":
		return []string{verb, "--yes"}
	case "drill":
		return []string{verb}
	}
	return []string{verb, "--to", k.other(), "--yes"}
}

// kill runs a verb to its death.
func (k *killing) kill(verb string, p point, undo bool) {
	k.t.Helper()
	program, err := command()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := exec.CommandContext(k.t.Context(), program, append(k.args(verb), "--config", k.file)...)
	if slices.Contains(hookSides, p.at) {
		if err := os.WriteFile(filepath.Join(k.dir, "kill."+p.at+"."+p.step), nil, 0o600); err != nil {
			k.t.Fatal(err)
		}
	} else {
		from, to := k.at, k.other()
		if verb == "failback" {
			from, to = to, from
		}
		cmd = exec.CommandContext(k.t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), killedVariable+"="+k.file, killedVariable+"_FROM="+from, killedVariable+"_TO="+to,
			killedVariable+"_VERB="+verb, killedVariable+"_STEP="+p.step, killedVariable+"_KILL="+p.at, killedVariable+"_STRANDED=replay")
		if undo {
			cmd.Env = append(cmd.Env, killedVariable+"_UNDO=yes")
		}
	}
	var says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &says, &says
	err = cmd.Run()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		k.t.Fatalf("%s, %v: it was not killed: %v\n%s", verb, p, err, says.String())
	}
	k.bundles(false)
}

// again runs the verb once more, to its end.
func (k *killing) again(verb string, more ...string) (stderr string, code int, took time.Duration) {
	k.t.Helper()
	began := time.Now()
	_, stderr, code = k.run(append(k.args(verb), more...)...)
	return stderr, code, time.Since(began)
}

// finishes runs a killed verb again: it has to come to its end.
func (k *killing) finishes(verb string, p point) {
	k.t.Helper()
	stderr, code, took := k.again(verb)
	if code != 0 {
		k.t.Fatalf("%s, killed %v, run again: exit code %d\n%s", verb, p, code, stderr)
	}
	k.row(verb, p, "finishes", took)
	k.done(verb)
	k.holds()
	if rules := k.denied(k.other()); verb != "failover" && verb != "drill" && len(rules) != len(k.topics) {
		k.t.Errorf("%s, killed %v, finished: applications are kept from %s by %v", verb, p, k.other(), rules)
	}
	if left := k.scratch(); len(left) > 0 {
		k.t.Errorf("%s, killed %v, finished: %v is left", verb, p, left)
	}
	if (verb == "switchover" || verb == "failback") && k.epoch == 2 {
		k.passes("switchover", "--to", k.east()) // the link to it has to have made its topics
	}
}

// done takes note of what a verb that has come to its end has changed.
func (k *killing) done(verb string) {
	if verb != "failback" && verb != "drill" {
		k.at, k.epoch = k.other(), k.epoch+1
	}
}

// undoes takes a killed run back.
func (k *killing) undoes(verb string, p point) {
	k.t.Helper()
	stderr, code, took := k.again(verb, "--undo")
	if code != 3 || !strings.Contains(stderr, "undone: asked for with --undo") {
		k.t.Fatalf("%s, killed %v, undone: exit code %d\n%s", verb, p, code, stderr)
	}
	k.row(verb, p, "undoes", took)
	k.holds()
	if rules := k.denied(k.other()); verb == "failback" && len(rules) > 0 {
		k.t.Errorf("%s, killed %v, undone: these rules are left on %s: %v", verb, p, k.other(), rules)
	}
}

// refusesUndo tries to take back what cannot be.
func (k *killing) refusesUndo(verb string, p point) {
	k.t.Helper()
	before := k.current(k.other())
	stderr, code, _ := k.again(verb, "--undo")
	if code != 3 || !strings.Contains(stderr, "cannot be undone") || !strings.Contains(stderr, "without --undo") {
		k.t.Fatalf("%s, killed %v, --undo: exit code %d\n%s", verb, p, code, stderr)
	}
	if now := k.current(k.other()); now.Run != before.Run || verb != "failback" && now.Region != k.other() {
		k.t.Errorf("%s, killed %v, --undo: authority %+v", verb, p, now)
	}
}

func (k *killing) row(verb string, p point, what string, took time.Duration) {
	k.table = append(k.table, fmt.Sprintf("%-10s  %-42s %-9s %6.2f s", verb, p, what, took.Seconds()))
}

// each is every step with the same side.
func each(steps []string, at string) (out []point) {
	for _, s := range steps {
		out = append(out, point{s, at})
	}
	return out
}

// switchoverToo kills one that is taken back, and one behind which groups are at work.
func (k *killing) switchoverToo() {
	const verb = "switchover"
	k.kill(verb, point{"drain", "before"}, false)
	k.kill(verb, rulesUndone, true)
	k.undoes(verb, rulesUndone)
	// The groups read in the new region already, and nobody stops them for the second time.
	k.kill(verb, point{"reverse", "before"}, false)
	k.acked(40)
	hooked := k.file
	k.file = rewritten(k.t, k.file, func(text string) string {
		return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.Contains(line, "step: groups") }), "\n")
	})
	k.finishes(verb, point{"reverse", "before, groups at work"})
	k.file = hooked
}

// failbackToo kills one that has replayed some records: no other decision can be taken then.
func (k *killing) failbackToo() {
	const verb = "failback"
	k.returned()
	k.kill(verb, firstReplayed, false)
	_, stderr, code := k.run(verb, "run", "--from", k.other(), "--stranded", "discard", "--yes")
	if code != 3 || !strings.Contains(stderr, "was begun with --stranded replay") {
		k.t.Errorf("another decision about stranded records: exit code %d\n%s", code, stderr)
	}
	k.finishes(verb, firstReplayed)
}

// killedAgain kills one run at each point in each of its steps, taken up every time. It returns the last.
func (k *killing) killedAgain(v killedVerb) (last point) {
	k.t.Helper()
	for _, step := range v.steps {
		points := []point{{step, v.sides[0]}}
		for _, p := range v.inside {
			if p.step == step || p == rulesPlanned && step == "fence-returned" {
				points = append(points, p)
			}
		}
		for _, at := range v.sides[1:] {
			points = append(points, point{step, at})
		}
		for _, p := range points {
			if last.step != "" {
				k.table = append(k.table, fmt.Sprintf("%-10s  %-42s goes on, killed again at %v", v.name, last, p))
			}
			last = p
			k.kill(v.name, p, false)
		}
	}
	return last
}

// switched goes to the other region, where nothing is written then.
func (k *killing) switched() {
	k.t.Helper()
	k.rest()
	stay := filepath.Join(k.dir, "stay")
	if err := os.WriteFile(stay, nil, 0o600); err != nil {
		k.t.Fatal(err)
	}
	k.must(k.args("switchover")...)
	k.done("switchover")
	if err := os.Remove(stay); err != nil {
		k.t.Fatal(err)
	}
	if k.epoch == 2 {
		k.passes("rollback")
	}
}

// returned gives a region up, which then takes records that nobody copies.
func (k *killing) returned() {
	k.t.Helper()
	k.rest()
	k.must(k.args("failover")...)
	k.done("failover")
	old := k.other()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.cluster(old).InternalBootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		k.t.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for i := range strandedRecords {
		id := fmt.Sprintf("%s-%d-%d", k.lost.name, k.epoch, i)
		k.lost.mu.Lock()
		k.lost.sent[id] = true
		k.lost.mu.Unlock()
		k.lostOn[id] = old
		records = append(records, &kgo.Record{Topic: k.topics[i%2], Partition: int32(i / 2 % 2), Key: []byte(id), Value: []byte(id)})
	}
	if err := client.ProduceSync(k.t.Context(), records...).FirstErr(); err != nil {
		k.t.Fatal(err)
	}
}

// rest stops the writers until the copy has everything.
func (k *killing) rest() {
	k.t.Helper()
	k.quiet()
	if !k.same() {
		k.t.FailNow()
	}
}

// failback takes the region that was given up in again.
func (k *killing) failback() {
	k.t.Helper()
	stdout, stderr, code := k.run("failback", "run", "--from", k.other(), "--stranded", "discard", "--yes")
	if k.epoch == 2 {
		k.passes("switchover", "--to", k.east()) // the link to it has to have made its topics
	}
	if code != 0 {
		k.t.Fatalf("failback: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// finish counts: every record that was acknowledged is in both regions once, and was
// processed once; and nothing is left of what was killed.
func (k *killing) finish() {
	k.t.Helper()
	k.quiet()
	k.same()
	k.settled(k.lost.sent)
	for _, c := range []*kafkatest.Cluster{k.pair.Source, k.pair.Target} {
		eventually(k.t, "transactions of "+c.Config().Name+" to end", func() bool {
			listed, err := c.Admin().ListTransactions(k.t.Context(), nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort"})
			if err != nil {
				k.t.Fatal(err)
			}
			return !slices.ContainsFunc(listed.TransactionalIDs(), func(id string) bool { return strings.Contains(id, k.east()) || strings.Contains(id, k.west()) })
		})
	}
	if left := k.scratch(); len(left) > 0 {
		k.t.Errorf("%v is left", left)
	}
	k.kept()
	k.t.Logf("killed, and run again:\n%s", strings.Join(k.table, "\n"))
}
