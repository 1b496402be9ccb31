package cluster

import "time"

// Config says how to reach one Kafka cluster, and where its connections may
// go. The zero value is not usable; start from DefaultConfig.
type Config struct {
	// BootstrapServers are host:port addresses of brokers (or of a load
	// balancer before them) to learn the others from.
	BootstrapServers []string `koanf:"bootstrap_servers"`
	// ClusterID pins the cluster: another one behind the address is refused.
	// Empty accepts any.
	ClusterID string `koanf:"cluster_id"`
	// Rack is the zone the daemon runs in. Where brokers are configured for
	// it, records are then fetched from a replica in the same zone.
	Rack     string   `koanf:"rack"`
	TLS      TLS      `koanf:"tls"`
	SASL     SASL     `koanf:"sasl"`
	Boundary Boundary `koanf:"boundary"`
	Timeouts Timeouts `koanf:"timeouts"`
}

// TLS configures encryption and, with a certificate of its own, mutual
// authentication. All files are PEM and are looked at again for each new
// connection.
type TLS struct {
	Enabled bool `koanf:"enabled"`
	// CAFile holds the certificates that may have signed the brokers'. Empty
	// takes the system's.
	CAFile string `koanf:"ca_file"`
	// CertFile and KeyFile are the client certificate (with its chain) and its
	// key for mutual TLS; both or neither. The key must not be readable by
	// everybody.
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
	// ServerName is the name every broker's certificate is checked against.
	// Empty takes the host the broker advertises.
	ServerName string `koanf:"server_name"`
	// MinVersion is the oldest protocol version taken: "1.2" or "1.3".
	MinVersion string `koanf:"min_version"`
}

// Mechanism is a SASL mechanism by Kafka's name for it.
type Mechanism string

// The mechanisms this package speaks. NoSASL is the default.
const (
	NoSASL      Mechanism = ""
	Plain       Mechanism = "PLAIN"
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
	OAuthBearer Mechanism = "OAUTHBEARER"
	AWSMSKIAM   Mechanism = "AWS_MSK_IAM"
)

// SASL configures authentication by name.
type SASL struct {
	Mechanism Mechanism `koanf:"mechanism"`
	Username  string    `koanf:"username"`
	Password  Secret    `koanf:"password"`
	// AllowPlaintext permits PLAIN and OAUTHBEARER without TLS to addresses
	// other than loopback. The password or token is then readable on the wire.
	AllowPlaintext bool  `koanf:"allow_plaintext"`
	OAuth          OAuth `koanf:"oauth"`
	AWS            AWS   `koanf:"aws"`
}

// OAuth configures OAUTHBEARER: a token from a file or variable, or one
// fetched from an identity provider by client credentials.
type OAuth struct {
	// Token is a reference to a ready token, read at each authentication.
	// Excludes TokenURL.
	Token Secret `koanf:"token"`
	// TokenURL is the provider's token endpoint; https unless loopback.
	// Redirects are not followed.
	TokenURL     string `koanf:"token_url"`
	ClientID     string `koanf:"client_id"`
	ClientSecret Secret `koanf:"client_secret"`
	Scope        string `koanf:"scope"`
	// Extensions are sent to the broker along with the token.
	Extensions map[string]string `koanf:"extensions"`
	// CAFile holds the certificates that may have signed the provider's.
	CAFile string `koanf:"ca_file"`
	// CIDRs the provider may lie in, instead of the cluster's boundary.
	CIDRs []string `koanf:"cidrs"`
	// AllowPublic permits a provider on a public address.
	AllowPublic bool `koanf:"allow_public"`
}

// AWS configures AWS_MSK_IAM. Without keys here the standard variables
// (AWS_ACCESS_KEY_ID ...) are used, then the container credentials endpoint
// (ECS task role, EKS pod identity) that AWS puts into the environment.
type AWS struct {
	// Region signs for this region. Empty takes it from the broker's name,
	// then from AWS_REGION.
	Region       string `koanf:"region"`
	AccessKey    Secret `koanf:"access_key"`
	SecretKey    Secret `koanf:"secret_key"`
	SessionToken Secret `koanf:"session_token"`
	// UserAgent is what IAM conditions on aws:UserAgent see.
	UserAgent string `koanf:"user_agent"`
}

// Boundary says where connections to the cluster may go. Everything in it
// must hold at once; an empty list asks for nothing, but for CIDRs.
type Boundary struct {
	// CIDRs an address must lie in. Empty means private addresses: RFC 1918,
	// RFC 4193, loopback and link-local. Carrier-grade NAT (100.64.0.0/10) is
	// shared, not private: name it here where a network uses it.
	CIDRs []string `koanf:"cidrs"`
	// Ports that may be dialled. Empty is any.
	Ports []int `koanf:"ports"`
	// Hosts are patterns a name must match, "*" standing for any run of
	// characters but a dot, a leading "*." for any number of labels. Empty is
	// any. An advertised IP address matches by its text.
	Hosts []string `koanf:"hosts"`
	// AllowPublic permits public addresses: those in CIDRs, or any when CIDRs
	// is empty.
	AllowPublic bool `koanf:"allow_public"`
	// Rewrite maps advertised addresses to those to dial instead (endpoint
	// services, tunnels). The first rule that matches wins. TLS still checks
	// the advertised name; the boundary checks what is dialled.
	Rewrite []Rewrite `koanf:"rewrite"`
	// SourceAddress is the local IP address connections leave from. Empty
	// leaves it to the system.
	SourceAddress string `koanf:"source_address"`
}

// Rewrite is one rule: From is host[:port], the host possibly a pattern as in
// Boundary.Hosts; To is host[:port]. A port left out is any, or stays.
type Rewrite struct {
	From string `koanf:"from"`
	To   string `koanf:"to"`
}

// Timeouts bound what may wait on the network.
type Timeouts struct {
	// Dial bounds one connection: resolving, TCP, TLS.
	Dial time.Duration `koanf:"dial"`
	// Request bounds one request from its sending to its answer, beyond the
	// time the broker was asked to wait.
	Request time.Duration `koanf:"request"`
	// Retry bounds how long a control request is tried again.
	Retry time.Duration `koanf:"retry"`
}

// DefaultConfig is the one place where the defaults of a cluster are written.
func DefaultConfig() Config {
	return Config{
		TLS: TLS{MinVersion: "1.2"},
		Timeouts: Timeouts{
			Dial:    10 * time.Second,
			Request: 10 * time.Second,
			Retry:   30 * time.Second,
		},
	}
}

// Secrets are the values of all secrets of the configuration that can be read: what must
// not stand in anything that is kept.
func (c Config) Secrets() []string {
	var out []string
	for _, s := range []Secret{
		c.SASL.Password, c.SASL.OAuth.Token, c.SASL.OAuth.ClientSecret, c.SASL.AWS.AccessKey, c.SASL.AWS.SecretKey, c.SASL.AWS.SessionToken,
	} {
		if value, err := s.Resolve(); err == nil && value != "" {
			out = append(out, value)
		}
	}
	return out
}
