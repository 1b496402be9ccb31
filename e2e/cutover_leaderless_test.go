package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/kafkatest"
)

// The source is lost, and a broker of the target is down with the only replica of a partition.
// The failover says so soon, and goes on without it when it is told to. The guard fences what was
// left out when the broker is back.
func TestAFailoverToARegionThatHasLostABroker(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t, kafkatest.Config{Name: "east"}, kafkatest.Config{Name: "west", Brokers: 3, Heap: "320m"}) // three controllers, one may be down
	const name = "lame"
	oneReplica(t, pair.Target, name+".orders", 1, 2)
	th := newTheatre(t, pair, name, "hook", 2)
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.keeper, "daemon", "")
	th.patience = 5 * time.Second
	th.startWriter(name+".a", th.topics[0], false, &holding{file: filepath.Join(th.dir, "writing")})
	reading := &holding{file: filepath.Join(th.dir, "reading")}
	th.startReader(name+".billing", reading)
	th.startReader(name+".audit", reading)
	th.acked(1000)
	th.passes("switchover", "--to", th.west())
	th.quiet()
	th.settled(nil)
	th.tell("readers", "none")
	waitGone(t, th, "reading")
	pair.Target.Broker(2).Kill()
	pair.Source.Broker(1).Kill()

	var stdout, stderr string
	var took time.Duration
	eventually(t, "the target to notice, and a failover to be refused", func() bool {
		began := time.Now()
		var code int
		stdout, stderr, code = th.run("failover", "--to", th.west(), "--dry-run")
		took = time.Since(began)
		return code == 3 && strings.Contains(stderr, "1 of 4 cannot be read: "+name+".orders-1") && strings.Contains(stderr, "2 cannot be placed")
	})
	t.Logf("refused after %.1f s\n%s%s", took.Seconds(), stdout, stderr)
	if took > 40*time.Second {
		t.Errorf("it was refused after %v", took)
	}
	began := time.Now()
	stdout, stderr, code := th.run("failover", "--to", th.west(), "--accept-loss", "--yes", "--force", "--skip-group", name+".billing", "--skip-group", name+".audit")
	t.Logf("exit code %d after %.1f s\n%s%s", code, time.Since(began).Seconds(), stdout, stderr)
	if code != 0 || !strings.Contains(stderr, "1 of 4 cannot be read, given up because of --force") || !strings.Contains(stderr, "all epochs taken but those of 1 without a leader") {
		t.Fatalf("failover --force: exit code %d", code)
	}
	th.quiet()
	lane := regexp.MustCompile(`\Q` + name + `\E\.orders-1 +(yes|no) `)
	shows := func(want string) bool {
		stdout, _, _ = th.run("authority", "show")
		holds := lane.FindStringSubmatch(stdout)
		return len(holds) == 2 && holds[1] == want
	}
	if !shows("no") {
		t.Errorf("while the broker is down authority show says\n%s", stdout)
	}
	if err := pair.Target.Broker(2).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the guard to fence the lane that was left", func() bool { return shows("yes") })
	t.Logf("the broker is back\n%s", stdout)
}

// oneReplica makes a topic with one partition on each of some brokers.
func oneReplica(t *testing.T, c *kafkatest.Cluster, topic string, brokers ...int32) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, -1, -1
	for p, b := range brokers {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(p), []int32{b}
		rt.ReplicaAssignment = append(rt.ReplicaAssignment, a)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), c.Client(t))
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}
