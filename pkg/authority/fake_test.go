package authority

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"replicator/internal/overquota"
	"replicator/internal/testlog"
	"replicator/pkg/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a cluster that stands for a real one where only the meaning of requests
// matters.
type fake struct {
	*kfake.Cluster
	t   *testing.T
	cfg Config
}

func startFake(t *testing.T, opts ...kfake.Opt) *fake {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = k.ListenAddrs()
	cfg.Timeouts.Retry = 2 * time.Second
	c, err := cluster.Open(t.Context(), "west", cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &fake{k, t, Config{Cluster: c, Pair: pair, Log: testlog.New(t)}}
}

func (f *fake) change() *Changer {
	f.t.Helper()
	c, err := Change(f.t.Context(), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

func (f *fake) set(c *Changer, epoch int64, region string) {
	f.t.Helper()
	if err := c.Set(f.t.Context(), Record{Epoch: epoch, Region: region, Verb: "switchover", By: "ann"}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) read() State {
	f.t.Helper()
	s, err := Read(f.t.Context(), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// byHand writes a record as an operator with a producer would.
func (f *fake) byHand(key string, value []byte) int64 {
	f.t.Helper()
	cl, err := f.cfg.Cluster.NewClient()
	if err != nil {
		f.t.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.ProduceSync(f.t.Context(), &kgo.Record{Topic: DefaultTopic, Key: []byte(key), Value: value}).First()
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Offset
}

func (f *fake) watch() *Watcher {
	f.t.Helper()
	w := Watch(f.cfg)
	ctx, cancel := context.WithCancel(f.t.Context())
	var done sync.WaitGroup
	done.Go(func() { w.Run(ctx) })
	f.t.Cleanup(func() { cancel(); done.Wait() })
	return w
}

// until waits for what a watcher has to know.
func until(t *testing.T, w *Watcher, atMost time.Duration, what string, ok func(Knowledge) bool) {
	t.Helper()
	end := time.NewTimer(atMost)
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond) // errors that change nothing are not announced
	defer look.Stop()
	for !ok(w.Knowledge()) {
		select {
		case <-w.Changed():
		case <-look.C:
		case <-end.C:
			t.Fatalf("not within %v: %s; known is %+v", atMost, what, w.Knowledge())
		}
	}
}

func TestWhatIsSetIsRead(t *testing.T) {
	f := startFake(t)
	if s := f.read(); !s.Missing || len(s.Records) != 0 {
		t.Fatalf("before anything: %+v", s)
	}
	c := f.change()
	if s := f.read(); s.Missing || len(s.Records) != 0 {
		t.Fatalf("with nothing in the topic: %+v", s)
	}
	f.set(c, 1, "east")
	f.set(c, 2, "west")
	if err := c.Ready(t.Context(), Ready{From: "west", To: "east", Epoch: 2, Run: "r"}); err != nil {
		t.Fatal(err)
	}
	s := f.read()
	if s.Epoch() != 2 || s.Region("") != "west" || len(s.Records) != 2 || s.Records[0].Region != "east" || s.Records[1].Since.IsZero() || s.Ready["west->east"].Run != "r" {
		t.Errorf("read %+v", s)
	}
	if !s.equal(c.State()) {
		t.Errorf("the changer believes %+v, the topic says %+v", c.State(), s)
	}
	if again := f.change(); !again.State().equal(s) {
		t.Errorf("the next changer reads %+v", again.State())
	}
}

func TestAnEpochIsGivenOnceAndInOrder(t *testing.T) {
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	for _, wrong := range []int64{0, 1, 3, -1} {
		err := c.Set(t.Context(), Record{Epoch: wrong, Region: "west"})
		if e, ok := errors.AsType[*EpochError](err); !ok || e.Current != 1 || e.Region != "east" || e.WrittenBy != "ann" {
			t.Errorf("epoch %d: %v", wrong, err)
		}
	}
	if err := c.Set(t.Context(), Record{Epoch: 2, Region: "north"}); err == nil {
		t.Error("a region that is none of the pair was set")
	}
	if err := c.Set(t.Context(), Record{Epoch: 5, Region: "west"}, AllowGap()); err != nil {
		t.Error(err)
	}
	if err := c.Set(t.Context(), Record{Epoch: 4, Region: "east"}, AllowGap()); err == nil {
		t.Error("an epoch below the present one was set")
	}
	for _, r := range []Ready{{From: "east", To: "west", Epoch: 5}, {From: "west", To: "east", Epoch: 4}, {From: "west", To: "north", Epoch: 5}, {From: "west", To: "west", Epoch: 5}, {From: "west", Epoch: 5}} {
		if err := c.Ready(t.Context(), r); err == nil {
			t.Errorf("ready %+v was set under epoch 5 of west", r)
		}
	}
	if s := f.read(); s.Epoch() != 5 || len(s.Records) != 2 || len(s.Ready) != 0 {
		t.Errorf("read %+v", s)
	}
}

func TestALaterChangerFencesAnEarlierOne(t *testing.T) {
	f := startFake(t)
	first := f.change()
	f.set(first, 1, "east")
	second := f.change()
	for range 2 { // and it stays fenced
		err := first.Set(t.Context(), Record{Epoch: 2, Region: "west"})
		if _, ok := errors.AsType[*FencedError](err); !ok {
			t.Fatalf("a fenced changer is told %v", err)
		}
	}
	if err := first.Audit(t.Context(), "run", []byte("x")); err == nil {
		t.Error("a fenced changer wrote an audit event")
	}
	f.set(second, 2, "west")
	if s := f.read(); s.Epoch() != 2 || len(s.Records) != 2 {
		t.Errorf("read %+v", s)
	}
}

// A role excludes its like, disturbs nobody who changes the authority, and cannot.
func TestARoleDisturbsNoChangerAndChangesNothing(t *testing.T) {
	f := startFake(t)
	changer := f.change()
	f.set(changer, 1, "east")
	cfg := f.cfg
	cfg.Role = DrillRole
	as := func() *Changer {
		c, err := Change(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	first := as()
	ended := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if err := first.Put(t.Context(), DrillRole, "drill-1", Drill{Run: "drill-1", Ended: ended, Success: true}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"set":   first.Set(t.Context(), Record{Epoch: 2, Region: "west"}),
		"copy":  first.Copy(t.Context(), []Record{{Pair: pair.String(), Epoch: 1, Region: "east"}, {Pair: pair.String(), Epoch: 2, Region: "west"}}),
		"ready": first.Ready(t.Context(), Ready{From: "east", To: "west", Epoch: 1}),
	} {
		if err == nil || !strings.Contains(err.Error(), "the role drill gives no right to") {
			t.Errorf("%s: %v", what, err)
		}
	}
	second := as()
	err := first.Audit(t.Context(), "drill-1", []byte("x"))
	if _, ok := errors.AsType[*FencedError](err); !ok || !strings.Contains(err.Error(), "another drill took over") {
		t.Errorf("a drill that another took over from is told %v", err)
	}
	if d, ok := second.State().Drill(); !ok || !d.Success || !d.Ended.Equal(ended) {
		t.Errorf("the second drill reads %+v", d)
	}
	f.set(changer, 2, "west") // it has its right still
	if s := f.read(); s.Epoch() != 2 || len(s.Ready) != 0 {
		t.Errorf("read %+v", s)
	}
}

func TestADrillThatIsNotUnderstoodIsNone(t *testing.T) {
	for _, data := range []string{"", "null", "[]", `{"ended": 5}`, `{"run":"x"}`} {
		if d, ok := (State{Facts: map[string]Fact{DrillRole: {Data: []byte(data)}}}).Drill(); ok {
			t.Errorf("%s is read as %+v", data, d)
		}
	}
	if _, ok := (State{}).Drill(); ok {
		t.Error("nothing is read as a drill")
	}
}

func TestWhatWasNotCommittedIsNotSeen(t *testing.T) {
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	dead, err := f.cfg.Cluster.NewClient(kgo.TransactionalID(pair.TransactionalID()), kgo.DefaultProduceTopic(DefaultTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if err := dead.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	value, err := encodeRecord(rec(2, "west"))
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.ProduceSync(t.Context(), kgo.KeySliceRecord([]byte(recordKey(pair, 2)), value)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if s := f.read(); s.Epoch() != 1 {
		t.Errorf("an open transaction is read: %+v", s)
	}
	next := f.change()
	if next.State().Epoch() != 1 {
		t.Errorf("an aborted transaction is read: %+v", next.State())
	}
	f.set(next, 2, "east")
	if s := f.read(); s.Region("") != "east" || len(s.Conflicts) != 0 {
		t.Errorf("read %+v", s)
	}
}

// A commit that is refused, or whose answer is an error, is no success: what can be
// read afterwards says which it was.
func TestACommitThatFailsIsToldAsWhatItWas(t *testing.T) {
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	f.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		end := req.(*kmsg.EndTxnRequest)
		if !end.Commit {
			f.KeepControl()
			return nil, nil, false
		}
		resp := end.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return resp, nil, true
	})
	begun := time.Now()
	err := c.Set(t.Context(), Record{Epoch: 2, Region: "west"})
	if _, unknown := errors.AsType[*UnknownError](err); err == nil || unknown || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("told %v after %v", err, time.Since(begun))
	}
	if s := f.read(); s.Epoch() != 1 {
		t.Errorf("read %+v", s)
	}
	if err := c.Set(t.Context(), Record{Epoch: 2, Region: "west"}); err == nil {
		t.Error("a changer whose write failed writes on")
	}
	f.set(f.change(), 2, "west")
}

// The partition goes away between the commit and the look at it: then it is not
// known, and said so.
func TestACommitThatCannotBeLookedAtIsUnknown(t *testing.T) {
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	f.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
			f.KeepControl()
			resp := refuseMetadata(req)
			return resp, nil, resp != nil
		})
		return nil, nil, false
	})
	err := c.Set(t.Context(), Record{Epoch: 2, Region: "west"})
	if _, unknown := errors.AsType[*UnknownError](err); !unknown {
		t.Errorf("told %v", err)
	}
}

// Writers are kept off while a cutover writes: that a cluster does not come to answer is an
// error in the end, and not for as long as the command may take.
func TestAChangeOfAClusterThatDiesInPartEnds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until a write is given up, 15 s")
	}
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	f.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		resp, asked := refuseMetadata(req).(*kmsg.MetadataResponse)
		if !asked {
			return nil, nil, false
		}
		resp.Topics[0].ErrorCode = kerr.LeaderNotAvailable.Code
		return resp, nil, true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*writeTime)
	defer cancel()
	err := c.Set(ctx, Record{Epoch: 2, Region: "west"})
	if _, unknown := errors.AsType[*UnknownError](err); err == nil || unknown || ctx.Err() != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestAStaleCopyIsBroughtUpToDateAndASplitOneIsNot(t *testing.T) {
	f := startFake(t)
	c := f.change()
	other := history("east", "west", "east")
	for range 2 { // the second time there is nothing to do
		if err := c.Copy(t.Context(), other.Records); err != nil {
			t.Fatal(err)
		}
	}
	if s := f.read(); Compare(s, other).Relation != Equal || len(s.Records) != 3 || !s.Records[2].Since.Equal(other.Records[2].Since) {
		t.Errorf("read %+v", s)
	}
	f.set(c, 4, "west")
	split, ok := errors.AsType[*SplitError](c.Copy(t.Context(), history("east", "west", "east", "east", "east").Records))
	if !ok || split.Have.Region != "west" || split.Got.Region != "east" || split.Have.Epoch != 4 {
		t.Errorf("a split copy: %v", split)
	}
	if err := c.Copy(t.Context(), history("east").Records); err != nil {
		t.Errorf("an older copy: %v", err)
	}
	if s := f.read(); s.Epoch() != 4 || s.Region("") != "west" {
		t.Errorf("read %+v", s)
	}
}

func TestWhatIsNotUnderstoodAllowsNothingAndIsNamed(t *testing.T) {
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	w := f.watch()
	until(t, w, 5*time.Second, "epoch 1", func(k Knowledge) bool { return k.Known && k.State.Epoch() == 1 })
	newer := []byte(`{"version":2,"pair":"east/west","epoch":2,"region":"west"}`)
	for _, x := range []struct {
		key, says  string
		value, fix []byte
	}{
		{"east/west/epoch/2", "version 2", newer, []byte(`{"version":1,"pair":"east/west","epoch":2,"region":"west"}`)},
		{"east/west/epoch/3", "no JSON", []byte("west"), []byte(`{"version":1,"pair":"east/west","epoch":3,"region":"west"}`)},
		{"east/west/lease/3", "unknown kind", []byte("{}"), nil},
		{"promote west", "names no pair", []byte("now"), nil},
		{"east/west/epoch/3", "deleted by hand", nil, []byte(`{"version":1,"pair":"east/west","epoch":3,"region":"west"}`)},
	} {
		offset := f.byHand(x.key, x.value)
		_, err := Read(t.Context(), f.cfg)
		corrupt, ok := errors.AsType[*CorruptError](err)
		if !ok || corrupt.Offset != offset || corrupt.Key != x.key || corrupt.Cluster != "west" || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want offset %d and %q", x.key, err, offset, x.says)
		}
		if _, err := w.Sync(t.Context()); err == nil {
			t.Errorf("%s: Sync is content", x.key)
		}
		until(t, w, 5*time.Second, "nothing is known", func(k Knowledge) bool { return !k.Known && k.Err != nil })
		if ok, why := (&LinkAuthority{w, "east", "west", "east"}).Allowed(); ok || !strings.Contains(why, x.says) {
			t.Errorf("%s: a link may append: %v, %s", x.key, ok, why)
		}
		if err := c.Set(t.Context(), Record{Epoch: 9, Region: "west"}, AllowGap()); err == nil {
			t.Errorf("%s: written over a copy that is not understood", x.key)
		}
		f.byHand(x.key, x.fix)
		until(t, w, 5*time.Second, "known again", func(k Knowledge) bool { return k.Known && k.Err == nil })
	}
	if _, err := Read(t.Context(), f.cfg); err != nil {
		t.Error(err)
	}
}

func TestAnotherPairsRecordsDoNoHarm(t *testing.T) {
	f := startFake(t)
	f.set(f.change(), 1, "east")
	f.byHand("north/west/epoch/1", []byte("garbage"))
	f.byHand("north/west/lease/1", []byte(`{}`))
	theirs := f.cfg
	theirs.Pair = PairOf("west", "south")
	c, err := Change(t.Context(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Set(t.Context(), Record{Epoch: 1, Region: "south"}); err != nil {
		t.Fatal(err)
	}
	if s := f.read(); s.Epoch() != 1 || s.Region("") != "east" {
		t.Errorf("read %+v", s)
	}
	if s, err := Read(t.Context(), theirs); err != nil || s.Region("") != "south" {
		t.Errorf("read %+v, %v", s, err)
	}
}

func TestOneEpochForTwoRegionsHoldsTheLink(t *testing.T) {
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")
	if err := c.Ready(t.Context(), Ready{From: "east", To: "west", Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	same := []byte(`{"version":1,"pair":"east/west","epoch":1,"region":"east","why":"said again"}`)
	f.byHand("east/west/epoch/1", same)
	if ok, why := f.read().MayAppend("east", "west"); !ok {
		t.Errorf("the same again holds the link: %s", why)
	}
	f.byHand("east/west/epoch/1", []byte(`{"version":1,"pair":"east/west","epoch":1,"region":"west"}`))
	f.byHand("east/west/epoch/1", same)
	s := f.read()
	if ok, _ := s.MayAppend("east", "west"); ok || len(s.Conflicts) != 1 {
		t.Errorf("with a conflict it may append: %+v", s)
	}
	f.set(c, 2, "east")
	if err := c.Ready(t.Context(), Ready{From: "east", To: "west", Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	if ok, why := f.read().MayAppend("east", "west"); !ok {
		t.Errorf("the next epoch does not settle it: %s", why)
	}
}

func TestAWatcherSeesATopicMadeLaterAndEveryChange(t *testing.T) {
	f := startFake(t)
	w := f.watch()
	until(t, w, 5*time.Second, "the topic is missing", func(k Knowledge) bool { return k.Known && k.State.Missing })
	link := &LinkAuthority{w, "east", "west", "east"}
	if ok, _ := link.Allowed(); !ok {
		t.Error("the implied direction may not append")
	}
	if ok, _ := (&LinkAuthority{w, "west", "east", "east"}).Allowed(); ok {
		t.Error("the direction that is not implied may append")
	}
	c := f.change()
	for epoch := int64(1); epoch <= 5; epoch++ {
		changed := w.Changed()
		f.set(c, epoch, "west")
		until(t, w, 3*time.Second, fmt.Sprint("epoch ", epoch), func(k Knowledge) bool { return k.State.Epoch() == epoch })
		select {
		case <-changed:
		default:
			t.Error("a change was not announced")
		}
		if ok, why, err := link.Sync(t.Context()); ok || err != nil {
			t.Errorf("epoch %d of west: east may append: %v %s %v", epoch, ok, why, err)
		}
	}
}

func TestSyncSeesWhatWasWrittenBeforeIt(t *testing.T) {
	f := startFake(t)
	w := Watch(f.cfg) // it is not even run
	c := f.change()
	for epoch := int64(1); epoch <= 20; epoch++ {
		f.set(c, epoch, "east")
		if s, err := w.Sync(t.Context()); err != nil || s.Epoch() != epoch {
			t.Fatalf("after epoch %d: %+v, %v", epoch, s, err)
		}
	}
}

func TestACopyThatForgotAllowsNothing(t *testing.T) {
	f := startFake(t)
	f.set(f.change(), 1, "west")
	w := f.watch()
	until(t, w, 5*time.Second, "epoch 1", func(k Knowledge) bool { return k.State.Epoch() == 1 })
	if _, err := f.cfg.Cluster.Admin().DeleteTopic(t.Context(), DefaultTopic); err != nil {
		t.Fatal(err)
	}
	until(t, w, 10*time.Second, "it is lost", func(k Knowledge) bool {
		_, lost := errors.AsType[*LostError](k.Err)
		return !k.Known && lost
	})
	if _, err := w.Sync(t.Context()); err == nil {
		t.Error("Sync is content without the topic")
	}
	if ok, why := (&LinkAuthority{w, "east", "west", "east"}).Allowed(); ok {
		t.Errorf("the old direction may append again: %s", why)
	}
	f.set(f.change(), 1, "west")
	until(t, w, 10*time.Second, "known again", func(k Knowledge) bool { return k.Known && k.Err == nil && k.State.Epoch() == 1 })
}

func TestARefusalNamesTheRight(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(kmsg.Request) kmsg.Response
		does   func(*fake) error
		says   string
	}{
		{"topic hidden", refuseMetadata, func(f *fake) error { _, err := Read(f.t.Context(), f.cfg); return err },
			"grant READ on topic replicator.authority of cluster west"},
		{"topic hidden from a changer", refuseMetadata, func(f *fake) error { _, err := Change(f.t.Context(), f.cfg); return err },
			"grant READ on topic replicator.authority of cluster west"},
		{"not readable", refuseFetch, func(f *fake) error { _, err := Read(f.t.Context(), f.cfg); return err },
			"grant READ on topic replicator.authority of cluster west"},
		{"transactional id", refuseProducerID, func(f *fake) error { _, err := Change(f.t.Context(), f.cfg); return err },
			"grant WRITE and DESCRIBE on transactional id replicator.authority.east.west of cluster west"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFake(t)
			f.set(f.change(), 1, "east")
			f.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.KeepControl()
				resp := c.refuse(req)
				return resp, nil, resp != nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			f.t = t
			if err := c.does(f); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %s", err, c.says)
			}
			if ctx.Err() != nil {
				t.Error("it took too long")
			}
		})
	}
}

func refuseMetadata(req kmsg.Request) kmsg.Response {
	m, ok := req.(*kmsg.MetadataRequest)
	if !ok || len(m.Topics) != 1 {
		return nil
	}
	resp := m.ResponseKind().(*kmsg.MetadataResponse)
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.ErrorCode = m.Topics[0].Topic, kerr.TopicAuthorizationFailed.Code
	resp.Topics = append(resp.Topics, t)
	return resp
}

func refuseFetch(req kmsg.Request) kmsg.Response {
	m, ok := req.(*kmsg.FetchRequest)
	if !ok {
		return nil
	}
	resp := m.ResponseKind().(*kmsg.FetchResponse)
	t := kmsg.NewFetchResponseTopic()
	t.Topic, t.TopicID = m.Topics[0].Topic, m.Topics[0].TopicID
	p := kmsg.NewFetchResponseTopicPartition()
	p.ErrorCode = kerr.TopicAuthorizationFailed.Code
	t.Partitions = append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
	return resp
}

func refuseProducerID(req kmsg.Request) kmsg.Response {
	m, ok := req.(*kmsg.InitProducerIDRequest)
	if !ok {
		return nil
	}
	resp := m.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
	return resp
}

func TestAuditKeepsTheEventsOfRuns(t *testing.T) {
	f := startFake(t)
	if runs, err := Runs(t.Context(), f.cfg); err != nil || len(runs) != 0 {
		t.Fatalf("without the topic: %v, %v", runs, err)
	}
	c := f.change()
	for i := range 6 {
		if err := c.Audit(t.Context(), []string{"one", "two"}[i%2], fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	events, err := ReadAudit(t.Context(), f.cfg, "two")
	if err != nil || len(events) != 3 || string(events[0]) != "1" || string(events[2]) != "5" {
		t.Errorf("events %q, %v", events, err)
	}
	runs, err := Runs(t.Context(), f.cfg)
	if err != nil || len(runs) != 2 || runs[0].ID != "one" || runs[0].Events != 3 || runs[1].ID != "two" {
		t.Errorf("runs %+v, %v", runs, err)
	}
	other := f.cfg
	other.Pair = PairOf(f.cfg.Pair.A, "elsewhere")
	if runs, err := Runs(t.Context(), other); err != nil || len(runs) != 0 {
		t.Errorf("another pair of the cluster has runs %+v, %v", runs, err)
	}
	if err := c.Audit(t.Context(), "one", make([]byte, maxValue+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an event larger than a broker takes: %v", err)
	}
	if err := c.Audit(t.Context(), "one", []byte("after")); err != nil {
		t.Errorf("an event that was too large ended the changer: %v", err)
	}
}

func TestATopicThatLosesRecordsIsRefused(t *testing.T) {
	f := startFake(t)
	for _, topic := range []struct {
		name     string
		settings map[string]*string
		says     string
	}{
		{DefaultTopic, map[string]*string{"cleanup.policy": new("delete")}, "set it to compact"},
		{DefaultAuditTopic, map[string]*string{"retention.ms": new("604800000")}, "set it to -1"},
	} {
		if _, err := f.cfg.Cluster.Admin().CreateTopic(t.Context(), 1, 1, topic.settings, topic.name); err != nil {
			t.Fatal(err)
		}
		if _, err := Change(t.Context(), f.cfg); err == nil || !strings.Contains(err.Error(), topic.says) {
			t.Errorf("%s: %v", topic.name, err)
		}
		if _, err := f.cfg.Cluster.Admin().DeleteTopic(t.Context(), topic.name); err != nil {
			t.Fatal(err)
		}
	}
}

// A broker answers whoever is over a quota with nothing, and says for how long it wants
// to be left alone.
func TestAQuotaDelaysAndHarmsNothing(t *testing.T) {
	const quiet = 300 * time.Millisecond
	f := startFake(t)
	c := f.change()
	f.set(c, 1, "east")

	began := time.Now()
	left := overquota.Fetches(f.Cluster, 2, quiet, nil)
	if s := f.read(); s.Epoch() != 1 || left.Load() != 0 {
		t.Errorf("epoch %d with %d throttled answers to come", s.Epoch(), left.Load())
	}
	if took := time.Since(began); took < 2*quiet {
		t.Errorf("the broker was asked again before it wanted to be: read after %v, and it wanted %v twice", took, quiet)
	}

	overquota.Fetches(f.Cluster, 2, time.Millisecond, nil)
	f.set(c, 2, "west") // fails the test if it is not known whether it was written
	left = overquota.Fetches(f.Cluster, 2, time.Millisecond, nil)
	if err := c.Audit(t.Context(), "r", []byte("event")); err != nil || left.Load() != 0 {
		t.Errorf("an event: %v, with %d throttled answers to come", err, left.Load())
	}
	// More in a row than one question bears: the audit topic is read again.
	overquota.Fetches(f.Cluster, overQuota+1, time.Millisecond, nil)
	if events, err := ReadAudit(t.Context(), f.cfg, "r"); err != nil || len(events) != 1 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

func TestAWatcherOverItsQuotaKnowsWhatItKnew(t *testing.T) {
	f := startFake(t)
	f.set(f.change(), 1, "east")
	w := Watch(f.cfg)
	if _, err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	defer func() { cancel(); <-done }()

	left := overquota.Fetches(f.Cluster, 1000, time.Millisecond, nil)
	for deadline := time.Now().Add(20 * time.Second); w.Knowledge().Err == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("that nothing newer is known is not said")
		}
	}
	if k := w.Knowledge(); !k.Known || k.State.Epoch() != 1 || !strings.Contains(k.Err.Error(), "over a quota") {
		t.Errorf("known %v, epoch %d, %v", k.Known, k.State.Epoch(), k.Err)
	}
	left.Store(0)
	for deadline := time.Now().Add(20 * time.Second); w.Knowledge().Err != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still: %v", w.Knowledge().Err)
		}
	}
}
