package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
)

// dying is a pair whose regions die in the middle of a cutover. East has two brokers, so that
// it can die in part.
type dying struct {
	*killing
	began time.Time
}

// A region dies in the middle of a cutover. Every record and every group's place is counted
// when it is over, in both regions.
func TestARegionDiesInTheMiddleOfACutover(t *testing.T) {
	t.Parallel()
	east := kafkatest.Config{Name: "east", Brokers: 2, Authorizer: true, SASL: []string{kafkatest.Plain}, Users: []string{appUser}}
	west := east
	west.Name, west.Brokers = "west", 1
	d := newDying(t, kafkatest.StartPair(t, east, west))
	d.commandAndTargetDie()
	d.targetDiesBeforeThePoint()
	d.sourceDiesBehindThePoint()
	d.sourceIsHalfDead(d.sourceDiesBeforeThePoint())
	d.t.Logf("what happened, and how long it took:\n%s", strings.Join(d.table, "\n"))
}

func newDying(t *testing.T, pair *kafkatest.ClusterPair) *dying {
	t.Helper()
	const name = "dying"
	d := &dying{&killing{theatre: newTheatre(t, pair, name, "acl", 2), t: t, epoch: 1, seen: map[string]bool{}}, time.Now()}
	d.patience = 5 * time.Second
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		for _, b := range []*kadm.ACLBuilder{
			kadm.NewACLs().Operations(kadm.OpRead, kadm.OpWrite).Topics(d.topics...),
			kadm.NewACLs().Operations(kadm.OpRead).Groups(name).ResourcePatternType(kadm.ACLPatternPrefixed),
		} {
			if err := c.Allow(t.Context(), appUser, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.must("authority", "init", "--region", d.east(), "--yes")
	d.at = d.east()
	d.daemon = startProcess(t, d.file, "daemon", "")
	// The commands notice soon that nobody answers; the daemon has its usual patience.
	d.file = rewritten(t, d.file, func(text string) string {
		return strings.NewReplacer("settle: 300ms", "settle: 100ms", "bootstrap_servers:", "timeouts: {dial: 1s, request: 3s, retry: 3s}, bootstrap_servers:").Replace(text)
	})
	writing, reading := &holding{file: filepath.Join(d.dir, "writing")}, &holding{file: filepath.Join(d.dir, "reading")}
	d.startWriter(name+".a", d.topics[0], false, writing)
	d.startWriter(name+".b", d.topics[1], false, writing)
	d.startReader(name+".billing", reading)
	d.startReader(name+".audit", reading)
	d.acked(400)
	d.passes("switchover", "--to", d.west())
	return d
}

// moment is when something happens to a switchover: as a step begins, or at what it says.
type moment struct {
	step, says string
	do         func()
}

// moments follow a run and have each happen once.
type moments struct{ left []moment }

func (m *moments) Event(e evidence.Event) {
	if e.Kind != evidence.KindStep {
		return
	}
	if doc, err := evidence.Decode[evidence.StepDoc](e); err == nil && doc.Outcome == evidence.StepBegun {
		m.come(func(one moment) bool { return one.says == "" && one.step == doc.Name })
	}
}

func (m *moments) Progress(step, text string) {
	m.come(func(one moment) bool { return one.says != "" && one.step == step && strings.Contains(text, one.says) })
}

func (m *moments) come(is func(moment) bool) {
	if i := slices.IndexFunc(m.left, is); i >= 0 {
		do := m.left[i].do
		m.left = slices.Delete(m.left, i, i+1)
		do()
	}
}

// switchover runs one in this process, as the command does, while things happen to it.
func (d *dying) switchover(happen ...moment) *cutover.Result {
	d.t.Helper()
	d.passes("switchover", "--to", d.other())
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	setup, err := pairSetup(ctx, d.file, d.at, d.other())
	if err != nil {
		d.t.Fatal(err)
	}
	defer setup.Old.Cluster.Close()
	defer setup.New.Cluster.Close()
	setup.Log = zap.NewNop()
	m := &moments{happen}
	r, err := cutover.Execute(ctx, *setup, cutover.Request{Verb: cutover.Switchover, By: "test", ExpectEpoch: -1, Watch: m})
	if err != nil || len(m.left) > 0 {
		d.t.Fatalf("switchover: %+v, %v; these moments never came: %+v", r, err, m.left)
	}
	return r
}

// dies kills a region.
func (d *dying) dies(region string) {
	for _, b := range d.cluster(region).Brokers() {
		b.Kill()
	}
}

// returns starts the same brokers again.
func (d *dying) returns(region string) {
	d.t.Helper()
	for _, b := range d.cluster(region).Brokers() {
		if err := b.Launch(); err != nil { // none is ready alone
			d.t.Fatal(err)
		}
	}
	d.ready(region)
}

// ready waits until every broker of a region is one of its members, and answers.
func (d *dying) ready(region string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	if err := d.cluster(region).Ready(ctx); err != nil {
		d.t.Fatal(err)
	}
}

// ended holds what a run came to against what it has to.
func (d *dying) ended(r *cutover.Result, outcome string, says, next []string) {
	d.t.Helper()
	ok := r.Outcome.Outcome == outcome
	for _, w := range says {
		ok = ok && strings.Contains(r.Outcome.Error, w)
	}
	for _, w := range next {
		ok = ok && strings.Contains(r.Outcome.Next, w)
	}
	d.t.Logf("%s: %s\nnext: %s", r.Outcome.Outcome, r.Outcome.Error, r.Outcome.Next)
	if !ok {
		d.t.Fatalf("the run ended with %q, want %q; it has to say %q, and %q as what to do", r.Outcome.Outcome, outcome, says, next)
	}
}

// command runs a command that has to end with an exit code and say something.
func (d *dying) command(code int, says []string, args ...string) (stderr string) {
	d.t.Helper()
	began := time.Now()
	stdout, stderr, got := d.run(args...)
	ok := got == code
	for _, w := range says {
		ok = ok && strings.Contains(stdout+stderr, w)
	}
	at := max(0, strings.LastIndex(stderr, "\nerror: "))
	d.t.Logf("replicator %s: exit code %d after %.1f s%s", strings.Join(args, " "), got, time.Since(began).Seconds(), stderr[at:])
	if !ok {
		d.t.Fatalf("replicator %s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), got, code, says, stdout, stderr)
	}
	return stderr
}

func (d *dying) took(what string, began time.Time) {
	d.table = append(d.table, fmt.Sprintf("%-80s %6.2f s", what, time.Since(began).Seconds()))
	d.t.Logf("%.1f s after the beginning: %s", time.Since(d.began).Seconds(), d.table[len(d.table)-1])
}

// readFrom waits until every group has read a record of a region since it was counted.
func (d *dying) readFrom(region string, counted map[string]int) {
	d.t.Helper()
	eventually(d.t, "the groups to read in "+region, func() bool {
		for group, n := range d.reads(region) {
			if n <= counted[group] {
				return false
			}
		}
		return true
	})
}

// reads counts the records that each group has processed in a region.
func (d *dying) reads(region string) map[string]int {
	out := map[string]int{}
	for _, r := range d.readers {
		r.mu.Lock()
		out[r.group] = r.by[region]
		r.mu.Unlock()
	}
	return out
}

// restGroups stops the groups; what they have committed is known in the other region, where
// records wait for them that they have not read.
func (d *dying) restGroups() {
	d.t.Helper()
	d.tell("readers", "none")
	waitGone(d.t, d.theatre, "reading")
	at := time.Now()
	eventually(d.t, "the commits to be followed", func() bool {
		stdout, _, code := d.run("offsets", "translate", "--link", d.at+"->"+d.other(), "-o", "json")
		return code == 0 && resultOf[struct {
			Current struct {
				UpTo time.Time `json:"up_to"`
			}
		}](d.t, stdout).Current.UpTo.After(at)
	})
	d.acked(100)
}

// records reads a region and counts each record by its value.
func (d *dying) records(region string) map[string]int {
	d.t.Helper()
	out := map[string]int{}
	for _, topic := range d.topics {
		if err := compare.Read(d.t.Context(), internal(d.cluster(region)), topic, func(r *kgo.Record) error {
			out[string(r.Value)]++
			return nil
		}); err != nil {
			d.t.Fatal(err)
		}
	}
	return out
}

// counted holds the records of a region against what was acknowledged: each is there once;
// twice where a replay has appended it again.
func (d *dying) counted(region string, again map[string]bool) {
	d.t.Helper()
	d.has(region, d.sentRecords(), again)
}

// has waits until a region has all these records, each once but for those again.
func (d *dying) has(region string, want, again map[string]bool) {
	d.t.Helper()
	var wrong string
	eventually(d.t, "the copy in "+region, func() bool {
		have := d.records(region)
		missing, twice, foreign := 0, 0, 0
		for id := range want {
			if have[id] == 0 {
				missing++
			}
		}
		for id, n := range have {
			if n > 1 && !again[id] || n > 2 {
				twice++
			}
			if !want[id] {
				foreign++
			}
		}
		wrong = fmt.Sprintf("%s has %d of %d acknowledged records, %d more than once, %d that nobody was told of", region, len(want)-missing, len(want), twice, foreign)
		return missing == 0 || twice+foreign > 0
	})
	d.t.Log(wrong)
	if !strings.Contains(wrong, " 0 more than once, 0 that") {
		d.t.Fatal(wrong)
	}
}

// The command is killed when the rules stand, and the target dies: nobody knows any more how
// far it came, so nothing is undone. How to let writers in by hand is said.
func (d *dying) commandAndTargetDie() {
	d.t.Helper()
	d.kill("switchover", point{"fence-writers", "reading the ends"}, false)
	d.dies(d.west())
	if rules := d.denied(d.east()); len(rules) != len(d.topics) {
		d.t.Fatalf("applications are kept off by %v", rules)
	}
	stderr := d.command(3, []string{"rules of a run that is not finished keep applications from writing to " + d.east()}, "switchover", "--to", d.west(), "--undo", "--yes")
	_, byHand, _ := strings.Cut(stderr, "kafka-acls.sh ")
	args := strings.Fields(strings.ReplaceAll(byHand, "'", ""))
	if _, err := kafkatest.Tool(d.t.Context(), kafkatest.Kafka4, "org.apache.kafka.tools.AclCommand", args...); err != nil {
		d.t.Fatalf("kafka-acls.sh %s: %v", args, err)
	}
	d.acked(100)
	d.returns(d.west())
}

// The target dies while writers are kept off the source and the copy drains: they are let in
// again without it. When it is back the same command goes on.
func (d *dying) targetDiesBeforeThePoint() {
	d.t.Helper()
	var died time.Time
	began := time.Now()
	r := d.switchover(moment{step: "drain", do: func() { died = time.Now(); d.dies(d.west()) }})
	d.took("target dies at drain: the command has let writers in again, since the death", died)
	if took := time.Since(died); took > 20*time.Second { // less than cutover.drain_timeout: nothing waits for the dead
		d.t.Errorf("writers were let in again %v after the target died", took)
	}
	d.ended(r, evidence.OutcomeInterrupted, []string{"drain: "}, []string{"nothing is left changed on " + d.east(), "when " + d.west() + " answers again"})
	if rules := d.denied(d.east()); len(rules) > 0 {
		d.t.Fatalf("applications are kept off by %v", rules)
	}
	d.acked(200)
	d.took("target dies at drain: 200 records are written to the source, since the command", began)
	d.command(3, []string{"cannot be reached"}, "switchover", "--to", d.west(), "--undo", "--yes")
	d.returns(d.west())
}

// The source dies when the record stands on the target and not yet on the source. The target
// takes writes at once; groups are placed when somebody decides not to wait.
func (d *dying) sourceDiesBehindThePoint() {
	d.t.Helper()
	d.restGroups()
	began := time.Now()
	before := d.reads(d.west())
	r := d.switchover(
		moment{step: "fence-writers", do: func() { d.acked(100) }}, // records for the groups to find
		moment{step: "promote", says: "the record stands on", do: func() { d.dies(d.east()) }},
	)
	d.took("source dies behind the point: the command has ended, writers are open", began)
	d.ended(r, evidence.OutcomeFailed, []string{"groups: ", d.east()}, []string{d.west() + " is authoritative", "the same command"})
	if !r.Resumed {
		d.t.Error("the run that the target's death has left was not taken up")
	}
	if now := d.current(d.west()); now.Region != d.west() || now.Epoch != 2 {
		d.t.Fatalf("%s says %+v", d.west(), now)
	}
	d.acked(100)
	d.took("source dies behind the point: 100 records are written to the target, since the command", began)
	d.command(1, []string{"reverse: ", d.east() + " cannot be reached", d.west() + " is authoritative"}, "switchover", "--to", d.west(), "--yes")
	d.readFrom(d.west(), before)
	d.took("source dies behind the point: the groups read on the target, since the first command", began)
	d.returns(d.east())
	began = time.Now()
	d.command(0, nil, "switchover", "--to", d.west(), "--yes")
	d.took("source dies behind the point: finished when it was back", began)
	d.at, d.epoch = d.west(), 2
	d.holds()
}

// The source dies before the point, with records that were not copied. The switchover cannot
// be undone; a failover goes over it.
func (d *dying) sourceDiesBeforeThePoint() (lost map[string]bool) {
	d.t.Helper()
	d.restGroups()
	before := d.reads(d.east())
	r := d.switchover(
		moment{step: "fence-writers", do: func() { d.daemon.signal(syscall.SIGSTOP); d.acked(300) }},
		moment{step: "drain", do: func() { d.dies(d.west()) }},
	)
	d.daemon.signal(syscall.SIGCONT)
	d.ended(r, evidence.OutcomeInterrupted, []string{"drain: ", "undo fence-writers: "}, []string{"when " + d.west() + " answers again", "replicator failover --to " + d.east()})
	d.command(4, []string{"undo fence-writers: ", "replicator failover --to " + d.east()}, "switchover", "--to", d.east(), "--undo", "--yes")
	stdout, stderr, code := d.run("failover", "--to", d.east(), "--dry-run", "-o", "json")
	if code != 0 {
		d.t.Fatalf("failover --dry-run: exit code %d\n%s", code, stderr)
	}
	loss := resultOf[struct{ Loss evidence.LossDoc }](d.t, stdout).Loss
	least, most, _ := loss.Between()
	began := time.Now()
	d.command(0, nil, "failover", "--to", d.east(), "--accept-loss", "--yes")
	d.readFrom(d.east(), before)
	d.took("source dies before the point: the groups read on the target, since the failover began", began)
	lost = map[string]bool{}
	for id := range d.sentRecords() {
		lost[id] = true
	}
	for id, n := range d.records(d.east()) { // read behind the acknowledgements that are looked for
		delete(lost, id)
		if n > 1 {
			d.t.Errorf("record %s is %d times on %s", id, n, d.east())
		}
	}
	d.t.Logf("%d records are lost, the estimate was %d to %d (%s)", len(lost), least, most, loss.Basis)
	if n := int64(len(lost)); n == 0 || n < least || n > 2*most+100 { // applications may have been quicker at the end
		d.t.Errorf("%d records are lost, the estimate was %d to %d", n, least, most)
	}
	d.returns(d.west())
	d.command(0, nil, "failback", "run", "--from", d.west(), "--stranded", "replay", "--yes")
	d.at, d.epoch = d.east(), 3
	d.holds()
	d.quiet()
	d.counted(d.east(), nil)
	d.counted(d.west(), lost)
	d.settled(nil)
	d.tell("writers", d.east())
	return lost
}

// Some brokers of the source are frozen: connections are taken and nothing is answered. It is
// given up with --force only, and whatever is asked of it ends.
func (d *dying) sourceIsHalfDead(replayed map[string]bool) {
	d.t.Helper()
	const bound = 40 * time.Second // what is stated, and the time of a busy machine
	d.restGroups()
	d.quiet()
	before, reads := d.sentRecords(), d.reads(d.west())
	d.counted(d.west(), replayed)
	frozen, alive := d.pair.Source.Broker(1), d.pair.Source.Broker(2)
	if leader := d.leader(); leader == alive.ID() {
		frozen, alive = alive, frozen
	}
	failover := []string{"failover", "--to", d.west(), "--accept-loss", "--yes"}
	freeze := func(b *kafkatest.Broker) {
		d.t.Helper()
		if err := b.Pause(); err != nil {
			d.t.Fatal(err)
		}
	}
	refused := func(what, says string) {
		d.t.Helper()
		began := time.Now()
		d.command(3, []string{says, "--force gives the region up"}, failover...)
		d.took("source is half dead: refused, "+what, began)
		if took := time.Since(began); took > bound {
			d.t.Errorf("%s: the failover was refused after %v, want within %v", what, took, bound)
		}
	}
	freeze(frozen)
	refused("one of two brokers is frozen", fmt.Sprintf("it answers in part only, brokers [%d] do and [%d] do not", alive.ID(), frozen.ID()))
	freeze(alive)
	refused("all are frozen", "something of it is there")
	began := time.Now()
	d.command(0, []string{"given up because of --force"}, append(failover, "--force")...)
	d.readFrom(d.west(), reads)
	d.took("source is half dead: the groups read on the target, since failover --force began", began)
	if took := time.Since(began); took > bound {
		d.t.Errorf("failover --force took %v, want at most %v", took, bound)
	}
	d.acked(100)
	d.quiet()
	for _, b := range d.pair.Source.Brokers() {
		if err := b.Resume(); err != nil {
			d.t.Fatal(err)
		}
	}
	d.ready(d.east())
	d.settled(nil)
	d.counted(d.west(), replayed)
	d.has(d.east(), before, nil)
}

// leader is the broker of east that leads the first partition of the first topic.
func (d *dying) leader() int {
	d.t.Helper()
	m, err := d.pair.Source.Admin().Metadata(d.t.Context(), d.topics[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return int(m.Topics[d.topics[0]].Partitions[0].Leader)
}
