//go:build !linux

package kafkatest

import (
	"fmt"
	"net"
)

// A port is held by listening on it until its broker starts. After that it is
// the broker's for as long as the broker runs.
type port struct {
	number int
	l      net.Listener
}

func reservePort() (*port, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return &port{number: l.Addr().(*net.TCPAddr).Port, l: l}, nil
}

// yield makes room for a broker that is about to listen.
func (p *port) yield() { _ = p.l.Close() }

// free ends the reservation.
func (p *port) free() { _ = p.l.Close() }
