package stranded

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recount reads the destination back and counts the records of a range: each once, in the order of
// their offsets. It is what proves a replay, and believes nothing that was counted before.
func (t *transfer) recount(ctx context.Context, r Range, done progress) (n int64, err error) {
	if done.Records == 0 {
		return 0, nil
	}
	ends, err := t.target.bounds(ctx, done.Topic)
	if err != nil {
		return 0, err
	}
	last := int64(-1)
	from := max(done.Begin, ends[done.Partition].start)
	err = t.target.read(ctx, done.Topic, done.Partition, from, done.End, func(records []*kgo.Record) error {
		for _, rec := range records {
			offset, ok := t.offsetIn(r, rec)
			if !ok || offset < max(r.From, r.Start) || offset >= r.To {
				continue
			}
			if offset <= last {
				return fmt.Errorf("count what was appended: %s-%d holds offset %d of %v at offset %d, behind offset %d: it is there twice, or out of order",
					done.Topic, done.Partition, offset, r.Lane, rec.Offset, last)
			}
			last = offset
			n++
		}
		return nil
	})
	return n, err
}

// offsetIn returns the offset a record had in the old region, if it is one of the range's partition.
func (t *transfer) offsetIn(r Range, rec *kgo.Record) (int64, bool) {
	topic, partition, from := "", "", ""
	offset := int64(-1)
	for _, h := range rec.Headers {
		switch h.Key {
		case HeaderFrom:
			from = string(h.Value)
		case HeaderTopic:
			topic = string(h.Value)
		case HeaderPartition:
			partition = string(h.Value)
		case HeaderOffset:
			var err error
			if offset, err = strconv.ParseInt(string(h.Value), 10, 64); err != nil {
				offset = -1
			}
		}
	}
	mine := from == t.report.From && partition == strconv.Itoa(int(r.Partition)) && (t.verb == verbReplay || topic == r.Topic)
	return offset, mine && offset >= 0
}
