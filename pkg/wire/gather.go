package wire

import (
	"bufio"
	"net"
	"sync"
)

// gatherBytes is how much is gathered below TLS for one system call.
const gatherBytes = 128 << 10

// Gather is put between TLS and the network. TLS reads and writes one record of
// 16 KiB at a time, each with a system call of its own: a Gather reads ahead,
// and keeps the records of one request until they are all there.
//
// One goroutine reads and one writes, as with any connection.
type Gather struct {
	net.Conn
	rd *bufio.Reader

	mu      sync.Mutex
	holding bool
	held    []byte
}

// NewGather returns a Gather above a connection. Until it is told to hold, it
// passes on every write at once.
func NewGather(nc net.Conn) *Gather { return &Gather{Conn: nc} }

// NetConn is the connection below.
func (g *Gather) NetConn() net.Conn { return g.Conn }

// Read reads what is there, or waits for more.
func (g *Gather) Read(p []byte) (int, error) {
	if g.rd == nil {
		g.rd = bufio.NewReaderSize(g.Conn, gatherBytes)
	}
	return g.rd.Read(p)
}

// Write passes p on, or keeps it while Hold says so and there is room.
func (g *Gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.holding {
		return g.Conn.Write(p)
	}
	if len(g.held)+len(p) > gatherBytes {
		if _, err := g.flush(); err != nil {
			return 0, err
		}
	}
	g.held = append(g.held, p...)
	return len(p), nil
}

// Hold keeps what is written until Flush. Who holds must not wait for an answer
// before that: a handshake has to be done.
func (g *Gather) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make([]byte, 0, gatherBytes)
	}
	g.holding = true
}

// Flush passes on what is held, and from then on every write at once. It returns
// how many bytes the connection did not take.
func (g *Gather) Flush() (left int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	return g.flush()
}

func (g *Gather) flush() (left int, err error) {
	n, err := g.Conn.Write(g.held)
	left = len(g.held) - n
	g.held = g.held[:0]
	return left, err
}
