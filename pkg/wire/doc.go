// Package wire holds the tools of the hot path: record batches as they lie on
// a source broker's disk, and pipelined connections that carry them.
//
// What it promises:
//
//   - A batch is forwarded closed. [Batch] is a view of the bytes in the frame
//     they were read into; [Batch.Stamp] gives it another producer and carries
//     its CRC by arithmetic, without reading the records again. A bit flipped
//     in memory after [Batch.Verify] is therefore still refused by the broker
//     the batch is sent to.
//   - A batch that has to be opened keeps its records. [Packer] copies key,
//     value and headers untouched, whatever the format and codec of the
//     source; it changes record boundaries, order and timestamps in nothing,
//     and says for every record which source offset it came from.
//   - Input is not trusted. Lengths that lie, checksums that do not match,
//     codecs nobody knows and decompression bombs end in errors that name the
//     offset. Nothing read from a broker makes this package panic, or allocate
//     beyond the limits it was given.
//   - Memory is bounded. Large buffers are frames of one [Pool] with one
//     budget; in steady state a batch forwarded allocates nothing, a batch
//     repacked the list of its runs.
//
// It decides nothing: which batch goes which way is the business of package
// mirror.
package wire
