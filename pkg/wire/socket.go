package wire

import (
	"net"
	"time"
)

// userTimeout is the longest time sent data may stay unacknowledged.
const userTimeout = 10 * time.Second

// setSocketOptions makes a TCP connection fit for requests: sent at once, and
// given up when the other side does not answer on the TCP level.
func setSocketOptions(tcp *net.TCPConn) error {
	if err := tcp.SetNoDelay(true); err != nil {
		return err
	}
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}
	if err := tcp.SetKeepAliveConfig(keepAlive); err != nil {
		return err
	}
	return setUserTimeout(tcp)
}
