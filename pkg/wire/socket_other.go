//go:build !linux

package wire

import "net"

// setUserTimeout does nothing where the kernel has no such limit: there the
// keepalive probes and the write deadline have to do.
func setUserTimeout(*net.TCPConn) error { return nil }
