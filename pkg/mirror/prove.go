package mirror

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// ProbeKey is the key of the record with which Prove tries a fence. No partition
// ever holds one where the fence is what it should be.
const ProbeKey = "replicator.fence.probe"

// probeSequence is far from any that an old holder has come to, so that a broker
// that still knew its epoch would refuse the batch as out of order.
const probeSequence = 1 << 30

// FenceProof is what a broker answered of one lane's fence.
type FenceProof struct {
	Topic       string `json:"topic"` // on the source
	Partition   int32  `json:"partition"`
	TargetTopic string `json:"target_topic"`
	Leader      int32  `json:"leader"` // who answered
	// Shown is the epoch of our producer id as the leader has it, and since when; its
	// ProducerID is -1 when the leader shows none.
	Shown offsets.Writer `json:"shown"`
	At    time.Time      `json:"at"`
	// Tried is the old holder under whose name the probe was sent; its ProducerID is
	// -1 when none was sent, and Answer says why.
	Tried  offsets.Writer `json:"tried"`
	Answer string         `json:"answer"` // the broker's, word by word
	Holds  bool           `json:"holds"`
	Error  string         `json:"error,omitempty"` // why it is not known
}

// Prove asks the leader of every fenced lane whether the fence holds, in two ways.
// It has to show our producer id with our epoch or a later one, and only if it does,
// one record is sent as the lane's old holder would send it, and has to be refused.
// Lanes that are not fenced, or gone, are left out.
//
// Needs READ and WRITE on the target's topics.
func Prove(ctx context.Context, target *cluster.Cluster, lanes []FencedLane) ([]FenceProof, error) {
	var proofs []FenceProof
	writers := make(map[partitionKey]FencedLane, len(lanes))
	for _, l := range lanes {
		if !l.Fenced || l.Gone {
			continue
		}
		writers[partitionKey{l.TargetTopic, l.Partition}] = l
		proofs = append(proofs, FenceProof{
			Topic: l.Topic, Partition: l.Partition, TargetTopic: l.TargetTopic, Leader: -1, Shown: noWriter, Tried: noWriter, Error: "not asked",
		})
	}
	if len(proofs) == 0 {
		return nil, nil
	}
	left := make([]*FenceProof, len(proofs))
	for i := range proofs {
		left[i] = &proofs[i]
	}
	for began := time.Now(); ; {
		if err := proveOnce(ctx, target, left, writers); err != nil {
			return proofs, err
		}
		left = slices.DeleteFunc(left, func(p *FenceProof) bool { return p.Error == "" })
		if len(left) == 0 || time.Since(began) > provePatience || pause.For(ctx, 200*time.Millisecond) != nil {
			break
		}
	}
	failed, first := 0, ""
	for i := range proofs {
		if p := &proofs[i]; !p.Holds {
			if failed++; first == "" {
				first = fmt.Sprintf("%s-%d: %s", p.TargetTopic, p.Partition, p.Answer+p.Error)
			}
		}
	}
	if failed > 0 {
		return proofs, fmt.Errorf("prove fence on %s: it is not proven for %d of %d lanes: %s", target.Alias(), failed, len(proofs), first)
	}
	return proofs, nil
}

// provePatience is how long lanes are asked again of which it is not known whether the fence
// holds, as when their leader moves.
const provePatience = 20 * time.Second

// proveOnce asks each lane's leader. A lane of which it is not known then has an Error.
func proveOnce(ctx context.Context, target *cluster.Cluster, proofs []*FenceProof, writers map[partitionKey]FencedLane) error {
	var topics []string
	for _, p := range proofs {
		p.Error = "not asked"
		topics = append(topics, p.TargetTopic)
	}
	listed, err := listTopics(ctx, target.Client(), unique(topics))
	if err != nil {
		return fmt.Errorf("list topics of %s: %w", target.Alias(), err)
	}
	byBroker := map[int32][]*FenceProof{}
	for _, p := range proofs {
		p.Leader = placeOf(listed[p.TargetTopic], p.Partition).leader
		if p.Leader < 0 {
			p.Error = "target partition has no leader"
			continue
		}
		byBroker[p.Leader] = append(byBroker[p.Leader], p)
	}
	var wg sync.WaitGroup
	for broker, some := range byBroker {
		wg.Go(func() {
			conn, err := target.Connect(ctx, broker)
			if err == nil {
				defer conn.Close()
				err = prove(ctx, conn, target.Alias(), some, writers)
			}
			if err != nil {
				for _, p := range some {
					if p.Error == "not asked" {
						p.Error = err.Error()
					}
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func unique(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// prove asks one broker of its lanes: what it remembers first, then the probes.
func prove(ctx context.Context, conn *wire.Conn, alias string, proofs []*FenceProof, fenced map[partitionKey]FencedLane) error {
	var ask []partitionKey
	for _, p := range proofs {
		ask = append(ask, partitionKey{p.TargetTopic, p.Partition})
	}
	shown, err := describeProducers(ctx, conn, alias, ask)
	if err != nil {
		return err
	}
	for _, p := range proofs {
		lane := fenced[partitionKey{p.TargetTopic, p.Partition}]
		answer := shown[partitionKey{p.TargetTopic, p.Partition}]
		p.Error = ""
		if answer.err != nil {
			p.Error = answer.err.Error()
			continue
		}
		producer, ok := answer.producers[lane.New.ProducerID]
		if !ok {
			p.Answer = fmt.Sprintf("the leader does not know producer id %d any more", lane.New.ProducerID)
			continue
		}
		p.Shown, p.At = producer.writer, producer.at
		switch {
		case producer.writer.Epoch < lane.New.Epoch:
			p.Answer = fmt.Sprintf("the leader shows epoch %d, not %d", producer.writer.Epoch, lane.New.Epoch)
		case lane.Old.ProducerID < 0:
			p.Holds, p.Answer = true, "not tried: nobody has ever opened the lane"
		case lane.Old.ProducerID != lane.New.ProducerID:
			// The broker refuses the old id no longer than it remembers it, and the probe
			// would be taken then. That its holder's lease was waited out is what holds.
			p.Holds, p.Answer = true, fmt.Sprintf("not tried: the producer id was %d and has changed; its lease was waited out", lane.Old.ProducerID)
		case lane.Old.Epoch >= producer.writer.Epoch:
			p.Answer = fmt.Sprintf("the leader shows epoch %d, that of the old holder is %d", producer.writer.Epoch, lane.Old.Epoch)
		default:
			p.Tried = lane.Old
			err := sendProbe(ctx, conn, p.TargetTopic, p.Partition, probeBatch(lane.Old, probeSequence, producer.at))
			_, answered := errors.AsType[*kerr.Error](err)
			switch {
			case err == nil:
				p.Answer = "the probe was APPENDED: the partition holds a record with key " + ProbeKey
			case answered && kerr.IsRetriable(err): // it has not looked at the epoch
				p.Error = fmt.Sprintf("send probe: %v", err)
			case answered:
				p.Holds, p.Answer = errors.Is(err, kerr.InvalidProducerEpoch), err.Error()
			default:
				p.Error = fmt.Sprintf("send probe: %v", err)
			}
		}
	}
	return nil
}

// sendProbe sends a batch and waits for the leader's answer.
func sendProbe(ctx context.Context, conn *wire.Conn, topic string, partition int32, batch []byte) error {
	done := make(chan error, 1)
	conn.Produce(&wire.ProduceRequest{
		TimeoutMillis: int32(produceTimeout.Milliseconds()),
		Parts:         []wire.ProducePart{{Topic: topic, Partition: partition, Records: batch}},
		Done: func(r *wire.ProduceRequest, err error) {
			if err == nil {
				if err = kerr.ErrorForCode(r.Parts[0].ErrorCode); err != nil && r.Parts[0].Message != "" {
					err = &brokerError{err, r.Parts[0].Message}
				}
			}
			done <- err
		},
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// probeBatch is a batch of one record as a holder would send it. Its time is one the leader
// has shown: by another clock it might be refused for that, before its epoch is looked at.
func probeBatch(holder offsets.Writer, sequence int32, leaderTime time.Time) []byte {
	record := kmsg.Record{Key: []byte(ProbeKey), Value: []byte("sent to prove that the fence refuses it; see pkg/mirror/prove.go")}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // of what follows the length, which is one byte as long as it is 0
	encoded := record.AppendTo(nil)
	at := leaderTime.UnixMilli()
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: at, MaxTimestamp: at,
		ProducerID: holder.ProducerID, ProducerEpoch: holder.Epoch, FirstSequence: sequence, NumRecords: 1, Records: encoded,
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12) // of what follows the length
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// partitionProducers is what a leader remembers of the producers of a partition.
type partitionProducers struct {
	producers map[int64]rememberedProducer // by producer id
	err       error
}

type rememberedProducer struct {
	writer offsets.Writer
	at     time.Time // timestamp of its last batch: the broker's clock for a control record
}

// describeProducers asks a leader what it remembers. Needs READ on the topics.
func describeProducers(ctx context.Context, conn *wire.Conn, alias string, partitions []partitionKey) (map[partitionKey]partitionProducers, error) {
	req := kmsg.NewPtrDescribeProducersRequest()
	at := map[string]int{}
	out := make(map[partitionKey]partitionProducers, len(partitions))
	for _, p := range partitions {
		i, ok := at[p.topic]
		if !ok {
			i = len(req.Topics)
			at[p.topic] = i
			t := kmsg.NewDescribeProducersRequestTopic()
			t.Topic = p.topic
			req.Topics = append(req.Topics, t)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p.partition)
		out[p] = partitionProducers{err: errors.New("describe producers: partition missing in the answer")}
	}
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("describe producers: %w", err)
	}
	for _, t := range resp.(*kmsg.DescribeProducersResponse).Topics {
		for _, p := range t.Partitions {
			got := partitionProducers{producers: make(map[int64]rememberedProducer, len(p.ActiveProducers))}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				got.err = fmt.Errorf("describe producers: %w", right(err, "READ", "topic "+t.Topic, alias))
			}
			for _, a := range p.ActiveProducers {
				got.producers[a.ProducerID] = rememberedProducer{offsets.Writer{ProducerID: a.ProducerID, Epoch: int16(a.ProducerEpoch)}, time.UnixMilli(a.LastTimestamp)}
			}
			out[partitionKey{t.Topic, p.Partition}] = got
		}
	}
	return out, nil
}
