package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/pkg/authority"
	"replicator/pkg/cutover"
	"replicator/pkg/offsets"
)

// refusing is a pair on which commands are refused.
type refusing struct {
	*killing
	group string
}

// What is refused says why and what to do, and leaves nothing half done.
func TestCutoverRefusals(t *testing.T) {
	t.Parallel()
	cfg := kafkatest.Config{Authorizer: true, SASL: []string{kafkatest.Plain}, Users: []string{appUser, operatorUser}}
	pair := kafkatest.StartPair(t, cfg, cfg)
	r := &refusing{group: "refused.billing"}
	r.killing = &killing{theatre: newTheatre(t, pair, "refused", "acl", 1), t: t, epoch: 1, seen: map[string]bool{}}
	r.at = r.east()
	r.file = rewritten(t, r.file, func(text string) string {
		return strings.NewReplacer("settle: 300ms", "settle: 100ms\n  lag_limit: 50", "drain_timeout: 30s", "drain_timeout: 2s",
			"  hooks:\n", fmt.Sprintf("  groups_timeout: 1s\n  hooks:\n    - {step: drain, when: before, command: [sh, -c, %q]}\n", fmt.Sprintf("rm %s/kill.before.drain 2>&- && kill -9 $PPID; true", r.dir))).Replace(text)
	})
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		for _, b := range []*kadm.ACLBuilder{
			kadm.NewACLs().Operations(kadm.OpRead, kadm.OpWrite).Topics(r.topics...),
			kadm.NewACLs().Operations(kadm.OpRead).Groups(r.group),
			kadm.NewACLs().Operations(kadm.OpWrite).TransactionalIDs("refused.hangs"),
		} {
			if err := c.Allow(t.Context(), appUser, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, topic := range r.topics {
		putEach(t, pair.Source, topic, 1, 20)
		commit(t, pair.Source.Admin(), r.group, topic, 0, 7, "")
	}
	r.must("authority", "init", "--region", r.east(), "--yes")
	r.daemon = startProcess(t, r.file, "daemon", "")
	r.tell("writers", "none") // nothing writes but what the cases do
	r.passes("switchover", "--to", r.west())
	eventually(t, "the group is placed on the target", func() bool {
		o, err := pair.Target.Admin().FetchOffsets(t.Context(), r.group)
		return err == nil && len(o.Offsets()) == len(r.topics)
	})

	t.Run("before anything is begun", func(t *testing.T) { r.beforehand(t) })
	t.Run("gates", func(t *testing.T) { r.gates(t) })
	t.Run("undone", func(t *testing.T) { r.undone(t) })
	t.Run("rights", func(t *testing.T) { r.rights(t) })
	t.Run("the copies differ", func(t *testing.T) { r.differs(t) })
	t.Run("both regions claim authority", func(t *testing.T) { r.split(t) })
}

// standing is everything a run may change, in words.
func (r *refusing) standing(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, region := range []string{r.east(), r.west()} {
		s, err := authority.Read(t.Context(), authority.Config{Cluster: r.opened(region), Pair: authority.PairOf(r.east(), r.west())})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.Records {
			fmt.Fprintf(&b, "%s: epoch %d is %s's, run %q\n", region, a.Epoch, a.Region, a.Run)
		}
		fmt.Fprintf(&b, "%s: ready %v\n", region, s.Ready)
		for name, f := range s.Facts {
			// Which run was the last is no more than what the audit topic says.
			if name != authority.LastRunFact && string(f.Data) != "null" && len(f.Data) > 0 {
				fmt.Fprintf(&b, "%s: fact %s %s\n", region, name, f.Data)
			}
		}
		fmt.Fprintf(&b, "%s: applications are denied %v\n", region, r.denied(region))
		committed, err := r.cluster(region).Admin().FetchOffsets(t.Context(), r.group)
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range r.topics {
			o, ok := committed.Lookup(topic, 0)
			fmt.Fprintf(&b, "%s: %s on %s at %d, %t\n", region, r.group, topic, o.At, ok)
		}
		from := r.east()
		if region == from {
			from = r.west()
		}
		j, err := offsets.OpenJournal(t.Context(), offsets.JournalConfig{
			Client: r.opened(region).NewClient, Admin: r.opened(region).Admin(), Topic: "replicator." + from + "." + region + ".journal", ReadOnly: true, Log: logger(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range r.topics {
			e, ok := j.State(offsets.Lane{Topic: topic}).Last()
			fmt.Fprintf(&b, "%s: lane of %s is %v's, %s, %t\n", region, topic, e.Writer, e.Instance, ok)
		}
		j.Close()
	}
	return b.String()
}

// refused runs a command that has to be refused, and looks whether anything changed. Its
// words are in what it said last: error and hint.
func (r *refusing) refused(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	before := r.standing(t)
	_, stderr, got := r.run(args...)
	at := strings.LastIndex(stderr, "\nerror: ") + 1
	said := stderr[at:]
	if got != code {
		t.Errorf("%v: exit code %d, want %d\n%s", args, got, code, stderr)
	}
	for _, w := range append(words, "hint: ") {
		if !strings.Contains(said, w) {
			t.Errorf("%v: %q is missing in\n%s", args, w, said)
		}
	}
	if after := r.standing(t); after != before {
		t.Errorf("%v: left something changed:\n%s\nwas\n%s\n%s", args, after, before, stderr)
	}
	t.Logf("%s\n%s", strings.Join(args, " "), strings.TrimSpace(said))
}

// with has commands use a changed configuration for a while.
func (r *refusing) with(t *testing.T, change func(string) string, do func()) {
	t.Helper()
	kept := r.file
	r.file = rewritten(t, r.file, change)
	defer func() { r.file = kept }()
	do()
}

func (r *refusing) beforehand(t *testing.T) {
	west, east := r.west(), r.east()
	r.refused(t, 2, []string{`there is no "nowhere"`, east, west}, "switchover", "--to", "nowhere", "--yes")
	r.refused(t, 2, []string{"--accept-loss is missing", "--dry-run"}, "failover", "--to", west, "--yes")
	r.refused(t, 2, []string{"no terminal to ask on", "--yes"}, "switchover", "--to", west)
	r.refused(t, 3, []string{"there is no unfinished run"}, "switchover", "--to", west, "--yes", "--undo")
	r.with(t, func(s string) string {
		return strings.ReplaceAll(s, "refresh_interval: 2s", "refresh_interval: 2s, naming: prefix")
	}, func() {
		r.refused(t, 3, []string{"there is no authority to change", "naming: identity"}, "switchover", "--to", west, "--yes")
	})
	r.with(t, func(s string) string {
		return strings.ReplaceAll(s, strings.Join(r.bootstrap(r.cluster(west)), ","), "127.0.0.1:1")
	}, func() {
		r.refused(t, 3, []string{"region " + west, "cannot be reached", "check its section"}, "switchover", "--to", west, "--yes")
	})
}

func (r *refusing) gates(t *testing.T) {
	west, east := r.west(), r.east()
	r.refused(t, 3, []string{"the epoch is 1, not 7 as expected", "replicator authority history"}, "switchover", "--to", west, "--yes", "--expect-epoch", "7")
	r.refused(t, 3, []string{east + " is authoritative already", "epoch 1"}, "switchover", "--to", east, "--yes")
	r.refused(t, 3, []string{"the last change was no switchover", "init"}, "rollback", "--yes")
	r.refused(t, 3, []string{"is alive", "brokers answer", "replicator switchover --to " + west, "--force"}, "failover", "--to", west, "--yes", "--accept-loss")
	if stdout, stderr, code := r.run("failover", "--to", west, "--force", "--dry-run"); code != 0 || !strings.Contains(stdout, "given up because of --force") {
		t.Errorf("failover --force --dry-run: exit code %d\n%s%s", code, stdout, stderr)
	}
	r.with(t, func(s string) string { return strings.Replace(s, "writers: acl", "writers: hook", 1) }, func() {
		r.refused(t, 3, []string{"cutover.writers is hook, and there is none", "add a hook with step: fence-writers"}, "switchover", "--to", west, "--yes")
	})
	r.with(t, func(s string) string {
		before, back, _ := strings.Cut(s, "  - {from: "+west)
		_, behind, _ := strings.Cut(back, "\n")
		return before + behind
	}, func() {
		r.refused(t, 3, []string{"reverse link: none is configured", "add {from: " + west}, "switchover", "--to", west, "--yes")
	})

	// A member of the group reads in the region that is to be promoted.
	member, err := kgo.NewClient(append(r.asApp(west), kgo.ConsumerGroup(r.group), kgo.ConsumeTopics(r.topics...), kgo.DisableAutoCommit())...)
	if err != nil {
		t.Fatal(err)
	}
	reading, stop := context.WithTimeout(t.Context(), patience)
	if f := member.PollFetches(reading); f.Err() != nil {
		t.Fatal(f.Err())
	}
	stop()
	r.refused(t, 3, []string{"groups:", r.group, "group_active", "stop the group's members on " + west, "--skip-group"}, "switchover", "--to", west, "--yes")
	r.must("switchover", "--to", west, "--skip-group", r.group, "--dry-run")
	member.Close()

	// The clocks: the limit is moved below what both are apart, a millisecond or so.
	before := r.standing(t)
	setup, err := pairSetup(t.Context(), r.file, east, west)
	if err != nil {
		t.Fatal(err)
	}
	setup.Settings.ClockLimit = time.Nanosecond
	result, err := cutover.Execute(t.Context(), *setup, cutover.Request{Verb: cutover.Switchover, By: "test", ExpectEpoch: -1})
	if err != nil || result.Outcome.Outcome != "refused" || !strings.Contains(result.Outcome.Error, "clocks: ahead of here by more than 1ns: "+east) || !strings.Contains(result.Outcome.Next, "NTP") {
		t.Errorf("clocks apart: %+v, %v", result, err)
	} else {
		t.Logf("clocks: %s; %s", result.Outcome.Error, result.Outcome.Next)
	}
	if after := r.standing(t); after != before {
		t.Errorf("clocks apart: left something changed:\n%s\nwas\n%s", after, before)
	}

	// A run of another kind is not finished.
	r.kill("switchover", point{"drain", "before"}, false)
	r.refused(t, 3, []string{"(switchover to " + west, "is not finished", "replicator switchover --to " + west, "--undo"}, "failback", "run", "--from", east, "--stranded", "discard", "--yes")
	r.undoes("switchover", point{"drain", "before"})
}

// undone are runs that find out behind their beginning, and take back what they did.
func (r *refusing) undone(t *testing.T) {
	west := r.west()
	again := []string{"switchover", "--to", west, "--yes"}
	mayWrite := func() {
		t.Helper()
		app := r.app(t, r.east())
		eventually(t, "applications may write again", func() bool { return putOne(t.Context(), app, r.topics[0], 0) == nil })
	}
	for _, when := range []string{"before", "after"} {
		r.with(t, func(s string) string {
			return strings.Replace(s, "  hooks:\n", "  hooks:\n    - {step: verify, when: "+when+", command: [sh, -c, 'echo no route; exit 9']}\n", 1)
		}, func() {
			r.refused(t, 3, []string{"undone: ", "run hook " + when + " verify", "exit status 9", "no route"}, again...)
		})
		mayWrite()
	}

	// Somebody whom no rule stops goes on writing.
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		cl, err := kgo.NewClient(kgo.SeedBrokers(r.cluster(r.east()).InternalBootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
		if err != nil {
			t.Error(err)
			return
		}
		defer cl.Close()
		for ctx.Err() == nil {
			if err := putOne(ctx, cl, r.topics[0], 0); err == nil {
				time.Sleep(20 * time.Millisecond) // a record now and then, not as many as there can be
			}
		}
	})
	r.refused(t, 3, []string{"undone: fence-writers: ", "is still written to", r.topics[0], "stop whoever writes there"}, again...)
	stop()
	writing.Wait()
	mayWrite()

	// A transaction hangs.
	hangs, err := kgo.NewClient(append(r.asApp(r.east()), kgo.TransactionalID("refused.hangs"), kgo.TransactionTimeout(time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	if err := hangs.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := putOne(t.Context(), hangs, r.topics[1], 0); err != nil {
		t.Fatal(err)
	}
	r.refused(t, 3, []string{"undone: fence-writers: ", "does not come to rest", r.topics[1], "kafka-transactions.sh abort"}, again...)
	if err := hangs.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	hangs.Close()
	mayWrite()

	// The daemon has died: first a little is missing, then more than the limit.
	r.passes("switchover", "--to", west)
	r.daemon.kill()
	putEach(t, r.cluster(r.east()), r.topics[0], 1, 20)
	r.refused(t, 3, []string{"undone: drain: not done after cutover.drain_timeout", r.topics[0], "run the command again"}, again...)
	mayWrite()
	putEach(t, r.cluster(r.east()), r.topics[0], 1, 60)
	r.refused(t, 3, []string{"lag: 1 partitions are more than 50 records behind", r.topics[0] + "-0 by 81", "cutover.lag_limit"}, again...)
	r.daemon.start()
	r.passes("switchover", "--to", west)

	// A record on the target that is not the source's.
	at := r.end(t, west, r.topics[0])
	if err := putOne(t.Context(), r.app(t, west), r.topics[0], 0); err != nil {
		t.Fatal(err)
	}
	r.refused(t, 3, []string{"undone: verify: the copies differ: 1 differences", r.topics[0] + "-0", fmt.Sprintf("target offset %d", at), "replicator verify"}, again...)
	mayWrite()
	// What is compared is not there any more.
	if _, err := r.cluster(west).Admin().DeleteRecords(t.Context(), kadm.Offsets{r.topics[0]: {0: {Topic: r.topics[0], At: at + 1}}}); err != nil {
		t.Fatal(err)
	}
	r.passes("switchover", "--to", west)
}

func (r *refusing) end(t *testing.T, region, topic string) int64 {
	t.Helper()
	ends, err := r.cluster(region).Admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, 0)
	return o.Offset
}

// app is a producer of the applications' user.
func (r *refusing) app(t *testing.T, region string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(r.asApp(region), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond), kgo.ProducerLinger(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// operatorUser runs commands with rights of its own.
const operatorUser = "operator"

// right is one line of the list in docs/security.md, on one region.
type right struct {
	region string
	what   string // as the list has it
	b      *kadm.ACLBuilder
	says   string // what a refusal names: the operation and the resource
}

// operatorRights are what whoever runs a switchover needs.
func (r *refusing) operatorRights() (out []right) {
	east, west := r.east(), r.west()
	id := authority.PairOf(east, west).TransactionalID()
	topic := func(region, name string, prefixed bool, ops ...kadm.ACLOperation) {
		for _, op := range ops {
			b := kadm.NewACLs().Operations(op).Topics(name)
			if prefixed {
				b = b.ResourcePatternType(kadm.ACLPatternPrefixed)
			}
			out = append(out, right{region, fmt.Sprintf("%v on topic %s", op, name), b, name})
		}
	}
	for _, region := range []string{east, west} {
		topic(region, "refused.", true, kadm.OpRead, kadm.OpWrite)
		topic(region, authority.DefaultTopic, false, kadm.OpRead, kadm.OpWrite)
		topic(region, authority.DefaultAuditTopic, false, kadm.OpRead, kadm.OpWrite)
		out = append(out, right{region, "WRITE on transactional ids " + id, kadm.NewACLs().Operations(kadm.OpWrite).TransactionalIDs(id).ResourcePatternType(kadm.ACLPatternPrefixed), id})
		from := cmp.Or(map[string]string{east: west}[region], east)
		link := "replicator." + from + "." + region + "."
		topic(region, link+"journal", false, kadm.OpRead, kadm.OpWrite)
		out = append(out, right{region, "WRITE on transactional ids " + link, kadm.NewACLs().Operations(kadm.OpWrite).TransactionalIDs(link).ResourcePatternType(kadm.ACLPatternPrefixed), link})
	}
	topic(west, "replicator."+east+"."+west+".checkpoints", false, kadm.OpRead)
	return append(out,
		right{east, "DESCRIBE on groups refused.", kadm.NewACLs().Operations(kadm.OpDescribe).Groups("refused.").ResourcePatternType(kadm.ACLPatternPrefixed), r.group},
		right{west, "READ on groups refused.", kadm.NewACLs().Operations(kadm.OpRead).Groups("refused.").ResourcePatternType(kadm.ACLPatternPrefixed), r.group},
		right{east, "ALTER on the cluster", kadm.NewACLs().Operations(kadm.OpAlter).Clusters(), "ALTER on cluster"},
	)
}

// rights takes each one of the operator's away: the run is refused, or undone, and says
// which is missing. With all of them it is done.
func (r *refusing) rights(t *testing.T) {
	r.with(t, func(s string) string {
		for _, region := range []string{r.east(), r.west()} {
			c := r.cluster(region)
			file := filepath.Join(r.dir, "operator-secret")
			if err := os.WriteFile(file, []byte(kafkatest.Password(operatorUser)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s = strings.Replace(s, "bootstrap_servers: ["+strings.Join(c.InternalBootstrap(), ",")+"]",
				fmt.Sprintf("bootstrap_servers: [%s], sasl: {mechanism: PLAIN, username: %s, password: %q, allow_plaintext: true}", strings.Join(c.Bootstrap(), ","), operatorUser, "file:"+file), 1)
		}
		return strings.Replace(s, "cutover:\n", "cutover:\n  operators: ['User:"+operatorUser+"']\n", 1)
	}, func() {
		rights := r.operatorRights()
		for _, g := range rights {
			r.give(t, g)
		}
		r.agreed(t)
		r.must("switchover", "--to", r.west(), "--dry-run")
		dry := func(t *testing.T, g right) {
			t.Helper()
			stdout, stderr, code := r.run("switchover", "--to", r.west(), "--dry-run")
			if code != 3 && code != 1 || !strings.Contains(stderr[strings.LastIndex(stderr, "\nerror: ")+1:], g.says) {
				t.Errorf("without %s on %s a dry run says: exit code %d\n%s%s", g.what, g.region, code, stdout, stderr)
			}
		}
		for _, g := range rights {
			r.take(t, g)
			r.agreed(t)
			t.Run(strings.ReplaceAll(g.region[:1]+" "+g.what, " ", "_"), func(t *testing.T) {
				before := r.standing(t)
				dry(t, g)
				stdout, stderr, code := r.run("switchover", "--to", r.west(), "--yes")
				at := strings.LastIndex(stderr, "\nerror: ") + 1
				if code != 3 && code != 1 || !strings.Contains(stderr[at:], g.says) {
					t.Errorf("without %s on %s: exit code %d\n%s%s", g.what, g.region, code, stdout, stderr)
				}
				t.Logf("without %s on %s: exit code %d, %s", g.what, g.region, code, strings.TrimSpace(stderr[at:]))
				if after := r.standing(t); after != before {
					t.Errorf("without %s on %s something is left:\n%s\nwas\n%s", g.what, g.region, after, before)
				}
			})
			r.give(t, g)
		}
		r.hidden(t, rights, dry)
		r.agreed(t)
		r.must("switchover", "--to", r.west(), "--yes")
	})
	r.at, r.epoch = r.west(), 2
}

// hidden are rights of which a lesser one is left, by which what is missing could be passed
// by: a group may be looked at and not committed to, groups and topics are in no list.
func (r *refusing) hidden(t *testing.T, rights []right, dry func(*testing.T, right)) {
	of := func(region, what string) right {
		i := slices.IndexFunc(rights, func(g right) bool { return g.region == region && g.what == what })
		if i < 0 {
			t.Fatalf("%s on %s is no right of the list", what, region)
		}
		return rights[i]
	}
	east, west := r.east(), r.west()
	refused := func(name string, g right) {
		r.agreed(t)
		t.Run(name, func(t *testing.T) {
			before := r.standing(t)
			dry(t, g)
			if after := r.standing(t); after != before {
				t.Errorf("something is left:\n%s\nwas\n%s", after, before)
			}
		})
	}
	look := right{west, "DESCRIBE on groups refused.", kadm.NewACLs().Operations(kadm.OpDescribe).Groups("refused.").ResourcePatternType(kadm.ACLPatternPrefixed), ""}
	place := of(west, "READ on groups refused.")
	place.says = "READ on group " + r.group
	r.take(t, place)
	r.give(t, look)
	refused("a group that may only be looked at", place)
	r.take(t, look)
	r.give(t, place)

	for _, what := range []string{"READ on topic refused.", "WRITE on topic refused."} {
		r.take(t, of(east, what))
	}
	refused("topics that are in no list", of(east, "READ on topic refused."))
	for _, what := range []string{"READ on topic refused.", "WRITE on topic refused."} {
		r.give(t, of(east, what))
	}

	// With ALTER on the cluster all groups are listed.
	r.with(t, func(s string) string { return strings.Replace(s, "writers: acl", "writers: stopped", 1) }, func() {
		alter, describe := of(east, "ALTER on the cluster"), of(east, "DESCRIBE on groups refused.")
		r.take(t, alter)
		r.take(t, describe)
		refused("groups that are in no list", describe)
		r.give(t, alter)
		r.give(t, describe)
	})
}

func (r *refusing) take(t *testing.T, g right) {
	t.Helper()
	res, err := r.cluster(g.region).Admin().DeleteACLs(t.Context(), g.b.Allow("User:"+operatorUser).AllowHosts("*"))
	if err != nil || len(res) != 1 || len(res[0].Deleted) != 1 {
		t.Fatalf("take %s on %s: %+v, %v", g.what, g.region, res, err)
	}
}

func (r *refusing) give(t *testing.T, g right) {
	t.Helper()
	if err := r.cluster(g.region).Allow(t.Context(), operatorUser, g.b); err != nil {
		t.Fatal(err)
	}
}

// agreed waits until the brokers know the ACLs.
func (r *refusing) agreed(t *testing.T) {
	t.Helper()
	for _, region := range []string{r.east(), r.west()} {
		(&writersTest{Cluster: r.cluster(region), admin: r.opened(region), marks: int(time.Now().UnixNano() % 1e9)}).agree(t)
	}
}

func (r *refusing) set(t *testing.T, region string, records ...authority.Record) {
	t.Helper()
	c, err := authority.Change(t.Context(), authority.Config{Cluster: r.opened(region), Pair: authority.PairOf(r.east(), r.west())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, rec := range records {
		if err := c.Set(t.Context(), rec, authority.AllowGap()); err != nil {
			t.Fatal(err)
		}
	}
}

// differs: one copy has a record the other one lacks.
func (r *refusing) differs(t *testing.T) {
	r.set(t, r.east(), authority.Record{Epoch: 5, Region: r.west(), Verb: "by hand"})
	r.refused(t, 3, []string{"the copies differ", "has epoch 5"}, "switchover", "--to", r.east(), "--yes")
}

// split: both say at the same epoch that another region is authoritative.
func (r *refusing) split(t *testing.T) {
	r.set(t, r.east(), authority.Record{Epoch: 9, Region: r.east(), Verb: "by hand"})
	r.set(t, r.west(), authority.Record{Epoch: 9, Region: r.west(), Verb: "by hand"})
	for _, region := range []string{r.east(), r.west()} {
		r.refused(t, 3, []string{"split: at epoch 9", "replicator authority"}, "switchover", "--to", region, "--yes")
		r.refused(t, 3, []string{"split: at epoch 9", "replicator authority"}, "failover", "--to", region, "--yes", "--accept-loss", "--force")
	}
}
