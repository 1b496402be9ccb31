package sim

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/offsets"
)

// record is one record of a partition's log, with what the header of its batch says.
type record struct {
	offset    int64
	timestamp int64 // ms
	key       []byte
	value     []byte
	headers   []kmsg.Header
	writer    offsets.Writer
	sequence  int64
}

// readLog reads a whole partition, batch by batch, control records included.
// It shares no code with the replicator.
func (w *world) readLog(ctx context.Context, c *kfake.Cluster, hosts []string, lane offsets.Lane) (all []kmsg.RecordBatch, err error) {
	client, err := kgo.NewClient(w.client(observerHost, hosts)...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	info := c.PartitionInfo(lane.Topic, lane.Partition)
	if info == nil {
		return nil, fmt.Errorf("partition does not exist")
	}
	for next := info.LogStartOffset; next < info.HighWatermark; {
		raw, err := fetch(ctx, client.Broker(int(c.LeaderFor(lane.Topic, lane.Partition))), lane, next)
		if err != nil {
			return nil, err
		}
		before := next
		err = eachBatch(raw, func(b *kmsg.RecordBatch) error {
			next = b.FirstOffset + int64(b.LastOffsetDelta) + 1
			all = append(all, *b)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if next == before {
			return nil, fmt.Errorf("nothing at offset %d", next)
		}
	}
	return all, nil
}

func fetch(ctx context.Context, b *kgo.Broker, lane offsets.Lane, from int64) ([]byte, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 10, 1, 1<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic = lane.Topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = lane.Partition, from, 1<<20
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := b.RetriableRequest(ctx, byName{req})
	if err != nil {
		return nil, err
	}
	got := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		return nil, fmt.Errorf("fetch offset %d: error code %d", from, got.ErrorCode)
	}
	return got.RecordBatches, nil
}

// byName is a fetch that names topics by their names.
type byName struct{ kmsg.Request }

func (byName) MaxVersion() int16 { return 11 }

func control(b *kmsg.RecordBatch) bool       { return b.Attributes&0x20 != 0 }
func transactional(b *kmsg.RecordBatch) bool { return b.Attributes&0x10 != 0 }

// committed returns the records of a log that were not aborted, in their order.
// The last batch of each transaction decides about those before it.
func committed(log []kmsg.RecordBatch) (out []record, err error) {
	good := make([]bool, len(log))
	pending := map[int64][]int{} // by producer id
	for i := range log {
		b := &log[i]
		switch {
		case control(b):
			records, err := decode(b)
			if err != nil {
				return nil, err
			}
			if len(records) == 1 && len(records[0].key) == 4 && records[0].key[3] == 1 {
				for _, at := range pending[b.ProducerID] {
					good[at] = true
				}
			}
			delete(pending, b.ProducerID)
		case transactional(b):
			pending[b.ProducerID] = append(pending[b.ProducerID], i)
		default:
			good[i] = true
		}
	}
	for i := range log {
		if good[i] {
			records, err := decode(&log[i])
			if err != nil {
				return nil, err
			}
			out = append(out, records...)
		}
	}
	return out, nil
}

// Decoders are made outside of all bubbles: their channels and finalizers belong to none.
var (
	decompressor = kgo.DefaultDecompressor()
	unzstd, _    = zstd.NewReader(nil, zstd.WithDecoderConcurrency(4))
)

// decode takes a batch apart.
func decode(b *kmsg.RecordBatch) (out []record, err error) {
	payload := b.Records
	switch codec := b.Attributes & 7; codec {
	case 0:
	case 4:
		payload, err = unzstd.DecodeAll(payload, nil)
	default:
		payload, err = decompressor.Decompress(payload, kgo.CompressionCodecType(codec))
	}
	if err != nil {
		return nil, fmt.Errorf("decompress batch at offset %d: %w", b.FirstOffset, err)
	}
	for i := range b.NumRecords {
		length, n := binary.Varint(payload)
		if n <= 0 || length < 0 || int64(len(payload)-n) < length {
			return nil, fmt.Errorf("record %d of the batch at offset %d is cut", i, b.FirstOffset)
		}
		var r kmsg.Record
		if err := r.ReadFrom(payload[:n+int(length)]); err != nil {
			return nil, fmt.Errorf("record %d of the batch at offset %d: %w", i, b.FirstOffset, err)
		}
		payload = payload[n+int(length):]
		out = append(out, record{
			offset: b.FirstOffset + int64(r.OffsetDelta), timestamp: b.FirstTimestamp + r.TimestampDelta64, key: r.Key, value: r.Value, headers: r.Headers,
			writer: offsets.Writer{ProducerID: b.ProducerID, Epoch: b.ProducerEpoch}, sequence: int64(b.FirstSequence) + int64(i),
		})
	}
	if len(payload) > 0 {
		return nil, fmt.Errorf("%d bytes behind the last record of the batch at offset %d", len(payload), b.FirstOffset)
	}
	return out, nil
}

// eachBatch walks over record batches as they lie in a request or a log.
func eachBatch(raw []byte, fn func(*kmsg.RecordBatch) error) error {
	for len(raw) > 0 {
		if len(raw) < 61 {
			return fmt.Errorf("a batch of %d bytes", len(raw))
		}
		size := 12 + int(binary.BigEndian.Uint32(raw[8:]))
		if size > len(raw) || raw[16] != 2 {
			return fmt.Errorf("a batch of %d bytes and magic %d, %d bytes are there", size, raw[16], len(raw))
		}
		var b kmsg.RecordBatch
		if err := b.ReadFrom(raw[:size]); err != nil {
			return err
		}
		if err := fn(&b); err != nil {
			return err
		}
		raw = raw[size:]
	}
	return nil
}
