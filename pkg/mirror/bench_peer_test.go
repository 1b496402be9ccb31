//go:build unix

package mirror

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/recorded"
	"replicator/internal/rusage"
)

// The clusters of a benchmark of a whole link run in a process of their own, so
// that its time and allocations are not the link's: this test's binary, started
// again with peerVariable in the environment. It reads a peerSpec, writes its
// peerAddrs in a line, then for every line it reads its peerUsage so far, and ends
// when there is no more to read.
const peerVariable = "REPLICATOR_TEST_PEER"

const benchTopic = "bench"

type peerSpec struct {
	Batch      []byte // the source serves this one, from any offset
	Partitions int32
}

type peerAddrs struct{ Source, Target []string }

type peerUsage struct {
	CPU      time.Duration
	Fetches  int64 // answers to fetches
	Produces int64 // answers to produce requests with records of lanes
}

func TestMain(m *testing.M) {
	if os.Getenv(peerVariable) == "" {
		os.Exit(m.Run())
	}
	if err := runPeer(bufio.NewReader(os.Stdin)); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func runPeer(in *bufio.Reader) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var spec peerSpec
	if err := json.Unmarshal(line, &spec); err != nil {
		return err
	}
	source, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID("east-id"), kfake.SeedTopics(spec.Partitions, benchTopic),
		kfake.SyntheticFetch(kfake.SyntheticBatch{Batch: spec.Batch}))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID("west-id"), kfake.SeedTopics(spec.Partitions, benchTopic))
	if err != nil {
		return err
	}
	defer target.Close()
	var usage peerUsage // CPU apart, kfake's goroutines count in it
	source.ControlKey(kmsg.Fetch.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		source.KeepControl()
		atomic.AddInt64(&usage.Fetches, 1)
		return nil, nil, false
	})
	takeAndForget(target, spec.Partitions, &usage.Produces)
	if err := json.NewEncoder(os.Stdout).Encode(peerAddrs{source.ListenAddrs(), target.ListenAddrs()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		now := peerUsage{rusage.CPU(), atomic.LoadInt64(&usage.Fetches), atomic.LoadInt64(&usage.Produces)}
		if err := json.NewEncoder(os.Stdout).Encode(now); err != nil {
			return err
		}
	}
	return nil
}

// takeAndForget answers produce requests for the benchmark's topic as a broker
// would, but keeps no record: kfake would keep all of them in memory. A lane's
// control record and the journal go to kfake itself. Offsets begin behind the
// control record of the one opening; checksums and sequence numbers must be right.
func takeAndForget(c *kfake.Cluster, partitions int32, requests *int64) {
	id := c.TopicInfo(benchTopic).TopicID
	records := make([]int64, partitions) // appended so far
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	c.ControlKey(kmsg.Produce.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		if len(req.Topics) != 1 || req.Topics[0].Topic != benchTopic && req.Topics[0].TopicID != id {
			return nil, nil, false
		}
		atomic.AddInt64(requests, 1)
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		topic := kmsg.ProduceResponseTopic{Topic: req.Topics[0].Topic, TopicID: req.Topics[0].TopicID}
		for _, p := range req.Topics[0].Partitions {
			answer := kmsg.NewProduceResponseTopicPartition()
			answer.Partition = p.Partition
			b := p.Records
			switch {
			case crc32.Checksum(b[21:], castagnoli) != binary.BigEndian.Uint32(b[17:]):
				answer.ErrorCode = kerr.CorruptMessage.Code
			case int64(binary.BigEndian.Uint32(b[53:])) != records[p.Partition]:
				answer.ErrorCode = kerr.OutOfOrderSequenceNumber.Code
			default:
				answer.BaseOffset = 1 + records[p.Partition]
				records[p.Partition] += int64(binary.BigEndian.Uint32(b[57:]))
			}
			topic.Partitions = append(topic.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
}

// peer is the running process.
type peer struct {
	peerAddrs
	in  io.WriteCloser
	out *bufio.Reader
}

// startPeer starts clusters whose source has the first batch of a recording over
// and over, written a moment ago. stop ends them.
func startPeer(ctx context.Context, tb testing.TB, log string, partitions int32) (p *peer, stop func()) {
	tb.Helper()
	l := recorded.Get(tb, log)
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), peerVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	p = &peer{in: in, out: bufio.NewReader(out)}
	stop = func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("peer: %v", err)
		}
	}
	if err := json.NewEncoder(in).Encode(peerSpec{Batch: recorded.Fresh(l.Batches()[0], time.Now()), Partitions: partitions}); err != nil {
		tb.Fatalf("tell the peer what to serve: %v", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		tb.Fatalf("read the peer's addresses: %v", err)
	}
	if err := json.Unmarshal(line, &p.peerAddrs); err != nil {
		tb.Fatal(err)
	}
	return p, stop
}

// usage is what the peer has used and done so far.
func (p *peer) usage(tb testing.TB) (u peerUsage) {
	tb.Helper()
	if _, err := fmt.Fprintln(p.in); err != nil {
		tb.Fatalf("ask the peer: %v", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &u)
	}
	if err != nil {
		tb.Fatalf("ask the peer: %v", err)
	}
	return u
}
