package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// privatePrefixes is the boundary of a configuration that names no CIDRs.
var privatePrefixes = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),     // RFC 1918
	netip.MustParsePrefix("172.16.0.0/12"),  // RFC 1918
	netip.MustParsePrefix("192.168.0.0/16"), // RFC 1918
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback
	netip.MustParsePrefix("169.254.0.0/16"), // link-local, RFC 3927
	netip.MustParsePrefix("fc00::/7"),       // RFC 4193
	netip.MustParsePrefix("::1/128"),        // loopback
	netip.MustParsePrefix("fe80::/10"),      // link-local, RFC 4291
}

// sharedPrefix is carrier-grade NAT space (RFC 6598). It is not routed on the
// internet, so naming it does not need allow_public; but it belongs to a
// provider as often as to us, so it is not in the default.
var sharedPrefix = netip.MustParsePrefix("100.64.0.0/10")

// metadataServices hand out a machine's credentials to whoever asks from the
// machine. No broker lives there; one that advertises such an address is
// trying something.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // AWS, GCP, Azure, and others
	netip.MustParseAddr("169.254.170.2"),   // ECS
	netip.MustParseAddr("169.254.170.23"),  // EKS
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd00:ec2::23"),
	netip.MustParseAddr("100.100.100.200"), // Alibaba
}

// parseCIDR reads a prefix; a bare address is a prefix of its own.
func parseCIDR(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, errors.New("not an address range like 10.20.0.0/16")
		}
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("not an address range like 10.20.0.0/16")
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("write the IPv4 range itself, not its IPv6 mapping")
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("it has bits beyond its length: did you mean %s", p.Masked())
	}
	return p, nil
}

func parseRewrite(r Rewrite) (rewrite, error) {
	var out rewrite
	var err error
	if out.host, out.port, err = splitOptionalPort(r.From); err != nil {
		return out, fmt.Errorf("from: %w", err)
	}
	if out.toHost, out.toPort, err = splitOptionalPort(r.To); err != nil {
		return out, fmt.Errorf("to: %w", err)
	}
	if strings.Contains(out.toHost, "*") {
		return out, errors.New("to: a pattern cannot be dialled")
	}
	out.host = normalHost(out.host)
	return out, nil
}

// splitOptionalPort reads host, host:port, [v6], [v6]:port or a bare v6.
func splitOptionalPort(s string) (host, port string, err error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.String(), "", nil
	}
	if !strings.Contains(s, ":") {
		if s == "" {
			return "", "", errors.New("it is empty")
		}
		return s, "", nil
	}
	host, number, err := splitAddress(s)
	if err != nil {
		return "", "", err
	}
	return host, strconv.Itoa(number), nil
}

// splitAddress reads host:port with a port a TCP connection can have.
func splitAddress(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, errors.New("not an address like host:9092")
	}
	if host == "" {
		return "", 0, errors.New("the host is missing")
	}
	// Atoi would take "+9092" and "009092".
	port, err = strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 || strconv.Itoa(port) != text {
		return "", 0, fmt.Errorf("port %s is not a number from 1 to 65535", strconv.Quote(text))
	}
	return host, port, nil
}

// normalHost is a host as names are compared: lower case, without the dot of
// an absolute name.
func normalHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// validHost keeps to resolvers what could be a host name. What is refused
// here would at best fail later, at worst be understood by two parties in two
// ways.
func validHost(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// numericHost reports a name that some resolvers read as an IPv4 address in
// an old notation: 0x7f.1, 2130706433, 010.0.0.1.
func numericHost(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if strings.HasPrefix(last, "0x") {
		return true
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// matchHost compares a normal host with a normal pattern: "*" is any run of
// characters within a label, a leading "*." any number of labels.
func matchHost(pattern, host string) bool {
	if rest, ok := strings.CutPrefix(pattern, "*."); ok {
		for {
			i := strings.IndexByte(host, '.')
			if i < 0 {
				return false
			}
			host = host[i+1:]
			if matchHost(rest, host) {
				return true
			}
		}
	}
	if pattern == "*" {
		return true
	}
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if !matchLabel(p[i], h[i]) {
			return false
		}
	}
	return true
}

func matchLabel(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, mid := range parts[1 : len(parts)-1] {
		i := strings.Index(s, mid)
		if i < 0 {
			return false
		}
		s = s[i+len(mid):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// within reports whether a prefix lies inside private or shared space.
func within(p netip.Prefix) bool {
	for _, q := range append([]netip.Prefix{sharedPrefix}, privatePrefixes...) {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
