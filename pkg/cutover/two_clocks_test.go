package cutover

import (
	"strings"
	"testing"
	"time"

	"replicator/pkg/offsets"
)

// The daemon that saw the old region's ends last had a clock of its own.
func TestALossIsNeverLessThanWhatWasSeenWhateverTheClocksSay(t *testing.T) {
	lane := offsets.Lane{Topic: "orders"}
	writer := offsets.Writer{ProducerID: 7}
	now := time.Now()
	for _, c := range []struct {
		name  string
		seen  time.Duration // by the daemon's clock, before now by ours
		want  int64         // 40 records were seen, 10 came each second
		warns bool
	}{
		{name: "a minute before", seen: time.Minute, want: 640},
		{name: "just now", want: 40},
		{name: "in an hour", seen: -time.Hour, want: 40, warns: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := offsets.StateOf(
				offsets.EpochRecord{Lane: lane, Writer: writer, Time: now},
				offsets.Position{Lane: lane, Writer: writer, Ordinal: 60, Source: 60, Target: 60, SourceEnd: 100, SourceLeaderEpoch: -1, NewestTimestamp: -1, Time: now.Add(-c.seen)},
			)
			if err := state.Err(); err != nil {
				t.Fatal(err)
			}
			w := &world{at: now, lanes: []laneView{{lane: lane, sourceEnd: -1, sourceStable: -1, known: true, tail: offsets.Tail{State: state}}}}
			doc := w.lossOf("east", map[offsets.Lane]float64{lane: 10}, nil, time.Time{})
			if len(doc.Rows) != 1 || doc.Rows[0].Records != c.want || doc.Rows[0].AtLeast() != 40 || *doc.Rows[0].Seconds < 0 {
				t.Fatalf("%+v, want 40 records at least, %d at most", doc.Rows, c.want)
			}
			if got := strings.Contains(doc.Basis, "warning: the clock of the daemon was ahead of here, by 1h0m0s"); got != c.warns {
				t.Errorf("warns %v: %s", got, doc.Basis)
			}
		})
	}
}

// A run that is taken up on another machine has times by two clocks.
func TestAnOutcomeHasNoTimesThatTwoClocksContradict(t *testing.T) {
	now := time.Now()
	r := &run{began: now.Add(time.Hour)}
	r.fencedAt, r.openAt = now.Add(time.Hour), now
	if o := r.outcome(nil, ""); o.Took < 0 || o.RTO != nil || o.WritersFencedSeconds != nil {
		t.Errorf("begun by a clock that is ahead: %+v", o)
	}
	r.began, r.fencedAt = now.Add(-time.Minute), now.Add(-time.Second)
	if o := r.outcome(nil, ""); o.RTO == nil || *o.RTO != 60 || *o.WritersFencedSeconds != 1 {
		t.Errorf("by one clock: %+v", o)
	}
}
