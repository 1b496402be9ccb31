//go:build !linux || race

package wire

// mapMemory makes n bytes of zeroed memory. Under the race detector it has to
// be of the heap, or accesses to it are not looked at.
func mapMemory(n int) (memory []byte, unmap func()) { return make([]byte, n), nil }

// discard leaves the memory as it is.
func discard([]byte) {}
