package writers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
)

// An End is where a partition ends, by its leader. All offsets are those of the next
// record.
type End struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	// LogEnd is the leader's own. Brokers that do not tell it give HighWatermark.
	LogEnd int64 `json:"log_end"`
	// HighWatermark is below LogEnd while a record waits for its replicas: it was
	// written, and nobody can read it yet.
	HighWatermark int64 `json:"high_watermark"`
	// LastStable is below HighWatermark while a transaction is open, or has just ended.
	LastStable int64 `json:"last_stable"`
}

// A Growth is a partition that somebody wrote to between two looks.
type Growth struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	From      int64   `json:"from"` // log end of the first look
	To        int64   `json:"to"`   // and of the second
	PerSecond float64 `json:"per_second"`
	// Control: all of it are control records. No application wrote: a transaction
	// ended, or a lane was opened. False where the records may not be read.
	Control bool `json:"control,omitempty"`
}

func (g Growth) String() string {
	s := fmt.Sprintf("topic %s partition %d: offset %d -> %d (+%d, %.1f a second)", g.Topic, g.Partition, g.From, g.To, g.To-g.From, g.PerSecond)
	if g.Control {
		s += ", control records only"
	}
	return s
}

// An OpenTransaction keeps the last stable offset of a partition back. What the
// brokers do not tell, or may not be asked, is left out.
type OpenTransaction struct {
	Topic           string    `json:"topic"`
	Partition       int32     `json:"partition"`
	LastStable      int64     `json:"last_stable"`
	HighWatermark   int64     `json:"high_watermark"`
	ProducerID      int64     `json:"producer_id"` // -1: not known
	Epoch           int16     `json:"epoch,omitempty"`
	Start           int64     `json:"start,omitempty"` // first offset of the transaction in the partition
	LastWrite       time.Time `json:"last_write,omitzero"`
	TransactionalID string    `json:"transactional_id,omitempty"`
	State           string    `json:"state,omitempty"` // the coordinator's word: "Ongoing", "PrepareCommit"
	// Ends is when the coordinator aborts it at the latest.
	Ends time.Time `json:"ends,omitzero"`
}

func (o OpenTransaction) String() string {
	s := fmt.Sprintf("topic %s partition %d: open transaction at offset %d", o.Topic, o.Partition, o.LastStable)
	if o.ProducerID >= 0 {
		s += fmt.Sprintf(" of producer id %d", o.ProducerID)
	}
	if o.TransactionalID != "" {
		s += fmt.Sprintf(", transactional id %s", o.TransactionalID)
	}
	if !o.Ends.IsZero() {
		s += ", aborted at " + o.Ends.UTC().Format(time.TimeOnly) + " UTC at the latest"
	}
	return s
}

// Observation is what two looks at the ends of topics found.
type Observation struct {
	First  time.Time         `json:"first"` // when the first look was over
	Second time.Time         `json:"second"`
	Ends   []End             `json:"ends"`            // of the second look, all partitions
	Grown  []Growth          `json:"grown,omitempty"` // the fastest first
	Open   []OpenTransaction `json:"open,omitempty"`  // at the second look
	// Waiting are the ends of the second look that are not replicated: their records
	// were written before it and become visible later.
	Waiting []End `json:"waiting,omitempty"`
}

// Written are the growths that are not control records alone: somebody writes.
func (o Observation) Written() []Growth {
	return slices.DeleteFunc(slices.Clone(o.Grown), func(g Growth) bool { return g.Control })
}

// Still says that nobody wrote, that nothing that was written is still to become
// visible, and that no transaction is open that could end later. Then each end of
// Ends is final while the fence holds.
func (o Observation) Still() bool {
	return len(o.Written()) == 0 && len(o.Open) == 0 && len(o.Waiting) == 0
}

// Grown looks at the ends of all partitions of the topics twice. apart is the least
// time between the end of the first look and the beginning of the second. It
// needs DESCRIBE on the topics; with READ on them it names the producers of open
// transactions and tells control records from others, with DESCRIBE on
// transactional ids it names those.
func Grown(ctx context.Context, c *cluster.Cluster, topics []string, apart time.Duration) (Observation, error) {
	if len(topics) == 0 { // kadm would take all
		return Observation{}, errors.New("look for writers: no topics")
	}
	before, err := ends(ctx, c, topics)
	if err != nil {
		return Observation{}, err
	}
	o := Observation{First: time.Now()}
	if err := pause.For(ctx, apart); err != nil {
		return Observation{}, fmt.Errorf("look for writers of cluster %s: %w", c.Alias(), err)
	}
	if o.Ends, err = ends(ctx, c, topics); err != nil {
		return Observation{}, err
	}
	o.Second = time.Now()
	was := map[place]int64{}
	for _, e := range before {
		was[place{e.Topic, e.Partition}] = e.LogEnd
	}
	for _, e := range o.Ends {
		// A partition that was not there before has grown from nothing.
		// One that is shorter has a new leader, which never had what waited for it.
		if from := was[place{e.Topic, e.Partition}]; e.LogEnd > from {
			o.Grown = append(o.Grown, Growth{
				Topic: e.Topic, Partition: e.Partition, From: from, To: e.LogEnd,
				PerSecond: float64(e.LogEnd-from) / o.Second.Sub(o.First).Seconds(),
			})
		}
		if e.HighWatermark < e.LogEnd {
			o.Waiting = append(o.Waiting, e)
		}
		if e.LastStable < e.HighWatermark {
			o.Open = append(o.Open, OpenTransaction{Topic: e.Topic, Partition: e.Partition, LastStable: e.LastStable, HighWatermark: e.HighWatermark, ProducerID: -1})
		}
	}
	slices.SortFunc(o.Grown, func(a, b Growth) int {
		return cmp.Or(-cmp.Compare(a.PerSecond, b.PerSecond), strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	markControl(ctx, c, o.Grown)
	o.Open = nameProducers(ctx, c, o.Open)
	return o, context.Cause(ctx)
}

// AwaitStill looks for growth again and again until all is still, or until the time
// is over: then the last observation says what is not. Right after [Apply] a record may
// still come that was authorized before it, and transactions may have to end: one
// growth alone says nothing, one that goes on does.
func AwaitStill(ctx context.Context, c *cluster.Cluster, topics []string, apart, within time.Duration) (Observation, error) {
	for deadline := time.Now().Add(within); ; {
		o, err := Grown(ctx, c, topics, apart)
		if err != nil || o.Still() || !time.Now().Before(deadline) {
			return o, err
		}
	}
}

type place struct {
	topic     string
	partition int32
}

// ends asks the leaders for the three ends, the highest first: one that is asked for
// later and is lower was lower all the time.
func ends(ctx context.Context, c *cluster.Cluster, topics []string) ([]End, error) {
	fail := func(err error) ([]End, error) {
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			err = fmt.Errorf("%w; grant DESCRIBE on the topics of cluster %s", err, c.Alias())
		}
		return nil, fmt.Errorf("ask cluster %s for the ends of topics: %w", c.Alias(), err)
	}
	meta, err := c.Admin().Metadata(ctx, topics...)
	if err == nil {
		err = meta.Topics.Error()
	}
	if err != nil {
		return fail(err)
	}
	var out []End
	for topic, detail := range meta.Topics {
		for partition := range detail.Partitions {
			out = append(out, End{Topic: topic, Partition: partition})
		}
	}
	slices.SortFunc(out, func(a, b End) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	for _, look := range []struct {
		asks      int32
		isolation int8
		to        func(*End) *int64
	}{
		{replica, 0, func(e *End) *int64 { return &e.LogEnd }},
		{consumer, 0, func(e *End) *int64 { return &e.HighWatermark }},
		{consumer, 1, func(e *End) *int64 { return &e.LastStable }},
	} {
		at, err := listEnds(ctx, c.Client(), out, look.asks, look.isolation)
		if err != nil {
			return fail(err)
		}
		for i := range out {
			offset, ok := at[place{out[i].Topic, out[i].Partition}]
			if !ok {
				return fail(fmt.Errorf("topic %s partition %d: no answer", out[i].Topic, out[i].Partition))
			}
			*look.to(&out[i]) = offset
		}
	}
	return out, nil
}

// Who asks for an offset. A consumer is told none above the high watermark; a broker,
// here one that there is not, is told the leader's own end, by the leader alone.
const (
	consumer int32 = -1
	replica  int32 = math.MaxInt32
)

func listEnds(ctx context.Context, client *kgo.Client, of []End, asks int32, isolation int8) (map[place]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = asks, isolation
	for _, e := range of { // by topic
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != e.Topic {
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = e.Topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = e.Partition, -1 // the end
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	resp, err := req.RequestWith(ctx, client) // each leader is asked for its own
	if err != nil {
		return nil, err
	}
	at := map[place]int64{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("topic %s partition %d: %w", t.Topic, p.Partition, err)
			}
			at[place{t.Topic, p.Partition}] = p.Offset
		}
	}
	return at, nil
}

// Looking at what was written is bounded: many records are no control records.
const (
	lookTime     = 10 * time.Second
	controlsMost = 10_000 // offsets in a partition; each transaction that ends writes one
)

// markControl reads what was written and sets Control where it is control records
// alone. What cannot be read in time stays as it is.
func markControl(ctx context.Context, c *cluster.Cluster, grown []Growth) {
	from := map[string]map[int32]kgo.Offset{}
	left := map[place]*Growth{}
	for i := range grown {
		g := &grown[i]
		if n := g.To - g.From; n < 0 || n > controlsMost {
			continue
		}
		if from[g.Topic] == nil {
			from[g.Topic] = map[int32]kgo.Offset{}
		}
		from[g.Topic][g.Partition] = kgo.NewOffset().At(g.From)
		left[place{g.Topic, g.Partition}] = g
	}
	if len(left) == 0 {
		return
	}
	client, err := c.NewClient(kgo.ConsumePartitions(from), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for len(left) > 0 && ctx.Err() == nil {
		client.PollFetches(ctx).EachPartition(func(f kgo.FetchTopicPartition) {
			at := place{f.Topic, f.Partition}
			g := left[at]
			if g == nil {
				return
			}
			if f.Err != nil {
				delete(left, at)
				return
			}
			for _, r := range f.Records {
				if r.Offset >= g.To {
					break
				}
				if !r.Attrs.IsControl() {
					delete(left, at)
					return
				}
				if r.Offset == g.To-1 {
					g.Control = true
					delete(left, at)
					return
				}
			}
		})
	}
}

// nameProducers adds to open transactions who has them open, as far as brokers
// tell: a partition has as many entries then as it has open transactions.
func nameProducers(ctx context.Context, c *cluster.Cluster, open []OpenTransaction) []OpenTransaction {
	if len(open) == 0 {
		return nil
	}
	var where kadm.TopicsSet
	for _, o := range open {
		where.Add(o.Topic, o.Partition)
	}
	// What was refused or is not offered is left out; the rest is told.
	described, err := c.Admin().DescribeProducers(ctx, where)
	if err != nil && len(described) == 0 {
		return open
	}
	var out []OpenTransaction
	var ids []int64
	for _, o := range open {
		found := false
		for _, p := range described[o.Topic].Partitions[o.Partition].ActiveProducers.Sorted() {
			if p.CurrentTxnStartOffset < 0 {
				continue
			}
			found = true
			one := o
			one.ProducerID, one.Epoch, one.Start = p.ProducerID, p.ProducerEpoch, p.CurrentTxnStartOffset
			if p.LastTimestamp >= 0 {
				one.LastWrite = time.UnixMilli(p.LastTimestamp)
			}
			out, ids = append(out, one), append(ids, p.ProducerID)
		}
		if !found {
			out = append(out, o)
		}
	}
	if len(ids) > 0 {
		nameTransactions(ctx, c.Admin(), ids, out)
	}
	return out
}

func nameTransactions(ctx context.Context, admin *kadm.Client, ids []int64, open []OpenTransaction) {
	slices.Sort(ids)
	list, err := admin.ListTransactions(ctx, slices.Compact(ids), nil)
	if err != nil && len(list) == 0 {
		return
	}
	byProducer := map[int64]kadm.ListedTransaction{}
	for _, l := range list {
		byProducer[l.ProducerID] = l
	}
	names := list.TransactionalIDs()
	if len(names) == 0 { // none may be seen; kadm would describe all
		return
	}
	details, _ := admin.DescribeTransactions(ctx, names...) // without them only the time of the end is not known
	for i := range open {
		l, ok := byProducer[open[i].ProducerID]
		if !ok {
			continue
		}
		open[i].TransactionalID, open[i].State = l.TxnID, l.State
		if d, ok := details[l.TxnID]; ok && d.Err == nil && d.StartTimestamp >= 0 {
			open[i].Ends = time.UnixMilli(d.StartTimestamp + int64(d.TimeoutMillis))
		}
	}
}
