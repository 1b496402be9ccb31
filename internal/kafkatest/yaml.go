package kafkatest

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// YAML is a configuration of replicator that copies the topics from source to
// target. It logs in as a user of both clusters, "" for AdminUser, by each
// cluster's first mechanism. Certificates and passwords are named as files in
// the clusters' directories.
func (p *ClusterPair) YAML(user string, topics ...string) (string, error) {
	if user == "" {
		user = AdminUser
	}
	var b strings.Builder
	b.WriteString("clusters:\n")
	for _, c := range []*Cluster{p.Source, p.Target} {
		if err := c.section(&b, user); err != nil {
			return "", err
		}
	}
	quoted := make([]string, len(topics))
	for i, topic := range topics {
		quoted[i] = fmt.Sprintf("%q", topic)
	}
	fmt.Fprintf(&b, "links:\n  - {from: %s, to: %s, topics: [%s]}\n",
		p.Source.cfg.Name, p.Target.cfg.Name, strings.Join(quoted, ", "))
	return b.String(), nil
}

// section is the cluster's entry, under its name.
func (c *Cluster) section(b *strings.Builder, user string) error {
	fmt.Fprintf(b, "  %s:\n", c.cfg.Name)
	fmt.Fprintf(b, "    bootstrap_servers: [%s]\n", strings.Join(c.Bootstrap(), ", "))
	fmt.Fprintf(b, "    cluster_id: %q\n", c.id)
	switch c.cfg.TLS {
	case ServerTLS:
		fmt.Fprintf(b, "    tls: {enabled: true, ca_file: %q}\n", c.ca.File)
	case MutualTLS:
		cert, err := c.ClientCert(user)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "    tls: {enabled: true, ca_file: %q, cert_file: %q, key_file: %q}\n",
			c.ca.File, cert.CertFile, cert.KeyFile)
	case NoTLS:
	}
	if len(c.cfg.SASL) > 0 {
		file := c.home.path("password-" + user)
		if err := os.WriteFile(file, []byte(Password(user)), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(b, "    sasl: {mechanism: %s, username: %s, password: %q}\n", c.cfg.SASL[0], user, "file:"+file)
	}
	ports := make([]string, len(c.brokers))
	for i, addr := range c.Bootstrap() {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		ports[i] = port
	}
	cidr := "127.0.0.0/8"
	if h := c.cfg.Network.Host; h != loopbackHost {
		cidr = h + "/32"
	}
	fmt.Fprintf(b, "    boundary: {cidrs: [%s], ports: [%s]}\n", cidr, strings.Join(ports, ", "))
	return nil
}
