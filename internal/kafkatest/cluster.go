package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

const (
	startTimeout = 90 * time.Second // of a whole cluster; 4 s are normal
	stopGrace    = 45 * time.Second // a broker hands its leaderships over first
	portAttempts = 3
)

// A Cluster is a running Kafka cluster, on loopback unless its [Network] is
// another. Its methods may be called from several goroutines, but those that
// start and stop one broker only from one at a time.
type Cluster struct {
	cfg     Config
	id      string
	home    *home
	libs    string
	archive []string   // options of the JVM, see classArchive
	ca      *Authority // nil without TLS
	brokers []*Broker
	zk      *zooKeeper // nil with KRaft
	clock   *clock     // nil: the machine's

	admin       *kadm.Client
	adminClient *kgo.Client

	certMu sync.Mutex
	certs  map[string]*Certificate // of clients, by user

	closeOnce sync.Once
}

// Start starts a cluster for one test, or skips the test where Kafka cannot be
// had (see [Need]). The cluster is closed when the test ends.
func Start(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	cfg = cfg.withDefaults()
	cfg.need(t)
	c, err := Launch(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start a Kafka cluster: %v", err)
	}
	t.Cleanup(func() {
		c.tellCrashes(t)
		c.Close()
	})
	return c
}

// Launch starts a cluster that lives until Close. It returns when every broker
// answers clients. The context bounds the start only.
func Launch(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg = cfg.withDefaults()
	libs, err := Libs(cfg.Version)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	archive, err := classArchive(ctx, libs, cfg.Version)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		c, err := launch(ctx, cfg, libs, archive)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errPortTaken) || attempt == portAttempts {
			return nil, fmt.Errorf("start cluster %s (Kafka %s): %w", cfg.Name, cfg.Version, err)
		}
	}
}

func launch(ctx context.Context, cfg Config, libs string, archive []string) (_ *Cluster, err error) {
	c := &Cluster{cfg: cfg, libs: libs, archive: archive, certs: map[string]*Certificate{}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.home, err = newHome(cfg.Name); err != nil {
		return nil, err
	}
	if cfg.MovableClock {
		if c.clock, err = c.newClock(); err != nil {
			return nil, err
		}
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if c.zk != nil {
		if err := c.zk.start(ctx); err != nil {
			return nil, err
		}
	}
	formats, formatCtx := errgroup.WithContext(ctx)
	for _, b := range c.brokers {
		formats.Go(func() error { return b.format(formatCtx) })
	}
	if err := formats.Wait(); err != nil {
		return nil, err
	}
	for _, b := range c.brokers {
		if err := b.launch(); err != nil {
			return nil, err
		}
	}
	if err := c.openAdmin(); err != nil {
		return nil, err
	}
	if err := c.waitMembers(ctx); err != nil {
		return nil, err
	}
	if err := c.createScramUsers(ctx); err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare reserves ports and writes every file a broker reads.
func (c *Cluster) prepare() error {
	var files brokerFiles
	if c.cfg.TLS != NoTLS {
		ca, err := NewAuthority(c.home.path("tls"))
		if err != nil {
			return err
		}
		cert, err := ca.Issue(c.cfg.certRequest())
		if err != nil {
			return err
		}
		c.ca = ca
		files.caFile, files.keyStore = ca.File, cert.BothFile
	}
	if c.cfg.zooKeeper() {
		p, err := reservePort()
		if err != nil {
			return err
		}
		c.zk = &zooKeeper{cluster: c, port: p}
	} else {
		id, err := randomUUID()
		if err != nil {
			return err
		}
		c.id = id
	}
	ports := make([]brokerPorts, c.cfg.Brokers)
	for i := range ports {
		b := &Broker{cluster: c, id: i + 1}
		c.brokers = append(c.brokers, b)
		for _, p := range []**port{&ports[i].client, &ports[i].internal, &ports[i].controller} {
			var err error
			if *p, err = reservePort(); err != nil {
				return err
			}
			b.held = append(b.held, *p)
		}
		b.ports = ports[i]
	}
	for _, b := range c.brokers {
		if err := os.MkdirAll(b.dir(), 0o700); err != nil {
			return err
		}
		files.logDir = filepath.Join(b.dir(), "data")
		var zk *port
		if c.zk != nil {
			zk = c.zk.port
		}
		text := propertiesText(c.cfg.serverProperties(b.id, ports, zk, files))
		if err := os.WriteFile(b.properties(), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// randomUUID is a cluster id as Kafka writes them: 16 bytes in URL-safe base64.
func randomUUID() (string, error) {
	var b [16]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return "", err
		}
		// One that begins with a dash reads as an option on a command line.
		if id := base64.RawURLEncoding.EncodeToString(b[:]); !strings.HasPrefix(id, "-") {
			return id, nil
		}
	}
}

// Config is the configuration with its defaults filled in.
func (c *Cluster) Config() Config { return c.cfg }

// ID is the cluster id brokers tell their clients.
func (c *Cluster) ID() string { return c.id }

// Dir is the cluster's directory, removed by Close.
func (c *Cluster) Dir() string { return c.home.dir }

// Bootstrap is the CLIENT address of every broker, host:port, also of those
// that are down. It is where brokers listen, whatever they advertise.
func (c *Cluster) Bootstrap() []string {
	addrs := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		addrs[i] = b.Addr()
	}
	return addrs
}

// InternalBootstrap is the plaintext address of every broker whose anonymous
// user may do everything: for tools, never for what a test is about.
func (c *Cluster) InternalBootstrap() []string {
	addrs := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		addrs[i] = c.cfg.Network.addr(b.ports.internal)
	}
	return addrs
}

// Broker returns the broker with a node id, from 1.
func (c *Cluster) Broker(id int) *Broker { return c.brokers[id-1] }

// Brokers returns all brokers, by node id.
func (c *Cluster) Brokers() []*Broker { return c.brokers }

// Close kills all brokers and removes their data. It may be called twice.
func (c *Cluster) Close() {
	c.closeOnce.Do(func() {
		if c.adminClient != nil {
			c.adminClient.Close()
		}
		for _, b := range c.brokers {
			b.Kill()
		}
		if c.zk != nil {
			c.zk.close()
		}
		for _, b := range c.brokers {
			for _, p := range b.held {
				p.free()
			}
		}
		if c.home != nil {
			c.home.close()
		}
	})
}

// tellCrashes puts the last words of brokers that died by themselves, or that
// are down at the end of a failed test, into the test's log.
func (c *Cluster) tellCrashes(t testing.TB) {
	t.Helper()
	for _, b := range c.brokers {
		p := b.proc()
		if p == nil || p.Running() || (!p.crashed() && !t.Failed()) {
			continue
		}
		t.Logf("broker %d of %s is down (%s), the end of its log:\n%s", b.id, c.cfg.Name, p.State(), p.Tail(50))
	}
}
