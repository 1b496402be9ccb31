package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
)

// awsMechanism is franz-go's AWS_MSK_IAM, but for one case: a region that is
// configured because the broker's name does not tell it (a private alias).
// franz-go then knows only the environment, which two clusters in two regions
// would have to share.
type awsMechanism struct {
	sasl.Mechanism
	cfg         AWS
	credentials func(context.Context) (aws.Auth, error)
}

func newAWS(cfg AWS, timeout time.Duration) sasl.Mechanism {
	get := func(ctx context.Context) (aws.Auth, error) {
		auth, err := awsCredentials(ctx, cfg, timeout)
		if err != nil {
			return aws.Auth{}, fmt.Errorf("get AWS credentials: %w", err)
		}
		auth.UserAgent = cfg.UserAgent
		return auth, nil
	}
	return &awsMechanism{Mechanism: aws.ManagedStreamingIAM(get), cfg: cfg, credentials: get}
}

func (m *awsMechanism) Authenticate(ctx context.Context, addr string) (sasl.Session, []byte, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	if m.cfg.Region == "" || awsHost(host) {
		return m.Mechanism.Authenticate(ctx, addr)
	}
	auth, err := m.credentials(ctx)
	if err != nil {
		return nil, nil, err
	}
	first, err := signConnect(auth, host, m.cfg.Region, time.Now())
	return awsSession{}, first, err
}

// awsHost reports a name that tells its region, as franz-go reads it.
func awsHost(host string) bool {
	for _, suffix := range []string{".amazonaws.com", ".amazonaws.com.cn", ".c2s.ic.gov", ".sc2s.sgov.gov"} {
		if rest, ok := strings.CutSuffix(host, suffix); ok && strings.Contains(rest, ".") {
			return true
		}
	}
	return false
}

type awsSession struct{}

func (awsSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) == 0 {
		return false, nil, errors.New("the broker answered AWS_MSK_IAM with nothing")
	}
	return true, nil, nil
}

// signConnect is the first message of AWS_MSK_IAM: a presigned request (SigV4)
// for kafka-cluster:Connect, good for five minutes, as JSON.
func signConnect(auth aws.Auth, host, region string, now time.Time) ([]byte, error) {
	stamp := now.UTC().Format("20060102T150405Z")
	day := stamp[:8]
	scope := strings.Join([]string{day, region, "kafka-cluster", "aws4_request"}, "/")
	query := url.Values{
		"Action":              {"kafka-cluster:Connect"},
		"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
		"X-Amz-Credential":    {auth.AccessKey + "/" + scope},
		"X-Amz-Date":          {stamp},
		"X-Amz-Expires":       {"900"},
		"X-Amz-SignedHeaders": {"host"},
	}
	if auth.SessionToken != "" {
		query.Set("X-Amz-Security-Token", auth.SessionToken)
	}
	canonical := strings.Join([]string{
		"GET", "/", strings.ReplaceAll(query.Encode(), "+", "%20"),
		"host:" + host, "", "host", hexSHA256(""),
	}, "\n")
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hexSHA256(canonical)}, "\n")
	key := []byte("AWS4" + auth.SecretKey)
	for _, part := range []string{day, region, "kafka-cluster", "aws4_request", toSign} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	message := map[string]string{
		"version":         "2020_10_22",
		"host":            host,
		"user-agent":      auth.UserAgent,
		"x-amz-signature": hex.EncodeToString(key),
	}
	if auth.UserAgent == "" {
		message["user-agent"] = "replicator"
	}
	for name := range query {
		message[strings.ToLower(name)] = query.Get(name)
	}
	return json.Marshal(message)
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// awsCredentials looks in the configuration, then in the environment, then at
// the container's credentials endpoint. Each authentication asks anew: the
// answers rotate.
func awsCredentials(ctx context.Context, cfg AWS, timeout time.Duration) (aws.Auth, error) {
	if !cfg.AccessKey.IsZero() {
		var auth aws.Auth
		var err error
		if auth.AccessKey, err = cfg.AccessKey.Resolve(); err != nil {
			return auth, err
		}
		if auth.SecretKey, err = cfg.SecretKey.Resolve(); err != nil {
			return auth, err
		}
		if !cfg.SessionToken.IsZero() {
			auth.SessionToken, err = cfg.SessionToken.Resolve()
		}
		return auth, err
	}
	if id, key := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"); id != "" && key != "" {
		return aws.Auth{AccessKey: id, SecretKey: key, SessionToken: os.Getenv("AWS_SESSION_TOKEN")}, nil
	}
	endpoint := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if path := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); endpoint == "" && path != "" {
		endpoint = "http://169.254.170.2" + path
	}
	if endpoint == "" {
		return aws.Auth{}, errors.New("none in sasl.aws, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or at AWS_CONTAINER_CREDENTIALS_FULL_URI")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	auth, err := containerCredentials(ctx, endpoint)
	if err != nil {
		return auth, fmt.Errorf("ask %s: %w", redactURL(endpoint), err)
	}
	return auth, nil
}

// containerEndpoints are the addresses AWS serves container credentials at;
// with loopback, all the SDKs accept without https. Nothing else is asked:
// this is the one connection beside the guard, so it has its own short list.
var containerEndpoints = []netip.Addr{
	netip.MustParseAddr("169.254.170.2"),
	netip.MustParseAddr("169.254.170.23"),
	netip.MustParseAddr("fd00:ec2::23"),
}

func containerCredentials(ctx context.Context, endpoint string) (aws.Auth, error) {
	var auth aws.Auth
	u, err := url.Parse(endpoint)
	if err != nil {
		return auth, errors.New("not a URL")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil && u.Hostname() == "localhost" {
		ip, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if err != nil || !ip.IsLoopback() && !slices.Contains(containerEndpoints, ip.Unmap()) {
		return auth, errors.New("not an address AWS serves container credentials at, nor loopback")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return auth, err
	}
	token := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if path := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return auth, fmt.Errorf("read AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return auth, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return auth, errors.New("HTTP status " + resp.Status)
	}
	var answer struct {
		AccessKeyID, SecretAccessKey, Token string // matched without regard to case
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTokenAnswer)).Decode(&answer); err != nil {
		return auth, errors.New("read answer: it is not the JSON of credentials")
	}
	if answer.AccessKeyID == "" || answer.SecretAccessKey == "" {
		return auth, errors.New("read answer: it holds no keys")
	}
	return aws.Auth{AccessKey: answer.AccessKeyID, SecretKey: answer.SecretAccessKey, SessionToken: answer.Token}, nil
}
