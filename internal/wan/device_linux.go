package wan

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	tunDevice = "/dev/net/tun"
	// maxPacket is the longest packet a device hands over, vnetHeader before it.
	maxPacket  = 64 << 10
	vnetHeader = 10
	// txQueue is how many packets a device keeps for us while we are not
	// scheduled: at 1500 bytes and 80 MB/s a sixth of a second.
	txQueue = 10000
)

// A device is a TUN device of the namespace it was opened in. It goes away
// when it is closed.
type device struct {
	fd   int
	name string
}

func openDevice(addr netip.Addr, mtu int) (_ *device, err error) {
	d := &device{}
	if d.fd, err = unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	req, err := unix.NewIfreq("wan%d") // the kernel numbers it
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(d.fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	d.name = req.Name()
	ip := addr.As4()
	err = configure(d.name,
		setting{unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(txQueue); return nil }},
		setting{unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(mtu)); return nil }},
		setting{unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }},
		setting{unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 252}) }},
		up)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// setting is one ioctl on an interface.
type setting struct {
	request uint
	fill    func(*unix.Ifreq) error
}

var up = setting{unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }}

func upLoopback() error { return configure("lo", up) }

func configure(name string, settings ...setting) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, s := range settings {
		req, err := unix.NewIfreq(name)
		if err == nil {
			err = s.fill(req)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, s.request, req)
		}
		if err != nil {
			return fmt.Errorf("configure %s (ioctl %#x): %w", name, s.request, err)
		}
	}
	return nil
}

// setOffload says whether the kernel may hand over packets that stand for many.
// Checksums are left to the receiver in any case: nothing on this link breaks
// them.
func (d *device) setOffload(on bool) error {
	flags := unix.TUN_F_CSUM
	if on {
		flags |= unix.TUN_F_TSO4
	}
	if err := unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("set the offload of %s: %w", d.name, err)
	}
	return nil
}

// overflow counts the packets the kernel could not queue for us. It is called
// in the namespace of the device.
func (d *device) overflow() int64 {
	text, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		name, counts, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(bytes.TrimSpace(name)) != d.name {
			continue
		}
		const txDropped = 11 // after eight columns of receiving: bytes, packets, errors
		if fields := bytes.Fields(counts); len(fields) > txDropped {
			n, _ := strconv.ParseInt(string(fields[txDropped]), 10, 64)
			return n
		}
	}
	return 0
}

func (d *device) close() {
	if d != nil {
		_ = unix.Close(d.fd)
	}
}
