package wire

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

func TestSocketGivesUpOnUnacknowledgedData(t *testing.T) {
	fake := newFake(t)
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0]})
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, option, want int }{
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000},
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 10},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.option); err != nil || got != o.want {
				t.Errorf("option %d/%d is %d, expected %d: %v", o.level, o.option, got, o.want, err)
			}
		}
	})
	if !c.out.vectored {
		t.Error("writes to a TCP connection are not vectored")
	}
}

// What the kernel has taken but not delivered when the connection ends does
// not reach the broker afterwards.
func TestEndedConnectionTakesBackWhatWasNotDelivered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan struct{})
	received := make(chan int64, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		nc.(*net.TCPConn).SetReadBuffer(64 << 10)
		servePeerOnceAs(nc, 12)
		<-ended
		nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _ := io.Copy(io.Discard, nc)
		received <- n
	}()
	const size = 1 << 20
	taken := make(chan struct{}, 8)
	c := connectTo(t, Config{
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			nc, err := dialTCP(ctx, l.Addr().String())
			if err == nil {
				err = nc.(*net.TCPConn).SetWriteBuffer(4 * size)
			}
			return nc, err
		},
		OnBytes: func(_, written int) {
			if written > size {
				taken <- struct{}{}
			}
		},
	})
	outcome := make(chan error, 1)
	go func() {
		outcome <- produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: make([]byte, size)}}})
	}()
	select {
	case <-taken: // by the kernel, as a whole
	case <-time.After(5 * time.Second):
		t.Skip("this kernel does not take a request of 1 MiB at once")
	}
	c.Close()
	if err := <-outcome; err == nil {
		t.Error("no error")
	}
	close(ended)
	if n := <-received; n >= size {
		t.Errorf("broker received %d bytes after the end", n)
	}
}

// A reader that waits for much at once must not take a slow broker for a silent
// one, nor wait for more than the rest of an answer, nor for more than the next.
func TestLargeAnswersOfSlowBrokersAreRead(t *testing.T) {
	const timeout = 100 * time.Millisecond
	answered := 0
	c := connectTo(t, Config{Timeout: timeout, Pool: NewPool(8 << 20), Dial: tcpPeer(t, func(w io.Writer, corr int32, req kmsg.Request) error {
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		resp.SessionID = 1
		p := kmsg.NewFetchResponseTopicPartition()
		p.RecordBatches = make([]byte, []int{700 << 10, 100, 600 << 10, 5}[answered])
		resp.Topics = []kmsg.FetchResponseTopic{{TopicID: [16]byte{1}, Partitions: []kmsg.FetchResponseTopicPartition{p}}}
		slow := answered == 0
		answered++
		b := appendPeerAnswer(nil, corr, resp)
		for len(b) > 0 {
			n := len(b)
			if slow {
				n = min(n, 64<<10)
			}
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
			if b = b[n:]; slow {
				time.Sleep(timeout / 2) // that is how slow it is: in all well beyond the timeout
			}
		}
		return nil
	})})
	s := NewFetchSession()
	s.Set("orders", [16]byte{1}, 0, FetchPosition{LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
	for _, want := range []int{700 << 10, 100, 600 << 10, 5} {
		resp, err := c.Fetch(t.Context(), s, FetchOptions{MinBytes: 1, MaxBytes: 1 << 20})
		if err != nil {
			t.Fatalf("answer of %d bytes: %v", want, err)
		}
		if got := len(resp.Partitions[0].Records); got != want {
			t.Errorf("%d bytes, expected %d", got, want)
		}
		resp.Frame.Release()
	}
}
