package offsets

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const journalTopic = "replicator.east.west.journal"

// fakeCluster is a cluster and the clients a journal needs.
type fakeCluster struct {
	t       testing.TB
	cluster *kfake.Cluster
	opts    []kgo.Opt
	client  *kgo.Client
	admin   *kadm.Client
}

func newFakeCluster(t testing.TB, opts ...kfake.Opt) *fakeCluster {
	t.Helper()
	f := &fakeCluster{t: t}
	network := newPipeNetwork()
	f.cluster = kfake.MustCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.ListenFn(network.listen)}, opts...)...)
	f.opts = []kgo.Opt{kgo.SeedBrokers(f.cluster.ListenAddrs()...), kgo.Dialer(network.dial), kgo.MetadataMinAge(50 * time.Millisecond)}
	client, err := kgo.NewClient(f.opts...)
	if err != nil {
		t.Fatal(err)
	}
	f.client, f.admin = client, kadm.NewClient(client)
	return f
}

func (f *fakeCluster) close() {
	f.client.Close()
	f.cluster.Close()
}

func (f *fakeCluster) config() JournalConfig {
	return JournalConfig{
		Client:     func(opts ...kgo.Opt) (*kgo.Client, error) { return kgo.NewClient(append(opts, f.opts...)...) },
		Admin:      f.admin,
		Topic:      journalTopic,
		Partitions: 4,
	}
}

func (f *fakeCluster) open() *Journal {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	j, err := OpenJournal(ctx, f.config())
	if err != nil {
		f.t.Fatal(err)
	}
	return j
}

// pipeNetwork is a network in memory, so that time can stand still while nothing happens.
type pipeNetwork struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
}

type pipeListener struct {
	addr   *net.TCPAddr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeNetwork() *pipeNetwork { return &pipeNetwork{listeners: map[string]*pipeListener{}} }

func (n *pipeNetwork) listen(string, string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &pipeListener{
		addr:  &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9092 + len(n.listeners)},
		conns: make(chan net.Conn), closed: make(chan struct{}),
	}
	n.listeners[l.addr.String()] = l
	return l, nil
}

func (n *pipeNetwork) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: nobody listens", addr)
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return l.addr }

func write(t testing.TB, j *Journal, entries ...Entry) {
	t.Helper()
	done := make(chan error, 1)
	j.Append(func(err error) { done <- err }, entries...)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestJournalTellsTheNextDaemonWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		first := f.open()
		defer first.Close()
		second := f.open()
		defer second.Close()

		var lanes []Lane
		var entries []Entry
		for p := range int32(50) {
			l := Lane{"orders", p}
			lanes = append(lanes, l)
			entries = append(entries,
				EpochRecord{Lane: l, Writer: Writer{int64(p), 1}, Ordinal: 10, Source: 20, Target: 12},
				Spans{Lane: l, Writer: Writer{int64(p), 1}, Runs: []Span{{15, 100}, {16, 200}}},
				Position{Lane: l, Writer: Writer{int64(p), 1}, Ordinal: 17, Source: 201, Target: 19})
		}
		write(t, first, entries...)

		begun := time.Now()
		if err := second.Sync(t.Context(), lanes); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 50*time.Millisecond {
			t.Errorf("Sync of a running reader took %v", took)
		}
		third := f.open() // reads from the start
		defer third.Close()
		for _, j := range []*Journal{second, third} {
			if got := j.Lanes(); len(got) != len(lanes) {
				t.Fatalf("%d lanes, want %d", len(got), len(lanes))
			}
			for _, l := range lanes {
				s := j.State(l)
				if p, ok := s.TargetOf(200); !ok || p != (Point{16, 200, 18}) {
					t.Errorf("%v: source offset 200: %v %v", l, p, ok)
				}
				if pos, ok := s.Position(); !ok || pos.Source != 201 {
					t.Errorf("%v: position %v %v", l, pos, ok)
				}
			}
		}
		if n := len(third.Warnings()); n > 1 {
			t.Errorf("a journal just made has warnings: %v", third.Warnings())
		}
	})
}

// A cluster names the leaders of a topic it has just made before they know of it.
func TestAJournalWaitsForItsLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		refused := 0
		f.cluster.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			f.cluster.KeepControl()
			if refused == 3 {
				return nil, nil, false
			}
			refused++
			resp := kreq.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, rt := range kreq.(*kmsg.ListOffsetsRequest).Topics {
				st := kmsg.NewListOffsetsResponseTopic()
				st.Topic = rt.Topic
				for _, rp := range rt.Partitions {
					sp := kmsg.NewListOffsetsResponseTopicPartition()
					sp.Partition, sp.ErrorCode = rp.Partition, kerr.NotLeaderForPartition.Code
					st.Partitions = append(st.Partitions, sp)
				}
				resp.Topics = append(resp.Topics, st)
			}
			return resp, nil, true
		})
		f.open().Close()
		if refused != 3 {
			t.Errorf("refused %d times", refused)
		}
	})
}

func TestSyncWaitsForNobodyWhenNothingIsToBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		write(t, j, Generation{Lane: someLane, Number: 1})
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for range 20 {
			if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took > 5*time.Millisecond {
			t.Errorf("20 idle Syncs took %v", took)
		}
	})
}

// An end made only of records that are no longer there, or that no reader is given, must not hold
// up who opens a lane.
func TestSyncPassesAnEndWithoutRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		write(t, j, Generation{Lane: someLane, Number: 1})
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		// A control record at the end: a transaction with nothing but its marker.
		txn, err := kgo.NewClient(append(f.opts, kgo.TransactionalID("t"))...)
		if err != nil {
			t.Fatal(err)
		}
		defer txn.Close()
		id, epoch, err := txn.ProducerID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		add := kmsg.NewPtrAddPartitionsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch = "t", id, epoch
		at := kmsg.NewAddPartitionsToTxnRequestTopic()
		at.Topic, at.Partitions = journalTopic, []int32{j.Partition(someLane)}
		add.Topics = append(add.Topics, at)
		coordinator := txn.Broker(int(f.cluster.CoordinatorFor("t")))
		if _, err := coordinator.Request(t.Context(), kgoPin{add, 3}); err != nil {
			t.Fatal(err)
		}
		end := kmsg.NewPtrEndTxnRequest()
		end.TransactionalID, end.ProducerID, end.ProducerEpoch = "t", id, epoch
		if _, err := coordinator.Request(t.Context(), kgoPin{end, 3}); err != nil {
			t.Fatal(err)
		}
		ends, err := f.admin.ListEndOffsets(t.Context(), journalTopic)
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := ends.Lookup(journalTopic, j.Partition(someLane)); o.Offset != 2 {
			t.Fatalf("the journal ends at %d, want an entry and a control record", o.Offset)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := j.Sync(ctx, []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		again := f.open()
		again.Close()
	})
}

// kgoPin holds a request at a version.
type kgoPin struct {
	kmsg.Request
	version int16
}

func (p kgoPin) MaxVersion() int16 { return p.version }

func TestADamagedEntryStopsTheReaderByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		key, value := EncodeEntry(EpochRecord{Lane: someLane, Writer: someWriter})
		value[0] = 2
		r := &kgo.Record{Topic: journalTopic, Partition: j.Partition(someLane), Key: key, Value: value}
		p, err := kgo.NewClient(append(f.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		<-j.Done()
		var newer *VersionError
		if err := j.Err(); !errors.As(err, &newer) || newer.Topic != journalTopic || newer.Kind != KindEpoch || newer.Version != 2 {
			t.Errorf("Err: %v", err)
		}
		if err := j.Sync(t.Context(), []Lane{someLane}); !errors.As(err, &newer) {
			t.Errorf("Sync: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if again, err := OpenJournal(ctx, f.config()); !errors.As(err, &newer) {
			t.Errorf("open: %v", err)
			if again != nil {
				again.Close()
			}
		}
		// Lanes that are open are not stopped by another lane's entry.
		write(t, j, Position{Lane: Lane{"other", 1}, Writer: someWriter})
	})
}

func TestAnImpossibleEntryIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		var got error
		calls := 0
		j.Append(func(err error) { got = err; calls++ }, Spans{Lane: someLane, Writer: someWriter, Runs: []Span{{5, 9}, {6, 9}}})
		if got == nil || calls != 1 || !strings.Contains(got.Error(), "orders-3") {
			t.Errorf("%d answers, the last: %v", calls, got)
		}
		j.Close()
		j.Append(func(err error) { got = err }, Generation{Lane: someLane, Number: 1})
		if !errors.Is(got, ErrClosed) {
			t.Errorf("append after close: %v", got)
		}
	})
}

func TestAFullBufferIsSaidAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		hold := make(chan struct{})
		f.cluster.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) {
			f.cluster.KeepControl()
			f.cluster.SleepControl(func() { <-hold })
			return nil, nil, false
		})
		reason := strings.Repeat("x", 30_000)
		appended, full, answered := 0, 0, make(chan error, 10_000)
		for i := range 3000 {
			refused := false
			returned := false
			j.Append(func(err error) {
				if errors.Is(err, ErrFull) && !returned {
					refused = true
					return
				}
				answered <- err
			}, Gap{Lane: someLane, Writer: someWriter, From: int64(i), To: int64(i) + 1, Reason: reason})
			if refused {
				full++
				break
			}
			appended++
		}
		close(hold)
		if full == 0 {
			t.Errorf("%d appends of %d bytes each were taken", appended, len(reason))
		}
		for range appended {
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		if got := len(j.State(someLane).Gaps()); got != 0 {
			t.Errorf("%d gaps of a writer without an epoch record count", got)
		}
	})
}

func TestAnAppendThatNobodyAnswersFailsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		release := make(chan struct{})
		f.cluster.ControlKey(0, func(kmsg.Request) (kmsg.Response, error, bool) {
			f.cluster.KeepControl()
			f.cluster.SleepControl(func() { <-release })
			return nil, nil, false
		})
		begun := time.Now()
		done := make(chan error, 1)
		j.Append(func(err error) { done <- err }, Generation{Lane: someLane, Number: 1})
		err := <-done
		took := time.Since(begun)
		close(release)
		if err == nil || took > 25*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		t.Logf("after %v: %v", took, err)
	})
}

func TestATopicThatDeletesFactsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		policy := "delete"
		if _, err := f.admin.CreateTopic(t.Context(), 4, 3, map[string]*string{"cleanup.policy": &policy}, journalTopic); err != nil {
			t.Fatal(err)
		}
		_, err := OpenJournal(t.Context(), f.config())
		var refused *TopicError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "compact") {
			t.Errorf("open: %v", err)
		}
	})
}

func TestSettingsThatAreLessSafeAreWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		policy := "compact"
		if _, err := f.admin.CreateTopic(t.Context(), 4, 1, map[string]*string{"cleanup.policy": &policy}, journalTopic); err != nil {
			t.Fatal(err)
		}
		j := f.open()
		defer j.Close()
		if w := j.Warnings(); len(w) != 1 || !strings.Contains(w[0], "replication factor is 1") {
			t.Errorf("warnings: %q", w)
		}
	})
}

func TestAJournalThatIsGoneIsNoticed(t *testing.T) {
	for name, change := range map[string]func(*fakeCluster){
		"deleted": func(f *fakeCluster) {
			if _, err := f.admin.DeleteTopic(f.t.Context(), journalTopic); err != nil {
				f.t.Fatal(err)
			}
		},
		"made anew": func(f *fakeCluster) {
			if _, err := f.admin.DeleteTopic(f.t.Context(), journalTopic); err != nil {
				f.t.Fatal(err)
			}
			policy := "compact"
			if _, err := f.admin.CreateTopic(f.t.Context(), 4, 3, map[string]*string{"cleanup.policy": &policy}, journalTopic); err != nil {
				f.t.Fatal(err)
			}
		},
		"grown": func(f *fakeCluster) {
			if _, err := f.admin.CreatePartitions(f.t.Context(), 1, journalTopic); err != nil {
				f.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeCluster(t)
				defer f.close()
				j := f.open()
				defer j.Close()
				write(t, j, Generation{Lane: someLane, Number: 1})
				if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
					t.Fatal(err)
				}
				change(f)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err := j.Sync(ctx, []Lane{someLane})
				var gone *TopicError
				if !errors.As(err, &gone) || !errors.As(j.Err(), &gone) {
					t.Errorf("Sync: %v, Err: %v", err, j.Err())
				}
				t.Log(err)
			})
		})
	}
}

func TestAJournalThatWasCutIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		write(t, j, Generation{Lane: someLane, Number: 1})
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		f.cluster.ControlKey(2, func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			resp := kreq.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, rt := range kreq.(*kmsg.ListOffsetsRequest).Topics {
				st := kmsg.NewListOffsetsResponseTopic()
				st.Topic = rt.Topic
				for _, rp := range rt.Partitions {
					sp := kmsg.NewListOffsetsResponseTopicPartition()
					sp.Partition, sp.Offset = rp.Partition, 0
					st.Partitions = append(st.Partitions, sp)
				}
				resp.Topics = append(resp.Topics, st)
			}
			return resp, nil, true
		})
		var gone *TopicError
		if err := j.Sync(t.Context(), []Lane{someLane}); !errors.As(err, &gone) || !errors.As(j.Err(), &gone) {
			t.Errorf("Sync: %v, Err: %v", err, j.Err())
		}
		var got error
		j.Append(func(err error) { got = err }, Generation{Lane: someLane, Number: 2})
		if !errors.As(got, &gone) {
			t.Errorf("append: %v", got)
		}
	})
}

func TestAnEntryInTheWrongPartitionIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		// As after another number of partitions.
		key, value := EncodeEntry(Generation{Lane: someLane, Number: 1})
		r := &kgo.Record{Topic: journalTopic, Partition: (j.Partition(someLane) + 1) % 4, Key: key, Value: value}
		p, err := kgo.NewClient(append(f.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		<-j.Done()
		var wrong *TopicError
		if err := j.Err(); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "orders-3") {
			t.Errorf("Err: %v", err)
		}
	})
}

func TestManySpansOfAChunkAreCutIntoSeveralEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		b := NewSpanBuilder(someLane, someWriter, 0, 0)
		for i := range int64(200_000) {
			b.Add(2*i+1, 1)
		}
		spans, _ := b.Take()
		write(t, j, EpochRecord{Lane: someLane, Writer: someWriter, Target: 1}, spans)
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		for o := range int64(200_000) {
			if p, ok := j.State(someLane).At(o); !ok || p != (Point{o, 2*o + 1, o + 1}) {
				t.Fatalf("ordinal %d: %v %v", o, p, ok)
			}
		}
	})
}

func TestTheBrokersCompactionLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		j := f.open()
		defer j.Close()
		w := Writer{1, 1}
		write(t, j, EpochRecord{Lane: someLane, Writer: w})
		for i := range int64(200) {
			write(t, j, Spans{Lane: someLane, Writer: w, Runs: []Span{{i + 1, 2*i + 2}}}, Position{Lane: someLane, Writer: w, Ordinal: i + 2})
		}
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		toWrite, toRemove := j.Compacted(someLane, 0)
		if len(toWrite) == 0 || len(toRemove) < 200 {
			t.Fatalf("housekeeping writes %d and removes %d entries", len(toWrite), len(toRemove))
		}
		write(t, j, toWrite...)
		write(t, j, toRemove...)
		f.cluster.Compact()
		again := f.open()
		defer again.Close()
		if err := j.Sync(t.Context(), []Lane{someLane}); err != nil {
			t.Fatal(err)
		}
		for o := range int64(200) {
			a, _ := j.State(someLane).At(o)
			b, _ := again.State(someLane).At(o)
			if want := (Point{o, 2 * o, o}); a != want || b != want {
				t.Fatalf("ordinal %d: %v before, %v after, want %v", o, a, b, want)
			}
		}
		if p, ok := again.State(someLane).Position(); !ok || p.Ordinal != 201 {
			t.Errorf("position: %v %v", p, ok)
		}
	})
}

func TestWhereALaneLivesInTheJournalNeverChanges(t *testing.T) {
	for l, want := range map[Lane]int32{{"orders", 0}: 308, {"orders", 1}: 519, {"payments", 7}: 887} {
		if got := partitionOf(l, 1000); got != want {
			t.Errorf("%v is in partition %d of 1000, was %d", l, got, want)
		}
		h := fnv.New64a()
		h.Write(binary.BigEndian.AppendUint32([]byte(l.Topic), uint32(l.Partition)))
		if want := int32(h.Sum64() % 1000); partitionOf(l, 1000) != want {
			t.Errorf("%v: not the hash that is documented", l)
		}
	}
}

// fillJournal writes a journal of many lanes with three entries each.
func fillJournal(t testing.TB, f *fakeCluster, lanes int32) {
	j := f.open()
	defer j.Close()
	var entries []Entry
	for p := range lanes {
		l := Lane{"orders", p}
		entries = append(entries,
			EpochRecord{Lane: l, Writer: Writer{int64(p), 1}, Target: 1},
			Spans{Lane: l, Writer: Writer{int64(p), 1}, Runs: []Span{{15, 100}, {16, 200}}},
			Position{Lane: l, Writer: Writer{int64(p), 1}})
	}
	write(t, j, entries...)
}

// BenchmarkOpenJournal opens a journal of 10,000 lanes with three entries each.
func BenchmarkOpenJournal(b *testing.B) {
	f := newFakeCluster(b)
	defer f.close()
	fillJournal(b, f, 10_000)
	for b.Loop() {
		j, err := f.openToRead()
		if err != nil {
			b.Fatal(err)
		}
		if n := len(j.Lanes()); n != 10_000 {
			b.Fatalf("%d lanes", n)
		}
		j.Close()
	}
}

// A record is sent when its span is acknowledged, so whoever asks then must find the span,
// however late the reader is.
func TestFactsShowBeforeTheReaderHasCome(t *testing.T) {
	f := newFakeCluster(t)
	defer f.close()
	j := f.open()
	defer j.Close()
	f.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		return nil, errors.New("nothing is read"), true
	})
	w := Writer{ProducerID: 7, Epoch: 1}
	lane := Lane{Topic: "orders", Partition: 3}
	acked := make(chan LaneState, 1)
	j.Append(func(err error) {
		if err != nil {
			t.Error(err)
		}
		acked <- j.State(lane)
	}, EpochRecord{Lane: lane, Writer: w, Source: 100, Target: 10}, Spans{Lane: lane, Writer: w, Runs: []Span{{Ordinal: 5, Source: 200}}})
	s := <-acked
	if p, ok := s.At(6); !ok || p.Source != 201 || p.Target != 16 {
		t.Errorf("ordinal 6 is %+v, %v; want source offset 201, target offset 16", p, ok)
	}
}
