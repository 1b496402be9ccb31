//go:build race

package wire

// raceEnabled: the race detector makes sync.Pool forget, so that allocations
// mean nothing.
const raceEnabled = true
