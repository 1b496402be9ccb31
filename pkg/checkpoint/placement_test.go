package checkpoint

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/offsets"
)

func TestWhatIsDoneAboutAnOffsetOfTheTarget(t *testing.T) {
	for name, c := range map[string]struct {
		current, placed, target int64
		outcome                 offsets.Outcome
		metadata                string // the target's; ours is "note"
		refresh                 bool
		want                    Action
		reason                  Reason
	}{
		"the target has none":                            {-1, -1, 50, offsets.Exact, "", false, Place, ""},
		"the target has none any more":                   {-1, 40, 50, offsets.Exact, "", false, Place, ""},
		"there is no translation":                        {-1, -1, -1, offsets.Unknown, "", false, Skip, NoTranslation},
		"it is there":                                    {50, 50, 50, offsets.Exact, "note", false, Keep, ""},
		"it is there and about to be forgotten":          {50, 50, 50, offsets.Exact, "note", true, Place, ""},
		"it is there with our older metadata":            {50, 50, 50, offsets.Exact, "old", false, Place, ""},
		"a consumer stands there, with its own metadata": {50, 40, 50, offsets.Exact, "own", false, Keep, ""},
		"the source's group has read on":                 {40, 40, 50, offsets.End, "note", false, Place, ""},
		"the source's group was set back":                {60, 60, 50, offsets.Exact, "note", false, Place, ""},
		"the target's group has read on by itself":       {60, 40, 50, offsets.Exact, "", false, Skip, TargetAhead},
		"nobody knows who put it there, and it is ahead": {60, -1, 50, offsets.Exact, "", false, Skip, TargetAhead},
		"the target's group moved, the source's further": {45, 40, 50, offsets.Exact, "", false, Place, ""},
	} {
		p := &Placement{Current: c.current, CurrentMetadata: c.metadata, Refresh: c.refresh}
		p.Target, p.Outcome, p.Placed, p.Metadata = c.target, c.outcome, c.placed, "note"
		p.decide()
		if p.Action != c.want || p.Reason != c.reason {
			t.Errorf("%s: %s %s, want %s %s", name, p.Action, p.Reason, c.want, c.reason)
		}
	}
}

func placing(target int64) *Placement {
	p := &Placement{TargetTopic: "east.orders"}
	p.Key, p.Source, p.Target, p.Outcome, p.Placed = billing(0), target-1, target, offsets.Exact, -1
	return p
}

// fill writes n records to partition 0.
func fill(t *testing.T, k *kept, n int) {
	t.Helper()
	cl, err := k.target.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for range n {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "east.orders", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// A consumer joins after we have seen that the group has no members: the broker
// refuses us, and its group stands where it stood.
func TestAConsumerThatJoinsInBetweenIsNotMoved(t *testing.T) {
	k := keep(t)
	fill(t, k, 30)
	var consumer *kgo.Client
	pl := Placer{Target: k.target, beforeCommit: func(string) {
		var err error
		if consumer, err = k.target.NewClient(kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("east.orders"), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())); err != nil {
			t.Error(err)
			return
		}
		consumer.PollRecords(t.Context(), 1)
	}}
	p := placing(20)
	if err := pl.Apply(t.Context(), []*Placement{p}); err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	if p.Action != Skip || p.Reason != GroupActive && p.Reason != TooSlow {
		t.Errorf("%s %s %s, want skip group_active", p.Action, p.Reason, p.Detail)
	}
	if o, err := k.west.FetchOffsets(t.Context(), "billing"); err == nil {
		if at, ok := o.Lookup("east.orders", 0); ok {
			t.Errorf("the group was moved to %d", at.At)
		}
	}
}

// What was read of a group is too old when it comes to writing: nothing is written.
func TestWhatWasReadTooLongAgoIsNotActedOn(t *testing.T) {
	k := keep(t)
	fill(t, k, 30)
	pl := Placer{Target: k.target, beforeCommit: func(string) { time.Sleep(freshFor + 100*time.Millisecond) }} // the time that passes is what is tested
	p := placing(20)
	if err := pl.Apply(t.Context(), []*Placement{p}); err != nil {
		t.Fatal(err)
	}
	if p.Action != Skip || p.Reason != TooSlow {
		t.Errorf("%s %s %s, want skip too_slow", p.Action, p.Reason, p.Detail)
	}
}

func TestPlacingIsProven(t *testing.T) {
	k := keep(t)
	fill(t, k, 30)
	pl := Placer{Target: k.target}
	beyond, here := placing(500), placing(20)
	beyond.Lane.Partition = 1 // an empty partition
	all := []*Placement{beyond, here}
	if err := pl.Apply(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if beyond.Action != Place || beyond.Target != 0 || beyond.Clamped == "" {
		t.Errorf("an offset beyond the log was not moved into it: %+v", beyond)
	}
	if differ, err := pl.Prove(t.Context(), all); err != nil || len(differ) > 0 {
		t.Errorf("prove: %v, %+v", err, differ)
	}
	var moved kadm.Offsets
	moved.AddOffset("east.orders", 0, 25, -1)
	if err := k.west.CommitAllOffsets(t.Context(), "billing", moved); err != nil {
		t.Fatal(err)
	}
	differ, err := pl.Prove(t.Context(), all)
	if err != nil || len(differ) != 1 || differ[0].Current != 25 {
		t.Errorf("prove after somebody moved the group: %v, %+v", err, differ)
	}
}
