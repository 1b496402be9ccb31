//go:build !linux

package wire

import (
	"net"
	"time"
)

// setUserTimeout does nothing where the kernel has no such limit: there the
// keepalive probes and the write deadline have to do.
func setUserTimeout(*net.TCPConn) error { return nil }

// lowWater does nothing where it was not tried: readers are woken by any byte.
type lowWater struct {
	is  int
	off bool
}

func (*lowWater) open(*net.TCPConn) {}
func (*lowWater) set(int) error     { return nil }

// roundTrip is not known here.
func roundTrip(*net.TCPConn) time.Duration { return 0 }
