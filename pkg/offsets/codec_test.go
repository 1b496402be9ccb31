package offsets

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	someLane   = Lane{Topic: "orders", Partition: 3}
	someWriter = Writer{ProducerID: 4711, Epoch: 7}
	someTime   = time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC)
)

// oneOfEach is what the golden file holds. Change nothing here: add.
func oneOfEach() []Entry {
	return []Entry{
		EpochRecord{
			Lane: someLane, Writer: someWriter, Generation: 2, Ordinal: 1000, Source: 1500, Target: 1200,
			SourceTopicID: [16]byte{1, 2, 3}, TargetTopicID: [16]byte{4, 5, 6}, SourceLeaderEpoch: 9,
			Digest: 0xfeedbeefcafe, Time: someTime, Instance: "replicator-1",
		},
		EpochRecord{Lane: someLane, Writer: Writer{-1, -1}, SourceLeaderEpoch: -1},
		Spans{Lane: someLane, Writer: someWriter, Runs: []Span{{1000, 1501}}},
		Spans{Lane: someLane, Writer: someWriter, Runs: []Span{{1000, 1501}, {1010, 1513}, {1500, 3000000000}}},
		Spans{Lane: someLane, Writer: someWriter, Runs: []Span{{1000, 1501}, {1010, 1513}}, Merged: true},
		Position{
			Lane: someLane, Writer: someWriter, Ordinal: 1500, Source: 2100, Target: 1703, SourceEnd: 2200,
			SourceLeaderEpoch: 9, NewestTimestamp: 1772366400123, Time: someTime, Closed: true, Quiet: true,
		},
		Gap{Lane: someLane, Writer: someWriter, From: 2100, To: 2150, Reason: "retention", Time: someTime},
		Shift{Lane: someLane, Writer: someWriter, Ordinal: 1200, Target: 1403},
		Cut{
			Lane: someLane, Writer: someWriter, Ordinal: 900, Source: 1390, Target: 1090,
			Lost: []Writer{{4711, 6}, {4000, 1}}, Time: someTime,
		},
		Generation{Lane: someLane, Number: 3, Reason: "the transaction log was lost", Time: someTime},
		Trim{Lane: someLane, Writer: someWriter, Ordinal: 1100, Source: 1650, Target: 1303},
		Deletion{Of: Spans{Lane: someLane, Writer: someWriter, Runs: []Span{{1000, 1501}}}.Key()},
		EpochRecord{Lane: someLane, Writer: Writer{InverseProducer, 4}, Ordinal: 1200, Source: 1900, Target: 1700, SourceLeaderEpoch: -1, Time: someTime, Instance: "switchover 1"},
		Shifts{Lane: someLane, Writer: Writer{InverseProducer, 4}, Runs: []Jump{{1200, 1702}, {1210, 1713}, {1500, 3000000000}}},
	}
}

func TestEntriesHaveTheBytesOfTheGoldenFile(t *testing.T) {
	var b strings.Builder
	for _, e := range oneOfEach() {
		key, value := EncodeEntry(e)
		fmt.Fprintf(&b, "%s\n  key   %x\n  value %s\n", strings.TrimPrefix(fmt.Sprintf("%T", e), "offsets."), key, hexOrNil(value))
		back, err := DecodeEntry(key, value)
		if err != nil {
			t.Errorf("%T: %v", e, err)
		} else if diff := cmp.Diff(e, back, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
			t.Errorf("%T changed on its way:\n%s", e, diff)
		}
	}
	const file = "testdata/entries.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("the journal's format has changed: journals on targets cannot be read any more (- golden, + now):\n%s", diff)
	}
}

func hexOrNil(b []byte) string {
	if b == nil {
		return "nil"
	}
	return hex.EncodeToString(b)
}

func TestANewerEntryIsRefusedByName(t *testing.T) {
	key, value := EncodeEntry(oneOfEach()[0])
	newKey, newValue := bytes.Clone(key), bytes.Clone(value)
	newKey[1], newValue[0] = 2, 9
	unknown := bytes.Clone(key)
	unknown[0] = 77
	for _, c := range []struct {
		name       string
		key, value []byte
		want       VersionError
	}{
		{"key", newKey, value, VersionError{Kind: KindEpoch, Version: 2, Known: 1, Part: "key"}},
		{"value", key, newValue, VersionError{Kind: KindEpoch, Version: 9, Known: 1, Part: "value"}},
		{"kind", unknown, value, VersionError{Kind: 77, Version: 1, Part: "key"}},
		{"deleted", newKey, nil, VersionError{Kind: KindEpoch, Version: 2, Known: 1, Part: "key"}},
	} {
		_, err := DecodeEntry(c.key, c.value)
		var newer *VersionError
		if !errors.As(err, &newer) || *newer != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestATruncatedEntryIsCorrupt(t *testing.T) {
	for _, e := range oneOfEach() {
		key, value := EncodeEntry(e)
		for n := range key {
			var corrupt *CorruptError
			if _, err := DecodeEntry(key[:n], value); !errors.As(err, &corrupt) {
				t.Errorf("%T, key cut to %d of %d bytes: %v", e, n, len(key), err)
			}
		}
		for n := range value {
			var corrupt *CorruptError
			if _, err := DecodeEntry(key, value[:n:n]); !errors.As(err, &corrupt) {
				t.Errorf("%T, value cut to %d of %d bytes: %v", e, n, len(value), err)
			}
		}
		var corrupt *CorruptError
		if _, err := DecodeEntry(append(bytes.Clone(key), 0), value); !errors.As(err, &corrupt) {
			t.Errorf("%T, key with a byte more: %v", e, err)
		}
		if value == nil {
			continue
		}
		if _, err := DecodeEntry(key, append(bytes.Clone(value), 0)); !errors.As(err, &corrupt) {
			t.Errorf("%T, value with a byte more: %v", e, err)
		}
	}
}

func TestSpansSurviveEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Spans{Lane: someLane, Writer: someWriter, Runs: drawSpans(t, 5, 7), Merged: rapid.Bool().Draw(t, "merged")}
		back, err := DecodeEntry(EncodeEntry(e))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Entry(e), back); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzDecodeEntry: whatever comes is an entry with exactly these bytes, or an error of the two
// kinds; and never much memory for few bytes.
func FuzzDecodeEntry(f *testing.F) {
	for _, e := range oneOfEach() {
		key, value := EncodeEntry(e)
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		e, err := DecodeEntry(key, value)
		if err != nil {
			var newer *VersionError
			var corrupt *CorruptError
			if !errors.As(err, &newer) && !errors.As(err, &corrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, _ := EncodeEntry(e)
		if !bytes.Equal(again, key) {
			t.Fatalf("key %x is encoded as %x", key, again)
		}
		// The value may hold a number in a longer form than ours; what it means must be the same.
		key2, value2 := EncodeEntry(e)
		e2, err := DecodeEntry(key2, value2)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, e2); diff != "" {
			t.Fatal(diff)
		}
		l := newLane(e.Key().Lane)
		l.apply(e)
		l.state()
	})
}
