package recorded_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"replicator/internal/kafkatest"
	"replicator/internal/recorded"
	"replicator/internal/workload"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

// What is recorded, and how many batches of it.
type recording struct {
	spec    workload.Spec
	batches int
	from    int64 // source offset
}

func recordings() []recording {
	// Batches before compression that are about 64 KiB after it.
	before := map[workload.Codec]int{workload.None: 66 << 10, workload.Gzip: 350 << 10, workload.Snappy: 186 << 10, workload.LZ4: 224 << 10, workload.Zstd: 388 << 10}
	var out []recording
	for _, c := range recorded.Codecs {
		codec := workload.Codec(c)
		out = append(out,
			recording{workload.Spec{Topic: recorded.Named(recorded.Large, c), Kind: workload.Plain, Codec: codec, Records: 2000, BatchBytes: before[codec], Settings: map[string]string{"max.message.bytes": "1048576"}}, 3, 0},
			recording{workload.Spec{Topic: recorded.Named(recorded.Small, c), Kind: workload.Ten, Codec: codec, Records: 300}, 30, 0})
	}
	for codec, size := range map[workload.Codec]int{workload.None: 4300, workload.LZ4: 10 << 10} {
		spec := workload.Spec{Topic: recorded.Named(recorded.Medium, string(codec)), Kind: workload.Plain, Codec: codec, Records: 500, BatchBytes: size}
		out = append(out, recording{spec, 10, 0})
	}
	return append(out,
		recording{workload.Spec{Topic: recorded.Transactions, Kind: workload.Transactions, Codec: workload.LZ4, Records: 3000, ValueBytes: 100}, 150, 0},
		// The older a record, the likelier it is gone: half are about here.
		recording{workload.Spec{Topic: recorded.Compacted, Kind: workload.Compacted, Codec: workload.LZ4, Records: 6000, ValueBytes: 300, BatchBytes: 32 << 10}, 12, 3000})
}

// TestRecord writes the files of this package, with real Kafka:
//
//	RECORD=1 go test -count=1 -run TestRecord -v ./internal/recorded
//
// The producers are those of package workload, kgo most of them. Producer ids,
// timestamps and the cuts between batches differ from one recording to the next,
// so results of benchmarks compare only on the same files.
func TestRecord(t *testing.T) {
	if os.Getenv("RECORD") == "" {
		t.Skip("records the files again: set RECORD=1")
	}
	c := kafkatest.Start(t, kafkatest.Config{Properties: map[string]string{"log.cleaner.backoff.ms": "200"}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, r := range recordings() {
		r.spec.Seed, r.spec.Partitions = 1, 1
		if _, err := workload.Write(ctx, c.ClientOpts(), r.spec); err != nil {
			t.Fatal(err)
		}
		records, aborted := fetch(ctx, t, c.ClientOpts(), r)
		file := filepath.Join("testdata", r.spec.Topic)
		if err := os.WriteFile(file+".bin", records, 0o644); err != nil {
			t.Fatal(err)
		}
		if aborted != "" {
			if err := os.WriteFile(file+".aborted", []byte(aborted), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		l := recorded.Log{Records: records}
		n := len(l.Batches())
		data, count := l.Data()
		t.Logf("%-20s %7d bytes in %3d batches, %3d of data, of %d bytes and %d records each", r.spec.Topic, len(records), n, data, len(records)/n, count/max(1, data))
	}
}

// fetch reads the first batches of a log as a read_committed consumer.
func fetch(ctx context.Context, t *testing.T, opts []kgo.Opt, r recording) (records []byte, aborted string) {
	t.Helper()
	v := kversion.Stable()
	v.SetMaxKeyVersion(1, 12) // by name
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.MaxVersions(v)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.SessionEpoch, req.MaxWaitMillis, req.MaxBytes, req.IsolationLevel = -1, -1, 1000, 8<<20, 1
	rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	rt.Topic, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = r.spec.Topic, r.from, 8<<20, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, cl.Broker(1))
	if err != nil {
		t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		t.Fatal(err)
	}
	l := recorded.Log{Records: p.RecordBatches}
	all := l.Batches()
	if len(all) < r.batches {
		t.Fatalf("%s: %d batches in %d bytes", r.spec.Topic, len(all), len(p.RecordBatches))
	}
	end := int64(0)
	for _, b := range all[:r.batches] {
		records = append(records, b...)
		end = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:])) + 1
	}
	var text strings.Builder
	for _, a := range p.AbortedTransactions {
		if a.FirstOffset < end {
			fmt.Fprintln(&text, a.ProducerID, a.FirstOffset)
		}
	}
	return records, text.String()
}

// The files are what their names say.
func TestRecordings(t *testing.T) {
	codecs := map[string]byte{"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	total := 0
	names := recorded.Names(t)
	if len(names) != len(recordings()) {
		t.Errorf("files %q, %d recordings", names, len(recordings()))
	}
	for _, r := range recordings() {
		l := recorded.Get(t, r.spec.Topic)
		total += len(l.Records)
		batches := l.Batches()
		if len(batches) != r.batches {
			t.Errorf("%s: %d batches", l.Name, len(batches))
		}
		first := l.First()
		markers, next, holes, bytes := 0, first, int64(0), 0
		for _, b := range batches {
			if sum := crc32.Checksum(b[21:], castagnoli); sum != binary.BigEndian.Uint32(b[17:]) || b[16] != 2 {
				t.Fatalf("%s: magic %d, checksum %08x", l.Name, b[16], sum)
			}
			base := int64(binary.BigEndian.Uint64(b))
			end := base + int64(binary.BigEndian.Uint32(b[23:])) + 1
			if base < next {
				t.Fatalf("%s: base offset %d after %d", l.Name, base, next)
			}
			holes += end - next - int64(binary.BigEndian.Uint32(b[57:]))
			next = end
			if b[22]&0x20 != 0 {
				markers++
			} else if codec := b[22] & 7; codec != codecs[string(r.spec.Codec)] && codec != 0 { // what does not get smaller stays as it is
				t.Errorf("%s: codec %d", l.Name, codec)
			}
			bytes += len(b)
		}
		mean := bytes / len(batches)
		data, records := l.Data()
		switch l.Name {
		case recorded.Transactions:
			if markers < 10 || len(l.Aborted) < 3 {
				t.Errorf("%s: %d markers, %d aborted", l.Name, markers, len(l.Aborted))
			}
		case recorded.Compacted:
			if n := next - first; holes < n/3 || holes > n*2/3 {
				t.Errorf("%s: %d holes in %d offsets", l.Name, holes, n)
			}
		default:
			if holes != 0 || markers != 0 {
				t.Errorf("%s: %d holes, %d markers", l.Name, holes, markers)
			}
			if strings.HasPrefix(l.Name, recorded.Large) && (mean < 55<<10 || mean > 75<<10) {
				t.Errorf("%s: batches of %d bytes", l.Name, mean)
			}
			if strings.HasPrefix(l.Name, recorded.Medium) && (mean <= 4<<10 || mean > 5<<10) {
				t.Errorf("%s: batches of %d bytes", l.Name, mean)
			}
			if strings.HasPrefix(l.Name, recorded.Small) && records != 10*data {
				t.Errorf("%s: %d records in %d batches", l.Name, records, data)
			}
		}
	}
	if total > 1500<<10 {
		t.Errorf("%d bytes in all: too much for a repository", total)
	}
}
