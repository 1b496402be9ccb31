package mirror

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// FenceState says in one word what is left of a lane's fence.
type FenceState string

// States of a fence.
const (
	FenceHolds     FenceState = "holds"      // the leader shows the fence's epoch, or a later one of the same producer id
	FenceForgotten FenceState = "forgotten"  // the leader does not know the fence's producer id any more
	FenceNone      FenceState = "not fenced" // the leader takes the records of the daemon that opened the lane last, or shows an older epoch
	FenceUnknown   FenceState = "unknown"    // the leader did not say
)

// FenceAge is what a broker shows now of one lane's fence.
type FenceAge struct {
	Topic       string         `json:"topic"` // on the source
	Partition   int32          `json:"partition"`
	TargetTopic string         `json:"target_topic"`
	Leader      int32          `json:"leader"` // -1 none
	State       FenceState     `json:"state"`
	Detail      string         `json:"detail,omitempty"`
	Fence       offsets.Writer `json:"fence"` // of the journal's last epoch record; what the guard took, where that is a daemon's
	Shown       offsets.Writer `json:"shown"` // as the leader has it now; ProducerID -1: not at all
	// At is the broker's time of the last control record, Age how long ago that is
	// by our clock. Zero unless the fence holds.
	At  time.Time     `json:"at"`
	Age time.Duration `json:"age_ns"`
}

// FenceAges asks the brokers of a link's target how old the fences of its lanes are,
// and for how long they remember one. It writes nothing. Lanes nobody has ever opened
// are left out. log may be nil.
//
// Needs READ on the target's topics and on the journal, and DESCRIBE_CONFIGS on the
// cluster to know for how long.
func FenceAges(ctx context.Context, target *cluster.Cluster, o Options, log *zap.Logger) (ages []FenceAge, remembered Remembered, err error) {
	op, err := newOpener(ctx, o, target, log, "", true)
	if err != nil {
		return nil, Remembered{}, err
	}
	defer op.journal.Close()
	places, err := op.targetLanes(ctx)
	if err != nil {
		return nil, Remembered{}, fmt.Errorf("find lanes of link %s: %w", op.opts.Name, err)
	}
	for lane, p := range places {
		last, opened := op.journal.State(lane).Last()
		if !opened {
			continue
		}
		a := FenceAge{
			Topic: lane.Topic, Partition: lane.Partition, TargetTopic: p.topic, Leader: p.leader,
			State: FenceUnknown, Detail: "not asked", Fence: last.Writer, Shown: noWriter,
		}
		switch {
		case p.err != nil:
			a.Detail = p.err.Error()
		case !isFence(last):
			a.State, a.Detail = FenceNone, "opened last by "+last.Instance
		case p.leader < 0:
			a.Detail = "target partition has no leader"
		}
		ages = append(ages, a)
	}
	slices.SortFunc(ages, func(a, b FenceAge) int {
		return compareLanes(offsets.Lane{Topic: a.Topic, Partition: a.Partition}, offsets.Lane{Topic: b.Topic, Partition: b.Partition})
	})
	byBroker := map[int32][]*FenceAge{}
	for i := range ages {
		if a := &ages[i]; (a.State == FenceUnknown || a.State == FenceNone) && a.Leader >= 0 {
			byBroker[a.Leader] = append(byBroker[a.Leader], a)
		}
	}
	var wg sync.WaitGroup
	for broker, some := range byBroker {
		wg.Go(func() { op.askAges(ctx, broker, some) })
	}
	wg.Wait()
	return ages, op.remembered(ctx), nil
}

func (op *opener) askAges(ctx context.Context, broker int32, ages []*FenceAge) {
	var shown map[partitionKey]partitionProducers
	conn, err := op.target.Connect(ctx, broker)
	if err == nil {
		defer conn.Close()
		ask := make([]partitionKey, len(ages))
		for i, a := range ages {
			ask[i] = partitionKey{a.TargetTopic, a.Partition}
		}
		shown, err = describeProducers(ctx, conn, op.opts.To, ask)
	}
	for _, a := range ages {
		answer := shown[partitionKey{a.TargetTopic, a.Partition}]
		if err != nil {
			answer.err = err
		}
		a.judge(answer)
	}
}

// judge says what a leader's answer means for the fence.
func (a *FenceAge) judge(answer partitionProducers) {
	if answer.err != nil {
		if a.State == FenceUnknown {
			a.Detail = answer.err.Error()
		}
		return
	}
	p, ok := answer.producers[a.Fence.ProducerID]
	if a.State == FenceNone { // by the journal, in which a guard writes nothing
		if !ok || p.writer.Epoch <= a.Fence.Epoch {
			return
		}
		a.Fence = p.writer
	}
	switch {
	case !ok:
		a.State, a.Detail = FenceForgotten, fmt.Sprintf("the leader does not know producer id %d any more", a.Fence.ProducerID)
	case p.writer.Epoch < a.Fence.Epoch:
		a.Shown = p.writer
		a.State, a.Detail = FenceNone, fmt.Sprintf("the leader shows epoch %d, the fence has %d", p.writer.Epoch, a.Fence.Epoch)
	default:
		a.Shown, a.At, a.Age = p.writer, p.at, max(0, time.Since(p.at))
		a.State, a.Detail = FenceHolds, ""
	}
}
