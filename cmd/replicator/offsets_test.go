package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"replicator/pkg/checkpoint"
	"replicator/pkg/offsets"
)

// committed has one offset of every outcome, and names as Kafka lets people choose
// them.
func committed() []*checkpoint.Placement {
	one := func(group, topic string, partition int32, source, target int64, o offsets.Outcome, missing, repeat int64, why string) *checkpoint.Placement {
		return &checkpoint.Placement{
			Checkpoint: checkpoint.Checkpoint{
				Key:    checkpoint.Key{Group: group, Lane: offsets.Lane{Topic: topic, Partition: partition}},
				Source: source, Target: target, Outcome: o, Missing: missing, Committed: noon.Add(-time.Duration(partition+1) * 90 * time.Second), Placed: -1,
			},
			TargetTopic: "east." + topic, Repeat: repeat, Why: why, Current: -1,
		}
	}
	share := one("workers", "orders", 0, 100, 101, offsets.Exact, 0, 0, "")
	share.Type = checkpoint.Share
	return []*checkpoint.Placement{
		one("=HYPERLINK(\"x\"), \x1b[31mred", "orders", 0, 1234567, 1234568, offsets.Exact, 0, 0, ""),
		one("billing", "ledger", 0, 10, 11, offsets.Next, 0, 0, ""),
		one("billing", "orders", 0, 1234567, 1234568, offsets.End, 0, 0, ""),
		one("billing", "orders", 1, 1234597, 1234568, offsets.Ahead, 30, 30, ""),
		one("billing", "orders", 2, 120, 101, offsets.InGap, 80, 0, ""),
		one("billing", "orders", 3, 7, 0, offsets.Before, 0, -1, "the map below was trimmed, because the source no longer holds those offsets"),
		one("billing", "refunds", 11, 5, -1, offsets.Unknown, 0, -1, "no link has copied this partition"),
		one("line\nbreak", "orders", 0, 5, 6, offsets.Exact, 0, 0, ""),
		share,
	}
}

func translated(placements []*checkpoint.Placement) *translationsDoc {
	d := &translationsDoc{Link: "east->west", Time: noon, Current: &currentDoc{UpTo: noon.Add(-2 * time.Second), Instance: "host-1/812", Mode: "tail"}}
	for _, p := range placements {
		d.Offsets = append(d.Offsets, translationOf(p))
	}
	return d
}

// copiedLane is a lane that was opened twice, has a gap and a cut.
func copiedLane() offsets.LaneState {
	lane, first, second := offsets.Lane{Topic: "orders", Partition: 3}, offsets.Writer{ProducerID: 4000}, offsets.Writer{ProducerID: 4000, Epoch: 1}
	return offsets.StateOf(
		offsets.EpochRecord{Lane: lane, Writer: first, Source: 100, Target: 1, Time: noon.Add(-26 * time.Hour), Instance: "host-1/812"},
		offsets.Spans{Lane: lane, Writer: first, Runs: []offsets.Span{{Ordinal: 0, Source: 100}, {Ordinal: 10, Source: 115}}},
		offsets.Gap{Lane: lane, Writer: first, From: 110, To: 115, Reason: "retention", Time: noon.Add(-25 * time.Hour)},
		offsets.EpochRecord{Lane: lane, Writer: second, Ordinal: 20, Source: 125, Target: 22, Time: noon.Add(-time.Hour), Instance: "host-2/77"},
		offsets.Position{
			Lane: lane, Writer: second, Ordinal: 1234500, Source: 1234605, Target: 1234502, SourceEnd: 1234635,
			NewestTimestamp: noon.Add(-4 * time.Second).UnixMilli(), Time: noon.Add(-3 * time.Second),
		},
	)
}

func shownLanes() *lanesDoc {
	tail := offsets.Tail{State: copiedLane(), Start: 0, End: 1234502}
	bad := offsets.Tail{State: copiedLane(), Err: os.ErrPermission}
	return &lanesDoc{Link: "east->west", Time: noon, Lanes: []laneDoc{
		laneOf(offsets.Lane{Topic: "a.rather.long.name.of.a.topic.as.enterprises.like.them.v2", Partition: 117}, "east.a", tail, true),
		laneOf(offsets.Lane{Topic: "gone"}, "", offsets.Tail{}, false),
		laneOf(offsets.Lane{Topic: "orders", Partition: 3}, "east.orders", tail, true),
		laneOf(offsets.Lane{Topic: "orders", Partition: 4}, "east.orders", bad, true),
	}}
}

func shownLane() *lanesDoc {
	d := shownLanes()
	d.Lanes = d.Lanes[2:3]
	d.Lanes[0].Detail = detailOf(copiedLane(), 2)
	return d
}

// document is what a command prints for programs.
func document(t *testing.T, format string, doc any) string {
	t.Helper()
	var b strings.Builder
	if err := writeDocument(&b, format, doc); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOffsetsTablesAndDocuments(t *testing.T) {
	narrow, wide := screen{width: 80}, screen{wide: true}
	one := translated(committed()[3:4])
	one.Offsets[0].Group, one.Offsets[0].Type, one.Offsets[0].Committed = "", "", nil
	var lines bytes.Buffer
	exported := &exportDoc{
		Link:  linkDoc{Name: "east->west", From: "east", To: "west", TargetID: "Qx1J2b3kTn6aVd0mZr9c4A", JournalTopic: "j", CheckpointsTopic: "c", Time: noon, Current: translated(nil).Current},
		Lanes: shownLanes().Lanes, Checkpoints: translated(committed()).Offsets,
	}
	if err := exported.lines(&lines); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"offsets-translate-80.txt":   translated(committed()).table(narrow),
		"offsets-translate-wide.txt": translated(committed()).table(wide),
		"offsets-translate-none.txt": translated(nil).table(narrow),
		"offsets-translate.json":     document(t, "json", translated(committed())),
		"offsets-translate.yaml":     document(t, "yaml", translated(committed()[:2])),
		"offsets-one.txt":            one.single(narrow, false),
		"offsets-one-back.txt":       one.single(wide, true),
		"offsets-show-80.txt":        shownLanes().table(narrow),
		"offsets-show-wide.txt":      shownLanes().table(wide),
		"offsets-show-one-wide.txt":  shownLane().table(wide),
		"offsets-show-one.json":      document(t, "json", shownLane()),
		"offsets-export.jsonl":       lines.String(),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, ".txt") && strings.ContainsAny(got, "\x1b\u009b") {
				t.Errorf("a name reached the terminal as it is: %q", got)
			}
			if strings.HasSuffix(name, "80.txt") {
				for line := range strings.Lines(got) {
					if width(strings.TrimSuffix(line, "\n")) > 80 {
						t.Errorf("%d columns wide: %s", width(line), line)
					}
				}
			}
			golden(t, name, got)
		})
	}
}

func TestCSVIsWhatKafkasToolTakesAndNamesWhatIsLeftOut(t *testing.T) {
	var b strings.Builder
	left, err := translated(committed()).csv(&b, false)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"\"=HYPERLINK(\"\"x\"\"), \x1b[31mred\",east.orders,0,1234568",
		"billing,east.ledger,0,11",
		"billing,east.orders,0,1234568",
		"billing,east.orders,1,1234568",
		"billing,east.orders,2,101",
		"billing,east.orders,3,0",
		"",
	}, "\n")
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got) %s", d)
	}
	if d := cmp.Diff([]string{"billing refunds-11 (unknown)", "line\nbreak orders-0 (line break in its name)", "workers orders-0 (share group)"}, left); d != "" {
		t.Errorf("left out (-want +got) %s", d)
	}
	b.Reset()
	if _, err := translated(committed()[1:3]).csv(&b, true); err != nil || b.String() != "east.ledger,0,11\neast.orders,0,1234568\n" {
		t.Errorf("of one group: %q, %v", b.String(), err)
	}
}

func TestSelectionByNamePatternAndPartition(t *testing.T) {
	var all []*checkpoint.Checkpoint
	for _, p := range committed() {
		all = append(all, &p.Checkpoint)
	}
	for name, c := range map[string]struct {
		selection
		chosen  int
		missing []string
	}{
		"all":                   {selection{partition: -1}, 9, nil},
		"by name":               {selection{groups: []string{"billing"}, partition: -1}, 6, nil},
		"a pattern is whole":    {selection{pattern: "bill", partition: -1}, 0, nil},
		"a pattern":             {selection{pattern: "bill.*|work.*", partition: -1}, 7, nil},
		"names add to patterns": {selection{groups: []string{"workers"}, pattern: "bill.*", partition: -1}, 7, nil},
		"a name is no pattern":  {selection{groups: []string{"bill.*"}, partition: -1}, 0, []string{"bill.*"}},
		"a topic":               {selection{topic: "orders", partition: -1}, 7, nil},
		"a partition":           {selection{topic: "orders", partition: 1, groups: []string{"billing", "workers"}}, 1, []string{"workers"}},
	} {
		chosen, missing, err := c.choose(all)
		if err != nil || len(chosen) != c.chosen || !cmp.Equal(c.missing, missing) {
			t.Errorf("%s: %d chosen, missing %q, %v", name, len(chosen), missing, err)
		}
	}
	// A topic of which other partitions were copied is not said to be missing.
	for want, s := range map[string]selection{"topic orders": {topic: "orders", partition: -1}, "partition orders-9": {topic: "orders", partition: 9}} {
		if got := s.what(); got != want {
			t.Errorf("%+v is %q, want %q", s, got, want)
		}
	}
}

func TestOffsetsUsageErrors(t *testing.T) {
	t.Setenv("REPLICATOR_CONFIG", "")
	file := filepath.Join(t.TempDir(), "pair.yaml")
	text := "clusters:\n  east: {bootstrap_servers: [10.0.0.1:9092]}\n  west: {bootstrap_servers: [10.0.0.2:9092]}\nlinks:\n- {from: east, to: west, topics: [orders]}\n- {from: west, to: east, topics: [clicks]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"offsets", "translate", "-o", "xml"}, `"xml" is none of table, wide, json, yaml, csv`},
		{[]string{"offsets", "translate", "--at-source-offset", "5"}, "of which --topic and --partition?"},
		{[]string{"offsets", "translate", "--partition", "5"}, "of which --topic?"},
		{[]string{"offsets", "translate", "--topic", "t", "--partition", "0", "--at-source-offset", "5", "--at-target-offset", "5"}, "choose one of"},
		{[]string{"offsets", "translate", "--topic", "t", "--partition", "0", "--at-source-offset", "5", "--group", "g"}, "it has no group"},
		{[]string{"offsets", "translate", "--groups", "("}, "missing closing )"},
		{[]string{"offsets", "show", "--timeout", "0s"}, "choose timeout"},
		{[]string{"offsets", "show", "--spans", "-1"}, "choose spans"},
		{[]string{"offsets", "export", "-o", "table"}, "none of jsonl, json"},
		{[]string{"offsets", "show"}, "clusters: there are none"},
		{[]string{"groups", "apply", "-c", file, "--link", "east->west"}, "there is no terminal to ask on\nhint: --yes"},
		{[]string{"groups", "list", "-c", file}, "choose link: there are several: east->west, west->east\nhint: name one with --link"},
		{[]string{"groups", "plan", "-c", file, "--link", "east"}, `there is no "east": the configuration has east->west, west->east`},
	} {
		code, stdout, stderr := shell(t, c.args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: code %d, stdout %q, stderr %s", c.args, code, stdout, stderr)
		}
	}
	if _, stdout, _ := shell(t, "__complete", "offsets", "show", "-c", file, "--link", ""); !strings.Contains(stdout, "east->west\nwest->east\n") {
		t.Errorf("completion of --link: %s", stdout)
	}
	if _, stdout, _ := shell(t, "__complete", "offsets", "translate", "-o", ""); !strings.Contains(stdout, "csv") {
		t.Errorf("completion of -o: %s", stdout)
	}
}

// Every line of an export stands for itself, and says what it is.
func TestExportedLinesAreTheDocumentsOfTheOtherCommands(t *testing.T) {
	var b bytes.Buffer
	d := &exportDoc{Lanes: shownLanes().Lanes[2:3], Checkpoints: translated(committed()).Offsets[:1]}
	if err := d.lines(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	var lane laneDoc
	var offset translationDoc
	if err := json.Unmarshal([]byte(lines[1]), &lane); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[2]), &offset); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(d.Lanes[0], lane) + cmp.Diff(d.Checkpoints[0], offset); d != "" {
		t.Errorf("(-want +got) %s", d)
	}
}
