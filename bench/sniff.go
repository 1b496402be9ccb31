package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A sniffer stands between a daemon and a broker and notes the sizes of fetch
// requests and their answers. It costs time of its own, so nothing else is
// measured through it.
type sniffer struct {
	listener net.Listener
	to       string
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu      sync.Mutex
	fetches []exchange
}

// exchange is one fetch, in bytes with their four of length.
type exchange struct {
	Request int64 `json:"request_bytes"`
	Answer  int64 `json:"answer_bytes"` // 0 while it is awaited
}

// sniff listens on loopback and passes on to a broker until close.
func sniff(ctx context.Context, to string) (*sniffer, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen before broker %s: %w", to, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &sniffer{listener: l, to: to, cancel: cancel}
	s.work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.work.Go(func() { s.pass(ctx, in) })
		}
	})
	return s, nil
}

func (s *sniffer) addr() string { return s.listener.Addr().String() }

func (s *sniffer) close() {
	_ = s.listener.Close()
	s.cancel()
	s.work.Wait()
}

// seen are the fetches so far.
func (s *sniffer) seen() []exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]exchange(nil), s.fetches...)
}

func (s *sniffer) pass(ctx context.Context, in net.Conn) {
	defer func() { _ = in.Close() }()
	out, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.to)
	if err != nil {
		return // the daemon sees a closed connection
	}
	defer func() { _ = out.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })
	defer stop()
	// Brokers answer a connection's requests in order.
	asked := make(chan int, 1024) // index of a fetch, -1: something else
	var there sync.WaitGroup
	there.Go(func() {
		defer close(asked)
		_ = frames(in, out, func(head []byte, size int64) bool {
			at := -1
			if len(head) >= 2 && kmsg.Key(binary.BigEndian.Uint16(head)) == kmsg.Fetch {
				s.mu.Lock()
				at = len(s.fetches)
				s.fetches = append(s.fetches, exchange{Request: size})
				s.mu.Unlock()
			}
			select {
			case asked <- at:
				return true
			case <-ctx.Done():
				return false
			}
		})
		_ = out.Close()
	})
	_ = frames(out, in, func(_ []byte, size int64) bool {
		at, ok := <-asked
		if ok && at >= 0 {
			s.mu.Lock()
			s.fetches[at].Answer = size
			s.mu.Unlock()
		}
		return ok
	})
	_ = in.Close()
	there.Wait()
}

var errStopped = errors.New("stopped")

// frames copies frames, each of which begins with its length, and tells the
// first bytes of each and its size before it passes it on.
func frames(from io.Reader, to io.Writer, tell func(head []byte, size int64) bool) error {
	buf := make([]byte, 64<<10)
	for {
		if _, err := io.ReadFull(from, buf[:4]); err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint32(buf))
		head := min(n, 8)
		if _, err := io.ReadFull(from, buf[4:4+head]); err != nil {
			return err
		}
		if !tell(buf[4:4+head], n+4) {
			return errStopped
		}
		if _, err := to.Write(buf[:4+head]); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(to, io.LimitReader(from, n-head), buf); err != nil {
			return err
		}
	}
}
