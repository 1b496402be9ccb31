// Package stranded deals with the records that a region took after the last position from which
// its link copied: it finds them, exports them, or replays them to the region that is
// authoritative now.
//
// What counts is what a read_committed consumer sees. Records of aborted transactions and control
// records are none; what stands above the last stable offset is not decided yet, and said to be open.
//
// A [Replay], and an [ExportTopic], puts every record there exactly once, however often it is
// killed and run again: records are appended in transactions, and each transaction also writes, to
// the topic replicator.stranded, how far its partition has come. There is one transactional id for
// each old region, so a run fences one that is still alive, and reads what that one has
// committed. When all is done the records are counted again where they now are.
//
// Promised is: each record once, in its partition's order, with key, value, headers and timestamp
// as they were and headers that say where it comes from. Not promised is that an application wants them:
// a replayed record stands behind newer ones, and on a compacted topic its value takes
// the place of theirs.
package stranded

import (
	"encoding/hex"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/offsets"
)

// The headers of a replayed or exported record. Their values are text; of several of a name the
// last one counts, because a record can be stranded twice.
const (
	HeaderFrom      = "replicator.stranded.from"      // alias of the old region
	HeaderTopic     = "replicator.stranded.topic"     // of an exported record only: its topic there
	HeaderPartition = "replicator.stranded.partition" // there
	HeaderOffset    = "replicator.stranded.offset"    // there
	HeaderRun       = "replicator.stranded.run"       // the run that appended it
)

// ProgressTopic holds, on the authoritative cluster, how far each partition was replayed or exported.
const ProgressTopic = "replicator.stranded"

// TransactionalID is the id under which records of an old region are appended.
func TransactionalID(from string) string { return "replicator.stranded." + from }

// ExportTopicName is the topic that ExportTopic appends to for an old region.
func ExportTopicName(from string) string { return "replicator.stranded." + from }

// Since is where a closed lane ended.
type Since struct {
	From        int64 // source offset, next: the final position of the fenced lane
	LeaderEpoch int32 // of the last record copied, -1 if unknown
}

// Range is what a partition of the old region holds beyond the end of its lane.
type Range struct {
	offsets.Lane
	From    int64     // offset, next: the lane's end, or where the log was cut below it
	To      int64     // offset, next: the last stable offset
	Start   int64     // of the log, next
	End     int64     // of the log, next: its high watermark
	TopicID [16]byte  // zero where the cluster has no topic ids
	Records int64     // in [From, To), as a read_committed consumer sees them
	Bytes   int64     // of their keys, values and headers
	First   time.Time // the lowest timestamp among them, zero if there are none
	Last    time.Time // the highest
	// Removed counts the offsets from From on that retention removed before they were looked at.
	Removed int64
	// Open counts the offsets from To to End: of transactions that have not ended.
	Open int64
	// Cut says how the log lost records that had been copied; empty if it lost none.
	Cut string
	// Compacted says that the topic keeps the newest record of a key only: a replay puts old values in
	// the place of newer ones, and the older records of a key may be gone.
	Compacted bool
}

// Warnings are what an operator must know before deciding about the range.
func (r Range) Warnings() []string {
	var all []string
	if r.Cut != "" {
		all = append(all, r.Cut)
	}
	if r.Removed > 0 {
		all = append(all, plural(r.Removed, "offset")+" were removed by retention before anybody looked: set retention.ms of the topic to -1 until this is over")
	}
	if r.Open > 0 {
		all = append(all, plural(r.Open, "offset")+" belong to transactions that are still open: they are decided when these end or time out; look again then")
	}
	if r.Compacted && r.Records > 0 {
		all = append(all, "the topic is compacted: a replayed record takes the place of a newer one of the same key")
	}
	return all
}

// Report is what Find found.
type Report struct {
	From    string  // alias of the old region
	Ranges  []Range // sorted by topic and partition; also those without records
	Records int64
	Bytes   int64
}

// Options are those of an export or a replay.
type Options struct {
	Run            string         // id of the run, for headers
	BytesPerSecond int64          // of keys, values and headers; 0: no limit
	Progress       func(Progress) // may be nil; it must not block
	Log            *zap.Logger    // nil: none
}

// Progress is how far an export or a replay is, with what earlier runs did.
type Progress struct{ Records, Bytes, AllRecords, AllBytes int64 }

// Result counts what was exported or replayed.
type Result struct {
	Lanes   []LaneResult // sorted as the ranges
	Records int64        // of this run
	Bytes   int64        // of this run
	Already int64        // records that earlier runs had put there
	SHA256  string       // of what ExportFile wrote, in hexadecimal
}

// LaneResult counts one lane.
type LaneResult struct {
	offsets.Lane
	Records int64 // of this run
	Already int64 // of earlier runs
	Counted int64 // found where they were put, when all was done
	From    int64 // offset, next, of the destination's partition: from there on they were looked for
	To      int64 // offset, next: behind the last
}

func (r *Result) add(l LaneResult) {
	r.Lanes = append(r.Lanes, l)
	r.Records += l.Records
	r.Already += l.Already
}

func digest(sum []byte) string { return hex.EncodeToString(sum) }
