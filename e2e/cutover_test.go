package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/pkg/cluster"
)

// theatre is two regions with a daemon between them, applications that write and read,
// and the files by which hooks of the commands tell the applications where to go.
type theatre struct {
	t      *testing.T
	pair   *kafkatest.ClusterPair
	dir    string
	file   string // configuration of the commands
	keeper string // configuration of the daemon
	users  bool   // clusters ask for users, and ACLs say what each may do
	topics []string
	daemon *process
	pace   time.Duration // between two batches of a writer
	// patience is how long a writer that was told to go elsewhere waits for answers, if not for ever.
	patience time.Duration
	apps     context.Context
	close    context.CancelFunc
	wg       sync.WaitGroup

	writers []*writerApp
	readers []*readerApp
}

// opsOf are the settings of the commands in the tests: short times, hooks that stop and
// move the applications.
func (th *theatre) cutoverYAML(writers string) string {
	hook := func(step, when, script string) string {
		return fmt.Sprintf("    - {step: %s, when: %s, timeout: 20s, command: [sh, -c, %q]}\n", step, when, script)
	}
	// writers is what the applications obey: a region, or nobody.
	stop := fmt.Sprintf("echo none > %s/writers; while [ -e %s/writing ]; do sleep 0.02; done", th.dir, th.dir)
	leave := fmt.Sprintf("echo none > %s/readers; while [ -e %s/reading ]; do sleep 0.02; done", th.dir, th.dir)
	y := "cutover:\n  settle: 300ms\n  drain_timeout: 30s\n  writers: " + writers + "\n  evidence: " + th.dir + "/evidence\n" + th.principals() + "  hooks:\n"
	if writers == "hook" {
		y += hook("fence-writers", "before", stop)
	}
	y += hook("open-writers", "after", fmt.Sprintf("echo $REPLICATOR_TO > %s/writers", th.dir))
	y += hook("groups", "before", leave)
	y += hook("groups", "after", fmt.Sprintf("echo $REPLICATOR_TO > %s/readers", th.dir))
	return y
}

func newTheatre(t *testing.T, pair *kafkatest.ClusterPair, name, writers string, partitions int) *theatre {
	t.Helper()
	th := &theatre{t: t, pair: pair, dir: t.TempDir(), pace: 40 * time.Millisecond}
	th.apps, th.close = context.WithCancel(context.WithoutCancel(t.Context()))
	for _, topic := range []string{name + ".orders", name + ".payments"} {
		th.topics = append(th.topics, topic)
		pair.Source.CreateTopic(t, topic, partitions)
	}
	th.users = pair.Source.Config().Authorizer && slices.Contains(pair.Source.Config().Users, "replicator")
	th.file, th.keeper = th.write("pair.yaml", kafkatest.AdminUser, name, writers), th.write("daemon.yaml", "replicator", name, writers)
	th.tell("writers", th.east())
	th.tell("readers", th.east())
	t.Cleanup(func() {
		th.close()
		th.wg.Wait()
	})
	return th
}

func (th *theatre) principals() string {
	if !th.users {
		return ""
	}
	return fmt.Sprintf("  principals: {%s: 'User:replicator', %s: 'User:replicator'}\n", th.east(), th.west())
}

// write writes the configuration for a user.
func (th *theatre) write(file, user, name, writers string) string {
	th.t.Helper()
	dir := filepath.Join(th.dir, user)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		th.t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("clusters:\n")
	for _, region := range []string{th.east(), th.west()} {
		c := th.cluster(region)
		if !th.users { // by the brokers' own listener, if others ask for a user
			fmt.Fprintf(&b, "  %s: {bootstrap_servers: [%s]}\n", region, strings.Join(th.bootstrap(c), ","))
			continue
		}
		b.WriteString(side{alias: region, Cluster: c, user: user, mechanism: c.Config().SASL[0]}.section(th.t, dir))
	}
	b.WriteString("links:\n")
	for _, dir := range [][2]string{{th.east(), th.west()}, {th.west(), th.east()}} {
		fmt.Fprintf(&b, "  - {from: %s, to: %s, topics: ['%s\\..*'], groups: ['%s\\..*'], refresh_interval: 2s, checkpoints: {interval: 1s}}\n", dir[0], dir[1], name, name)
	}
	b.WriteString(th.cutoverYAML(writers))
	b.WriteString("http: {listen: ''}\nlog: {level: info}\n")
	path := filepath.Join(th.dir, file)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		th.t.Fatal(err)
	}
	return path
}

// The regions of a theatre are named by its test, so that theatres may share clusters:
// journals, authority and groups are all by name.
func (th *theatre) east() string { return "e" + th.tag() }
func (th *theatre) west() string { return "w" + th.tag() }
func (th *theatre) tag() string {
	sum := 0
	for _, c := range th.t.Name() {
		sum = (sum*31 + int(c)) % 100000
	}
	return fmt.Sprint(sum)
}

func (th *theatre) cluster(region string) *kafkatest.Cluster {
	if region == th.east() {
		return th.pair.Source
	}
	return th.pair.Target
}

// appUser is what applications are where brokers ask who they are.
const appUser = "app"

// bootstrap is where daemon and commands reach a cluster: with all rights.
func (th *theatre) bootstrap(c *kafkatest.Cluster) []string {
	if c.Config().Authorizer {
		return c.InternalBootstrap()
	}
	return c.Bootstrap()
}

// asApp is how applications reach a region.
func (th *theatre) asApp(region string) []kgo.Opt {
	c := th.cluster(region)
	if c.Config().Authorizer {
		return c.ClientOptsAs(appUser, c.Config().SASL[0])
	}
	return opts(c)
}

func (th *theatre) tell(whom, region string) {
	th.t.Helper()
	if err := os.WriteFile(filepath.Join(th.dir, whom), []byte(region), 0o600); err != nil {
		th.t.Fatal(err)
	}
}

// told is where the applications are to be: "" nowhere.
func (th *theatre) told(whom string) string {
	b, _ := os.ReadFile(filepath.Join(th.dir, whom))
	if region := strings.TrimSpace(string(b)); region != "none" {
		return region
	}
	return ""
}

// hold keeps a file as long as an application of a kind is at work.
type holding struct {
	mu   sync.Mutex
	file string
	n    int
}

func (h *holding) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n += n
	if h.n > 0 {
		_ = os.WriteFile(h.file, nil, 0o600)
	} else {
		_ = os.Remove(h.file)
	}
}

// run runs a command of the program with the theatre's configuration.
func (th *theatre) run(args ...string) (stdout, stderr string, code int) {
	th.t.Helper()
	return runCommand(th.t, append(args, "--config", th.file)...)
}

// must runs a command that has to succeed.
func (th *theatre) must(args ...string) string {
	th.t.Helper()
	stdout, stderr, code := th.run(args...)
	if code != 0 {
		th.t.Fatalf("replicator %s: exit code %d\n%s\n%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout + stderr
}

// writerApp writes records with numbers to wherever it is told to, and knows which
// were acknowledged. A record that was refused is written again elsewhere.
type writerApp struct {
	name          string
	transactional bool
	acked         atomic.Int64
	refusals      atomic.Int64

	mu   sync.Mutex
	sent map[string]bool // acknowledged
}

func (th *theatre) startWriter(name, topic string, transactional bool, hold *holding) *writerApp {
	w := &writerApp{name: name, transactional: transactional, sent: map[string]bool{}}
	th.writers = append(th.writers, w)
	th.wg.Go(func() {
		next := 0
		var pending []string // refused, to be written first
		for th.apps.Err() == nil {
			region := th.told("writers")
			if region == "" {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			hold.add(1)
			pending, next = w.work(th, region, topic, pending, next)
			hold.add(-1)
		}
	})
	return w
}

// work writes to one region until the application is told to go elsewhere.
func (w *writerApp) work(th *theatre, region, topic string, pending []string, next int) ([]string, int) {
	opts := append(th.asApp(region), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(2*time.Millisecond), kgo.RecordDeliveryTimeout(8*time.Second))
	if w.transactional {
		opts = append(opts, kgo.TransactionalID(w.name), kgo.TransactionTimeout(10*time.Second))
	} else if th.patience > 0 {
		opts = append(opts, kgo.AllowIdempotentProduceCancellation(), kgo.RecordDeliveryTimeout(th.patience))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		th.t.Error(err)
		return pending, next
	}
	defer client.Close()
	pace := time.NewTicker(th.pace) // a steady rate, whatever else the machine does
	defer pace.Stop()
	for th.apps.Err() == nil && th.told("writers") == region {
		<-pace.C
		batch := pending
		pending = nil
		for len(batch) < 20 {
			batch = append(batch, fmt.Sprintf("%s-%d", w.name, next))
			next++
		}
		ok := w.write(th, client, region, topic, batch)
		for i, id := range batch {
			if ok[i] {
				w.mu.Lock()
				w.sent[id] = true
				w.mu.Unlock()
				w.acked.Add(1)
			} else {
				pending = append(pending, id)
			}
		}
		if len(pending) > 0 {
			w.refusals.Add(1)
			time.Sleep(50 * time.Millisecond)
		}
	}
	return pending, next
}

// write writes a batch and tells which of it stands.
func (w *writerApp) write(th *theatre, client *kgo.Client, region, topic string, batch []string) []bool {
	ok := make([]bool, len(batch))
	ctx, giveUp := context.WithCancel(context.WithoutCancel(th.apps))
	defer giveUp()
	if w.transactional {
		if err := client.BeginTransaction(); err != nil {
			return ok
		}
	}
	var wg sync.WaitGroup
	for i, id := range batch {
		wg.Add(1)
		client.Produce(ctx, &kgo.Record{Key: []byte(id), Value: []byte(id)}, func(_ *kgo.Record, err error) {
			defer wg.Done()
			ok[i] = err == nil
			if err != nil && !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, context.Canceled) && th.apps.Err() == nil {
				th.t.Logf("writer %s: %v", w.name, err)
			}
		})
	}
	th.await(&wg, region, giveUp)
	if !w.transactional {
		return ok
	}
	all := !slices.Contains(ok, false)
	if !all {
		_ = client.EndTransaction(ctx, kgo.TryAbort)
		return make([]bool, len(batch))
	}
	if err := cluster.EndTransaction(ctx, client, kgo.TryCommit, topic); err != nil {
		th.t.Errorf("writer %s: the outcome of a transaction is not known: %v", w.name, err)
		return make([]bool, len(batch))
	}
	return ok
}

// await waits for the answers of a region. One that has died never gives them.
func (th *theatre) await(answers *sync.WaitGroup, region string, giveUp func()) {
	done := make(chan struct{})
	go func() { answers.Wait(); close(done) }()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	var moved time.Time
	for {
		select {
		case <-done:
			return
		case <-look.C:
		}
		switch {
		case th.patience == 0, th.apps.Err() == nil && th.told("writers") == region:
			moved = time.Time{}
		case moved.IsZero():
			moved = time.Now()
		case time.Since(moved) > th.patience:
			giveUp()
		}
	}
}

// readerApp is one member of a group that commits what it has processed.
type readerApp struct {
	group string
	mu    sync.Mutex
	seen  map[string]int // how often each record was processed
	by    map[string]int // records by region
}

func (th *theatre) startReader(group string, hold *holding) *readerApp {
	r := &readerApp{group: group, seen: map[string]int{}, by: map[string]int{}}
	th.readers = append(th.readers, r)
	th.wg.Go(func() {
		for th.apps.Err() == nil {
			region := th.told("readers")
			if region == "" {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			hold.add(1)
			r.work(th, region)
			hold.add(-1)
		}
	})
	return r
}

func (r *readerApp) work(th *theatre, region string) {
	client, err := kgo.NewClient(append(th.asApp(region), kgo.ConsumerGroup(r.group), kgo.ConsumeTopics(th.topics...), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		th.t.Error(err)
		return
	}
	defer client.Close() // leaves the group
	for th.apps.Err() == nil && th.told("readers") == region {
		ctx, cancel := context.WithTimeout(th.apps, 200*time.Millisecond)
		fetches := client.PollFetches(ctx)
		cancel()
		n := 0
		r.mu.Lock()
		fetches.EachRecord(func(rec *kgo.Record) {
			r.seen[string(rec.Value)]++
			r.by[region]++
			n++
		})
		r.mu.Unlock()
		if n == 0 {
			continue
		}
		// What was processed is committed before anything else, whatever ends the test.
		if err := client.CommitUncommittedOffsets(context.WithoutCancel(th.apps)); err != nil {
			th.t.Errorf("group %s on %s: commit: %v", r.group, region, err)
		}
	}
}

// settled waits until every record that was acknowledged has been processed by every
// group, then says how often each was.
// again may be processed twice: records that were appended a second time.
func (th *theatre) settled(again map[string]bool) {
	th.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		missing := 0
		for _, r := range th.readers {
			r.mu.Lock()
			for _, w := range th.writers {
				w.mu.Lock()
				for id := range w.sent {
					if r.seen[id] == 0 {
						missing++
					}
				}
				w.mu.Unlock()
			}
			r.mu.Unlock()
		}
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			th.t.Errorf("%d records that were acknowledged are not processed", missing)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, r := range th.readers {
		r.mu.Lock()
		twice, replayed, foreign := 0, 0, 0
		for id, n := range r.seen {
			if n > 1 && !again[id] {
				twice++
			} else if n > 1 {
				replayed++
			}
			known := false
			for _, w := range th.writers {
				w.mu.Lock()
				known = known || w.sent[id]
				w.mu.Unlock()
			}
			if !known {
				foreign++
			}
		}
		th.t.Logf("group %s processed %d records (%v), %d more than once, %d again because they were replayed, %d that nobody got an acknowledgement for", r.group, len(r.seen), r.by, twice, replayed, foreign)
		if twice > 0 {
			th.t.Errorf("group %s processed %d records more than once", r.group, twice)
		}
		if foreign > 0 {
			th.t.Errorf("group %s processed %d records nobody got an acknowledgement for", r.group, foreign)
		}
		r.mu.Unlock()
	}
}

// quiet stops the writers and waits for the records on their way.
func (th *theatre) quiet() {
	th.t.Helper()
	th.tell("writers", "none")
	eventually(th.t, "writers to stop", func() bool {
		_, err := os.Stat(filepath.Join(th.dir, "writing"))
		return errors.Is(err, os.ErrNotExist)
	})
}

// acked waits until the writers have got so many more acknowledgements.
func (th *theatre) acked(more int64) {
	th.t.Helper()
	sum := func() (n int64) {
		for _, w := range th.writers {
			n += w.acked.Load()
		}
		return n
	}
	from := sum()
	defer func() {
		if th.t.Failed() {
			th.t.Logf("writers are told %q, readers %q", th.told("writers"), th.told("readers"))
		}
	}()
	eventually(th.t, fmt.Sprintf("%d records to be acknowledged", more), func() bool { return sum()-from >= more })
}

// startApps starts two idempotent writers, one transactional, and two groups.
func (th *theatre) startApps(prefix string) {
	writing, reading := &holding{file: filepath.Join(th.dir, "writing")}, &holding{file: filepath.Join(th.dir, "reading")}
	th.startWriter(prefix+".a", th.topics[0], false, writing)
	th.startWriter(prefix+".b", th.topics[1], false, writing)
	th.startWriter(prefix+".tx", th.topics[1], true, writing)
	th.startReader(prefix+".billing", reading)
	th.startReader(prefix+".audit", reading)
}

// passes waits until a command's gates are passed.
func (th *theatre) passes(args ...string) {
	th.t.Helper()
	var stdout, stderr string
	defer func() {
		if th.t.Failed() {
			th.t.Logf("%s%s", stdout, stderr)
		}
	}()
	eventually(th.t, "the gates of "+strings.Join(args, " "), func() bool {
		var code int
		stdout, stderr, code = th.run(append(args, "--dry-run")...)
		return code == 0
	})
}

// resultOf reads the JSON of a command.
func resultOf[T any](t *testing.T, text string) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("read %q: %v", text, err)
	}
	return out
}

type cutoverResult struct {
	Run     string
	Resumed bool
	Outcome struct {
		Outcome              string
		Error                string
		Took                 float64  `json:"took_seconds"`
		WritersFencedSeconds *float64 `json:"writers_fenced_seconds"`
		RTO                  *float64 `json:"rto_seconds"`
		Next                 string
	}
	Bundle string
	Anchor string
}

// A planned switchover under load, there and back again: every record is processed
// exactly once across both regions.
func TestSwitchoverThereAndBackLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	pair := kafkatest.Pair(t)
	th := newTheatre(t, pair, "swap"+fmt.Sprint(time.Now().UnixNano()%1e6), "hook", 4)
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.keeper, "daemon", "")
	prefix, _, _ := strings.Cut(th.topics[0], ".")
	th.startApps(prefix)
	th.acked(2000)
	th.passes("switchover", "--to", th.west())
	for _, to := range []string{th.west(), th.east(), th.west()} {
		stdout, stderr, code := th.run("switchover", "--to", to, "--yes", "-o", "json", "--why", "rehearsal")
		t.Logf("%s", stderr)
		if code != 0 {
			t.Fatalf("switchover to %s: exit code %d\n%s", to, code, stdout)
		}
		r := resultOf[cutoverResult](t, stdout)
		if r.Outcome.WritersFencedSeconds == nil || r.Outcome.RTO == nil {
			t.Fatalf("the result says nothing of times: %s", stdout)
		}
		t.Logf("to %s: %.2f s in all, no region took writes for %.2f s", to, r.Outcome.Took, *r.Outcome.WritersFencedSeconds)
		th.acked(1000)
	}
	th.quiet()
	th.settled(nil)
}

// The same under ACLs: applications are kept out by rules, no hook stops them. They find
// out by being refused, and write what was refused in the other region.
func TestSwitchoverByRules(t *testing.T) {
	t.Parallel()
	cfg := func(name string) kafkatest.Config {
		return kafkatest.Config{Name: name, SASL: []string{kafkatest.Scram256}, Authorizer: true, Users: []string{"replicator", "app"}}
	}
	pair := kafkatest.StartPair(t, cfg("east"), cfg("west"))
	th := newTheatre(t, pair, "ruled", "acl", 4)
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		for _, b := range []*kadm.ACLBuilder{
			kadm.NewACLs().ResourcePatternType(kadm.ACLPatternPrefixed).Topics("ruled.").Operations(kadm.OpRead, kadm.OpWrite),
			kadm.NewACLs().ResourcePatternType(kadm.ACLPatternPrefixed).Groups("ruled.").Operations(kadm.OpRead),
			kadm.NewACLs().ResourcePatternType(kadm.ACLPatternPrefixed).TransactionalIDs("ruled.").Operations(kadm.OpWrite),
		} {
			if err := c.Allow(t.Context(), "app", b); err != nil {
				t.Fatal(err)
			}
		}
	}
	ends := map[string]side{th.east(): {alias: th.east(), Cluster: pair.Source, user: "replicator"}, th.west(): {alias: th.west(), Cluster: pair.Target, user: "replicator"}}
	for _, way := range [][2]string{{th.east(), th.west()}, {th.west(), th.east()}} {
		for _, g := range append(leastRights(way[0], way[1], "ruled."), groupRights(way[0], way[1], "ruled.")...) {
			g.give(t, ends[way[0]], ends[way[1]])
		}
	}
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.keeper, "daemon", "")
	th.startApps("ruled")
	th.acked(1000)
	th.passes("switchover", "--to", th.west())
	for _, to := range []string{th.west(), th.east()} {
		stdout, stderr, code := th.run("switchover", "--to", to, "--yes", "-o", "json")
		t.Logf("%s", stderr)
		if code != 0 {
			t.Fatalf("switchover to %s: exit code %d\n%s", to, code, stdout)
		}
		r := resultOf[cutoverResult](t, stdout)
		t.Logf("to %s: %.2f s in all, no region took writes for %.2f s", to, r.Outcome.Took, *r.Outcome.WritersFencedSeconds)
		if !strings.Contains(stderr, "a rule denies WRITE to User:replicator") {
			t.Errorf("the lasting fence is not there")
		}
		th.acked(500)
		if to == th.west() { // as of a topic that was fenced and then deleted
			gone := kadm.NewACLs().Topics("ruled.gone").Operations(kadm.OpWrite).Deny("User:replicator").DenyHosts("*")
			if _, err := pair.Target.Admin().CreateACLs(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
		}
	}
	left, err := pair.Target.Admin().DescribeACLs(t.Context(), kadm.NewACLs().AnyResource().Deny("User:replicator").DenyHosts().Operations(kadm.OpAny).ResourcePatternType(kadm.ACLPatternAny))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range left {
		for _, d := range r.Described {
			t.Errorf("%s is authoritative, and on %s is left: %s %s on %s", th.east(), th.west(), d.Permission, d.Operation, d.Name)
		}
	}
	refusals := int64(0)
	for _, w := range th.writers {
		refusals += w.refusals.Load()
	}
	if refusals == 0 {
		t.Error("no application was ever refused")
	}
	th.quiet()
	th.settled(nil)
}
