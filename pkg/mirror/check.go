package mirror

// recordCheck is the last record an opening found on the target, to be compared
// with the source's.
type recordCheck struct {
	source int64 // its source offset
	digest uint64
}
