package kafkatest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TLS says how the CLIENT listener is encrypted.
type TLS int

// The ways to encrypt.
const (
	NoTLS     TLS = iota
	ServerTLS     // brokers show a certificate
	MutualTLS     // clients must show one as well; its common name is the user
)

// ServerCert says which certificate the brokers show.
type ServerCert int

// The certificates brokers can show.
const (
	ValidCert ServerCert = iota
	ExpiredCert
	WrongHostCert // for another host than that of the brokers
)

// SASL mechanisms a listener can offer. OAUTHBEARER takes unsecured (unsigned)
// tokens whose subject is the user.
const (
	Plain       = "PLAIN"
	Scram256    = "SCRAM-SHA-256"
	Scram512    = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

const loopbackHost = "127.0.0.1"

// AdminUser is the user every cluster has; with an authorizer it is a super user.
const AdminUser = "admin"

// Config describes a cluster. The zero value is one broker of [Kafka4] with a
// plaintext listener.
type Config struct {
	Name    string // in directory names and errors, default "kafka"
	Version string // default Kafka4
	Brokers int    // default 1; every broker is also a controller

	TLS        TLS
	ServerCert ServerCert
	SASL       []string // mechanisms of the CLIENT listener, none: no login
	Users      []string // users besides AdminUser; see Password
	Authorizer bool     // refuses what no ACL allows, but for super users

	// Properties override server.properties. An empty value takes a key out.
	Properties map[string]string
	// Advertised may replace the host and port a broker advertises for CLIENT,
	// to put a proxy in between or to lie. It is given the true address.
	Advertised func(broker int, addr string) string

	// Network has the brokers run and listen elsewhere than on loopback.
	Network Network

	// MovableClock lets [Cluster.MoveClock] put the brokers' wall clock wrong. It needs
	// libfaketime.
	MovableClock bool

	Heap    string   // -Xmx of a broker, default 512m
	FullJIT bool     // for benchmarks: also the optimising compiler
	JVM     []string // more options of a broker's JVM
}

// A Network is where brokers run and listen, for example behind a link with a
// delay (package wan). The zero value is loopback. Whoever starts the cluster
// must reach Host; brokers talk to each other where they run.
type Network struct {
	Host string // IPv4 address of all listeners, default 127.0.0.1
	// Command makes a command that runs there, default [exec.CommandContext].
	Command func(ctx context.Context, name string, args ...string) *exec.Cmd
}

// addr is a port where the brokers run, host:port.
func (n Network) addr(p *port) string { return net.JoinHostPort(n.Host, strconv.Itoa(p.number)) }

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "kafka"
	}
	if c.Version == "" {
		c.Version = Kafka4
	}
	if c.Brokers == 0 {
		c.Brokers = 1
	}
	if c.Heap == "" {
		c.Heap = "512m"
	}
	if c.Network.Host == "" {
		c.Network.Host = loopbackHost
	}
	if !slices.Contains(c.Users, AdminUser) {
		c.Users = append([]string{AdminUser}, c.Users...)
	}
	return c
}

func (c Config) zooKeeper() bool { return strings.HasPrefix(c.Version, "2.") }

func (c Config) scram() []string {
	return slices.DeleteFunc(slices.Clone(c.SASL), func(m string) bool { return m != Scram256 && m != Scram512 })
}

// Password is the password of a user of any cluster of this package.
func Password(user string) string { return user + "-secret" }

// Files a broker's properties point at.
type brokerFiles struct {
	logDir   string
	keyStore string // PEM of key and certificate
	caFile   string
}

// brokerPorts are what one broker listens on.
type brokerPorts struct{ client, internal, controller *port }

// serverProperties is the configuration of broker id (1..Brokers).
func (c Config) serverProperties(id int, ports []brokerPorts, zooKeeper *port, files brokerFiles) map[string]string {
	mine := ports[id-1]
	advertised := c.Network.addr(mine.client)
	if c.Advertised != nil {
		advertised = c.Advertised(id, advertised)
	}
	replicas := strconv.Itoa(min(3, c.Brokers))
	minISR := "1"
	if c.Brokers >= 3 {
		minISR = "2"
	}
	p := map[string]string{
		"listeners":                      "CLIENT://" + c.Network.addr(mine.client) + ",INTERNAL://" + c.Network.addr(mine.internal),
		"advertised.listeners":           "CLIENT://" + advertised + ",INTERNAL://" + c.Network.addr(mine.internal),
		"listener.security.protocol.map": "CLIENT:" + c.protocol() + ",INTERNAL:PLAINTEXT",
		"inter.broker.listener.name":     "INTERNAL",
		"log.dirs":                       files.logDir,

		"auto.create.topics.enable":  "false",
		"num.partitions":             "1",
		"default.replication.factor": replicas,
		"min.insync.replicas":        minISR,

		// Few partitions: each costs file handles, and a start loads them all.
		"offsets.topic.num.partitions":             "4",
		"offsets.topic.replication.factor":         replicas,
		"transaction.state.log.num.partitions":     "4",
		"transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr":            minISR,
		"group.initial.rebalance.delay.ms":         "0",

		"num.network.threads":            "2",
		"num.io.threads":                 "4",
		"log.cleaner.dedupe.buffer.size": "16777216", // bytes, of the heap
	}
	if c.zooKeeper() {
		p["broker.id"] = strconv.Itoa(id)
		p["zookeeper.connect"] = c.Network.addr(zooKeeper)
		p["zookeeper.session.timeout.ms"] = "3000"
	} else {
		c.quorum(p, id, ports)
	}
	c.security(p, files)
	for k, v := range c.Properties {
		if v == "" {
			delete(p, k)
			continue
		}
		p[k] = v
	}
	return p
}

func (c Config) quorum(p map[string]string, id int, ports []brokerPorts) {
	voters := make([]string, len(ports))
	for i := range ports {
		voters[i] = fmt.Sprintf("%d@%s", i+1, c.Network.addr(ports[i].controller))
	}
	p["process.roles"] = "broker,controller"
	p["node.id"] = strconv.Itoa(id)
	p["controller.quorum.voters"] = strings.Join(voters, ",")
	p["controller.listener.names"] = "CONTROLLER"
	p["listeners"] += ",CONTROLLER://" + c.Network.addr(ports[id-1].controller)
	p["listener.security.protocol.map"] += ",CONTROLLER:PLAINTEXT"
	// A killed broker is out, and may come back, after the session (default 9 s).
	// With one broker there is nothing to fail over to: the shorter the better.
	p["broker.heartbeat.interval.ms"] = "500"
	p["broker.session.timeout.ms"] = "4000"
	if c.Brokers == 1 {
		p["broker.session.timeout.ms"] = "2000"
	}
	if !strings.HasPrefix(c.Version, "3.") {
		p["share.coordinator.state.topic.num.partitions"] = "1"
		p["share.coordinator.state.topic.replication.factor"] = p["offsets.topic.replication.factor"]
		p["share.coordinator.state.topic.min.isr"] = p["min.insync.replicas"]
	}
}

func (c Config) protocol() string {
	switch {
	case c.TLS != NoTLS && len(c.SASL) > 0:
		return "SASL_SSL"
	case c.TLS != NoTLS:
		return "SSL"
	case len(c.SASL) > 0:
		return "SASL_PLAINTEXT"
	default:
		return "PLAINTEXT"
	}
}

func (c Config) security(p map[string]string, files brokerFiles) {
	const listener = "listener.name.client."
	if c.TLS != NoTLS {
		p[listener+"ssl.keystore.type"] = "PEM"
		p[listener+"ssl.keystore.location"] = files.keyStore
		p[listener+"ssl.truststore.type"] = "PEM"
		p[listener+"ssl.truststore.location"] = files.caFile
		p["ssl.principal.mapping.rules"] = "RULE:^CN=([^,]+).*$/$1/,DEFAULT"
	}
	if c.TLS == MutualTLS {
		p[listener+"ssl.client.auth"] = "required"
	}
	if len(c.SASL) > 0 {
		p[listener+"sasl.enabled.mechanisms"] = strings.Join(c.SASL, ",")
		p["sasl.enabled.mechanisms"] = strings.Join(c.SASL, ",")
	}
	for _, m := range c.SASL {
		p[listener+strings.ToLower(m)+".sasl.jaas.config"] = c.jaas(m)
	}
	if c.Authorizer {
		p["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		if c.zooKeeper() {
			p["authorizer.class.name"] = "kafka.security.authorizer.AclAuthorizer"
		}
		// ANONYMOUS is INTERNAL's user: the brokers themselves and Admin.
		p["super.users"] = "User:" + AdminUser + ";User:ANONYMOUS"
	}
}

func (c Config) jaas(mechanism string) string {
	const security = "org.apache.kafka.common.security."
	switch mechanism {
	case Plain:
		var b strings.Builder
		b.WriteString(security + "plain.PlainLoginModule required")
		for _, u := range c.Users {
			fmt.Fprintf(&b, " user_%s=%q", u, Password(u))
		}
		return b.String() + ";"
	case OAuthBearer:
		return security + "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"" + AdminUser + "\";"
	default:
		return security + "scram.ScramLoginModule required;"
	}
}

// propertiesText writes properties in Java's format, sorted.
func propertiesText(p map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(p[k], `\`, `\\`))
	}
	return b.String()
}

// certRequest is what the brokers' certificate is asked to be.
func (c Config) certRequest() CertRequest {
	r := CertRequest{Name: "broker", Hosts: []string{loopbackHost, "localhost"}}
	if h := c.Network.Host; h != loopbackHost {
		r.Hosts = append(r.Hosts, h)
	}
	switch c.ServerCert {
	case ExpiredCert:
		r.Expires = time.Now().Add(-time.Hour)
	case WrongHostCert:
		r.Hosts = []string{"elsewhere.invalid"}
	case ValidCert:
	}
	return r
}
