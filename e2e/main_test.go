// Package e2e runs the replicator between two real Kafka clusters and counts
// every record on both sides.
package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/kafkatest"
	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(daemonVariable); file != "" {
		os.Exit(runDaemon(file))
	}
	if file := os.Getenv(replayVariable); file != "" {
		os.Exit(runReplay(file))
	}
	if file := os.Getenv(killedVariable); file != "" {
		os.Exit(runKilled(file))
	}
	os.Exit(kafkatest.Main(m))
}

// patience is how long a test waits for what has to come, where the time is not what it is
// about. It is long: machines stand still for seconds, and nothing is lost by waiting.
const patience = 2 * time.Minute

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) { // between two polls
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func opts(c *kafkatest.Cluster) []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(c.Bootstrap()...)} }

// openCluster opens a cluster as the daemon does.
func openCluster(t *testing.T, alias string, addrs []string, pool *wire.Pool) *cluster.Cluster {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = addrs
	c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{Log: logger(t), Pool: pool, ClientID: "replicator"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func logger(t *testing.T) *zap.Logger { return testlog.New(t, zap.WarnLevel) }

// link is a link that runs in the test's own process.
type link struct {
	*mirror.Link
	t    *testing.T
	stop func() error
}

func startLink(t *testing.T, pair *kafkatest.ClusterPair, o mirror.Options) *link {
	t.Helper()
	pool := wire.NewPool(64 << 20)
	if o.From == "" {
		o.From, o.To = "east", "west"
	}
	l, err := mirror.New(mirror.Config{
		Options: o, Source: openCluster(t, o.From, pair.Source.Bootstrap(), pool), Target: openCluster(t, o.To, pair.Target.Bootstrap(), pool),
		Pool: pool, Log: logger(t), Instance: t.Name(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	lk := &link{Link: l, t: t}
	lk.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := lk.stop(); err != nil {
			t.Errorf("run link: %v", err)
		}
	})
	return lk
}

func (l *link) status() mirror.LinkStatus {
	l.t.Helper()
	s, ok := l.Status(l.t.Context())
	if !ok {
		l.t.Fatal("the link does not answer")
	}
	return s
}
