package wire

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// setUp makes a fresh connection ready for requests. It runs on the writer.
func (c *Conn) setUp() error {
	if err := c.askVersions(); err != nil {
		return err
	}
	return c.authenticate()
}

// askVersions learns what the broker takes. A broker that does not take this
// version of the question says so in version 0 and names the newest it takes
// (KIP-511); older ones do not name it.
func (c *Conn) askVersions() error {
	version := int16(3) // the first that says who we are, the last that says no more
	for {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName = "replicator"
		req.ClientSoftwareVersion = c.cfg.SoftwareVersion
		answer, err := c.exchange(c.encodeAs(req, version), nil)
		if err != nil {
			return err
		}
		resp := answer.(*kmsg.ApiVersionsResponse)
		if resp.ErrorCode == kerr.UnsupportedVersion.Code && version > 0 {
			lower := int16(0)
			for _, k := range resp.ApiKeys {
				if k.ApiKey == req.Key() {
					lower = min(max(k.MaxVersion, 0), version-1)
				}
			}
			version = lower
			continue
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return c.error("ask versions", err)
		}
		c.vers = make(map[int16]versions, len(resp.ApiKeys))
		for _, k := range resp.ApiKeys {
			c.vers[k.ApiKey] = versions{k.MinVersion, k.MaxVersion}
		}
		return nil
	}
}

// versionFallback returns the body of an answer to decode. An ApiVersions
// answer that refuses the version is always of version 0.
func versionFallback(k *call, body []byte) []byte {
	if k.key == kmsg.ApiVersions.Int16() && k.version > 0 {
		r := bodyReader{rest: body}
		if r.int16() == kerr.UnsupportedVersion.Code {
			k.resp.SetVersion(0)
		}
	}
	return body
}

// reauthenticate authenticates again before the broker's session ends
// (KIP-368). It runs on the writer between two requests. Requests sent before
// may still be unanswered: the broker works on them first.
func (c *Conn) reauthenticate() error {
	if c.reauthAt.IsZero() || time.Now().Before(c.reauthAt) {
		return nil
	}
	return c.authenticate()
}

// authenticate does the SASL exchange, if one is configured.
func (c *Conn) authenticate() error {
	mechanism := c.cfg.SASL
	if mechanism == nil {
		return nil
	}
	what := "authenticate by " + mechanism.Name()
	if err := c.handshake(what); err != nil {
		return err
	}
	version, err := c.negotiate(kmsg.SASLAuthenticate.Int16(), 0, 2)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Timeout)
	defer cancel()
	session, message, err := mechanism.Authenticate(ctx, c.cfg.Addr)
	if err != nil {
		return c.error(what, err)
	}
	if len(message) == 0 {
		return c.error(what, errors.New("mechanism has nothing to say first"))
	}
	for done := false; !done || len(message) > 0; {
		asked := time.Now()
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.SASLAuthBytes = message
		k := c.encodeAs(req, version)
		k.what = what
		answer, err := c.exchange(k, refusedAuthentication)
		if err != nil {
			return err
		}
		resp := answer.(*kmsg.SASLAuthenticateResponse)
		c.renewBefore(asked, resp.SessionLifetimeMillis)
		message = nil
		if !done {
			if done, message, err = session.Challenge(resp.SASLAuthBytes); err != nil {
				return c.error(what, err)
			}
		}
	}
	return nil
}

// handshake names the mechanism.
func (c *Conn) handshake(what string) error {
	version, err := c.negotiate(kmsg.SASLHandshake.Int16(), 1, 1)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = c.cfg.SASL.Name()
	k := c.encodeAs(req, version)
	k.what = what
	_, err = c.exchange(k, func(resp kmsg.Response) error {
		r := resp.(*kmsg.SASLHandshakeResponse)
		err := kerr.ErrorForCode(r.ErrorCode)
		if errors.Is(err, kerr.UnsupportedSaslMechanism) {
			err = fmt.Errorf("broker takes %q: %w", r.SupportedMechanisms, err)
		}
		return err
	})
	return err
}

// refusedAuthentication is the error of an answer that says no.
func refusedAuthentication(resp kmsg.Response) error {
	r := resp.(*kmsg.SASLAuthenticateResponse)
	err := kerr.ErrorForCode(r.ErrorCode)
	if err != nil && r.ErrorMessage != nil && *r.ErrorMessage != "" {
		err = fmt.Errorf("broker says %q: %w", *r.ErrorMessage, err)
	}
	return err
}

// renewBefore plans the next authentication within the life of the session that
// began when asked.
func (c *Conn) renewBefore(asked time.Time, lifetimeMillis int64) {
	c.reauthAt = time.Time{}
	if lifetimeMillis <= 0 {
		return
	}
	lifetime := time.Duration(min(lifetimeMillis, int64(365*24*time.Hour/time.Millisecond))) * time.Millisecond
	// As the Java client: somewhere in 85 to 95 %, so that connections made
	// at the same time do not all come back at the same time.
	c.reauthAt = asked.Add(time.Duration(float64(lifetime) * (0.85 + 0.1*rand.Float64())))
}
