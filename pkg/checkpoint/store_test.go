package checkpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/overquota"
	"replicator/pkg/cluster"
)

// That a topic may not be read has to be known before there is something in it; whoever is
// over a quota has not been told yet.
func TestAMissingRightIsSeenBehindAQuota(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = k.ListenAddrs()
	c, err := cluster.Open(t.Context(), "west", cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	overquota.Fetches(k, 1, time.Millisecond, nil)
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "checkpoints", Err: kerr.TopicAuthorizationFailed, Count: -1})
	if _, err := readTopic(t.Context(), c, "checkpoints"); err == nil || !strings.Contains(err.Error(), "grant READ on topic checkpoints") {
		t.Errorf("a topic that may not be read is read: %v", err)
	}
}
