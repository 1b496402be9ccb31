package cutover

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"replicator/pkg/cluster"
)

// fakeBrokers is a region of its own with its embedded brokers.
func fakeBrokers(t *testing.T, alias string, opts ...kfake.Opt) (Region, *kfake.Cluster) {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID(alias + "-id")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return regionAt(t, alias, k.ListenAddrs()...), k
}

func fakeRegion(t *testing.T, alias string) Region {
	t.Helper()
	r, _ := fakeBrokers(t, alias)
	return r
}

// regionAt is a region that answers.
func regionAt(t *testing.T, alias string, addrs ...string) Region {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = addrs
	c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return Region{Alias: alias, Cluster: c}
}

// illRegion is what the commands make of addresses where nobody answers, with little patience.
func illRegion(t *testing.T, alias string, addrs ...string) Region {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = addrs
	cfg.Timeouts = cluster.Timeouts{Dial: 300 * time.Millisecond, Request: 300 * time.Millisecond, Retry: time.Second}
	r := Region{Alias: alias}
	if r.Cluster, r.Err = cluster.Open(t.Context(), alias, cfg, cluster.Options{}); r.Err == nil {
		t.Cleanup(r.Cluster.Close)
	}
	return r
}
