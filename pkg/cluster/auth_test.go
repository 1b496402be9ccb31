package cluster

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/sasl/aws"
)

// provider is an identity provider that counts.
type provider struct {
	*httptest.Server
	asked atomic.Int64
}

func newProvider(t *testing.T, answer http.HandlerFunc) (*provider, Config) {
	t.Helper()
	p := &provider{}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	ca := filepath.Join(t.TempDir(), "idp.pem")
	writeFile(t, ca, pemOf(p.Certificate()), 0o644)
	cfg := DefaultConfig()
	cfg.SASL.Mechanism = OAuthBearer
	cfg.SASL.OAuth = OAuth{TokenURL: p.URL + "/token", ClientID: "client one", ClientSecret: LiteralSecret(hidden), Scope: "kafka", CAFile: ca, Extensions: map[string]string{"logicalCluster": "lkc"}}
	return p, cfg
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// first is the message a mechanism begins with.
func first(t *testing.T, cfg Config, o Options) (string, error) {
	t.Helper()
	c, err := newCluster("east", cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	_, message, err := c.mechanism.Authenticate(t.Context(), "kafka.internal:9092")
	return string(message), err
}

func TestTokenIsFetchedOnceForManyConnections(t *testing.T) {
	p, cfg := newProvider(t, func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if user != url.QueryEscape("client one") || pass != hidden || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"access_token":"tok-1","token_type":"Bearer","expires_in":3600}`)
	})
	c, err := newCluster("east", cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, message, err := c.mechanism.Authenticate(t.Context(), "kafka.internal:9092")
			if err != nil || !strings.Contains(string(message), "auth=Bearer tok-1") || !strings.Contains(string(message), "logicalCluster=lkc") {
				t.Errorf("message %q, error %v", message, err)
			}
		})
	}
	wg.Wait()
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func TestTokenIsFetchedAgainShortlyBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := &tokenSource{
			cfg: OAuth{TokenURL: "https://idp.internal/token", ClientID: "c", ClientSecret: LiteralSecret(hidden)},
			client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				asked++
				w := httptest.NewRecorder()
				fmt.Fprintf(w, `{"access_token":"tok-%d","expires_in":300}`, asked)
				return w.Result(), nil
			})},
			timeout: time.Second,
			lock:    make(chan struct{}, 1),
		}
		for _, step := range []struct {
			wait time.Duration
			want string
		}{{0, "tok-1"}, {260 * time.Second, "tok-1"}, {11 * time.Second, "tok-2"}, {time.Hour, "tok-3"}} {
			time.Sleep(step.wait)
			if got, err := s.get(t.Context()); err != nil || got != step.want {
				t.Errorf("after %v: %s, %v; want %s", step.wait, got, err, step.want)
			}
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTokenRequestStaysInsideTheBoundary(t *testing.T) {
	_, cfg := newProvider(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"access_token":"x"}`) })
	seen := &refusals{}
	cfg.Boundary = Boundary{CIDRs: []string{"10.20.0.0/16"}, Ports: []int{9092}, Hosts: []string{"*.internal"}}
	if _, err := first(t, cfg, Options{OnRefusal: seen.add}); err == nil || !strings.Contains(err.Error(), "token endpoint") || !strings.Contains(err.Error(), "boundary.cidrs") {
		t.Errorf("a provider outside the boundary: error is %v", err)
	}
	if len(seen.all()) != 1 {
		t.Errorf("reported %+v", seen.all())
	}
	// With ranges of its own; ports and names of brokers do not apply.
	cfg.SASL.OAuth.CIDRs = []string{"127.0.0.0/8"}
	if _, err := first(t, cfg, Options{}); err != nil {
		t.Error(err)
	}
	// The cloud's metadata service hands out credentials: never.
	cfg.SASL.OAuth.CIDRs = nil
	cfg.SASL.OAuth.TokenURL = "https://169.254.169.254/token"
	cfg.SASL.OAuth.AllowPublic = true
	if _, err := first(t, cfg, Options{Dial: noDial(t)}); err == nil || !strings.Contains(err.Error(), "metadata") {
		t.Errorf("error is %v", err)
	}
	// Plain http to a name that says loopback and is not.
	cfg.SASL.OAuth.TokenURL = "http://localhost:1/token"
	if _, err := first(t, cfg, Options{Dial: noDial(t), Resolver: newTable(map[string][]string{"localhost": {"10.0.0.1"}})}); err == nil || !strings.Contains(err.Error(), "without https") {
		t.Errorf("error is %v", err)
	}
}

func TestProviderThatAnswersBadlyIsSaidWithoutTheSecret(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"refused": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, pass, _ := r.BasicAuth()
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no such secret %s\u0000"}`, pass)
		}, "invalid_client"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/x", http.StatusTemporaryRedirect)
		}, "not followed"},
		"no json":     {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "not the JSON"},
		"no token":    {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }, "no access_token"},
		"other type":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"access_token":"x","token_type":"mac"}`) }, "not Bearer"},
		"far too big": {func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte{' '}, 2<<20)) }, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			p, cfg := newProvider(t, c.answer)
			_, err := first(t, cfg, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error is %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("the error shows the secret: %v", err)
			}
			if p.asked.Load() != 1 {
				t.Errorf("asked %d times", p.asked.Load())
			}
		})
	}
}

func TestReadyTokenIsReadFromItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	cfg := DefaultConfig()
	cfg.SASL.Mechanism, cfg.SASL.OAuth.Token = OAuthBearer, mustSecret(t, "file:"+file)
	for _, token := range []string{"one", "two"} {
		writeFile(t, file, []byte(token+"\n"), 0o600)
		if message, err := first(t, cfg, Options{}); err != nil || !strings.Contains(message, "Bearer "+token+"\x01") {
			t.Errorf("message %q, error %v", message, err)
		}
	}
}

// Where franz-go can sign (the name tells the region), ours is the same.
func TestAWSSignatureIsTheOneOfFranzGo(t *testing.T) {
	const host = "b-1.msk.kafka.eu-west-1.amazonaws.com"
	for _, token := range []string{"", "session/token+with=signs"} {
		auth := aws.Auth{AccessKey: "AKID", SecretKey: hidden, SessionToken: token, UserAgent: "replicator"}
		_, theirs, err := auth.AsManagedStreamingIAMMechanism().Authenticate(t.Context(), host+":9098")
		if err != nil {
			t.Fatal(err)
		}
		var want, got map[string]string
		if err := json.Unmarshal(theirs, &want); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse("20060102T150405Z", want["x-amz-date"])
		if err != nil {
			t.Fatal(err)
		}
		ours, err := signConnect(auth, host, "eu-west-1", at)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(ours, &got); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("signed\n%v, franz-go\n%v", got, want)
		}
	}
}

func TestAWSCredentialsInTheirOrder(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	cfg := DefaultConfig()
	cfg.SASL.Mechanism, cfg.SASL.AWS.Region = AWSMSKIAM, "eu-west-1"
	if _, err := first(t, cfg, Options{}); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("without any: error is %v", err)
	}

	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://203.0.113.9/credentials")
	if _, err := first(t, cfg, Options{}); err == nil || !strings.Contains(err.Error(), "not an address AWS serves") {
		t.Errorf("an endpoint elsewhere: error is %v", err)
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "container-token" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"AccessKeyId":"FROMCONTAINER","SecretAccessKey":%q,"Token":"t"}`, hidden)
	}))
	defer server.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.URL)
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
	check := func(want string) {
		t.Helper()
		message, err := first(t, cfg, Options{})
		if err != nil || !strings.Contains(message, want+"/") || !strings.Contains(message, "/eu-west-1/kafka-cluster/") || strings.Contains(message, hidden) {
			t.Errorf("message %s, error %v; want key %s", message, err, want)
		}
	}
	check("FROMCONTAINER")
	t.Setenv("AWS_ACCESS_KEY_ID", "FROMENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", hidden)
	check("FROMENV")
	cfg.SASL.AWS.AccessKey, cfg.SASL.AWS.SecretKey = LiteralSecret("FROMCONFIG"), LiteralSecret(hidden)
	check("FROMCONFIG")
}
