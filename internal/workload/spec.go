package workload

import (
	"cmp"
	"fmt"
	"maps"
	"strconv"
	"time"
)

// Kind is a shape of source data.
type Kind string

// The kinds.
const (
	Plain         Kind = "plain"         // Spec.Codec, by an idempotent kgo producer
	Headers       Kind = "headers"       // 0 to 5 headers: null and empty values, duplicate and empty keys
	Nulls         Kind = "nulls"         // null and empty keys and values, both at once too
	Compacted     Kind = "compacted"     // cleanup.policy=compact, with holes the cleaner made
	Transactions  Kind = "transactions"  // committed, aborted and plain records interleaved, some transactions open for long
	LogAppendTime Kind = "logappendtime" // the broker stamps the records; a fake that cannot is named in Result.Notes
	Tiny          Kind = "tiny"          // one record in a batch
	Ten           Kind = "ten"           // ten records of 100 bytes in a batch
	Large         Kind = "large"         // records of 1 MB
	Old           Kind = "old"           // timestamps Spec.Age ago, two days by default
	MixedCodec    Kind = "mixedcodec"    // batches of all codecs in turn in one topic
	Idempotent    Kind = "idempotent"    // as Plain
	PlainProducer Kind = "plainproducer" // by a producer without id
	Empty         Kind = "empty"         // a topic without records
	ManyParts     Kind = "manypartitions"
	OldMessages   Kind = "oldmessages" // message sets of format Spec.Magic 0 or 1: brokers before 4.0
)

// Kinds lists all of them.
func Kinds() []Kind {
	return []Kind{Plain, Headers, Nulls, Compacted, Transactions, LogAppendTime, Tiny, Ten, Large, Old, MixedCodec, Idempotent, PlainProducer, Empty, ManyParts, OldMessages}
}

// Spec says what to write. Only Topic and Kind are needed.
type Spec struct {
	Topic string
	Kind  Kind
	// Records to write in all, 1000 by default; Large 20, Empty none. Of
	// Transactions those aborted are part of it.
	Records int
	Seed    uint64
	// Start is the timestamp of the first record, each further one is a
	// millisecond later. By default so that the last one is written about now,
	// or Age before.
	Start time.Time
	Age   time.Duration
	// First is the sequence number every partition begins with: for writing on
	// to a topic that an earlier call wrote to.
	First int64

	Partitions        int32 // 3 by default, ManyParts 200
	ReplicationFactor int16 // the broker's default by default
	// Settings of the topic, besides those the kind needs.
	Settings map[string]string

	ValueBytes int   // of a value, 1000 by default; Ten and Tiny 100, Large 1,000,000
	BatchBytes int   // of a batch before compression, 64 KiB by default
	Run        int   // records written in a row to one partition before the next one's turn, 1 by default
	Codec      Codec // None by default; RawSnappy and Snappy differ in framing
	Magic      int8  // of OldMessages

	// Clean makes the cleaner run, for clusters that need to be told (a fake).
	// Without it Compacted waits for the broker's cleaner, CleanWait at most.
	Clean     func()
	CleanWait time.Duration // a minute by default
}

// Catalogue is one Spec of every kind, Plain and OldMessages for every codec
// they exist for, with about this many records each. Topic names begin with
// prefix. OldMessages are left out unless old is set: brokers from 4.0 on, and
// fakes, do not take them.
func Catalogue(prefix string, records int, old bool) []Spec {
	var out []Spec
	for _, k := range Kinds() {
		s := Spec{Topic: prefix + string(k), Kind: k, Records: records, Seed: 1}
		switch k {
		case Plain:
			for _, c := range Codecs() {
				s.Topic, s.Codec = prefix+string(k)+"-"+string(c), c
				out = append(out, s)
			}
		case OldMessages:
			if !old {
				continue
			}
			for magic := range int8(2) {
				for _, c := range []Codec{None, Gzip, Snappy, RawSnappy, LZ4} {
					s.Topic, s.Codec, s.Magic = fmt.Sprintf("%s%s-v%d-%s", prefix, k, magic, c), c, magic
					out = append(out, s)
				}
			}
		case Large:
			s.Records = min(records, 20)
			out = append(out, s)
		case Tiny:
			s.Records = min(records, 1000)
			out = append(out, s)
		default:
			out = append(out, s)
		}
	}
	return out
}

func (s Spec) withDefaults() (Spec, error) {
	if s.Topic == "" {
		return s, fmt.Errorf("topic without a name")
	}
	known := false
	for _, k := range Kinds() {
		known = known || k == s.Kind
	}
	if !known {
		return s, fmt.Errorf("unknown kind %q", s.Kind)
	}
	s.Codec = cmp.Or(s.Codec, None)
	if err := s.Codec.check(); err != nil {
		return s, err
	}
	partitions, records, value := int32(3), 1000, 1000
	switch s.Kind {
	case ManyParts:
		partitions = 200
	case Large:
		records, value = 20, 1_000_000
	case Ten, Tiny:
		value = 100
	case Old:
		s.Age = cmp.Or(s.Age, 48*time.Hour)
	case OldMessages:
		if s.Magic < 0 || s.Magic > 1 {
			return s, fmt.Errorf("magic %d is no old message format", s.Magic)
		}
		if s.Codec == Zstd {
			return s, fmt.Errorf("zstd needs message format 2")
		}
	}
	s.Partitions = cmp.Or(s.Partitions, partitions)
	s.ReplicationFactor = cmp.Or(s.ReplicationFactor, -1)
	s.Records = cmp.Or(s.Records, records)
	if s.Kind == Empty {
		s.Records = 0
	}
	s.ValueBytes = cmp.Or(s.ValueBytes, value)
	s.BatchBytes = cmp.Or(s.BatchBytes, 64<<10)
	s.Run = cmp.Or(s.Run, 1)
	s.CleanWait = cmp.Or(s.CleanWait, time.Minute)
	if s.Start.IsZero() {
		s.Start = time.Now().Add(-s.Age - time.Duration(s.Records)*time.Millisecond)
	}
	s.Start = s.Start.Truncate(time.Millisecond)
	return s, nil
}

// settings are those of the topic. Retention is off: records may be old.
func (s Spec) settings() map[string]*string {
	m := map[string]string{"retention.ms": "-1"}
	switch s.Kind {
	case Compacted:
		// Segments roll by record time, about eight in a partition, and only
		// rolled segments are cleaned.
		m["cleanup.policy"] = "compact"
		m["segment.ms"] = strconv.Itoa(max(1, s.Records/8))
		m["segment.bytes"] = strconv.Itoa(max(1<<20, s.Records/int(s.Partitions)*s.ValueBytes/8))
		m["min.cleanable.dirty.ratio"] = "0.01"
		m["min.compaction.lag.ms"] = "0"
		m["delete.retention.ms"] = "100"
	case LogAppendTime:
		m["message.timestamp.type"] = "LogAppendTime"
	case Large:
		m["max.message.bytes"] = strconv.Itoa(max(4<<20, 2*s.ValueBytes))
	case OldMessages:
		m["message.format.version"] = []string{"0.9.0", "0.10.0"}[s.Magic]
	}
	maps.Copy(m, s.Settings)
	out := make(map[string]*string, len(m))
	for k, v := range m {
		out[k] = &v
	}
	return out
}
