package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/pkg/wire"
)

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
		b.WriteString(sep + c.text())
	}
	return b.String()
}

// Dark tells whether there was nothing to connect to: no address could be found or dialled.
// A cluster is not dark that takes connections and does not answer, or refuses a login, or
// whose addresses may not be dialled.
func (e *OpenError) Dark() bool {
	for _, c := range e.Causes {
		dial, tried := errors.AsType[*net.OpError](c.Err)
		_, unknown := errors.AsType[*net.DNSError](c.Err)
		if !unknown && (!tried || dial.Op != "dial") {
			return false
		}
	}
	return true
}

// text names the address once: errors of connections and refusals name it
// themselves.
func (e BootstrapError) text() string {
	if ce, ok := errors.AsType[*wire.ConnError](e.Err); ok {
		if be, ok := errors.AsType[*BoundaryError](ce.Err); ok {
			return be.Error()
		}
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Address, e.Err)
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
		return nil, c.explain(err)
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none; nil would be all
	req.AllowAutoTopicCreation = false
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeouts.Request)
	defer cancel()
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("ask for brokers: %w", c.explain(err))
	}
	meta, ok := resp.(*kmsg.MetadataResponse)
	if !ok {
		return nil, fmt.Errorf("ask for brokers: the answer is a %T", resp)
	}
	return meta, nil
}

// explain adds to the error of a first connection what the configuration most
// likely lacks: a listener says no more than good-bye to who speaks another
// protocol.
func (c *Cluster) explain(err error) error {
	ce, ok := errors.AsType[*wire.ConnError](err)
	_, said := errors.AsType[*hinted](err)
	switch {
	case !ok || said:
	case c.tls == nil && strings.Contains(ce.Op, "ApiVersions"):
		return &hinted{err, "is it a TLS port? tls.enabled is false"}
	case c.mechanism == nil && strings.Contains(ce.Op, "Metadata") && errors.Is(err, io.EOF):
		return &hinted{err, "does it want a login? sasl.mechanism is not set"}
	}
	return err
}

// reachable fails when every address the brokers advertise is outside the
// boundary: nothing would work, and it is better said at once. One inside is
// enough, the others are refused when they are dialled.
func (c *Cluster) reachable(ctx context.Context, meta *kmsg.MetadataResponse) error {
	var refusals []error
	for _, b := range meta.Brokers {
		inside, refused, err := c.guard.vet(ctx, b.NodeID, hostPort(b.Host, b.Port))
		if err == nil && len(inside) == 0 {
			refusals = append(refusals, refused[0])
		}
	}
	if len(refusals) == 0 || len(refusals) < len(meta.Brokers) {
		return nil // some are inside, or that is not to be known without dialling
	}
	return fmt.Errorf("open cluster %s: no broker advertises an address inside the boundary: %w", c.alias, oneLine(refusals))
}

// Alive connects to every broker the cluster has named last, side by side, and says by
// their ids which of them answer and which do not before the context ends.
func (c *Cluster) Alive(ctx context.Context) (answer, silent []int32) {
	c.mu.Lock()
	brokers := maps.Clone(c.brokers)
	c.mu.Unlock()
	var mu sync.Mutex
	var all sync.WaitGroup
	for id, addr := range brokers {
		all.Go(func() {
			conn, err := c.connect(ctx, id, addr)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, id)
				return
			}
			conn.Close()
			answer = append(answer, id)
		})
	}
	all.Wait()
	slices.Sort(answer)
	slices.Sort(silent)
	return answer, silent
}

// Distinct fails when two clusters are one and the same, whatever their
// addresses say. Copying a cluster onto itself would never end.
func Distinct(a, b *Cluster) error {
	if a.id != "" && a.id == b.id {
		return fmt.Errorf("compare clusters: %s and %s are the same cluster, id %s", a.alias, b.alias, a.id)
	}
	return nil
}
