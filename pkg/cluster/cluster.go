package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"

	"replicator/pkg/wire"
)

const (
	// controlReadBytes bounds an answer to a control request: metadata of ten
	// thousand partitions takes about one megabyte.
	controlReadBytes = 16 << 20
	// addressAge is how long the brokers' addresses are believed without
	// asking again; a connection that fails ends it at once.
	addressAge = 30 * time.Second
)

// Options are what a cluster takes from the process around it. All may be
// left out.
type Options struct {
	Log      *zap.Logger
	Dial     DialFunc // below the guard, for tests; the boundary's source_address is then not applied
	Resolver Resolver // default net.DefaultResolver
	Pool     *wire.Pool
	// ClientID is what brokers see in logs and quotas. Default "replicator".
	ClientID string
	// MaxFetch bounds the answer of one fetch of a data connection, in bytes.
	// 0 is wire's default.
	MaxFetch int32
	// OnRefusal is called for every address the guard refused. It must not block.
	OnRefusal func(*BoundaryError)
	// OnThrottle is called with the time a broker asked a data connection to
	// wait.
	OnThrottle func(broker int32, d time.Duration)
	// OnBytes is called with what a data connection read and wrote.
	OnBytes func(broker int32, read, written int)
}

// Cluster is one Kafka cluster whose identity has been checked. Its methods
// may be called from many goroutines.
type Cluster struct {
	alias     string
	id        string
	cfg       Config
	opt       Options
	log       *zap.Logger
	guard     *guard
	tls       *tlsFiles // nil without TLS
	mechanism sasl.Mechanism
	client    *kgo.Client
	admin     *kadm.Client

	readBytes, writtenBytes, throttled atomic.Int64 // of data connections, see DataTraffic

	mu      sync.Mutex
	brokers map[int32]string // advertised host:port
	ids     map[string]int32 // the same, backwards: to name a broker in errors
	asked   time.Time        // when brokers were learnt; zero: ask again
}

func hostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (c *Cluster) learn(meta *kmsg.MetadataResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brokers = make(map[int32]string, len(meta.Brokers))
	c.ids = make(map[string]int32, len(meta.Brokers))
	for _, b := range meta.Brokers {
		addr := hostPort(b.Host, b.Port)
		c.brokers[b.NodeID] = addr
		c.ids[addr] = b.NodeID
	}
	c.asked = time.Now()
}

// Alias returns the name the configuration gives the cluster.
func (c *Cluster) Alias() string { return c.alias }

// ID returns the cluster id the brokers tell; empty when they tell none.
func (c *Cluster) ID() string { return c.id }

// Config returns the configuration the cluster was opened with.
func (c *Cluster) Config() Config { return c.cfg }

// Client returns the control client: it consumes and produces nothing.
func (c *Cluster) Client() *kgo.Client { return c.client }

// Admin returns the admin client over the control client.
func (c *Cluster) Admin() *kadm.Client { return c.admin }

// CertificateExpiry returns when the first certificate ends: our own or one
// that a broker has shown. It reports false when none was seen.
func (c *Cluster) CertificateExpiry() (time.Time, bool) {
	if c.tls == nil {
		return time.Time{}, false
	}
	return c.tls.expiry()
}

// Close ends the control client. Clients of NewClient and data connections
// belong to who made them.
func (c *Cluster) Close() { c.client.Close() }

// NewClient makes a client with the cluster's guard, TLS and SASL. The options
// come after ours and may override all but the way connections are made.
func (c *Cluster) NewClient(opts ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(c.ClientOptions(opts...)...)
	if err != nil {
		return nil, fmt.Errorf("make client of cluster %s: %w", c.alias, err)
	}
	return client, nil
}

// ClientOptions is what NewClient makes its clients with, for those who make
// their own.
func (c *Cluster) ClientOptions(opts ...kgo.Opt) []kgo.Opt {
	all := []kgo.Opt{
		kgo.ClientID(c.opt.ClientID),
		kgo.Rack(c.cfg.Rack),
		kgo.WithLogger(kzap.New(c.log.Named("kgo"), kzap.Level(kgo.LogLevelWarn))),
		kgo.BrokerMaxReadBytes(controlReadBytes),
		kgo.FetchMaxBytes(controlReadBytes / 2),
		kgo.FetchMaxPartitionBytes(controlReadBytes / 16),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // a lost position is an error, never a jump
		kgo.RequestTimeoutOverhead(c.cfg.Timeouts.Request),
		kgo.RetryTimeout(c.cfg.Timeouts.Retry),
		kgo.MetadataMinAge(time.Second),
		kgo.DisableClientMetrics(), // nothing is reported to brokers unasked
	}
	all = append(all, opts...)
	all = append(all,
		kgo.SeedBrokers(c.cfg.BootstrapServers...),
		kgo.Dialer(c.dialControl),
		kgo.WithHooks(refusalHook{c}),
	)
	if c.mechanism != nil {
		all = append(all, kgo.SASL(c.mechanism))
	}
	return all
}

// Connect opens a data connection to a broker by its id. An address that
// could not be connected to is asked for again the next time.
func (c *Cluster) Connect(ctx context.Context, broker int32) (*wire.Conn, error) {
	addr, err := c.address(ctx, broker)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect(ctx, broker, addr)
	if err != nil {
		c.mu.Lock()
		c.asked = time.Time{}
		c.mu.Unlock()
		return nil, fmt.Errorf("connect to broker %d of cluster %s: %w", broker, c.alias, err)
	}
	return conn, nil
}

// ConnectAddr opens a data connection to an address, as a bootstrap server.
func (c *Cluster) ConnectAddr(ctx context.Context, addr string) (*wire.Conn, error) {
	conn, err := c.connect(ctx, UnknownBroker, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s of cluster %s: %w", printable(addr), c.alias, err)
	}
	return conn, nil
}

// address returns the advertised host:port of a broker.
func (c *Cluster) address(ctx context.Context, broker int32) (string, error) {
	c.mu.Lock()
	addr, ok := c.brokers[broker]
	fresh := time.Since(c.asked) < addressAge
	c.mu.Unlock()
	if ok && fresh {
		return addr, nil
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	req.AllowAutoTopicCreation = false
	meta, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return "", fmt.Errorf("find broker %d of cluster %s: %w", broker, c.alias, err)
	}
	c.learn(meta)
	c.mu.Lock()
	defer c.mu.Unlock()
	addr, ok = c.brokers[broker]
	if !ok {
		return "", fmt.Errorf("find broker %d of cluster %s: it is not among the %d live brokers", broker, c.alias, len(c.brokers))
	}
	return addr, nil
}

// ConnectWith is Connect with another pool for the frames of fetch answers.
func (c *Cluster) ConnectWith(ctx context.Context, broker int32, pool *wire.Pool) (*wire.Conn, error) {
	addr, err := c.address(ctx, broker)
	if err != nil {
		return nil, err
	}
	return c.connectWith(ctx, broker, addr, pool)
}

// DataTraffic is what the data connections of a cluster moved since it was opened.
type DataTraffic struct {
	ReadBytes, WrittenBytes int64
	Throttled               time.Duration // brokers asked connections to wait
}

// DataTraffic returns the counts so far.
func (c *Cluster) DataTraffic() DataTraffic {
	return DataTraffic{c.readBytes.Load(), c.writtenBytes.Load(), time.Duration(c.throttled.Load())}
}

func (c *Cluster) connect(ctx context.Context, broker int32, addr string) (*wire.Conn, error) {
	return c.connectWith(ctx, broker, addr, c.opt.Pool)
}

func (c *Cluster) connectWith(ctx context.Context, broker int32, addr string, pool *wire.Pool) (*wire.Conn, error) {
	cfg := wire.Config{
		Broker: broker,
		Addr:   addr,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			conn, refusals, err := c.dial(ctx, broker, addr)
			for _, r := range refusals {
				c.opt.OnRefusal(r)
			}
			return conn, err
		},
		SASL:     c.mechanism,
		ClientID: c.opt.ClientID,
		Timeout:  c.cfg.Timeouts.Request,
		MaxFetch: c.opt.MaxFetch,
		Pool:     pool,
		OnThrottle: func(d time.Duration) {
			c.throttled.Add(int64(d))
			if f := c.opt.OnThrottle; f != nil {
				f(broker, d)
			}
		},
		OnBytes: func(read, written int) {
			c.readBytes.Add(int64(read))
			c.writtenBytes.Add(int64(written))
			if f := c.opt.OnBytes; f != nil {
				f(broker, read, written)
			}
		},
	}
	conn, err := wire.Connect(ctx, cfg)
	if err != nil && c.tls != nil && brokersAlert(err) != nil {
		return nil, &hinted{err, c.tls.refused()}
	}
	return conn, err
}

// hinted is an error of a connection with what it most likely lacks.
type hinted struct {
	error
	hint string
}

func (h *hinted) Error() string { return h.error.Error() + " (" + h.hint + ")" }
func (h *hinted) Unwrap() error { return h.error }

// dial is the way of every connection to a broker: guard, then TLS.
func (c *Cluster) dial(ctx context.Context, broker int32, addr string) (net.Conn, []*BoundaryError, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeouts.Dial)
	defer cancel()
	conn, refusals, err := c.guard.attempt(ctx, broker, addr)
	if err != nil || c.tls == nil {
		return conn, refusals, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		conn.Close()
		return nil, refusals, err
	}
	secure, err := c.tls.client(ctx, conn, host)
	if err != nil {
		return nil, refusals, err
	}
	return secure, refusals, nil
}

// dialControl dials for kgo, which does not tell a dialer the broker's id. The
// address tells it as of the last answer; what is not known yet is filled in
// by refusalHook, which is told. So refusals that end a dial are reported
// there, and here only those beside a connection.
func (c *Cluster) dialControl(ctx context.Context, _, addr string) (net.Conn, error) {
	c.mu.Lock()
	broker, ok := c.ids[addr]
	c.mu.Unlock()
	if !ok {
		broker = UnknownBroker
	}
	conn, refusals, err := c.dial(ctx, broker, addr)
	if be, ok := errors.AsType[*BoundaryError](err); !ok || be == nil {
		for _, r := range refusals {
			c.opt.OnRefusal(r)
		}
	}
	return conn, c.guard.named(broker, addr, err)
}

// refusalHook reports what the guard refused to a kgo client.
type refusalHook struct{ c *Cluster }

var _ kgo.HookBrokerConnect = refusalHook{}

func (h refusalHook) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	be, ok := errors.AsType[*BoundaryError](err)
	if !ok {
		return
	}
	if be.Broker == UnknownBroker && meta.NodeID >= 0 {
		be.Broker = meta.NodeID
	}
	h.c.opt.OnRefusal(be)
}
