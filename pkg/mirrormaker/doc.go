// Package mirrormaker has the records and names of MirrorMaker 2, so that what
// reads its topics reads ours.
//
// It promises the bytes of Apache Kafka 4.3.1, connect-mirror-client: the classes
// Checkpoint, Heartbeat and OffsetSync of org.apache.kafka.connect.mirror, and the
// names of DefaultReplicationPolicy with its default separator. Decoding is
// strict: a record of another version, cut off, or with bytes left over is an
// error.
//
// All numbers are big-endian; a string is its length as int16, then its bytes in
// UTF-8.
package mirrormaker
