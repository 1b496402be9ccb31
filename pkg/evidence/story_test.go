package evidence

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"replicator/internal/words"
)

// recorded chains documents as a recorder does: one that is too large in parts.
func recorded(t *testing.T, notes []note) []Event {
	t.Helper()
	c := fixedChain(sampleRun)
	var events []Event
	for _, n := range notes {
		docs, err := parts(n.doc)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range docs {
			body, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			part, of := 0, 0
			if len(docs) > 1 {
				part, of = i+1, len(docs)
			}
			e, err := c.append(n.kind, n.step, part, of, json.RawMessage(body))
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	return events
}

func rangeOf(partition int32, from, to int64) StrandedRow {
	bytes := 10 * (to - from)
	return StrandedRow{Topic: "orders", Partition: partition, From: from, To: to, Records: to - from, Bytes: &bytes}
}

// found are the events of one call of a failback: what it found, then what that is by topic.
func found(seconds float64, rows ...StrandedRow) []note {
	loss := LossRow{Topic: "orders", Bytes: new(int64), Seconds: &seconds}
	for _, r := range rows {
		loss.Records += r.Records
		*loss.Bytes += *r.Bytes
	}
	return []note{
		{KindStranded, "stranded", StrandedDoc{Decision: StrandedExport, Rows: rows}},
		{KindLoss, "stranded", LossDoc{Actual: true, Basis: "counted in the logs of east", Rows: []LossRow{loss}}},
	}
}

func exportedRows(file string, rows ...StrandedRow) note {
	return note{KindStranded, "stranded", StrandedDoc{Decision: StrandedExport, File: file, SHA256: strings.Repeat("a", 64), Rows: rows}}
}

func TestAFailbackOfSeveralCallsTellsAllItFound(t *testing.T) {
	all := append(found(9, rangeOf(0, 5, 30), rangeOf(1, 8, 20)), exportedRows("/a", rangeOf(0, 5, 30), rangeOf(1, 8, 20)))
	for name, c := range map[string]struct {
		later   []note
		want    []StrandedRow
		records int64
		seconds float64
	}{
		"killed when one of two lanes was noted": {found(3, rangeOf(1, 8, 20)), []StrandedRow{rangeOf(0, 5, 30), rangeOf(1, 8, 20)}, 37, 9},
		"noted all, and nothing since":           {found(0), []StrandedRow{rangeOf(0, 5, 30), rangeOf(1, 8, 20)}, 37, 9},
		"a noted lane was written to":            {found(3, rangeOf(0, 30, 34), rangeOf(1, 8, 20)), []StrandedRow{rangeOf(0, 5, 30), rangeOf(1, 8, 20), rangeOf(0, 30, 34)}, 41, 9},
		"refused, written to, the rest in a second file": {
			append(found(12, rangeOf(0, 5, 40), rangeOf(1, 8, 20)), exportedRows("/b", rangeOf(0, 30, 40))),
			[]StrandedRow{rangeOf(0, 5, 40), rangeOf(1, 8, 20)}, 47, 12,
		},
	} {
		s := Tell(recorded(t, slices.Concat(all, c.later)))
		if d := cmp.Diff(c.want, s.Stranded.Rows); d != "" || len(s.Unread) > 0 {
			t.Errorf("%s (-want +got): %s%v", name, d, s.Unread)
		}
		row := s.Actual.Rows[0]
		if len(s.Actual.Rows) != 1 || row.Records != c.records || *row.Bytes != 10*c.records || *row.Seconds != c.seconds {
			t.Errorf("%s: lost %+v", name, s.Actual.Rows)
		}
		if n := s.Brief().LossActual; n == nil || *n != c.records {
			t.Errorf("%s: summary has %v", name, n)
		}
		if b := s.strandedBlock(); !strings.HasPrefix(b.Lines[0], words.Count(c.records, "record")+" in 2 partitions") {
			t.Errorf("%s: report has %q", name, b.Lines[0])
		}
	}
}

func TestRangesInPartsAreMerged(t *testing.T) {
	var many []StrandedRow
	for p := range int32(9000) {
		many = append(many, rangeOf(p, 5, 7))
	}
	first := append(found(1, many...), exportedRows("/a", many...))
	events := recorded(t, append(first, found(1, many[4000:]...)...))
	if len(events) < 6 {
		t.Fatalf("%d events: nothing is in parts", len(events))
	}
	s := Tell(events)
	if d := cmp.Diff(many, s.Stranded.Rows); d != "" {
		t.Error(d)
	}
	if n := s.Actual.Rows[0].Records; n != 18_000 {
		t.Errorf("%d lost", n)
	}
	if len(s.Exports) != 1 || s.Exports[0].Records != 18_000 {
		t.Errorf("exports: %+v", s.Exports)
	}
}

func TestAnEstimateReplacesTheFormerOne(t *testing.T) {
	s := Tell(recorded(t, []note{
		{KindLoss, "gates", LossDoc{Basis: "a", Rows: []LossRow{{Topic: "orders", Records: 5}, {Topic: "payments", Records: 6}}}},
		{KindLoss, "gates", LossDoc{Basis: "b", Rows: []LossRow{{Topic: "orders", Records: 7}}}},
	}))
	if d := cmp.Diff(&LossDoc{Basis: "b", Rows: []LossRow{{Topic: "orders", Records: 7}}}, s.Loss); d != "" {
		t.Error(d)
	}
}
