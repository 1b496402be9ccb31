package wan

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// ErrUnavailable is wrapped by the errors of [Open] that say what this machine
// lacks: Linux, root's rights, /dev/net/tun, nsenter.
var ErrUnavailable = errors.New("no network of a distance can be made here")

// Config describes the link between the two places. Both directions are alike.
type Config struct {
	OneWay time.Duration // half of the round trip
	// Jitter is the most that is added to OneWay. How much it is changes every
	// 10 ms; packets do not overtake each other.
	Jitter         time.Duration
	BytesPerSecond int64 // of IP packets, each direction; 0: no limit
	// QueueBytes is how much waits before the limited link, default a round trip's
	// worth and at least 256 KiB. Without a rate nothing waits.
	QueueBytes int64
	MTU        int // bytes of an IP packet, default 1500
	// TCPBuffer is the largest socket buffer, in bytes, that TCP of the far side
	// tunes itself to for sending and for receiving; 0: as the machine has it.
	TCPBuffer int
}

const (
	defaultMTU   = 1500
	defaultQueue = 256 << 10 // bytes, the least that a queue is by default
)

// Stats are counted from the start.
type Stats struct{ ToFar, ToNear PathStats }

// PathStats are those of one direction.
type PathStats struct {
	Packets int64 // delivered, counted as on the wire
	Bytes   int64 // of these, with their IP headers
	Drops   int64 // packets that found the queue full
	// Overflow are packets the kernel dropped because this process did not read
	// them in time. They are losses nobody asked for: a measurement with any is
	// one of this machine's load.
	Overflow int64
	// Late is the most a packet was delivered after its time.
	Late time.Duration
}

// Start opens a WAN for one test, or skips the test where there cannot be one.
// It is closed when the test ends, after whatever the test opened later.
func Start(t testing.TB, cfg Config) *WAN {
	t.Helper()
	// Not the test's context: that ends before its cleanups, which say goodbye
	// over the link.
	w, err := Open(context.WithoutCancel(t.Context()), cfg)
	if errors.Is(err, ErrUnavailable) {
		t.Skip("not run: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// network is the range the addresses of all links are taken from, four each.
var network = netip.MustParsePrefix("10.199.0.0/16")
