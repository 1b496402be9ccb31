package config

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// End is a cluster as it is named on the command line.
type End struct {
	Alias   string
	Servers []string
}

// ParseEnd reads alias=host:port[,host:port].
func ParseEnd(s string) (End, error) {
	alias, servers, ok := strings.Cut(s, "=")
	if !ok || servers == "" {
		return End{}, fmt.Errorf("read cluster %q: want alias=host:port, such as east=kafka.east.internal:9092", s)
	}
	if !aliasGrammar.MatchString(alias) {
		return End{}, fmt.Errorf("read cluster %q: %q is not a name for a cluster: %s", s, alias, aliasRule)
	}
	e := End{Alias: alias}
	for addr := range strings.SplitSeq(servers, ",") {
		e.Servers = append(e.Servers, strings.TrimSpace(addr))
	}
	return e, nil
}

// Answers are what a first configuration needs to know.
type Answers struct {
	From, To End
	Topics   []string
	TLS      bool
}

// Init writes a small commented configuration. What it writes passes Load, or
// Init returns the faults.
func Init(a Answers) ([]byte, error) {
	if len(a.Topics) == 0 {
		a.Topics = []string{".*"}
	}
	if a.From.Alias == "" || a.To.Alias == "" {
		return nil, errors.New("write configuration: both clusters must be named")
	}
	if a.From.Alias == a.To.Alias {
		return nil, fmt.Errorf("write configuration: both clusters are called %s", a.From.Alias)
	}
	var b strings.Builder
	b.WriteString(`# Configuration of replicator. Check it with: replicator config check
# Everything that is not here has a default: replicator config show prints it.

clusters:
`)
	for _, e := range []End{a.From, a.To} {
		fmt.Fprintf(&b, "  %s:\n    bootstrap_servers: %s\n", e.Alias, flow(e.Servers))
		b.WriteString(`    # Refuse any other cluster behind these addresses.
    # cluster_id: ...
`)
		if a.TLS {
			b.WriteString(`    tls:
      enabled: true
      # Whom to trust; without it, the system's authorities.
      # ca_file: /etc/replicator/ca.pem
`)
		} else {
			b.WriteString(`    # tls: {enabled: true, ca_file: /etc/replicator/ca.pem}
`)
		}
		b.WriteString(`    # Secrets are references: file:/path, which others may not read, or env:NAME.
    # sasl: {mechanism: SCRAM-SHA-512, username: replicator, password: "file:/run/credentials/` + e.Alias + `"}
    # Only private addresses are dialled. Make it narrower:
    # boundary: {cidrs: [10.20.0.0/16], ports: [9092]}
`)
	}
	fmt.Fprintf(&b, `
links:
  - from: %s
    to: %s
    # Regular expressions of whole names.
    topics: %s
    # topics_exclude: ["scratch-.*"]
    # Where to begin with a topic that was never copied: earliest or latest.
    # start: earliest

# Metrics, health and status.
# http: {listen: "127.0.0.1:8475"}
`, a.From.Alias, a.To.Alias, flow(a.Topics))
	out := []byte(b.String())
	r := newReader()
	r.readFile("", out)
	if _, err := assemble(r); err != nil {
		faults, ok := errors.AsType[Faults](err)
		if !ok {
			return nil, err
		}
		for i := range faults {
			faults[i].Origin = Origin{}
		}
		return nil, faults
	}
	return out, nil
}

// flow writes a list on one line.
func flow(list []string) string {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, s := range list {
		item := scalar("!!str", s)
		item.Style = yaml.DoubleQuotedStyle
		n.Content = append(n.Content, item)
	}
	out, err := yaml.Marshal(n)
	if err != nil { // strings always marshal
		return "[]"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(out), "\n    ", " "))
}
