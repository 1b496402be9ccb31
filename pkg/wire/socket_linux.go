package wire

import (
	"math"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout bounds how long sent data may stay unacknowledged before the
// kernel gives the connection up. With it, a request on its way has a longest
// life.
func setUserTimeout(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return setErr
}

// lowWater sets SO_RCVLOWAT of a connection: how many bytes have to be there
// before its reader is woken (socket(7)). The kernel, since 4.18, takes care that
// the receive buffer can hold it.
type lowWater struct {
	is  int  // as last set; 0 or 1: any
	off bool // not used any more
	raw syscall.RawConn
	do  func(fd uintptr) // made once, it is called often
	err error
}

func (w *lowWater) open(tcp *net.TCPConn) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // the connection is closed, and reading it says so
	}
	w.raw = raw
	w.do = func(fd uintptr) { w.err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, w.is) }
}

func (w *lowWater) set(n int) error {
	if w.raw == nil {
		return nil
	}
	w.is = n
	if err := w.raw.Control(w.do); err != nil {
		return err
	}
	return w.err
}

// roundTrip is the shortest round trip the kernel has seen on the connection
// (tcp(7), TCP_INFO), 0 if it tells none.
func roundTrip(tcp *net.TCPConn) time.Duration {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	var info *unix.TCPInfo
	if raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }) != nil || err != nil {
		return 0
	}
	if info.Min_rtt == math.MaxUint32 {
		return 0 // not measured yet
	}
	return time.Duration(info.Min_rtt) * time.Microsecond
}
