package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/daemon"
	"replicator/internal/kafkatest"
	"replicator/pkg/mirror"
)

// What is wrong with a configuration, or with what it points at, is said by the
// command with the cluster, the address and what to do, and nothing is written.
func TestBadConfigurationEndsTheCommand(t *testing.T) {
	pair := kafkatest.Pair(t)
	prefix := kafkatest.Topic(t, "never")
	pair.Source.CreateTopic(t, prefix, 1)
	put(t, pair.Source, prefix, 0, "never", 5)
	east, west := side{alias: "bade", Cluster: pair.Source}, side{alias: "badw", Cluster: pair.Target}
	good := linkFile(t, east, west, prefix, "", "")
	at := pair.Source.Bootstrap()[0]
	nobody := deadAddress(t)

	authority, err := kafkatest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tlsListener := func(r kafkatest.CertRequest) string {
		cert, err := authority.Issue(r)
		if err != nil {
			t.Fatal(err)
		}
		return handshakes(t, cert.TLS)
	}
	expired := tlsListener(kafkatest.CertRequest{Name: "expired", Hosts: []string{"127.0.0.1"}, Expires: time.Now().Add(-time.Hour)})
	elsewhere := tlsListener(kafkatest.CertRequest{Name: "elsewhere", Hosts: []string{"kafka.elsewhere.invalid"}})
	overTLS := fmt.Sprintf("cluster_id: \"\"\n    tls: {enabled: true, ca_file: %q}", authority.File)
	id := fmt.Sprintf("cluster_id: %q", pair.Source.ID())

	for _, c := range []struct {
		name   string
		change func(string) string
		code   int
		want   []string
	}{
		{"nobody listens", swap(at, nobody), 1, []string{"open cluster bade:", nobody, "connection refused"}},
		{"a name that does not resolve", swap(at, "kafka.east.invalid:9092"), 1, []string{"open cluster bade:", "kafka.east.invalid"}},
		{"one cluster twice", func(text string) string {
			host, port, _ := net.SplitHostPort(at)
			if host == "127.0.0.1" { // another spelling, so that it shows only by the id
				host = "localhost"
			}
			text = strings.Replace(text, "["+pair.Target.Bootstrap()[0]+"]", "["+net.JoinHostPort(host, port)+"]", 1)
			return strings.Replace(text, fmt.Sprintf("cluster_id: %q", pair.Target.ID()), `cluster_id: ""`, 1)
		}, 1, []string{"bade and badw are the same cluster, id " + pair.Source.ID()}},
		{"another cluster than configured", swap(id, `cluster_id: "5L6g3nShT-eMCtK--X86sw"`), 1, []string{"open cluster bade: want cluster id 5L6g3nShT-eMCtK--X86sw", pair.Source.ID()}},
		{"TLS to a plaintext port", swap(id, overTLS), 1, []string{"open cluster bade:", at, "is it the plaintext port?"}},
		{"an expired certificate", func(text string) string { return swap(at, expired)(swap(id, overTLS)(text)) }, 1, []string{expired, "the certificate of 127.0.0.1", "expired on"}},
		{"a certificate for another host", func(text string) string { return swap(at, elsewhere)(swap(id, overTLS)(text)) }, 1, []string{elsewhere, "not for 127.0.0.1 but for kafka.elsewhere.invalid", "tls.server_name"}},
		{"an address outside the boundary", swap(id, id+"\n    boundary: {cidrs: [10.0.0.0/8]}"), 2, []string{"clusters.bade.bootstrap_servers[0]", "outside the boundary", "boundary.cidrs"}},
		{"a public address", swap(at, "203.0.113.9:9092"), 2, []string{"203.0.113.9", "boundary.allow_public"}},
		{"an unknown key", swap("topics:", "topic:"), 2, []string{"links[0].topic", "did you mean topics?"}},
		{"a key that does not exist yet", swap("topics:", "offsets: preserve, topics:"), 2, []string{"links[0].offsets", "is unknown"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			said := refusedRun(t, rewritten(t, good, c.change), c.code)
			wantContains(t, c.name, said, c.want...)
			if strings.Contains(said, "broker -1") {
				t.Errorf("it speaks of broker -1:\n%s", said)
			}
		})
	}
	topics, err := pair.Target.Admin().ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name := range topics {
		if strings.Contains(name, "bade") || name == prefix {
			t.Errorf("topic %s was made", name)
		}
	}
	if ends, err := pair.Source.Admin().ListEndOffsets(t.Context(), prefix); err != nil || ends[prefix][0].Offset != 5 {
		t.Errorf("the source was written to: %v, %v", ends, err)
	}
}

func TestNoSecretIsShown(t *testing.T) {
	dir := t.TempDir()
	const canary = "canary-4f1d"
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf(`clusters:
  east: {bootstrap_servers: ["%s"], sasl: {mechanism: SCRAM-SHA-256, username: u, password: "file:%s"}}
  west: {bootstrap_servers: ["%s"], sasl: {mechanism: PLAIN, username: u, password: "env:CANARY"}}
links: [{from: east, to: west, topics: [a]}]
log: {level: debug}
`, deadAddress(t), secret, deadAddress(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CANARY", canary)
	for _, args := range [][]string{{"config", "show", file}, {"config", "check", file}, {"run", "-c", file}} {
		stdout, stderr, _ := runCommand(t, args...)
		if strings.Contains(stdout+stderr, canary) {
			t.Errorf("%v shows the secret:\n%s%s", args, stdout, stderr)
		}
	}
	// A secret where a reference belongs is a fault that does not repeat it.
	_, stderr, code := runCommand(t, "config", "check", rewritten(t, file, swap("env:CANARY", canary)))
	if code != 2 || strings.Contains(stderr, canary) {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
	wantContains(t, "a password in the file", stderr, "clusters.west.sasl.password", "want a reference")
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	_, stderr, code = runCommand(t, "config", "check", file)
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	wantContains(t, "a file everybody may read", stderr, "clusters.east.sasl.password", "everybody may read", "chmod o-rwx")
}

func swap(old, with string) func(string) string {
	return func(text string) string {
		if !strings.Contains(text, old) {
			panic("the configuration has no " + old) // a fault of the test
		}
		return strings.Replace(text, old, with, 1)
	}
}

// deadAddress is an address nobody listens on.
func deadAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// handshakes is a listener that shows a certificate, and no more.
func handshakes(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn) // ends with the client
			}()
		}
	}()
	return ln.Addr().String()
}

// Records that cannot be copied halt their lane, which names the source offset
// and what to do; the neighbours go on. With the cause gone, a restart is all.
func TestRecordsThatCannotBeCopied(t *testing.T) {
	pair := kafkatest.Pair(t)
	for i, c := range []struct {
		name    string
		source  []string // settings of the source topic
		target  []string // of the target topic
		keys    string   // of the link
		rest    string   // of the configuration
		bad     *kgo.Record
		codec   kgo.CompressionCodec
		want    []string
		mend    func(t *testing.T, topic string)
		mended  func(string) string // the configuration, nil: unchanged
		restart bool
	}{
		{
			name: "a record larger than the target takes", target: []string{"max.message.bytes", "100000"},
			bad: &kgo.Record{Value: bytes.Repeat([]byte("x"), 500_000)}, codec: kgo.NoCompression(),
			want: []string{"source offset 5 ", "raise max.message.bytes"},
			mend: alter(pair.Target, "max.message.bytes", "1048588"),
		},
		{
			name: "a compressed batch that unpacks beyond the limit", keys: ", compression: zstd", rest: "limits: {decoded_batch: 1MiB}\n",
			bad: &kgo.Record{Value: make([]byte, 9<<20)}, codec: kgo.GzipCompression(),
			source: []string{"max.message.bytes", "20000000"}, target: []string{"max.message.bytes", "20000000"},
			want:   []string{"source offset 5 ", "bomb", "raise limits.decoded_batch"},
			mended: swap("decoded_batch: 1MiB", "decoded_batch: 64MiB"),
		},
		{
			name: "a timestamp too far in the future", source: []string{"message.timestamp.after.max.ms", "9223372036854775807"}, target: []string{"message.timestamp.after.max.ms", "3600000"},
			bad: &kgo.Record{Value: []byte("tomorrow"), Timestamp: time.Now().Add(24 * time.Hour)}, codec: kgo.NoCompression(),
			want: []string{"source offset 5 ", "raise message.timestamp.after.max.ms"},
			mend: alter(pair.Target, "message.timestamp.after.max.ms", "9223372036854775807"),
		},
		{
			name: "a timestamp too long ago", target: []string{"message.timestamp.before.max.ms", "600000"},
			bad: &kgo.Record{Value: []byte("earlier"), Timestamp: time.Now().Add(-30 * time.Minute)}, codec: kgo.NoCompression(),
			want: []string{"source offset 5 ", "raise message.timestamp.before.max.ms"},
			mend: alter(pair.Target, "message.timestamp.before.max.ms", "9223372036854775807"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic := kafkatest.Topic(t, "bad")
			pair.Source.CreateTopic(t, topic, 2, c.source...)
			pair.Target.CreateTopic(t, topic, 2, c.target...)
			put(t, pair.Source, topic, 0, "before", 5)
			cl, err := kgo.NewClient(append(opts(pair.Source), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(c.codec), kgo.ProducerBatchMaxBytes(20<<20), kgo.MaxBufferedBytes(64<<20))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			c.bad.Topic = topic
			if err := cl.ProduceSync(t.Context(), c.bad).FirstErr(); err != nil {
				t.Fatal(err)
			}
			put(t, pair.Source, topic, 0, "after", 5)
			put(t, pair.Source, topic, 1, "neighbour", 20)
			east, west := side{alias: fmt.Sprintf("re%d", i), Cluster: pair.Source}, side{alias: fmt.Sprintf("rw%d", i), Cluster: pair.Target}
			file := linkFile(t, east, west, topic, c.keys, c.rest)
			d := supervise(t, file, daemon.Options{})
			reason := d.untilHalted(topic, 0)
			t.Log(reason)
			wantContains(t, "the reason", reason, c.want...)
			put(t, pair.Source, topic, 1, "later", 20) // while its neighbour is halted
			eventually(t, "the neighbour goes on", func() bool { return len(values(t, pair.Target, topic, 1)) == 40 })
			wantValues(t, pair.Target, topic, 0, words("before", 0, 5))
			d.stop()
			if d.starts.Load() != 1 {
				t.Errorf("a halted lane ended the daemon")
			}
			if c.mend != nil {
				c.mend(t, topic)
			}
			if c.mended != nil {
				file = rewritten(t, file, c.mended)
			}
			supervise(t, file, daemon.Options{})
			mustEqual(t, pair.Source, pair.Target, topic)
		})
	}
}

// untilHalted waits until a lane is halted and returns why.
func (s *supervised) untilHalted(topic string, partition int32) (reason string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%s-%d is halted", topic, partition), func() bool {
		st, ok := s.status()
		ln, there := laneOf(st, topic, partition)
		reason = ln.Reason
		return ok && there && ln.State == mirror.LaneHalted
	})
	return reason
}

func alter(c *kafkatest.Cluster, key, value string) func(*testing.T, string) {
	return func(t *testing.T, topic string) {
		t.Helper()
		resps, err := c.Admin().AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
		if err != nil || resps[0].Err != nil {
			t.Fatalf("set %s of %s: %v, %+v", key, topic, err, resps)
		}
	}
}

// A target topic that takes no writes for a while, because too few replicas are
// there, is tried again, loudly, and its neighbour goes on.
func TestTargetThatTakesNoWritesIsTriedAgain(t *testing.T) {
	source := kafkatest.Pair(t).Source
	target := kafkatest.Start(t, kafkatest.Config{Name: "three", Brokers: 3})
	sick, well := kafkatest.Topic(t, "sick"), kafkatest.Topic(t, "well")
	target.CreateTopic(t, sick, 1, "min.insync.replicas", "3")
	target.CreateTopic(t, well, 1, "min.insync.replicas", "2")
	write := func(word string) {
		t.Helper()
		for _, topic := range []string{sick, well} {
			put(t, source, topic, 0, word, 10)
		}
	}
	for _, topic := range []string{sick, well} {
		source.CreateTopic(t, topic, 1)
	}
	write("first")
	d := supervise(t, linkFile(t, side{alias: "ue", Cluster: source}, side{alias: "uw", Cluster: target}, sick+"|"+well, "", ""), daemon.Options{})
	mustEqual(t, source, target, sick, well)
	lost := follower(t, target, sick, well)
	lost.Kill()
	eventually(t, "the cluster knows that a replica is gone", func() bool {
		topics, err := target.Admin().ListTopics(t.Context(), sick)
		return err == nil && len(topics[sick].Partitions[0].ISR) == 2
	})
	write("second")
	d.untilSays("NOT_ENOUGH_REPLICAS")
	mustEqual(t, source, target, well)
	eventually(t, "the link says that it is not well", func() bool {
		s, ok := d.status()
		ln, _ := laneOf(s, sick, 0)
		return ok && s.State == mirror.LinkDegraded && ln.Reason != ""
	})
	if err := lost.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, source, target, sick, well)
	if d.starts.Load() != 1 {
		t.Error("it had to be started again")
	}
}

// follower is a broker that leads neither topic, so that no lane has to be opened
// again for its loss.
func follower(t *testing.T, c *kafkatest.Cluster, topics ...string) *kafkatest.Broker {
	t.Helper()
	listed, err := c.Admin().ListTopics(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range c.Brokers() {
		leads := false
		for _, topic := range topics {
			leads = leads || listed[topic].Partitions[0].Leader == int32(b.ID())
		}
		if !leads {
			return b
		}
	}
	t.Fatal("every broker leads one of the topics")
	return nil
}

// A journal that a newer version has written to stops the link before anything
// is appended.
func TestJournalOfANewerVersionStopsTheLink(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "newer")
	pair.Source.CreateTopic(t, topic, 1)
	put(t, pair.Source, topic, 0, "first", 10)
	file := linkFile(t, side{alias: "ne", Cluster: pair.Source}, side{alias: "nw", Cluster: pair.Target}, topic, "", "")
	d := supervise(t, file, daemon.Options{})
	mustEqual(t, pair.Source, pair.Target, topic)

	// As a newer one would: the same key, a value of a version to come.
	journal := "replicator.ne.nw.journal"
	var last *kgo.Record
	err := compare.Read(t.Context(), compare.Seeds(pair.Target.Bootstrap()...), journal, func(r *kgo.Record) error { last = r; return nil })
	if err != nil || last == nil {
		t.Fatalf("read the journal: %v, %v", last, err)
	}
	cl := pair.Target.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	newer := &kgo.Record{Topic: journal, Partition: last.Partition, Key: last.Key, Value: append([]byte{99}, last.Value[1:]...)}
	if err := cl.ProduceSync(t.Context(), newer).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// The one that runs ends by itself, and no start after it appends.
	want := fmt.Sprintf("read journal entry of %s, partition %d, offset %d: version 99", journal, newer.Partition, newer.Offset)
	d.untilSays(want)
	eventually(t, "it ended", func() bool { return d.starts.Load() > 1 })
	end := endOf(t, pair.Target, topic)
	put(t, pair.Source, topic, 0, "second", 10)
	d.stop()
	said := refusedRun(t, file, 1)
	wantContains(t, "the command", said, want, "written by a newer replicator")
	if now := endOf(t, pair.Target, topic); now != end {
		t.Errorf("the target ends at %d, it did at %d", now, end)
	}
}

// endOf is the next offset of partition 0.
func endOf(t *testing.T, c *kafkatest.Cluster, topic string) int64 {
	t.Helper()
	ends, err := c.Admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return ends[topic][0].Offset
}

// A source broker behind a proxy that damages what it sends, then one that
// advertises an address outside the boundary while the daemon runs.
func TestSourceThatCannotBeTrusted(t *testing.T) {
	target := kafkatest.Pair(t).Target
	proxy := newProxy(t)
	source := kafkatest.Start(t, kafkatest.Config{Name: "behind", Advertised: func(_ int, addr string) string {
		proxy.to.Store(&addr)
		return proxy.addr
	}})
	from, to := side{alias: "de", Cluster: source}, side{alias: "dw", Cluster: target}

	for i, c := range []struct {
		name   string
		damage func(batch []byte)
		want   []string
	}{
		{"a flipped bit", func(b []byte) { b[len(b)-1] ^= 0x10 }, []string{"(corrupt)", "crc is"}},
		{"an unknown codec", func(b []byte) {
			binary.BigEndian.PutUint16(b[21:], binary.BigEndian.Uint16(b[21:])&^7|5)
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		}, []string{"(unknown)", "unknown compression codec 5"}},
		{"an unknown magic", func(b []byte) { b[16] = 7 }, []string{"magic is 7"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic := fmt.Sprintf("damaged.%d", i)
			source.CreateTopic(t, topic, 2)
			put(t, source, topic, 0, "before", 5)
			stamp := time.Now().Add(time.Duration(i) * time.Second).Truncate(time.Millisecond)
			if err := source.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression())).
				ProduceSync(t.Context(), &kgo.Record{Topic: topic, Timestamp: stamp, Value: bytes.Repeat([]byte("v"), 30_000)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			put(t, source, topic, 0, "after", 5)
			put(t, source, topic, 1, "neighbour", 20)
			proxy.damage(stamp, c.damage)
			file := linkFile(t, from, to, topic, "", "")
			d := supervise(t, file, daemon.Options{})
			reason := d.untilHalted(topic, 0)
			t.Log(reason)
			wantContains(t, "the reason", reason, append(c.want, "source offset 5 ")...)
			put(t, source, topic, 1, "later", 20)
			eventually(t, "the neighbour goes on", func() bool { return len(values(t, target, topic, 1)) == 40 })
			wantValues(t, target, topic, 0, words("before", 0, 5))
			if proxy.damaged.Load() == 0 {
				t.Error("nothing was damaged")
			}
			proxy.damage(time.Time{}, nil)
			d.stop()
			supervise(t, file, daemon.Options{})
			mustEqual(t, source, target, topic)
		})
	}
	t.Run("an address outside the boundary", func(t *testing.T) { outside(t, from, to, proxy.addr) })
}

func outside(t *testing.T, from, to side, inside string) {
	const topic, away = "outside", "203.0.113.7:9092"
	from.CreateTopic(t, topic, 1)
	put(t, from.Cluster, topic, 0, "first", 10)
	var strange, dials atomic.Int64
	counted := daemon.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		if host, _, err := net.SplitHostPort(addr); err != nil || !net.ParseIP(host).IsLoopback() {
			strange.Add(1)
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	file := linkFile(t, from, to, topic, "", "")
	d := supervise(t, file, counted)
	mustEqual(t, from.Cluster, to.Cluster, topic)
	advertise(t, from.Broker(1), inside, away)
	want := "broker 1 of cluster " + from.alias + " at " + away + ": outside the boundary: the address is not private and boundary.allow_public is not set"
	d.untilSays(want)
	said := refusedRun(t, file, 1) // what starts now does not get that far
	wantContains(t, "a start", said, "open cluster "+from.alias+": no broker advertises an address inside the boundary:", want)
	advertise(t, from.Broker(1), away, inside)
	put(t, from.Cluster, topic, 0, "second", 10)
	mustEqual(t, from.Cluster, to.Cluster, topic)
	if strange.Load() != 0 || dials.Load() == 0 {
		t.Errorf("%d of %d connections went outside", strange.Load(), dials.Load())
	}
	if d.starts.Load() != 1 {
		t.Error("it had to be started again")
	}
}

// advertise restarts a broker with another address for its clients.
func advertise(t *testing.T, b *kafkatest.Broker, old, now string) {
	t.Helper()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(b.DataDir()), "server.properties")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "advertised.listeners=CLIENT://"+old+",", "advertised.listeners=CLIENT://"+now+",", 1)
	if changed == string(text) {
		t.Fatalf("%s does not advertise %s:\n%s", file, old, text)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// proxy stands before a broker and changes batches in what the broker answers.
type proxy struct {
	addr    string
	to      atomic.Pointer[string]
	damaged atomic.Int64

	mu     sync.Mutex
	stamp  [8]byte // base timestamp of the batch to change
	change func(batch []byte)
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: ln.Addr().String()}
	var open sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		ln.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			open.Go(func() { p.serve(ctx, client) })
		}
	})
	return p
}

// damage has the batch with that base timestamp changed whenever it passes;
// nil ends it.
func (p *proxy) damage(stamp time.Time, change func([]byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	binary.BigEndian.PutUint64(p.stamp[:], uint64(stamp.UnixMilli()))
	p.change = change
	p.damaged.Store(0)
}

func (p *proxy) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	broker, err := (&net.Dialer{}).DialContext(ctx, "tcp", *p.to.Load())
	if err != nil {
		return
	}
	defer broker.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); broker.Close() })()
	var there sync.WaitGroup
	there.Go(func() {
		_, _ = io.Copy(broker, client) // ends with either
		broker.Close()
	})
	defer there.Wait()
	defer client.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(broker, size[:]); err != nil {
			return
		}
		answer := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(broker, answer); err != nil {
			return
		}
		p.look(answer)
		if _, err := client.Write(append(size[:], answer...)); err != nil {
			return
		}
	}
}

// look finds the batch by its base timestamp, which stands 27 bytes behind its
// beginning.
func (p *proxy) look(answer []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.change == nil {
		return
	}
	for from := 0; ; {
		i := bytes.Index(answer[from:], p.stamp[:])
		if i < 0 {
			return
		}
		at := from + i - 27
		from += i + 1
		if at < 0 || len(answer) < at+61 || answer[at+16] != 2 {
			continue
		}
		end := at + 12 + int(binary.BigEndian.Uint32(answer[at+8:]))
		if end > len(answer) || end < at+61 {
			continue
		}
		p.change(answer[at:end])
		p.damaged.Add(1)
		from = end
	}
}
