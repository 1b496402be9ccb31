package verify_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/overquota"
	"replicator/pkg/cluster"
	"replicator/pkg/verify"
)

// A broker answers whoever is over a quota with nothing: that says nothing of the log.
func TestAQuotaIsNoEndOfTheLog(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(20)
	east.write(all, 5)
	west.write(all, 5)
	left := overquota.Fetches(east.fake, 8, 20*time.Millisecond, nil)
	began := time.Now()
	want(t, compare(t, east, west, state(20, 20, 20), 0, 20, verify.Options{}), verify.Counts{Equal: 20, Closed: 20})
	if took := time.Since(began); took < 8*20*time.Millisecond || left.Load() != 0 {
		t.Errorf("compared after %v with %d throttled answers to come: the broker wanted to be left alone 8 times, for 20ms", took, left.Load())
	}
}

// What has not changed is said once in a session, and not again in its later answers.
func TestAnOpenTransactionIsWaitedFor(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(10)
	east.write(all[:5], 5)
	open := east.client(kgo.TransactionalID("open"))
	defer open.Close()
	if err := open.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	east.send(open, all[5:])
	west.write(all, 5)
	// The first answer has records, five have none; whoever asks then has not given up.
	asked, again := 0, make(chan struct{})
	east.fake.ControlKey(kmsg.Fetch.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		east.fake.KeepControl()
		if asked++; asked == 7 {
			close(again)
		}
		return nil, nil, false
	})
	ended := make(chan error, 1)
	go func() {
		select {
		case <-again:
			ended <- cluster.EndTransaction(t.Context(), open, kgo.TryCommit, "orders")
		case <-t.Context().Done():
			ended <- nil
		}
	}()
	want(t, compare(t, east, west, state(10, 10, 10), 0, 10, verify.Options{}), verify.Counts{Equal: 10, Closed: 10})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
