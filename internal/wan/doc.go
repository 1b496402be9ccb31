// Package wan makes a second place on this machine that is far away: a network
// namespace of its own, reached through a link with delay, jitter and a limited
// rate. It is for benchmarks and tests, needs Linux and root, and touches
// nothing but what it made itself.
//
// The link carries IP packets, not connections. What a distance does to TCP
// (slow start, windows, socket buffers, retransmissions) happens in the kernel's
// own TCP at both ends, as it would between two regions; a proxy that delays
// bytes would hide all of it.
//
//	near namespace (the caller's)      |      far namespace
//	kernel's TCP -- device wan0 == path ==> device wan0 -- kernel's TCP
//	                            <== path ==
//
// It promises:
//
//   - A packet is delivered one way's delay after it was sent, never before, and
//     the order of packets is kept. [Stats] says how late the latest one was.
//   - A rate is kept counting the bytes of IP packets as they would be on the
//     wire. What does not fit the queue before the slow link is dropped at the
//     tail.
//   - Memory is bounded by what is under way, and by 128 MiB for each direction.
//   - Two processes never take the same addresses, and nothing stays behind: the
//     namespace has no name and the devices are not persistent, so the kernel
//     removes them with the last process that uses them, also after a SIGKILL.
//
// With a high rate or none the kernel hands over packets of up to 64 KiB which
// stand for many of the device's size (segmentation offload), so that a fast
// link costs few system calls. Delay and counted bytes are not changed by this.
package wan
