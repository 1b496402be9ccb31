package main

import (
	"cmp"
	"fmt"
	"time"

	"replicator/internal/workload"
)

// A trial is a topic that every mover copies in turns.
type trial struct {
	name      string
	doc       string
	site      site
	spec      workload.Spec // but for the topic
	without   []mover       // those that would take too long, or have no part in it
	committed bool          // MirrorMaker 2 is told to leave aborted records out; the replicator does by default
}

const (
	// A batch of 200 KiB is one of about 64 KiB once compressed.
	closedBatch = 200 << 10
	openBatch   = 64 << 10
	wanTrip     = 80 * time.Millisecond
)

// trials lists all of them, in the order of the report. Records are scaled by
// a factor, so that a quick run takes fewer.
func trials(scale float64) []trial {
	kb := func(codec workload.Codec, records int) workload.Spec {
		batch := closedBatch
		if codec == workload.None {
			batch = openBatch
		}
		return workload.Spec{Kind: workload.Plain, Codec: codec, Partitions: 8, Records: records, ValueBytes: 1000, BatchBytes: batch}
	}
	on := func(s workload.Spec, partitions int32) workload.Spec {
		s.Partitions = partitions
		return s
	}
	kind := func(k workload.Kind, s workload.Spec) workload.Spec {
		s.Kind = k
		return s
	}
	small := kind(workload.Ten, kb(workload.LZ4, 1_000_000))
	small.ValueBytes = 100
	many := on(kb(workload.LZ4, 1_000_000), 1000)
	many.Run = closedBatch / 1000 // whole batches: else each of a thousand partitions gets a few records at a time
	all := []trial{
		{name: "lz4", doc: "1,000-byte records, lz4, batches of about 64 KiB on the wire, 8 partitions", spec: kb(workload.LZ4, 2_000_000)},
		{name: "none", doc: "1,000-byte records, not compressed, batches of 64 KiB, 8 partitions", spec: kb(workload.None, 1_000_000)},
		{name: "zstd", doc: "as lz4, zstd", spec: kb(workload.Zstd, 1_000_000)},
		{name: "snappy", doc: "as lz4, snappy as Java clients frame it", spec: kb(workload.Snappy, 1_000_000)},
		{name: "gzip", doc: "as lz4, gzip", spec: kb(workload.Gzip, 1_000_000)},
		{name: "small", doc: "batches of ten 100-byte records, lz4", spec: small},
		{name: "compacted", doc: "compacted topic, about half of its offsets are holes, lz4", spec: kind(workload.Compacted, kb(workload.LZ4, 1_000_000))},
		{name: "transactions", doc: "transactions of 1 to 100 records, a quarter aborted, lz4, read_committed", spec: kind(workload.Transactions, kb(workload.LZ4, 150_000)), committed: true},
		{name: "one-partition", doc: "as lz4, one partition", spec: on(kb(workload.LZ4, 1_000_000), 1)},
		{name: "thousand-partitions", doc: "as lz4, 1,000 partitions", spec: many},
		{name: "tls", doc: "as lz4, both clusters over TLS", site: site{TLS: true}, spec: kb(workload.LZ4, 1_000_000), without: []mover{relay}},
		{name: "wan", doc: "as none, one partition, 80 ms of round trip between the source and everything else", site: site{RTT: wanTrip}, spec: on(kb(workload.None, 400_000), 1), without: []mover{mmDefault, relay}},
	}
	for i := range all {
		s := &all[i].spec
		s.Topic = "bench-" + all[i].name
		s.Records = int(float64(s.Records) * scale)
		s.CleanWait = 5 * time.Minute
	}
	return all
}

func (t trial) String() string {
	return fmt.Sprintf("%s (%s)", t.name, cmp.Or(t.doc, string(t.spec.Kind)))
}

// every is how often the target is looked at: asking for the ends of a thousand
// partitions is work too.
func (t trial) every() time.Duration {
	if t.spec.Partitions > 100 {
		return 100 * time.Millisecond
	}
	return 20 * time.Millisecond
}
