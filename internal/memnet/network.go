package memnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// BufferSize is how many bytes one direction of a connection takes, those
// under way and held included, before writes wait.
const BufferSize = 4 << 20

const backlog = 1024

// Network is a set of listeners and the connections to them. Make it with New
// inside the synctest bubble.
type Network struct {
	mu        sync.Mutex // guards everything in the network; never held while waiting
	listeners map[string]*listener
	pipes     map[*pipe]struct{}
	rules     []*Rule
	changed   chan struct{} // closed and replaced when rules or listeners change
	nextPort  uint16
}

// New returns an empty network.
func New() *Network {
	return &Network{listeners: map[string]*listener{}, pipes: map[*pipe]struct{}{}, changed: make(chan struct{}), nextPort: 40000}
}

// Listen listens at "ip:port"; port 0 takes a free one. The first argument is ignored.
func (n *Network) Listen(_, address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", address, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.port())
	}
	if n.listeners[at.String()] != nil {
		return nil, opError("listen", nil, at, syscall.EADDRINUSE)
	}
	l := &listener{n: n, addr: at, conns: make(chan *conn, backlog), done: make(chan struct{})}
	n.listeners[at.String()] = l
	return l, nil
}

// ListenOn returns a Listen function for a fake cluster that wants to listen
// at 127.0.0.1: each call listens on the first of the hosts that has no
// listener at the port, so that a broker that was removed comes back at its
// own address. Port 0 becomes 9092. With every host taken it fails.
func (n *Network) ListenOn(hosts ...string) func(network, address string) (net.Listener, error) {
	return func(network, address string) (net.Listener, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("listen %s: %w", address, err)
		}
		if port == "0" {
			port = "9092"
		}
		for _, host := range hosts {
			l, err := n.Listen(network, net.JoinHostPort(host, port))
			if !errors.Is(err, syscall.EADDRINUSE) {
				return l, err
			}
		}
		return nil, fmt.Errorf("listen %s: every host has a listener at port %s", address, port)
	}
}

// Dialer returns the dial function of a host, in the form that net.Dialer and kgo.Dialer have.
func (n *Network) Dialer(host string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) { return n.dial(ctx, host, address) }
}

func (n *Network) dial(ctx context.Context, host, address string) (net.Conn, error) {
	from, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", host, err)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	counted := map[*Rule]bool{}
	for waited := false; ; {
		if ctx.Err() != nil {
			return nil, opError("dial", nil, to, ctx.Err())
		}
		blocked := false
		var delay time.Duration
		for _, r := range n.rules {
			if !r.matches(host, address) {
				continue
			}
			switch r.kind {
			case refuseRule:
				r.hits++
				return nil, opError("dial", nil, to, syscall.ECONNREFUSED)
			case partitionRule:
				blocked = true
				if !counted[r] {
					counted[r] = true
					r.hits++
				}
			case delayRule:
				delay += r.delay
			}
		}
		if !blocked && (waited || delay == 0) {
			break
		}
		wake := n.changed
		if !blocked {
			waited = true
			wake = nil
		}
		n.mu.Unlock()
		wait(ctx, wake, delay, blocked)
		n.mu.Lock()
	}
	l := n.listeners[address]
	if l == nil || len(l.conns) == cap(l.conns) {
		return nil, opError("dial", nil, to, syscall.ECONNREFUSED)
	}
	p := newPipe(n, host, netip.AddrPortFrom(from, n.port()), to)
	n.pipes[p] = struct{}{}
	l.conns <- p.listener // does not wait: there is room, and only dials fill it
	return p.dialer, nil
}

// wait waits for wake, for the context, or, unless blocked, for d.
func wait(ctx context.Context, wake <-chan struct{}, d time.Duration, blocked bool) {
	var over <-chan time.Time
	if !blocked {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-wake:
	case <-over:
	case <-ctx.Done():
	}
}

func (n *Network) port() uint16 {
	n.nextPort++
	if n.nextPort < 40000 {
		n.nextPort = 40000
	}
	return n.nextPort
}

func (n *Network) wakeAll() {
	close(n.changed)
	n.changed = make(chan struct{})
	for p := range n.pipes {
		for _, s := range p.streams() {
			s.notify()
		}
	}
}

type listener struct {
	n     *Network
	addr  netip.AddrPort
	conns chan *conn
	done  chan struct{}
}

var _ net.Listener = (*listener)(nil)

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, opError("accept", nil, l.addr, net.ErrClosed)
	}
}

// Close ends the listener. Connections that nobody has accepted are reset, the others go on.
func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.listeners[l.addr.String()] != l {
		return opError("close", nil, l.addr, net.ErrClosed)
	}
	delete(l.n.listeners, l.addr.String())
	close(l.done)
	for {
		select {
		case c := <-l.conns:
			c.pipe.reset()
		default:
			return nil
		}
	}
}

func opError(op string, from net.Addr, to netip.AddrPort, err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: from, Addr: net.TCPAddrFromAddrPort(to), Err: err}
}
