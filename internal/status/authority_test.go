package status

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"replicator/pkg/authority"
)

func TestAuthorityOfCopies(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pair := authority.PairOf("east", "west")
	known := func(regions ...string) authority.Knowledge {
		k := authority.Knowledge{Known: true, AsOf: now.Add(-2 * time.Second)}
		for i, r := range regions {
			k.State.Records = append(k.State.Records, authority.Record{Pair: pair.String(), Epoch: int64(i + 1), Region: r, Since: now.Add(-time.Hour)})
		}
		return k
	}
	lost := known("east", "west")
	lost.Known, lost.Err = false, errors.New("lost")
	cut := known("east")
	cut.Err = errors.New("cut off")
	type copies = map[string]authority.Knowledge
	for name, c := range map[string]struct {
		implied string
		copies  copies
		known   bool
		epoch   int64
		region  string
		err     string
	}{
		"nothing read":                 {"east", copies{"west": {}}, false, 0, "east", "no copy was read yet"},
		"nothing watched":              {"east", copies{}, false, 0, "east", "no copy was read yet"},
		"implied":                      {"east", copies{"west": known()}, true, 0, "east", ""},
		"implied both ways":            {"", copies{"west": known(), "east": known()}, false, 0, "", "no authority was ever set, and the links copy both ways"},
		"implied both ways, one cut":   {"", copies{"west": known(), "east": {Err: errors.New("cut off")}}, false, 0, "", "one copy has no record, the other was not read: cut off"},
		"both ways, one never read":    {"", copies{"west": known(), "east": {}}, false, 0, "", "one copy has no record, the other was not read"},
		"one copy":                     {"east", copies{"west": known("east", "west")}, true, 2, "west", ""},
		"the higher one":               {"east", copies{"west": known("east", "west"), "east": known("east")}, true, 2, "west", ""},
		"the higher one, other way":    {"east", copies{"west": known("west"), "east": known("west", "east")}, true, 2, "east", ""},
		"one was never read":           {"east", copies{"west": known("east"), "east": {}}, true, 1, "east", ""},
		"one is cut off":               {"east", copies{"west": known("east", "west"), "east": cut}, true, 2, "west", ""},
		"one cannot be believed":       {"east", copies{"west": lost, "east": known("east")}, true, 1, "east", ""},
		"none can be believed":         {"east", copies{"west": lost}, false, 0, "east", "lost"},
		"they contradict each other":   {"east", copies{"west": known("east", "west"), "east": known("east", "east")}, false, 0, "", "the copies give an epoch to two regions"},
		"they did, and it was settled": {"east", copies{"west": known("east", "west", "east"), "east": known("east", "east", "east")}, true, 3, "east", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := AuthorityOf(pair, c.implied, c.copies, now)
			region := c.region
			if a.Known != c.known || a.Epoch != c.epoch || c.known && a.Region != region || a.Error != c.err || len(a.Copies) != len(c.copies) {
				t.Errorf("got %+v", a)
			}
			if (a.Since != nil) != (c.known && c.epoch > 0) {
				t.Errorf("since %v", a.Since)
			}
			for _, k := range a.Copies {
				if seen := !c.copies[k.Cluster].AsOf.IsZero(); (k.Age != nil) != seen || seen && *k.Age != 2 {
					t.Errorf("age of %s: %v", k.Cluster, k.Age)
				}
			}
		})
	}
}

// The newest drill of either copy counts, also of one that cannot be read any more.
func TestTheNewestDrillCounts(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	with := func(ended time.Time, success bool) authority.Knowledge {
		data, err := json.Marshal(authority.Drill{Ended: ended, Success: success})
		if err != nil {
			t.Fatal(err)
		}
		return authority.Knowledge{Known: true, AsOf: now, State: authority.State{Facts: map[string]authority.Fact{authority.DrillRole: {Data: data}}}}
	}
	pair := authority.PairOf("east", "west")
	older, newer := with(now.Add(-time.Hour), true), with(now.Add(-time.Minute), false)
	newer.Err = errors.New("cut off")
	for _, copies := range []map[string]authority.Knowledge{{"east": older, "west": newer}, {"east": newer, "west": older}} {
		if d := AuthorityOf(pair, "east", copies, now).Drill; d == nil || d.Success || !d.Ended.Equal(now.Add(-time.Minute)) {
			t.Errorf("the last drill is %+v", d)
		}
	}
	if d := AuthorityOf(pair, "east", map[string]authority.Knowledge{"west": {}}, now).Drill; d != nil {
		t.Errorf("nobody drilled, and the last drill is %+v", d)
	}
}
