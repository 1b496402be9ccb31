package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// peerAnswer is what a scripted broker does with a request. It may write
// anything to w, or nothing; an error hangs up.
type peerAnswer func(w io.Writer, corr int32, req kmsg.Request) error

// servePeer is a scripted broker on one connection: it answers ApiVersions
// with the given newest versions, and leaves the rest to answer.
func servePeer(nc net.Conn, newest map[int16]int16, answer peerAnswer) {
	defer nc.Close()
	for {
		corr, req, err := readPeerRequest(nc)
		if err != nil {
			return
		}
		if req.Key() == 18 && newest != nil {
			resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
			for key, version := range newest {
				resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: version})
			}
			err = writePeerAnswer(nc, corr, resp)
		} else {
			err = answer(nc, corr, req)
		}
		if err != nil {
			return
		}
	}
}

func readPeerRequest(r io.Reader) (int32, kmsg.Request, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	b := bodyReader{rest: body}
	req := kmsg.RequestForKey(b.int16())
	req.SetVersion(b.int16())
	corr := b.int32()
	b.string(false)
	b.skipTagsIf(req.IsFlexible())
	if b.fault != nil {
		return 0, nil, b.fault
	}
	return corr, req, req.ReadFrom(b.rest)
}

func writePeerAnswer(w io.Writer, corr int32, resp kmsg.Response) error {
	_, err := w.Write(appendPeerAnswer(nil, corr, resp))
	return err
}

func appendPeerAnswer(b []byte, corr int32, resp kmsg.Response) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = appendInt32(b, corr)
	if resp.IsFlexible() && resp.Key() != 18 {
		b = append(b, 0)
	}
	b = resp.AppendTo(b)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// peerVersions are the newest versions a scripted broker has by default.
var peerVersions = map[int16]int16{0: 12, 1: 17, 3: 12, 17: 1, 18: 3, 22: 4, 24: 5, 26: 5, 36: 2}

// pipePeer returns a dialer to a scripted broker in memory.
func pipePeer(answer peerAnswer) func(context.Context, string) (net.Conn, error) {
	return func(context.Context, string) (net.Conn, error) {
		near, far := net.Pipe()
		go servePeer(far, peerVersions, answer)
		return near, nil
	}
}

// tcpPeer is the same over loopback.
func tcpPeer(t testing.TB, answer peerAnswer) func(context.Context, string) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go servePeer(nc, peerVersions, answer)
		}
	}()
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return dialTCP(ctx, l.Addr().String())
	}
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func newFake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake
}

// connectTo connects, with defaults for what a test does not care about.
func connectTo(t testing.TB, cfg Config) *Conn {
	t.Helper()
	c, err := tryConnect(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryConnect(t testing.TB, cfg Config) (*Conn, error) {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "broker.test:9092"
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Pool == nil {
		cfg.Pool = NewPool(64 << 20)
		cfg.Pool.Poison()
	}
	cfg.Broker = 7
	cfg.ClientID = "wire-test"
	c, err := Connect(t.Context(), cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		c.Close()
		c.Wait()
		if used := cfg.Pool.Used(); used != 0 {
			t.Errorf("%d bytes of frames were not released", used)
		}
	})
	return c, nil
}

// peerBatch is a batch as a producer would send it.
func peerBatch(producerID int64, epoch int16, sequence int32, values ...string) []byte {
	var records []byte
	for i, value := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(value)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		records = r.AppendTo(records)
	}
	now := time.Now().UnixMilli()
	b := (&kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(values)) - 1,
		FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producerID, ProducerEpoch: epoch, FirstSequence: sequence,
		NumRecords: int32(len(values)), Records: records,
	}).AppendTo(nil)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// peerProducerID takes a producer id from a cluster.
func peerProducerID(t testing.TB, c *Conn) (int64, int16) {
	t.Helper()
	resp, err := c.Request(t.Context(), kmsg.NewPtrInitProducerIDRequest())
	if err != nil {
		t.Fatal(err)
	}
	r := resp.(*kmsg.InitProducerIDResponse)
	if r.ErrorCode != 0 {
		t.Fatalf("init producer id: error code %d", r.ErrorCode)
	}
	return r.ProducerID, r.ProducerEpoch
}

// produced sends a request and waits for Done.
func produced(c *Conn, r *ProduceRequest) error {
	done := make(chan error, 1)
	r.Done = func(_ *ProduceRequest, err error) { done <- err }
	c.Produce(r)
	return <-done
}

// selfSigned makes a certificate for 127.0.0.1 and who trusts it.
func selfSigned(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots}
}
