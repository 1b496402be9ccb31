package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/offsets"
)

// logRecord is one record as a region holds it.
type logRecord struct {
	key    key
	known  bool   // a producer of the demo wrote it
	digest uint64 // of key, value, headers and timestamp
	offset int64
	writer offsets.Writer
}

// ends are the ends of all partitions, next offsets.
func (r *region) ends(ctx context.Context) (map[lane]int64, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.addrs...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return endsOf(ctx, client)
}

func endsOf(ctx context.Context, client *kgo.Client) (map[lane]int64, error) {
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topicNames()...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, err
	}
	out := map[lane]int64{}
	listed.Each(func(o kadm.ListedOffset) { out[lane{o.Topic, o.Partition}] = o.Offset })
	return out, nil
}

// readBack reads all that a region holds, as a consumer of committed records would.
func (r *region) readBack(ctx context.Context) (map[lane][]logRecord, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.addrs...), kgo.ConsumeTopics(topicNames()...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return nil, fmt.Errorf("read region %s: %w", r.name, err)
	}
	defer client.Close()
	ends, err := endsOf(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("read region %s: %w", r.name, err)
	}
	out := map[lane][]logRecord{}
	open := map[lane]bool{}
	for l, end := range ends {
		if end > 0 {
			open[l] = true
		}
	}
	for len(open) > 0 {
		// An aborted record at the very end is never handed out; what is read next tells
		// that it was passed.
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("read region %s: %s-%d: %w", r.name, e.Topic, e.Partition, e.Err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			l := lane{rec.Topic, rec.Partition}
			if rec.Offset+1 >= ends[l] {
				delete(open, l)
			}
			if rec.Attrs.IsControl() {
				return
			}
			k, ok := nameOf(rec)
			out[l] = append(out[l], logRecord{k, ok, digest(rec), rec.Offset, offsets.Writer{ProducerID: rec.ProducerID, Epoch: rec.ProducerEpoch}})
		})
	}
	return out, nil
}

// digest is over everything a consumer sees of a record but its offset.
func digest(r *kgo.Record) uint64 {
	h := fnv.New64a()
	var n [8]byte
	put := func(b []byte) {
		size := int64(len(b))
		if b == nil {
			size = -1
		}
		binary.BigEndian.PutUint64(n[:], uint64(size))
		_, _ = h.Write(n[:])
		_, _ = h.Write(b)
	}
	binary.BigEndian.PutUint64(n[:], uint64(r.Timestamp.UnixMilli()))
	_, _ = h.Write(n[:])
	put(r.Key)
	put(r.Value)
	for _, header := range r.Headers {
		put([]byte(header.Key))
		put(header.Value)
	}
	return h.Sum64()
}
