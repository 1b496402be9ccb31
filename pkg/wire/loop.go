package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// write is the writer: it sets the connection up, then sends what is queued.
func (c *Conn) write(ready chan<- error) {
	defer close(c.writer)
	err := c.setUp()
	if err != nil {
		c.end(err)
	}
	ready <- err
	for err == nil {
		var k call
		var ok bool
		if k, ok = c.nextQueued(); !ok || !c.waitThrottle() {
			return
		}
		if err = c.reauthenticate(); err == nil {
			err = c.send(k)
		}
	}
	c.end(err)
}

// nextQueued waits for a call to send. It stays in the queue until begun.
func (c *Conn) nextQueued() (call, bool) {
	for {
		c.mu.Lock()
		if c.err == nil && c.queue.len > 0 {
			k := *c.queue.at(0)
			c.mu.Unlock()
			return k, true
		}
		c.mu.Unlock()
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return call{}, false
		}
	}
}

// waitThrottle waits until the broker wants to hear from us again.
func (c *Conn) waitThrottle() bool {
	for {
		c.mu.Lock()
		until := c.quietUntil
		c.mu.Unlock()
		if until.IsZero() {
			return true
		}
		wait := time.Until(until)
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// send writes the first of the queue.
func (c *Conn) send(k call) error {
	if r := k.produce; r != nil {
		version, err := c.produceVersion(r)
		if err != nil {
			return err
		}
		k.version, k.flexible = version, version >= produceFlexible
		c.out.reset()
		c.out.head = appendRequestHeader(c.out.head, k.key, version, c.cfg.ClientID, k.flexible)
		c.out.produce(r, version)
		k.corr = c.nextCorrelation()
		c.out.finish(k.corr)
		c.setWriteDeadline()
		r.Sent = time.Now()
		if r.SendBy != nil && !r.SendBy() {
			return c.error("write "+k.what+" request", ErrSendRefused)
		}
	} else {
		k.corr = c.nextCorrelation()
		c.out.reset()
		c.out.piece(k.req)
		finishRequest(k.req, len(k.req), k.corr)
		c.setWriteDeadline()
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.queue.pop()
	c.flight.push(k)
	c.mu.Unlock()
	return c.flush(k.what)
}

// exchange sends a request ahead of the queue and waits for its answer. Only
// the writer calls it. An error of check ends the connection before the reader
// goes on, so that it is the connection's error even if the broker hangs up.
func (c *Conn) exchange(k call, check func(kmsg.Response) error) (kmsg.Response, error) {
	answer := make(chan kmsg.Response, 1)
	k.check = check
	k.done = func(resp kmsg.Response, err error) {
		if err == nil {
			answer <- resp
		}
	}
	k.corr = c.nextCorrelation()
	c.out.reset()
	c.out.piece(k.req)
	finishRequest(k.req, len(k.req), k.corr)
	c.setWriteDeadline()
	c.mu.Lock()
	c.flight.push(k)
	c.mu.Unlock()
	if err := c.flush(k.what); err != nil {
		return nil, err
	}
	select {
	case resp := <-answer:
		return resp, nil
	case <-c.ctx.Done():
	}
	select {
	case resp := <-answer: // the last that came in
		return resp, nil
	default:
		return nil, c.Err()
	}
}

func (c *Conn) nextCorrelation() int32 {
	c.corr++
	return c.corr
}

// Errors of setting deadlines are left out on purpose, here and below: only a
// connection that has ended has them, and reading or writing it says more.
func (c *Conn) setWriteDeadline() {
	c.nc.SetWriteDeadline(time.Now().Add(c.cfg.Timeout))
}

// flush writes what the outbox holds, which is the last in flight.
func (c *Conn) flush(what string) error {
	n, err := c.out.writeTo(c.nc)
	if c.cfg.OnBytes != nil {
		c.cfg.OnBytes(0, n)
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("broker took %d of %d bytes in %v: %w", n, c.out.size, c.cfg.Timeout, err)
		}
		return c.error("write "+what+" request", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight.len == 0 {
		return nil // only when the connection has ended
	}
	c.flight.at(c.flight.len - 1).written = true
	if c.flight.len > 1 {
		return nil
	}
	if c.awaited {
		c.awaited = false
		notify(c.wrote)
	}
	if c.idle {
		c.armLocked()
	}
	return nil
}

// armLocked sets the time by which the first in flight must be answered. It
// counts from now: from the writing of the request, or from the last answer
// before, because a broker works on one request of a connection at a time.
func (c *Conn) armLocked() {
	var deadline time.Time
	c.idle = c.flight.len == 0 || !c.flight.at(0).written
	if !c.idle {
		from := time.Now()
		if c.quietUntil.After(from) {
			from = c.quietUntil // until then the broker reads nothing of this connection
		}
		deadline = from.Add(c.cfg.Timeout + c.flight.at(0).extra)
	}
	c.nc.SetReadDeadline(deadline)
}

// read is the reader: it gives out answers until the connection ends, then the
// error to all that are left.
func (c *Conn) read() {
	defer close(c.finished)
	var err error
	for err == nil {
		err = c.readAnswer()
	}
	c.end(err)
	// The writer may still read the slices of a request, whose owner takes
	// them back with the error.
	<-c.writer
	c.deliverErrors()
}

// source reads the connection. While it reads the body of an answer, the time
// starts anew whenever something arrived.
type source struct {
	c    *Conn
	left int // bytes of the body not yet read, 0 outside of one
	low  lowWater
}

func (s *source) Read(p []byte) (int, error) {
	if s.left > 0 {
		s.await()
		s.c.nc.SetReadDeadline(time.Now().Add(s.c.cfg.Timeout))
	}
	n, err := s.c.nc.Read(p)
	if n == 0 && s.low.is > 1 && errors.Is(err, os.ErrDeadlineExceeded) {
		// Less than was waited for may have arrived all the same. This broker, or
		// an older kernel, which lets no more come than its buffer holds, is not one
		// to wait for much with.
		if s.low.set(1) == nil {
			s.low.off = true
			s.c.nc.SetReadDeadline(time.Now().Add(readAtOnce))
			n, err = s.c.nc.Read(p)
		}
	}
	s.left = max(0, s.left-n)
	if s.left == 0 && s.low.is > 1 {
		if lowErr := s.low.set(1); err == nil {
			err = lowErr // the next answer may be shorter than what is waited for
		}
	}
	if n > 0 && s.c.cfg.OnBytes != nil {
		s.c.cfg.OnBytes(n, 0)
	}
	return n, err
}

// lowWaterBytes is how much of a large answer has to be there before its reader
// is woken: each waking and each read costs the same, however little it brings.
const lowWaterBytes = 512 << 10

// readAtOnce is time enough to read what is there.
const readAtOnce = 100 * time.Millisecond

// await tells the kernel how much to wait for, of the body that is left.
func (s *source) await() {
	want := min(s.left, lowWaterBytes)
	if s.low.off || s.left < lowWaterBytes/4 && s.low.is <= 1 || want == s.low.is {
		return
	}
	_ = s.low.set(want) // where that fails, the read wakes for less
}

// readAnswer reads one answer and gives it out.
func (c *Conn) readAnswer() error {
	c.src.left = 0
	c.mu.Lock()
	c.armLocked()
	c.mu.Unlock()
	head, err := c.rd.Peek(8)
	if err != nil {
		return c.readError(err)
	}
	size := int32(binary.BigEndian.Uint32(head))
	corr := int32(binary.BigEndian.Uint32(head[4:]))
	k, err := c.match(corr)
	if err != nil {
		return err
	}
	limit := c.cfg.MaxResponse
	if k.fetch != nil {
		limit = c.cfg.MaxFetch
	}
	if size < 4 || size > limit {
		return c.error("read "+k.what+" answer", fmt.Errorf("size %d is not within 4 and %d bytes", size, limit))
	}
	if _, err := c.rd.Discard(8); err != nil {
		return c.readError(err)
	}
	n := int(size) - 4
	c.src.left = max(0, n-c.rd.Buffered())
	switch {
	case k.produce != nil:
		return c.readProduce(&k, n)
	case k.fetch != nil:
		return c.readFetch(&k, n)
	default:
		return c.readOther(&k, n)
	}
}

// match finds the call that an answer belongs to: the first in flight, once
// its request is written to the end.
func (c *Conn) match(corr int32) (call, error) {
	c.mu.Lock()
	c.idle = false
	for c.flight.len > 0 && !c.flight.at(0).written && c.flight.at(0).corr == corr && c.err == nil {
		// The answer is in before our Write has returned. The slices of
		// the request are the writer's until then.
		c.awaited = true
		c.mu.Unlock()
		select {
		case <-c.wrote:
		case <-c.ctx.Done():
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if c.err != nil {
		return call{}, c.err
	}
	if c.flight.len == 0 {
		return call{}, c.error("read answer", fmt.Errorf("correlation id %d though no request is unanswered", corr))
	}
	k := *c.flight.at(0)
	if k.corr != corr {
		return call{}, c.error("read "+k.what+" answer", fmt.Errorf("correlation id %d, expected %d", corr, k.corr))
	}
	return k, nil
}

// answered takes the first in flight off: its answer is complete.
func (c *Conn) answered() {
	c.mu.Lock()
	c.flight.pop()
	c.mu.Unlock()
}

// readProduce reads the n bytes of a produce answer.
func (c *Conn) readProduce(k *call, n int) error {
	if cap(c.answer) < n {
		c.answer = make([]byte, max(n, 1<<10))
	}
	body := c.answer[:n]
	if _, err := io.ReadFull(c.rd, body); err != nil {
		return c.readError(err)
	}
	throttle, err := readProduceResponse(body, k.version, k.produce)
	if err != nil {
		return c.error("read Produce answer", err)
	}
	// From version 6 on, the broker answers first and wants quiet then.
	c.throttled(throttle, k.version >= 6)
	c.answered()
	k.produce.Done(k.produce, nil)
	return nil
}

// readFetch reads the n bytes of a fetch answer into a frame.
func (c *Conn) readFetch(k *call, n int) error {
	c.mu.Lock()
	abandoned := k.fetch.abandoned
	c.mu.Unlock()
	if abandoned {
		if _, err := c.rd.Discard(n); err != nil {
			return c.readError(err)
		}
		c.answered()
		return nil
	}
	frame, err := c.cfg.Pool.Get(c.ctx, n)
	if err != nil {
		return c.error("read Fetch answer", err) // the connection has ended
	}
	if _, err := io.ReadFull(c.rd, frame.Bytes()); err != nil {
		frame.Release()
		return c.readError(err)
	}
	c.throttled(fetchThrottle(frame.Bytes(), k.flexible), k.version >= 8)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flight.pop()
	if k.fetch.abandoned {
		frame.Release()
	} else {
		k.fetch.answer <- fetchAnswer{frame: frame}
	}
	return nil
}

// readOther reads the n bytes of an answer that kmsg decodes.
func (c *Conn) readOther(k *call, n int) error {
	body := make([]byte, n) // the answer may keep slices of it
	if _, err := io.ReadFull(c.rd, body); err != nil {
		return c.readError(err)
	}
	r := bodyReader{rest: body}
	if k.flexible {
		r.skipTags()
	}
	err := r.err()
	if err == nil {
		err = k.resp.ReadFrom(versionFallback(k, r.rest))
	}
	if err != nil {
		return c.error("read "+k.what+" answer", err)
	}
	if t, ok := k.resp.(kmsg.ThrottleResponse); ok {
		ms, after := t.Throttle()
		c.throttled(ms, after)
	}
	if k.check != nil {
		if err := k.check(k.resp); err != nil {
			return c.error(k.what, err)
		}
	}
	c.answered()
	k.done(k.resp, nil)
	return nil
}

// throttled notes how long the broker wants no further request (KIP-219).
// Older brokers have waited themselves before they answered.
func (c *Conn) throttled(ms int32, wait bool) {
	if ms <= 0 {
		return
	}
	asked := millis(ms)
	if c.cfg.OnThrottle != nil {
		c.cfg.OnThrottle(asked)
	}
	if !wait {
		return
	}
	until := time.Now().Add(min(asked, maxThrottle))
	c.mu.Lock()
	if until.After(c.quietUntil) {
		c.quietUntil = until
	}
	c.mu.Unlock()
}

// readError says which answer was being waited for.
func (c *Conn) readError(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	op := "read"
	var allowed time.Duration
	if c.flight.len > 0 {
		k := c.flight.at(0)
		op, allowed = "read "+k.what+" answer", k.extra
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("broker silent for %v: %w", c.cfg.Timeout+allowed, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		err = fmt.Errorf("broker closed the connection: %w", err)
	}
	return c.error(op, err)
}
