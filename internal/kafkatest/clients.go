package kafkatest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Admin is a client with all rights, over the INTERNAL listener. It lives as
// long as the cluster.
func (c *Cluster) Admin() *kadm.Client { return c.admin }

// CAFile is the PEM file of the CA that signed the brokers' certificates, ""
// without TLS.
func (c *Cluster) CAFile() string {
	if c.ca == nil {
		return ""
	}
	return c.ca.File
}

// ClientCert is a client's certificate for MutualTLS, issued the first time.
func (c *Cluster) ClientCert(user string) (*Certificate, error) {
	c.certMu.Lock()
	defer c.certMu.Unlock()
	if cert := c.certs[user]; cert != nil {
		return cert, nil
	}
	cert, err := c.ca.Issue(CertRequest{Name: user, File: "client-" + user})
	if err == nil {
		c.certs[user] = cert
	}
	return cert, err
}

// Authority is the CA of the cluster, nil without TLS.
func (c *Cluster) Authority() *Authority { return c.ca }

// TLSConfig is what a client needs for the CLIENT listener, nil without TLS.
// It verifies the broker, unless the cluster was asked for a bad certificate.
func (c *Cluster) TLSConfig(user string) (*tls.Config, error) {
	if c.ca == nil {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.ca.Pool, ServerName: c.cfg.Network.Host}
	if c.cfg.ServerCert != ValidCert {
		cfg.InsecureSkipVerify = true // the certificate is bad on purpose
	}
	if c.cfg.TLS == MutualTLS {
		cert, err := c.ClientCert(user)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{cert.TLS}
	}
	return cfg, nil
}

// ClientOpts are the options of a client of the CLIENT listener that is
// AdminUser by the cluster's first mechanism.
func (c *Cluster) ClientOpts() []kgo.Opt {
	mechanism := ""
	if len(c.cfg.SASL) > 0 {
		mechanism = c.cfg.SASL[0]
	}
	return c.ClientOptsAs(AdminUser, mechanism)
}

// ClientOptsAs are the options of a client that is another user, by a SASL
// mechanism ("" for none: then the certificate tells the user).
func (c *Cluster) ClientOptsAs(user, mechanism string) []kgo.Opt {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Bootstrap()...)}
	cfg, err := c.TLSConfig(user)
	if err != nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()} // will not connect
	}
	if cfg != nil {
		opts = append(opts, kgo.DialTLSConfig(cfg))
	}
	if m := Mechanism(mechanism, user); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

// Mechanism logs a user of this package in, nil for an unknown mechanism.
func Mechanism(mechanism, user string) sasl.Mechanism {
	switch mechanism {
	case Plain:
		return plain.Auth{User: user, Pass: Password(user)}.AsMechanism()
	case Scram256:
		return scram.Auth{User: user, Pass: Password(user)}.AsSha256Mechanism()
	case Scram512:
		return scram.Auth{User: user, Pass: Password(user)}.AsSha512Mechanism()
	case OAuthBearer:
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			return oauth.Auth{Token: UnsecuredToken(user, time.Hour)}, nil
		})
	default:
		return nil
	}
}

// UnsecuredToken is an unsigned JSON Web Token, as brokers of this package take
// them for OAUTHBEARER. A negative lifetime makes an expired one.
func UnsecuredToken(user string, lifetime time.Duration) string {
	now := time.Now()
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, user, now.Add(-time.Minute).Unix(), now.Add(lifetime).Unix())
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"alg":"none"}`)) + "." + enc.EncodeToString([]byte(claims)) + "."
}

// Client is a client of the CLIENT listener as AdminUser, closed when the test
// ends.
func (c *Cluster) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(c.ClientOpts(), opts...)...)
	if err != nil {
		t.Fatalf("open a client of %s: %v", c.cfg.Name, err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// CreateTopic makes a topic with as many replicas as the cluster has brokers,
// at most three, and waits until every partition has a leader. The settings
// are pairs of key and value.
func (c *Cluster) CreateTopic(t testing.TB, topic string, partitions int, settings ...string) {
	t.Helper()
	configs := map[string]*string{}
	for pair := range slices.Chunk(settings, 2) {
		configs[pair[0]] = new(pair[1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	replicas := int16(min(3, len(c.brokers)))
	resp, err := c.admin.CreateTopic(ctx, int32(partitions), replicas, configs, topic)
	if err == nil {
		err = resp.Err
	}
	if err == nil {
		err = poll(ctx, func() error { return nil }, func(ctx context.Context) error {
			m, err := c.admin.Metadata(ctx, topic)
			if err != nil {
				return err
			}
			led := 0
			for _, p := range m.Topics[topic].Partitions {
				if p.Err == nil && p.Leader >= 0 {
					led++
				}
			}
			if led < partitions {
				return fmt.Errorf("%d of %d partitions have a leader", led, partitions)
			}
			return nil
		})
	}
	if err != nil {
		t.Fatalf("create topic %s on %s: %v", topic, c.cfg.Name, err)
	}
}

// Allow creates the ACLs of a builder that names resources and operations, for
// a user from any host. Brokers apply them a moment later.
func (c *Cluster) Allow(ctx context.Context, user string, b *kadm.ACLBuilder) error {
	results, err := c.admin.CreateACLs(ctx, b.Allow("User:"+user).AllowHosts("*"))
	if err != nil {
		return fmt.Errorf("allow %s: %w", user, err)
	}
	for _, r := range results {
		if r.Err != nil {
			return fmt.Errorf("allow %s %s on %s %s: %w", user, r.Operation, r.Type, r.Name, r.Err)
		}
	}
	return nil
}
