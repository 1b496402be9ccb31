package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Key   string // path within the cluster's configuration: "tls.key_file", "boundary.cidrs[1]"
	Value string // as written; empty when there is none to show, or when it may be a secret
	Text  string // what is wrong
	Hint  string // what to do about it, or empty
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Key)
	if p.Value != "" {
		fmt.Fprintf(&b, " %q", p.Value)
	}
	b.WriteString(": " + p.Text)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Mechanisms are the SASL mechanisms there are.
func Mechanisms() []Mechanism {
	return []Mechanism{Plain, ScramSHA256, ScramSHA512, OAuthBearer, AWSMSKIAM}
}

// checker collects problems.
type checker struct{ problems []Problem }

func (k *checker) add(key, value, text, hint string) {
	k.problems = append(k.problems, Problem{key, value, text, hint})
}

// Check returns everything that is wrong with the configuration by itself:
// nothing is resolved or dialled, but files and variables it refers to must
// be there.
func (c Config) Check() []Problem {
	var k checker
	c.checkAddresses(&k)
	c.TLS.check(&k)
	c.SASL.check(&k)
	if c.SASL.Mechanism.bareCredentials() && !c.TLS.Enabled && !c.SASL.AllowPlaintext {
		for _, addr := range c.BootstrapServers {
			if host, _, err := splitAddress(addr); err == nil && !loopbackHost(host) {
				k.add("sasl.mechanism", string(c.SASL.Mechanism),
					fmt.Sprintf("without TLS the secret would be readable on the way to %s", addr),
					"set tls.enabled, or sasl.allow_plaintext if the network is trusted with it")
				break
			}
		}
	}
	c.Boundary.check(&k)
	c.checkBootstrapInside(&k)
	for _, t := range []struct {
		key string
		d   time.Duration
	}{{"dial", c.Timeouts.Dial}, {"request", c.Timeouts.Request}, {"retry", c.Timeouts.Retry}} {
		if t.d < 100*time.Millisecond || t.d > 10*time.Minute {
			k.add("timeouts."+t.key, t.d.String(), "must be from 100ms to 10m", "")
		}
	}
	return k.problems
}

func (c Config) checkAddresses(k *checker) {
	if len(c.BootstrapServers) == 0 {
		k.add("bootstrap_servers", "", "no address to start from", "bootstrap_servers: [host:9092]")
	}
	seen := make(map[string]bool)
	for i, addr := range c.BootstrapServers {
		key := fmt.Sprintf("bootstrap_servers[%d]", i)
		host, _, err := splitAddress(addr)
		switch {
		case err != nil:
			hint := ""
			if _, rest, ok := strings.Cut(addr, "://"); ok {
				hint = "leave the scheme away: " + rest
			} else if !strings.Contains(addr, ":") {
				hint = "add the port: " + addr + ":9092"
			}
			k.add(key, addr, err.Error(), hint)
		case !isAddr(host) && !validHost(host):
			k.add(key, addr, "the host is not a valid name", "")
		case seen[strings.ToLower(addr)]:
			k.add(key, addr, "it is listed twice", "")
		}
		seen[strings.ToLower(addr)] = true
	}
	if strings.TrimSpace(c.ClusterID) != c.ClusterID {
		k.add("cluster_id", c.ClusterID, "has spaces around it", "")
	}
	if len(c.Rack) > 512 {
		k.add("rack", c.Rack[:32]+"...", "is longer than 512 bytes", "")
	}
}

// checkBootstrapInside finds bootstrap addresses that the boundary can never
// let through, as far as that shows without asking a name server.
func (c Config) checkBootstrapInside(k *checker) {
	g, err := newGuard("", c.Boundary, time.Second)
	if err != nil {
		return // said already
	}
	for i, addr := range c.BootstrapServers {
		host, port, err := splitAddress(addr)
		if err != nil {
			continue
		}
		host, port = g.rewrite(host, port)
		rule := g.checkName(host, port)
		if a, err := netip.ParseAddr(host); rule == "" && err == nil {
			rule = g.checkAddr(a)
		}
		if rule != "" && validHostOrAddr(host) {
			k.add(fmt.Sprintf("bootstrap_servers[%d]", i), addr, "is outside the boundary: "+rule, "")
		}
	}
}

func (t TLS) check(k *checker) {
	before := len(k.problems)
	if !slices.Contains([]string{"1.2", "1.3"}, t.MinVersion) {
		k.add("tls.min_version", t.MinVersion, `must be "1.2" or "1.3"`, "")
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		k.add("tls.key_file", "", "is missing beside tls.cert_file", "")
	case t.KeyFile != "" && t.CertFile == "":
		k.add("tls.cert_file", "", "is missing beside tls.key_file", "")
	}
	if !t.Enabled {
		for _, f := range []struct{ key, value string }{
			{"ca_file", t.CAFile}, {"cert_file", t.CertFile}, {"key_file", t.KeyFile}, {"server_name", t.ServerName},
		} {
			if f.value != "" {
				k.add("tls."+f.key, f.value, "has no effect while tls.enabled is false", "set tls.enabled: true")
			}
		}
		return
	}
	if len(k.problems) == before {
		if _, _, err := readTLS(t); err != nil {
			k.add("tls", "", err.Error(), "")
		}
	}
}

func (s SASL) check(k *checker) {
	if s.Mechanism != NoSASL && !slices.Contains(Mechanisms(), s.Mechanism) {
		k.add("sasl.mechanism", string(s.Mechanism), fmt.Sprintf("is unknown, there are %v", Mechanisms()), "")
		return
	}
	named := s.Mechanism == Plain || s.Mechanism == ScramSHA256 || s.Mechanism == ScramSHA512
	if named {
		if s.Username == "" {
			k.add("sasl.username", "", fmt.Sprintf("is missing for %s", s.Mechanism), "")
		}
		k.secret("sasl.password", s.Password, true)
	} else {
		k.unused("sasl.username", s.Username, s.Mechanism)
		k.unused("sasl.password", s.Password.String(), s.Mechanism)
	}
	if s.Mechanism == OAuthBearer {
		s.OAuth.check(k)
	} else {
		for _, f := range []struct{ key, value string }{
			{"token", s.OAuth.Token.String()}, {"token_url", s.OAuth.TokenURL}, {"client_id", s.OAuth.ClientID},
			{"client_secret", s.OAuth.ClientSecret.String()}, {"scope", s.OAuth.Scope}, {"ca_file", s.OAuth.CAFile},
		} {
			k.unused("sasl.oauth."+f.key, f.value, s.Mechanism)
		}
	}
	if s.Mechanism == AWSMSKIAM {
		s.AWS.check(k)
	} else {
		for _, f := range []struct{ key, value string }{
			{"region", s.AWS.Region}, {"access_key", s.AWS.AccessKey.String()}, {"secret_key", s.AWS.SecretKey.String()},
			{"session_token", s.AWS.SessionToken.String()}, {"user_agent", s.AWS.UserAgent},
		} {
			k.unused("sasl.aws."+f.key, f.value, s.Mechanism)
		}
	}
}

// unused reports a key that the mechanism does not read: most often the
// mechanism was forgotten, and the daemon would connect as nobody.
func (k *checker) unused(key, value string, m Mechanism) {
	if value == "" {
		return
	}
	if m == NoSASL {
		k.add(key, value, "has no effect without sasl.mechanism", "")
		return
	}
	k.add(key, value, fmt.Sprintf("has no effect with sasl.mechanism %s", m), "")
}

// secret checks that a secret is there and can be read now.
func (k *checker) secret(key string, s Secret, required bool) {
	if s.IsZero() {
		if required {
			k.add(key, "", "is missing", fmt.Sprintf(`%s: "file:/path" or "env:NAME"`, key[strings.LastIndexByte(key, '.')+1:]))
		}
		return
	}
	if _, err := s.Resolve(); err != nil {
		k.add(key, "", err.Error(), "")
	}
}

func (o OAuth) check(k *checker) {
	const at = "sasl.oauth."
	if !o.Token.IsZero() {
		if o.TokenURL != "" {
			k.add(at+"token", o.Token.String(), "excludes sasl.oauth.token_url", "")
		}
		k.secret(at+"token", o.Token, true)
		return
	}
	if o.TokenURL == "" {
		k.add(at+"token_url", "", "is missing for OAUTHBEARER", "or set sasl.oauth.token")
	} else if u, err := url.Parse(o.TokenURL); err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		k.add(at+"token_url", redactURL(o.TokenURL), "is not a URL like https://host/path", "")
	} else if u.User != nil {
		k.add(at+"token_url", redactURL(o.TokenURL), "holds a user or password", "use client_id and client_secret")
	} else if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		k.add(at+"token_url", redactURL(o.TokenURL), "must be https: the client secret would be readable on the way", "")
	}
	if o.ClientID == "" {
		k.add(at+"client_id", "", "is missing for OAUTHBEARER", "")
	}
	k.secret(at+"client_secret", o.ClientSecret, true)
	for _, name := range slices.Sorted(maps.Keys(o.Extensions)) {
		if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz") != "" || strings.EqualFold(name, "auth") {
			k.add(at+"extensions", name, "an extension's name is of letters, and not auth", "")
		}
	}
	k.cidrs(at+"cidrs", o.CIDRs, o.AllowPublic, at+"allow_public")
	if o.CAFile != "" {
		if _, _, err := readTLS(TLS{CAFile: o.CAFile}); err != nil {
			k.add(at+"ca_file", "", strings.Replace(err.Error(), "tls.ca_file ", "", 1), "")
		}
	}
}

func (a AWS) check(k *checker) {
	const at = "sasl.aws."
	if a.AccessKey.IsZero() != a.SecretKey.IsZero() {
		missing := "access_key"
		if a.SecretKey.IsZero() {
			missing = "secret_key"
		}
		k.add(at+missing, "", "is missing: access_key and secret_key go together", "")
	}
	if !a.SessionToken.IsZero() && a.AccessKey.IsZero() {
		k.add(at+"session_token", a.SessionToken.String(), "has no effect without access_key", "")
	}
	k.secret(at+"access_key", a.AccessKey, false)
	k.secret(at+"secret_key", a.SecretKey, false)
	k.secret(at+"session_token", a.SessionToken, false)
}

func (b Boundary) check(k *checker) {
	const at = "boundary."
	k.cidrs(at+"cidrs", b.CIDRs, b.AllowPublic, at+"allow_public")
	for i, port := range b.Ports {
		if port < 1 || port > 65535 {
			k.add(fmt.Sprintf("%sports[%d]", at, i), strconv.Itoa(port), "is not a port from 1 to 65535", "")
		}
	}
	for i, h := range b.Hosts {
		if !isAddr(h) && !validHost(strings.ReplaceAll(h, "*", "x")) {
			k.add(fmt.Sprintf("%shosts[%d]", at, i), h, "is not a host name or pattern like *.east.internal", "")
		}
	}
	for i, r := range b.Rewrite {
		key := fmt.Sprintf("%srewrite[%d]", at, i)
		compiled, err := parseRewrite(r)
		if err != nil {
			k.add(key, r.From+" -> "+r.To, err.Error(), "")
			continue
		}
		if !validHostOrAddr(compiled.toHost) {
			k.add(key+".to", r.To, "the host is not a valid name", "")
		}
		if from := strings.ReplaceAll(compiled.host, "*", "x"); !validHostOrAddr(from) {
			k.add(key+".from", r.From, "is not a host name or pattern like b-*.east.internal:9092", "")
		}
		b.checkRewriteInside(k, key, r, compiled)
	}
	if b.SourceAddress != "" && !isAddr(b.SourceAddress) {
		k.add(at+"source_address", b.SourceAddress, "is not an IP address", "")
	}
}

// checkRewriteInside finds a rule whose destination the rest of the boundary
// forbids.
func (b Boundary) checkRewriteInside(k *checker, key string, r Rewrite, compiled rewrite) {
	name := normalHost(compiled.toHost)
	if len(b.Hosts) > 0 && !slices.ContainsFunc(b.Hosts, func(p string) bool { return matchHost(normalHost(p), name) }) {
		k.add(key+".to", r.To, fmt.Sprintf("the host matches none of boundary.hosts %v", b.Hosts), "")
	}
	if port, err := strconv.Atoi(compiled.toPort); err == nil && len(b.Ports) > 0 && !slices.Contains(b.Ports, port) {
		k.add(key+".to", r.To, fmt.Sprintf("the port is not in boundary.ports %v", b.Ports), "")
	}
}

func (k *checker) cidrs(key string, list []string, public bool, allow string) {
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		p, err := parseCIDR(s)
		switch {
		case err != nil:
			k.add(at, s, err.Error(), "")
		case !public && !within(p):
			k.add(at, s, "reaches public addresses", "set "+allow+": true if that is meant")
		}
	}
}

func isAddr(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func validHostOrAddr(host string) bool { return isAddr(host) || validHost(host) }

func loopbackHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return normalHost(host) == "localhost"
}
