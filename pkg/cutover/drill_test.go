package cutover

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/authority"
)

func TestWhatADrillMadeIsKnownByItsName(t *testing.T) {
	s := scratchOf(authority.PairOf("west", "east"), "drill-20260301T120000Z-3f9a")
	if g := s.group("billing.v2"); s.groupOf(g) != "billing.v2" {
		t.Errorf("group %s is %s", g, s.groupOf(g))
	}
	for name, want := range map[string]string{
		s.topic():            s.run,
		s.journal():          s.run,
		s.group("billing"):   s.run,
		s.group("drill-x.y"): s.run,
		s.group(s.topic()):   s.run,
		s.prefix + "drill-20260101T120000Z-abcd.journal": "drill-20260101T120000Z-abcd",
		s.prefix:                     "",
		"replicator.drill.east.west": "",
		s.prefix + "x.drill-20260101T120000Z-abcd":          "", // of the pair east/west.x
		"replicator.drill.east.drill-20260101T120000Z-abcd": "",
		"my." + s.topic(): "",
		s.prefix + "drill-20260101T120000Z-abcd-of-mine":            "",
		s.prefix + "switchover-20260101T120000Z-abcd":               "",
		"replicator.drill.west.east.drill-20260101T120000Z-abcd":    "",
		"replicator.drill.east.westdrill-20260101T120000Z-abcd.foo": "",
	} {
		if got := s.owner(name); got != want {
			t.Errorf("%s is of drill %q, want %q", name, got, want)
		}
	}
}

func TestARecordIsTheSameOnlyInAllItsParts(t *testing.T) {
	at := time.UnixMilli(1772362800000)
	rec := func(change func(*kgo.Record)) *kgo.Record {
		r := &kgo.Record{Offset: 20, Key: []byte("k"), Value: []byte("secret"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("x")}}, Timestamp: at}
		if change != nil {
			change(r)
		}
		return r
	}
	for want, target := range map[string]*kgo.Record{
		"":               rec(func(r *kgo.Record) { r.Offset = 24 }),
		"key":            rec(func(r *kgo.Record) { r.Key = []byte("l") }),
		"value":          rec(func(r *kgo.Record) { r.Value = nil }),
		"headers":        rec(func(r *kgo.Record) { r.Headers = nil }),
		"timestamp":      rec(func(r *kgo.Record) { r.Timestamp = at.Add(time.Millisecond) }),
		"key, timestamp": rec(func(r *kgo.Record) { r.Key, r.Timestamp = []byte{}, at.Add(time.Second) }),
		"has no record":  nil,
		"headers ":       rec(func(r *kgo.Record) { r.Headers = append(r.Headers, r.Headers[0]) }),
		"value, headers": rec(func(r *kgo.Record) {
			r.Value, r.Headers = []byte("other"), []kgo.RecordHeader{{Key: "h", Value: []byte("y")}}
		}),
		"value, timestamp": rec(func(r *kgo.Record) { r.Value, r.Timestamp = []byte{}, at.Add(-time.Second) }),
	} {
		p := &probe{first: [2]*kgo.Record{rec(nil), target}}
		p.judge("east", "west")
		if (p.why == "") != (want == "") || !strings.Contains(p.why, strings.TrimSpace(want)) || strings.Contains(p.why, "secret") {
			t.Errorf("want %q: %s", want, p.why)
		}
	}
	both := &probe{}
	both.judge("east", "west")
	if both.why != "" {
		t.Errorf("at the end of both: %s", both.why)
	}
	// A null key and an empty one are two things.
	null := &probe{first: [2]*kgo.Record{rec(func(r *kgo.Record) { r.Key = nil }), rec(func(r *kgo.Record) { r.Key = []byte{} })}}
	if null.judge("east", "west"); !strings.HasSuffix(null.why, "another key") {
		t.Errorf("a null key is taken for an empty one: %q", null.why)
	}
	extra := &probe{first: [2]*kgo.Record{nil, rec(nil)}}
	if extra.judge("east", "west"); !strings.HasPrefix(extra.why, "east has no record there") {
		t.Errorf("a record only the target has: %q", extra.why)
	}
}
