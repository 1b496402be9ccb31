package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

const hidden = "correct-horse-battery"

// table is a resolver with a fixed table, which can be changed under way.
type table struct {
	mu   sync.Mutex
	of   map[string][]netip.Addr
	asks map[string]int
}

func newTable(of map[string][]string) *table {
	t := &table{of: make(map[string][]netip.Addr), asks: make(map[string]int)}
	for name, addrs := range of {
		t.set(name, addrs...)
	}
	return t
}

func (t *table) set(name string, addrs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of[name] = nil
	for _, a := range addrs {
		t.of[name] = append(t.of[name], netip.MustParseAddr(a))
	}
}

func (t *table) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asks[host]++
	addrs, ok := t.of[normalHost(host)]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// refusals collects what the guard reports.
type refusals struct {
	mu   sync.Mutex
	seen []BoundaryError
}

func (r *refusals) add(e *BoundaryError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, *e)
}

func (r *refusals) all() []BoundaryError {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]BoundaryError(nil), r.seen...)
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, cert: cert, key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	writeFile(t, a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	return a
}

// issue signs a certificate for hosts that ends at the given time.
func (a *authority) issue(name string, end time.Time, hosts ...string) (certPEM, keyPEM []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// server is the TLS configuration of a broker with such a certificate.
func (a *authority) server(end time.Time, hosts ...string) *tls.Config {
	a.t.Helper()
	certPEM, keyPEM := a.issue("broker", end, hosts...)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func writeFile(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// brokers starts a fake cluster.
func brokers(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID("east-id")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// config is a configuration for a fake cluster.
func config(c *kfake.Cluster) Config {
	cfg := DefaultConfig()
	cfg.BootstrapServers = c.ListenAddrs()
	cfg.Timeouts = Timeouts{Dial: 5 * time.Second, Request: 5 * time.Second, Retry: 2 * time.Second}
	return cfg
}

func mustOpen(t *testing.T, cfg Config, o Options) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), "east", cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// noDial fails a test in which a connection is made that should not be.
func noDial(t *testing.T) DialFunc {
	return func(_ context.Context, _, addr string) (net.Conn, error) {
		t.Errorf("dialled %s", addr)
		return nil, errors.New("not to be dialled")
	}
}
