//go:build race

package lanemodel

// The searches have no goroutines; the race detector only makes them slow.
func init() { underRace = true }
