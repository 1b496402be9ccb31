package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DialFunc opens a network connection. Below the guard its address is always
// an IP address with a port: there is no name left to resolve.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Resolver turns a host name into addresses; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// UnknownBroker stands for the broker id of a bootstrap address, or of a
// connection whose broker is not known.
const UnknownBroker int32 = -1

// BoundaryError is a connection the guard refused to make.
type BoundaryError struct {
	Cluster    string // alias
	Peer       string // what was called when it is no broker ("token endpoint"), else ""
	Broker     int32  // id, or UnknownBroker
	Advertised string // host:port as configured or advertised
	Address    string // what was going to be dialled: host:port, or ip:port once resolved
	Rule       string // the rule it breaks
}

func (e *BoundaryError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial %s of cluster %s", peerName(e.Peer, e.Broker), e.Cluster)
	fmt.Fprintf(&b, " at %s", printable(e.Advertised))
	if e.Address != "" && e.Address != e.Advertised {
		fmt.Fprintf(&b, " (%s)", printable(e.Address))
	}
	fmt.Fprintf(&b, ": outside the boundary: %s", e.Rule)
	return b.String()
}

func peerName(peer string, id int32) string {
	switch {
	case peer != "":
		return peer
	case id < 0:
		return "a broker"
	}
	return "broker " + strconv.Itoa(int(id))
}

// printable keeps what a broker advertises from writing control characters
// or a page of text into logs.
func printable(s string) string {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == '\uFFFD' {
			return strconv.Quote(s)
		}
	}
	return s
}

// guard is the one way from a cluster's addresses to connections.
type guard struct {
	cluster  string
	peer     string // see BoundaryError.Peer
	loopback string // not empty: the reason why only loopback may be dialled
	cidrs    []netip.Prefix
	declared bool // cidrs come from the configuration
	public   bool
	ports    []int
	hosts    []string
	rewrites []rewrite
	timeout  time.Duration
	resolver Resolver
	dial     DialFunc
	refused  func(*BoundaryError)
}

type rewrite struct {
	host, port     string // port "" is any
	toHost, toPort string // toPort "" stays
}

// newGuard compiles a boundary that Config.Check found good.
func newGuard(alias string, b Boundary, timeout time.Duration) (*guard, error) {
	g := &guard{
		cluster:  alias,
		public:   b.AllowPublic,
		ports:    b.Ports,
		timeout:  timeout,
		resolver: net.DefaultResolver,
		refused:  func(*BoundaryError) {},
	}
	for _, s := range b.CIDRs {
		p, err := parseCIDR(s)
		if err != nil {
			return nil, fmt.Errorf("parse boundary.cidrs: %w", err)
		}
		g.cidrs = append(g.cidrs, p)
	}
	g.declared = len(g.cidrs) > 0
	if !g.declared {
		g.cidrs = privatePrefixes
	}
	for _, h := range b.Hosts {
		g.hosts = append(g.hosts, normalHost(h))
	}
	for _, r := range b.Rewrite {
		compiled, err := parseRewrite(r)
		if err != nil {
			return nil, fmt.Errorf("parse boundary.rewrite: %w", err)
		}
		g.rewrites = append(g.rewrites, compiled)
	}
	dialer := &net.Dialer{KeepAlive: 15 * time.Second}
	if b.SourceAddress != "" {
		ip, err := netip.ParseAddr(b.SourceAddress)
		if err != nil {
			return nil, fmt.Errorf("parse boundary.source_address: %w", err)
		}
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
	}
	g.dial = dialer.DialContext
	return g, nil
}

// conn dials one advertised address of a broker. The TLS layer, which checks
// the advertised name, is put on by the caller.
func (g *guard) conn(ctx context.Context, broker int32, advertised string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	conn, refusals, err := g.attempt(ctx, broker, advertised)
	for _, r := range refusals {
		g.refused(r)
	}
	return conn, g.named(broker, advertised, err)
}

// named says in an error what was dialled.
func (g *guard) named(broker int32, advertised string, err error) error {
	if _, ok := errors.AsType[*BoundaryError](err); ok || err == nil {
		return err
	}
	return fmt.Errorf("dial %s of cluster %s at %s: %w", peerName(g.peer, broker), g.cluster, printable(advertised), err)
}

// oneLine joins errors without the line ends of errors.Join.
func oneLine(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return &joined{strings.Join(texts, "; "), errs}
}

type joined struct {
	text string
	errs []error
}

func (j *joined) Error() string   { return j.text }
func (j *joined) Unwrap() []error { return j.errs }

// attempt is conn without the reports: it returns the refusals, which can be
// there beside a connection when a name has addresses on both sides. Of its
// errors only a *BoundaryError says what was dialled.
func (g *guard) attempt(ctx context.Context, broker int32, advertised string) (net.Conn, []*BoundaryError, error) {
	inside, refusals, err := g.vet(ctx, broker, advertised)
	if err != nil {
		return nil, refusals, err
	}
	if len(inside) == 0 {
		return nil, refusals, refusals[0]
	}
	var failures []error
	for i, a := range inside {
		conn, err := g.dialOne(ctx, a, len(inside)-i)
		if err == nil {
			return conn, refusals, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, refusals, oneLine(failures)
}

// vet returns the addresses behind an advertised one that may be dialled, and
// a refusal for each that may not. Without an error there is at least one of
// either.
func (g *guard) vet(ctx context.Context, broker int32, advertised string) ([]netip.AddrPort, []*BoundaryError, error) {
	refuse := func(address, rule string) *BoundaryError {
		return &BoundaryError{Cluster: g.cluster, Peer: g.peer, Broker: broker, Advertised: advertised, Address: address, Rule: rule}
	}
	host, port, err := splitAddress(advertised)
	if err != nil {
		return nil, []*BoundaryError{refuse("", err.Error())}, nil
	}
	host, port = g.rewrite(host, port)
	if rule := g.checkName(host, port); rule != "" {
		return nil, []*BoundaryError{refuse(net.JoinHostPort(host, strconv.Itoa(port)), rule)}, nil
	}
	addrs, err := g.resolve(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	var inside []netip.AddrPort
	var refusals []*BoundaryError
	for _, a := range addrs {
		full := netip.AddrPortFrom(a, uint16(port))
		if rule := g.checkAddr(a); rule != "" {
			refusals = append(refusals, refuse(full.String(), rule))
			continue
		}
		inside = append(inside, full)
	}
	return inside, refusals, nil
}

// dialOne dials an address that was checked, within its share of the time
// that is left: one silent address must not use up the time of the others.
func (g *guard) dialOne(ctx context.Context, addr netip.AddrPort, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return g.dial(ctx, "tcp", addr.String())
}

// resolve returns the addresses of a host, IPv4-mapped ones as IPv4.
func (g *guard) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	found, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("the name has no addresses")
	}
	return addrs, nil
}

func (g *guard) rewrite(host string, port int) (string, int) {
	for _, r := range g.rewrites {
		if !matchHost(r.host, normalHost(host)) || r.port != "" && r.port != strconv.Itoa(port) {
			continue
		}
		if r.toPort != "" {
			port, _ = strconv.Atoi(r.toPort) // parseRewrite has read it as a number
		}
		return r.toHost, port
	}
	return host, port
}

// checkName returns the rule that forbids a host and port, or "".
func (g *guard) checkName(host string, port int) string {
	name := normalHost(host)
	if _, err := netip.ParseAddr(host); err != nil {
		if !validHost(host) {
			return "the host is not a valid name"
		}
		if numericHost(name) {
			return "the host is an address in a notation that is read in several ways"
		}
	}
	if len(g.ports) > 0 && !slices.Contains(g.ports, port) {
		return fmt.Sprintf("port %d is not in boundary.ports %v", port, g.ports)
	}
	if len(g.hosts) > 0 && !slices.ContainsFunc(g.hosts, func(p string) bool { return matchHost(p, name) }) {
		return fmt.Sprintf("the host matches none of boundary.hosts %v", g.hosts)
	}
	return ""
}

// checkAddr returns the rule that forbids an address, or "".
func (g *guard) checkAddr(a netip.Addr) string {
	bare := a.Unmap().WithZone("")
	switch {
	case !bare.IsValid(), bare.IsUnspecified():
		return "the unspecified address is no destination"
	case bare.IsMulticast(), bare == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "a multicast or broadcast address is no destination"
	case slices.Contains(metadataServices, bare):
		return "it is a cloud metadata service"
	case g.loopback != "" && !bare.IsLoopback():
		return g.loopback
	}
	if contains(g.cidrs, bare) {
		return ""
	}
	switch {
	case g.declared:
		return fmt.Sprintf("the address is not in boundary.cidrs %v", g.cidrs)
	case g.public:
		return ""
	}
	return "the address is not private and boundary.allow_public is not set"
}
