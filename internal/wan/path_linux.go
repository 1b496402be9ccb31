package wan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// conditions are what the link is like at the moment.
type conditions struct {
	oneWay, jitter time.Duration
	rate           int64 // bytes/s of IP packets, 0: no limit
	queue          int64 // bytes that may wait before the limited link
}

const (
	jitterPeriod = 10 * time.Millisecond
	// leastWait joins deliveries that are due one after the other.
	leastWait = 50 * time.Microsecond
	// readBurst bounds how many packets are read while others are due.
	readBurst = 64
)

// A path carries packets from one device to the other. One goroutine owns it,
// so nothing of it needs a lock: it reads what has come, then delivers what is
// due, then sleeps until the next of either.
type path struct {
	w       *WAN
	in, out *device
	begin   time.Time // the zero of all times below

	held   hold
	clear  time.Duration // when the limited link has sent all it was given
	last   time.Duration // when the last packet arrives
	extra  time.Duration // the jitter of this moment,
	redraw time.Duration // which changes here

	packets, bytes, drops, late atomic.Int64
}

func newPath(w *WAN, in, out *device) *path {
	return &path{w: w, in: in, out: out, begin: time.Now()}
}

func (p *path) stats() PathStats {
	return PathStats{Packets: p.packets.Load(), Bytes: p.bytes.Load(), Drops: p.drops.Load(), Late: time.Duration(p.late.Load())}
}

func (p *path) now() time.Duration { return time.Since(p.begin) }

// run carries packets until it is stopped.
func (p *path) run() error {
	runtime.LockOSThread() // for good: the thread ends with this goroutine, and its priority with it
	preferThread()
	ready := []unix.PollFd{{Fd: int32(p.in.fd), Events: unix.POLLIN}, {Fd: int32(p.w.stop), Events: unix.POLLIN}}
	var until unix.Timespec
	for {
		var wait *unix.Timespec // nil: as long as it takes
		if next := p.held.first(); next != nil {
			until = unix.NsecToTimespec(int64(max(next.due-p.now(), leastWait)))
			wait = &until
		}
		if _, err := unix.Ppoll(ready, wait, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for packets of %s: %w", p.in.name, err)
		}
		if ready[1].Revents != 0 {
			return nil
		}
		if ready[0].Revents != 0 {
			if err := p.read(); err != nil {
				return fmt.Errorf("read packets of %s: %w", p.in.name, err)
			}
		}
		p.deliver()
	}
}

// preferThread has the kernel run this thread before all others, where it may:
// the far side's distance is not to depend on how busy the machine is. The
// threads of paths sleep for nearly all of the time.
func preferThread() {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}
	if unix.SchedSetAttr(0, attr, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20) // of this thread; Stats says how late packets were
	}
}

func (p *path) read() error {
	for range readBurst {
		buf := p.held.room()
		n, err := unix.Read(p.in.fd, buf)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return nil
		}
		if err != nil {
			return err
		}
		p.take(p.now(), buf[:n])
	}
	return nil
}

// take decides what becomes of a packet that was sent now and lies in the room
// of the hold.
func (p *path) take(now time.Duration, packet []byte) {
	count, size := onWire(packet)
	if count == 0 {
		return // not IPv4: the kernel's own talk about IPv6
	}
	c := p.w.conditions.Load()
	sent := now
	if c.rate > 0 {
		begin := max(now, p.clear)
		if waiting := (begin - now).Seconds() * float64(c.rate); waiting+float64(size) > float64(c.queue) {
			p.drops.Add(count)
			return
		}
		sent = begin + time.Duration(float64(size)/float64(c.rate)*float64(time.Second))
	}
	if now >= p.redraw {
		p.extra, p.redraw = 0, now+jitterPeriod
		if c.jitter > 0 {
			p.extra = rand.N(c.jitter)
		}
	}
	due := max(p.last, sent+c.oneWay+p.extra)
	if !p.held.push(packet, due, count, size) {
		p.drops.Add(count)
		return
	}
	p.clear, p.last = sent, due
}

// deliver writes what is due.
func (p *path) deliver() {
	for {
		next := p.held.first()
		if next == nil {
			return
		}
		now := p.now()
		if next.due > now {
			return
		}
		if late := int64(now - next.due); late > p.late.Load() {
			p.late.Store(late)
		}
		// The kernel refuses a packet where it has no memory, or the device is down:
		// lost, as on any network.
		if _, err := unix.Write(p.out.fd, next.bytes()); err != nil {
			p.drops.Add(next.count)
		} else {
			p.packets.Add(next.count)
			p.bytes.Add(next.wire)
		}
		p.held.pop()
	}
}

// onWire says how many packets one that was handed over stands for, and how
// many bytes these are. It is 0 for what is not IPv4. Where there are many it
// corrects the length of the headers, which the sending kernel gives as a hint
// and the receiving one takes as the part to lay out in one piece.
func onWire(packet []byte) (count, size int64) {
	const (
		ipv4Least, tcpLeast = 20, 20
		gsoTCPv4            = 1
		gsoECN              = 0x80
	)
	if len(packet) < vnetHeader+ipv4Least {
		return 0, 0
	}
	vnet, ip := packet[:vnetHeader], packet[vnetHeader:]
	if ip[0]>>4 != 4 {
		return 0, 0
	}
	size = int64(len(ip))
	segment := int(binary.NativeEndian.Uint16(vnet[4:]))
	headers := int(ip[0]&15) * 4
	if vnet[1]&^gsoECN != gsoTCPv4 || segment == 0 || len(ip) < headers+tcpLeast {
		return 1, size
	}
	headers += int(ip[headers+12]>>4) * 4
	if len(ip) <= headers {
		return 1, size
	}
	binary.NativeEndian.PutUint16(vnet[2:], uint16(headers))
	count = int64((len(ip) - headers + segment - 1) / segment)
	return count, size + (count-1)*int64(headers)
}
