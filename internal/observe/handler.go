package observe

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// endpoints is what / answers.
const endpoints = `replicator

/status   state of links and lanes, JSON; replicator status prints it as tables
/metrics  for Prometheus
/healthz  200 while the daemon answers, else 503
/readyz   200 while all links copy, else 503 and why
/authority?region=R  200 while region R is authoritative, else 503
`

type handler struct {
	cfg ServerConfig
	mux *http.ServeMux
	// slots bounds the requests answered at once.
	slots chan struct{}
	hosts map[string]bool
}

func newHandler(cfg ServerConfig) http.Handler {
	h := &handler{cfg: cfg, mux: http.NewServeMux(), slots: make(chan struct{}, maxRequests), hosts: make(map[string]bool)}
	for _, name := range cfg.HTTP.AllowedHosts {
		h.hosts[normalHost(name)] = true
	}
	h.mux.HandleFunc("/healthz", h.healthz)
	h.mux.HandleFunc("/readyz", h.readyz)
	h.mux.HandleFunc("/authority", h.authority)
	h.mux.HandleFunc("/{$}", h.secret(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(endpoints)) // the client has gone, that is all that can be wrong
	}))
	h.mux.HandleFunc("/status", h.secret(h.status))
	metrics := promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		// One series that cannot be made must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      scrapeLog{cfg.Log},
		// With ten thousand lanes an answer has more than a hundred thousand series.
		MaxRequestsInFlight: maxScrapes,
	})
	h.mux.HandleFunc("/metrics", h.secret(metrics.ServeHTTP))
	if cfg.HTTP.Pprof {
		h.mux.HandleFunc("/debug/pprof/", h.secret(pprof.Index))
		h.mux.HandleFunc("/debug/pprof/profile", h.secret(pprof.Profile))
		h.mux.HandleFunc("/debug/pprof/trace", h.secret(pprof.Trace))
		h.mux.HandleFunc("/debug/pprof/symbol", h.secret(pprof.Symbol))
	}
	return h
}

// ServeHTTP refuses what must not be answered before any path is looked at.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Set("Content-Security-Policy", "default-src 'none'")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("X-Content-Type-Options", "nosniff")
	switch {
	case !h.allowedHost(r):
		http.Error(w, "this host name is not in http.allowed_hosts", http.StatusMisdirectedRequest)
		return
	case !sameOrigin(r):
		http.Error(w, "requests from other origins are not answered", http.StatusForbidden)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are answered: nothing can be changed here", http.StatusMethodNotAllowed)
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		head.Set("Retry-After", "1")
		http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// allowedHost reports whether the request is meant for us. A web page that
// points its own name at our address (DNS rebinding) sends that name. An address
// in place of a name is taken if it is a loopback one or the one connected to.
func (h *handler) allowedHost(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = normalHost(host)
	if h.hosts[host] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap() == ip.Unmap()
}

func normalHost(h string) string {
	h = strings.TrimSuffix(strings.ToLower(h), ".")
	return strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")
}

// sameOrigin reports whether a browser sent the request from a page of ours, or
// no page is involved.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// secret asks for the token, if one is configured.
func (h *handler) secret(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if h.authorized(r) {
			next(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a bearer token is needed (http.token)", http.StatusUnauthorized)
	}
}

func (h *handler) authorized(r *http.Request) bool {
	if h.cfg.HTTP.Token.IsZero() {
		return true
	}
	want, err := h.cfg.HTTP.Token.Resolve()
	if err != nil {
		h.cfg.Log.Error("read http.token: nobody can be let in", zap.Error(err))
		return false
	}
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

// healthz needs no token: it tells nothing but alive or not.
func (h *handler) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*answerTime)
	defer cancel()
	if err := h.cfg.Source.Alive(ctx); err != nil {
		answer := health{}
		if h.authorized(r) {
			answer.Reasons = []string{err.Error()}
		}
		h.json(w, http.StatusServiceUnavailable, answer)
		return
	}
	h.json(w, http.StatusOK, health{Alive: true})
}

type health struct {
	Alive   bool     `json:"alive"`
	Reasons []string `json:"reasons,omitempty"`
}

type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

// readyz gives the reasons, which name topics, only to those with the token.
func (h *handler) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*answerTime)
	defer cancel()
	var why []string
	if s, err := h.cfg.Source.Get(ctx); err != nil {
		why = []string{err.Error()}
	} else {
		why = unready(s)
	}
	if len(why) == 0 {
		h.json(w, http.StatusOK, readiness{Ready: true})
		return
	}
	if !h.authorized(r) {
		why = nil
	}
	h.json(w, http.StatusServiceUnavailable, readiness{Reasons: why})
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*answerTime)
	defer cancel()
	s, err := h.cfg.Source.Get(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	h.json(w, http.StatusOK, s)
}

func (h *handler) json(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		h.cfg.Log.Error("encode answer", zap.Error(err))
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The encoder leaves some characters as they are that a terminal obeys.
	_, _ = lineWriter{w}.Write(append(body, '\n')) // the client has gone, that is all that can be wrong
}

// scrapeLog is where the metrics handler writes.
type scrapeLog struct{ log *zap.Logger }

func (l scrapeLog) Println(v ...any) {
	l.log.Error("make metrics", zap.String("error", fmt.Sprint(v...)))
}
