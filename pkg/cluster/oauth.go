package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"go.uber.org/zap"
)

const (
	maxTokenAnswer = 1 << 20
	// unstatedTokenLife is how long a token is kept whose provider does not
	// say: short, for a token that has ended costs a failed connection.
	unstatedTokenLife = time.Minute
)

// tokenSource fetches tokens by client credentials (RFC 6749, section 4.4)
// and keeps the last one until shortly before it ends. One request at a time:
// a daemon that reconnects to fifty brokers asks the provider once.
type tokenSource struct {
	cfg     OAuth
	client  *http.Client
	timeout time.Duration
	lock    chan struct{} // a mutex that a context can end the wait for

	token string
	until time.Time // when to fetch again
}

func newOAuth(cfg OAuth, provider *guard, timeout time.Duration) (sasl.Mechanism, error) {
	if !cfg.Token.IsZero() {
		return tokenMechanism{oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := cfg.Token.Resolve()
			return oauth.Auth{Token: strings.TrimSpace(token), Extensions: maps.Clone(cfg.Extensions)}, err
		})}, nil
	}
	files := newTLSFiles(TLS{CAFile: cfg.CAFile, MinVersion: "1.2"}, zap.NewNop())
	if _, _, err := files.load(); err != nil {
		return nil, fmt.Errorf("read sasl.oauth.ca_file: %w", err)
	}
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		return provider.conn(ctx, UnknownBroker, addr)
	}
	s := &tokenSource{
		cfg: cfg,
		client: &http.Client{
			// A redirect would carry the secret to where the provider, or who
			// poses as it, wants it.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:       nil, // the guard checks the provider, not a proxy before it
				DialContext: dial,
				DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := dial(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					host, _, _ := net.SplitHostPort(addr)
					return files.client(ctx, conn, host)
				},
				TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
				DisableKeepAlives:   true,
				TLSHandshakeTimeout: timeout,
			},
		},
		timeout: timeout,
		lock:    make(chan struct{}, 1),
	}
	return tokenMechanism{oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		token, err := s.get(ctx)
		if err != nil {
			return oauth.Auth{}, fmt.Errorf("fetch token from %s: %w", redactURL(cfg.TokenURL), err)
		}
		return oauth.Auth{Token: token, Extensions: maps.Clone(cfg.Extensions)}, nil
	})}, nil
}

// tokenMechanism is franz-go's OAUTHBEARER, but for what a broker says when it
// refuses a token.
type tokenMechanism struct{ sasl.Mechanism }

func (m tokenMechanism) Authenticate(ctx context.Context, addr string) (sasl.Session, []byte, error) {
	session, first, err := m.Mechanism.Authenticate(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	return tokenSession{session}, first, nil
}

type tokenSession struct{ sasl.Session }

// Challenge takes an answer with content for the refusal it is (RFC 7628, section 3.2.2).
// To ask for its end, as franz-go does, would only have it said in a second way.
func (s tokenSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) > 0 {
		return false, nil, fmt.Errorf("the broker refused the token: %s", printable(string(answer)))
	}
	return s.Session.Challenge(answer)
}

func (s *tokenSource) get(ctx context.Context) (string, error) {
	select {
	case s.lock <- struct{}{}:
		defer func() { <-s.lock }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if s.token != "" && time.Now().Before(s.until) {
		return s.token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	sent := time.Now()
	token, life, err := s.fetch(ctx)
	if err != nil {
		return "", err
	}
	s.token, s.until = token, sent.Add(keepFor(life))
	return token, nil
}

// keepFor leaves a tenth of a token's life, at most a minute, for the clocks
// and for the broker to look at it.
func keepFor(life time.Duration) time.Duration {
	if life <= 0 {
		life = unstatedTokenLife
	}
	return life - min(life/10, time.Minute)
}

func (s *tokenSource) fetch(ctx context.Context) (token string, life time.Duration, err error) {
	secret, err := s.cfg.ClientSecret.Resolve()
	if err != nil {
		return "", 0, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if s.cfg.Scope != "" {
		form.Set("scope", s.cfg.Scope)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	// RFC 6749, section 2.3.1: both are form-encoded before they go into
	// basic authentication.
	req.SetBasicAuth(url.QueryEscape(s.cfg.ClientID), url.QueryEscape(secret))
	resp, err := s.client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // it repeats the URL
		}
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return "", 0, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > maxTokenAnswer {
		return "", 0, fmt.Errorf("read answer: it is larger than %d bytes", maxTokenAnswer)
	}
	var answer struct {
		Token       string      `json:"access_token"`
		Type        string      `json:"token_type"`
		ExpiresIn   json.Number `json:"expires_in"`
		Error       string      `json:"error"`
		Description string      `json:"error_description"`
	}
	parseErr := json.Unmarshal(body, &answer)
	if resp.StatusCode != http.StatusOK {
		text := "HTTP status " + resp.Status
		if location := resp.Header.Get("Location"); location != "" {
			text += ", a redirect, which is not followed"
		}
		if answer.Error != "" {
			text += ": " + printable(strings.TrimSpace(answer.Error+" "+answer.Description))
		}
		// A provider may repeat what it was sent.
		return "", 0, errors.New(strings.ReplaceAll(text, secret, redacted))
	}
	if parseErr != nil {
		return "", 0, errors.New("read answer: it is not the JSON of a token")
	}
	if answer.Token == "" {
		return "", 0, errors.New("read answer: it holds no access_token")
	}
	if answer.Type != "" && !strings.EqualFold(answer.Type, "bearer") {
		return "", 0, fmt.Errorf("read answer: token type %s is not Bearer", printable(answer.Type))
	}
	seconds, _ := answer.ExpiresIn.Float64()
	seconds = min(max(seconds, 0), (24 * time.Hour).Seconds())
	return answer.Token, time.Duration(seconds * float64(time.Second)), nil
}

// redactURL drops what may carry a credential: user and query.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return redacted
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// providerGuard is the guard of the token endpoint: its own ranges where they
// are configured, else the cluster's. The cluster's ports, names and rewrites
// are those of brokers and do not apply.
func providerGuard(alias string, cfg Config) (*guard, error) {
	o := cfg.SASL.OAuth
	b := Boundary{CIDRs: o.CIDRs, AllowPublic: o.AllowPublic, SourceAddress: cfg.Boundary.SourceAddress}
	if len(o.CIDRs) == 0 && !o.AllowPublic {
		b.CIDRs, b.AllowPublic = cfg.Boundary.CIDRs, cfg.Boundary.AllowPublic
	}
	g, err := newGuard(alias, b, cfg.Timeouts.Dial)
	if err != nil {
		return nil, err
	}
	g.peer = "token endpoint"
	if u, err := url.Parse(o.TokenURL); err == nil && u.Scheme != "https" {
		g.loopback = "without https the client secret would be readable: only loopback addresses"
	}
	return g, nil
}
