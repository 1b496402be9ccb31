package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"replicator/internal/kafkatest"
)

// soakDaemon is a daemon that may be started again and again.
type soakDaemon struct {
	lab             *lab
	name, dir, addr string
	yaml            string

	mu      sync.Mutex
	p       *kafkatest.Process
	started time.Time
}

func (s *soak) newDaemon(name string) (*soakDaemon, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	d := &soakDaemon{lab: s.lab, name: name, dir: filepath.Join(s.dir, name), addr: addr}
	d.yaml = patternConfig{pair: s.pair, topics: soakPrefix + ".*", instance: name, listen: addr, level: "info", link: ", refresh_interval: 5s, checkpoints: {interval: 2s}"}.yaml()
	return d, os.Mkdir(d.dir, 0o700)
}

// patternConfig is the configuration of a daemon that copies topics of a
// pattern under their own names.
type patternConfig struct {
	pair     *kafkatest.ClusterPair
	topics   string // pattern
	instance string // what it is called; empty: host and process
	listen   string
	level    string // of the log
	link     string // more keys of the link, as ", key: value"
	source   string // more keys of the source cluster, likewise
}

func (c patternConfig) yaml() string {
	return fmt.Sprintf(`instance: %q
clusters:
  east: {bootstrap_servers: [%s]%s}
  west: {bootstrap_servers: [%s]}
links:
  - {from: east, to: west, topics: [%q]%s}
http: {listen: %q, pprof: true, partition_metrics: false}
log: {level: %s}
`, c.instance, strings.Join(c.pair.Source.Bootstrap(), ", "), c.source, strings.Join(c.pair.Target.Bootstrap(), ", "), c.topics, c.link, c.listen, c.level)
}

func (d *soakDaemon) start() error {
	p, err := d.lab.startDaemon(d.dir, d.yaml)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.p, d.started = p, time.Now()
	return nil
}

// log is the file with all that its processes printed.
func (d *soakDaemon) log() string { return filepath.Join(d.dir, daemonLog) }

// kill ends the process, if there is one.
func (d *soakDaemon) kill() {
	if d == nil {
		return
	}
	if p := d.process(); p != nil {
		p.Kill()
	}
}

func (d *soakDaemon) process() *kafkatest.Process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.p
}

// daemonSample is one daemon at one moment.
type daemonSample struct {
	PID        int     `json:"pid"`
	Age        float64 `json:"age_seconds"` // since its start
	RSS        int64   `json:"rss_bytes"`
	CPU        float64 `json:"cpu_seconds"`
	Files      int     `json:"open_files"`
	Goroutines float64 `json:"goroutines,omitempty"` // absent: it did not answer
	Lanes      float64 `json:"lanes"`
	MapBytes   float64 `json:"map_bytes"`
}

// look reads a daemon's process and metrics. Without an error but with nil
// metrics it is alive and did not answer.
func (d *soakDaemon) look(ctx context.Context) (daemonSample, metrics, error) {
	d.mu.Lock()
	p, started := d.p, d.started
	d.mu.Unlock()
	out := daemonSample{PID: p.PID(), Age: time.Since(started).Seconds()}
	if !p.Running() {
		return out, nil, errors.New("it is not running")
	}
	u, err := usage(p.PID())
	if err != nil {
		return out, nil, err
	}
	out.RSS, out.CPU = u.RSS, u.CPU.Seconds()
	if out.Files, err = openFiles(p.PID()); err != nil {
		return out, nil, err
	}
	m, err := scrape(ctx, d.addr)
	if err != nil {
		return out, nil, nil //nolint:nilerr // a frozen daemon does not answer
	}
	out.Goroutines = m.sum("go_goroutines")
	out.Lanes = m.sum("replicator_lanes")
	out.MapBytes = m.sum("replicator_map_bytes")
	return out, m, nil
}
