package kafkatest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// started starts a cluster and logs what it cost.
func started(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	begin := time.Now()
	c := Start(t, cfg)
	t.Logf("Kafka %s, %d broker(s): ready in %.1f s", c.Config().Version, len(c.Brokers()), time.Since(begin).Seconds())
	for _, b := range c.Brokers() {
		t.Logf("broker %d: RSS %s", b.ID(), rss(b.Process().PID()))
	}
	return c
}

func rss(pid int) string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

// produce writes n records and waits for all replicas.
func produce(t *testing.T, cl *kgo.Client, topic string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)})
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce to %s: %v", topic, err)
	}
}

// ends is the sum of the next offsets of a topic.
func ends(t *testing.T, c *Cluster, topic string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	list, err := c.Admin().ListEndOffsets(ctx, topic)
	if err == nil {
		err = list.Error()
	}
	if err != nil {
		t.Fatalf("list the end of %s: %v", topic, err)
	}
	var sum int64
	list.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum
}

func TestABrokerKeepsItsAddressAndDataThroughKillAndRestart(t *testing.T) {
	t.Parallel() // most of it waits for sessions to end
	c := started(t, Config{})
	c.CreateTopic(t, "orders", 1)
	cl := c.Client(t)
	produce(t, cl, "orders", 100)
	b, id := c.Broker(1), c.ID()

	b.Kill()
	if b.Running() {
		t.Fatal("the broker runs after Kill")
	}
	if conn, err := net.Dial("tcp4", b.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial a killed broker: %v %v, want connection refused", conn, err)
	}
	begin := time.Now()
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("back %.1f s after SIGKILL", time.Since(begin).Seconds())
	if n := ends(t, c, "orders"); n != 100 {
		t.Fatalf("%d records after SIGKILL, want 100", n)
	}

	begin = time.Now()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %.1f s", time.Since(begin).Seconds())
	begin = time.Now()
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("back %.1f s after SIGTERM", time.Since(begin).Seconds())
	produce(t, cl, "orders", 1)
	if n := ends(t, c, "orders"); n != 101 {
		t.Fatalf("%d records after SIGTERM, want 101", n)
	}
	meta, err := c.Admin().BrokerMetadata(t.Context())
	if err != nil || meta.Cluster != id {
		t.Fatalf("cluster id %s, %v; want %s", meta.Cluster, err, id)
	}
}

func TestAPausedBrokerAnswersNothingUntilItIsResumed(t *testing.T) {
	c := Pair(t).Source
	topic := Topic(t, "orders")
	c.CreateTopic(t, topic, 1)
	cl := c.Client(t)
	produce(t, cl, topic, 1)
	b := c.Broker(1)
	if err := b.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := cl.Ping(ctx); err == nil {
		t.Error("a paused broker answered")
	}
	if !b.Running() {
		t.Error("a paused broker counts as ended")
	}
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	produce(t, cl, topic, 1)
	if n := ends(t, c, topic); n != 2 {
		t.Fatalf("%d records, want 2", n)
	}
}

func TestThreeBrokersGoOnWithoutOne(t *testing.T) {
	t.Parallel() // most of it waits for sessions to end
	c := started(t, Config{Brokers: 3})
	c.CreateTopic(t, "orders", 6)
	cl := c.Client(t)
	produce(t, cl, "orders", 60)
	c.Broker(2).Kill()
	produce(t, cl, "orders", 60)
	begin := time.Now()
	if err := c.Broker(2).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("back %.1f s after SIGKILL", time.Since(begin).Seconds())
	if n := ends(t, c, "orders"); n != 120 {
		t.Fatalf("%d records, want 120", n)
	}
}

func TestOlderKafkasRun(t *testing.T) {
	for _, version := range []string{Kafka3, Kafka2} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := started(t, Config{Version: version, SASL: []string{Scram512}})
			c.CreateTopic(t, "orders", 1)
			cl := c.Client(t)
			produce(t, cl, "orders", 10)
			c.Broker(1).Kill()
			begin := time.Now()
			if err := c.Broker(1).Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("back %.1f s after SIGKILL", time.Since(begin).Seconds())
			if n := ends(t, c, "orders"); n != 10 {
				t.Fatalf("%d records, want 10", n)
			}
		})
	}
}

func TestASecuredClusterLetsInWhoMayAndNobodyElse(t *testing.T) {
	mechanisms := []string{Plain, Scram256, Scram512, OAuthBearer}
	c := started(t, Config{TLS: ServerTLS, SASL: mechanisms, Users: []string{"alice"}, Authorizer: true})
	c.CreateTopic(t, "orders", 1)
	c.CreateTopic(t, "secrets", 1)
	err := c.Allow(t.Context(), "alice",
		kadm.NewACLs().Topics("orders").Operations(kadm.OpWrite, kadm.OpDescribe).ResourcePatternType(kadm.ACLPatternLiteral))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, m := range mechanisms {
		cl := open(t, c.ClientOptsAs("alice", m)...)
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "orders"}).FirstErr(); err != nil {
			t.Errorf("alice by %s: %v", m, err)
		}
		err := cl.ProduceSync(ctx, &kgo.Record{Topic: "secrets"}).FirstErr()
		if !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("alice by %s to a topic of others: %v, want a refusal", m, err)
		}
	}
	stranger := open(t, append(c.ClientOptsAs("alice", ""), kgo.SASL(Mechanism(Scram256, "mallory")))...)
	if err := stranger.Ping(t.Context()); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("an unknown user: %v, want a failed login", err)
	}
}

func TestMutualTLSTellsTheUserByCertificate(t *testing.T) {
	c := Start(t, Config{TLS: MutualTLS, Users: []string{"alice"}, Authorizer: true})
	c.CreateTopic(t, "orders", 1)
	if err := c.Allow(t.Context(), "alice", kadm.NewACLs().Topics("orders").
		Operations(kadm.OpWrite, kadm.OpDescribe).ResourcePatternType(kadm.ACLPatternLiteral)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := open(t, c.ClientOptsAs("alice", "")...).ProduceSync(ctx, &kgo.Record{Topic: "orders"}).FirstErr(); err != nil {
		t.Errorf("alice: %v", err)
	}
	err := open(t, append(c.ClientOptsAs("bob", ""), kgo.UnknownTopicRetries(0))...).
		ProduceSync(ctx, &kgo.Record{Topic: "orders"}).FirstErr()
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("bob: %v, want a refusal", err)
	}
	none := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Authority().Pool}
	if err := open(t, kgo.SeedBrokers(c.Bootstrap()...), kgo.DialTLSConfig(none), kgo.RequestRetries(0)).Ping(ctx); err == nil {
		t.Error("a client without a certificate was let in")
	}
}

func TestBadServerCertificatesAreServed(t *testing.T) {
	for kind, want := range map[ServerCert]string{
		ExpiredCert:   "certificate has expired",
		WrongHostCert: "doesn't contain any IP SANs",
	} {
		c := Start(t, Config{TLS: ServerTLS, ServerCert: kind})
		conn, err := tls.Dial("tcp4", c.Broker(1).Addr(),
			&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Authority().Pool})
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("dial: %v, want %q", err, want)
		}
		c.Close()
	}
}

func TestABrokerAdvertisesWhatItIsToldAndListensWhereItDid(t *testing.T) {
	c := Start(t, Config{Advertised: func(int, string) string { return "192.0.2.7:9092" }})
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), c.Client(t).SeedBrokers()[0])
	if err != nil {
		t.Fatal(err)
	}
	if b := resp.Brokers[0]; b.Host != "192.0.2.7" || b.Port != 9092 {
		t.Errorf("advertises %s:%d", b.Host, b.Port)
	}
	c.CreateTopic(t, "orders", 1) // Admin goes by the INTERNAL listener
}

func TestABrokerThatCannotStartSaysWhyByItsLog(t *testing.T) {
	Need(t, Kafka4)
	c, err := Launch(t.Context(), Config{Properties: map[string]string{"log.segment.bytes": "-7"}})
	if err == nil {
		c.Close()
		t.Fatal("it started")
	}
	if !strings.Contains(err.Error(), "log.segment.bytes") {
		t.Fatalf("%v: does not name the property", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	c := Start(t, Config{})
	p := c.Broker(1).Process()
	c.Close()
	if p.Running() {
		t.Error("the broker runs")
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	left, _ := filepath.Glob(c.Dir() + "*")
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestToolsOfKafkaRun(t *testing.T) {
	c := Pair(t).Target
	topic := Topic(t, "orders")
	c.CreateTopic(t, topic, 2)
	out, err := Tool(t.Context(), Kafka4, "org.apache.kafka.tools.TopicCommand",
		"--bootstrap-server", c.InternalBootstrap()[0], "--list")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), topic) {
		t.Fatalf("TopicCommand --list printed %q", out)
	}
}

func open(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.DisableIdempotentWrite())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}
