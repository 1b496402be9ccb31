//go:build linux && !race

package wire

import "golang.org/x/sys/unix"

// mapMemory maps n bytes of zeroed memory outside of the collected heap, and
// returns how to give them back. Where the system refuses, the heap has to do.
func mapMemory(n int) (memory []byte, unmap func()) {
	memory, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, n), nil
	}
	return memory, func() { _ = unix.Munmap(memory) }
}

// discard lets the system have the memory; it reads as zeroes from then on.
func discard(memory []byte) {
	// Advice: where it is not taken, the memory stays ours, as before.
	_ = unix.Madvise(memory, unix.MADV_DONTNEED)
}
