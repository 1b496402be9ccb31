package mirror_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"replicator/pkg/mirror"
)

// Heartbeats go to the name MirrorMaker 2's client looks for, even if the topic is
// excluded and others are renamed.
func TestHeartbeatsAreCopiedWhateverTheFilterSays(t *testing.T) {
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(1, "orders", "heartbeats", "west.heartbeats"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	produce(t, src.ListenAddrs(), "orders", 1, 0, 10)
	produce(t, src.ListenAddrs(), "heartbeats", 1, 0, 20)
	prefix := func(topic string) string { return "copy-of-" + topic }
	l, _ := startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{
		Topics: []string{".*"}, TopicsExclude: []string{"heart.*"}, Rename: prefix, Heartbeats: true,
	})
	consume(t, dst.ListenAddrs(), "east.heartbeats", 20)
	consume(t, dst.ListenAddrs(), "copy-of-orders", 10)
	for topic, want := range map[string]bool{"heartbeats": true, "orders": true, "heartaches": false, "west.heartbeats": false, "east.heartbeats": false, "north.heartbeats": true} {
		if got := l.Copies(topic); got != want {
			t.Errorf("copies %q: %t, want %t", topic, got, want)
		}
	}
	s, _ := l.Status(t.Context())
	for _, ln := range s.Lanes {
		if ln.Topic != "orders" && ln.Topic != "heartbeats" {
			t.Errorf("lane %s-%d is copied to %s", ln.Topic, ln.Partition, ln.TargetTopic)
		}
	}
}

func TestWithoutHeartbeatsTheTopicIsAsAnyOther(t *testing.T) {
	src := fakeCluster(t, kfake.ClusterID("east-id"), kfake.SeedTopics(1, "heartbeats"))
	dst := fakeCluster(t, kfake.ClusterID("west-id"))
	produce(t, src.ListenAddrs(), "heartbeats", 1, 0, 20)
	startLink(t, src.ListenAddrs(), dst.ListenAddrs(), mirror.Options{Topics: []string{".*"}})
	consume(t, dst.ListenAddrs(), "heartbeats", 20)
}
