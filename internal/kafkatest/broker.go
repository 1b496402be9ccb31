package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	errPortTaken = errors.New("a port was taken by another process")
	// ZooKeeper keeps a killed broker's entry for the session; a broker that
	// comes back meanwhile gives up.
	errStillRegistered = errors.New("ZooKeeper still has the entry of the time before")
)

// A Broker is one node of a [Cluster]. It keeps its addresses and its data for
// as long as the cluster lives, whatever happens to its process.
type Broker struct {
	cluster *Cluster
	id      int
	ports   brokerPorts
	held    []*port

	mu      sync.Mutex
	process *Process // of the last start
}

// ID is the node id, from 1.
func (b *Broker) ID() int { return b.id }

// Addr is the address of the CLIENT listener, host:port.
func (b *Broker) Addr() string { return b.cluster.cfg.Network.addr(b.ports.client) }

// LogPath is the broker's log, of all its starts.
func (b *Broker) LogPath() string { return filepath.Join(b.dir(), "server.log") }

// DataDir is the directory of the partitions.
func (b *Broker) DataDir() string { return filepath.Join(b.dir(), "data") }

// Process is the process of the last start.
func (b *Broker) Process() *Process { return b.proc() }

// Running tells whether the process exists; a paused one does.
func (b *Broker) Running() bool {
	p := b.proc()
	return p != nil && p.Running()
}

// Kill ends the broker by SIGKILL, also a paused one. When it returns the
// process is gone and its address refuses connections.
func (b *Broker) Kill() {
	if p := b.proc(); p != nil {
		p.Kill()
	}
}

// Stop ends the broker by SIGTERM, cleanly, and waits for its end.
func (b *Broker) Stop() error {
	p := b.proc()
	if p == nil {
		return nil
	}
	return p.Stop(stopGrace)
}

// Pause freezes the broker: connections stay, nothing is answered.
func (b *Broker) Pause() error {
	p := b.proc()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return awaitStop(p.PID())
}

// Resume thaws a paused broker.
func (b *Broker) Resume() error { return b.proc().Signal(syscall.SIGCONT) }

// Start starts a broker that is down, on the same addresses and data, and
// waits until it answers and belongs to the cluster again.
func (b *Broker) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if err := b.Launch(); err != nil {
			return err
		}
		err := b.Ready(ctx)
		if !errors.Is(err, errStillRegistered) {
			return err
		}
	}
}

// Launch starts a broker that is down and does not wait for it: for a quorum
// that is not there yet.
func (b *Broker) Launch() error {
	if b.Running() {
		return fmt.Errorf("start broker %d: it is running", b.id)
	}
	return b.launch()
}

func (b *Broker) proc() *Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.process
}

func (b *Broker) dir() string { return b.cluster.home.path("broker-" + strconv.Itoa(b.id)) }

func (b *Broker) properties() string { return filepath.Join(b.dir(), "server.properties") }

// format prepares the data directory for KRaft.
func (b *Broker) format(ctx context.Context) error {
	c := b.cluster
	if c.zk != nil {
		return nil
	}
	_, err := Java{Libs: c.libs, Main: "kafka.tools.StorageTool", Options: c.archive,
		Args: []string{"format", "-t", c.id, "-c", b.properties()}}.Run(ctx, nil)
	if err != nil {
		return fmt.Errorf("format broker %d: %w", b.id, err)
	}
	return nil
}

func (b *Broker) launch() error {
	for _, p := range b.held {
		p.yield()
	}
	c := b.cluster
	p, err := Java{
		Libs: c.libs, Main: "kafka.Kafka", Args: []string{b.properties()},
		Heap: c.cfg.Heap, FullJIT: c.cfg.FullJIT, Options: slices.Concat(c.archive, c.cfg.JVM), Level: "INFO", Dir: b.dir(), Command: c.cfg.Network.Command,
		Env: c.clock.env(),
	}.Start(b.LogPath())
	if err != nil {
		return fmt.Errorf("start broker %d: %w", b.id, err)
	}
	b.mu.Lock()
	b.process = p
	b.mu.Unlock()
	return nil
}

// ended explains a broker that is down, nil while it runs.
func (b *Broker) ended() error {
	p := b.proc()
	if p == nil {
		return fmt.Errorf("broker %d was never started", b.id)
	}
	if p.Running() {
		return nil
	}
	tail := p.Tail(50)
	if strings.Contains(tail, "Address already in use") {
		return fmt.Errorf("broker %d: %w\n%s", b.id, errPortTaken, tail)
	}
	if b.cluster.zk != nil && strings.Contains(p.Tail(200), "NodeExists") {
		return fmt.Errorf("broker %d: %w\n%s", b.id, errStillRegistered, tail)
	}
	return fmt.Errorf("broker %d ended (%s):\n%s", b.id, p.State(), tail)
}

// A zooKeeper serves the one cluster of Kafka 2.
type zooKeeper struct {
	cluster *Cluster
	port    *port
	process *Process
}

func (z *zooKeeper) start(ctx context.Context) error {
	dir := z.cluster.home.path("zookeeper")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	config := filepath.Join(dir, "zookeeper.properties")
	text := propertiesText(map[string]string{
		"dataDir":            filepath.Join(dir, "data"),
		"clientPort":         strconv.Itoa(z.port.number),
		"clientPortAddress":  z.cluster.cfg.Network.Host,
		"maxClientCnxns":     "0",
		"admin.enableServer": "false",
		"tickTime":           "500", // ms; a session is at least two
	})
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	z.port.yield()
	p, err := Java{Libs: z.cluster.libs, Main: "org.apache.zookeeper.server.quorum.QuorumPeerMain",
		Args: []string{config}, Heap: "128m", Options: z.cluster.archive, Level: "INFO", Dir: dir,
		Command: z.cluster.cfg.Network.Command}.Start(filepath.Join(dir, "server.log"))
	if err != nil {
		return err
	}
	z.process = p
	return waitListening(ctx, z.cluster.cfg.Network.addr(z.port), p)
}

func (z *zooKeeper) close() {
	if z.process != nil {
		z.process.Kill()
	}
	z.port.free()
}
