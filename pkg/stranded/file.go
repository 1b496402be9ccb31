package stranded

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/cluster"
)

// Line is a record in an exported file: one JSON object a line. Keys, values and headers are base64, so
// that no byte is changed; what a record lacks is null.
type Line struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Offset    int64        `json:"offset"`
	Timestamp int64        `json:"timestamp"` // milliseconds since 1970
	Key       []byte       `json:"key"`
	Value     []byte       `json:"value"`
	Headers   []LineHeader `json:"headers,omitempty"`
}

// LineHeader is one header of a record.
type LineHeader struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// ExportFile writes the records of a report to w, in the order of its ranges. It always begins anew: what an
// earlier run wrote is to be thrown away. Fewer records than were found are an error.
func ExportFile(ctx context.Context, old *cluster.Cluster, report Report, w io.Writer, o Options) (Result, error) {
	var result Result
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	lines := json.NewEncoder(buf)
	r, limit := newReader(old), newLimiter(o.BytesPerSecond)
	for _, found := range report.Ranges {
		lane := LaneResult{Lane: found.Lane}
		err := r.read(ctx, found.Topic, found.Partition, max(found.From, found.Start), found.To, func(records []*kgo.Record) error {
			for _, rec := range records {
				if err := lines.Encode(lineOf(rec)); err != nil {
					return err
				}
				lane.Records++
				result.Bytes += size(rec)
				if err := limit.spend(ctx, size(rec)); err != nil {
					return err
				}
			}
			o.report(report, result.Records+lane.Records, result.Bytes)
			return nil
		})
		if err == nil && lane.Records != found.Records {
			err = &CountError{Lane: found.Lane, Found: found.Records, Have: lane.Records}
		}
		if err != nil {
			return result, fmt.Errorf("export stranded records: %w", err)
		}
		lane.Counted = lane.Records
		result.add(lane)
	}
	if err := buf.Flush(); err != nil {
		return result, fmt.Errorf("export stranded records: %w", err)
	}
	result.SHA256 = digest(sum.Sum(nil))
	return result, nil
}

func lineOf(r *kgo.Record) Line {
	l := Line{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		l.Headers = append(l.Headers, LineHeader{[]byte(h.Key), h.Value})
	}
	return l
}

func (o Options) report(r Report, records, bytes int64) {
	if o.Progress != nil {
		o.Progress(Progress{Records: records, Bytes: bytes, AllRecords: r.Records, AllBytes: r.Bytes})
	}
}
