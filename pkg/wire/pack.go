package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Run is Count records that come from consecutive source offsets.
type Run struct {
	Source int64 // of the first one
	Count  int32
}

// Packed is a fresh batch v2 in a frame of its own, ready for Stamp. Who gets
// it owns the frame.
type Packed struct {
	Frame             *Frame
	Runs              []Run // where the records come from, in order
	Records           int32
	MaxTimestamp      int64 // of all records, in milliseconds since 1970
	NextSource        int64 // all source records below are in this batch or an earlier one, or are none of the target's
	UncompressedBytes int   // of the records
}

// Batch is the batch in the frame.
func (p *Packed) Batch() Batch { return Batch(p.Frame.Bytes()) }

// Defaults and bounds of a Packer.
const (
	DefaultTargetBytes = 256 << 10
	DefaultMaxDecoded  = 128 << 20

	// maxExpansion bounds what a batch may hold, in multiples of
	// TargetBytes, however well it compresses: the target may store it in
	// another way, and every reader opens it whole.
	maxExpansion = 16

	// keepScratch is how much of each of its buffers an idle Packer keeps.
	keepScratch = 8 << 20
	keepRuns    = 64 << 10
)

// PackConfig is what a Packer needs to know.
type PackConfig struct {
	TargetBytes int    // size on the wire aimed at; default 256 KiB
	MaxBytes    int    // the most the target takes in a batch (max.message.bytes); <= 0: no limit
	MaxDecoded  int    // the most an entry may decompress to, in bytes; default 128 MiB
	Codec       *Codec // of the batches made; nil: as the source's entry
	Pool        *Pool  // where the frames come from; they are overdrawn. nil: none of a budget
}

// RecordTooLargeError is a record the target can never take: alone in a batch
// it is larger than MaxBytes.
type RecordTooLargeError struct {
	Source int64 // source offset
	Size   int   // of the batch, in bytes
	Max    int
}

func (e *RecordTooLargeError) Error() string {
	return fmt.Sprintf("pack record at source offset %d: batch of %d bytes, target takes %d", e.Source, e.Size, e.Max)
}

// Packer opens entries of one lane and writes their records into batches the
// target takes: offsets without holes, no transactions, CreateTime. It merges
// small entries and splits large ones. Keys, values and headers are copied as
// the bytes they are.
//
//	for each entry { err = p.Add(entry, from) }
//	batches, err = p.Finish(batches)
//
// A Packer reuses its buffers and is meant to go from lane to lane. It is not
// for concurrent use.
type Packer struct {
	cfg PackConfig
	dec decoder
	enc encoder

	// ratio is size on the wire to size of the records, by codec, as seen so
	// far; 0: nothing seen. It says when a batch is full before it is
	// compressed.
	ratio [codecs]float64

	decoded []byte // content of the entry being added
	body    []byte // a message turned into a record's body
	wire    []byte // records, compressed
	spare   []byte // takes staged's place when its first records leave

	// The batch being filled.
	codec  Codec
	staged []byte // its records, as they will stand in it
	full   int    // len(staged) at which it is full
	count  int32
	baseTS int64
	maxTS  int64
	runs   []Run
	next   int64 // next source offset behind all entries added
	done   []Packed
	err    error // why nothing can be added any more

	visit func(Record) // takes the records instead, see Opener
}

// NewPacker returns a Packer.
func NewPacker(cfg PackConfig) *Packer {
	if cfg.TargetBytes <= 0 {
		cfg.TargetBytes = DefaultTargetBytes
	}
	if cfg.MaxDecoded <= 0 {
		cfg.MaxDecoded = DefaultMaxDecoded
	}
	if cfg.Pool == nil {
		cfg.Pool = NewPool(0)
	}
	return &Packer{cfg: cfg}
}

// Reset drops what has been added and not finished, and makes the Packer ready
// for another lane whose target takes batches of at most maxBytes (<= 0: no
// limit).
func (p *Packer) Reset(maxBytes int) {
	for i := range p.done {
		p.done[i].Frame.Release()
	}
	p.clear()
	p.cfg.MaxBytes = maxBytes
	p.ratio = [codecs]float64{}
}

// SetCodec sets the codec of the batches made from here on; nil: as the
// source's entry.
func (p *Packer) SetCodec(c *Codec) { p.cfg.Codec = c }

// SetTargetBytes sets the size on the wire aimed at from here on; 1 makes a
// batch of each record.
func (p *Packer) SetTargetBytes(n int) { p.cfg.TargetBytes = n }

// Add takes the records of the entry whose source offset is at least from.
// The entry comes from Split; batches v2 have been verified, messages v0 and
// v1 are checked here. Control batches hold no records to copy.
//
// An error, *CorruptError, *UnknownCodecError or *BombError, leaves the Packer
// as it was: what was added before can be finished. Once a record has been
// found too large, nothing more is taken and the error is that of Finish.
func (p *Packer) Add(entry []byte, from int64) error {
	if p.err != nil {
		return p.err
	}
	var err error
	switch Magic(entry) {
	case 2:
		err = p.addBatch(Batch(entry), from)
	case 0, 1:
		err = p.addMessage(entry, from)
	default:
		err = corrupt(-1, "unknown format, magic is %d", Magic(entry))
	}
	if err == nil {
		p.next = max(p.next, NextOffset(entry))
	}
	return err
}

// Finish ends the batch being filled and appends all batches made since the
// last call to out, in order; the Packer is empty then. With an error, a
// *RecordTooLargeError, what was appended ends before the record named.
func (p *Packer) Finish(out []Packed) ([]Packed, error) {
	p.flush()
	if n := len(p.done); n > 0 && p.err == nil {
		p.done[n-1].NextSource = p.next
	}
	out = append(out, p.done...)
	err := p.err
	p.clear()
	return out, err
}

// clear forgets batches, records and errors, and lets go of buffers that an
// unusual entry has made large.
func (p *Packer) clear() {
	clear(p.done) // the frames are not ours any more
	p.done = p.done[:0]
	p.staged, p.count, p.runs = p.staged[:0], 0, p.runs[:0]
	p.next, p.err = 0, nil
	for _, b := range []*[]byte{&p.decoded, &p.body, &p.wire, &p.spare, &p.staged} {
		if cap(*b) > keepScratch {
			*b = nil
		}
	}
	if cap(p.runs) > keepRuns {
		p.runs = nil
	}
}

// addBatch adds a batch v2.
func (p *Packer) addBatch(b Batch, from int64) error {
	if len(b) < batchHeader {
		return corrupt(-1, "batch of %d bytes", len(b))
	}
	if b.IsControl() {
		return nil
	}
	base, records := b.BaseOffset(), []byte(b[batchHeader:])
	ratio := 1.0
	switch codec := b.Codec(); {
	case codec > Zstd:
		return &UnknownCodecError{Offset: base, Codec: codec}
	case b.RecordCount() == 0:
		return nil // compaction keeps a producer's last batch without records
	case codec != None:
		decoded, err := p.decompress(base, codec, records)
		if err != nil {
			return err
		}
		ratio = float64(len(records)) / float64(max(1, len(decoded)))
		records = decoded
	}
	// Checked before a record is taken, so that an error takes none.
	if err := checkRecords(b, records); err != nil {
		return err
	}
	p.begin(b.Codec(), ratio)
	baseTS, maxTS, appendTime := b.BaseTimestamp(), b.MaxTimestamp(), b.IsLogAppendTime()
	for len(records) > 0 && p.err == nil {
		r, rest, reason := cutRecord(records)
		if reason != "" {
			return corrupt(base, "%s", reason) // not again: it has been checked
		}
		records = rest
		source := base + r.offsetDelta
		if source < from {
			continue
		}
		timestamp := baseTS + r.timestampDelta
		if appendTime {
			timestamp = maxTS
		}
		p.put(source, timestamp, r.body)
	}
	return p.err
}

// checkRecords checks the records of a batch against one another and its
// header.
func checkRecords(b Batch, records []byte) error {
	base, count, limit := b.BaseOffset(), b.RecordCount(), int64(b.LastOffsetDelta())
	last := int64(-1)
	for i := range count {
		r, rest, reason := cutRecord(records)
		if reason == "" {
			reason = checkBody(r.body)
		}
		if reason == "" && (r.offsetDelta <= last || r.offsetDelta > limit) {
			reason = "offset delta out of order"
		}
		if reason != "" {
			return corrupt(base, "record %d of %d: %s", i, count, reason)
		}
		last, records = r.offsetDelta, rest
	}
	if len(records) > 0 {
		return corrupt(base, "%d bytes left over behind %d records", len(records), count)
	}
	return nil
}

// decompress opens an entry into p.decoded.
func (p *Packer) decompress(offset int64, c Codec, src []byte) ([]byte, error) {
	var err error
	p.decoded, err = p.dec.decode(p.decoded, c, src, p.cfg.MaxDecoded)
	switch {
	case errors.Is(err, errBomb):
		return nil, &BombError{Offset: offset, Codec: c, Limit: p.cfg.MaxDecoded}
	case err != nil:
		return nil, corrupt(offset, "decompress %s: %v", c, err)
	}
	return p.decoded, nil
}

// begin announces records of an entry of that codec, which has compressed them
// to that ratio. Another codec than before begins another batch.
func (p *Packer) begin(codec Codec, ratio float64) {
	configured := p.cfg.Codec != nil
	if configured {
		codec = *p.cfg.Codec
	}
	if codec != p.codec {
		p.flush()
		p.codec = codec
	}
	if p.ratio[codec] == 0 && !configured {
		p.ratio[codec] = ratio
	}
	p.setFull()
}

// setFull computes how many bytes of records a batch takes.
func (p *Packer) setFull() {
	size := p.cfg.TargetBytes
	if limit := p.cfg.MaxBytes; limit > 0 && limit < size {
		size = limit
		if p.codec != None {
			size -= size / 8 // the ratio is an estimate
		}
	}
	ratio := p.ratio[p.codec]
	if ratio <= 0 || p.codec == None {
		ratio = 1
	}
	full := float64(size-batchHeader) / ratio
	p.full = int(min(full, float64(maxExpansion)*float64(p.cfg.TargetBytes)))
}

// put writes a record behind those of the batch being filled, or into the next
// one.
func (p *Packer) put(source, timestamp int64, body []byte) {
	if p.visit != nil {
		p.visit(Record{Offset: source, Timestamp: timestamp, Body: body})
		return
	}
	if p.count > 0 && (len(p.staged)+maxRecordHead+len(body) > p.full || p.count == maxInt32) {
		if p.flush(); p.err != nil {
			return
		}
	}
	if p.count == 0 {
		p.baseTS, p.maxTS = timestamp, timestamp
	}
	p.staged = appendRecord(p.staged, timestamp-p.baseTS, int64(p.count), body)
	p.maxTS = max(p.maxTS, timestamp)
	p.count++
	if n := len(p.runs); n > 0 && p.runs[n-1].Source+int64(p.runs[n-1].Count) == source {
		p.runs[n-1].Count++
	} else {
		p.runs = append(p.runs, Run{Source: source, Count: 1})
	}
}

// flush makes batches of what is staged: one, or more if the estimate was too
// good and the target takes less.
func (p *Packer) flush() {
	for p.count > 0 && p.err == nil {
		records, count, maxTS := p.staged, p.count, p.maxTS
		codec := p.codec
		var payload []byte
		for {
			if payload = p.compress(codec, records); p.err != nil {
				return
			}
			size := batchHeader + len(payload)
			limit := p.cfg.MaxBytes
			if limit <= 0 || size <= limit {
				break
			}
			if count == 1 {
				if codec != None && batchHeader+len(records) <= limit {
					codec = None // what does not shrink may grow
					continue
				}
				p.err = &RecordTooLargeError{Source: p.runs[0].Source, Size: size, Max: limit}
				return
			}
			want := float64(len(records)) * float64(limit) / float64(size) * 7 / 8
			records, count, maxTS = p.prefix(int(want), count-1)
		}
		p.emit(codec, payload, len(records), count, maxTS)
		p.drop(len(records), count)
	}
}

// compress returns the records as they go into the batch, and notes the ratio.
func (p *Packer) compress(codec Codec, records []byte) []byte {
	if codec == None {
		return records
	}
	var err error
	if p.wire, err = p.enc.encode(p.wire, codec, records); err != nil {
		p.err = fmt.Errorf("compress records at source offset %d: %w", p.runs[0].Source, err)
		return nil
	}
	seen := float64(len(p.wire)) / float64(len(records))
	if old := p.ratio[codec]; old > 0 {
		seen = (old + seen) / 2
	}
	p.ratio[codec] = seen
	p.setFull()
	return p.wire
}

// prefix is the first staged records: at most size bytes and at most limit
// records, but at least one.
func (p *Packer) prefix(size int, limit int32) (records []byte, count int32, maxTS int64) {
	rest := p.staged
	maxTS = math.MinInt64
	for count < limit {
		r, after, _ := cutRecord(rest)
		if count > 0 && len(p.staged)-len(after) > size {
			break
		}
		maxTS = max(maxTS, p.baseTS+r.timestampDelta)
		rest = after
		count++
	}
	return p.staged[:len(p.staged)-len(rest)], count, maxTS
}

// emit writes a finished batch of the first count records staged.
func (p *Packer) emit(codec Codec, payload []byte, uncompressed int, count int32, maxTS int64) {
	frame := p.cfg.Pool.Overdraw(batchHeader + len(payload))
	b := Batch(frame.Bytes())
	copy(b[batchHeader:], payload)
	be := binary.BigEndian
	be.PutUint64(b[atBaseOffset:], 0)
	be.PutUint32(b[atLength:], uint32(len(b)-entryHeader))
	be.PutUint32(b[atLeaderEpoch:], math.MaxUint32)
	b[atMagic] = 2
	be.PutUint16(b[atAttributes:], uint16(codec))
	be.PutUint32(b[atLastOffsetDelta:], uint32(count-1))
	be.PutUint64(b[atBaseTimestamp:], uint64(p.baseTS))
	be.PutUint64(b[atMaxTimestamp:], uint64(maxTS))
	be.PutUint64(b[atProducerID:], math.MaxUint64)
	be.PutUint16(b[atProducerEpoch:], math.MaxUint16)
	be.PutUint32(b[atBaseSequence:], math.MaxUint32)
	be.PutUint32(b[atRecordCount:], uint32(count))
	be.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))

	runs, rest := cutRuns(p.runs, count)
	last := runs[len(runs)-1]
	p.done = append(p.done, Packed{
		Frame:             frame,
		Runs:              runs,
		Records:           count,
		MaxTimestamp:      maxTS,
		NextSource:        last.Source + int64(last.Count),
		UncompressedBytes: uncompressed,
	})
	p.runs = append(p.runs[:0], rest...)
}

// cutRuns returns the runs of the first count records, for the caller to keep,
// and those of the others.
func cutRuns(runs []Run, count int32) (first, rest []Run) {
	i := 0
	for ; i < len(runs) && runs[i].Count <= count; i++ {
		count -= runs[i].Count
	}
	rest = runs[i:]
	if count == 0 {
		return append([]Run(nil), runs[:i]...), rest
	}
	first = append([]Run(nil), runs[:i+1]...)
	first[i].Count = count
	rest[0].Source += int64(count)
	rest[0].Count -= count
	return first, rest
}

// drop takes the first count records, of size bytes, off what is staged. The
// others are written anew: their deltas count from another record.
func (p *Packer) drop(size int, count int32) {
	rest, n, baseTS := p.staged[size:], p.count-count, p.baseTS
	p.spare = p.spare[:0]
	p.count = 0
	for p.count < n {
		r, after, _ := cutRecord(rest)
		timestamp := baseTS + r.timestampDelta
		if p.count == 0 {
			p.baseTS, p.maxTS = timestamp, timestamp
		}
		p.spare = appendRecord(p.spare, timestamp-p.baseTS, int64(p.count), r.body)
		p.maxTS = max(p.maxTS, timestamp)
		p.count++
		rest = after
	}
	p.staged, p.spare = p.spare, p.staged
}
