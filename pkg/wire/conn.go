package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
)

// Config says where and how to connect.
type Config struct {
	Broker int32  // its id, for errors; -1 for a bootstrap address
	Addr   string // host:port, for Dial, SASL and errors

	// Dial opens the connection, TLS handshake included. There is no
	// default: every dial of the process goes through a guard.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	SASL            sasl.Mechanism // nil: none
	ClientID        string
	SoftwareVersion string // told to the broker, default "unknown"

	// Timeout bounds the dial, every write as a whole, and the time a
	// broker may stay silent while it owes an answer (plus the time the
	// request itself allows the broker). Default 10 s. An idle connection
	// may stay idle.
	Timeout time.Duration

	MaxResponse int32 // bytes of an answer, default 16 MiB
	MaxFetch    int32 // bytes of a fetch answer, default 128 MiB

	Pool *Pool // of fetch answers; needed for Fetch only

	// OnThrottle is told how long the broker asked to be left alone, OnBytes
	// how much was read or written. Both run on the connection's goroutines
	// and must not block. They may be nil.
	OnThrottle func(time.Duration)
	OnBytes    func(read, written int)
}

const (
	defaultTimeout     = 10 * time.Second
	defaultMaxResponse = 16 << 20
	// Brokers take requests of up to 100 MiB unless told otherwise, so a
	// batch larger than this is not found in the wild.
	defaultMaxFetch = 128 << 20
	// No broker asks for more by default; a broken one must not silence a
	// connection for days.
	maxThrottle = time.Minute
)

func (cfg *Config) setDefaults() {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxResponse <= 0 {
		cfg.MaxResponse = defaultMaxResponse
	}
	if cfg.MaxFetch <= 0 {
		cfg.MaxFetch = defaultMaxFetch
	}
	if cfg.SoftwareVersion == "" {
		cfg.SoftwareVersion = "unknown"
	}
}

// Conn is one connection to one broker. Requests are pipelined: each is
// written as soon as its turn comes, and answers are given out in the order of
// the requests. Whatever goes wrong ends the connection as a whole: every call
// not yet answered then gets the error, in order, exactly once. There is no
// reconnecting here.
//
// Two goroutines belong to a Conn, a writer and a reader. They end with it.
type Conn struct {
	cfg  Config
	nc   net.Conn
	tcp  *net.TCPConn // below nc, nil if there is none
	rd   *bufio.Reader
	src  *source
	vers map[int16]versions

	ctx      context.Context // ends with the connection
	cancel   context.CancelFunc
	wake     chan struct{} // cap 1: something was queued
	wrote    chan struct{} // cap 1: a write was completed that the reader waits for
	writer   chan struct{} // closed when the writer has ended
	finished chan struct{} // closed when the reader has ended and told everybody

	mu         sync.Mutex
	queue      ring // not begun to write
	flight     ring // begun to write, not answered
	err        error
	errNotSent error
	delivering bool // somebody gives out answers, or will on the end
	idle       bool // the reader waits while no answer is owed
	awaited    bool // the reader waits for the write of the first in flight
	quietUntil time.Time

	// The writer's own.
	out      outbox
	corr     int32
	reauthAt time.Time // zero: never

	answer []byte // the reader's own, for produce answers
}

// versions is what the broker takes of one API.
type versions struct{ min, max int16 }

// call is a request on its way. Exactly one of done, produce and fetch is set.
type call struct {
	key, version int16
	corr         int32
	flexible     bool // of the answer's header
	written      bool
	what         string        // for errors, the API's name
	extra        time.Duration // the broker may take beyond Timeout
	req          []byte        // encoded, but for the correlation id

	resp    kmsg.Response
	check   func(kmsg.Response) error // an error ends the connection
	done    func(kmsg.Response, error)
	produce *ProduceRequest
	fetch   *fetchCall
}

// fail tells the caller that there is no answer.
func (k *call) fail(err error) {
	switch {
	case k.produce != nil:
		k.produce.Done(k.produce, err)
	case k.fetch != nil:
		k.fetch.answer <- fetchAnswer{err: err}
	default:
		k.done(nil, err)
	}
}

// Connect dials, asks for the broker's versions and authenticates. ctx bounds
// this, not the life of the connection.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	cfg.setDefaults()
	if cfg.Dial == nil {
		return nil, &ConnError{"dial", cfg.Broker, cfg.Addr, errors.New("no dialer configured")}
	}
	dialCtx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	nc, err := cfg.Dial(dialCtx, cfg.Addr)
	if tls, ok := nc.(interface{ HandshakeContext(context.Context) error }); ok && err == nil {
		// Not with the first request: a Gather below would hold it.
		if err = tls.HandshakeContext(dialCtx); err != nil {
			nc.Close()
		}
	}
	cancel()
	if err != nil {
		return nil, &ConnError{"dial", cfg.Broker, cfg.Addr, err}
	}
	c := newConn(cfg, nc)
	if c.tcp != nil {
		if err := setSocketOptions(c.tcp); err != nil {
			nc.Close()
			return nil, &ConnError{"set socket options", cfg.Broker, cfg.Addr, err}
		}
	}
	ready := make(chan error, 1)
	go c.read()
	go c.write(ready)
	select {
	case err = <-ready:
		if err == nil {
			return c, nil
		}
	case <-ctx.Done():
		err = c.error("set up connection", context.Cause(ctx))
		c.end(err)
	}
	c.Wait()
	return nil, err
}

func newConn(cfg Config, nc net.Conn) *Conn {
	c := &Conn{
		cfg:        cfg,
		nc:         nc,
		tcp:        below[*net.TCPConn](nc),
		wake:       make(chan struct{}, 1),
		wrote:      make(chan struct{}, 1),
		writer:     make(chan struct{}),
		finished:   make(chan struct{}),
		delivering: true,
	}
	c.src = &source{c: c}
	c.rd = bufio.NewReaderSize(c.src, 4<<10)
	c.out.gather = below[*Gather](nc)
	c.out.vectored = c.tcp != nil && net.Conn(c.tcp) == nc
	if c.out.vectored {
		c.src.low.open(c.tcp)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// below finds a connection of type T at or below nc: under TLS and the like.
func below[T net.Conn](nc net.Conn) (found T) {
	for {
		if found, ok := nc.(T); ok {
			return found
		}
		n, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return found
		}
		nc = n.NetConn()
	}
}

// Broker is the id of the broker, Addr its address, both as configured.
func (c *Conn) Broker() int32 { return c.cfg.Broker }

// Addr is the address of the broker as configured.
func (c *Conn) Addr() string { return c.cfg.Addr }

// RoundTrip is the shortest time the network has taken to the broker and back,
// 0 if that is not known.
func (c *Conn) RoundTrip() time.Duration {
	if c.tcp == nil {
		return 0
	}
	return roundTrip(c.tcp)
}

// QuietUntil is when the broker takes requests again that it has throttled; the
// zero time if it never has. What is handed over before waits in the connection.
func (c *Conn) QuietUntil() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.quietUntil
}

// MaxVersion is the newest version of the API the broker takes, and whether it
// takes it at all.
func (c *Conn) MaxVersion(key int16) (int16, bool) {
	v, ok := c.vers[key]
	return v.max, ok
}

// Done is closed when the connection has ended. Calls may then still be about
// to get the error; see Wait.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Err is why the connection ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. Unanswered calls get ErrClosed. It does not wait
// and may be called anywhere, more than once.
func (c *Conn) Close() { c.end(c.error("use connection", ErrClosed)) }

// Wait returns when the connection has ended, both goroutines are gone, and
// every call made before the end has got its answer or error. It must not be
// called from a Done function.
func (c *Conn) Wait() { <-c.finished }

// Request sends a request and waits for its answer. It may be used from many
// goroutines. The version is the newest that both sides know, unless pinned.
// When ctx ends, only the waiting ends: the request keeps its place in the
// order, and may be answered.
func (c *Conn) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	type result struct {
		resp kmsg.Response
		err  error
	}
	if ctx.Err() != nil {
		return nil, &notSentError{c.error("send "+kmsg.NameForKey(req.Key())+" request", context.Cause(ctx))}
	}
	k, err := c.encode(req)
	if err != nil {
		return nil, err
	}
	answer := make(chan result, 1)
	k.done = func(resp kmsg.Response, err error) { answer <- result{resp, err} }
	c.enqueue(k)
	select {
	case r := <-answer:
		return r.resp, r.err
	case <-ctx.Done():
		return nil, c.error("await "+k.what+" answer", context.Cause(ctx))
	}
}

// Go sends a request without waiting. The request is encoded before Go returns
// and not used afterwards. done runs exactly once, on the connection's
// goroutine, in the order of all calls, and must not block; after the end of
// the connection on a goroutine of its own. Only a request this broker does not
// take fails out of order.
func (c *Conn) Go(req kmsg.Request, done func(kmsg.Response, error)) {
	k, err := c.encode(req)
	if err != nil {
		go done(nil, err)
		return
	}
	k.done = done
	c.enqueue(k)
}

// pinned is a request of a version that is not negotiated.
type pinned struct {
	kmsg.Request
	version int16
}

// Pin returns the request with its version fixed. It fails where the broker
// does not take that very version.
func Pin(req kmsg.Request, version int16) kmsg.Request {
	return pinned{req, version}
}

// encode makes a call of a request, in the version for this broker.
func (c *Conn) encode(req kmsg.Request) (call, error) {
	lowest, newest := int16(0), req.MaxVersion()
	if p, ok := req.(pinned); ok {
		req, lowest, newest = p.Request, p.version, p.version
	}
	version, err := c.negotiate(req.Key(), lowest, newest)
	if err != nil {
		return call{}, err
	}
	return c.encodeAs(req, version), nil
}

// negotiate returns the newest version between lowest and newest that the
// broker takes.
func (c *Conn) negotiate(key, lowest, newest int16) (int16, error) {
	v, ok := c.vers[key]
	if ok && min(v.max, newest) >= max(v.min, lowest) {
		return min(v.max, newest), nil
	}
	cause := fmt.Errorf("broker has none: %w", kerr.UnsupportedVersion)
	if ok {
		cause = fmt.Errorf("broker has %d to %d: %w", v.min, v.max, kerr.UnsupportedVersion)
	}
	op := fmt.Sprintf("choose %s version (own %d to %d)", kmsg.NameForKey(key), lowest, newest)
	return 0, &notSentError{c.error(op, cause)}
}

// encodeAs makes a call of a request in a version.
func (c *Conn) encodeAs(req kmsg.Request, version int16) call {
	req.SetVersion(version)
	k := call{
		key:      req.Key(),
		version:  version,
		flexible: req.IsFlexible() && req.Key() != kmsg.ApiVersions.Int16(),
		what:     kmsg.NameForKey(req.Key()),
		resp:     req.ResponseKind(),
	}
	switch r := req.(type) {
	case kmsg.TimeoutRequest:
		k.extra = millis(r.Timeout())
	case *kmsg.FetchRequest:
		k.extra = millis(r.MaxWaitMillis)
	}
	k.req = appendRequestHeader(nil, k.key, k.version, c.cfg.ClientID, req.IsFlexible())
	k.req = req.AppendTo(k.req)
	return k
}

func (c *Conn) enqueue(k call) {
	c.mu.Lock()
	c.queue.push(k)
	orphan := c.err != nil && !c.delivering
	if orphan {
		c.delivering = true
	}
	c.mu.Unlock()
	if orphan {
		go c.deliverErrors()
		return
	}
	notify(c.wake)
}

// deliverErrors gives the connection's error to all calls, in order. It runs
// once at a time.
func (c *Conn) deliverErrors() {
	for {
		c.mu.Lock()
		var k call
		var err error
		switch {
		case c.flight.len > 0:
			k, err = c.flight.pop(), c.err
		case c.queue.len > 0:
			k, err = c.queue.pop(), c.errNotSent
		default:
			c.delivering = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		k.fail(err)
	}
}

// end ends the connection with its first error.
func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err, c.errNotSent = err, &notSentError{err}
	owed := c.flight.len > 0
	c.mu.Unlock()
	c.cancel()
	if owed && c.tcp != nil {
		// What still lies in our kernel must not reach the broker later,
		// when somebody else may already go on from what is there.
		c.tcp.SetLinger(0)
		c.tcp.Close() // not by way of TLS, whose farewell may block
	}
	c.nc.Close()
}

func (c *Conn) error(op string, err error) error {
	return &ConnError{Op: op, Broker: c.cfg.Broker, Addr: c.cfg.Addr, Err: err}
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// millis is a duration of a protocol field; negative ones count as none.
func millis(ms int32) time.Duration {
	return time.Duration(max(ms, 0)) * time.Millisecond
}
