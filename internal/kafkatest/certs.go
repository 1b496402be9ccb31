package kafkatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An Authority signs certificates for one test and writes them as PEM files.
type Authority struct {
	File string // the CA certificate, PEM
	Pool *x509.CertPool

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a CA that keeps its files in dir.
func NewAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "kafkatest CA"},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	a := &Authority{File: filepath.Join(dir, "ca.pem"), Pool: x509.NewCertPool(), dir: dir, cert: cert, key: key}
	a.Pool.AddCert(cert)
	return a, os.WriteFile(a.File, pemBlock("CERTIFICATE", der), 0o600)
}

// A CertRequest says what a certificate is for.
type CertRequest struct {
	Name    string    // common name, and the name of the files, unless File is set
	File    string    // name of the files, without ending
	Hosts   []string  // names and addresses of a server; none: a client's certificate
	Expires time.Time // default in a day; may be in the past
}

// A Certificate is signed by an [Authority].
type Certificate struct {
	CertFile string // PEM, the certificate alone
	KeyFile  string // PEM, PKCS #8
	BothFile string // PEM, key and certificate: a key store of Kafka's PEM type
	TLS      tls.Certificate
}

// Issue signs a certificate.
func (a *Authority) Issue(r CertRequest) (*Certificate, error) {
	c, err := a.issue(r)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate of %s: %w", r.Name, err)
	}
	return c, nil
}

func (a *Authority) issue(r CertRequest) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	if r.Expires.IsZero() {
		r.Expires = time.Now().Add(24 * time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: r.Name},
		NotBefore:    r.Expires.Add(-36 * time.Hour),
		NotAfter:     r.Expires,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, h := range r.Hosts {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM := pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", keyDER)
	if r.File == "" {
		r.File = r.Name
	}
	base := filepath.Join(a.dir, r.File)
	c := &Certificate{CertFile: base + ".pem", KeyFile: base + ".key", BothFile: base + ".both.pem"}
	if c.TLS, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, err
	}
	for path, data := range map[string][]byte{
		c.CertFile: certPEM,
		c.KeyFile:  keyPEM,
		c.BothFile: append(append([]byte{}, keyPEM...), certPEM...),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func serialNumber() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
