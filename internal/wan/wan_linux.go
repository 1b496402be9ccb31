package wan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A WAN is a link to a far place. Its methods may be called from several
// goroutines.
type WAN struct {
	Near netip.Addr // of the link in the caller's namespace
	Far  netip.Addr // of the link in the far namespace

	claim     net.Listener // holds the addresses
	space     *namespace
	near, far *device
	toFar     *path
	toNear    *path

	mu         sync.Mutex // of Set
	closed     bool
	cfg        Config
	conditions atomic.Pointer[conditions]

	stop    int // eventfd, readable when the paths are to end
	paths   sync.WaitGroup
	failed  [2]error // of the paths, after they have ended
	unwatch func() bool
	close   func() error
}

// Open makes the far place and the link to it. They live until Close or the
// end of ctx.
func Open(ctx context.Context, cfg Config) (_ *WAN, err error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if err := errors.Join(cfg.check(), missing()); err != nil {
		return nil, fmt.Errorf("open a WAN: %w", err)
	}
	w := &WAN{cfg: cfg, stop: -1, unwatch: func() bool { return true }}
	w.close = sync.OnceValue(w.closeAll)
	defer func() {
		if err != nil {
			_ = w.Close()
			err = unavailable(fmt.Errorf("open a WAN: %w", err))
		}
	}()
	if w.space, err = newNamespace(); err != nil {
		return nil, err
	}
	if w.claim, w.Near, w.Far, err = claimAddresses(); err != nil {
		return nil, err
	}
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	if w.near, err = openDevice(w.Near, cfg.MTU); err != nil {
		return nil, err
	}
	if err := w.Do(w.furnish); err != nil {
		return nil, fmt.Errorf("set the far namespace up: %w", err)
	}
	if err := w.Set(cfg.OneWay, cfg.Jitter, cfg.BytesPerSecond); err != nil {
		return nil, err
	}
	w.toFar, w.toNear = newPath(w, w.near, w.far), newPath(w, w.far, w.near)
	w.paths.Go(func() { w.failed[0] = w.toFar.run() })
	w.paths.Go(func() { w.failed[1] = w.toNear.run() })
	w.unwatch = context.AfterFunc(ctx, func() { _ = w.close() })
	return w, nil
}

func (c Config) check() error {
	if c.OneWay < 0 || c.Jitter < 0 || c.BytesPerSecond < 0 || c.QueueBytes < 0 || c.TCPBuffer < 0 {
		return errors.New("a negative value in the configuration")
	}
	if c.MTU < 576 || c.MTU > 65535 {
		return fmt.Errorf("an MTU of %d, not of 576 to 65535 bytes", c.MTU)
	}
	return nil
}

// missing says what this machine lacks.
func missing() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnavailable)
	}
	if err := unix.Access(tunDevice, unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("%w: access %s: %w", ErrUnavailable, tunDevice, err)
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return fmt.Errorf("%w: %w (Debian: apt-get install util-linux)", ErrUnavailable, err)
	}
	return nil
}

// unavailable tells what this machine does not let root do, as in a container,
// from other errors.
func unavailable(err error) error {
	for _, refused := range []error{unix.EPERM, unix.EROFS, unix.ENODEV} {
		if errors.Is(err, refused) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

// furnish runs in the far namespace.
func (w *WAN) furnish() (err error) {
	if err := upLoopback(); err != nil {
		return err
	}
	if b := w.cfg.TCPBuffer; b > 0 {
		for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
			// These are the namespace's own: least, first and largest.
			text := fmt.Sprintf("4096 %d %d", min(131072, b), b)
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(text), 0o644); err != nil { //nolint:gosec // it exists, its mode stays
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	w.far, err = openDevice(w.Far, w.cfg.MTU)
	return err
}

// claimAddresses takes four addresses that no other process has. The claim is
// an abstract socket, which ends with its process.
func claimAddresses() (claim net.Listener, near, far netip.Addr, err error) {
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return nil, near, far, fmt.Errorf("list addresses: %w", err)
	}
	const count = 1 << 14 // of four addresses in network
	first := rand.IntN(count)
	for i := range count {
		n := (first + i) % count
		base := network.Addr().As4()
		base[2], base[3] = byte(n>>6), byte(n<<2)
		block := netip.PrefixFrom(netip.AddrFrom4(base), 30)
		if overlaps(block, taken) {
			continue
		}
		claim, err = (&net.ListenConfig{}).Listen(context.Background(), "unix", "@replicator-wan-"+strconv.Itoa(n))
		if err != nil {
			continue
		}
		near = block.Addr().Next()
		return claim, near, near.Next(), nil
	}
	return nil, near, far, fmt.Errorf("all addresses of %s are taken: %w", network, err)
}

func overlaps(block netip.Prefix, taken []net.Addr) bool {
	for _, a := range taken {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Masked().Overlaps(block) {
			return true
		}
	}
	return false
}

// Set changes the link. Packets under way keep their time of arrival, and later
// ones do not overtake them. bytesPerSecond 0 is no limit.
func (w *WAN) Set(oneWay, jitter time.Duration, bytesPerSecond int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	cfg := w.cfg
	cfg.OneWay, cfg.Jitter, cfg.BytesPerSecond = oneWay, jitter, bytesPerSecond
	if err := cfg.check(); err != nil {
		return fmt.Errorf("set the link: %w", err)
	}
	if w.closed {
		return errors.New("set the link: it is closed")
	}
	w.cfg = cfg
	c := &conditions{oneWay: oneWay, jitter: jitter, rate: bytesPerSecond, queue: cfg.QueueBytes}
	if c.queue == 0 {
		c.queue = max(defaultQueue, int64(2*oneWay.Seconds()*float64(bytesPerSecond)))
	}
	w.conditions.Store(c)
	// A packet that stands for many takes the link, and is dropped, as one. Where
	// that would be a burst of more than a millisecond the kernel is to cut it.
	offload := bytesPerSecond == 0 || bytesPerSecond >= 1000*maxPacket
	return errors.Join(w.near.setOffload(offload), w.far.setOffload(offload))
}

// Do runs f on a thread that is in the far namespace: sockets that f itself
// opens, and processes it starts, are there and stay there. Goroutines that f
// starts are not.
func (w *WAN) Do(f func() error) error { return w.space.do(f) }

// Command is a command that runs in the far namespace.
func (w *WAN) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + w.Namespace(), "--", name}, args...)...)
}

// Namespace is a path of the far namespace, for nsenter --net=..., as long as
// this process lives and the WAN is open.
func (w *WAN) Namespace() string { return w.space.path() }

// Stats tells what was carried.
func (w *WAN) Stats() Stats {
	s := Stats{ToFar: w.toFar.stats(), ToNear: w.toNear.stats()}
	s.ToFar.Overflow = w.near.overflow()
	_ = w.Do(func() error { s.ToNear.Overflow = w.far.overflow(); return nil })
	return s
}

// Close ends the link and removes its devices. The far namespace goes with the
// last process in it. It returns the error that had ended the link before, and
// may be called twice.
func (w *WAN) Close() error {
	w.unwatch()
	return w.close()
}

func (w *WAN) closeAll() error {
	w.mu.Lock()
	w.closed = true // no ioctl on a file that may be another's
	w.mu.Unlock()
	if w.stop >= 0 {
		_, _ = unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // its counter; it cannot be full
	}
	w.paths.Wait()
	w.near.close()
	w.far.close()
	if w.stop >= 0 {
		_ = unix.Close(w.stop)
	}
	if w.claim != nil {
		_ = w.claim.Close()
	}
	if w.space != nil {
		w.space.close()
	}
	return errors.Join(w.failed[:]...)
}
