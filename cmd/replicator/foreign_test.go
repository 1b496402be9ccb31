package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"replicator/internal/observe"
	"replicator/pkg/checkpoint"
)

// foreignNames are names of groups, and metadata, that somebody chose to harm
// whoever reads them. Kafka takes them all.
var foreignNames = []string{
	"\x1b[2J\x1b]0;owned\x07red", "forged\n{\"level\":\"info\"}", "carriage\rreturn", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "+1+1", "@SUM(1)",
	"../../etc/passwd", "a,b\"c", "\u202egnp.exe", "\u009b31m", "nul\x00", "no text \xff\xfe", strings.Repeat("very long ", 3000), " ", "",
}

// foreign are offsets of groups with such names, and such metadata.
func foreign() []*checkpoint.Placement {
	var all []*checkpoint.Placement
	for _, name := range foreignNames {
		p := *committed()[1]
		p.Group, p.Metadata, p.Detail = name, name, name
		p.Action, p.Reason = checkpoint.Skip, checkpoint.CommitFailed
		all = append(all, &p)
	}
	return all
}

// What people see is one line an offset, and nothing in it commands a terminal.
func TestForeignNamesAreInertInTables(t *testing.T) {
	for _, c := range []screen{{width: 80}, {wide: true}} {
		for name, got := range map[string]string{
			"translate": translated(foreign()).table(c),
			"plan":      newPlan(foreign()).table(c),
			"list":      (&groupsDoc{Time: noon, Groups: groupsOf(foreign(), nil)}).table(c),
			"refusal":   named(newPlan(foreign()).refused(func(string) bool { return true })),
		} {
			for _, r := range got {
				if r != '\n' && !unicode.IsPrint(r) || r == utf8.RuneError {
					t.Errorf("%s, width %d: it holds %q", name, c.width, r)
				}
			}
			table, _, _ := strings.Cut(got, "\n\n")
			if lines := strings.Count(strings.TrimSuffix(table, "\n"), "\n"); name != "refusal" && lines != len(foreignNames) || name == "refusal" && lines > 0 {
				t.Errorf("%s, width %d: %d lines for %d offsets", name, c.width, lines, len(foreignNames))
			}
		}
	}
}

// Programs get every name back as it is, as far as it is text.
func TestForeignNamesComeBackFromDocuments(t *testing.T) {
	var exported bytes.Buffer
	if err := (&exportDoc{Checkpoints: translated(foreign()).Offsets}).lines(&exported); err != nil {
		t.Fatal(err)
	}
	var got []translationDoc
	for line := range strings.Lines(exported.String()) {
		var doc struct {
			Kind string
			translationDoc
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("%v in %.80q", err, line)
		}
		if doc.Kind == "checkpoint" {
			got = append(got, doc.translationDoc)
		}
	}
	var whole translationsDoc
	if err := json.Unmarshal([]byte(document(t, "json", translated(foreign()))), &whole); err != nil {
		t.Fatal(err)
	}
	for from, docs := range map[string][]translationDoc{"export": got, "translate": whole.Offsets} {
		if len(docs) != len(foreignNames) {
			t.Fatalf("%s: %d offsets of %d", from, len(docs), len(foreignNames))
		}
		for i, name := range foreignNames {
			if want := jsonText(name); docs[i].Group != want || docs[i].Metadata != want {
				t.Errorf("%s: group %.60q, metadata %.60q, want %.60q", from, docs[i].Group, docs[i].Metadata, want)
			}
		}
	}
}

// jsonText is what JSON can hold of a name: bytes that are no text are replaced one by one.
func jsonText(name string) string {
	var b strings.Builder
	for _, r := range name {
		b.WriteRune(r)
	}
	return b.String()
}

// The file for Kafka's own tool has each name as it is, in one field: who opens it
// in a spreadsheet is warned in the documents. Names with line breaks are left out
// and named.
func TestForeignNamesInTheFileForKafkasTool(t *testing.T) {
	var file bytes.Buffer
	left, err := translated(foreign()).csv(&file, false)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range foreignNames {
		if !strings.ContainsAny(name, "\r\n") {
			want = append(want, name)
		}
	}
	if len(rows) != len(want) || len(left) != len(foreignNames)-len(want) {
		t.Fatalf("%d rows, %d left out, want %d and %d", len(rows), len(left), len(want), len(foreignNames)-len(want))
	}
	for i, row := range rows {
		if row[0] != want[i] || row[1] != "east.ledger" {
			t.Errorf("row %.80q, want group %.60q", row, want[i])
		}
	}
	if said := named(left); strings.ContainsAny(said, "\r\n\x1b") {
		t.Errorf("what was left out is said with control characters: %q", said)
	}
}

// The log keeps one line an entry.
func TestForeignNamesAreInertInErrors(t *testing.T) {
	for _, name := range foreignNames {
		if got := observe.Printable(name); strings.ContainsAny(got, "\r\n\x1b\x00\u009b\u202e") || !utf8.ValidString(got) {
			t.Errorf("%q is shown as %q", name, got)
		}
	}
}
