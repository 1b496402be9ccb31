package observe

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"replicator/internal/status"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"replicator/pkg/mirror"
)

// manager is a service manager's socket.
type manager struct{ *net.UnixConn }

func newManager(t *testing.T, name string) manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return manager{conn}
}

func (m manager) next(t *testing.T) string {
	t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.Read(buf)
	if err != nil {
		t.Fatalf("the service manager heard nothing: %v", err)
	}
	return string(buf[:n])
}

// until reads messages up to one with the text, and returns them.
func (m manager) until(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	for {
		msg := m.next(t)
		out = append(out, msg)
		if strings.Contains(msg, text) {
			return out
		}
	}
}

// told runs Notify until the test ends or stop is called.
func told(t *testing.T, ask Snapshot) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Notify(ctx, NewSource(ask), zap.NewNop())
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func starting() status.Status {
	s := healthy()
	s.Links[0].State, s.Links[0].Ready, s.Links[0].Reason = mirror.LinkStarting, false, "no assignment of lanes yet"
	s.Links[0].LaneStates = nil
	return s
}

func TestServiceManagerHearsTheWholeLife(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@replicator-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, socket)
			var now atomic.Pointer[status.Status]
			now.Store(new(starting()))
			stop := told(t, func(context.Context) status.Status { return *now.Load() })
			if got := m.next(t); got != "STATUS=starting" {
				t.Errorf("first %q", got)
			}
			if got := m.next(t); got != "STATUS=east->west starting, 0 of 0 lanes copying: no assignment of lanes yet" {
				t.Errorf("then %q", got)
			}
			now.Store(new(healthy()))
			if got := m.next(t); got != "READY=1\nSTATUS=east->west copying, 1 of 1 lanes copying" {
				t.Errorf("when lanes run: %q", got)
			}
			stop()
			if got := m.next(t); got != "STOPPING=1\nSTATUS=stopping" {
				t.Errorf("at the end: %q", got)
			}
		})
	}
}

func TestHaltedLaneDoesNotKeepTheServiceFromStarting(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	told(t, func(context.Context) status.Status { return example() })
	m.until(t, "READY=1\nSTATUS=east->west degraded, 1 of 3 lanes copying, 1 halted")
}

func TestWatchdogIsFedOnlyWhileTheLoopAnswers(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "100000")
	var hung atomic.Bool
	asked := make(chan struct{}, 1000)
	told(t, func(context.Context) status.Status {
		asked <- struct{}{}
		if hung.Load() {
			return silent()
		}
		return healthy()
	})
	m.until(t, "WATCHDOG=1")
	began := time.Now()
	for range 5 {
		m.until(t, "WATCHDOG=1")
	}
	if d := time.Since(began); d < 150*time.Millisecond {
		t.Errorf("five times in %v, want one in 50 ms", d)
	}
	hung.Store(true)
	m.until(t, "silent")
	for len(asked) > 0 {
		<-asked
	}
	for range 3 { // looks at the hung loop
		<-asked
	}
	hung.Store(false)
	for _, msg := range m.until(t, "copying") {
		if strings.Contains(msg, "WATCHDOG") && !strings.Contains(msg, "copying") {
			t.Error("the watchdog was fed while the loop hung")
		}
	}
}

func TestWithoutServiceManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	Notify(t.Context(), NewSource(func(context.Context) status.Status { t.Error("asked"); return status.Status{} }), zap.NewNop())
}

func TestDeafServiceManagerIsLoggedOnce(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	t.Setenv("WATCHDOG_USEC", "2000")
	core, logs := observer.New(zap.WarnLevel)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := 0
	Notify(ctx, NewSource(func(context.Context) status.Status {
		if asked++; asked == 3 {
			cancel()
		}
		return healthy()
	}), zap.New(core))
	if n := logs.Len(); n != 1 {
		t.Errorf("%d lines in the log: %v", n, logs.All())
	}
}
