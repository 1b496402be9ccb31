package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// memory is a sink that can refuse, and lose an answer.
type memory struct {
	lines  [][]byte
	refuse error
	lose   bool // takes the event and says that it did not
}

func (m *memory) Write(_ context.Context, e Event) error {
	if m.refuse != nil {
		return m.refuse
	}
	line, err := e.Encode()
	if err != nil {
		return err
	}
	m.lines = append(m.lines, line)
	if m.lose {
		m.lose = false
		return errors.New("no answer")
	}
	return nil
}

func (m *memory) events(t *testing.T) []Event {
	t.Helper()
	events, err := FromLines(sampleRun, m.lines)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func record(t *testing.T, r *Recorder, notes []note) {
	t.Helper()
	for _, n := range notes {
		if err := r.Record(t.Context(), n.kind, n.step, n.doc); err != nil {
			t.Fatal(err)
		}
	}
}

func start(t *testing.T, cfg Config) *Recorder {
	t.Helper()
	r, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// written is the bundle of a whole run.
func written(t *testing.T, notes []note) string {
	t.Helper()
	r := start(t, Config{Run: sampleRun, Dir: t.TempDir()})
	record(t, r, notes)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return r.Bundle()
}

func judge(t *testing.T, path string) *Verdict {
	t.Helper()
	v, err := Verify(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestARunLeavesAValidBundleAtEveryMoment(t *testing.T) {
	r := start(t, Config{Run: sampleRun, Dir: t.TempDir()})
	defer r.Close()
	notes := switchover(3)
	for i, n := range notes {
		record(t, r, []note{n})
		v := judge(t, r.Bundle())
		if complete := i == len(notes)-1; !v.Valid || v.Complete != complete || v.Events != i+1 || v.Head != r.Head() || v.Run != sampleRun {
			t.Fatalf("after event %d: %+v", i+1, v)
		}
	}
	if _, err := Start(Config{Run: sampleRun, Dir: filepath.Dir(r.Bundle())}); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("a second recorder of the same bundle: %v", err)
	}
}

func TestWhoIsKilledWhileTheReportIsReplacedLeavesAValidBundle(t *testing.T) {
	for _, before := range []int{3, 30} { // the first report, and a later one
		notes := switchover(3)
		dir := t.TempDir()
		r := start(t, Config{Run: sampleRun, Dir: dir})
		record(t, r, notes[:before])
		b := r.bundle
		e, err := r.chain.Append(KindChecks, "x", ChecksDoc{{Name: "new", OK: true}})
		if err != nil {
			t.Fatal(err)
		}
		r.events = append(r.events, e)
		story := Tell(r.events)
		page, _ := story.HTML()
		summary, _ := story.Summary()
		bodies := map[string][]byte{reportFile: page, summaryFile: summary}
		for i, step := range []func() error{
			func() error { return b.append(e) },
			func() error { return b.writeManifest(false, bodies) },
			func() error { return os.WriteFile(filepath.Join(b.dir, scratch(reportFile)), page[:9], 0o600) },
			func() error { return b.replace(reportFile, page) },
			func() error { return b.replace(summaryFile, summary) },
			func() error { return b.writeManifest(false, nil) },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
			if v := judge(t, b.dir); !v.Valid || v.Complete || v.Events != before+1 {
				t.Errorf("killed after %d of %d events, action %d: %+v", before, len(notes), i, v)
			}
		}
		r.Close()
		again, err := Resume(Config{Run: sampleRun, Dir: dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		record(t, again, notes[before:])
		again.Close()
		if v := judge(t, b.dir); !v.Complete {
			t.Errorf("taken up again: %+v", v)
		}
	}
}

func TestALineThatWasNotFinishedDoesNotCount(t *testing.T) {
	notes := switchover(2)
	for _, keep := range []int{1, 100, -1} { // bytes of the last line; -1: all but its end
		dir := written(t, notes[:10])
		path := filepath.Join(dir, eventsFile)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1 + keep
		if keep < 0 {
			cut = len(whole) - 1
		}
		if err := os.Truncate(path, int64(cut)); err != nil {
			t.Fatal(err)
		}
		if v := judge(t, dir); !v.Valid || v.Complete || v.Events != 9 {
			t.Errorf("cut at %d: %+v", cut, v)
		}
		r, err := Resume(Config{Run: sampleRun, Dir: filepath.Dir(dir)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		record(t, r, notes[9:])
		r.Close()
		if v := judge(t, dir); !v.Complete || v.Events != len(notes) {
			t.Errorf("taken up again after a cut at %d: %+v", cut, v)
		}
	}
}

func TestASinkThatFailsGetsItsEventsLater(t *testing.T) {
	flaky, steady := &memory{}, &memory{}
	r := start(t, Config{Run: sampleRun, Dir: t.TempDir(), Sinks: []Sink{flaky, steady}})
	defer r.Close()
	notes := switchover(2)
	record(t, r, notes[:4])
	flaky.refuse = errors.New("cluster is away")
	for _, n := range notes[4:8] {
		if err := r.Record(t.Context(), n.kind, n.step, n.doc); !errors.Is(err, flaky.refuse) {
			t.Fatalf("record: %v", err)
		}
	}
	if len(flaky.lines) != 4 || len(steady.lines) != 8 || judge(t, r.Bundle()).Events != 8 {
		t.Fatalf("while one sink is away: %d, %d", len(flaky.lines), len(steady.lines))
	}
	flaky.refuse, flaky.lose = nil, true
	if err := r.Flush(t.Context()); err == nil {
		t.Error("an answer was lost and Flush says nothing")
	}
	record(t, r, notes[8:])
	if len(flaky.lines) != len(notes)+1 {
		t.Fatalf("the sink has %d lines", len(flaky.lines))
	}
	a, b := flaky.events(t), steady.events(t) // once, although one came twice
	if !slices.EqualFunc(a, b, func(x, y Event) bool { return x.Hash == y.Hash }) {
		t.Error("the sinks tell different stories")
	}
	if _, err := Resume(Config{Run: sampleRun}, a); err != nil {
		t.Errorf("resume: %v", err)
	}
}

func TestAResumedRunHasWhatTopicAndBundleHad(t *testing.T) {
	notes := switchover(2)
	all := chained(t, sampleRun, notes)
	other := chained(t, sampleRun, append(slices.Clone(notes[:5]), note{KindChecks, "elsewhere", ChecksDoc{}}, notes[6]))
	for _, c := range []struct {
		name         string
		local, topic []Event
		want         []Event // after Resume
		aside        bool
	}{
		{"nothing", nil, nil, nil, false},
		{"another machine", nil, all[:7], all[:7], false},
		{"the same", all[:7], all[:7], all[:7], false},
		{"the bundle has more", all[:9], all[:7], all[:9], false},
		{"the topic has more", all[:4], all[:7], all[:7], false},
		{"others went on", other, all[:8], all[:8], true},
		{"others went on, both as long", other[:7], all[:7], all[:7], true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.local != nil {
				if _, err := Export(dir, sampleRun, c.local); err != nil {
					t.Fatal(err)
				}
			}
			topic := &memory{}
			r, err := Resume(Config{Run: sampleRun, Dir: dir, Sinks: []Sink{topic}}, c.topic)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if !slices.EqualFunc(r.Events(), c.want, func(x, y Event) bool { return x.Hash == y.Hash }) {
				t.Errorf("resumed with %d events, want %d", len(r.Events()), len(c.want))
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(topic.lines) + len(c.topic); got != len(c.want) {
				t.Errorf("the topic has %d events, want %d", got, len(c.want))
			}
			record(t, r, notes[len(c.want):])
			if v := judge(t, r.Bundle()); !v.Complete || v.Events != len(notes) {
				t.Errorf("%+v", v)
			}
			left, _ := filepath.Glob(filepath.Join(dir, "*.left-*"))
			if (len(left) == 1) != c.aside {
				t.Errorf("moved aside: %v", left)
			}
			if c.aside && !judge(t, left[0]).Valid {
				t.Error("what was moved aside does not hold")
			}
		})
	}
	if _, err := Resume(Config{Run: "../../etc", Dir: t.TempDir()}, nil); !errors.Is(err, ErrRun) {
		t.Errorf("a run that is a path: %v", err)
	}
}

func TestLargeTablesComeInPartsThatATopicTakes(t *testing.T) {
	lanes := make(LanesDoc, 12_000)
	for i := range lanes {
		lanes[i] = LaneRow{Topic: strings.Repeat("t", 200), Partition: int32(i), MapDigest: strings.Repeat("a", 64)}
	}
	fence := FenceDoc{Lanes: 12_000, Rows: make([]FenceRow, 12_000)}
	for i := range fence.Rows {
		fence.Rows[i] = FenceRow{Topic: "t", Partition: int32(i), Answer: strings.Repeat("x", 80)}
	}
	r := start(t, Config{Run: sampleRun})
	record(t, r, []note{{KindLanes, "gates", lanes[:3]}, {KindLanes, "drain", lanes}, {KindFence, "fence", fence}, {KindGroups, "groups", GroupsDoc(nil)}})
	loss := &LossDoc{Rows: make([]LossRow, 12_000)}
	stranded := &StrandedDoc{Rows: make([]StrandedRow, 12_000)}
	for i := range loss.Rows {
		loss.Rows[i], stranded.Rows[i] = LossRow{Topic: strings.Repeat("t", 100)}, StrandedRow{Topic: strings.Repeat("t", 100), Partition: int32(i)}
	}
	record(t, r, []note{{KindLoss, "gates", loss}, {KindStranded, "stranded", stranded}})
	if n := len(r.Events()); n < 12 {
		t.Errorf("%d events", n)
	}
	for _, e := range r.Events() {
		if line, err := e.Encode(); err != nil || len(line) > MaxEventBytes {
			t.Errorf("event %d: %d bytes, %v", e.Seq, len(line), err)
		}
	}
	s := Tell(r.Events())
	if len(s.Loss.Rows) != 12_000 || len(s.Stranded.Rows) != 12_000 {
		t.Errorf("%d rows of loss, %d of stranded records", len(s.Loss.Rows), len(s.Stranded.Rows))
	}
	if len(s.Lanes) != 12_000 || len(s.Fence.Rows) != 12_000 || s.Fence.Lanes != 12_000 || len(s.Unread) > 0 {
		t.Fatalf("%d lanes, %d fence rows, %v", len(s.Lanes), len(s.Fence.Rows), s.Unread)
	}
	for i := range s.Lanes {
		if s.Lanes[i].Partition != int32(i) || s.Fence.Rows[i].Partition != int32(i) {
			t.Fatalf("row %d is %d, %d", i, s.Lanes[i].Partition, s.Fence.Rows[i].Partition)
		}
	}
	if err := r.Record(t.Context(), KindHook, "", HookDoc{Output: strings.Repeat("x", MaxEventBytes)}); err == nil {
		t.Error("an event larger than a topic takes was made")
	}
	record(t, r, []note{{KindStep, "s", StepDoc{Name: "s", Outcome: StepDone}}}) // the chain did not break
	if _, err := ResumeChain(sampleRun, r.Events()); err != nil {
		t.Error(err)
	}
}

// Canaries that must not be anywhere in what a run leaves.
func TestSecretsAreNowhere(t *testing.T) {
	const canary = "c4nary"
	known := `p"<w>d-` + canary
	doc := []note{
		{KindPlan, "", PlanDoc{Verb: "drill", Why: "with " + known, Options: map[string]string{"sasl-password": canary, "password-file": "file:/etc/p", "url": "https://ada:" + canary + "@h/"}}},
		{KindLanes, "", LanesDoc{{Topic: "t-" + known}}},
		{KindHook, "", HookDoc{
			Command: []string{"dns", "--api-token", canary, "--secret=" + canary, "-x"},
			Output: strings.ReplaceAll("Authorization: Bearer CANARY0123\npassword: 'CANARY x'\n--password CANARY\nexport AWS_SECRET_ACCESS_KEY=CANARY\n"+
				"-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----\n{\"client_secret\": \"CANARY\"}", "CANARY", canary),
			Error: "dial postgres://u:" + canary + "@db: refused",
		}},
		{KindStep, "", StepDoc{Name: "s", Outcome: StepFailed, Proof: "eyJhbGciOiJI." + canary + "abcdef.sig"}},
		{KindOutcome, "", OutcomeDoc{Outcome: OutcomeFailed, Error: known}},
	}
	sink := &memory{}
	r := start(t, Config{Run: sampleRun, Dir: t.TempDir(), Sinks: []Sink{sink}, Secrets: []string{known, "", "abc"}})
	record(t, r, doc)
	r.Close()
	archive := filepath.Join(t.TempDir(), "x.tar.gz")
	if err := Pack(r.Bundle(), archive); err != nil {
		t.Fatal(err)
	}
	c, err := readBundle(archive)
	if err != nil {
		t.Fatal(err)
	}
	c.files["sink"] = bytes.Join(sink.lines, []byte("\n"))
	for name, body := range c.files {
		if i := bytes.Index(body, []byte(canary)); i >= 0 {
			t.Errorf("%s: …%s…", name, body[max(0, i-60):min(len(body), i+20)])
		}
	}
	if !bytes.Contains(c.files["sink"], []byte("file:/etc/p")) || !bytes.Contains(c.files["sink"], []byte(redacted)) {
		t.Error("too much was left out, or nothing")
	}
	if !judge(t, archive).Complete {
		t.Error("the bundle does not hold")
	}
}

func TestChainsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewChain(sampleRun)
		var events []Event
		var lines [][]byte
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			e, err := c.Append(Kind(rapid.String().Draw(t, "kind")), rapid.String().Draw(t, "step"), rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "data"))
			if err != nil {
				t.Fatal(err)
			}
			line, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			events, lines = append(events, e), append(lines, line)
		}
		again, err := FromLines(sampleRun, lines)
		if err != nil {
			t.Fatal(err)
		}
		if again[len(again)-1].Hash != c.Head() {
			t.Fatal("another head")
		}
		if _, err := Tell(again).HTML(); err != nil {
			t.Fatal(err)
		}
		// By the rule that the documentation gives for other tools.
		prev := digest([]byte(sampleRun))
		for _, line := range lines {
			end := bytes.LastIndex(line, []byte(`,"hash":"`))
			var e struct{ Prev, Hash string }
			if err := json.Unmarshal(line, &e); err != nil || e.Prev != prev || digest(append(slices.Clone(line[:end]), '}')) != e.Hash {
				t.Fatalf("the documented rule does not hold: %v", err)
			}
			prev = e.Hash
		}
		// Any one change is seen.
		i := rapid.IntRange(0, len(lines)-1).Draw(t, "line")
		at := rapid.IntRange(0, len(lines[i])-1).Draw(t, "byte")
		lines[i][at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if _, err := FromLines(sampleRun, lines); err == nil {
			t.Fatalf("a flipped byte %d of line %d was not seen: %s", at, i, lines[i])
		}
	})
}
