package mirror

import (
	"errors"
	"fmt"

	"replicator/pkg/wire"
)

// Route says what happens to a fetched batch. Its values index routeNames.
type Route uint8

// The routes.
const (
	Forward Route = iota // header rewritten, payload untouched
	Repack               // decoded and encoded again
	Skip                 // no record of it is appended
	Refuse               // can never be appended: the lane halts
	nRoutes
)

// Reason says why a batch took its route. Its values index reasonNames.
type Reason uint8

// The reasons.
const (
	Dense      Reason = iota // forward: nothing speaks against it
	Small                    // repack: several small batches of a lane become one
	Hole                     // repack: offsets without records (compaction)
	AppendTime               // repack: LogAppendTime becomes each record's timestamp
	OldFormat                // repack: a message set of version 0 or 1
	Partial                  // repack: the position lies inside the batch
	TooLarge                 // repack: larger than the target takes; refuse: one record is
	Recode                   // repack: another codec is configured
	Marker                   // skip: a control batch
	Aborted                  // skip: data of an aborted transaction
	Empty                    // skip: compaction left no record in it
	GapReason                // skip: gone from the source before it could be copied
	Corrupt                  // refuse: checksum or structure is wrong
	Unknown                  // refuse: codec or magic nobody knows
	Bomb                     // refuse: decompresses beyond the limit
	Rejected                 // refuse: the target does not take it: its timestamp, a null key where it compacts
	nReasons
)

const nCodecs = 5

var (
	routeNames  = [nRoutes]string{"forward", "repack", "skip", "refuse"}
	reasonNames = [nReasons]string{"dense", "small", "hole", "append_time", "old_format", "partial", "too_large", "recode", "marker", "aborted", "empty", "gap", "corrupt", "unknown", "bomb", "rejected"}
)

func (r Route) String() string  { return routeNames[r] }
func (r Reason) String() string { return reasonNames[r] }

// item is one step of a lane's chain: a batch to append, or source offsets to
// pass over. Items are appended and acknowledged in their order.
type item struct {
	frame *wire.Frame // what data lies in; nil for a pass
	data  []byte      // one batch, not stamped yet; nil: nothing to append
	err   error       // Refuse: why the lane cannot pass this point

	next        int64 // next source offset behind it
	records     int32 // records to append
	leaderEpoch int32 // of the source batch, -1 unknown
	oldest      int64 // ms, timestamp of its first record
	newest      int64 // ms, largest timestamp

	runs  []wire.Run // source offsets of a repacked batch; nil: records from first on, dense
	first int64      // source offset of the first record

	span uint64 // the lane's journal entry that has to be acknowledged first

	route   Route
	reason  Reason
	codec   wire.Codec
	batches int32 // source batches in it
	bytes   int32 // of these source batches
	count   int32 // records counted for the route (skipped ones included where known)
}

// refusal is why a lane cannot pass a source offset.
type refusal struct {
	Offset int64 // source
	Reason Reason
	Err    error
}

func (r *refusal) Error() string {
	return fmt.Sprintf("source offset %d cannot be copied (%s): %v", r.Offset, r.Reason, r.Err)
}
func (r *refusal) Unwrap() error { return r.Err }

// routing is what the route of a batch depends on besides the batch.
type routing struct {
	readCommitted bool
	smallBytes    int         // batches below are merged with their neighbours
	packBytes     int         // wire size merging aims at
	maxDecoded    int         // bytes a batch may decompress to
	codec         *wire.Codec // nil: as the source has it
}

// router turns the records of fetch answers into items. One goroutine uses it.
type router struct {
	routing
	packer  *wire.Packer
	pool    *wire.Pool
	aborted wire.AbortedFilter
	packed  []wire.Packed
	pack    pack
}

func newRouter(pool *wire.Pool, r routing) *router {
	return &router{routing: r, pool: pool, packer: wire.NewPacker(wire.PackConfig{
		TargetBytes: r.packBytes, MaxDecoded: r.maxDecoded, Codec: r.codec, Pool: pool,
	})}
}

// route appends the items of one partition's records to out, beginning with
// source offset from, and returns them with the next source offset to fetch. It
// retains the frame for every item that lies in it. limit is the largest batch
// the target takes (0 unknown); batches below splitBelow are sent one record each,
// because the target found one of them too large. check, unless nil, is a record
// that has been copied already and must be the same here.
func (r *router) route(out []item, frame *wire.Frame, records []byte, aborted []wire.AbortedTxn, from int64, limit int, splitBelow int64, check *recordCheck) ([]item, int64) {
	if r.readCommitted {
		r.aborted.Reset(aborted)
	}
	r.packer.Reset(limit)
	next := from
	split := next < splitBelow
	if split {
		r.packer.SetTargetBytes(1)
		defer r.packer.SetTargetBytes(r.packBytes)
	}
	for len(records) > 0 {
		entry, rest, err := wire.Split(records)
		if errors.Is(err, wire.ErrPartial) {
			break
		}
		if err != nil {
			out, _ = r.flush(out)
			return append(out, refuse(next, err)), next
		}
		records = rest
		if check != nil && wire.Magic(entry) == 2 && wire.NextOffset(entry) > check.source {
			digest, ok, err := r.packer.Digest(wire.Batch(entry), check.source)
			if err != nil || ok && digest != check.digest {
				it := refuse(check.source, errors.Join(errOtherRecord, err))
				return append(out, it), next
			}
			check = nil
		}
		if split && next >= splitBelow {
			split = false
			if out, err = r.flush(out); err != nil {
				return append(out, refuse(next, err)), next
			}
			r.packer.SetTargetBytes(r.packBytes)
		}
		it := r.classify(entry, next, limit, split, len(rest) > 0)
		if it.route == Repack {
			if err := r.packer.Add(entry, next); err != nil {
				out, _ = r.flush(out)
				return append(out, refuse(next, err)), next
			}
			r.pack.add(it, len(entry))
			next = max(next, it.next)
			continue
		}
		if out, err = r.flush(out); err != nil {
			return append(out, refuse(next, err)), next
		}
		switch {
		case it.route == Refuse:
			return append(out, it), next
		case it.next <= next: // lies below the position
			continue
		case it.route == Forward:
			frame.Retain()
			it.frame = frame
		}
		out = append(out, it)
		next = it.next
	}
	out, err := r.flush(out)
	if err != nil {
		out = append(out, refuse(next, err))
	}
	return out, next
}

// pack is the run of entries in the packer.
type pack struct {
	first   item // the entry that began it
	next    int64
	epoch   int32
	batches int32
	bytes   int32
}

func (p *pack) add(it item, size int) {
	if p.batches == 0 {
		p.first = it
	}
	p.next, p.epoch = it.next, it.leaderEpoch
	p.batches++
	p.bytes += int32(size)
}

// flush encodes what the packer holds and appends it to out.
func (r *router) flush(out []item) ([]item, error) {
	run := r.pack
	r.pack = pack{}
	if run.batches == 0 {
		return out, nil
	}
	packed, err := r.packer.Finish(r.packed[:0])
	r.packed = packed
	for i := range packed {
		p := &packed[i]
		data := p.Frame.Bytes()
		out = append(out, item{
			frame: p.Frame, data: data, first: p.Runs[0].Source, next: p.NextSource, records: p.Records, runs: p.Runs,
			leaderEpoch: run.epoch, oldest: wire.Batch(data).BaseTimestamp(), newest: p.MaxTimestamp,
			route: Repack, reason: run.first.reason, codec: run.first.codec, count: p.Records,
		})
	}
	if err != nil {
		return out, err
	}
	if len(packed) == 0 {
		// every record lay below the position, or compaction had taken them all
		out = append(out, item{route: Skip, reason: Empty, leaderEpoch: run.epoch, codec: run.first.codec})
	}
	last := &out[len(out)-1]
	last.next, last.batches, last.bytes = run.next, run.batches, run.bytes
	return out, nil
}

// classify decides the route of one entry, at source position from. more says
// that another entry follows.
func (r *router) classify(entry []byte, from int64, limit int, split, more bool) item {
	switch m := wire.Magic(entry); {
	case m == 0 || m == 1:
		next := wire.NextOffset(entry)
		if next <= from {
			return item{route: Skip, next: from}
		}
		return item{route: Repack, reason: OldFormat, next: next, leaderEpoch: -1}
	case m != 2:
		return refuseFor(Unknown, from, fmt.Errorf("unknown magic %d", m))
	}
	b := wire.Batch(entry)
	if b.NextOffset() <= from {
		// A fetch answers from the start of the batch that holds the offset; the
		// filter has to see what came before all the same.
		if r.readCommitted {
			r.aborted.Aborted(b)
		}
		return item{route: Skip, next: from}
	}
	if err := b.Verify(); err != nil {
		return refuse(from, err)
	}
	it := item{
		data: entry, first: b.BaseOffset(), next: b.NextOffset(), records: b.RecordCount(),
		leaderEpoch: b.LeaderEpoch(), oldest: b.BaseTimestamp(), newest: b.MaxTimestamp(),
		codec: b.Codec(), batches: 1, bytes: int32(len(entry)), count: b.RecordCount(),
	}
	skip := func(why Reason) item {
		it.route, it.reason, it.data, it.records = Skip, why, nil, 0
		return it
	}
	if b.Codec() > wire.Zstd || b.Codec() < 0 {
		return refuseFor(Unknown, from, fmt.Errorf("unknown codec %d", b.Codec()))
	}
	isAborted := r.readCommitted && r.aborted.Aborted(b)
	switch {
	case b.IsControl():
		return skip(Marker)
	case isAborted:
		return skip(Aborted)
	case b.RecordCount() == 0:
		return skip(Empty)
	}
	it.route = Repack
	switch {
	case b.BaseOffset() < from:
		it.reason = Partial
	case b.RecordCount() != b.LastOffsetDelta()+1:
		it.reason = Hole
	case b.IsLogAppendTime():
		it.reason = AppendTime
	case split, limit > 0 && len(entry) > limit:
		it.reason = TooLarge
	case r.codec != nil && *r.codec != b.Codec():
		it.reason = Recode
	case len(entry) < r.small(b.Codec()) && (more || r.pack.batches > 0):
		it.reason = Small
	default:
		it.route, it.reason = Forward, Dense
	}
	return it
}

// small is the size below which batches are merged. Compressed ones cost more to
// open and close again, so they have to be smaller for that to pay.
func (r *router) small(c wire.Codec) int {
	if c == wire.None {
		return r.smallBytes
	}
	return r.smallBytes / 4
}

// errOtherRecord says that the source does not hold what was copied from it: its
// log was cut and grew again, or it is another topic.
var errOtherRecord = errors.New("the source holds another record at this offset than was copied from it")

// refuse is the item of an entry that cannot be copied at source position from.
func refuse(from int64, err error) item {
	var (
		large  *wire.RecordTooLargeError
		codec  *wire.UnknownCodecError
		bomb   *wire.BombError
		reason = Corrupt
		offset = from
	)
	switch {
	case errors.As(err, &large):
		reason, offset = TooLarge, large.Source
	case errors.As(err, &codec):
		reason = Unknown
	case errors.As(err, &bomb):
		reason = Bomb
	}
	return refuseFor(reason, offset, err)
}

func refuseFor(reason Reason, offset int64, err error) item {
	return item{route: Refuse, reason: reason, next: offset, leaderEpoch: -1, batches: 1, err: &refusal{Offset: offset, Reason: reason, Err: err}}
}
