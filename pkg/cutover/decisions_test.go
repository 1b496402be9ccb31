package cutover

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/checkpoint"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
)

// A living pair is looked at once, and the look is changed as a failing link would.
func TestWhatAPlanSaysOfLanesAndLoss(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	// The rate is the highest of some seconds of the last minute that was copied: three
	// records a second in the first partition, one in the second.
	const first, second = 15, 5
	at := time.Now().Truncate(rateBucket).Add(-4*rateBucket + time.Second)
	c := p.app("east")
	for i := range first + second {
		partition := int32(0)
		if i >= first {
			partition = 1
		}
		if err := c.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: partition, Value: []byte("v"), Timestamp: at}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	p.run()
	s := p.setup("east", "west")
	p.passes(s, Request{Verb: Switchover})
	var w *world
	defer func() { w.close() }()
	until(t, "positions in the journal", func() error { // once a second
		plan, err := MakePlan(t.Context(), s, Request{Verb: Switchover, ExpectEpoch: -1})
		if err != nil {
			return err
		}
		w.close()
		w = plan.world
		for _, l := range w.lanes {
			if at, ok := l.tail.State.Position(); !ok || at.NewestTimestamp < 0 {
				return fmt.Errorf("%s has %+v", l.lane, at)
			}
		}
		return nil
	})
	if len(w.lanes) != partitions || w.lanes[0].position() != first || w.lanes[1].position() != second || w.lanes[0].lag() != 0 {
		t.Fatalf("the lanes are %+v", w.laneRows())
	}
	seen := func(change func(w *world)) *world {
		other := *w
		other.lanes = append([]laneView{}, w.lanes...)
		if change != nil {
			change(&other)
		}
		return &other
	}
	never := laneView{lane: offsets.Lane{Topic: "orders", Partition: 2}, sourceEnd: 4}
	behind := seen(func(w *world) { w.lanes[1].sourceEnd += 1001 })
	grown := seen(func(w *world) { w.lanes = append(w.lanes, never) })
	broken := seen(func(w *world) { w.lanes[0].tail.Err = errors.New("it holds records nobody knows") })
	cut := seen(func(w *world) { w.lanes[0].tail.Warning = "it lost its tail" })
	for name, c := range map[string]struct {
		verb Verb
		w    *world
		want map[string]string // what fails by gate, and what passes with "ok "
	}{
		"all is well":                     {Switchover, w, map[string]string{"lanes": "ok 2, all readable on west", "lag": "ok 0 records, at most 1000 a partition are allowed"}},
		"one is behind":                   {Switchover, behind, map[string]string{"lag": "1 partitions are more than 1000 records behind: orders-1 by 1001"}},
		"a failover does not ask for lag": {Failover, behind, map[string]string{"lanes": "ok 2"}},
		"one was never copied":            {Switchover, grown, map[string]string{"lanes": "1 partitions were never copied: orders-2", "lag": "ok 4 records"}},
		"a failover leaves it behind":     {Failover, grown, map[string]string{"lanes": "ok 2"}},
		"one cannot be read":              {Failover, broken, map[string]string{"lanes": "1 of 2 cannot be read: orders-0: it holds records nobody knows"}},
		"the copy lost its tail":          {Failover, cut, map[string]string{"lanes": "1 of 2 cannot be read: orders-0: it lost its tail"}},
		"nothing was copied":              {Failover, &world{lanes: []laneView{never}}, map[string]string{"lanes": "the link east->west has copied nothing"}},
	} {
		g := &gates{}
		g.lanes(s, Request{Verb: c.verb}, c.w)
		judged(t, name, g, c.want)
	}

	// The loss is counted where the old region answers, and else what was behind when it was
	// last seen, and what may have come since.
	for name, c := range map[string]struct {
		change     func(*world)
		seen       int64 // at least
		from, to   int64 // at most
		seconds    float64
		notCounted string
	}{
		"it answers":                      {func(w *world) { w.lanes[0].sourceEnd += 7; w.at = w.at.Add(time.Minute) }, 7, 7, 7, 50, ""},
		"it is gone":                      {gone, 0, 0, 4 * 15, 0, ""},
		"it has been gone for 100 s":      {func(w *world) { gone(w); w.at = w.at.Add(100 * time.Second) }, 0, 4 * 100, 4 * 115, 100, ""},
		"it is gone since lanes opened":   {func(w *world) { gone(w); openedAgain(w); w.at = w.at.Add(100 * time.Second) }, 0, 4 * 100, 4 * 115, 100, ""},
		"one lane has no position yet":    {func(w *world) { gone(w); w.lanes = append(w.lanes, never) }, 0, 0, 4 * 15, 0, "no position of them yet: orders-2"},
		"the journal has no position yet": {func(w *world) { w.lanes = []laneView{never} }, 0, -1, -1, 0, ""},
	} {
		doc, err := seen(c.change).estimateLoss(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if c.from < 0 {
			if len(doc.Rows) > 0 || doc.Basis != "the journal has no position yet" {
				t.Errorf("%s: %+v", name, doc)
			}
			continue
		}
		if len(doc.Rows) != 1 || doc.Rows[0].AtLeast() != c.seen || doc.Rows[0].Records < c.from || doc.Rows[0].Records > c.to || *doc.Rows[0].Seconds < c.seconds ||
			!strings.Contains(doc.Basis, "the ends of east as last seen") || !strings.Contains(doc.Basis, c.notCounted) {
			t.Errorf("%s: %+v, want at least %d records and at most from %d to %d", name, doc, c.seen, c.from, c.to)
		}
	}
}

// gone takes away what only the old region tells.
func gone(w *world) {
	for i := range w.lanes {
		w.lanes[i].sourceEnd, w.lanes[i].sourceStable = -1, -1
	}
}

// openedAgain makes lanes new: they have copied nothing since they were opened.
func openedAgain(w *world) {
	for i := range w.lanes {
		p, _ := w.lanes[i].tail.State.Position()
		p.NewestTimestamp = -1
		w.lanes[i].tail.State = offsets.StateOf(offsets.EpochRecord{Lane: p.Lane, Writer: p.Writer, Time: p.Time}, p)
	}
}

// judged compares what gates say, by their names.
func judged(t *testing.T, name string, g *gates, want map[string]string) {
	t.Helper()
	said := map[string]evidence.Gate{}
	for _, gate := range g.all {
		said[gate.Name] = gate
	}
	for gate, text := range want {
		text, ok := strings.CutPrefix(text, "ok ")
		if got, there := said[gate]; !there || got.OK != ok || !strings.HasPrefix(got.Detail, text) || ok != (got.Fix == "") {
			t.Errorf("%s: gate %s is %+v, want passed %v: %s", name, gate, got, ok, text)
		}
	}
}

func TestWhichGroupsAndStrandedRecordsStandInTheWay(t *testing.T) {
	t.Parallel()
	s := pairOf(true)
	row := func(group string, action checkpoint.Action, reason string) evidence.GroupRow {
		return evidence.GroupRow{Group: group, Topic: "orders", Action: string(action), Reason: reason}
	}
	moved, busy, places := row("billing", checkpoint.Skip, string(checkpoint.TargetAhead)+": it is at 9"), row("audit", checkpoint.Skip, "it has members"), row("billing", checkpoint.Place, "")
	for name, c := range map[string]struct {
		groups evidence.GroupsDoc
		skip   []string
		want   string
	}{
		"all can be placed":                {evidence.GroupsDoc{places, places}, nil, "ok 2 offsets can be placed"},
		"one has members":                  {evidence.GroupsDoc{places, busy, busy}, nil, "1 cannot be placed: audit (orders-0: it has members)"},
		"it is left out":                   {evidence.GroupsDoc{places, busy}, []string{"audit"}, "ok 1 offsets can be placed"},
		"one moved on by itself and stays": {evidence.GroupsDoc{places, moved}, nil, "ok 1 offsets can be placed; warning: 1 have moved on by themselves on west and stay: billing"},
	} {
		g := &gates{}
		g.groups(s, Request{SkipGroups: c.skip}, &Plan{Groups: c.groups})
		judged(t, name, g, map[string]string{"groups": c.want})
	}

	left := &evidence.StrandedDoc{Rows: []evidence.StrandedRow{{Topic: "orders", Records: 2}, {Topic: "orders", Partition: 1, Records: 3}}}
	for name, c := range map[string]struct {
		req  Request
		doc  *evidence.StrandedDoc
		want string
	}{
		"there are none":     {Request{}, &evidence.StrandedDoc{}, "ok none"},
		"nobody has decided": {Request{}, left, "5 in 2 partitions, and nobody has decided what becomes of them"},
		"a file is missing":  {Request{Stranded: Export}, left, "they are to be exported, and no file is named"},
		"exported to a file": {Request{Stranded: Export, ExportTo: "f"}, left, "ok 5 in 2 partitions: export"},
		"replayed":           {Request{Stranded: Replay}, left, "ok 5 in 2 partitions: replay"},
		"discarded":          {Request{Stranded: Discard}, left, "ok 5 in 2 partitions: discard"},
	} {
		g := &gates{}
		g.stranded(c.req, c.doc)
		judged(t, name, g, map[string]string{"stranded records": c.want})
	}
}

// What became of the groups decides whether the step is done: an offset that is not placed
// is no success unless it was left out by name, or stands further on already.
func TestWhatBecameOfGroupsIsJudged(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	row := func(group string, proved *bool, reason string) evidence.GroupRow {
		return evidence.GroupRow{Group: group, Topic: "orders", Proved: proved, Reason: reason}
	}
	for name, c := range map[string]struct {
		rows      evidence.GroupsDoc
		skip      []string
		active    []string
		want, err string
	}{
		"all are placed":              {rows: evidence.GroupsDoc{row("a", &yes, ""), row("a", &yes, ""), row("b", &yes, "")}, want: "3 offsets of 2 groups on west, read back"},
		"one was read back otherwise": {rows: evidence.GroupsDoc{row("a", &yes, ""), row("b", &no, "")}, err: "1 offsets were read back otherwise: somebody else commits on west: b orders-0"},
		"one is not placed":           {rows: evidence.GroupsDoc{row("a", &yes, ""), row("b", nil, "members")}, err: "1 offsets are not placed: b orders-0 (members)"},
		"one was left out":            {rows: evidence.GroupsDoc{row("a", &yes, ""), row("b", nil, "members")}, skip: []string{"b"}, want: "1 offset of 1 group"},
		"one stands further on":       {rows: evidence.GroupsDoc{row("b", nil, string(checkpoint.TargetAhead))}, want: "0 offsets of 0 groups"},
		"members stay":                {rows: evidence.GroupsDoc{row("a", &yes, "")}, active: []string{"a"}, want: "1 offset of 1 group on west, read back; warning: a still have members on east"},
	} {
		r := newRun(pairOf(true), Request{Verb: Failover, SkipGroups: c.skip})
		proof, err := r.judgeGroups(t.Context(), c.rows, c.active, nil)
		if c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) || c.err == "" && err != nil || !strings.HasPrefix(proof, c.want) {
			t.Errorf("%s: %q, %v; want %q, %s", name, proof, err, c.want, c.err)
		}
	}
}
