package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/cluster"
)

// tail reads __consumer_offsets from its end on, in the order of its log and
// without what a transaction has not committed.
type tail struct {
	cluster *cluster.Cluster
	client  *kgo.Client
	parts   map[int32]*tailPart
	fetches chan kgo.Fetches // closed when reading has ended
	stop    context.CancelFunc
}

// tailPart is one partition of __consumer_offsets.
type tailPart struct {
	next int64 // next offset of the partition to be read
	// Records below hold are kept back, the last one of each key, because a
	// poll that may have seen any of them was handed on already.
	hold int64
	held map[Key]Commit
}

// noOffsetsTopic says that nobody has committed anything on the cluster yet.
var errNoOffsetsTopic = errors.New("there is no " + offsetsTopic + " yet")

// mayTail asks whether __consumer_offsets is there and may be read, and for the
// number of its partitions. Brokers before 2.3 do not tell rights: then the
// first fetch will.
func mayTail(ctx context.Context, c *cluster.Cluster) (int, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(offsetsTopic)
	req.Topics = append(req.Topics, t)
	req.IncludeTopicAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, c.Client())
	if err != nil {
		return 0, fmt.Errorf("ask for topic %s of cluster %s: %w", offsetsTopic, c.Alias(), err)
	}
	if len(resp.Topics) != 1 {
		return 0, fmt.Errorf("ask for topic %s of cluster %s: %d topics in the answer", offsetsTopic, c.Alias(), len(resp.Topics))
	}
	topic := resp.Topics[0]
	err = kerr.ErrorForCode(topic.ErrorCode)
	const unknownRights = -1 << 31
	rights := topic.AuthorizedOperations
	if err == nil && rights != unknownRights && rights&(1<<int32(kmsg.ACLOperationRead)) == 0 {
		err = kerr.TopicAuthorizationFailed
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return 0, errNoOffsetsTopic
	case err != nil:
		return 0, tailError(c, err)
	}
	return len(topic.Partitions), nil
}

// tailError says what to do about an error of reading __consumer_offsets.
func tailError(c *cluster.Cluster, err error) error {
	if notAuthorized(err) {
		return fmt.Errorf("%w: grant READ on topic %s of cluster %s to follow commits within a second", err, offsetsTopic, c.Alias())
	}
	return fmt.Errorf("read topic %s of cluster %s: %w", offsetsTopic, c.Alias(), err)
}

// openTail begins to read where all that is decided ends now: at the last
// stable offsets, so that a transaction that is open now is read when it is
// committed. A poll that begins later sees what is below.
func openTail(ctx context.Context, c *cluster.Cluster) (*tail, error) {
	n, err := mayTail(ctx, c)
	if err != nil {
		return nil, err
	}
	starts, err := c.Admin().ListCommittedOffsets(ctx, offsetsTopic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, tailError(c, err)
	}
	t := &tail{cluster: c, parts: map[int32]*tailPart{}, fetches: make(chan kgo.Fetches)}
	from := map[int32]kgo.Offset{}
	starts.Each(func(o kadm.ListedOffset) {
		t.parts[o.Partition] = &tailPart{next: o.Offset}
		from[o.Partition] = kgo.NewOffset().At(o.Offset)
	})
	if len(t.parts) != n {
		return nil, tailError(c, fmt.Errorf("%d of %d partitions are there", len(t.parts), n))
	}
	t.client, err = c.NewClient(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{offsetsTopic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they tell that a partition has been read to its end
		kgo.FetchMinBytes(1),     // a commit is answered at once
		kgo.FetchMaxWait(time.Second),
		kgo.FetchMaxBytes(4<<20),
		kgo.Rack(""), // a follower would know of commits a fetch later
	)
	if err != nil {
		return nil, err
	}
	ctx, t.stop = context.WithCancel(ctx)
	go t.read(ctx)
	return t, nil
}

// read hands fetches on, one at a time, until the context ends.
func (t *tail) read(ctx context.Context) {
	defer close(t.fetches)
	for ctx.Err() == nil {
		f := t.client.PollFetches(ctx)
		if f.IsClientClosed() {
			return
		}
		select {
		case t.fetches <- f:
		case <-ctx.Done():
		}
	}
}

// close ends reading and waits for it.
func (t *tail) close() {
	t.stop()
	for range t.fetches {
	}
	t.client.Close()
}

// ends asks where the partitions end, open transactions included: every commit
// acknowledged by now is below. With an error some ends are missing.
func (t *tail) ends(ctx context.Context) (map[int32]int64, error) {
	listed, err := t.cluster.Admin().ListEndOffsets(ctx, offsetsTopic)
	if err == nil {
		err = listed.Error()
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			ends[o.Partition] = o.Offset
		}
	})
	if err == nil && len(ends) != len(t.parts) {
		err = fmt.Errorf("it has %d partitions now, %d are read", len(ends), len(t.parts))
	}
	if err != nil {
		return ends, tailError(t.cluster, err)
	}
	return ends, nil
}

// behind returns a partition that has not been read to these ends.
func (t *tail) behind(ends map[int32]int64) (partition int32, found bool) {
	for p, end := range ends {
		if part := t.parts[p]; part != nil && part.next < end {
			return p, true
		}
	}
	return 0, false
}

// keepBack holds what is read below these ends.
func (t *tail) keepBack(ends map[int32]int64) {
	for p, end := range ends {
		if part := t.parts[p]; part != nil && part.next < end {
			part.hold = max(part.hold, end)
		}
	}
}

// hasRead says that the partition of a group has been read to these ends.
func (t *tail) hasRead(group string, ends map[int32]int64) bool {
	p := partitionOf(group, len(t.parts))
	end, known := ends[p]
	part := t.parts[p]
	return known && part != nil && part.next >= end
}

// partitionOf is the partition of __consumer_offsets that holds a group: the
// hash code of a Java string.
func partitionOf(group string, partitions int) int32 {
	var h int32
	for _, unit := range utf16.Encode([]rune(group)) {
		h = 31*h + int32(unit)
	}
	return int32(int64(max(h, -h, 0)) % int64(partitions))
}
