package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const (
	client = "10.9.0.1"
	server = "10.0.0.1:9092"
)

// connect gives both ends of a new connection.
func connect(t *testing.T, n *Network) (dialer, accepted net.Conn) {
	t.Helper()
	l, err := n.Listen("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	dialer, err = n.Dialer(client)(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dialer, accepted
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

func TestBytesArriveAndTheEndBehindThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, New())
		send(t, a, "hello")
		send(t, b, "answer")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		receive(t, b, "hello")
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("want the end, got %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("want closed, got %v", err)
		}
		if b.RemoteAddr().(*net.TCPAddr).IP.String() != client || a.RemoteAddr().String() != server {
			t.Errorf("addresses %v, %v", b.RemoteAddr(), a.RemoteAddr())
		}
	})
}

func TestDelayTakesTimeInOneDirectionAndKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		start := time.Now()
		slow := n.Delay(Match{From: client}, ToListener, time.Hour)
		send(t, a, "one")
		slow.Lift()
		send(t, a, "two")
		receive(t, b, "onetwo")
		if d := time.Since(start); d != time.Hour {
			t.Errorf("arrived after %v", d)
		}
		send(t, b, "back")
		receive(t, a, "back")
		if d := time.Since(start); d != time.Hour {
			t.Errorf("the way back took %v", d-time.Hour)
		}
		if slow.Hits() != 1 {
			t.Errorf("%d writes delayed", slow.Hits())
		}
	})
}

func TestDeadlinesEndWaitingReadsAndWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		start := time.Now()
		time.AfterFunc(time.Second, func() { a.SetReadDeadline(time.Now().Add(time.Second)) })
		_, err := a.Read(make([]byte, 1))
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != 2*time.Second {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		a.SetReadDeadline(time.Time{})
		send(t, b, "x")
		receive(t, a, "x")

		a.SetWriteDeadline(time.Now().Add(time.Minute))
		written, err := a.Write(make([]byte, BufferSize+1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || written != BufferSize {
			t.Fatalf("wrote %d: %v", written, err)
		}
	})
}

func TestAFullBufferMakesWritersWaitForReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, New())
		done := make(chan error)
		go func() {
			_, err := a.Write(make([]byte, 3*BufferSize))
			done <- err
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("the write did not wait")
		default:
		}
		if _, err := io.ReadFull(b, make([]byte, 3*BufferSize)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestHeldBytesArriveAfterTheirWriterHasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		hold := n.Hold(Match{To: server}, ToListener)
		send(t, a, "late request")
		send(t, b, "answers pass")
		receive(t, a, "answers pass")
		a.Close()
		b.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("held bytes came through: %v", err)
		}
		b.SetReadDeadline(time.Time{})
		if hold.Held() != len("late request") || hold.Hits() != 1 {
			t.Errorf("held %d bytes, %d hits", hold.Held(), hold.Hits())
		}
		time.AfterFunc(time.Hour, hold.Lift)
		receive(t, b, "late request")
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("want the end, got %v", err)
		}
		send(t, b, "to nobody")
	})
}

func TestDroppedBytesNeverArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		hold := n.Hold(Match{}, ToListener)
		send(t, a, "gone")
		hold.Drop()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("want a reset, got %v", err)
		}
	})
}

func TestAMuteSideWritesIntoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		mute := n.Mute(Match{}, ToDialer)
		send(t, b, "lost answer")
		mute.Lift()
		send(t, b, "and what follows")
		a.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		send(t, a, "up")
		receive(t, b, "up")
	})
}

func TestCutsResetBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		if n.Cut(Match{To: "10.0.0.2"}) != 0 || n.Open(Match{}) != 1 || n.Cut(Match{To: "10.0.0.1"}) != 1 {
			t.Fatal("the wrong connections were cut")
		}
		for _, c := range []net.Conn{a, b} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("read: %v", err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("write: %v", err)
			}
		}

		a, b = connect(t, n)
		cut := n.CutAfter(Match{}, ToListener, 4)
		send(t, a, "ab")
		if written, err := a.Write([]byte("cdef")); written != 2 || !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("write: %d, %v", written, err)
		}
		receive(t, b, "abcd")
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v", err)
		}
		if cut.Hits() != 1 {
			t.Errorf("%d cuts", cut.Hits())
		}
	})
}

func TestDialsAreRefusedOrHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		dial := n.Dialer(client)
		if _, err := dial(t.Context(), "tcp", server); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("nobody listens: %v", err)
		}
		l, err := n.Listen("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := n.Listen("tcp", server); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("second listener: %v", err)
		}
		refuse := n.Refuse(Match{To: server})
		if _, err := dial(t.Context(), "tcp", server); !errors.Is(err, syscall.ECONNREFUSED) || refuse.Hits() != 1 {
			t.Fatalf("refused: %v", err)
		}
		refuse.Lift()

		part := n.Partition([]string{client}, []string{"10.0.0.1", "10.0.0.2"})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := dial(ctx, "tcp", server); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Fatalf("parted, after %v: %v", time.Since(start), err)
		}
		time.AfterFunc(time.Minute, part.Lift)
		n.Delay(Match{}, ToDialer, 80*time.Millisecond)
		start = time.Now()
		c, err := dial(t.Context(), "tcp", server)
		if err != nil || time.Since(start) != time.Minute+80*time.Millisecond || part.Hits() != 2 {
			t.Fatalf("healed, after %v: %v", time.Since(start), err)
		}
		c.Close()
	})
}

func TestAPartitionHoldsWhatIsWrittenUntilItHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := connect(t, n)
		part := n.Partition([]string{client}, []string{"10.0.0.1"})
		send(t, a, "up")
		send(t, b, "down")
		if part.Held() != 6 {
			t.Errorf("held %d bytes", part.Held())
		}
		start := time.Now()
		time.AfterFunc(time.Minute, part.Lift)
		receive(t, b, "up")
		receive(t, a, "down")
		if time.Since(start) != time.Minute {
			t.Errorf("arrived after %v", time.Since(start))
		}
	})
}
