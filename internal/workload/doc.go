// Package workload writes source data of named kinds to any Kafka, real or
// fake: every codec, batch size, record shape and message format a replicator
// meets.
//
// It promises that content proves identity. A record says in its value, or in
// its key where the value is null or empty, which topic, partition and sequence
// number it was written as, under a checksum; [Parse] reads that back from any
// copy. Content depends on the [Spec] alone: the same seed and start time write
// the same records again.
//
// It shares no code with the replicator. Most kinds are written by kgo; where
// kgo cannot make a batch (raw snappy, one record in a batch, message formats
// of the past), the batch is made by hand and sent by a raw produce request.
//
// Writes are exactly-once where the kind allows: idempotent producers, or
// sequence numbers in raw batches. The kinds PlainProducer and OldMessages
// cannot be: a retry may store a record twice, which is then what the source
// holds.
package workload
