package cluster

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// newMechanism returns the mechanism that kgo clients and data connections
// alike authenticate by, nil for none. Secrets are read when a connection
// authenticates, not here. The provider guard serves token requests.
func newMechanism(cfg Config, provider *guard) (sasl.Mechanism, error) {
	s := cfg.SASL
	switch s.Mechanism {
	case NoSASL:
		return nil, nil
	case Plain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := s.Password.Resolve()
			return plain.Auth{User: s.Username, Pass: pass}, err
		}), nil
	case ScramSHA256:
		return scram.Sha256(s.scram), nil
	case ScramSHA512:
		return scram.Sha512(s.scram), nil
	case OAuthBearer:
		return newOAuth(s.OAuth, provider, cfg.Timeouts.Dial)
	case AWSMSKIAM:
		return newAWS(s.AWS, cfg.Timeouts.Dial), nil
	}
	return nil, fmt.Errorf("choose SASL mechanism: %q is unknown", s.Mechanism)
}

func (s SASL) scram(context.Context) (scram.Auth, error) {
	pass, err := s.Password.Resolve()
	return scram.Auth{User: s.Username, Pass: pass}, err
}

// bareCredentials reports a mechanism that shows its secret to whoever reads
// the connection.
func (m Mechanism) bareCredentials() bool { return m == Plain || m == OAuthBearer }
