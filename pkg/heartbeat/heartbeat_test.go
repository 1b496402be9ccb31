package heartbeat_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/testlog"
	"replicator/pkg/cluster"
	"replicator/pkg/heartbeat"
	"replicator/pkg/mirrormaker"
)

// start runs an emitter of the link east->west against a fake east, until the
// test ends.
func start(t *testing.T, prepare func(*kfake.Cluster)) (*heartbeat.Emitter, *kgo.Client) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = fake.ListenAddrs()
	log := testlog.New(t)
	east, err := cluster.Open(t.Context(), "east", cfg, cluster.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(east.Close)
	if prepare != nil {
		prepare(fake)
	}
	e := heartbeat.New(heartbeat.Config{Cluster: east, Source: "east", Target: "west", Interval: 50 * time.Millisecond, Log: log})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.ConsumeTopics(mirrormaker.HeartbeatsTopic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(10*time.Millisecond), kgo.MetadataMaxAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return e, client
}

// until waits for a status that is as asked.
func until(t *testing.T, e *heartbeat.Emitter, what string, is func(heartbeat.Status) bool) heartbeat.Status {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		s := e.Status()
		if is(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: status is %+v", what, s)
		}
	}
}

func TestHeartbeatsAreThoseOfMirrorMaker(t *testing.T) {
	e, client := start(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var beats []mirrormaker.Heartbeat
	for len(beats) < 3 && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			h, err := mirrormaker.DecodeHeartbeat(r.Key, r.Value)
			if err != nil || r.Partition != 0 || h.Timestamp != r.Timestamp.UnixMilli() {
				t.Errorf("record %d of partition %d: %+v at %v, %v", r.Offset, r.Partition, h, r.Timestamp, err)
			}
			beats = append(beats, h)
		})
	}
	if len(beats) < 3 {
		t.Fatalf("%d heartbeats in 20 s, status %+v", len(beats), e.Status())
	}
	for i, h := range beats[1:] {
		if h.Source != "west" || h.Target != "east" || h.Timestamp <= beats[i].Timestamp {
			t.Errorf("heartbeats %+v, want source west, target east, and times that grow", beats)
		}
	}
	s := until(t, e, "three are acknowledged", func(s heartbeat.Status) bool { return s.Written >= 3 })
	if s.Age == nil || *s.Age < 0 || *s.Age > 20 || s.Error != "" || s.Failed != 0 {
		t.Errorf("status %+v", s)
	}
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, mirrormaker.HeartbeatsTopic)
	if err != nil {
		t.Fatal(err)
	}
	parts := topics[mirrormaker.HeartbeatsTopic].Partitions
	if len(parts) != 1 || len(parts[0].Replicas) != 3 {
		t.Errorf("the topic has partitions %+v, want one of three replicas", parts)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, mirrormaker.HeartbeatsTopic)
	if err != nil {
		t.Fatal(err)
	}
	policy := ""
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" {
			policy = c.MaybeValue()
		}
	}
	if policy != "compact" {
		t.Errorf("cleanup.policy is %q, want compact", policy)
	}
}

func TestATopicDeletedIsMadeAgain(t *testing.T) {
	e, client := start(t, nil)
	until(t, e, "the first is written", func(s heartbeat.Status) bool { return s.Written > 0 })
	if _, err := kadm.NewClient(client).DeleteTopic(t.Context(), mirrormaker.HeartbeatsTopic); err != nil {
		t.Fatal(err)
	}
	failed := until(t, e, "writing fails", func(s heartbeat.Status) bool { return s.Failed > 0 })
	until(t, e, "it goes on", func(s heartbeat.Status) bool { return s.Written > failed.Written && s.Error == "" })
}

func TestWhatIsRefusedNamesTheRightAndGoesOnOnceGranted(t *testing.T) {
	for name, c := range map[string]struct {
		fault kfake.Fault
		want  string
	}{
		"create": {kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed, Count: -1}, "grant CREATE on topic heartbeats of cluster east"},
		"write":  {kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1}, "grant WRITE on topic heartbeats of cluster east"},
	} {
		t.Run(name, func(t *testing.T) {
			var refusal *kfake.FaultHandle
			e, _ := start(t, func(fake *kfake.Cluster) { refusal = fake.Fault(c.fault) })
			s := until(t, e, "two are refused", func(s heartbeat.Status) bool { return s.Failed >= 2 })
			if !strings.Contains(s.Error, c.want) || s.Written != 0 || s.Age != nil {
				t.Errorf("status %+v, want an error with %q", s, c.want)
			}
			refusal.Remove()
			until(t, e, "it is written once granted", func(s heartbeat.Status) bool { return s.Written > 0 && s.Error == "" })
		})
	}
}
