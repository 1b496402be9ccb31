package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/wire"
)

// tlsFiles keeps the certificates of one cluster as they lie on disk. Each
// connection asks for them anew; a file is read again when its time, size or
// identity changed. While a new set is half written, the last good one serves.
type tlsFiles struct {
	cfg TLS
	log *zap.Logger

	mu      sync.Mutex
	seen    [3]os.FileInfo // ca, cert, key, as of the last reading
	pool    *x509.CertPool
	cert    *tls.Certificate
	loaded  bool
	servers map[string]time.Time // by name: when the chain it showed last ends
}

func newTLSFiles(cfg TLS, log *zap.Logger) *tlsFiles { return &tlsFiles{cfg: cfg, log: log} }

// load returns the current roots (nil: the system's) and client certificate
// (nil: none).
func (f *tlsFiles) load() (*x509.CertPool, *tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var now [3]os.FileInfo
	changed := !f.loaded
	var err error
	for i, path := range []string{f.cfg.CAFile, f.cfg.CertFile, f.cfg.KeyFile} {
		if path == "" {
			continue
		}
		if now[i], err = os.Stat(path); err != nil {
			err = fmt.Errorf("read %s: %w", path, bareError(err))
			break
		}
		old := f.seen[i]
		if old == nil || !os.SameFile(old, now[i]) || !old.ModTime().Equal(now[i].ModTime()) || old.Size() != now[i].Size() {
			changed = true
		}
	}
	if err == nil && !changed {
		return f.pool, f.cert, nil
	}
	if err == nil {
		var pool *x509.CertPool
		var cert *tls.Certificate
		if pool, cert, err = readTLS(f.cfg); err == nil {
			f.pool, f.cert, f.seen, f.loaded = pool, cert, now, true
			return pool, cert, nil
		}
	}
	if !f.loaded {
		return nil, nil, err
	}
	// A rotation in progress: certificate and key are two files. The next
	// connection looks again.
	f.log.Warn("certificates could not be read again, the last good ones are used", zap.Error(err))
	return f.pool, f.cert, nil
}

func readTLS(cfg TLS) (*x509.CertPool, *tls.Certificate, error) {
	var pool *x509.CertPool
	if cfg.CAFile != "" {
		data, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read tls.ca_file %s: %w", cfg.CAFile, bareError(err))
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, nil, fmt.Errorf("read tls.ca_file %s: it holds no PEM certificate", cfg.CAFile)
		}
	}
	if cfg.CertFile == "" {
		return pool, nil, nil
	}
	certPEM, err := os.ReadFile(cfg.CertFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read tls.cert_file %s: %w", cfg.CertFile, bareError(err))
	}
	keyPEM, err := readPrivate(cfg.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read tls.key_file %s: %w", cfg.KeyFile, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("read tls.cert_file %s with tls.key_file %s: %w", cfg.CertFile, cfg.KeyFile, err)
	}
	return pool, &cert, nil
}

// expiry returns when the first certificate of this cluster ends, our own or
// one a broker has shown.
func (f *tlsFiles) expiry() (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first time.Time
	if f.cert != nil && f.cert.Leaf != nil {
		first = f.cert.Leaf.NotAfter
	}
	for _, end := range f.servers {
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first, !first.IsZero()
}

// noteServer keeps the end of the chain a server showed. There are as many
// names as brokers.
func (f *tlsFiles) noteServer(host string, chain []*x509.Certificate) {
	var end time.Time
	for _, c := range chain {
		if end.IsZero() || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.servers == nil {
		f.servers = make(map[string]time.Time)
	}
	f.servers[host] = end
}

// client puts TLS on a connection to a broker known as host. It closes the
// connection when the handshake fails.
func (f *tlsFiles) client(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	pool, cert, err := f.load()
	if err != nil {
		conn.Close()
		return nil, err
	}
	name := f.cfg.ServerName
	if name == "" {
		name = strings.TrimSuffix(host, ".")
		name, _, _ = strings.Cut(name, "%") // a zone is ours, no certificate has it
	}
	cfg := &tls.Config{ServerName: name, RootCAs: pool, MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true}
	if f.cfg.MinVersion == "1.3" {
		cfg.MinVersion = tls.VersionTLS13
	}
	offered := cert != nil
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil // none to offer; the broker decides
		}
		return cert, nil
	}
	secure := tls.Client(wire.NewGather(conn), cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &TLSError{Name: name, OwnCertificate: offered, Err: err}
	}
	f.noteServer(host, secure.ConnectionState().PeerCertificates)
	return secure, nil
}

// TLSError is a handshake that failed, said so that one knows what to do.
type TLSError struct {
	Name           string // the name the certificate was checked against
	OwnCertificate bool   // we had a client certificate to show
	Err            error
}

func (e *TLSError) Unwrap() error { return e.Err }

func (e *TLSError) Error() string { return "shake hands over TLS: " + e.reason() }

func (e *TLSError) reason() string {
	if inv, ok := errors.AsType[x509.CertificateInvalidError](e.Err); ok && inv.Reason == x509.Expired && inv.Cert != nil {
		now := time.Now()
		if now.Before(inv.Cert.NotBefore) {
			return fmt.Sprintf("the certificate of %s is valid only from %s (is the clock right?)", e.subject(inv.Cert), date(inv.Cert.NotBefore))
		}
		return fmt.Sprintf("the certificate of %s expired on %s", e.subject(inv.Cert), date(inv.Cert.NotAfter))
	}
	if host, ok := errors.AsType[x509.HostnameError](e.Err); ok && host.Certificate != nil {
		return fmt.Sprintf("the certificate is not for %s but for %s (tls.server_name sets another name)", e.Name, names(host.Certificate))
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](e.Err); ok {
		issuer := "an unknown authority"
		if unknown.Cert != nil {
			issuer = fmt.Sprintf("%q", unknown.Cert.Issuer.String())
		}
		return fmt.Sprintf("the certificate was signed by %s, which is not trusted (tls.ca_file names whom to trust)", issuer)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](e.Err); ok {
		return "the listener does not speak TLS (is it the plaintext port?)"
	}
	if alert := brokersAlert(e.Err); alert != nil {
		if !e.OwnCertificate {
			return fmt.Sprintf("the broker ended it: %v (does it ask for a client certificate? none is configured)", alert)
		}
		return fmt.Sprintf("the broker ended it: %v", alert)
	}
	if errors.Is(e.Err, io.EOF) {
		return "the broker closed the connection (is it the plaintext port?)"
	}
	if errors.Is(e.Err, context.DeadlineExceeded) {
		return "no answer in time (is it the plaintext port?)"
	}
	return e.Err.Error()
}

// brokersAlert is the TLS alert by which the other side ended a connection, nil
// for other errors. Package tls does not export its type.
func brokersAlert(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return op.Err
	}
	return nil
}

// refused says why a broker may have ended a connection over our certificate.
// Since TLS 1.3 that shows only after the handshake.
func (f *tlsFiles) refused() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.cert == nil:
		return "does it ask for a client certificate? none is configured"
	case f.cert.Leaf != nil && time.Now().After(f.cert.Leaf.NotAfter):
		return fmt.Sprintf("our certificate %s expired on %s", f.cfg.CertFile, date(f.cert.Leaf.NotAfter))
	}
	return fmt.Sprintf("does it trust who signed our certificate %s?", f.cfg.CertFile)
}

func (e *TLSError) subject(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" {
		return fmt.Sprintf("%s (%q)", e.Name, s)
	}
	return e.Name
}

// names lists a few of the names a certificate is good for.
func names(c *x509.Certificate) string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no host at all (it has no subject alternative name)"
	}
	if len(all) > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:5], ", "), len(all)-5)
	}
	return strings.Join(all, ", ")
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
