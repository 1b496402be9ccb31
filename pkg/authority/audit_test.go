package authority

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// removeBefore does what the audit topic's retention does.
func (f *fake) removeBefore(offset int64) {
	f.t.Helper()
	resp, err := f.cfg.Cluster.Admin().DeleteRecords(f.t.Context(), kadm.Offsets{DefaultAuditTopic: {0: {Topic: DefaultAuditTopic, At: offset}}})
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestTheRecordOfRunsSaysWhereItBegins(t *testing.T) {
	f := startFake(t)
	begins := func() AuditStart {
		t.Helper()
		got, err := AuditBegins(t.Context(), f.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := begins(); got != (AuditStart{}) {
		t.Errorf("without the topic: %+v", got)
	}
	c := f.change()
	if got := begins(); !got.Since.IsZero() || got.Removed || got.Retention != AuditRetention {
		t.Errorf("without an event: %+v", got)
	}
	before := time.Now().Add(-time.Minute)
	for i := range 4 {
		if err := c.Audit(t.Context(), []string{"one", "two"}[i/2], fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := begins(); got.Since.Before(before) || got.Removed {
		t.Errorf("with all events: %+v", got)
	}
	second, err := ReadAudit(t.Context(), f.cfg, "two")
	if err != nil || len(second) != 2 {
		t.Fatalf("%q, %v", second, err)
	}
	// Each event has a control record behind it: the first run has offsets 0 to 3.
	f.removeBefore(1)
	runs, err := Runs(t.Context(), f.cfg)
	if err != nil || len(runs) != 2 || runs[0].Events != 1 || string(runs[0].FirstEvent) != "1" || string(runs[1].FirstEvent) != "2" || string(runs[1].LastEvent) != "3" {
		t.Errorf("with half of the first run: %+v, %v", runs, err)
	}
	if got := begins(); !got.Removed || got.Since.IsZero() {
		t.Errorf("with half of the first run: %+v", got)
	}
	f.removeBefore(8)
	if got := begins(); !got.Removed || !got.Since.IsZero() {
		t.Errorf("with none left: %+v", got)
	}
}

// What is read of a run begins where its events do, whatever was written before.
func TestTheLastRunIsReadFromWhereItBegins(t *testing.T) {
	f := startFake(t)
	c := f.change()
	if _, ok, err := c.State().LastRun(); ok || err != nil {
		t.Errorf("without a run: %v, %v", ok, err)
	}
	if err := c.Audit(t.Context(), "drill", []byte("long ago")); err != nil {
		t.Fatal(err)
	}
	from, err := c.AuditEnd(t.Context())
	if err != nil || from == 0 {
		t.Fatalf("end %d, %v", from, err)
	}
	want := LastRun{Run: "switchover", From: from}
	for i := range 2 {
		if err := c.Audit(t.Context(), want.Run, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Put(t.Context(), LastRunFact, want.Run, want); err != nil {
		t.Fatal(err)
	}
	last, ok, err := f.read().LastRun()
	if err != nil || !ok || last != want {
		t.Fatalf("%+v, %v, %v", last, ok, err)
	}
	for _, at := range []struct {
		from int64
		want []string
	}{
		{0, []string{"0", "1"}},
		{from, []string{"0", "1"}},
		{from + 1, []string{"1"}},
		{1 << 40, nil}, // of a topic that was made anew
	} {
		events, err := ReadRun(t.Context(), f.cfg, LastRun{Run: want.Run, From: at.from})
		var got []string
		for _, e := range events {
			got = append(got, string(e))
		}
		if err != nil || !slices.Equal(got, at.want) {
			t.Errorf("from %d: %q, want %q, %v", at.from, got, at.want, err)
		}
	}
	if err := c.Put(t.Context(), LastRunFact, want.Run, "something newer"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.read().LastRun(); err == nil {
		t.Error("a fact that cannot be read passes for no run")
	}
}

func TestTheAuditTopicKeepsEventsForAYearOrAsLongAsSomebodySays(t *testing.T) {
	f := startFake(t)
	for _, c := range []struct {
		retention time.Duration
		refused   bool
	}{{-time.Millisecond, false}, {AuditRetention, false}, {MinAuditRetention, false}, {MinAuditRetention - time.Millisecond, true}, {0, true}} {
		ms := strconv.FormatInt(c.retention.Milliseconds(), 10)
		if _, err := f.cfg.Cluster.Admin().CreateTopic(t.Context(), 1, 1, map[string]*string{"retention.ms": &ms}, DefaultAuditTopic); err != nil {
			t.Fatal(err)
		}
		changer, err := Change(t.Context(), f.cfg)
		if (err != nil) != c.refused {
			t.Errorf("retention of %v: %v", c.retention, err)
		}
		if err == nil {
			changer.Close()
		}
		if _, err := f.cfg.Cluster.Admin().DeleteTopic(t.Context(), DefaultAuditTopic); err != nil {
			t.Fatal(err)
		}
	}
}
