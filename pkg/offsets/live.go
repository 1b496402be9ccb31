package offsets

// Live is a lane that this daemon holds, as it is now.
type Live struct {
	// State has the position acknowledged this moment, not the journal's, which
	// may be a second old.
	State       LaneState
	TargetTopic string
	SourceEnd   int64 // next: the source's high watermark as last seen, -1 unknown
}
