package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"replicator/internal/kafkatest"
)

const stopTime = 20 * time.Second // for a daemon to end by itself

// daemonConfig is the configuration of a daemon that copies topics of a pair.
type daemonConfig struct {
	pair   *kafkatest.ClusterPair
	from   string            // what the source is called: names journal and checkpoints
	topics map[string]string // target topics by source topics
	link   string            // more keys of the link, as ", key: value"
	listen string            // of status and metrics; empty: nowhere
}

// yaml is the file's text.
func (c daemonConfig) yaml() string {
	var names, pairs []string
	for source, target := range c.topics {
		names = append(names, fmt.Sprintf("%q", source))
		pairs = append(pairs, fmt.Sprintf("%q: %q", source, target))
	}
	slices.Sort(names)
	slices.Sort(pairs)
	var b strings.Builder
	b.WriteString("clusters:\n")
	for alias, cluster := range map[string]*kafkatest.Cluster{c.from: c.pair.Source, "west": c.pair.Target} {
		fmt.Fprintf(&b, "  %s: {bootstrap_servers: [%s]", alias, strings.Join(cluster.Bootstrap(), ", "))
		if ca := cluster.CAFile(); ca != "" {
			fmt.Fprintf(&b, ", tls: {enabled: true, ca_file: %q}", ca)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "links:\n  - {from: %s, to: west, topics: [%s], naming: map, topic_map: {%s}%s}\nhttp: {listen: %q}\nlog: {level: warn}\n",
		c.from, strings.Join(names, ", "), strings.Join(pairs, ", "), c.link, c.listen)
	return b.String()
}

const daemonLog = "replicator.log" // in the daemon's directory

// startDaemon starts a daemon in a directory of its own. The process ends with
// this one at the latest; what it prints is in its log.
func (l *lab) startDaemon(dir, yaml string) (*kafkatest.Process, error) {
	file := filepath.Join(dir, "pair.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	cmd := exec.Command(l.bin, "run", "-c", file) //nolint:noctx // its end is Stop, Kill or the end of this process
	// The user's own settings are not meant for this one.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	return kafkatest.StartProcess("replicator", filepath.Join(dir, daemonLog), cmd)
}
