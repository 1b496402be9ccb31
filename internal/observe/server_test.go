package observe

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"replicator/internal/status"
	"replicator/internal/testlog"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"replicator/internal/config"
	"replicator/pkg/cluster"
)

// patience is the header timeout of servers that listening starts.
var patience = headerTime

// listening is a server on a free port of loopback, served until the test ends.
func listening(t *testing.T, source *Source, change func(*ServerConfig)) *Server {
	t.Helper()
	cfg := ServerConfig{
		HTTP: config.Default().HTTP, Source: source, Log: testlog.New(t),
		Gatherer: NewRegistry(NewCollector(CollectorConfig{Source: source, Partitions: true})),
	}
	cfg.HTTP.Listen = "127.0.0.1:0"
	if change != nil {
		change(&cfg)
	}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.http.ReadHeaderTimeout = min(s.http.ReadHeaderTimeout, patience)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends one request on a connection of its own.
func ask(t *testing.T, method, url string, change func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		status status.Status
		path   string
		code   int
		body   string // whole, or with a trailing * its beginning
	}{
		"healthy is alive":                 {healthy(), "/healthz", 200, `{"alive":true}` + "\n"},
		"halted is alive":                  {example(), "/healthz", 200, `{"alive":true}` + "\n"},
		"hung is not alive":                {silent(), "/healthz", 503, `{"alive":false,"reasons":["link east->west does not answer"]}` + "\n"},
		"healthy is ready":                 {healthy(), "/readyz", 200, `{"ready":true}` + "\n"},
		"halted is not ready and says why": {example(), "/readyz", 503, `{"ready":false,"reasons":["link east->west: 2 of 3 lanes are not copying"]}` + "\n"},
		"hung is not ready":                {silent(), "/readyz", 503, `{"ready":false,"reasons":["link east->west: silent"]}` + "\n"},
		"no link is not ready":             {status.Status{}, "/readyz", 503, `{"ready":false,"reasons":["no link is running"]}` + "\n"},
		"status":                           {example(), "/status", 200, `{"time":"2026-03-01T12:00:00Z","version":"v1.2.3",*`},
		"metrics":                          {example(), "/metrics", 200, "# HELP go_*"},
		"index":                            {example(), "/", 200, "replicator\n*"},
		"pprof is off":                     {example(), "/debug/pprof/", 404, "*"},
		"unknown path":                     {example(), "/stop", 404, "*"},
	} {
		t.Run(name, func(t *testing.T) {
			s := listening(t, always(c.status), nil)
			code, _, body := ask(t, http.MethodGet, s.URL()+c.path, nil)
			body = strings.ReplaceAll(body, `\u003e`, ">")
			beginning, partly := strings.CutSuffix(c.body, "*")
			if code != c.code || body != beginning && !(partly && strings.HasPrefix(body, beginning)) {
				t.Errorf("got %d %.300q, want %d %q", code, body, c.code, c.body)
			}
		})
	}
}

func TestStatusIsTheSnapshot(t *testing.T) {
	s := listening(t, always(example()), nil)
	_, _, body := ask(t, http.MethodGet, s.URL()+"/status", nil)
	var got status.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(example(), got); d != "" {
		t.Error("what /status shows (-snapshot +shown)", d)
	}
}

func TestNamesInStatusCannotCommandATerminal(t *testing.T) {
	st := example()
	st.Links[0].Reason = "a\x1b]0;x\x07 b\u009b31m c\u202ed \x7f \U000E0041 é"
	s := listening(t, always(st), nil)
	_, _, body := ask(t, http.MethodGet, s.URL()+"/status", nil)
	if !clean(strings.TrimSuffix(body, "\n")) {
		t.Errorf("unprintable characters in %q", body)
	}
	var got status.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Links[0].Reason != st.Links[0].Reason {
		t.Errorf("escaping changed the value: %q", got.Links[0].Reason)
	}
}

func TestOnlyGetAndHeadAreAnswered(t *testing.T) {
	var asked atomic.Int32
	source := NewSource(func(context.Context) status.Status { asked.Add(1); return example() })
	s := listening(t, source, func(c *ServerConfig) { c.HTTP.Pprof = true })
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/status", "/debug/pprof/", "/stop"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			code, head, _ := ask(t, method, s.URL()+path, nil)
			if code != http.StatusMethodNotAllowed || head.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, code, head.Get("Allow"))
			}
		}
	}
	if asked.Load() != 0 {
		t.Error("a refused request was looked at")
	}
	if code, _, body := ask(t, http.MethodHead, s.URL()+"/status", nil); code != http.StatusOK || body != "" {
		t.Errorf("HEAD: %d with body %q", code, body)
	}
}

func TestForeignHostsAndOriginsAreRefused(t *testing.T) {
	s := listening(t, always(example()), func(c *ServerConfig) { c.HTTP.AllowedHosts = []string{"localhost", "Replicator.internal"} })
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"127.0.0.1:" + port, "", 200},
		{"127.0.0.1", "", 200},
		{"[::1]:" + port, "", 200},
		{"localhost:" + port, "", 200},
		{"LOCALHOST.", "", 200},
		{"replicator.internal", "", 200},
		{"attacker.example:" + port, "", 421}, // its name points here for a moment
		{"localhost.attacker.example", "", 421},
		{"127.0.0.1.attacker.example", "", 421},
		{"203.0.113.9", "", 421},
		{"127.0.0.1:" + port, "http://127.0.0.1:" + port, 200},
		{"127.0.0.1:" + port, "http://attacker.example", 403},
		{"127.0.0.1:" + port, "null", 403},
	} {
		for _, path := range []string{"/status", "/metrics", "/healthz", "/nowhere"} {
			want := c.want
			if path == "/nowhere" && want == 200 {
				want = 404
			}
			code, head, _ := ask(t, http.MethodGet, s.URL()+path, func(r *http.Request) {
				r.Host = c.host
				if c.origin != "" {
					r.Header.Set("Origin", c.origin)
				}
			})
			if code != want {
				t.Errorf("%s for host %q, origin %q: %d, want %d", path, c.host, c.origin, code, want)
			}
			if v := head.Get("Access-Control-Allow-Origin"); v != "" {
				t.Errorf("a page of elsewhere may read the answer: %s", v)
			}
		}
	}
}

func TestTokenGuardsAllButHealth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first-token")
	secret, err := cluster.ParseSecret("file:" + file)
	if err != nil {
		t.Fatal(err)
	}
	s := listening(t, always(example()), func(c *ServerConfig) { c.HTTP.Token = secret })
	with := func(auth string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", auth) }
	}
	for _, auth := range []string{"", "Bearer ", "Bearer wrong", "first-token", "Basic first-token"} {
		for _, path := range []string{"/", "/status", "/metrics"} {
			if code, _, _ := ask(t, http.MethodGet, s.URL()+path, with(auth)); code != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d", path, auth, code)
			}
		}
	}
	if code, _, _ := ask(t, http.MethodGet, s.URL()+"/status", with("Bearer first-token")); code != http.StatusOK {
		t.Errorf("with the token: %d", code)
	}
	if code, _, body := ask(t, http.MethodGet, s.URL()+"/healthz", nil); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, _, body := ask(t, http.MethodGet, s.URL()+"/readyz", nil); code != http.StatusServiceUnavailable || strings.Contains(body, "lanes") {
		t.Errorf("readyz without the token: %d %s", code, body)
	}
	write("second-token") // rotated
	if code, _, _ := ask(t, http.MethodGet, s.URL()+"/status", with("Bearer second-token")); code != http.StatusOK {
		t.Errorf("with the new token: %d", code)
	}
	if code, _, _ := ask(t, http.MethodGet, s.URL()+"/status", with("Bearer first-token")); code != http.StatusUnauthorized {
		t.Errorf("with the old token: %d", code)
	}
}

func TestTLSTakesARotatedCertificate(t *testing.T) {
	dir := t.TempDir()
	files := config.HTTPTLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	writeCertificate(t, files, 1)
	s := listening(t, always(healthy()), func(c *ServerConfig) { c.HTTP.TLS = files })
	if !strings.HasPrefix(s.URL(), "https://") {
		t.Errorf("URL %s", s.URL())
	}
	serial := func() int64 {
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("serial %d", n)
	}
	writeCertificate(t, files, 2)
	if n := serial(); n != 2 {
		t.Errorf("serial %d after the rotation", n)
	}
}

func writeCertificate(t *testing.T, files config.HTTPTLS, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{files.CertFile: {Type: "CERTIFICATE", Bytes: cert}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPprofByOption(t *testing.T) {
	s := listening(t, always(example()), func(c *ServerConfig) { c.HTTP.Pprof = true })
	if code, _, _ := ask(t, http.MethodGet, s.URL()+"/debug/pprof/goroutine?debug=1", nil); code != http.StatusOK {
		t.Errorf("pprof: %d", code)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	first := listening(t, always(example()), nil)
	cfg := ServerConfig{HTTP: config.HTTP{Listen: first.listener.Addr().String()}, Log: testlog.New(t)}
	_, err := Listen(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "listen on "+cfg.HTTP.Listen+" (http.listen): the port is taken by another process") {
		t.Errorf("got %v", err)
	}
}

func TestSlowClientsAreCutOff(t *testing.T) {
	patience = 50 * time.Millisecond
	defer func() { patience = headerTime }()
	s := listening(t, always(example()), nil)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.Contains(line, "408") {
		t.Errorf("answered %q", line)
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("a client that never ends its request keeps its connection")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := limitListener(inner, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close() // gives its place back only once
	third := <-accepted
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("accept goes on after close")
	}
	_, _ = second.Close(), third.Close()
}

func TestRequestsAreBounded(t *testing.T) {
	release := make(chan struct{})
	asked := make(chan struct{}, 1)
	s := listening(t, NewSource(func(context.Context) status.Status {
		asked <- struct{}{}
		<-release
		return healthy()
	}), nil)
	answers := make(chan int, maxRequests)
	for range maxRequests {
		go func() {
			code := http.StatusServiceUnavailable
			for code == http.StatusServiceUnavailable { // the question below may have the slot
				code, _, _ = ask(t, http.MethodGet, s.URL()+"/status", nil)
			}
			answers <- code
		}()
	}
	<-asked
	for { // until all slots are taken
		code, head, _ := ask(t, http.MethodHead, s.URL()+"/", nil)
		if code == http.StatusServiceUnavailable && head.Get("Retry-After") != "" {
			break
		}
	}
	close(release)
	for range maxRequests {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	}
}

// Metrics of many lanes take memory: scrapes beyond a few are told to come again,
// and do not keep others from asking for something else.
func TestScrapesAreBounded(t *testing.T) {
	began, release := make(chan struct{}, maxRequests), make(chan struct{})
	source := NewSource(func(context.Context) status.Status { return status.Status{} })
	s := listening(t, source, func(cfg *ServerConfig) {
		cfg.Gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			began <- struct{}{}
			<-release
			return nil, nil
		})
	})
	answers := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() {
			code, _, _ := ask(t, http.MethodGet, s.URL()+"/metrics", nil)
			answers <- code
		}()
	}
	for range maxScrapes {
		<-began
	}
	if code, _, _ := ask(t, http.MethodGet, s.URL()+"/metrics", nil); code != http.StatusServiceUnavailable {
		t.Errorf("one scrape too many got %d", code)
	}
	if code, _, _ := ask(t, http.MethodGet, s.URL()+"/healthz", nil); code != http.StatusOK {
		t.Errorf("health meanwhile: %d", code)
	}
	close(release)
	for range maxScrapes {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("a scrape got %d", code)
		}
	}
}
