package memnet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// pipe is a connection: two ends and two streams.
type pipe struct {
	n                *Network
	from, to         string // host that dialed, address dialed
	dialer, listener *conn
	broken           bool
}

func newPipe(n *Network, host string, from, to netip.AddrPort) *pipe {
	p := &pipe{n: n, from: host, to: to.String()}
	up := &stream{pipe: p, dir: ToListener, wake: make(chan struct{})}
	down := &stream{pipe: p, dir: ToDialer, wake: make(chan struct{})}
	p.dialer = &conn{pipe: p, local: from, remote: to, in: down, out: up}
	p.listener = &conn{pipe: p, local: to, remote: from, in: up, out: down}
	return p
}

func (p *pipe) streams() [2]*stream { return [2]*stream{p.dialer.out, p.dialer.in} }

// reset breaks the connection at once.
func (p *pipe) reset() {
	p.broken = true
	for _, s := range p.streams() {
		s.segments, s.size = nil, 0
		s.notify()
	}
	delete(p.n.pipes, p)
}

// segment is what one write left in the network: bytes, or the end of the stream.
type segment struct {
	data []byte
	at   time.Time // when it arrives
	end  error     // io.EOF or a reset, behind the data of earlier segments
}

// stream is one direction of a connection.
type stream struct {
	pipe     *pipe
	dir      Direction
	segments []segment
	size     int
	muted    bool
	wake     chan struct{} // closed and replaced at every change
}

func (s *stream) notify() {
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *stream) held() bool {
	for _, r := range s.pipe.n.rules {
		if r.holds(s) {
			return true
		}
	}
	return false
}

// put lets the rules act on bytes that are being written, and queues what is left of them.
// It returns how many of them count as written.
func (s *stream) put(data []byte) (int, error) {
	var delay time.Duration
	keep := data
	var cut *Rule
	for _, r := range s.pipe.n.rules {
		if !r.matches(s.pipe.from, s.pipe.to) || r.dir != s.dir && r.kind != partitionRule {
			continue
		}
		switch r.kind {
		case delayRule:
			delay += r.delay
			r.hits++
		case muteRule:
			s.muted = true
			r.hits++
		case holdRule, partitionRule:
			r.hits++
		case cutRule:
			if r.left < int64(len(keep)) {
				keep, cut = keep[:r.left], r
			} else {
				r.left -= int64(len(keep))
			}
		}
	}
	if !s.muted && len(keep) > 0 {
		s.queue(segment{data: append([]byte(nil), keep...)}, delay)
	}
	if cut == nil {
		return len(data), nil
	}
	cut.hits++
	cut.lift()
	// What was written before the cut arrives, then the reader sees the reset; the writer sees it now.
	s.queue(segment{end: syscall.ECONNRESET}, delay)
	writer := s.writer()
	writer.cut = true
	writer.in.segments, writer.in.size = nil, 0
	writer.in.notify()
	return len(keep), syscall.ECONNRESET
}

func (s *stream) writer() *conn {
	if s.dir == ToListener {
		return s.pipe.dialer
	}
	return s.pipe.listener
}

func (s *stream) queue(g segment, delay time.Duration) {
	g.at = time.Now().Add(delay)
	if k := len(s.segments); k > 0 && s.segments[k-1].at.After(g.at) {
		g.at = s.segments[k-1].at
	}
	s.segments = append(s.segments, g)
	s.size += len(g.data)
	s.notify()
}

// take moves arrived bytes to p; ok is false if there is nothing to take yet, and next says when there is (zero: not known).
func (s *stream) take(p []byte) (count int, err error, ok bool, next time.Time) {
	if len(s.segments) == 0 || s.held() {
		return 0, nil, false, next
	}
	now := time.Now()
	for len(s.segments) > 0 && count < len(p) {
		g := &s.segments[0]
		if g.at.After(now) {
			next = g.at
			break
		}
		if g.end != nil {
			if count == 0 {
				return 0, g.end, true, next // stays, so that the next read sees it too
			}
			break
		}
		k := copy(p[count:], g.data)
		count += k
		s.size -= k
		if g.data = g.data[k:]; len(g.data) == 0 {
			s.segments = s.segments[1:]
		}
	}
	if count > 0 {
		s.notify() // there is room for writers
	}
	return count, nil, count > 0, next
}

// conn is one end of a connection.
type conn struct {
	pipe          *pipe
	local, remote netip.AddrPort
	in, out       *stream
	closed        bool
	cut           bool // reset while it wrote
	readBy        time.Time
	writeBy       time.Time
}

var _ net.Conn = (*conn)(nil)

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) fail(op string, err error) error { return opError(op, c.LocalAddr(), c.remote, err) }

// usable tells why the connection can not be read or written now.
func (c *conn) usable(by time.Time) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case !by.IsZero() && !by.After(time.Now()):
		return os.ErrDeadlineExceeded
	case c.pipe.broken || c.cut:
		return syscall.ECONNRESET
	}
	return nil
}

// Read waits for bytes that have arrived.
func (c *conn) Read(p []byte) (int, error) {
	n := c.pipe.n
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if err := c.usable(c.readBy); err != nil {
			return 0, c.fail("read", err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		count, err, ok, next := c.in.take(p)
		if ok {
			if err != nil && !errors.Is(err, io.EOF) {
				err = c.fail("read", err)
			}
			return count, err
		}
		c.await(c.in, c.readBy, next)
	}
}

// Write queues p for the other side; it waits only while the buffer is full.
func (c *conn) Write(p []byte) (int, error) {
	n := c.pipe.n
	n.mu.Lock()
	defer n.mu.Unlock()
	written := 0
	for {
		if err := c.usable(c.writeBy); err != nil {
			return written, c.fail("write", err)
		}
		if len(p) == written {
			return written, nil
		}
		other := c.pipe.listener
		if c == other {
			other = c.pipe.dialer
		}
		if other.closed {
			return len(p), nil // goes nowhere, as a first write to a closed socket does
		}
		room := BufferSize - c.out.size
		if room <= 0 {
			c.await(c.out, c.writeBy, time.Time{})
			continue
		}
		k, err := c.out.put(p[written:min(len(p), written+room)])
		written += k
		if err != nil {
			return written, c.fail("write", err)
		}
	}
}

// await gives the network up until the stream changes or one of the times has come (zero: never).
func (c *conn) await(s *stream, by, next time.Time) {
	if next.IsZero() || !by.IsZero() && by.Before(next) {
		next = by
	}
	var over <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		over = t.C
	}
	wake := s.wake
	c.pipe.n.mu.Unlock()
	select {
	case <-wake:
	case <-over:
	}
	c.pipe.n.mu.Lock()
}

// Close ends both directions. What was written still arrives, followed by the end of the stream.
func (c *conn) Close() error {
	n := c.pipe.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.closed = true
	c.in.segments, c.in.size = nil, 0
	c.in.notify()
	if !c.pipe.broken && !c.cut && !c.out.muted {
		var delay time.Duration
		for _, r := range n.rules {
			if r.kind == delayRule && r.dir == c.out.dir && r.matches(c.pipe.from, c.pipe.to) {
				delay += r.delay
			}
		}
		c.out.queue(segment{end: io.EOF}, delay)
	}
	c.out.notify()
	if c.pipe.dialer.closed && c.pipe.listener.closed {
		delete(n.pipes, c.pipe)
	}
	return nil
}

// SetDeadline sets both deadlines; zero means none.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline ends reads, the waiting ones too, at t.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readBy, c.in, t) }

// SetWriteDeadline ends writes, the waiting ones too, at t.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, c.out, t) }

func (c *conn) setDeadline(by *time.Time, s *stream, t time.Time) error {
	c.pipe.n.mu.Lock()
	defer c.pipe.n.mu.Unlock()
	if c.closed {
		return c.fail("set deadline", net.ErrClosed)
	}
	*by = t
	s.notify()
	return nil
}
