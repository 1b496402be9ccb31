package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func plainMechanism(password string) sasl.Mechanism {
	return plain.Auth{User: "replicator", Pass: password}.AsMechanism()
}

func TestAuthentication(t *testing.T) {
	mechanisms := map[string]func(password string) sasl.Mechanism{
		"PLAIN": plainMechanism,
		"SCRAM-SHA-256": func(p string) sasl.Mechanism {
			return scram.Auth{User: "replicator", Pass: p}.AsSha256Mechanism()
		},
		"SCRAM-SHA-512": func(p string) sasl.Mechanism {
			return scram.Auth{User: "replicator", Pass: p}.AsSha512Mechanism()
		},
	}
	for name, mechanism := range mechanisms {
		t.Run(name, func(t *testing.T) {
			fake := newFake(t, kfake.EnableSASL(), kfake.Superuser(name, "replicator", "hunter2"))
			c := connectTo(t, Config{Addr: fake.ListenAddrs()[0], SASL: mechanism("hunter2")})
			if _, err := c.Request(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
				t.Error(err)
			}
			_, err := tryConnect(t, Config{Addr: fake.ListenAddrs()[0], SASL: mechanism("opensesame")})
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "broker 7") || strings.Contains(err.Error(), "opensesame") {
				t.Errorf("wrong password: %v", err)
			}
		})
	}
}

// A real broker says why, and hangs up.
func TestRefusedAuthenticationSaysWhatTheBrokerSaid(t *testing.T) {
	for range 50 { // the hanging up must never win over the reason
		_, err := tryConnect(t, Config{SASL: plainMechanism("hunter2"), Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			resp := req.ResponseKind()
			if r, ok := resp.(*kmsg.SASLAuthenticateResponse); ok {
				r.ErrorCode = kerr.SaslAuthenticationFailed.Code
				r.ErrorMessage = new("Authentication failed: Invalid username or password")
				writePeerAnswer(w, corr, resp)
				return io.EOF
			}
			return writePeerAnswer(w, corr, resp)
		})})
		if !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Fatal(err)
		}
		for _, want := range []string{"authenticate by PLAIN", "broker 7 at broker.test:9092", "Invalid username or password"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %q holds the secret", err)
		}
	}
}

func TestUnknownMechanismNamesThoseTheBrokerTakes(t *testing.T) {
	_, err := tryConnect(t, Config{SASL: plainMechanism("x"), Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		resp.SupportedMechanisms = []string{"SCRAM-SHA-512", "OAUTHBEARER"}
		return writePeerAnswer(w, corr, resp)
	})})
	if !errors.Is(err, kerr.UnsupportedSaslMechanism) || !strings.Contains(err.Error(), `["SCRAM-SHA-512" "OAUTHBEARER"]`) {
		t.Error(err)
	}
}

// The broker ends sessions after a minute. For an hour we are busy, with
// requests in flight all the time, and no request comes with a dead session.
func TestAuthenticationIsRenewedBetweenPipelinedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lifetime = time.Minute
		var session time.Time
		renewed := 0
		var order []string
		c := connectTo(t, Config{SASL: plainMechanism("hunter2"), Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			resp := req.ResponseKind()
			switch r := resp.(type) {
			case *kmsg.SASLAuthenticateResponse:
				session = time.Now().Add(lifetime)
				r.SessionLifetimeMillis = lifetime.Milliseconds()
				renewed++
			case *kmsg.SASLHandshakeResponse:
			default:
				if !time.Now().Before(session) {
					t.Errorf("%T with a dead session", req)
				}
				if p, ok := req.(*kmsg.ProduceRequest); ok {
					resp = answerAll(p)
				}
			}
			time.Sleep(700 * time.Millisecond) // so that several are under way
			return writePeerAnswer(w, corr, resp)
		})})
		start := time.Now()
		done := make(chan struct{}, 5)
		for i := 0; time.Since(start) < time.Hour; i++ {
			done <- struct{}{}
			c.Produce(&ProduceRequest{Parts: []ProducePart{{Topic: "orders", Tag: i, Records: []byte{1}}}, Done: func(r *ProduceRequest, err error) {
				if err != nil {
					t.Error(err)
				}
				order = append(order, fmt.Sprint(r.Parts[0].Tag))
				<-done
			}})
			if c.Err() != nil {
				break
			}
		}
		time.Sleep(10 * time.Minute) // idle beyond the session
		if _, err := c.Request(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
			t.Error(err)
		}
		if renewed < 60 || renewed > 75 {
			t.Errorf("authenticated %d times in an hour", renewed)
		}
		for i, got := range order {
			if got != fmt.Sprint(i) {
				t.Fatalf("request %s was answered as number %d", got, i)
			}
		}
	})
}

func TestRefusedRenewalEndsTheConnectionBeforeTheNextRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := false
		c := connectTo(t, Config{SASL: plainMechanism("hunter2"), Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			resp := req.ResponseKind()
			if r, ok := resp.(*kmsg.SASLAuthenticateResponse); ok {
				r.SessionLifetimeMillis = 10_000
				if refuse {
					r.ErrorCode = kerr.SaslAuthenticationFailed.Code
				}
			}
			return writePeerAnswer(w, corr, resp)
		})})
		refuse = true
		time.Sleep(time.Minute)
		err := produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: []byte{1}}}})
		if !errors.Is(err, kerr.SaslAuthenticationFailed) || !errors.Is(err, ErrNotSent) {
			t.Error(err)
		}
	})
}

func TestSessionsOfAFakeClusterAreRenewed(t *testing.T) {
	fake := newFake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "replicator", "hunter2"),
		kfake.BrokerConfigs(map[string]string{"connections.max.reauth.ms": "200"}))
	renewed := make(chan struct{}, 100)
	mechanism := countingMechanism{scram.Auth{User: "replicator", Pass: "hunter2"}.AsSha256Mechanism(), renewed}
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0], SASL: mechanism})
	var wg sync.WaitGroup
	for len(renewed) < 4 {
		wg.Add(5)
		for range 5 {
			c.Go(kmsg.NewPtrMetadataRequest(), func(_ kmsg.Response, err error) {
				defer wg.Done()
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if c.Err() != nil {
			t.Fatal(c.Err())
		}
	}
}

type countingMechanism struct {
	sasl.Mechanism
	begun chan struct{}
}

func (m countingMechanism) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	m.begun <- struct{}{}
	return m.Mechanism.Authenticate(ctx, host)
}

func TestFailingMechanism(t *testing.T) {
	noToken := errors.New("no token today")
	_, err := tryConnect(t, Config{SASL: failingMechanism{noToken}, Dial: func(context.Context, string) (net.Conn, error) {
		return pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			return writePeerAnswer(w, corr, req.ResponseKind())
		})(t.Context(), "")
	}})
	if !errors.Is(err, noToken) || !strings.Contains(err.Error(), "authenticate by OAUTHBEARER") {
		t.Error(err)
	}
}

type failingMechanism struct{ err error }

func (m failingMechanism) Name() string { return "OAUTHBEARER" }

func (m failingMechanism) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	return nil, nil, m.err
}
