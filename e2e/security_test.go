package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/compare"
	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/kafkatest"
	"replicator/internal/observe"
	"replicator/pkg/mirror"
)

// The same pair serves all of these: east wants a certificate and a login by any
// mechanism, west knows clients by their certificate alone, and both refuse what
// no ACL allows.
func TestSecuredClusters(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t,
		kafkatest.Config{
			Name: "east", TLS: kafkatest.MutualTLS, Authorizer: true, Users: []string{"replicator", "stranger"},
			SASL: []string{kafkatest.Plain, kafkatest.Scram256, kafkatest.Scram512, kafkatest.OAuthBearer},
		},
		kafkatest.Config{Name: "west", TLS: kafkatest.MutualTLS, Authorizer: true})
	t.Run("every mechanism copies, both ways", func(t *testing.T) { everyMechanism(t, pair) })
	t.Run("least privilege", func(t *testing.T) { leastPrivilege(t, pair) })
	t.Run("exact rights of checkpoints, heartbeats and commands", func(t *testing.T) { exactRights(t, pair) })
	t.Run("exact rights of a drill", func(t *testing.T) { exactRightsOfADrill(t, pair) })
	t.Run("least privilege of checkpoints", func(t *testing.T) { leastPrivilegeOfGroups(t, pair) })
	t.Run("a right is taken away and given back", func(t *testing.T) { rightTakenAway(t, pair) })
	t.Run("least privilege of a measurement", func(t *testing.T) { benchLeastPrivilege(t, pair) })
	t.Run("the right a guard may have", func(t *testing.T) { guardRight(t, pair) })
	t.Run("wrong credentials", func(t *testing.T) { wrongCredentials(t, pair) })
}

// side is one cluster as a configuration names it.
type side struct {
	alias string
	*kafkatest.Cluster
	user      string // by certificate and login
	mechanism string // "" without login
	more      string // further lines of the cluster's section
}

// section is the cluster's part of a configuration. Secrets are references to
// files in dir.
func (s side) section(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "  %s:\n    bootstrap_servers: [%s]\n    cluster_id: %q\n", s.alias, strings.Join(s.Bootstrap(), ", "), s.ID())
	if s.Config().TLS != kafkatest.NoTLS {
		cert, err := s.ClientCert(s.user)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "    tls: {enabled: true, ca_file: %q, cert_file: %q, key_file: %q}\n", s.CAFile(), cert.CertFile, cert.KeyFile)
	}
	secret := func(value string) string {
		file := filepath.Join(dir, s.alias+"-secret")
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + file
	}
	switch s.mechanism {
	case "":
	case kafkatest.OAuthBearer:
		fmt.Fprintf(&b, "    sasl: {mechanism: OAUTHBEARER, oauth: {token: %q}}\n", secret(kafkatest.UnsecuredToken(s.user, time.Hour)))
	default:
		fmt.Fprintf(&b, "    sasl: {mechanism: %s, username: %s, password: %q}\n", s.mechanism, s.user, secret(kafkatest.Password(s.user)))
	}
	b.WriteString(s.more)
	return b.String()
}

// linkFile writes the configuration of one link. linkKeys go into the link's
// section, rest behind it.
func linkFile(t *testing.T, from, to side, topics, linkKeys, rest string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "pair.yaml")
	text := "clusters:\n" + from.section(t, dir) + to.section(t, dir) +
		fmt.Sprintf("links:\n  - {from: %s, to: %s, topics: [%q], refresh_interval: 1s, journal: {partitions: 1}%s}\n", from.alias, to.alias, topics, linkKeys) +
		"http: {listen: ''}\nlog: {level: debug}\n" + rest
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// recordsOnly leaves groups alone: their rights have tests of their own.
const recordsOnly = ", checkpoints: {follow: off}"

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// supervised is a daemon in the test's process, started again when it ends by
// an error, as systemd would.
type supervised struct {
	t      *testing.T
	log    lines
	starts atomic.Int32
	now    atomic.Pointer[daemon.Daemon]
	stop   func()
}

func supervise(t *testing.T, file string, o daemon.Options) *supervised {
	t.Helper()
	cfg, err := config.Load(config.Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	s := &supervised{t: t}
	if o.Log, err = observe.NewLogger(cfg.Log, &s.log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s.starts.Add(1)
			opening, cancel := context.WithTimeout(ctx, 30*time.Second)
			d, err := daemon.New(opening, cfg, o)
			cancel()
			if err == nil {
				s.now.Store(d)
				err = d.Run(ctx)
				s.now.Store(nil)
			}
			if err != nil {
				o.Log.Error("daemon ended", zap.Error(err))
				select {
				case <-time.After(time.Second): // as a supervisor does
				case <-ctx.Done():
				}
			}
		}
	}()
	s.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			all := strings.Split(s.log.String(), "\n")
			t.Logf("last lines of %s:\n%s", file, strings.Join(all[max(0, len(all)-25):], "\n"))
		}
	})
	return s
}

// status is a snapshot, false between two starts.
func (s *supervised) status() (mirror.LinkStatus, bool) {
	d := s.now.Load()
	if d == nil {
		return mirror.LinkStatus{}, false
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	st := d.Status(ctx)
	return st.Links[0].LinkStatus, true
}

// says tells whether a text is in the log, or in the status now.
func (s *supervised) says(text string) bool {
	if strings.Contains(s.log.String(), text) {
		return true
	}
	st, ok := s.status()
	b, err := json.Marshal(st)
	return ok && err == nil && strings.Contains(string(b), text)
}

func (s *supervised) untilSays(text string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("it says %q", text), func() bool { return s.says(text) })
}

// internal reaches a cluster beside its security: what is compared is not what is tested.
func internal(c *kafkatest.Cluster) compare.Cluster { return compare.Seeds(c.InternalBootstrap()...) }

func mustEqual(t *testing.T, from, to *kafkatest.Cluster, topics ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report, err := compare.WaitEqual(ctx, internal(from), internal(to), compare.Same(topics...), compare.Options{})
	if err != nil {
		t.Fatalf("%v: %v", report, err)
	}
	if report.Total.SourceRecords == 0 {
		t.Fatalf("nothing was compared: %v", report)
	}
}

// putEach writes n records to each of the topic's partitions.
func putEach(t *testing.T, c *kafkatest.Cluster, topic string, partitions int32, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.InternalBootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	for p := range partitions {
		for i := range n {
			records = append(records, &kgo.Record{Topic: topic, Partition: p, Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "%s %d %d", topic, p, i)})
		}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatalf("write to %s: %v", topic, err)
	}
}

// grant is one line of the ACL list in docs/security.md.
type grant struct {
	target    bool   // on the target, else on the source
	kind      string // topic, group, transactional id, cluster
	name      string
	prefix    bool
	operation kadm.ACLOperation
}

func (g grant) String() string {
	where := "source"
	if g.target {
		where = "target"
	}
	return fmt.Sprintf("%s: %v on %s %s", where, g.operation, g.kind, g.name)
}

func (g grant) acl() *kadm.ACLBuilder {
	b := kadm.NewACLs().Operations(g.operation)
	if g.prefix {
		b = b.ResourcePatternType(kadm.ACLPatternPrefixed)
	}
	switch g.kind {
	case "topic":
		return b.Topics(g.name)
	case "group":
		return b.Groups(g.name)
	case "cluster":
		return b.Clusters()
	}
	return b.TransactionalIDs(g.name)
}

func (g grant) give(t *testing.T, from, to side) {
	t.Helper()
	at := from
	if g.target {
		at = to
	}
	if err := at.Allow(t.Context(), at.user, g.acl()); err != nil {
		t.Fatal(err)
	}
}

func (g grant) take(t *testing.T, from, to side) {
	t.Helper()
	at := from
	if g.target {
		at = to
	}
	res, err := at.Admin().DeleteACLs(t.Context(), g.acl().Allow("User:"+at.user).AllowHosts("*"))
	if err != nil || len(res) != 1 || res[0].Err != nil || len(res[0].Deleted) != 1 {
		t.Fatalf("take %v away: %+v, %v", g, res, err)
	}
}

// leastRights are all a link needs to copy records whose topics begin with prefix. READ and
// WRITE imply DESCRIBE, ALTER_CONFIGS implies DESCRIBE_CONFIGS.
func leastRights(from, to, prefix string) []grant {
	id := "replicator." + from + "." + to
	return []grant{
		{kind: "topic", name: prefix, prefix: true, operation: kadm.OpRead},
		{kind: "topic", name: prefix, prefix: true, operation: kadm.OpDescribeConfigs},
		{kind: "group", name: id, operation: kadm.OpRead},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpCreate},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpRead},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpAlter},
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpAlterConfigs},
		{target: true, kind: "transactional id", name: id + ".", prefix: true, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: "replicator.authority", operation: kadm.OpRead},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpCreate},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpRead},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpWrite},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpDescribeConfigs},
	}
}

func everyMechanism(t *testing.T, pair *kafkatest.ClusterPair) {
	for i, mechanism := range pair.Source.Config().SASL {
		east := side{alias: fmt.Sprintf("me%d", i), Cluster: pair.Source, user: "replicator", mechanism: mechanism}
		west := side{alias: fmt.Sprintf("mw%d", i), Cluster: pair.Target, user: "replicator"}
		var both []*supervised
		ways := [][2]side{{east, west}, {west, east}}
		topic := func(way [2]side) string { return fmt.Sprintf("mechanism.%s.%s", way[0].alias, way[1].alias) }
		for _, way := range ways {
			from, to := way[0], way[1]
			for _, g := range append(leastRights(from.alias, to.alias, topic(way)), groupRights(from.alias, to.alias, topic(way))...) {
				g.give(t, from, to)
			}
			from.CreateTopic(t, topic(way), 2)
			putEach(t, from.Cluster, topic(way), 2, 100)
			both = append(both, supervise(t, linkFile(t, from, to, topic(way), "", ""), daemon.Options{}))
		}
		for j, way := range ways {
			mustEqual(t, way[0].Cluster, way[1].Cluster, topic(way))
			d := both[j]
			go d.stop()
			if n := d.starts.Load(); n != 1 {
				t.Errorf("%s: it had to be started %d times", mechanism, n)
			}
			for _, secret := range []string{kafkatest.Password("replicator"), strings.Split(kafkatest.UnsecuredToken("replicator", time.Hour), ".")[0]} {
				if strings.Contains(d.log.String(), secret) {
					t.Errorf("%s: the debug log shows a secret", mechanism)
				}
			}
		}
	}
}

// With exactly these rights everything works and nothing is missed. With one
// less, whichever, the log or the status names operation and resource, nothing
// is lost, and granting it is all it takes.
func leastPrivilege(t *testing.T, pair *kafkatest.ClusterPair) {
	type tried struct {
		*supervised
		from, to side
		without  *grant
		want     string
		topics   []string
	}
	begin := func(i int) *tried {
		name := fmt.Sprintf("p%02d", i)
		c := &tried{
			from:   side{alias: name + "e", Cluster: pair.Source, user: name, mechanism: kafkatest.OAuthBearer},
			to:     side{alias: name + "w", Cluster: pair.Target, user: name},
			topics: []string{name + ".orders", name + ".fresh"},
		}
		rights := leastRights(c.from.alias, c.to.alias, name+".")
		if i < len(rights) {
			c.without = &rights[i]
			c.want = fmt.Sprintf("grant %v on %s", c.without.operation, c.without.kind)
			if c.without.operation == kadm.OpAlterConfigs {
				c.want = "grant DESCRIBE_CONFIGS on topic" // which it implies
			}
		}
		for j, g := range rights {
			if j != i {
				g.give(t, c.from, c.to)
			}
		}
		// One topic is there, too small and with another setting, one has to be made.
		c.from.CreateTopic(t, name+".orders", 2, "retention.ms", "86400001")
		c.to.CreateTopic(t, name+".orders", 1)
		c.from.CreateTopic(t, name+".fresh", 1)
		putEach(t, c.from.Cluster, name+".orders", 2, 20)
		putEach(t, c.from.Cluster, name+".fresh", 1, 20)
		c.supervised = supervise(t, linkFile(t, c.from, c.to, name+`\..*`, recordsOnly, ""), daemon.Options{})
		return c
	}
	n := len(leastRights("a", "b", "c"))
	all := make([]*tried, n+1) // the last one has all rights
	for i := range all {
		all[i] = begin(i)
	}
	for _, c := range all[:n] {
		began := time.Now()
		eventually(t, fmt.Sprintf("without %v it says %q", c.without, c.want), func() bool { return c.says(c.want) })
		t.Logf("without %v: said after %v, %d starts", c.without, time.Since(began), c.starts.Load())
		if c.without.operation == kadm.OpAlterConfigs { // asked for only when the settings are known
			read := *c.without
			read.operation = kadm.OpDescribeConfigs
			read.give(t, c.from, c.to)
			eventually(t, "it wants ALTER_CONFIGS too", func() bool { return c.says("grant ALTER_CONFIGS on topic") })
		}
		c.without.give(t, c.from, c.to)
	}
	for _, c := range all {
		mustEqual(t, c.from.Cluster, c.to.Cluster, c.topics...)
		eventually(t, "the setting is on the target", func() bool {
			rc, err := c.to.Admin().DescribeTopicConfigs(t.Context(), c.topics[0])
			for _, kv := range rc[0].Configs {
				if kv.Key == "retention.ms" {
					return err == nil && kv.MaybeValue() == "86400001"
				}
			}
			return false
		})
		eventually(t, "the link is well", func() bool { s, ok := c.status(); return ok && s.State == mirror.LinkCopying })
		c.stop()
		if journal := c.without != nil && strings.HasSuffix(c.without.name, ".journal"); c.starts.Load() != 1 && !journal {
			t.Errorf("without %v: it had to be started %d times", c.without, c.starts.Load())
		}
	}
	if said := all[n].log.String(); strings.Contains(said, "grant ") || strings.Contains(said, "AUTHORIZATION") {
		t.Errorf("with all rights something was refused:\n%s", said)
	}
}

func rightTakenAway(t *testing.T, pair *kafkatest.ClusterPair) {
	from := side{alias: "te", Cluster: pair.Source, user: "taken", mechanism: kafkatest.OAuthBearer}
	to := side{alias: "tw", Cluster: pair.Target, user: "taken"}
	rights := leastRights(from.alias, to.alias, "taken.")
	for _, g := range rights {
		g.give(t, from, to)
	}
	topics := []string{"taken.a", "taken.b"}
	for _, topic := range topics {
		from.CreateTopic(t, topic, 1)
	}
	write := func() {
		t.Helper()
		for _, topic := range topics {
			putEach(t, from.Cluster, topic, 1, 20)
		}
	}
	write()
	d := supervise(t, linkFile(t, from, to, `taken\..*`, recordsOnly, ""), daemon.Options{})
	mustEqual(t, from.Cluster, to.Cluster, topics...)
	without := func(g grant) {
		t.Helper()
		before := len(d.log.String())
		g.take(t, from, to)
		write()
		want := fmt.Sprintf("grant %v on %s", g.operation, g.kind)
		eventually(t, fmt.Sprintf("with %v taken away it says %q", g, want), func() bool {
			return strings.Contains(d.log.String()[before:], want)
		})
		eventually(t, "the link says that it is not well", func() bool { s, ok := d.status(); return ok && s.State == mirror.LinkDegraded })
		g.give(t, from, to)
		mustEqual(t, from.Cluster, to.Cluster, topics...)
		eventually(t, fmt.Sprintf("the link is well after %v was given back", g), func() bool { s, ok := d.status(); return ok && s.State == mirror.LinkCopying })
	}
	for _, g := range rights {
		// What each record needs; the rest is asked for when a lane is opened.
		if g.kind == "group" || g.kind == "topic" && (g.operation == kadm.OpWrite || g.operation == kadm.OpRead && !g.target) {
			without(g)
		}
	}
	// Seen and not readable is another way than not seen at all.
	seen := rights[0]
	seen.operation = kadm.OpDescribe
	seen.give(t, from, to)
	without(rights[0])
	if n := d.starts.Load(); n != 1 {
		t.Errorf("it had to be started %d times", n)
	}
	if strings.Contains(d.log.String(), `"kind":"deleted"`) {
		t.Error("a topic that could not be seen was taken for deleted")
	}

	// A journal that is there and may not be read ends the daemon.
	d.stop()
	read := slices.IndexFunc(rights, func(g grant) bool { return strings.HasSuffix(g.name, ".journal") && g.operation == kadm.OpRead })
	rights[read].take(t, from, to)
	d = supervise(t, linkFile(t, from, to, `taken\..*`, recordsOnly, ""), daemon.Options{})
	d.untilSays("grant READ on topic replicator.te.tw.journal")
	write()
	rights[read].give(t, from, to)
	mustEqual(t, from.Cluster, to.Cluster, topics...)
}

// What a wrong login or certificate is told, by the command itself.
func wrongCredentials(t *testing.T, pair *kafkatest.ClusterPair) {
	east := side{alias: "east", Cluster: pair.Source, user: "replicator", mechanism: kafkatest.Scram512}
	west := side{alias: "west", Cluster: pair.Target, user: "replicator"}
	good := linkFile(t, east, west, "never", "", "")
	refused := func(name string, change func(string) string, want ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := refusedRun(t, rewritten(t, good, change), 1)
			wantContains(t, name, out, want...)
			for _, secret := range []string{kafkatest.Password("replicator"), "wrong-canary"} {
				if strings.Contains(out, secret) {
					t.Errorf("it shows a secret:\n%s", out)
				}
			}
		})
	}
	secret := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(secret, []byte("wrong-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) func(string) string {
		return func(text string) string {
			if !strings.Contains(text, old) {
				t.Errorf("the configuration has no %q:\n%s", old, text)
			}
			return strings.ReplaceAll(text, old, with)
		}
	}
	login := func(with string) func(string) string {
		return func(text string) string {
			var out []string
			for line := range strings.Lines(text) {
				if strings.Contains(line, "sasl:") {
					line = with + "\n"
				}
				out = append(out, line)
			}
			return strings.Join(out, "")
		}
	}
	at := pair.Source.Bootstrap()[0]
	for _, mechanism := range []string{kafkatest.Plain, kafkatest.Scram256, kafkatest.Scram512} {
		refused("wrong password "+mechanism, login(fmt.Sprintf("    sasl: {mechanism: %s, username: replicator, password: %q}", mechanism, "file:"+secret)),
			"error: open cluster east:", "authenticate by "+mechanism, at, "SASL_AUTHENTICATION_FAILED")
	}
	refused("token that is none", login(fmt.Sprintf("    sasl: {mechanism: OAUTHBEARER, oauth: {token: %q}}", "file:"+secret)),
		"error: open cluster east:", "authenticate by OAUTHBEARER", at, "the broker refused the token")
	refused("no login", login(""), "error: open cluster east:", at, "sasl.mechanism")
	refused("plaintext to a TLS port", func(text string) string {
		return replace("tls: {enabled: true", "tls: {enabled: false")(withoutFiles(text))
	}, "error: open cluster ", "is it a TLS port? tls.enabled is false")
	refused("no client certificate", withoutKey, "error: open cluster ", "none is configured")
	late, err := pair.Target.Authority().Issue(kafkatest.CertRequest{Name: "replicator", File: "late", Expires: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.Target.ClientCert("replicator")
	if err != nil {
		t.Fatal(err)
	}
	refused("our certificate has expired", func(text string) string {
		return replace(cert.CertFile, late.CertFile)(replace(cert.KeyFile, late.KeyFile)(text))
	}, "error: open cluster west:", "certificate", "expired")
	refused("an authority nobody knows", replace(fmt.Sprintf("ca_file: %q", pair.Source.CAFile()), fmt.Sprintf("ca_file: %q", pair.Target.CAFile())),
		"error: open cluster east:", "not trusted", "tls.ca_file")
	refused("a certificate for another name", func(text string) string {
		return strings.Replace(text, "tls: {enabled: true,", "tls: {enabled: true, server_name: kafka.east.internal,", 1)
	}, "error: open cluster east:", "not for kafka.east.internal but for localhost, 127.0.0.1", "tls.server_name")
}

// withoutKey takes the client's certificates out of a configuration.
func withoutKey(text string) string {
	return regexp.MustCompile(`, cert_file: "[^"]*", key_file: "[^"]*"`).ReplaceAllString(text, "")
}

// withoutFiles takes all certificates out of it.
func withoutFiles(text string) string {
	return regexp.MustCompile(`, ca_file: "[^"]*"`).ReplaceAllString(withoutKey(text), "")
}
