package workload

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// maker makes the records of a Spec.
type maker struct {
	spec Spec
	content
}

func newMaker(s Spec) *maker { return &maker{s, *newContent(s.Topic, s.Seed)} }

// place is where the n-th record of the topic goes: partitions in turn, Run
// records each.
func (m *maker) place(n int) (partition int32, sequence int64) {
	p, run := int(m.spec.Partitions), m.spec.Run
	turn := n / run
	return int32(turn % p), m.spec.First + int64(turn/p*run+n%run)
}

// record makes the n-th record.
func (m *maker) record(n int) *kgo.Record {
	p, seq := m.place(n)
	return m.at(p, seq, m.spec.Start.Add(time.Duration(n)*time.Millisecond))
}

// at makes the record of a sequence number.
func (m *maker) at(p int32, seq int64, timestamp time.Time) *kgo.Record {
	r := &kgo.Record{Topic: m.spec.Topic, Partition: p, Key: m.key(p, seq), Value: m.value(p, seq, m.spec.ValueBytes), Timestamp: timestamp}
	switch m.spec.Kind {
	case Headers:
		r.Headers = m.headers(p, seq)
	case Nulls:
		nulls(r, seq)
	case Compacted:
		// About half of the records are superseded by later ones of their key,
		// scattered over the log; one in twenty deletes its key.
		keys := max(1, uint64(m.spec.Records)/uint64(m.spec.Partitions)*63/100)
		r.Key = fmt.Appendf(nil, "k-%d", m.random(p, seq, 'k')%keys)
		if m.random(p, seq, 'd')%20 == 0 {
			r.Value = nil
		}
	}
	return r
}

func nulls(r *kgo.Record, seq int64) {
	switch seq % 8 {
	case 0:
		r.Key = nil
	case 1:
		r.Value = nil
	case 2:
		r.Key = []byte{}
	case 3:
		r.Value = []byte{}
	case 4:
		r.Key, r.Value = nil, nil
	case 5:
		r.Key, r.Value = []byte{}, []byte{}
	case 6:
		r.Key, r.Value = nil, []byte{}
	}
}

// headers makes 0 to 5 headers. Names repeat, and one is empty.
func (m *maker) headers(p int32, seq int64) []kgo.RecordHeader {
	n := int(seq % 6)
	if n == 0 {
		return nil
	}
	names := []string{"trace", "trace", "source", "", "naïve\n"}
	out := make([]kgo.RecordHeader, n)
	for i := range out {
		r := m.random(p, seq, byte(i))
		out[i].Key = names[r%uint64(len(names))]
		switch (r >> 8) % 4 {
		case 0:
			out[i].Value = nil
		case 1:
			out[i].Value = []byte{}
		default:
			out[i].Value = fmt.Appendf(nil, "%x", r)
		}
	}
	return out
}
