package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
)

// talk proves that control and data connections both work.
func talk(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	meta, err := c.Admin().BrokerMetadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(ctx, meta.Brokers[0].NodeID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Request(ctx, kmsg.NewPtrMetadataRequest()); err != nil {
		t.Fatal(err)
	}
	own, err := c.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := own.Ping(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestOpenOverEveryKindOfConnection(t *testing.T) {
	ca := newAuthority(t)
	later := time.Now().Add(time.Hour)
	for _, m := range []Mechanism{NoSASL, Plain, ScramSHA256, ScramSHA512} {
		for _, secure := range []bool{false, true} {
			name := string(m) + map[bool]string{true: " over TLS", false: " in the clear"}[secure]
			t.Run(name, func(t *testing.T) {
				var opts []kfake.Opt
				if m != NoSASL {
					opts = append(opts, kfake.EnableSASL(), kfake.Superuser(string(m), "replicator", hidden))
				}
				if secure {
					opts = append(opts, kfake.TLS(ca.server(later, "127.0.0.1")))
				}
				fake := brokers(t, opts...)
				cfg := config(fake)
				if m != NoSASL {
					cfg.SASL.Mechanism, cfg.SASL.Username, cfg.SASL.Password = m, "replicator", LiteralSecret(hidden)
				}
				if secure {
					cfg.TLS.Enabled, cfg.TLS.CAFile = true, ca.file
				}
				c := mustOpen(t, cfg, Options{})
				if c.ID() != "east-id" || c.Alias() != "east" {
					t.Errorf("opened %s, id %s", c.Alias(), c.ID())
				}
				talk(t, c)
				if end, ok := c.CertificateExpiry(); ok != secure || ok && end.Sub(later).Abs() > time.Second {
					t.Errorf("certificate ends %v, %v", end, ok)
				}
			})
		}
	}
}

func TestMutualTLSShowsOurCertificate(t *testing.T) {
	ca := newAuthority(t)
	server := ca.server(time.Now().Add(time.Hour), "127.0.0.1")
	server.ClientAuth = tls.RequireAndVerifyClientCert
	server.ClientCAs = x509.NewCertPool()
	server.ClientCAs.AddCert(ca.cert)
	var seen atomic.Value
	server.VerifyConnection = func(s tls.ConnectionState) error {
		seen.Store(s.PeerCertificates[0].Subject.CommonName)
		return nil
	}
	cfg := config(brokers(t, kfake.TLS(server)))
	cfg.TLS = TLS{Enabled: true, CAFile: ca.file, MinVersion: "1.2"}

	_, err := Open(t.Context(), "east", cfg, Options{})
	if err == nil {
		t.Fatal("opened without the certificate the broker asks for")
	}

	dir := t.TempDir()
	cfg.TLS.CertFile, cfg.TLS.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put := func(name string) {
		certPEM, keyPEM := ca.issue(name, time.Now().Add(time.Hour))
		writeFile(t, cfg.TLS.CertFile, certPEM, 0o644)
		writeFile(t, cfg.TLS.KeyFile, keyPEM, 0o600)
	}
	put("first")
	c := mustOpen(t, cfg, Options{})
	if got := seen.Load(); got != "first" {
		t.Errorf("the broker saw %v", got)
	}

	// Rotated: the next connection shows the new one, without a restart.
	put("second, with a longer name")
	talk(t, c)
	if got := seen.Load(); got != "second, with a longer name" {
		t.Errorf("after the rotation the broker saw %v", got)
	}

	// Half of a rotation: the last good one goes on.
	certPEM, _ := ca.issue("third", time.Now().Add(time.Hour))
	writeFile(t, cfg.TLS.CertFile, certPEM, 0o644)
	talk(t, c)
	if got := seen.Load(); got != "second, with a longer name" {
		t.Errorf("in the middle of a rotation the broker saw %v", got)
	}
}

func TestTLSErrorsSayWhatIsWrong(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	ended := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name   string
		server *tls.Config // nil: no TLS
		ca     *authority
		min    string
		want   []string
	}{
		{"expired", ca.server(ended, "127.0.0.1"), ca, "1.2", []string{"expired on " + date(ended), "broker"}},
		{"another name", ca.server(later, "kafka.elsewhere"), ca, "1.2", []string{"not for 127.0.0.1 but for kafka.elsewhere", "tls.server_name"}},
		{"unknown authority", ca.server(later, "127.0.0.1"), other, "1.2", []string{"not trusted", "tls.ca_file"}},
		{"no TLS there", nil, ca, "1.2", []string{"TLS", "plaintext port"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var opts []kfake.Opt
			if c.server != nil {
				opts = append(opts, kfake.TLS(c.server))
			}
			cfg := config(brokers(t, opts...))
			cfg.TLS = TLS{Enabled: true, CAFile: c.ca.file, MinVersion: c.min}
			cfg.Timeouts.Dial = 2 * time.Second
			_, err := Open(t.Context(), "east", cfg, Options{})
			if err == nil {
				t.Fatal("opened")
			}
			for _, want := range append(c.want, "east", cfg.BootstrapServers[0]) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("missing %q in: %v", want, err)
				}
			}
		})
	}
}

func TestWrongPasswordIsSaidWithoutThePassword(t *testing.T) {
	fake := brokers(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "replicator", "other"))
	cfg := config(fake)
	cfg.SASL.Mechanism, cfg.SASL.Username, cfg.SASL.Password = ScramSHA256, "replicator", LiteralSecret(hidden)
	_, err := Open(t.Context(), "east", cfg, Options{})
	if err == nil || strings.Contains(err.Error(), hidden) || !strings.Contains(err.Error(), "authenticate by SCRAM-SHA-256") {
		t.Errorf("error is %v", err)
	}
}

func TestAPasswordThatRotatesIsReadForTheNextConnection(t *testing.T) {
	fake := brokers(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "replicator", hidden))
	file := filepath.Join(t.TempDir(), "password")
	writeFile(t, file, []byte("not yet"), 0o600)
	cfg := config(fake)
	cfg.SASL.Mechanism, cfg.SASL.Username, cfg.SASL.Password = Plain, "replicator", mustSecret(t, "file:"+file)
	if _, err := Open(t.Context(), "east", cfg, Options{}); err == nil {
		t.Fatal("opened with the wrong password")
	}
	writeFile(t, file, []byte(hidden+"\n"), 0o600)
	talk(t, mustOpen(t, cfg, Options{}))
}

func TestOpenSaysTheCauseAtEachAddress(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Timeouts.Dial = time.Second
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	free.Close()
	cfg.BootstrapServers = []string{closed, "nowhere.internal:9092", "away.internal:9092"}
	names := newTable(map[string][]string{"away.internal": {"8.8.8.8"}})
	_, err = Open(t.Context(), "east", cfg, Options{Resolver: names})
	oe, ok := errors.AsType[*OpenError](err)
	if !ok || len(oe.Causes) != 3 {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{"cluster east", closed + ": ", "connection refused", "nowhere.internal:9092", "no such host", "away.internal:9092", "not private"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in: %v", want, err)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cfg := DefaultConfig()
	cfg.BootstrapServers = []string{silent.Addr().String()}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := Open(ctx, "east", cfg, Options{}); err == nil {
		t.Fatal("opened")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v after the context had ended", took)
	}
}

// A region is given up without being asked twice only where there is nothing at all.
func TestOnlyAClusterThatTakesNoConnectionIsDark(t *testing.T) {
	frozen, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	names := newTable(map[string][]string{"away.internal": {"8.8.8.8"}})
	for name, c := range map[string]struct {
		servers []string
		tls     bool
		dark    bool
	}{
		"nobody listens":                      {servers: []string{"127.0.0.1:1"}, dark: true},
		"the name is gone":                    {servers: []string{"nowhere.internal:9092", "127.0.0.1:1"}, dark: true},
		"connections are taken, no answer":    {servers: []string{"127.0.0.1:1", frozen.Addr().String()}},
		"connections are taken, no handshake": {servers: []string{frozen.Addr().String()}, tls: true},
		"it may not be dialled":               {servers: []string{"127.0.0.1:1", "away.internal:9092"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Timeouts.Dial, cfg.Timeouts.Request = 300*time.Millisecond, 300*time.Millisecond
			cfg.BootstrapServers, cfg.TLS.Enabled = c.servers, c.tls
			_, err := Open(t.Context(), "east", cfg, Options{Resolver: names})
			oe, ok := errors.AsType[*OpenError](err)
			if !ok || oe.Dark() != c.dark {
				t.Errorf("dark is not %t: %v", c.dark, err)
			}
		})
	}
}

func TestWhichBrokersAreAliveIsSaidInTime(t *testing.T) {
	c := mustOpen(t, config(brokers(t)), Options{})
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	c.mu.Lock()
	named := len(c.brokers)
	c.brokers[77], c.brokers[78] = frozen.Addr().String(), "127.0.0.1:1"
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	answer, silent := c.Alive(ctx)
	if len(answer) != named || !slices.Equal(silent, []int32{77, 78}) || time.Since(began) > 3*time.Second {
		t.Errorf("after %v: %v answer, %v do not; %d are there", time.Since(began), answer, silent, named)
	}
}

func TestOneBootstrapServerIsEnough(t *testing.T) {
	cfg := config(brokers(t))
	cfg.BootstrapServers = append([]string{"127.0.0.1:1"}, cfg.BootstrapServers...)
	talk(t, mustOpen(t, cfg, Options{}))
}

func TestAnotherClusterIsRefused(t *testing.T) {
	cfg := config(brokers(t))
	cfg.ClusterID = "east-id"
	mustOpen(t, cfg, Options{})
	cfg.ClusterID = "west-id"
	_, err := Open(t.Context(), "east", cfg, Options{})
	ie, ok := errors.AsType[*IDError](err)
	if !ok || ie.Got != "east-id" || ie.Want != "west-id" {
		t.Errorf("error is %v", err)
	}
}

func TestSourceAndTargetMustDiffer(t *testing.T) {
	one := brokers(t)
	a, b := mustOpen(t, config(one), Options{}), mustOpen(t, config(one), Options{})
	if err := Distinct(a, b); err == nil || !strings.Contains(err.Error(), "east-id") {
		t.Errorf("error is %v", err)
	}
	if err := Distinct(a, mustOpen(t, config(brokers(t, kfake.ClusterID("west-id"))), Options{})); err != nil {
		t.Error(err)
	}
}

// A broker that begins to advertise an address outside, in the middle of a
// run, is refused by control and data connections alike.
func TestAdvertisedAddressOutsideIsRefusedInTheMiddleOfARun(t *testing.T) {
	fake := brokers(t, kfake.NumBrokers(1))
	seen := &refusals{}
	c := mustOpen(t, config(fake), Options{OnRefusal: seen.add, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ap, err := netip.ParseAddrPort(addr); err != nil || !ap.Addr().IsLoopback() {
			t.Errorf("dialled %s", addr)
			return nil, errors.New("outside")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}})
	talk(t, c)
	id := slices.Collect(maps.Keys(c.brokers))[0]
	fake.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = id, "203.0.113.9", 9092
		resp.Brokers = append(resp.Brokers, b)
		resp.ClusterID = new("east-id")
		resp.ControllerID = id
		return resp, nil, true
	})
	c.mu.Lock()
	c.asked = time.Time{} // as after addressAge
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := c.Connect(ctx, id)
	be, ok := errors.AsType[*BoundaryError](err)
	if !ok || be.Broker != id || be.Advertised != "203.0.113.9:9092" || be.Cluster != "east" {
		t.Fatalf("data connection: error is %v", err)
	}

	before := len(seen.all())
	own, err := c.NewClient(kgo.RetryTimeout(time.Second), kgo.RequestRetries(1))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Request(ctx, kmsg.NewPtrMetadataRequest()); err != nil { // learns the address
		t.Fatal(err)
	}
	_, err = own.Broker(int(id)).Request(ctx, kmsg.NewPtrListGroupsRequest())
	if be, ok := errors.AsType[*BoundaryError](err); !ok || be.Broker != id {
		t.Errorf("control connection: error is %v", err)
	}
	after := seen.all()[before:]
	if len(after) == 0 || !slices.ContainsFunc(after, func(e BoundaryError) bool { return e.Broker == id && e.Address == "203.0.113.9:9092" }) {
		t.Errorf("reported %+v", after)
	}

	// And a daemon that starts now is told so.
	_, err = Open(ctx, "east", config(fake), Options{})
	if _, ok := errors.AsType[*BoundaryError](err); !ok || !strings.Contains(err.Error(), "no broker advertises") {
		t.Errorf("Open: error is %v", err)
	}
}

func TestRewrittenAddressKeepsItsNameInTLS(t *testing.T) {
	ca := newAuthority(t)
	fake := brokers(t, kfake.TLS(ca.server(time.Now().Add(time.Hour), "b-1.kafka.internal", "127.0.0.1")))
	cfg := config(fake)
	dialled := cfg.BootstrapServers[0]
	cfg.BootstrapServers = []string{"b-1.kafka.internal:9094"}
	cfg.TLS = TLS{Enabled: true, CAFile: ca.file, MinVersion: "1.3"}
	cfg.Boundary.Rewrite = []Rewrite{{From: "b-*.kafka.internal:9094", To: dialled}}
	mustOpen(t, cfg, Options{Resolver: newTable(nil)})

	cfg.BootstrapServers = []string{"b-2.kafka.internal:9094"}
	_, err := Open(t.Context(), "east", cfg, Options{Resolver: newTable(nil)})
	if err == nil || !strings.Contains(err.Error(), "not for b-2.kafka.internal") {
		t.Errorf("error is %v", err)
	}
}

func TestPlainPasswordStaysOnThisMachineWithoutTLS(t *testing.T) {
	cfg := DefaultConfig()
	cfg.BootstrapServers = []string{"kafka.internal:9092"}
	cfg.SASL.Mechanism, cfg.SASL.Username, cfg.SASL.Password = Plain, "u", LiteralSecret(hidden)
	names := newTable(map[string][]string{"kafka.internal": {"10.0.0.1"}, "localhost": {"10.0.0.1"}})
	_, err := Open(t.Context(), "east", cfg, Options{Resolver: names, Dial: noDial(t)})
	if err == nil || !strings.Contains(err.Error(), "allow_plaintext") {
		t.Errorf("error is %v", err)
	}
	// A name that says localhost and is not: the address decides.
	cfg.BootstrapServers = []string{"localhost:9092"}
	_, err = Open(t.Context(), "east", cfg, Options{Resolver: names, Dial: noDial(t)})
	if _, ok := errors.AsType[*BoundaryError](err); !ok || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("error is %v", err)
	}
	cfg.SASL.AllowPlaintext = true
	dialled := false
	_, err = Open(t.Context(), "east", cfg, Options{Resolver: names, Dial: func(context.Context, string, string) (net.Conn, error) {
		dialled = true
		return nil, errors.New("far away")
	}})
	if !dialled || err == nil {
		t.Errorf("dialled is %v, error %v", dialled, err)
	}
}

func TestOptionsOfAClientCannotTakeTheGuardAway(t *testing.T) {
	c := mustOpen(t, config(brokers(t)), Options{})
	own, err := c.NewClient(kgo.SeedBrokers("203.0.113.9:9092"), kgo.Dialer(func(context.Context, string, string) (net.Conn, error) {
		t.Error("the caller's dialer was used")
		return nil, errors.New("no")
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := own.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

var _ sasl.Mechanism = (*awsMechanism)(nil)
