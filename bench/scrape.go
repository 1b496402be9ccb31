package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const scrapeTime = 3 * time.Second // a daemon that is stopped by a signal does not answer

// metrics is what /metrics of a daemon said once.
type metrics map[string]*dto.MetricFamily

// scrape asks a daemon that listens on an address.
func scrape(ctx context.Context, addr string) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	body, err := ask(ctx, addr, "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(body)
}

func ask(ctx context.Context, addr, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask daemon: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask daemon: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("ask daemon for %s: %s", req.URL, resp.Status)
	}
	return resp.Body, nil
}

// fetchProfile keeps what a daemon says at a path of its profiles.
func fetchProfile(ctx context.Context, addr, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := ask(ctx, addr, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return io.ReadAll(body)
}

// scrapeBytes reads all that a daemon says and counts it.
func scrapeBytes(ctx context.Context, addr string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := ask(ctx, addr, "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	return io.Copy(io.Discard, body)
}

// values are those of a family's series that have the labels, given as pairs
// of name and value.
func (m metrics) values(name string, labels ...string) (out []float64) {
	for _, series := range m[name].GetMetric() {
		has := map[string]string{}
		for _, l := range series.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		wanted := true
		for i := 0; i+1 < len(labels); i += 2 {
			wanted = wanted && has[labels[i]] == labels[i+1]
		}
		if !wanted {
			continue
		}
		switch {
		case series.Gauge != nil:
			out = append(out, series.Gauge.GetValue())
		case series.Counter != nil:
			out = append(out, series.Counter.GetValue())
		case series.Untyped != nil:
			out = append(out, series.Untyped.GetValue())
		}
	}
	return out
}

// sum adds them up; without any series it is 0.
func (m metrics) sum(name string, labels ...string) (v float64) {
	for _, x := range m.values(name, labels...) {
		v += x
	}
	return v
}

// highest is the largest of them, nil without any series: not known is not 0.
func (m metrics) highest(name string) *float64 {
	var v *float64
	for _, x := range m.values(name) {
		if v == nil || x > *v {
			v = &x
		}
	}
	return v
}

// freeAddr is an address of loopback that nobody listens on now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // is there at once
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	addr := l.Addr().String()
	return addr, l.Close()
}

// openFiles is how many file descriptors a process has.
func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("count open files of process %d: %w", pid, err)
	}
	return len(entries), nil
}
