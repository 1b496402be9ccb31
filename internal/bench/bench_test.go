package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/pkg/cluster"
)

// fakePair is two fake clusters and the configuration of a link that would copy
// everything.
type fakePair struct {
	source, target *kfake.Cluster
	cfg            *config.Config
}

func newFakePair(t *testing.T) *fakePair {
	t.Helper()
	cfg := config.Default()
	cfg.Clusters = map[string]cluster.Config{}
	p := &fakePair{cfg: &cfg}
	for alias, at := range map[string]**kfake.Cluster{"east": &p.source, "west": &p.target} {
		c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.ClusterID(alias))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		*at = c
		cc := cluster.DefaultConfig()
		cc.BootstrapServers = c.ListenAddrs()
		cfg.Clusters[alias] = cc
	}
	l := config.DefaultLink()
	l.From, l.To, l.Name, l.Topics = "east", "west", "east->west", []string{".*"}
	l.Naming, l.TopicPrefix = "prefix", "east." // the run's own topic keeps its name all the same
	cfg.Links = []config.Link{l}
	return p
}

func small() Options {
	o := DefaultOptions()
	o.Partitions, o.Bytes, o.Rate, o.Duration = 3, 2<<20, 200, time.Second
	return o
}

func (p *fakePair) open(t *testing.T, o Options) *Bench {
	t.Helper()
	b, err := Open(t.Context(), p.cfg, &p.cfg.Links[0], o, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// holds lists topics and groups of both clusters, but for Kafka's own.
func (p *fakePair) holds(t *testing.T) (out []string) {
	t.Helper()
	for i, c := range []*kfake.Cluster{p.source, p.target} {
		client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
		if err != nil {
			t.Fatal(err)
		}
		admin := kadm.NewClient(client)
		topics, err := admin.ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		groups, err := admin.ListGroups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(topics.Names(), groups.Groups()...) {
			out = append(out, fmt.Sprintf("%d:%s", i, name))
		}
		client.Close()
	}
	slices.Sort(out)
	return out
}

func TestARunMeasuresComparesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newFakePair(t)
	if err := p.source.CreateTopic("orders", 2, nil); err != nil {
		t.Fatal(err)
	}
	before := p.holds(t)
	o := small()
	b := p.open(t, o)
	if now := p.holds(t); !slices.Equal(now, before) {
		t.Errorf("checking made something: %q", now)
	}
	r, err := b.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now := p.holds(t); !slices.Equal(now, before) || len(r.Left) > 0 {
		t.Errorf("before %q, after %q; left %+v", before, now, r.Left)
	}
	bulk := o.bulk()
	if r.Write.Records != bulk || r.Copy.Records != bulk || r.Latency.Records != 200 || r.Compared.Records != bulk+200+3 || r.Compared.Differences != 0 {
		t.Errorf("counts: %+v", r)
	}
	if r.Write.Bytes < o.Bytes-1000 || r.Copy.SourceWireBytes < r.Write.Bytes/10 || r.Copy.TargetWireBytes < r.Write.Bytes/10 || r.Copy.TargetWireBytes > r.Write.Bytes {
		t.Errorf("bytes: %+v, %+v", r.Write, r.Copy)
	}
	if r.Copy.Seconds <= 0 || r.Copy.MBPerSecond <= 0 || r.Copy.CPUSeconds <= 0 || r.Copy.PeakMemoryBytes < 1<<20 || r.RoundTrip.Source.Requests == 0 || r.RoundTrip.Target.P50Seconds <= 0 {
		t.Errorf("figures: %+v, %+v", r.Copy, r.RoundTrip)
	}
	l := r.Latency
	if l.FromSent.P50Seconds <= 0 || l.FromSent.P50Seconds > l.FromSent.P99Seconds || l.FromSent.P99Seconds > l.FromSent.MaxSeconds || l.FromAcknowledged.P50Seconds > l.FromSent.P50Seconds {
		t.Errorf("latency: %+v", l)
	}
	// A busy machine may be slower than it should, never faster.
	if l.RecordsPerSecond < 10 || l.RecordsPerSecond > 210 || l.VisiblePerSecond < 10 || l.VisiblePerSecond > 210 {
		t.Errorf("rates %f, %f", l.RecordsPerSecond, l.VisiblePerSecond)
	}
}

func TestKeepLeavesAndNamesEverything(t *testing.T) {
	t.Parallel()
	p := newFakePair(t)
	o := small()
	o.Keep = true
	r, err := p.open(t, o).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, l := range r.Left {
		side := map[string]string{"east": "0:", "west": "1:"}[l.Cluster]
		named = append(named, side+l.Name)
		if l.Error != "" || !strings.Contains(l.Delete, "--delete --"+l.Kind+" "+l.Name) {
			t.Errorf("%+v", l)
		}
	}
	slices.Sort(named)
	if held := p.holds(t); !slices.Equal(held, named) || len(held) != 4 {
		t.Errorf("named %q, there are %q", named, held)
	}
}

// Whenever it is told to stop, nothing is left.
func TestAnInterruptedRunLeavesNothing(t *testing.T) {
	for _, at := range []string{"making topic", "writing to", "measuring the round trips", "copying to", "measuring latency", "comparing"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			p := newFakePair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := small()
			o.Duration = time.Minute
			if at == "comparing" {
				o.Duration = time.Second
			}
			met := false
			o.Progress = func(line string) {
				if strings.Contains(line, at) {
					met = true
					cancel()
				}
			}
			r, err := p.open(t, o).Run(ctx)
			if !errors.Is(err, ErrInterrupted) || !met {
				t.Errorf("%v, phase met: %v", err, met)
			}
			if held := p.holds(t); len(held) > 0 || len(r.Left) > 0 {
				t.Errorf("left %+v, there are %q", r.Left, held)
			}
		})
	}
}

func TestWhatCannotBeDeletedIsNamed(t *testing.T) {
	t.Parallel()
	p := newFakePair(t)
	p.target.ControlKey(int16(kmsg.DeleteTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		p.target.KeepControl()
		resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
		for _, t := range req.(*kmsg.DeleteTopicsRequest).Topics {
			rt := kmsg.NewDeleteTopicsResponseTopic()
			rt.Topic, rt.ErrorCode = t.Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	r, err := p.open(t, small()).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Left) != 2 || r.Left[0].Cluster != "west" || r.Left[0].Name != r.Topic || r.Left[1].Name != r.Topic+".journal" ||
		!strings.Contains(r.Left[0].Error, "TOPIC_AUTHORIZATION_FAILED") || !strings.Contains(r.Left[0].Delete, "kafka-topics.sh --bootstrap-server 127.0.0.1:") {
		t.Errorf("%+v", r.Left)
	}
}

// A target that takes no record ends the run with the reason, and nothing is left.
func TestARunThatDoesNotGetOnFails(t *testing.T) {
	t.Parallel()
	p := newFakePair(t)
	var refused atomic.Int64
	p.target.ControlKey(int16(kmsg.AddPartitionsToTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		p.target.KeepControl()
		refused.Add(1)
		resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
		for _, t := range req.(*kmsg.AddPartitionsToTxnRequest).Topics {
			rt := kmsg.NewAddPartitionsToTxnResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p, kerr.TopicAuthorizationFailed.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	o := small()
	o.Patience = 3 * time.Second
	r, err := p.open(t, o).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no record for 3s: 0 of 2097 records copied: partition") || !strings.Contains(err.Error(), "grant WRITE on topic "+r.Topic) {
		t.Errorf("%v", err)
	}
	if refused.Load() == 0 {
		t.Error("nothing was refused")
	}
	if held := p.holds(t); len(held) > 0 || len(r.Left) > 0 {
		t.Errorf("left %+v, there are %q", r.Left, held)
	}
}

// Before the question nothing is made, not even a transactional id; a target that
// gives none ends the run with the right that is missing.
func TestATransactionalIDIsAskedForInTheRun(t *testing.T) {
	t.Parallel()
	p := newFakePair(t)
	var asked atomic.Int64
	p.target.ControlKey(int16(kmsg.InitProducerID), func(req kmsg.Request) (kmsg.Response, error, bool) {
		p.target.KeepControl()
		asked.Add(1)
		resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return resp, nil, true
	})
	b := p.open(t, small())
	if n := asked.Load(); n != 0 {
		t.Errorf("%d transactional ids were asked for before the run", n)
	}
	r, err := b.Run(t.Context())
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || !strings.Contains(refused.Hint, "grant WRITE on transactional id replicator.east.west."+r.Topic) {
		t.Errorf("%v", err)
	}
	if held := p.holds(t); len(held) > 0 || len(r.Left) > 0 {
		t.Errorf("left %+v, there are %q", r.Left, held)
	}
}

// A cluster that does not delete keeps nothing on the other, nor anything else on itself.
func TestWhatCannotBeDeletedKeepsNothingElse(t *testing.T) {
	t.Parallel()
	for _, broken := range []bool{false, true} {
		p := newFakePair(t)
		p.source.ControlKey(int16(kmsg.DeleteGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
			p.source.KeepControl()
			resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
			for _, name := range req.(*kmsg.DeleteGroupsRequest).Groups {
				g := kmsg.NewDeleteGroupsResponseGroup()
				g.Group, g.ErrorCode = name, kerr.NonEmptyGroup.Code
				resp.Groups = append(resp.Groups, g)
			}
			return resp, nil, true
		})
		b := p.open(t, small())
		for side, topic := range map[*kfake.Cluster]string{p.source: b.names.topic, p.target: b.names.journal} {
			if err := side.CreateTopic(topic, 1, nil); err != nil {
				t.Fatal(err)
			}
		}
		left := removeAll(t.Context(), b.traces(), broken, 3*time.Second)
		if len(left) != 1 || left[0].Kind != "group" || left[0].Error == "" {
			t.Errorf("left %+v", left)
		}
		if held := p.holds(t); len(held) > 0 {
			t.Errorf("there are %q", held)
		}
	}
}

// Kafka's tools need a file of their own where a cluster asks for TLS or a login.
func TestTheDeleteCommandNamesAFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*cluster.Config)
		want   string
	}{
		{func(*cluster.Config) {}, "kafka-topics.sh --bootstrap-server b:9092 --delete --topic t"},
		{func(c *cluster.Config) { c.TLS.Enabled = true }, "kafka-topics.sh --bootstrap-server b:9092 --command-config FILE --delete --topic t"},
		{func(c *cluster.Config) { c.SASL.Mechanism = cluster.ScramSHA512 }, "kafka-topics.sh --bootstrap-server b:9092 --command-config FILE --delete --topic t"},
	} {
		cfg := cluster.DefaultConfig()
		cfg.BootstrapServers = []string{"b:9092"}
		c.change(&cfg)
		if got := deleteCommand(cfg, "topic", "t"); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestTooFewBrokersAreRefusedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	p := newFakePair(t)
	p.cfg.Links[0].ReplicationFactor = 4
	_, err := Open(t.Context(), p.cfg, &p.cfg.Links[0], small(), zap.NewNop())
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || !strings.Contains(err.Error(), "cluster west does not make topic") || !strings.Contains(refused.Hint, "too few brokers") {
		t.Errorf("%v", err)
	}
	if held := p.holds(t); len(held) > 0 {
		t.Errorf("there are %q", held)
	}
}
