package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"replicator/internal/kafkatest"
)

const relayBuffer = 256 << 10 // bytes of the relay's one buffer

// The relay is the floor under the CPU of whatever forwards bytes: it reads
// from one connection and writes to another, in between the bytes are in user
// memory, as they are in a mover that looks at them. It does not splice.
func newRelayCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "relay ADDRESS",
		Short:  "Copies one connection to an address, by read and write",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return relayTo(cmd.Context(), args[0], os.Stdin, os.Stdout)
		},
	}
}

// relayTo accepts one connection, on the address it prints to stdout, copies what
// comes to another address, and ends when stdin does: it stays until its CPU clock
// was read, and not longer than the process that wants to know, even if that is
// killed before it connects.
func relayTo(ctx context.Context, to string, stdin io.Reader, stdout io.Writer) error {
	from, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ended := make(chan error, 1)
	go func() { // ends with stdin, or with the process
		_, err := io.Copy(io.Discard, stdin)
		_ = from.Close() // ends Accept
		ended <- err
	}()
	fmt.Fprintln(stdout, from.Addr())
	in, err := from.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	out, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return fmt.Errorf("dial the sink: %w", err)
	}
	buf := make([]byte, relayBuffer)
	for {
		n, err := in.Read(buf)
		if _, err := out.Write(buf[:n]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return <-ended
}

// relayRun sends the segments of a topic's log through a relay. Sender and sink
// are this process.
func (l *lab) relayRun(ctx context.Context, pair *kafkatest.ClusterPair, topic string) (r copyRun, err error) {
	r = copyRun{Mover: relay, Share: 1}
	segments, err := filepath.Glob(filepath.Join(pair.Source.Broker(1).DataDir(), topic+"-[0-9]*", "*.log"))
	if err != nil || len(segments) == 0 {
		return r, fmt.Errorf("relay %s: no segments: %w", topic, err)
	}
	sink, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return r, fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = sink.Close() }()
	self, err := os.Executable()
	if err != nil {
		return r, fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "relay", sink.Addr().String())
	var complaint strings.Builder
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe()
	if err != nil {
		return r, fmt.Errorf("start the relay: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, fmt.Errorf("start the relay: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("start the relay: %w", err)
	}
	defer func() {
		_ = in.Close()
		if end := cmd.Wait(); end != nil {
			err = errors.Join(err, fmt.Errorf("run the relay: %w: %s", end, complaint.String()))
		}
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return r, fmt.Errorf("start the relay: it does not listen: %w", err)
	}
	first, err := usage(cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	began := time.Now()
	var sent, received int64
	g, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { _ = sink.Close() }) // ends Accept
	g.Go(func() (err error) {
		sent, err = sendFiles(ctx, strings.TrimSpace(addr), segments)
		return err
	})
	g.Go(func() (err error) {
		received, err = drain(ctx, sink)
		return err
	})
	if err := g.Wait(); err != nil {
		return r, fmt.Errorf("relay %s: %w", topic, err)
	}
	if sent != received || sent == 0 {
		return r, fmt.Errorf("relay %s: sent %d bytes, received %d", topic, sent, received)
	}
	last, err := usage(cmd.Process.Pid)
	r.Wall, r.CPU, r.CPUAll, r.Peak, r.Wire = time.Since(began), last.CPU-first.CPU, last.CPU, last.Peak, sent
	return r, err
}

// sendFiles writes files to an address, one after the other.
func sendFiles(ctx context.Context, addr string, files []string) (n int64, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return n, err
		}
		m, err := io.Copy(conn, f)
		_ = f.Close()
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, conn.Close()
}

// drain reads one connection to its end.
func drain(ctx context.Context, from net.Listener) (int64, error) {
	conn, err := from.Accept()
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var n int64
	for buf := make([]byte, 1<<20); ; {
		m, err := conn.Read(buf)
		n += int64(m)
		if errors.Is(err, io.EOF) {
			return n, conn.Close()
		}
		if err != nil {
			return n, err
		}
	}
}
