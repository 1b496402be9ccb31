package kafkatest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A port is reserved for as long as it is held, listened on or not.
//
// The reservation is a socket that is bound with SO_REUSEADDR and does not
// listen. A JVM sets SO_REUSEADDR on its server sockets and may bind beside it;
// the kernel gives the port to nobody who asks for any free one, neither for
// listening nor as the near end of a connection. So a broker that is down keeps
// its address, and connecting to it is refused.
type port struct {
	number int
	fd     int
}

func reservePort() (*port, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p := &port{fd: fd}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		p.free()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		p.free()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		p.free()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p.number = sa.(*unix.SockaddrInet4).Port
	return p, nil
}

// yield makes room for a broker that is about to listen.
func (p *port) yield() {}

// free ends the reservation.
func (p *port) free() { _ = unix.Close(p.fd) }
