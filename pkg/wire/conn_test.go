package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/goleak"
)

func TestProduceAndFetchOnFakeCluster(t *testing.T) {
	server, client := selfSigned(t)
	for name, tc := range map[string]struct {
		opts []kfake.Opt
		dial func(context.Context, string) (net.Conn, error)
	}{
		"tcp": {},
		"tls": {
			opts: []kfake.Opt{kfake.TLS(server)},
			dial: func(ctx context.Context, addr string) (net.Conn, error) {
				nc, err := dialTCP(ctx, addr)
				if err != nil {
					return nil, err
				}
				secure := client.Clone()
				secure.ServerName = "127.0.0.1"
				return tls.Client(NewGather(nc), secure), nil
			},
		},
		"kafka 2.1": {opts: []kfake.Opt{kfake.MaxVersions(kversion.V2_1_0())}},
		"kafka 2.3": {opts: []kfake.Opt{kfake.MaxVersions(kversion.V2_3_0())}},
		"kafka 2.8": {opts: []kfake.Opt{kfake.MaxVersions(kversion.V2_8_0())}},
		"kafka 3.5": {opts: []kfake.Opt{kfake.MaxVersions(kversion.V3_5_0())}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFake(t, append(tc.opts, kfake.SeedTopics(3, "orders", "bills"))...)
			c := connectTo(t, Config{Addr: fake.ListenAddrs()[0], Dial: tc.dial})
			id, epoch := peerProducerID(t, c)
			for round := range 3 {
				r := &ProduceRequest{TimeoutMillis: 1000}
				for _, topic := range []string{"orders", "bills"} {
					for p := range int32(3) {
						value := fmt.Sprintf("%s-%d-%d", topic, p, round)
						r.Parts = append(r.Parts, ProducePart{
							Topic: topic, TopicID: fake.TopicInfo(topic).TopicID, Partition: p,
							Records: peerBatch(id, epoch, int32(round), value),
						})
					}
				}
				if err := produced(c, r); err != nil {
					t.Fatal(err)
				}
				for _, p := range r.Parts {
					if p.ErrorCode != 0 || p.BaseOffset != int64(round) {
						t.Errorf("%s-%d round %d: code %d (%s), base offset %d", p.Topic, p.Partition, round, p.ErrorCode, p.Message, p.BaseOffset)
					}
				}
			}

			s := NewFetchSession()
			for _, topic := range []string{"orders", "bills"} {
				for p := range int32(3) {
					s.Set(topic, fake.TopicInfo(topic).TopicID, p, FetchPosition{LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
				}
			}
			o := FetchOptions{MaxWait: 10 * time.Millisecond, MinBytes: 1, MaxBytes: 8 << 20, ReadCommitted: true}
			resp, err := c.Fetch(t.Context(), s, o)
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			for _, p := range resp.Partitions {
				if p.ErrorCode != 0 || p.HighWatermark != 3 || p.LastStable != 3 {
					t.Errorf("%s-%d: code %d, high watermark %d, stable %d", p.Topic, p.Partition, p.ErrorCode, p.HighWatermark, p.LastStable)
				}
				for round, rest := 0, p.Records; len(rest) > 0; round++ {
					var entry []byte
					if entry, rest, err = Split(rest); err != nil {
						t.Fatal(err)
					}
					want := fmt.Sprintf("%s-%d-%d", p.Topic, p.Partition, round)
					if !strings.Contains(string(entry), want) {
						t.Errorf("%s-%d, batch %d holds no %q", p.Topic, p.Partition, round, want)
					}
					seen++
				}
				s.Set(p.Topic, p.TopicID, p.Partition, FetchPosition{Offset: 3, LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
			}
			resp.Frame.Release()
			if seen != 18 {
				t.Errorf("fetched %d batches, 18 were produced", seen)
			}
			if resp, err = c.Fetch(t.Context(), s, o); err != nil {
				t.Fatal(err)
			}
			for _, p := range resp.Partitions {
				if len(p.Records) > 0 {
					t.Errorf("%s-%d: %d bytes past the end", p.Topic, p.Partition, len(p.Records))
				}
			}
			resp.Frame.Release()
		})
	}
}

func TestAllInFakeTimeWithinABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen), kfake.SeedTopics(1, "orders"))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		c, err := Connect(t.Context(), Config{Addr: "127.0.0.1:9092", Pool: NewPool(1 << 20),
			Dial: func(ctx context.Context, addr string) (net.Conn, error) { return network.DialContext(ctx, "tcp", addr) }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Wait()
		defer c.Close()
		s := NewFetchSession()
		s.Set("orders", fake.TopicInfo("orders").TopicID, 0, FetchPosition{LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
		start := time.Now()
		for range 1000 { // long polls beyond any timeout, in no real time
			resp, err := c.Fetch(t.Context(), s, FetchOptions{MaxWait: 30 * time.Second, MinBytes: 1, MaxBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			resp.Frame.Release()
		}
		if waited := time.Since(start); waited < 1000*30*time.Second {
			t.Errorf("polled for %v only", waited)
		}
		time.Sleep(24 * time.Hour) // idle is allowed
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnswersComeInOrderThroughOneConnection(t *testing.T) {
	fake := newFake(t, kfake.SeedTopics(1, "orders"))
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0]})
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		note := func() { mu.Lock(); order = append(order, i); mu.Unlock(); wg.Done() }
		if i%2 == 0 {
			c.Go(kmsg.NewPtrMetadataRequest(), func(_ kmsg.Response, err error) {
				if err != nil {
					t.Error(err)
				}
				note()
			})
		} else {
			c.Produce(&ProduceRequest{
				Parts: []ProducePart{{Topic: "orders", Records: peerBatch(-1, -1, -1, "x")}},
				Done: func(_ *ProduceRequest, err error) {
					if err != nil {
						t.Error(err)
					}
					note()
				},
			})
		}
	}
	wg.Wait()
	for i, got := range order {
		if i != got {
			t.Fatalf("answer %d came as number %d", got, i)
		}
	}
}

// Every request under way gets the error once, in order, and says whether the
// broker can have seen it.
func TestConnectionKilledWithProducesInFlight(t *testing.T) {
	for name, dial := range map[string]func(*testing.T, peerAnswer) func(context.Context, string) (net.Conn, error){
		"pipe": func(_ *testing.T, a peerAnswer) func(context.Context, string) (net.Conn, error) { return pipePeer(a) },
		"tcp":  func(t *testing.T, a peerAnswer) func(context.Context, string) (net.Conn, error) { return tcpPeer(t, a) },
	} {
		t.Run(name, func(t *testing.T) {
			read := 0
			dialer := dial(t, func(w io.Writer, corr int32, req kmsg.Request) error {
				if read++; read == 3 {
					return errors.New("hang up")
				}
				return nil
			})
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			c := connectTo(t, Config{Timeout: time.Minute, Dial: dialer})
			const n = 50
			type outcome struct {
				i   int
				err error
			}
			outcomes := make(chan outcome, n)
			for i := range n {
				records := make([]byte, 1<<20) // so that the later ones cannot all be in a socket buffer
				c.Produce(&ProduceRequest{
					Parts: []ProducePart{{Topic: "orders", Records: records}},
					Done: func(_ *ProduceRequest, err error) {
						clear(records) // ours again: a race if it is not
						outcomes <- outcome{i, err}
					},
				})
			}
			notSent := 0
			for i := range n {
				o := <-outcomes
				if o.i != i || o.err == nil {
					t.Fatalf("outcome %d is of request %d: %v", i, o.i, o.err)
				}
				switch {
				case errors.Is(o.err, ErrNotSent):
					notSent++
				case notSent > 0:
					t.Errorf("request %d may have been sent, one before it was not", i)
				}
				if i < 3 && notSent > 0 {
					t.Errorf("request %d was read by the broker: %v", i, o.err)
				}
			}
			if notSent == 0 {
				t.Error("all requests may have been sent, the last cannot have been")
			}

			// Afterwards: at once, in order, never on the caller's stack.
			var mu sync.Mutex
			mu.Lock()
			late := make(chan outcome, 100)
			for i := range 100 {
				c.Produce(&ProduceRequest{Done: func(_ *ProduceRequest, err error) {
					mu.Lock()
					defer mu.Unlock()
					late <- outcome{i, err}
				}})
			}
			mu.Unlock()
			for i := range 100 {
				if o := <-late; o.i != i || !errors.Is(o.err, ErrNotSent) {
					t.Fatalf("late outcome %d is of request %d: %v", i, o.i, o.err)
				}
			}
			if _, err := c.Request(t.Context(), kmsg.NewPtrMetadataRequest()); !errors.Is(err, ErrNotSent) {
				t.Errorf("request after the end: %v", err)
			}
			c.Wait()
		})
	}
}

func TestCloseFromDone(t *testing.T) {
	fake := newFake(t, kfake.SeedTopics(1, "orders"))
	c := connectTo(t, Config{Addr: fake.ListenAddrs()[0]})
	var calls atomic.Int32
	for range 10 {
		c.Go(kmsg.NewPtrMetadataRequest(), func(_ kmsg.Response, err error) {
			if calls.Add(1) == 1 {
				c.Close()
			} else if !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
	c.Wait()
	if calls.Load() != 10 || !errors.Is(c.Err(), ErrClosed) {
		t.Errorf("%d calls answered, error %v", calls.Load(), c.Err())
	}
}

func TestBrokenAnswersEndTheConnectionAndNameWhatBroke(t *testing.T) {
	frame := func(size, corr int32, body ...byte) []byte {
		return append(appendInt32(appendInt32(nil, size), corr), body...)
	}
	for name, tc := range map[string]struct {
		answer func(corr int32) []byte
		want   string
	}{
		"other correlation": {func(corr int32) []byte { return frame(4, corr+1) }, "correlation id"},
		"negative size":     {func(corr int32) []byte { return frame(-1, corr) }, "size -1"},
		"tiny size":         {func(corr int32) []byte { return frame(3, corr) }, "size 3"},
		"huge size":         {func(corr int32) []byte { return frame(1<<30, corr) }, "size 1073741824"},
		"empty body":        {func(corr int32) []byte { return frame(4, corr) }, "malformed"},
		"cut off":           {func(corr int32) []byte { return frame(100, corr, 0, 0, 0) }, "closed the connection"},
		"http":              {func(int32) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, "correlation id"},
		"nothing":           {func(int32) []byte { return nil }, "closed the connection"},
		"lying array":       {func(corr int32) []byte { return frame(4+6, corr, 0, 0xff, 0xff, 0xff, 0xff, 0x0f) }, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			dial := pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
				w.Write(tc.answer(corr))
				return io.EOF
			})
			check := func(api string, err error) {
				t.Helper()
				var ce *ConnError
				if !errors.As(err, &ce) || ce.Broker != 7 || ce.Addr != "broker.test:9092" {
					t.Fatalf("error does not name the broker: %v", err)
				}
				if !strings.Contains(err.Error(), api) || !strings.Contains(err.Error(), tc.want) && name != "empty body" && name != "lying array" {
					t.Errorf("error %q names no %q or %q", err, api, tc.want)
				}
				if errors.Is(err, ErrNotSent) {
					t.Errorf("was sent: %v", err)
				}
			}
			c := connectTo(t, Config{Dial: dial})
			check("Produce", produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: []byte{1}}}}))
			c = connectTo(t, Config{Dial: dial})
			s := NewFetchSession()
			s.Set("orders", [16]byte{1}, 3, FetchPosition{})
			_, err := c.Fetch(t.Context(), s, FetchOptions{})
			check("Fetch", err)
			c = connectTo(t, Config{Dial: dial})
			_, err = c.Request(t.Context(), kmsg.NewPtrMetadataRequest())
			check("Metadata", err)
		})
	}
}

func TestAnswerNobodyAskedFor(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		servePeerOnce(far)
		far.Write(make([]byte, 64))
	}()
	c := connectTo(t, Config{Dial: func(context.Context, string) (net.Conn, error) { return near, nil }})
	<-c.Done()
	if err := c.Err(); !strings.Contains(err.Error(), "no request is unanswered") {
		t.Error(err)
	}
}

// servePeerOnce answers ApiVersions: no API.
func servePeerOnce(nc net.Conn) {
	corr, req, err := readPeerRequest(nc)
	if err == nil {
		writePeerAnswer(nc, corr, req.ResponseKind())
	}
}

// servePeerOnceAs answers ApiVersions with a newest version of Produce.
func servePeerOnceAs(nc net.Conn, produce int16) {
	corr, req, err := readPeerRequest(nc)
	if err == nil {
		resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
		resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 0, MaxVersion: produce}}
		writePeerAnswer(nc, corr, resp)
	}
}

// Whatever a broker sends: no panic, and every call is answered exactly once,
// in order.
func FuzzAnswerStream(f *testing.F) {
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"))
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 2})
	produce := &kmsg.ProduceResponse{Version: 12, Topics: []kmsg.ProduceResponseTopic{{Topic: "orders", Partitions: []kmsg.ProduceResponseTopicPartition{{}}}}}
	good := appendPeerAnswer(nil, 2, produce)
	good = appendPeerAnswer(good, 3, &kmsg.MetadataResponse{Version: 12})
	good = appendPeerAnswer(good, 4, &kmsg.FetchResponse{Version: 12})
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, stream []byte) {
		near, far := net.Pipe()
		go func() {
			servePeer(&firstRequestOnly{Conn: far}, peerVersions, nil)
		}()
		c := connectTo(t, Config{MaxResponse: 1 << 16, MaxFetch: 1 << 16, Pool: NewPool(1 << 20),
			Dial: func(context.Context, string) (net.Conn, error) { return near, nil }})
		c.vers[1] = versions{0, 12}
		order := make(chan int, 10)
		c.Produce(&ProduceRequest{Parts: []ProducePart{{Topic: "orders"}}, Done: func(*ProduceRequest, error) { order <- 0 }})
		c.Go(kmsg.NewPtrMetadataRequest(), func(kmsg.Response, error) { order <- 1 })
		fetched := make(chan struct{})
		go func() {
			defer close(fetched)
			if resp, err := c.Fetch(t.Context(), NewFetchSession(), FetchOptions{}); err == nil {
				resp.Frame.Release()
			}
		}()
		go io.Copy(io.Discard, far)
		far.Write(stream)
		far.Close()
		<-fetched
		c.Wait()
		close(order)
		if a, b := <-order, <-order; a != 0 || b != 1 || len(order) != 0 {
			t.Errorf("answers %d, %d and %d more", a, b, len(order))
		}
	})
}

// firstRequestOnly stops reading, without closing, after one request.
type firstRequestOnly struct {
	net.Conn
	reads int
}

func (c *firstRequestOnly) Read(b []byte) (int, error) {
	if c.reads++; c.reads > 2 { // its size, its body
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

func (c *firstRequestOnly) Close() error { return nil }

func TestSilentBrokerIsLeftAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connectTo(t, Config{Timeout: 10 * time.Second, Dial: pipePeer(func(io.Writer, int32, kmsg.Request) error { return nil })})
		time.Sleep(time.Hour)
		start := time.Now()
		err := produced(c, &ProduceRequest{TimeoutMillis: 5000, Parts: []ProducePart{{Topic: "orders", Records: []byte{1}}}})
		if waited := time.Since(start); waited != 15*time.Second {
			t.Errorf("waited %v", waited)
		}
		if !strings.Contains(err.Error(), "silent for 15s") || errors.Is(err, ErrNotSent) {
			t.Error(err)
		}
	})
}

func TestBrokerThatDoesNotReadIsLeftAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go servePeerOnce(far)
		c := connectTo(t, Config{Dial: func(context.Context, string) (net.Conn, error) { return near, nil }})
		c.vers[0] = versions{0, 9}
		start := time.Now()
		err := produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: []byte{1}}}})
		if waited := time.Since(start); waited != 10*time.Second || !strings.Contains(err.Error(), "write Produce request") {
			t.Errorf("after %v: %v", waited, err)
		}
		far.Close()
	})
}

// An answer may take its time as long as it moves, and the next one counts
// from its end.
func TestSlowAnswerIsNotASilentBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connectTo(t, Config{Timeout: 10 * time.Second, Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
			b := appendPeerAnswer(nil, corr, req.ResponseKind())
			for i := range b {
				if _, err := w.Write(b[i : i+1]); err != nil {
					return err
				}
				if i >= 8 && i < len(b)-1 {
					time.Sleep(9 * time.Second)
				}
			}
			return nil
		})})
		for range 3 {
			if _, err := c.Request(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAbandonedRequestKeepsItsPlace(t *testing.T) {
	release := make(chan struct{})
	c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		<-release
		return writePeerAnswer(w, corr, req.ResponseKind())
	})})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.Request(ctx, kmsg.NewPtrMetadataRequest())
		first <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s := NewFetchSession()
	s.Set("orders", [16]byte{1}, 0, FetchPosition{})
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := c.Fetch(ctx, s, FetchOptions{})
		first <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(release)
	if _, err := c.Request(t.Context(), kmsg.NewPtrInitProducerIDRequest()); err != nil {
		t.Error(err)
	}
	resp, err := c.Fetch(t.Context(), s, FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	resp.Frame.Release()
}

func TestSendByRefusesBeforeTheFirstByte(t *testing.T) {
	reads := make(chan kmsg.Request, 10)
	c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		reads <- req
		return nil
	})})
	var outcomes []error
	done := make(chan struct{})
	note := func(_ *ProduceRequest, err error) {
		if outcomes = append(outcomes, err); len(outcomes) == 3 {
			close(done)
		}
	}
	part := []ProducePart{{Topic: "orders", Records: []byte{1}}}
	before := time.Now()
	first := &ProduceRequest{Parts: part, Done: note, SendBy: func() bool { return true }}
	c.Produce(first)
	c.Produce(&ProduceRequest{Parts: part, Done: note, SendBy: func() bool { return false }})
	c.Produce(&ProduceRequest{Parts: part, Done: note})
	<-done
	if errors.Is(outcomes[0], ErrNotSent) || !errors.Is(outcomes[1], ErrNotSent) || !errors.Is(outcomes[2], ErrNotSent) {
		t.Errorf("outcomes %v", outcomes)
	}
	if !errors.Is(outcomes[1], ErrSendRefused) || !errors.Is(c.Err(), ErrSendRefused) {
		t.Errorf("reason %v", outcomes[1])
	}
	if first.Sent.Before(before) || first.Sent.After(time.Now()) {
		t.Errorf("sent at %v", first.Sent)
	}
	c.Wait()
	if len(reads) > 1 {
		t.Errorf("broker read %d requests", len(reads))
	}
}

func TestThrottledConnectionWaitsBeforeItSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := int32(3000)
		var told time.Duration
		c := connectTo(t, Config{
			OnThrottle: func(d time.Duration) { told += d },
			Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
				resp := req.ResponseKind()
				if r, ok := resp.(kmsg.SetThrottleResponse); ok {
					r.SetThrottle(asked)
					asked = 0
				}
				if p, ok := req.(*kmsg.ProduceRequest); ok {
					resp = answerAll(p)
				}
				return writePeerAnswer(w, corr, resp)
			}),
		})
		start := time.Now()
		if _, err := c.Request(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("first answer after %v", waited)
		}
		r := &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: []byte{1}}}}
		if err := produced(c, r); err != nil {
			t.Fatal(err)
		}
		if waited := r.Sent.Sub(start); waited != 3*time.Second || told != waited {
			t.Errorf("waited %v, told of %v", waited, told)
		}
	})
}

// answerAll accepts what a request asks for, at offset 42.
func answerAll(req *kmsg.ProduceRequest) *kmsg.ProduceResponse {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.BaseOffset = p.Partition, 42
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func TestVersionsAreNegotiatedOrPinned(t *testing.T) {
	var got []int16
	c := connectTo(t, Config{Dial: pipePeer(func(w io.Writer, corr int32, req kmsg.Request) error {
		got = append(got, req.GetVersion())
		return writePeerAnswer(w, corr, req.ResponseKind())
	})})
	ask := func(req kmsg.Request) error {
		_, err := c.Request(t.Context(), req)
		return err
	}
	if err := ask(kmsg.NewPtrEndTxnRequest()); err != nil {
		t.Error(err)
	}
	if err := ask(Pin(kmsg.NewPtrEndTxnRequest(), 3)); err != nil {
		t.Error(err)
	}
	if len(got) != 2 || got[0] != 5 || got[1] != 3 {
		t.Errorf("versions %v", got)
	}
	for _, req := range []kmsg.Request{Pin(kmsg.NewPtrEndTxnRequest(), 6), kmsg.NewPtrAlterConfigsRequest()} {
		if err := ask(req); !errors.Is(err, kerr.UnsupportedVersion) || !errors.Is(err, ErrNotSent) || c.Err() != nil {
			t.Errorf("%v, connection %v", err, c.Err())
		}
	}
	failed := make(chan error)
	c.Go(kmsg.NewPtrAlterConfigsRequest(), func(_ kmsg.Response, err error) { failed <- err })
	if err := <-failed; !errors.Is(err, kerr.UnsupportedVersion) {
		t.Error(err)
	}
	if v, ok := c.MaxVersion(0); v != 12 || !ok {
		t.Errorf("Produce version %d, %t", v, ok)
	}
}

func TestBrokersThatRefuseTheVersionOfApiVersions(t *testing.T) {
	for newest, names := range map[int16]bool{0: false, 1: true, 2: true} {
		var asked []int16
		near, far := net.Pipe()
		go servePeer(far, nil, func(w io.Writer, corr int32, req kmsg.Request) error {
			asked = append(asked, req.GetVersion())
			resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
			if req.GetVersion() > newest {
				resp.Version, resp.ErrorCode = 0, kerr.UnsupportedVersion.Code
			}
			if req.GetVersion() <= newest || names {
				resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MaxVersion: newest}}
			}
			return writePeerAnswer(w, corr, resp)
		})
		c := connectTo(t, Config{Dial: func(context.Context, string) (net.Conn, error) { return near, nil }})
		if v, ok := c.MaxVersion(18); v != newest || !ok || len(asked) != 2 || asked[1] != newest {
			t.Errorf("newest %d: got %d, asked %v", newest, v, asked)
		}
	}
}

func TestFailedConnectNamesBrokerAndStep(t *testing.T) {
	refused := errors.New("outside the boundary")
	_, err := tryConnect(t, Config{Dial: func(context.Context, string) (net.Conn, error) { return nil, refused }})
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "dial, broker 7 at broker.test:9092") {
		t.Error(err)
	}
	if _, err := Connect(t.Context(), Config{Addr: "x:1"}); err == nil || !strings.Contains(err.Error(), "no dialer") {
		t.Error(err)
	}

	// A port that speaks something else, or nothing.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	near, far := net.Pipe()
	defer far.Close()
	go io.Copy(io.Discard, far)
	_, err = Connect(ctx, Config{Addr: "x:1", Dial: func(context.Context, string) (net.Conn, error) { return near, nil }})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "set up connection") {
		t.Error(err)
	}
	near2, far2 := net.Pipe()
	go func() {
		readPeerRequest(far2)
		far2.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
		far2.Close()
	}()
	_, err = Connect(t.Context(), Config{Addr: "x:1", Dial: func(context.Context, string) (net.Conn, error) { return near2, nil }})
	if err == nil || !strings.Contains(err.Error(), "read ApiVersions answer") || !strings.Contains(err.Error(), "correlation id") {
		t.Error(err)
	}
}

func TestAnswerBeforeTheRequestIsWritten(t *testing.T) {
	// A broker that answers after the header alone: the records are still
	// being written then, and must not be given back.
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		servePeerOnce(far)
		head := make([]byte, 12)
		io.ReadFull(far, head)
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = 3
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = "orders"
		rt.Partitions = append(rt.Partitions, kmsg.NewProduceResponseTopicPartition())
		resp.Topics = append(resp.Topics, rt)
		far.Write(appendPeerAnswer(nil, int32(binary.BigEndian.Uint32(head[8:])), resp))
		io.Copy(io.Discard, far)
	}()
	c := connectTo(t, Config{Dial: func(context.Context, string) (net.Conn, error) { return near, nil }})
	c.vers[0] = versions{0, 3}
	records := make([]byte, 1<<20)
	r := &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: records}}}
	if err := produced(c, r); err != nil {
		t.Fatal(err)
	}
	clear(records) // the race detector objects if the writer has not finished
}

// countedConn counts system calls, as far as a connection can.
type countedConn struct {
	net.Conn
	reads, writes atomic.Int32
}

func (c *countedConn) Read(p []byte) (int, error)  { c.reads.Add(1); return c.Conn.Read(p) }
func (c *countedConn) Write(p []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(p) }

// brokenConn takes some bytes of a write and fails.
type brokenConn struct {
	net.Conn
	took int
	err  error
}

func (c *brokenConn) Write([]byte) (int, error) { return c.took, c.err }

// TLS makes records of 16 KiB: a request of 1 MiB is not to be 64 writes.
func TestRecordsOfARequestAreGathered(t *testing.T) {
	server, client := selfSigned(t)
	client.ServerName = "127.0.0.1"
	var counted *countedConn
	got := make(chan int, 2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		servePeer(tls.Server(nc, server), peerVersions, func(w io.Writer, corr int32, req kmsg.Request) error {
			p := req.(*kmsg.ProduceRequest)
			got <- len(p.Topics[0].Partitions[0].Records)
			return writePeerAnswer(w, corr, answerAll(p))
		})
	}()
	c := connectTo(t, Config{Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		nc, err := dialTCP(ctx, l.Addr().String())
		if err != nil {
			return nil, err
		}
		counted = &countedConn{Conn: nc}
		return tls.Client(NewGather(counted), client), nil
	}})
	before := counted.writes.Load()
	batch := make([]byte, 1<<20)
	copy(batch, peerBatch(1, 0, 0, "x"))
	for range 2 { // the second has buffers already
		if err := produced(c, &ProduceRequest{Parts: []ProducePart{{Topic: "orders", Records: batch}}}); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != len(batch) {
			t.Fatalf("%d bytes arrived of %d", n, len(batch))
		}
	}
	if n := counted.writes.Load() - before; n > 24 {
		t.Errorf("%d writes for two requests of 1 MiB", n)
	}
	broken := errors.New("broken")
	g := NewGather(&brokenConn{took: 3, err: broken})
	g.Hold()
	if n, err := g.Write([]byte("seven b")); n != 7 || err != nil {
		t.Errorf("held %d, %v", n, err)
	}
	if left, err := g.Flush(); left != 4 || !errors.Is(err, broken) {
		t.Errorf("%d left, %v", left, err)
	}
}
