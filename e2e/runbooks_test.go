package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/authority"
)

// runbooks are the commands of docs/runbooks.md by the heading they stand under.
type runbooks struct {
	headings []string
	commands map[string][]runbookLine
	followed map[string]bool
}

type runbookLine struct {
	text string
	exit int
}

var exitsWith = regexp.MustCompile(`\s+# exits (\d)$`)

func readRunbooks(t *testing.T) *runbooks {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", "runbooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := &runbooks{commands: map[string][]runbookLine{}, followed: map[string]bool{}}
	heading, fenced, shell := "", false, false
	for line := range strings.SplitSeq(string(b), "\n") {
		text := strings.TrimPrefix(strings.TrimSpace(line), "1. ")
		text = strings.TrimLeft(text, "0123456789. ")
		switch {
		case strings.HasPrefix(text, "```"):
			fenced = !fenced
			shell = fenced && text == "```sh"
		case !fenced && strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		case shell:
			l := runbookLine{text: text}
			if m := exitsWith.FindStringSubmatch(text); m != nil {
				l.exit, _ = strconv.Atoi(m[1])
				l.text = strings.TrimSuffix(text, m[0])
			}
			if len(r.commands[heading]) == 0 {
				r.headings = append(r.headings, heading)
			}
			r.commands[heading] = append(r.commands[heading], l)
		}
	}
	return r
}

// follow runs the commands under a heading, in their order. What only looks may take a
// moment to show what it should.
func (r *runbooks) follow(th *theatre, heading string) {
	th.t.Helper()
	lines := r.commands[heading]
	if len(lines) == 0 {
		th.t.Fatalf("runbooks have no commands under %q", heading)
	}
	r.followed[heading] = true
	for _, l := range lines {
		began := time.Now()
		for {
			said, exit := th.shell(l.text)
			if exit == l.exit {
				th.t.Logf("%s: exit code %d after %.1f s\n%s", l.text, exit, time.Since(began).Seconds(), said)
				break
			}
			if strings.Contains(l.text, "--yes") || time.Since(began) > patience {
				th.t.Fatalf("%s: exit code %d, the runbook %q says %d\n%s", l.text, exit, heading, l.exit, said)
			}
			time.Sleep(300 * time.Millisecond)
		}
	}
}

// shell runs a command line of the runbooks in the theatre.
func (th *theatre) shell(line string) (said string, exit int) {
	th.t.Helper()
	program, err := command()
	if err != nil {
		th.t.Fatal(err)
	}
	line = regexp.MustCompile(`\beast\b`).ReplaceAllString(line, th.east())
	line = regexp.MustCompile(`\bwest\b`).ReplaceAllString(line, th.west())
	ctx, cancel := context.WithTimeout(th.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = th.dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") || strings.HasPrefix(kv, "PATH=") }),
		"REPLICATOR_CONFIG="+th.file, "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			th.t.Fatal(err)
		}
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// edit changes the theatre's configuration.
func (th *theatre) edit(from, to string, n int) {
	th.t.Helper()
	b, err := os.ReadFile(th.file)
	if err != nil {
		th.t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(from)) {
		th.t.Fatalf("the configuration has no %q:\n%s", from, b)
	}
	if err := os.WriteFile(th.file, []byte(strings.Replace(string(b), from, to, n)), 0o600); err != nil {
		th.t.Fatal(err)
	}
}

// aRunbook is a theatre whose daemon can be asked and whose lost regions are noticed soon.
func aRunbook(t *testing.T, pair *kafkatest.ClusterPair, name, writers string) *theatre {
	t.Helper()
	th := newTheatre(t, pair, fmt.Sprintf("%s%d", name, time.Now().UnixNano()%1e6), writers, 2)
	th.edit("bootstrap_servers:", "timeouts: {dial: 2s, request: 5s, retry: 5s}, bootstrap_servers:", 2)
	th.edit("listen: ''", "listen: '"+freeAddress(t)+"'", 1)
	return th
}

func (th *theatre) startProgram(file string) {
	th.t.Helper()
	th.daemon = (&process{t: th.t, real: true, file: file, log: filepath.Join(th.t.TempDir(), "daemon.log")}).started()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// group has committed its place in the first topic of a region.
func (th *theatre) group(region string, at int64) string {
	th.t.Helper()
	name := strings.TrimSuffix(th.topics[0], ".orders") + ".billing"
	all := kadm.Offsets{}
	all.Add(kadm.Offset{Topic: th.topics[0], At: at, LeaderEpoch: -1})
	eventually(th.t, name+" has committed", func() bool {
		return th.cluster(region).Admin().CommitAllOffsets(th.t.Context(), name, all) == nil
	})
	return name
}

// next is the number of the record a group of a region reads next in the first partition.
func (th *theatre) next(region, group string) string {
	th.t.Helper()
	fetched, err := th.cluster(region).Admin().FetchOffsets(th.t.Context(), group)
	at, ok := fetched.Lookup(th.topics[0], 0)
	if err != nil || !ok {
		th.t.Fatalf("group %s has no offset on %s: %v", group, region, err)
	}
	value := "none"
	err = compare.Read(th.t.Context(), internal(th.cluster(region)), th.topics[0], func(r *kgo.Record) error {
		if r.Partition == 0 && r.Offset >= at.At && value == "none" {
			value = string(r.Value)
		}
		return nil
	})
	if err != nil {
		th.t.Fatal(err)
	}
	return strings.TrimPrefix(value, th.topics[0]+" 0 ")
}

// records counts those of the first topic of a region.
func (th *theatre) records(region string) (n int) {
	th.t.Helper()
	err := compare.Read(th.t.Context(), internal(th.cluster(region)), th.topics[0], func(*kgo.Record) error { n++; return nil })
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) { // not copied yet
		th.t.Fatal(err)
	}
	return n
}

func (th *theatre) writeTo(region string, n int) {
	th.t.Helper()
	putEach(th.t, th.cluster(region), th.topics[0], 2, n)
}

// Every command of the runbooks ends as they say, in the situation they are for.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	book := readRunbooks(t)
	tried := 0
	situations := []struct {
		name string
		try  func(*testing.T, *runbooks)
	}{{"by hand", runbookByHand}, {"hooks", runbookHooks}, {"both claim", runbookBothClaim}, {"region lost", runbookRegionLost}, {"rules", runbookRules}}
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			s.try(t, book)
			tried++
		})
	}
	for _, h := range book.headings {
		if tried == len(situations) && !book.followed[h] {
			t.Errorf("nobody has tried the commands under %q", h)
		}
	}
}

// Moved with writers stopped, rolled back, moved and written to, moved back, and a run
// that was killed and undone.
func runbookByHand(t *testing.T, book *runbooks) {
	th := aRunbook(t, kafkatest.Pair(t), "hand", "acl")
	book.follow(th, "Once for each pair")
	th.writeTo(th.east(), 10)
	group := th.group(th.east(), 4)
	th.startProgram(th.file)
	th.passes("switchover", "--to", th.west(), "--writers-stopped")
	book.follow(th, "With writers stopped by hand")
	if next := th.next(th.west(), group); next != "4" {
		t.Errorf("the group goes on with record %s, want 4", next)
	}
	book.follow(th, "Nothing was written in west yet")
	th.passes("switchover", "--to", th.west(), "--writers-stopped")
	th.must("switchover", "--to", th.west(), "--writers-stopped", "--yes")
	th.writeTo(th.west(), 3)
	book.follow(th, "West has taken writes")
	if n := th.records(th.east()); n != 26 {
		t.Errorf("east has %d records, want 26", n)
	}
	th.edit("writers: acl", "writers: stopped", 1)
	th.passes("switchover", "--to", th.west())
	th.killedAt("drain", "switchover", "--to", th.west(), "--yes")
	book.follow(th, "A run did not end")
}

// killedAt runs a command and kills it when a step is about to begin.
func (th *theatre) killedAt(step string, args ...string) {
	th.t.Helper()
	marker, hanging := filepath.Join(th.dir, "there"), filepath.Join(th.dir, "hanging.yaml")
	b, err := os.ReadFile(th.file)
	if err != nil {
		th.t.Fatal(err)
	}
	hook := fmt.Sprintf("  hooks:\n    - {step: %s, when: before, timeout: 10s, command: [sh, -c, 'touch %s; sleep 3']}\n", step, marker)
	if err := os.WriteFile(hanging, bytes.Replace(b, []byte("  hooks:\n"), []byte(hook), 1), 0o600); err != nil {
		th.t.Fatal(err)
	}
	program, err := command()
	if err != nil {
		th.t.Fatal(err)
	}
	cmd := exec.Command(program, append(args, "--config", hanging)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		th.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if th.t.Failed() {
			th.t.Log(said.String())
		}
	}()
	eventually(th.t, "the run to come to "+step, func() bool {
		_, err := os.Stat(marker)
		return err == nil
	})
}

func runbookHooks(t *testing.T, book *runbooks) {
	th := aRunbook(t, kafkatest.Pair(t), "hooks", "hook")
	book.follow(th, "Once for each pair")
	th.startProgram(th.file)
	th.startApps(strings.TrimSuffix(th.topics[0], ".orders"))
	th.acked(500)
	th.passes("switchover", "--to", th.west())
	book.follow(th, "Drill")
	book.follow(th, "With hooks")
	th.acked(500)
	book.follow(th, "Drill") // of the way back
	th.quiet()
	th.settled(nil)
}

// Each region's copy was given the next epoch for that region.
func runbookBothClaim(t *testing.T, book *runbooks) {
	th := aRunbook(t, kafkatest.Pair(t), "claim", "acl")
	book.follow(th, "Once for each pair")
	th.writeTo(th.east(), 10)
	th.startProgram(th.file)
	eventually(t, "the copy", func() bool { return th.records(th.west()) == 20 })
	for _, region := range []string{th.east(), th.west()} {
		c, err := authority.Change(t.Context(), authority.Config{Cluster: openCluster(t, region, th.cluster(region).Bootstrap(), nil), Pair: authority.PairOf(th.east(), th.west())})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), authority.Record{Epoch: 2, Region: region, Verb: "failover", By: "ann", Why: "the other side is gone", Since: time.Now()}); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	eventually(t, "the link to close", func() bool {
		said, _ := th.shell("replicator status")
		return strings.Contains(said, "closed")
	})
	th.writeTo(th.east(), 3)
	book.follow(th, "Both regions claim authority")
	b, err := os.ReadFile(filepath.Join(th.dir, "stranded.jsonl"))
	if n := bytes.Count(b, []byte("\n")); err != nil || n != 6 {
		t.Errorf("%d records were exported, want 6: %v", n, err)
	}
	th.writeTo(th.west(), 2)
	eventually(t, "east to follow", func() bool { return th.records(th.east()) == 20+6+4 })
}

// East dies with records that were not copied, and comes back.
func runbookRegionLost(t *testing.T, book *runbooks) {
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{}) // others work on the shared one
	th := aRunbook(t, pair, "lost", "acl")
	book.follow(th, "Once for each pair")
	th.writeTo(th.east(), 10)
	group := th.group(th.east(), 4)
	th.startProgram(th.file)
	eventually(t, "the copy", func() bool { return th.records(th.west()) == 20 })
	eventually(t, "the checkpoint of the group", func() bool {
		said, code := th.shell("replicator offsets translate --link '" + th.east() + "->" + th.west() + "' --group " + group)
		return code == 0 && strings.Contains(said, "exact")
	})
	th.daemon.stop()
	th.writeTo(th.east(), 3)
	for _, b := range pair.Source.Brokers() {
		b.Kill()
	}
	book.follow(th, "Is a failover needed at all?")
	book.follow(th, "Fail over")
	if next := th.next(th.west(), group); next != "4" {
		t.Errorf("the group goes on with record %s, want 4", next)
	}
	th.daemon.start() // what runs it has tried all the time
	th.writeTo(th.west(), 2)
	for _, b := range pair.Source.Brokers() {
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	book.follow(th, "Region back")
	if n := th.records(th.west()); n != 20+4+6 {
		t.Errorf("west has %d records, want 30: what was copied, its own, and what was stranded", n)
	}
	if n := th.records(th.east()); n != 26+4+6 {
		t.Errorf("east has %d records, want 36: its own, the stranded ones and west's", n)
	}
}

// Applications are kept off by rules, which go when their region is authoritative again.
func runbookRules(t *testing.T, book *runbooks) {
	cfg := kafkatest.Config{Authorizer: true, SASL: []string{kafkatest.Plain}, Users: []string{"replicator", "shop", "operator"}}
	east, west := cfg, cfg
	east.Name, west.Name = "east", "west"
	th := &theatre{t: t, pair: kafkatest.StartPair(t, east, west), dir: t.TempDir(), topics: []string{"shop.orders"}}
	th.apps, th.close = context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(th.close)
	file := func(name, user string) string {
		e := side{alias: th.east(), Cluster: th.pair.Source, user: user, mechanism: kafkatest.Plain}
		w := side{alias: th.west(), Cluster: th.pair.Target, user: user, mechanism: kafkatest.Plain}
		dir := filepath.Join(th.dir, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		b.WriteString("clusters:\n" + e.section(t, dir) + w.section(t, dir) + "links:\n")
		for _, d := range [][2]side{{e, w}, {w, e}} {
			fmt.Fprintf(&b, "  - {from: %s, to: %s, topics: ['shop\\..*'], groups: ['shop\\..*'], refresh_interval: 2s, checkpoints: {interval: 1s}}\n", d[0].alias, d[1].alias)
			rights := append(leastRights(d[0].alias, d[1].alias, "shop."), groupRights(d[0].alias, d[1].alias, "shop.")...)
			if user == "operator" {
				rights = cutoverRights(d[0].alias, d[1].alias, "shop.")
				if err := d[0].Allow(t.Context(), user, kadm.NewACLs().Operations(kadm.OpAlter).Clusters()); err != nil {
					t.Fatal(err)
				}
			}
			for _, g := range rights {
				g.give(t, d[0], d[1])
			}
		}
		fmt.Fprintf(&b, "cutover: {settle: 300ms, evidence: %q, principals: {%s: 'User:replicator', %s: 'User:replicator'}}\nhttp: {listen: '%s'}\n", th.dir+"/evidence", th.east(), th.west(), freeAddress(t))
		if err := os.WriteFile(filepath.Join(dir, "pair.yaml"), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "pair.yaml")
	}
	daemonFile := file("daemon", "replicator")
	th.file = file("operator", "operator")
	for _, c := range []*kafkatest.Cluster{th.pair.Source, th.pair.Target} {
		if err := c.Allow(t.Context(), "shop", kadm.NewACLs().Operations(kadm.OpWrite, kadm.OpRead).Topics("shop.").ResourcePatternType(kadm.ACLPatternPrefixed)); err != nil {
			t.Fatal(err)
		}
	}
	th.pair.Source.CreateTopic(t, "shop.orders", 2)
	shop := map[string]*kgo.Client{}
	for _, region := range []string{th.east(), th.west()} {
		w := &writersTest{Cluster: th.cluster(region)}
		shop[region] = w.producer(t, "shop")
	}
	writes := func(region string) error { return putOne(t.Context(), shop[region], "shop.orders", 0) }
	eventually(t, "the application may write", func() bool { return writes(th.east()) == nil })
	book.follow(th, "Once for each pair")
	th.startProgram(daemonFile)
	th.passes("switchover", "--to", th.west())
	// The operator is not named yet: the rules would keep it from preparing the link back.
	stdout, stderr, code := th.run("switchover", "--to", th.west(), "--yes")
	if code != 3 || !strings.Contains(stderr, "cutover.operators") {
		t.Errorf("exit code %d, want 3\n%s%s", code, stdout, stderr)
	}
	if err := writes(th.east()); err != nil {
		t.Errorf("the application after the undoing: %v", err)
	}
	th.edit("cutover: {", "cutover: {operators: ['User:operator'], ", 1)
	book.follow(th, "With ACLs")
	if err := writes(th.east()); !refused(err) {
		t.Errorf("the application wrote to east: %v", err)
	}
	if err := writes(th.west()); err != nil {
		t.Errorf("the application on west: %v", err)
	}
	th.passes("switchover", "--to", th.east())
	th.must("switchover", "--to", th.east(), "--yes")
	if err := writes(th.west()); !refused(err) {
		t.Errorf("the application wrote to west: %v", err)
	}
	if err := writes(th.east()); err != nil {
		t.Errorf("the application on east: %v", err)
	}
}

// cutoverRights are what docs/security.md lists for whoever moves a pair, for one of its
// directions; ALTER on the cluster is for rules besides.
func cutoverRights(from, to, prefix string) []grant {
	link := "replicator." + from + "." + to
	rights := []grant{
		{target: true, kind: "transactional id", name: "replicator.authority.", prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "transactional id", name: "replicator.authority.", prefix: true, operation: kadm.OpDescribe},
		{target: true, kind: "transactional id", name: link + ".", prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpRead},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: link + ".journal", operation: kadm.OpDescribeConfigs},
		{target: true, kind: "topic", name: link + ".checkpoints", operation: kadm.OpRead},
		{target: true, kind: "group", name: prefix, prefix: true, operation: kadm.OpRead},
	}
	for _, topic := range []string{"replicator.authority", "replicator.audit", link + ".journal"} {
		for _, op := range []kadm.ACLOperation{kadm.OpCreate, kadm.OpRead, kadm.OpWrite} {
			rights = append(rights, grant{target: true, kind: "topic", name: topic, operation: op})
		}
	}
	return rights
}
