package daemon

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"replicator/internal/config"
	"replicator/internal/status"
	"replicator/internal/testlog"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// region is a cluster that can be out of reach.
type region struct {
	*kfake.Cluster
	gone atomic.Bool
}

func newRegion(t *testing.T, id string, opts ...kfake.Opt) *region {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.ClusterID(id))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &region{Cluster: c}
}

func load(t *testing.T, east, west *region) *config.Config {
	t.Helper()
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(`clusters:
  east: {bootstrap_servers: ['{{index .East 0}}']}
  west: {bootstrap_servers: ['{{index .West 0}}']}
links:
  - {from: east, to: west, topics: [orders], refresh_interval: 1s}
`)).Execute(&b, map[string][]string{"East": east.ListenAddrs(), "West": west.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pair.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// dial refuses to reach a region that is gone.
func dial(regions ...*region) cluster.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		for _, r := range regions {
			for _, a := range r.ListenAddrs() {
				if a == addr && r.gone.Load() {
					return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
				}
			}
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

func promote(t *testing.T, on *region, epoch int64, to string, ready string) {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = on.ListenAddrs()
	c, err := cluster.Open(t.Context(), "west", cfg, cluster.Options{Log: testlog.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pair := authority.PairOf("east", "west")
	ch, err := authority.Change(t.Context(), authority.Config{Cluster: c, Pair: pair})
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	if err := ch.Set(t.Context(), authority.Record{Pair: pair.String(), Epoch: epoch, Region: to, Verb: "failover", By: "ann", Run: "1", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if ready != "" {
		if err := ch.Ready(t.Context(), authority.Ready{From: ready, To: pair.Other(ready), Epoch: epoch, Run: "1", Since: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
}

func until(t *testing.T, d *Daemon, what string, ok func(status.Link) bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		s := d.Status(ctx).Links[0]
		cancel()
		if ok(s) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s; status is %+v", what, s)
		}
		time.Sleep(20 * time.Millisecond) // polling, bounded
	}
}

// A daemon whose source is gone starts as a guard where its link is closed, and
// becomes a link when the source is back.
func TestDaemonGuardsWithoutItsSource(t *testing.T) {
	east := newRegion(t, "east-id", kfake.SeedTopics(1, "orders"))
	west := newRegion(t, "west-id", kfake.SeedTopics(1, "orders"), kfake.BrokerConfigs(map[string]string{"producer.id.expiration.ms": "4000"}))
	cfg := load(t, east, west)
	o := Options{Version: "test", Log: testlog.New(t), Dial: dial(east, west)}

	east.gone.Store(true)
	if _, err := New(t.Context(), cfg, o); err == nil || !strings.Contains(err.Error(), "open cluster east") {
		t.Fatalf("with its source gone and nobody promoted: %v", err)
	}
	promote(t, west, 1, "west", "")
	d, err := New(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	d.openAgain = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	until(t, d, "the fence is renewed", func(l status.Link) bool {
		return l.State == mirror.LinkClosed && l.Ready && l.Guard != nil && l.Guard.Renewed >= 2 && strings.Contains(l.Reason, "west is authoritative") && strings.Contains(l.Reason, "open cluster east")
	})
	east.gone.Store(false)
	until(t, d, "the link is there and closed", func(l status.Link) bool {
		return l.State == mirror.LinkClosed && l.LaneStates[mirror.LaneClosed] == 1 && l.SourceID == "east-id"
	})
	p, err := kgo.NewClient(kgo.SeedBrokers(east.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("1")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	promote(t, west, 2, "east", "")
	until(t, d, "the link is not prepared", func(l status.Link) bool {
		return l.State == mirror.LinkClosed && strings.Contains(l.Reason, "was not prepared")
	})
	promote(t, west, 3, "east", "east")
	until(t, d, "the link copies", func(l status.Link) bool {
		return l.State == mirror.LinkCopying && l.Guard == nil && l.Lanes[0].Position == 1
	})
	if a := d.Status(t.Context()).Authority; len(a) != 1 || !a[0].Known || a[0].Region != "east" || a[0].Epoch != 3 || a[0].Pair != "east/west" {
		t.Errorf("the daemon says of its pair's authority %+v", a)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
