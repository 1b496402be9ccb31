package observe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"replicator/internal/config"
)

const (
	maxConnections = 64       // open at once; more wait to be accepted
	maxRequests    = 16       // answered at once; more are told to come again
	maxScrapes     = 4        // of them, those for metrics, which take memory by series
	maxHeaderBytes = 16 << 10 // of a request
	headerTime     = 5 * time.Second
	requestTime    = 10 * time.Second // to read a request
	writeTime      = 30 * time.Second // to make and write an answer
	idleTime       = 60 * time.Second
	shutdownTime   = 2 * time.Second
)

// ServerConfig is what a server needs.
type ServerConfig struct {
	HTTP     config.HTTP
	Source   *Source
	Gatherer prometheus.Gatherer
	Log      *zap.Logger
}

// Server answers /metrics, /healthz, /readyz, /authority and /status.
type Server struct {
	http     *http.Server
	listener net.Listener
	scheme   string
	log      *zap.Logger
}

// Listen takes the address, so that a port that is taken is known before
// anything else happens. Serve answers; Close gives the address back unserved.
func Listen(ctx context.Context, cfg ServerConfig) (*Server, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.HTTP.Listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s (http.listen): the port is taken by another process, perhaps another replicator; port 0 takes any free one: %w", cfg.HTTP.Listen, err)
		}
		return nil, fmt.Errorf("listen on %s (http.listen): %w", cfg.HTTP.Listen, err)
	}
	s := &Server{scheme: "http", log: cfg.Log}
	s.listener = limitListener(ln, maxConnections)
	if certs := cfg.HTTP.TLS; certs.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(certs.CertFile, certs.KeyFile); err != nil {
			_ = ln.Close() // the certificate is the error to tell
			return nil, fmt.Errorf("load certificate %s (http.tls): %w", certs.CertFile, err)
		}
		s.scheme = "https"
		s.listener = tls.NewListener(s.listener, &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Read at every handshake: a rotated certificate needs no restart.
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				c, err := tls.LoadX509KeyPair(certs.CertFile, certs.KeyFile)
				return &c, err
			},
		})
	}
	s.http = &http.Server{
		Handler:           newHandler(cfg),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       requestTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	// What clients do wrong is no news.
	if s.http.ErrorLog, err = zap.NewStdLogAt(cfg.Log.Named("http"), zap.DebugLevel); err != nil {
		return nil, fmt.Errorf("build log: %w", err)
	}
	return s, nil
}

// URL is the address it listens on, with the port that was taken.
func (s *Server) URL() string { return s.scheme + "://" + s.listener.Addr().String() }

// Close gives the address back of a server that is not served.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers until ctx ends, then lets running answers finish for a moment.
// To be asked during a clean stop, it should be given a context that outlives
// the links.
func (s *Server) Serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	s.log.Info("listening", zap.String("url", s.URL()))
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.URL(), err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := s.http.Shutdown(last); err != nil {
		_ = s.http.Close() // slow clients do not hold up the end
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.URL(), err)
	}
	return nil
}

// limitListener accepts no more than n connections at once.
func limitListener(ln net.Listener, n int) net.Listener {
	return &limited{Listener: ln, free: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	free   chan struct{} // full when no more may be accepted
	closed chan struct{}
	once   sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, done: func() { <-l.free }}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	done func()
	once sync.Once
}

func (c *limitedConn) Close() error {
	defer c.once.Do(c.done)
	return c.Conn.Close()
}
