package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
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

// OpenError is a cluster none of whose bootstrap servers could be used.
type OpenError struct {
	Cluster string
	Causes  []BootstrapError
}

// BootstrapError is why one bootstrap server could not be used.
type BootstrapError struct {
	Address string
	Err     error
}

func (e *OpenError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "open cluster %s: no bootstrap server could be used", e.Cluster)
	for i, c := range e.Causes {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s: %v", sep, c.Address, c.Err)
	}
	return b.String()
}

// Unwrap returns the causes.
func (e *OpenError) Unwrap() []error {
	errs := make([]error, len(e.Causes))
	for i, c := range e.Causes {
		errs[i] = c.Err
	}
	return errs
}

// IDError is a cluster that is not the configured one.
type IDError struct {
	Cluster   string // alias
	Want, Got string // cluster ids; Got empty: the brokers tell none
}

func (e *IDError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("open cluster %s: want cluster id %s, but the brokers tell none", e.Cluster, e.Want)
	}
	return fmt.Sprintf("open cluster %s: want cluster id %s, but the brokers are of cluster %s", e.Cluster, e.Want, e.Got)
}

// Open connects to a cluster, learns its id, and refuses it when it is not the
// configured one. It tries every bootstrap server once, side by side, so it
// ends within a dial and a request; when none can be used the *OpenError has
// the cause for each. The context bounds Open only, not the Cluster.
func Open(ctx context.Context, alias string, cfg Config, o Options) (*Cluster, error) {
	if problems := cfg.Check(); len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = p
		}
		return nil, fmt.Errorf("open cluster %s: %w", alias, oneLine(errs))
	}
	c, err := newCluster(alias, cfg, o)
	if err != nil {
		return nil, fmt.Errorf("open cluster %s: %w", alias, err)
	}
	meta, err := c.probe(ctx)
	if err != nil {
		return nil, err
	}
	if meta.ClusterID != nil {
		c.id = *meta.ClusterID
	}
	if cfg.ClusterID != "" && c.id != cfg.ClusterID {
		return nil, &IDError{Cluster: alias, Want: cfg.ClusterID, Got: c.id}
	}
	c.learn(meta)
	if err := c.reachable(ctx, meta); err != nil {
		return nil, err
	}
	if c.client, err = c.NewClient(); err != nil {
		return nil, fmt.Errorf("open cluster %s: %w", alias, err)
	}
	c.admin = kadm.NewClient(c.client)
	return c, nil
}

func newCluster(alias string, cfg Config, o Options) (*Cluster, error) {
	o.ClientID = cmp.Or(o.ClientID, "replicator")
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Pool == nil {
		o.Pool = wire.NewPool(64 << 20)
	}
	if o.OnRefusal == nil {
		o.OnRefusal = func(*BoundaryError) {}
	}
	c := &Cluster{alias: alias, cfg: cfg, opt: o, log: o.Log.With(zap.String("cluster", alias))}
	var err error
	if c.guard, err = newGuard(alias, cfg.Boundary, cfg.Timeouts.Dial); err != nil {
		return nil, err
	}
	provider, err := providerGuard(alias, cfg)
	if err != nil {
		return nil, err
	}
	for _, g := range []*guard{c.guard, provider} {
		g.refused = o.OnRefusal
		if o.Dial != nil {
			g.dial = o.Dial
		}
		if o.Resolver != nil {
			g.resolver = o.Resolver
		}
	}
	if cfg.TLS.Enabled {
		c.tls = newTLSFiles(cfg.TLS, c.log)
		if _, _, err := c.tls.load(); err != nil {
			return nil, err
		}
	} else if cfg.SASL.Mechanism.bareCredentials() && !cfg.SASL.AllowPlaintext {
		c.guard.loopback = fmt.Sprintf("%s without TLS would send the secret readable: only loopback addresses (sasl.allow_plaintext permits it)", cfg.SASL.Mechanism)
	}
	c.mechanism, err = newMechanism(cfg, provider)
	return c, err
}

// probe asks all bootstrap servers at once and takes the first answer.
func (c *Cluster) probe(ctx context.Context) (*kmsg.MetadataResponse, error) {
	type answer struct {
		at   int
		meta *kmsg.MetadataResponse
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, len(c.cfg.BootstrapServers))
	var wg sync.WaitGroup
	for i, addr := range c.cfg.BootstrapServers {
		wg.Go(func() {
			meta, err := c.ask(ctx, addr)
			answers <- answer{i, meta, err}
		})
	}
	defer wg.Wait()
	defer cancel()
	failed := &OpenError{Cluster: c.alias, Causes: make([]BootstrapError, len(c.cfg.BootstrapServers))}
	for range c.cfg.BootstrapServers {
		a := <-answers
		if a.err == nil {
			return a.meta, nil
		}
		failed.Causes[a.at] = BootstrapError{c.cfg.BootstrapServers[a.at], a.err}
	}
	return nil, failed
}

// ask gets the brokers and the cluster id from one address.
func (c *Cluster) ask(ctx context.Context, addr string) (*kmsg.MetadataResponse, error) {
	conn, err := c.connect(ctx, UnknownBroker, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none; nil would be all
	req.AllowAutoTopicCreation = false
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeouts.Request)
	defer cancel()
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("ask for brokers: %w", err)
	}
	meta, ok := resp.(*kmsg.MetadataResponse)
	if !ok {
		return nil, fmt.Errorf("ask for brokers: the answer is a %T", resp)
	}
	return meta, nil
}

// reachable fails when every address the brokers advertise is outside the
// boundary: nothing would work, and it is better said at once. One inside is
// enough, the others are refused when they are dialled.
func (c *Cluster) reachable(ctx context.Context, meta *kmsg.MetadataResponse) error {
	var refusals []error
	for _, b := range meta.Brokers {
		_, first, err := c.guard.vet(ctx, b.NodeID, hostPort(b.Host, b.Port))
		if err != nil || len(first) == 0 {
			return nil // inside, or not to be known without dialling
		}
		refusals = append(refusals, first[0])
	}
	if len(refusals) == 0 {
		return nil
	}
	return fmt.Errorf("open cluster %s: no broker advertises an address inside the boundary: %w", c.alias, oneLine(refusals))
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
	client, err := kgo.NewClient(all...)
	if err != nil {
		return nil, fmt.Errorf("make client of cluster %s: %w", c.alias, err)
	}
	return client, nil
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
	return wire.Connect(ctx, cfg)
}

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

// Distinct fails when two clusters are one and the same, whatever their
// addresses say. Copying a cluster onto itself would never end.
func Distinct(a, b *Cluster) error {
	if a.id != "" && a.id == b.id {
		return fmt.Errorf("compare clusters: %s and %s are the same cluster, id %s", a.alias, b.alias, a.id)
	}
	return nil
}
