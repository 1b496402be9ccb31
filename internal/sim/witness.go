package sim

import (
	"fmt"
	"sort"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/offsets"
)

// witness stands at the target's door and sees every produce request before the
// target does. It keeps what the journal has been sent until now, and notes for
// each record of a lane which source offset the journal would give it, should
// everybody die at this moment. Whether that is right is asked at the end.
type witness struct {
	mu     sync.Mutex
	facts  map[offsets.Lane]map[offsets.Writer]*facts
	claims map[claim]int // how often it was sent
	wrong  []string
	name   func(*kmsg.ProduceRequestTopic) string
}

// facts are what the journal holds of one writer.
type facts struct {
	epoch *offsets.EpochRecord
	spans []offsets.Span // by ordinal
}

// claim says that the journal translated a record to a source offset.
type claim struct {
	lane   offsets.Lane
	id     int64
	source int64
	writer offsets.Writer
}

func newWitness() *witness {
	return &witness{facts: map[offsets.Lane]map[offsets.Writer]*facts{}, claims: map[claim]int{}}
}

// sees is a control function of the target.
func (w *witness) sees(req kmsg.Request) (kmsg.Response, error, bool) {
	r, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return nil, nil, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			p, topic := &r.Topics[i].Partitions[j], w.name(&r.Topics[i])
			var err error
			if topic == journalTopic {
				err = w.journal(p.Records)
			} else {
				err = w.data(offsets.Lane{Topic: topic, Partition: p.Partition}, p.Records)
			}
			if err != nil {
				w.wrong = append(w.wrong, fmt.Sprintf("produce request for %s-%d: %v", topic, p.Partition, err))
			}
		}
	}
	return nil, nil, false
}

func (w *witness) journal(raw []byte) error {
	return eachBatch(raw, func(b *kmsg.RecordBatch) error {
		records, err := decode(b)
		if err != nil {
			return err
		}
		for _, r := range records {
			e, err := offsets.DecodeEntry(r.key, r.value)
			if err != nil {
				return err
			}
			switch e := e.(type) {
			case offsets.EpochRecord:
				w.of(e.Lane, e.Writer).epoch = &e
			case offsets.Spans:
				f := w.of(e.Lane, e.Writer)
				f.spans = append(f.spans, e.Runs...)
				sort.SliceStable(f.spans, func(i, j int) bool { return f.spans[i].Ordinal < f.spans[j].Ordinal })
			}
		}
		return nil
	})
}

func (w *witness) of(lane offsets.Lane, writer offsets.Writer) *facts {
	byWriter := w.facts[lane]
	if byWriter == nil {
		byWriter = map[offsets.Writer]*facts{}
		w.facts[lane] = byWriter
	}
	f := byWriter[writer]
	if f == nil {
		f = &facts{}
		byWriter[writer] = f
	}
	return f
}

func (w *witness) data(lane offsets.Lane, raw []byte) error {
	return eachBatch(raw, func(b *kmsg.RecordBatch) error {
		records, err := decode(b)
		if err != nil {
			return err
		}
		writer := offsets.Writer{ProducerID: b.ProducerID, Epoch: b.ProducerEpoch}
		f := w.of(lane, writer)
		if f.epoch == nil {
			return fmt.Errorf("a batch of writer %v is sent, and the journal has no epoch record of it", writer)
		}
		if transactional(b) {
			return fmt.Errorf("a batch of writer %v is part of a transaction", writer)
		}
		for i := range records {
			id, err := idOf(records[i].value)
			if err != nil {
				return err
			}
			w.claims[claim{lane, id, f.source(records[i].sequence), writer}]++
		}
		return nil
	})
}

// source translates a sequence number of the writer.
func (f *facts) source(sequence int64) int64 {
	ordinal := f.epoch.Ordinal + sequence
	at := offsets.Span{Ordinal: f.epoch.Ordinal, Source: f.epoch.Source}
	for _, s := range f.spans {
		if s.Ordinal > ordinal {
			break
		}
		at = s
	}
	return at.Source + ordinal - at.Ordinal
}
