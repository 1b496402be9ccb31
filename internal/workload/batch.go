package workload

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// producer numbers the batches of one producer id; id -1 is none.
type producer struct {
	id    int64
	epoch int16
}

// encodeBatch makes a record batch of format 2 by hand. Attributes are those
// besides the codec's.
func encodeBatch(records []*kgo.Record, codec Codec, attributes int16, by producer, sequence int32) ([]byte, error) {
	first := records[0].Timestamp.UnixMilli()
	newest := first
	var body, one []byte
	for i, r := range records {
		ts := r.Timestamp.UnixMilli()
		newest = max(newest, ts)
		one = append(one[:0], 0) // attributes of a record: none exist
		one = binary.AppendVarint(one, ts-first)
		one = binary.AppendVarint(one, int64(i))
		one = varintBytes(one, r.Key)
		one = varintBytes(one, r.Value)
		one = binary.AppendVarint(one, int64(len(r.Headers)))
		for _, h := range r.Headers {
			one = varintBytes(one, append([]byte{}, h.Key...))
			one = varintBytes(one, h.Value)
		}
		body = binary.AppendVarint(body, int64(len(one)))
		body = append(body, one...)
	}
	body, err := codec.compress(body)
	if err != nil {
		return nil, err
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1,
		Magic:                2,
		Attributes:           codec.id() | attributes,
		LastOffsetDelta:      int32(len(records) - 1),
		FirstTimestamp:       first,
		MaxTimestamp:         newest,
		ProducerID:           by.id,
		ProducerEpoch:        by.epoch,
		FirstSequence:        sequence,
		NumRecords:           int32(len(records)),
		Records:              body,
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], castagnoli))
	return out, nil
}

// varintBytes appends a length and bytes, -1 for null.
func varintBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// encodeMessages makes a message set of format 0 or 1 by hand: bare messages,
// or one message that holds a compressed set.
func encodeMessages(records []*kgo.Record, codec Codec, magic int8) ([]byte, error) {
	var set []byte
	newest := int64(-1)
	for i, r := range records {
		ts := r.Timestamp.UnixMilli()
		newest = max(newest, ts)
		set = appendMessage(set, magic, int64(i), 0, ts, r.Key, r.Value)
	}
	if codec == None {
		return set, nil
	}
	body, err := codec.compress(set)
	if err != nil {
		return nil, err
	}
	if codec == LZ4 && magic == 0 {
		breakLZ4Header(body)
	}
	return appendMessage(nil, magic, int64(len(records)-1), int8(codec.id()), newest, nil, body), nil
}

func appendMessage(dst []byte, magic int8, offset int64, attributes int8, timestamp int64, key, value []byte) []byte {
	at := len(dst)
	if magic == 0 {
		m := kmsg.MessageV0{Offset: offset, Magic: 0, Attributes: attributes, Key: key, Value: value}
		dst = m.AppendTo(dst)
	} else {
		m := kmsg.MessageV1{Offset: offset, Magic: 1, Attributes: attributes, Timestamp: timestamp, Key: key, Value: value}
		dst = m.AppendTo(dst)
	}
	out := dst[at:]
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[12:], crc32.ChecksumIEEE(out[16:]))
	return dst
}
