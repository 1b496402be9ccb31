package offsets

// Outcome says what a translated offset stands for.
type Outcome uint8

// The outcomes. Their order is part of the format of checkpoints.
const (
	Unknown Outcome = iota // the lane was never opened, or its map is damaged: there is no offset
	Exact                  // the record exists on the target
	Next                   // the offset holds no record (marker, compacted, filtered): the next record after it
	End                    // everything copied is consumed
	Ahead                  // the group has read further than was copied
	InGap                  // the offset lies in a recorded gap
	Before                 // the offset lies below the map's start
)

// Translation is a next source offset and what it is on the target, or the
// other way round.
type Translation struct {
	// From is the next offset asked for, To the next offset on the other side;
	// -1 with Unknown. A consumer that resumes at To reads the first record that
	// was not read before From, or one before it: never one after it.
	From, To int64
	Outcome  Outcome
	// Missing counts offsets: with Ahead those the group has read and the target
	// lacks, with InGap those of the gap from From on, else 0.
	Missing int64
	Reason  string // of Before and Unknown, else empty
}
