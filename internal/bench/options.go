package bench

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"replicator/internal/config"
	"replicator/internal/words"
	"replicator/internal/workload"
)

// Options say what is measured.
type Options struct {
	Partitions  int32
	Bytes       int64 // of the values written for the throughput, in all
	RecordBytes int   // of a record's value
	Codec       string
	BatchBytes  int           // of the source's batches before compression
	Rate        int           // records a second while latency is measured
	Duration    time.Duration // of that
	Keep        bool          // delete nothing
	Patience    time.Duration // without any progress before the run fails
	// Progress is told in one line what is being done. It must not block for long.
	Progress func(line string)
}

// DefaultOptions are those of the command.
func DefaultOptions() Options {
	return Options{
		Partitions: 8, Bytes: 256 << 20, RecordBytes: 1000, Codec: string(workload.LZ4), BatchBytes: 128 << 10,
		Rate: 1000, Duration: 30 * time.Second, Patience: time.Minute, Progress: func(string) {},
	}
}

// Codecs are what Options.Codec may be.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

const (
	minRecord  = 100 // bytes: an identity and a checksum have to fit
	maxRecord  = 512 << 10
	maxBatch   = 900 << 10 // a broker's default takes batches of a mebibyte
	maxBytes   = 1 << 40
	maxRecords = 1 << 31
	maxSteady  = 10_000_000 // records of the latency phase: their times are kept
)

// Check tells what is wrong with the options.
func (o Options) Check() error {
	switch steady := float64(o.Rate) * o.Duration.Seconds(); {
	case o.Partitions < 1 || o.Partitions > 1000:
		return fmt.Errorf("choose partitions: %d is not within 1 and 1000", o.Partitions)
	case o.RecordBytes < minRecord || o.RecordBytes > maxRecord:
		return fmt.Errorf("choose record-bytes: %d is not within %d and %d", o.RecordBytes, minRecord, maxRecord)
	case o.Bytes < int64(o.RecordBytes)*int64(o.Partitions) || o.Bytes > maxBytes || o.Bytes/int64(o.RecordBytes) > maxRecords:
		return fmt.Errorf("choose size: %s is not within one record a partition and 1TiB or %d records", config.Bytes(o.Bytes), maxRecords)
	case !slices.Contains(Codecs, o.Codec):
		return fmt.Errorf("choose codec: %q is none of %s", o.Codec, strings.Join(Codecs, ", "))
	case o.BatchBytes < 2*o.RecordBytes && o.BatchBytes < o.RecordBytes+1024 || o.BatchBytes > maxBatch:
		return fmt.Errorf("choose batch-bytes: %d is not within one record and its header, %d, and %d", o.BatchBytes, o.RecordBytes+1024, maxBatch)
	case o.Rate < 1 || o.Duration < time.Second || o.Duration > time.Hour:
		return fmt.Errorf("choose rate and duration: want at least 1 record a second for 1s to 1h, not %d for %s", o.Rate, o.Duration)
	case steady > maxSteady:
		return fmt.Errorf("choose rate and duration: %.0f records are more than %d", steady, maxSteady)
	}
	return nil
}

// bulk is how many records the throughput is measured with, steady how many the
// latency.
func (o Options) bulk() int64 { return o.Bytes / int64(o.RecordBytes) }

func (o Options) steady() int64 { return int64(float64(o.Rate) * o.Duration.Seconds()) }

// names are what one run makes on the clusters. What begins with "replicator." is
// internal to every daemon: it copies no such topic and follows no such group.
type names struct {
	topic   string // on both sides
	journal string // on the target
	group   string // on the source
}

const prefix = "replicator.bench."

func newNames() names {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	name := prefix + hex.EncodeToString(b[:])
	return names{topic: name, journal: name + ".journal", group: name}
}

// Plan is what a run will do and cost, known before anything is made.
type Plan struct {
	Link, Source, Target string // names of the configuration
	Topic                string
	Bytes                int64 // of all values that are written, before compression
	SteadyBytes          int64 // of them, those of the latency phase
	// Replication factors of the topic; -1 where the cluster does not tell its default.
	SourceReplication, TargetReplication int16
	Keep                                 bool
	options                              Options
}

// SourceTraffic and TargetTraffic are the bytes that go between this process and
// each cluster, before compression: the source is written, copied from and
// compared; the target is appended to, compared and, while latency is measured,
// consumed.
func (p Plan) SourceTraffic() int64 { return 3 * p.Bytes }

// TargetTraffic is said there.
func (p Plan) TargetTraffic() int64 { return 2*p.Bytes + p.SteadyBytes }

// String is one sentence to agree to.
func (p Plan) String() string {
	stored := func(replicas int16) string {
		if replicas < 1 {
			return "replication factor of the cluster's default"
		}
		return fmt.Sprintf("replication factor %d, %s in all", replicas, words.Size(p.Bytes*int64(replicas)))
	}
	end := "; then all of it is deleted"
	if p.Keep {
		end = "; nothing is deleted"
	}
	return fmt.Sprintf("writes %d records (%s) and then %d a second for %s to %s on cluster %s (%s), copies them to cluster %s (%s), and compares all: %s between this machine and %s, %s between it and %s, before %s compression%s",
		p.options.bulk(), words.Size(p.Bytes-p.SteadyBytes), p.options.Rate, p.options.Duration, p.Topic, p.Source, stored(p.SourceReplication), p.Target, stored(p.TargetReplication),
		words.Size(p.SourceTraffic()), p.Source, words.Size(p.TargetTraffic()), p.Target, p.options.Codec, end)
}
