package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func testGuard(t *testing.T, b Boundary, names map[string][]string) (*guard, *[]string, *refusals) {
	t.Helper()
	g, err := newGuard("east", b, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var dialled []string
	seen := &refusals{}
	g.resolver = newTable(names)
	g.refused = seen.add
	g.dial = func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled = append(dialled, addr)
		ours, theirs := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		return ours, nil
	}
	return g, &dialled, seen
}

func TestGuardLetsThroughWhatIsInsideAndNothingElse(t *testing.T) {
	names := map[string][]string{
		"in.internal":  {"10.20.0.5"},
		"out.internal": {"8.8.8.8"},
		"mix.internal": {"8.8.8.8", "10.20.0.5"},
		"map.internal": {"::ffff:10.20.0.5"},
		"v6.internal":  {"fd00::5"},
		"b-1.internal": {"10.20.0.6"},
		"vpce.local":   {"10.20.0.7"},
	}
	private := Boundary{}
	narrow := Boundary{CIDRs: []string{"10.20.0.0/16"}, Ports: []int{9092}, Hosts: []string{"*.internal"}}
	for _, c := range []struct {
		name string
		b    Boundary
		addr string
		want string // dialled address, or "!" and a part of the rule
	}{
		{"private name", private, "in.internal:9092", "10.20.0.5:9092"},
		{"private address", private, "192.168.1.1:1", "192.168.1.1:1"},
		{"loopback", private, "127.0.0.1:9092", "127.0.0.1:9092"},
		{"loopback v6 in brackets", private, "[::1]:9092", "[::1]:9092"},
		{"unique local", private, "v6.internal:9092", "[fd00::5]:9092"},
		{"link-local with zone", private, "[fe80::1%eth0]:9092", "[fe80::1%eth0]:9092"},
		{"trailing dot", private, "in.internal.:9092", "10.20.0.5:9092"},
		{"mapped v4 is v4", private, "[::ffff:10.0.0.1]:9092", "10.0.0.1:9092"},
		{"name of a mapped v4", private, "map.internal:9092", "10.20.0.5:9092"},
		{"public name", private, "out.internal:9092", "!not private"},
		{"public address", private, "8.8.8.8:9092", "!not private"},
		{"public mapped", private, "[::ffff:8.8.8.8]:9092", "!not private"},
		{"public with zone", private, "[2001:db8::1%eth0]:9092", "!not private"},
		{"carrier-grade NAT", private, "100.64.0.1:9092", "!not private"},
		{"NAT64 of a private address", private, "[64:ff9b::a00:1]:9092", "!not private"},
		{"6to4 of a private address", private, "[2002:a00:1::1]:9092", "!not private"},
		{"unspecified", private, "0.0.0.0:9092", "!unspecified"},
		{"unspecified v6", private, "[::]:9092", "!unspecified"},
		{"mapped unspecified", private, "[::ffff:0.0.0.0]:9092", "!unspecified"},
		{"broadcast", Boundary{AllowPublic: true}, "255.255.255.255:9092", "!multicast or broadcast"},
		{"multicast", Boundary{AllowPublic: true}, "224.0.0.1:9092", "!multicast"},
		{"metadata service", private, "169.254.169.254:80", "!metadata"},
		{"metadata service, mapped", private, "[::ffff:169.254.169.254]:80", "!metadata"},
		{"metadata service, allowed range", Boundary{CIDRs: []string{"169.254.169.254"}}, "169.254.169.254:80", "!metadata"},
		{"of a mixed name only what is inside", private, "mix.internal:9092", "10.20.0.5:9092"},
		{"public allowed", Boundary{AllowPublic: true}, "out.internal:9092", "8.8.8.8:9092"},
		{"public allowed but not declared", Boundary{AllowPublic: true, CIDRs: []string{"8.8.4.0/24"}}, "out.internal:9092", "!boundary.cidrs [8.8.4.0/24]"},
		{"declared CGNAT", Boundary{CIDRs: []string{"100.64.0.0/10"}}, "100.64.0.1:9092", "100.64.0.1:9092"},
		{"narrow", narrow, "in.internal:9092", "10.20.0.5:9092"},
		{"narrow in capitals", narrow, "IN.Internal:9092", "10.20.0.5:9092"},
		{"narrow, private elsewhere", narrow, "v6.internal:9092", "!boundary.cidrs"},
		{"narrow, other port", narrow, "in.internal:9093", "!port 9093"},
		{"narrow, other name", narrow, "vpce.local:9092", "!boundary.hosts"},
		{"narrow, suffix without dot", narrow, "evilinternal:9092", "!boundary.hosts"},
		{"narrow, the address itself", narrow, "10.20.0.5:9092", "!boundary.hosts"},
		{"rewritten", Boundary{Rewrite: []Rewrite{{"b-*.internal:9092", "vpce.local:9001"}}}, "b-1.internal:9092", "10.20.0.7:9001"},
		{"rewritten, port stays", Boundary{Rewrite: []Rewrite{{"b-*.internal", "10.9.9.9"}}}, "b-1.internal:9092", "10.9.9.9:9092"},
		{"not rewritten, other port", Boundary{Rewrite: []Rewrite{{"b-*.internal:9092", "vpce.local"}}}, "b-1.internal:9093", "10.20.0.6:9093"},
		{"rewritten to outside", Boundary{Rewrite: []Rewrite{{"*", "out.internal"}}}, "b-1.internal:9092", "!not private"},
		{"octal notation", private, "010.0.0.1:9092", "!several ways"},
		{"decimal notation", private, "2130706433:9092", "!several ways"},
		{"hex notation", private, "0x7f.1:9092", "!several ways"},
		{"no port", private, "in.internal", "!not an address"},
		{"port zero", private, "in.internal:0", "!port"},
		{"port too large", private, "in.internal:99999", "!port"},
		{"negative port", private, "in.internal:-1", "!port"},
		{"named port", private, "in.internal:http", "!port"},
		{"no host", private, ":9092", "!host is missing"},
		{"slash in the name", private, "in.internal/x:9092", "!valid name"},
		{"user in the name", private, "in.internal@out.internal:9092", "!valid name"},
		{"control characters", private, "in\nternal:9092", "!valid name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, dialled, seen := testGuard(t, c.b, names)
			conn, err := g.conn(t.Context(), 7, c.addr)
			if rule, refused := strings.CutPrefix(c.want, "!"); refused {
				be, ok := errors.AsType[*BoundaryError](err)
				if !ok || !strings.Contains(be.Rule, rule) {
					t.Fatalf("error is %v, want a refusal for %q", err, rule)
				}
				if be.Cluster != "east" || be.Broker != 7 || be.Advertised != c.addr {
					t.Errorf("the refusal names %+v", be)
				}
				if len(*dialled) > 0 {
					t.Errorf("dialled %v", *dialled)
				}
				if len(seen.all()) == 0 {
					t.Error("the refusal was not reported")
				}
				if strings.ContainsAny(err.Error(), "\n\x00") {
					t.Errorf("the error has control characters: %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if !slices.Equal(*dialled, []string{c.want}) {
				t.Errorf("dialled %v, want %s", *dialled, c.want)
			}
		})
	}
}

// Between check and connection nothing resolves again: what is dialled is an
// address, and the name is asked for once.
func TestGuardDialsTheAddressItChecked(t *testing.T) {
	names := newTable(map[string][]string{"kafka.internal": {"10.0.0.1"}})
	g, dialled, _ := testGuard(t, Boundary{}, nil)
	g.resolver = names
	inner := g.dial
	g.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		names.set("kafka.internal", "8.8.8.8") // the name turns while we dial
		return inner(ctx, network, addr)
	}
	if _, err := g.conn(t.Context(), 1, "kafka.internal:9092"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*dialled, []string{"10.0.0.1:9092"}) || names.asks["kafka.internal"] != 1 {
		t.Errorf("dialled %v after %d lookups", *dialled, names.asks["kafka.internal"])
	}
	if _, err := g.conn(t.Context(), 1, "kafka.internal:9092"); err == nil {
		t.Error("the turned name was dialled at the reconnect")
	}
}

func TestGuardTriesEveryAddressInside(t *testing.T) {
	g, _, seen := testGuard(t, Boundary{}, map[string][]string{"k": {"10.0.0.1", "8.8.8.8", "10.0.0.2"}})
	var tried []string
	g.dial = func(_ context.Context, _, addr string) (net.Conn, error) {
		tried = append(tried, addr)
		return nil, errors.New("connection refused by " + addr)
	}
	_, err := g.conn(t.Context(), UnknownBroker, "k:9092")
	if err == nil || !slices.Equal(tried, []string{"10.0.0.1:9092", "10.0.0.2:9092"}) {
		t.Fatalf("tried %v: %v", tried, err)
	}
	for _, addr := range tried {
		if !strings.Contains(err.Error(), "refused by "+addr) {
			t.Errorf("the cause at %s is missing: %v", addr, err)
		}
	}
	if got := seen.all(); len(got) != 1 || got[0].Address != "8.8.8.8:9092" {
		t.Errorf("reported %+v, want the address outside", got)
	}
}

func TestHostPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"*", "a.b.c", true},
		{"*.internal", "a.internal", true},
		{"*.internal", "a.b.internal", true},
		{"*.internal", "internal", false},
		{"*.internal", "a.internal.evil", false},
		{"*.internal", "xinternal", false},
		{"b-*.kafka.internal", "b-1.kafka.internal", true},
		{"b-*.kafka.internal", "b-1.x.kafka.internal", false},
		{"b-*-x.internal", "b-1-2-x.internal", true},
		{"b-*-x.internal", "b-x.internal", false},
		{"*.b-*.internal", "a.b-1.internal", true},
		{"kafka", "kafka", true},
		{"kafka", "kafka.internal", false},
	} {
		if got := matchHost(c.pattern, c.host); got != c.want {
			t.Errorf("%s on %s is %v", c.pattern, c.host, got)
		}
	}
}

// Whatever a broker advertises, only an address of the boundary is dialled,
// and only on its port.
func FuzzGuard(f *testing.F) {
	for _, addr := range []string{"10.0.0.1:9092", "[::ffff:8.8.8.8]:9092", "a.internal.:9092", "[fe80::1%25eth0]:9092", "::1:9092", "[[::1]]:9092", "0x7f.1:9092", "a:9092:9092", "evil@10.0.0.1:9092", "10.0.0.1:09092"} {
		f.Add(addr, "8.8.8.8", "10.1.2.3")
	}
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f.Fuzz(func(t *testing.T, addr, first, second string) {
		g, err := newGuard("east", Boundary{CIDRs: []string{"10.0.0.0/8", "fd00::/8"}, Ports: []int{9092}, Rewrite: []Rewrite{{From: "moved*", To: "a.internal"}}}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		g.resolver = resolverFunc(func(host string) ([]netip.Addr, error) {
			var out []netip.Addr
			for _, s := range []string{first, second} {
				if a, err := netip.ParseAddr(s); err == nil {
					out = append(out, a)
				}
			}
			return out, nil
		})
		g.dial = func(_ context.Context, _, addr string) (net.Conn, error) {
			ap, err := netip.ParseAddrPort(addr)
			if err != nil {
				t.Fatalf("dialled a name: %q", addr)
			}
			a := ap.Addr().WithZone("")
			if ap.Port() != 9092 || a.Is4In6() || !slices.ContainsFunc(cidrs, func(p netip.Prefix) bool { return p.Contains(a) }) {
				t.Fatalf("dialled %s", addr)
			}
			return nil, errors.New("not now")
		}
		if _, err := g.conn(t.Context(), 1, addr); err == nil {
			t.Fatal("no error from a dialer that always fails")
		} else if strings.ContainsAny(err.Error(), "\x00\r") {
			t.Fatalf("the error has control characters: %q", err)
		}
	})
}

type resolverFunc func(host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return f(host)
}
