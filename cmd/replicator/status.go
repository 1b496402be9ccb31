package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"replicator/internal/status"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
)

const (
	statusTime     = 15 * time.Second // for one answer; a hung loop takes the daemon five to notice
	maxStatusBytes = 256 << 20        // of one answer
)

// statusOptions are the flags of replicator status.
type statusOptions struct {
	addr, token, caFile string
	output, check       string
	watch               bool
	interval            time.Duration
	lanes               int
}

func newStatusCommand(a *app) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show links, lanes and events of a running daemon",
		Long: `Asks a running daemon how it is and prints it: links with their lag, lanes with
the worst first, what happened to batches, events. The address is that of
--addr, else the one in the configuration (--config), else ` + "http://" + config.Default().HTTP.Listen + `.

Exit codes: 0 every link is ready, 1 the daemon cannot be reached, 3 a link is
not ready or a lane is halted.`,
		Example: `  replicator status
  replicator status --watch
  replicator status -o json | jq '.links[].lag_seconds'
  replicator status --check=alive     # for a container's health check`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && cmd.Flags().Changed("check") {
				return fmt.Errorf("choose check: its value stands behind =, as --check=%s", args[0])
			}
			return flagsOnly(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.status(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "", "`URL` of the daemon, or host:port")
	f.StringVar(&o.token, "token", "", "bearer token as a `reference`, file:/path or env:NAME (with --addr)")
	f.StringVar(&o.caFile, "ca-file", "", "`file` of certificates to trust (with --addr)")
	f.StringVarP(&o.output, "output", "o", "table", "`format`: table, wide, json, yaml")
	f.BoolVarP(&o.watch, "watch", "w", false, "print again and again, with rates, until interrupted")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "`time` between two looks of --watch")
	f.IntVar(&o.lanes, "lanes", 20, "show at most `n` lanes of a link, the worst; 0: all")
	f.StringVar(&o.check, "check", "", "print one line, and tell by the exit code whether the daemon is `ready` or alive")
	f.Lookup("check").NoOptDefVal = "ready"
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("check", cobra.FixedCompletions([]string{"ready", "alive"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o statusOptions) validate() error {
	switch {
	case o.output != "table" && o.output != "wide" && o.output != "json" && o.output != "yaml":
		return fmt.Errorf("choose output: %q is none of table, wide, json, yaml", o.output)
	case o.check != "" && o.check != "ready" && o.check != "alive":
		return fmt.Errorf("choose check: %q is neither ready nor alive", o.check)
	case o.watch && (o.output == "json" || o.output == "yaml"):
		return errors.New("choose output: --watch prints tables only")
	case o.watch && o.check != "":
		return errors.New("choose one of --watch and --check")
	case o.watch && o.interval < 100*time.Millisecond:
		return fmt.Errorf("choose interval: %v is shorter than 100ms", o.interval)
	case o.lanes < 0:
		return fmt.Errorf("choose lanes: %d is negative", o.lanes)
	}
	return nil
}

func (a *app) status(ctx context.Context, out io.Writer, o statusOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator status --help")
	}
	d, err := a.daemon(o)
	if err != nil {
		return err
	}
	switch {
	case o.check == "alive":
		if err := d.alive(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, "alive")
		return err
	case o.watch:
		return watchStatus(ctx, out, d, o)
	}
	body, err := d.get(ctx, "/status")
	if err != nil {
		return err
	}
	s, err := parseStatus(body)
	if err != nil {
		return err
	}
	switch {
	case o.check == "ready":
		if err := verdict(s); err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, "ready")
	case o.output == "json":
		_, err = out.Write(body)
	case o.output == "yaml":
		err = writeYAML(out, body)
	default:
		_, err = io.WriteString(out, newScreen(out, o).render(s, nil))
	}
	if err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return verdict(s)
}

func parseStatus(body []byte) (*status.Status, error) {
	var s status.Status
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("read status: the answer is not a daemon's: %w", err)
	}
	return &s, nil
}

// verdict is nil if every link is ready and no lane is halted.
func verdict(s *status.Status) error {
	if len(s.Links) == 0 {
		return coded(exitRefused, errors.New("no link is running"), "")
	}
	var bad []string
	for _, l := range s.Links {
		n := l.LaneStates[mirror.LaneHalted]
		switch {
		case l.State == observe.Silent:
			bad = append(bad, fmt.Sprintf("link %s does not answer", l.Name))
		case !l.Ready:
			bad = append(bad, fmt.Sprintf("link %s is not ready: %s", l.Name, l.Reason))
		case n > 0:
			bad = append(bad, fmt.Sprintf("link %s has halted lanes: %d", l.Name, n))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return coded(exitRefused, errors.New(observe.Printable(strings.Join(bad, "; "))), "")
}

// writeYAML prints JSON as YAML, keys in their order.
func writeYAML(w io.Writer, body []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(body, &doc); err != nil { // JSON is YAML
		return err
	}
	var block func(*yaml.Node)
	block = func(n *yaml.Node) {
		n.Style = 0
		for _, c := range n.Content {
			block(c)
		}
	}
	block(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(&doc), enc.Close())
}

// watchStatus prints until ctx ends. A daemon that is gone for a while is said
// so and waited for.
func watchStatus(ctx context.Context, out io.Writer, d *daemonClient, o statusOptions) error {
	_, terminal := terminalWidth(out)
	var before *status.Status
	ticker := time.NewTicker(o.interval)
	defer ticker.Stop()
	for {
		var text string
		s, err := d.status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && terminal:
			text = fmt.Sprintf("error: %v\nasking again every %v\n", err, o.interval)
		case err != nil:
			text = fmt.Sprintf("error: %v\n", err)
		case terminal:
			text = newScreen(out, o).render(s, before)
		default:
			text = lines(s, before)
		}
		if terminal {
			// Line by line over what is there, so that nothing flickers.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		}
		if _, err := io.WriteString(out, text); err != nil {
			return fmt.Errorf("print status: %w", err)
		}
		before = s
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// terminalWidth is the width to print for: that of the terminal, else what
// COLUMNS says, else 0: any. It tells whether there is a terminal.
func terminalWidth(out io.Writer) (int, bool) {
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width, true
		}
		return 80, true
	}
	width, _ := strconv.Atoi(os.Getenv("COLUMNS"))
	return max(0, width), false
}

// daemonClient asks one daemon.
type daemonClient struct {
	url   string
	token cluster.Secret
	http  *http.Client
}

// daemon finds the daemon that is meant.
func (a *app) daemon(o statusOptions) (*daemonClient, error) {
	d := &daemonClient{url: "http://" + config.Default().HTTP.Listen}
	caFile, serverName := o.caFile, ""
	switch {
	case o.addr != "":
		d.url = o.addr
		if !strings.Contains(d.url, "://") {
			d.url = "http://" + d.url
		}
		u, err := url.Parse(d.url)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, coded(exitUsage, fmt.Errorf("read --addr: %q is no address like http://127.0.0.1:8475", o.addr), "")
		}
		d.url = u.Scheme + "://" + u.Host
		if d.token, err = cluster.ParseSecret(o.token); err != nil {
			return nil, coded(exitUsage, fmt.Errorf("read --token: %w", err), "")
		}
	case o.token != "" || o.caFile != "":
		return nil, coded(exitUsage, errors.New("--token and --ca-file go with --addr"), "the configuration has http.token and http.tls")
	case a.configFile != "":
		cfg, err := a.load(nil)
		if err != nil {
			return nil, err
		}
		if d.url, err = localURL(cfg.HTTP); err != nil {
			return nil, coded(exitUsage, err, "")
		}
		d.token, caFile = cfg.HTTP.Token, cfg.HTTP.TLS.CertFile
		if serverName, err = certificateName(caFile); err != nil {
			return nil, err
		}
	}
	transport := &http.Transport{DisableCompression: true, Proxy: nil} // never through a proxy
	if caFile != "" {
		data, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("read certificates %s: there is none in it", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS12}
	}
	d.http = &http.Client{
		Transport: transport, Timeout: statusTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d, nil
}

// localURL is where a daemon with this configuration is reached from the same
// machine.
func localURL(h config.HTTP) (string, error) {
	host, port, err := net.SplitHostPort(h.Listen)
	switch {
	case h.Listen == "":
		return "", errors.New("find daemon: http.listen is empty, so it listens nowhere")
	case err != nil:
		return "", fmt.Errorf("find daemon: http.listen: %w", err)
	case port == "0":
		return "", errors.New("find daemon: http.listen has port 0, any free one: its log says which; name it with --addr")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	scheme := "http"
	if h.TLS.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// certificateName is a name the daemon's own certificate is valid for: it is
// reached by an address that the certificate need not have.
func certificateName(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read certificates: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return "", fmt.Errorf("read certificates %s: there is none in it", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read certificates %s: %w", file, err)
	}
	if len(cert.DNSNames) > 0 {
		return cert.DNSNames[0], nil
	}
	return "", nil
}

// request sends one question. The error is of not having been answered at all.
func (d *daemonClient) request(ctx context.Context, path string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, http.NoBody)
	if err != nil {
		return 0, nil, fmt.Errorf("ask daemon: %w", err)
	}
	if !d.token.IsZero() {
		token, err := d.token.Resolve()
		if err != nil {
			return 0, nil, fmt.Errorf("read token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return 0, nil, coded(exitFailed, fmt.Errorf("reach daemon at %s: %w", d.url, err), "is it running? --addr names another address")
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxStatusBytes+1))
	if err == nil && len(body) > maxStatusBytes {
		err = fmt.Errorf("it is longer than %d bytes", maxStatusBytes)
	}
	if err != nil {
		return 0, nil, coded(exitFailed, fmt.Errorf("read answer of %s%s: %w", d.url, path, err), "")
	}
	return resp.StatusCode, body, nil
}

func (d *daemonClient) get(ctx context.Context, path string) ([]byte, error) {
	code, body, err := d.request(ctx, path)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		hint := ""
		switch code {
		case http.StatusUnauthorized:
			hint = "--token or http.token of the configuration has to be the daemon's"
		case http.StatusMisdirectedRequest:
			hint = "use the address it listens on, or add the name to http.allowed_hosts"
		}
		return nil, coded(exitFailed, fmt.Errorf("ask %s%s: %d %s: %s", d.url, path, code, http.StatusText(code), firstLine(body)), hint)
	}
	return body, nil
}

func (d *daemonClient) status(ctx context.Context) (*status.Status, error) {
	body, err := d.get(ctx, "/status")
	if err != nil {
		return nil, err
	}
	return parseStatus(body)
}

func (d *daemonClient) alive(ctx context.Context) error {
	code, body, err := d.request(ctx, "/healthz")
	if err == nil && code != http.StatusOK {
		err = coded(exitRefused, fmt.Errorf("not alive: %s", firstLine(body)), "")
	}
	return err
}

// firstLine is as much of a body as fits an error.
func firstLine(body []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(body), []byte("\n"))
	return observe.Printable(string(line[:min(len(line), 200)]))
}
