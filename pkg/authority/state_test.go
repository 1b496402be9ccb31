package authority

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var pair = PairOf("west", "east")

func rec(epoch int64, region string) Record {
	return Record{Pair: pair.String(), Epoch: epoch, Region: region, Verb: "switchover", By: "ann@host", Since: time.Unix(1e9+epoch, 0).UTC()}
}

func history(regions ...string) State {
	s := State{Ready: map[string]Ready{}}
	for i, r := range regions {
		s.Records = append(s.Records, rec(int64(i+1), r))
	}
	return s
}

func TestPair(t *testing.T) {
	if p := PairOf("east", "west"); p != pair || p.String() != "east/west" || p.Other("east") != "west" || p.Other("west") != "east" || p.Other("north") != "" {
		t.Errorf("pair %v", p)
	}
	if id := pair.TransactionalID(); id != "replicator.authority.east.west" {
		t.Errorf("transactional id %s", id)
	}
}

// random makes a state as changers make it, and now and then one as only people do.
func random(r *rand.Rand) State {
	s := State{Ready: map[string]Ready{}}
	epoch := int64(0)
	for range r.IntN(5) {
		epoch += 1 + int64(r.IntN(2)*r.IntN(2))
		s.Records = append(s.Records, rec(epoch, []string{"east", "west"}[r.IntN(2)]))
	}
	for _, d := range [][2]string{{"east", "west"}, {"west", "east"}} {
		if r.IntN(2) == 0 {
			s.Ready[Direction(d[0], d[1])] = Ready{From: d[0], To: d[1], Epoch: 1 + int64(r.IntN(6))}
		}
	}
	if r.IntN(6) == 0 && epoch > 0 {
		s.Conflicts = []int64{epoch}
	}
	return s
}

// Who reads why a link is closed is told what prepares it: a failover prepares no link back,
// and what settles a contradiction neither.
func TestAnUnpreparedLinkSaysWhatPreparesIt(t *testing.T) {
	for verb, want := range map[string]string{
		"switchover": "run the switchover again", "rollback": "run the rollback again",
		"failover": "replicator failback run --from east", "settle": "replicator failback run --from east",
	} {
		s := history("west")
		s.Records[0].Verb = verb
		if ok, why := s.MayAppend("west", "east"); ok || !strings.Contains(why, want) {
			t.Errorf("behind a %s: %v, %s", verb, ok, why)
		}
	}
	s := history("west")
	s.Conflicts = []int64{1}
	if ok, why := s.MayAppend("west", "east"); ok || !strings.Contains(why, "replicator authority settle") {
		t.Errorf("of two regions: %v, %s", ok, why)
	}
}

func TestNeverBothDirectionsMayAppendOnceThereIsARecord(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	allowed := 0
	for range 20000 {
		s := random(r)
		there, _ := s.MayAppend("east", "west")
		back, _ := s.MayAppend("west", "east")
		current, found := s.Current()
		switch {
		case !found:
			if !there || !back {
				t.Fatalf("without a record a link is held: %+v", s)
			}
			continue
		case there && back:
			t.Fatalf("both directions may append: %+v", s)
		}
		for _, from := range []string{"east", "west"} {
			ok, why := s.MayAppend(from, pair.Other(from))
			ready := s.Ready[Direction(from, pair.Other(from))]
			want := current.Region == from && ready.Epoch == current.Epoch && len(s.Conflicts) == 0
			if ok != want || why == "" {
				t.Fatalf("%s may append: %v (%q), want %v: %+v", from, ok, why, want, s)
			}
			if ok {
				allowed++
			}
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d states allowed anything: the test tries too little", allowed)
	}
}

func TestALaterRecordTakesTheRightAway(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	tried := 0
	for range 20000 {
		s := random(r)
		current, found := s.Current()
		if ok, _ := s.MayAppend(current.Region, pair.Other(current.Region)); !found || !ok {
			continue
		}
		tried++
		for _, next := range []string{"east", "west"} {
			later := s
			later.Records = append(slices.Clone(s.Records), rec(current.Epoch+1, next))
			for _, from := range []string{"east", "west"} {
				if ok, why := later.MayAppend(from, pair.Other(from)); ok && later.Ready[Direction(from, pair.Other(from))].Epoch <= current.Epoch {
					t.Fatalf("%s may append under epoch %d without having been prepared for it: %s", from, current.Epoch+1, why)
				}
			}
		}
	}
	if tried < 500 {
		t.Errorf("only %d states were tried", tried)
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name    string
		a, b    State
		want    Relation
		epoch   int64
		missing []int64
	}{
		{"both empty", history(), history(), Equal, 0, nil},
		{"same", history("east", "west"), history("east", "west"), Equal, 2, nil},
		{"one behind", history("east", "west"), history("east"), StaleB, 2, []int64{2}},
		{"the other behind", history("east"), history("east", "west", "west"), StaleA, 3, []int64{2, 3}},
		{"one empty", history(), history("east"), StaleA, 1, []int64{1}},
		{"split", history("east", "west"), history("east", "east"), Split, 2, nil},
		{"split, one went on", history("east", "west"), history("east", "east", "west"), Split, 2, nil},
		{"split that was settled", history("east", "west", "east"), history("east", "east", "east"), Equal, 3, nil},
		{"settled, then one behind", history("east", "west", "east", "west"), history("east", "east", "east"), StaleB, 4, []int64{4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Compare(c.a, c.b)
			var missing []int64
			for _, r := range d.Missing {
				missing = append(missing, r.Epoch)
			}
			if d.Relation != c.want || d.Epoch != c.epoch || !slices.Equal(missing, c.missing) {
				t.Errorf("got %s at %d, missing %v; want %s at %d, missing %v", d.Relation, d.Epoch, missing, c.want, c.epoch, c.missing)
			}
		})
	}
}

func TestCompareIsSymmetricAndCopyingMendsWhatIsStale(t *testing.T) {
	mirrored := map[Relation]Relation{Equal: Equal, Split: Split, StaleA: StaleB, StaleB: StaleA}
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[Relation]int{}
	for range 20000 {
		a, b := random(r), random(r)
		if r.IntN(2) == 0 { // most copies have a past in common
			b.Records = slices.Clone(a.Records[:r.IntN(len(a.Records)+1)])
		}
		d, back := Compare(a, b), Compare(b, a)
		seen[d.Relation]++
		if back.Relation != mirrored[d.Relation] || back.Epoch != d.Epoch {
			t.Fatalf("%+v and %+v: %s at %d, the other way %s at %d", a, b, d.Relation, d.Epoch, back.Relation, back.Epoch)
		}
		behind, ahead := &a, &b
		switch d.Relation {
		case Equal, Split:
			continue
		case StaleB:
			behind, ahead = &b, &a
		case StaleA:
		}
		if len(d.Missing) == 0 {
			t.Fatalf("%+v and %+v: stale and nothing is missing", a, b)
		}
		behind.Records = append(slices.Clone(behind.Records), d.Missing...)
		slices.SortFunc(behind.Records, func(x, y Record) int { return int(x.Epoch - y.Epoch) })
		if after := Compare(*behind, *ahead); after.Relation != Equal {
			t.Fatalf("after copying what was missing: %s", after.Relation)
		}
	}
	for _, want := range []Relation{Equal, StaleA, StaleB, Split} {
		if seen[want] < 200 {
			t.Errorf("%s came %d times only", want, seen[want])
		}
	}
}

func TestKeysAndValuesComeBackAsTheyWere(t *testing.T) {
	r := rec(12, "west")
	r.Why, r.Run, r.Tool = "zone \"b\" floods", "20261126-switchover", "v1"
	value, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	at, err := parseKey(recordKey(pair, 12))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeValue(at, value)
	if err != nil || got.record == nil || *got.record != r {
		t.Errorf("got %+v, %v", got.record, err)
	}
	f := Ready{From: "west", To: "east", Epoch: 12, Run: "x", Since: time.Unix(5, 0).UTC()}
	if value, err = encodeReady(f); err != nil {
		t.Fatal(err)
	}
	if at, err = parseKey(readyKey(pair, "west", "east")); err != nil {
		t.Fatal(err)
	}
	if got, err = decodeValue(at, value); err != nil || got.ready == nil || *got.ready != f {
		t.Errorf("got %+v, %v", got.ready, err)
	}
}

func TestForeignKeysAndValuesAreRefused(t *testing.T) {
	for _, key := range []string{
		"", "east", "east/west", "west/east/epoch/1", "east/east/epoch/1", "east/west/epoch/0", "east/west/epoch/01", "east/west/epoch/-1",
		"east/west/epoch/x", "east/west/epoch/99999999999999999999", "east/west/epoch/1/2", "east/west/lease/1", "east/west/ready/east/east", "east/west/ready/east/north",
	} {
		if at, err := parseKey(key); err == nil {
			t.Errorf("key %q is taken for %+v", key, at)
		}
	}
	at := place{pair: pair, epoch: 3}
	good := `{"version":1,"pair":"east/west","epoch":3,"region":"east"}`
	if _, err := decodeValue(at, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{
		"", "null", "3", "[]", "{", "east", `{"pair":"east/west","epoch":3,"region":"east"}`,
		`{"version":1,"pair":"east/west","epoch":4,"region":"east"}`, `{"version":1,"pair":"east/north","epoch":3,"region":"east"}`,
		`{"version":1,"pair":"east/west","epoch":3,"region":"north"}`, `{"version":1,"pair":"east/west","epoch":3}`, `{"version":1,"pair":"east/west","epoch":"3","region":"east"}`,
		`{"version":2,"pair":"east/west","epoch":3,"region":"east"}`,
	} {
		if got, err := decodeValue(at, []byte(value)); err == nil {
			t.Errorf("value %s is taken for %+v", value, got.record)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte("east/west/epoch/1"), []byte(`{"version":1,"pair":"east/west","epoch":1,"region":"east"}`))
	f.Add([]byte("east/west/ready/east/west"), []byte(`{"version":1,"from":"east","to":"west","epoch":1}`))
	f.Add([]byte("x"), []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		at, err := parseKey(string(key))
		if err != nil {
			return
		}
		e, err := decodeValue(at, value)
		if err != nil {
			return
		}
		if e.record != nil && (e.record.Epoch != at.epoch || !at.pair.Has(e.record.Region)) {
			t.Errorf("%q: %+v", key, e.record)
		}
		if got := fmt.Sprint(at.pair); got == "" {
			t.Error("no pair")
		}
	})
}
