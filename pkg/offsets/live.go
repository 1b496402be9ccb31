package offsets

// Live is a lane that this daemon holds, as it is now.
type Live struct {
	// State has the position acknowledged this moment, not the journal's, which
	// may be a second old.
	State       LaneState
	TargetTopic string
	SourceEnd   int64 // next: the source's high watermark as last seen, -1 unknown
}

// Held are the lanes of a daemon.
type Held struct {
	Open map[Lane]Live
	// Opening are on their way to be opened, for the first time or again. What is to be
	// written of them nobody else writes.
	Opening []Lane
	// Known is false as long as the daemon has not been told which lanes are its own.
	Known bool
}
