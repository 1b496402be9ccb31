package evidence

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

// bundleOf is a complete bundle in memory.
func bundleOf(t testing.TB, events []Event) map[string][]byte {
	t.Helper()
	dir, err := Export(t.TempDir(), sampleRun, events)
	if err != nil {
		t.Fatal(err)
	}
	c, err := readBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c.files
}

func lay(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rechain writes the events anew, with hashes that hold.
func rechain(t *testing.T, events []Event) []Event {
	t.Helper()
	c := NewChain(sampleRun)
	out := make([]Event, len(events))
	for i, e := range events {
		e.Seq, e.Prev, e.Hash = c.seq+1, c.head, ""
		var err error
		if e.Hash, err = e.hash(); err != nil {
			t.Fatal(err)
		}
		c.seq, c.head = e.Seq, e.Hash
		out[i] = e
	}
	return out
}

func TestTamperingIsFound(t *testing.T) {
	events := chained(t, sampleRun, switchover(3))
	head := Anchor{Seq: len(events), Hash: events[len(events)-1].Hash}
	lines := func(f map[string][]byte) [][]byte {
		return bytes.SplitAfter(bytes.TrimSuffix(f[eventsFile], []byte("\n")), []byte("\n"))
	}
	put := func(f map[string][]byte, l [][]byte) { f[eventsFile] = append(bytes.Join(l, nil), '\n') }
	forged := slices.Clone(events)
	forged[3].Data = json.RawMessage(`[{"name":"lag","ok":true}]`)
	for _, c := range []struct {
		name   string
		change func(f map[string][]byte)
		anchor *Anchor
		finds  string // the finding that fails; empty: the bundle is valid
		says   string
	}{
		{"nothing", func(map[string][]byte) {}, &head, "", ""},
		{"a byte of an event", func(f map[string][]byte) {
			f[eventsFile] = bytes.Replace(f[eventsFile], []byte("12 ms apart"), []byte("13 ms apart"), 1)
		}, nil, "events", "event 4 was changed"},
		{"a space in an event", func(f map[string][]byte) {
			f[eventsFile] = bytes.Replace(f[eventsFile], []byte(`"seq":4,`), []byte(`"seq": 4,`), 1)
		}, nil, "events", "line 4"},
		{"an event dropped", func(f map[string][]byte) { put(f, slices.Delete(lines(f), 6, 7)) }, nil, "events", "event 8 follows event 6"},
		{"an event twice", func(f map[string][]byte) { l := lines(f); put(f, slices.Insert(l, 6, l[5])) }, nil, "events", "or twice"},
		{"two swapped", func(f map[string][]byte) { l := lines(f); l[6], l[7] = l[7], l[6]; put(f, l) }, nil, "events", "event 8 follows event 6"},
		{"the tail dropped", func(f map[string][]byte) {
			put(f, lines(f)[:20])
			f[eventsFile] = bytes.TrimSuffix(f[eventsFile], []byte("\n"))
		}, nil, "manifest", "of which 20 are there"},
		{"the end of the last line", func(f map[string][]byte) { f[eventsFile] = bytes.TrimSuffix(f[eventsFile], []byte("\n")) }, nil, "manifest", "the end was cut off"},
		{"an event added", func(f map[string][]byte) {
			chain, err := ResumeChain(sampleRun, events)
			if err != nil {
				t.Fatal(err)
			}
			e, _ := chain.Append(KindChecks, "", ChecksDoc{})
			line, _ := e.Encode()
			f[eventsFile] = append(f[eventsFile], append(line, '\n')...)
		}, nil, "manifest", "sealed with"},
		{"the tail dropped and the manifest taken away", func(f map[string][]byte) {
			put(f, lines(f)[:20])
			f[eventsFile] = bytes.TrimSuffix(f[eventsFile], []byte("\n"))
			delete(f, manifestFile)
		}, &head, "anchor", "cut off"},
		{"everything written anew", func(f map[string][]byte) { clear(f); maps.Copy(f, bundleOf(t, rechain(t, forged))) }, &head, "anchor", "written anew"},
		{"everything written anew, the hash alone", func(f map[string][]byte) { clear(f); maps.Copy(f, bundleOf(t, rechain(t, forged))) }, &Anchor{Hash: head.Hash}, "anchor", "no event has this hash"},
		{"everything written anew, nothing to compare with", func(f map[string][]byte) { clear(f); maps.Copy(f, bundleOf(t, rechain(t, forged))) }, nil, "", ""},
		{"the report", func(f map[string][]byte) {
			f[reportFile] = bytes.Replace(f[reportFile], []byte("0 records"), []byte("9 records"), 1)
		}, nil, "files", "report.html is not as it was written"},
		{"the report and its hash", func(f map[string][]byte) {
			was := digest(f[reportFile])
			f[reportFile] = bytes.Replace(f[reportFile], []byte("0 records"), []byte("9 records"), 1)
			f[manifestFile] = bytes.Replace(f[manifestFile], []byte(was), []byte(digest(f[reportFile])), 1)
		}, &head, "report", "does not show what the events say"},
		{"the summary", func(f map[string][]byte) { f[summaryFile] = append(f[summaryFile], ' ') }, nil, "files", "summary.json is not"},
		{"the head in the manifest", func(f map[string][]byte) {
			f[manifestFile] = bytes.Replace(f[manifestFile], []byte(head.Hash), []byte(strings.Repeat("0", 64)), 1)
		}, nil, "manifest", "head"},
		{"another run's manifest", func(f map[string][]byte) {
			f[manifestFile] = bytes.Replace(f[manifestFile], []byte("-3f9a"), []byte("-3f9b"), 1)
		}, nil, "manifest", "of run"},
		{"the report removed", func(f map[string][]byte) { delete(f, reportFile) }, nil, "files", "missing"},
		{"a file added", func(f map[string][]byte) { f["notes.txt"] = []byte("x") }, nil, "bundle", "notes.txt"},
		{"an older anchor", func(map[string][]byte) {}, &Anchor{Seq: 10, Hash: events[9].Hash}, "", ""},
		{"an anchor of another event", func(map[string][]byte) {}, &Anchor{Seq: 11, Hash: events[9].Hash}, "anchor", "event 10, not of event 11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := bundleOf(t, events)
			c.change(files)
			v, err := Verify(lay(t, files), c.anchor)
			if err != nil {
				t.Fatal(err)
			}
			if v.Valid != (c.finds == "") {
				t.Fatalf("valid: %t: %+v", v.Valid, v.Findings)
			}
			i := slices.IndexFunc(v.Findings, func(f Finding) bool { return f.Name == c.finds && f.Result == Bad })
			if c.finds != "" && (i < 0 || !strings.Contains(v.Findings[i].Detail, c.says)) {
				t.Errorf("want %s: %s in %+v", c.finds, c.says, v.Findings)
			}
		})
	}
}

func TestArchives(t *testing.T) {
	dir := written(t, switchover(3))
	for _, name := range []string{"x.tar.zst", "x.tar.gz"} {
		archive := filepath.Join(t.TempDir(), name)
		if err := Pack(dir, archive); err != nil {
			t.Fatal(err)
		}
		if v := judge(t, archive); !v.Complete || v.Head != judge(t, dir).Head {
			t.Errorf("%s: %+v", name, v)
		}
		body, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		changed := filepath.Join(t.TempDir(), name)
		for at := 0; at < len(body); at += max(1, len(body)/60) {
			for _, damaged := range [][]byte{body[:at], append(append(slices.Clone(body[:at]), body[at]^0x10), body[at+1:]...)} {
				if err := os.WriteFile(changed, damaged, 0o600); err != nil {
					t.Fatal(err)
				}
				v, err := Verify(changed, nil)
				if err != nil || !v.Valid {
					continue
				}
				// A bit of a header that says nothing about the content, as gzip's time, may be turned.
				if again, err := readBundle(changed); err != nil || len(damaged) < len(body) || !sameFiles(again.files, dir) {
					t.Fatalf("%s of %d bytes, damage at %d of %d was not seen", name, len(body), at, len(damaged))
				}
			}
		}
	}
	if err := Pack(dir, "x.zip"); err == nil {
		t.Error("packed to a zip")
	}
}

func sameFiles(files map[string][]byte, dir string) bool {
	c, err := readBundle(dir)
	return err == nil && cmp.Equal(c.files, files)
}

func TestHostileArchives(t *testing.T) {
	files := bundleOf(t, chained(t, sampleRun, switchover(2)))
	gz := func(write func(*tar.Writer)) string {
		var body bytes.Buffer
		z := gzip.NewWriter(&body)
		w := tar.NewWriter(z)
		write(w)
		w.Close()
		z.Close()
		name := filepath.Join(t.TempDir(), "x.tar.gz")
		if err := os.WriteFile(name, body.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	add := func(w *tar.Writer, name string, body []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(body)
	}
	good := func(w *tar.Writer) {
		for name, body := range files {
			add(w, "run/"+name, body)
		}
	}
	var bomb bytes.Buffer
	z, err := zstd.NewWriter(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	w.WriteHeader(&tar.Header{Name: "run/padding", Size: 3 * maxArchive, Typeflag: tar.TypeReg, Mode: 0o600})
	io.CopyN(w, zeros{}, 3*maxArchive)
	w.Close()
	z.Close()
	bombFile := filepath.Join(t.TempDir(), "x.tar.zst")
	if err := os.WriteFile(bombFile, bomb.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, says string }{
		"outside":   {gz(func(w *tar.Writer) { good(w); add(w, "../report.html", nil) }), "not where files"},
		"absolute":  {gz(func(w *tar.Writer) { good(w); add(w, "/etc/passwd", nil) }), "not where files"},
		"elsewhere": {gz(func(w *tar.Writer) { good(w); add(w, "other/report.html", nil) }), "not where files"},
		"twice":     {gz(func(w *tar.Writer) { good(w); add(w, "run/report.html", nil) }), "twice"},
		"link": {gz(func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "run/report.html", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink})
			good(w)
		}), "is not a file"},
		"more": {gz(func(w *tar.Writer) { good(w); add(w, "run/virus.exe", nil) }), "does not belong"},
		"many": {gz(func(w *tar.Writer) {
			good(w)
			for i := range 100 {
				add(w, fmt.Sprint("run/", i), nil)
			}
		}), "members"},
		"bomb":        {bombFile, "holds more than"},
		"large entry": {gz(func(w *tar.Writer) { add(w, "run/summary.json", make([]byte, largest[summaryFile]+1)); good(w) }), "larger than"},
	} {
		v, err := Verify(c.path, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v.Valid || !strings.Contains(v.Findings[0].Detail, c.says) {
			t.Errorf("%s: %+v", name, v.Findings)
		}
	}
	if v := judge(t, gz(good)); !v.Complete {
		t.Errorf("a good one: %+v", v)
	}
	dir := lay(t, files)
	os.Remove(filepath.Join(dir, reportFile))
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, reportFile)); err != nil {
		t.Fatal(err)
	}
	if v := judge(t, dir); v.Valid {
		t.Error("a link counts as a file")
	}
	for _, path := range []string{t.TempDir(), "/dev/null", filepath.Join(dir, summaryFile), dir + "x"} {
		if _, err := Verify(path, nil); err == nil {
			t.Errorf("%s is a bundle", path)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAnchorsAreReadAsTheyAreWritten(t *testing.T) {
	for _, a := range []Anchor{{Hash: digest(nil)}, {Seq: 34, Hash: digest(nil)}} {
		if got, err := ParseAnchor(" " + strings.ToUpper(a.String()) + "\n"); err != nil || got != a {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	for _, s := range []string{"", "12", "0:" + digest(nil), digest(nil)[1:], "99999999999:" + digest(nil)} {
		if a, err := ParseAnchor(s); err == nil {
			t.Errorf("%q is %v", s, a)
		}
	}
}

// The report is compared byte by byte by verify: raise reportVersion when this file changes.
func TestReportIsTheSameForTheSameEvents(t *testing.T) {
	page, err := Tell(chained(t, sampleRun, switchover(60))).HTML()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", fmt.Sprintf("report-%d.html", reportVersion))
	if *update {
		if err := os.WriteFile(path, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(page)); d != "" {
		t.Errorf("%s (-want +got): raise reportVersion\n%s", path, d)
	}
}

func TestAReportNamesEveryFileOfStrandedRecords(t *testing.T) {
	rows := func(records ...int64) (all []StrandedRow) {
		for i, n := range records {
			all = append(all, StrandedRow{Topic: "orders", Partition: int32(i), To: n, Records: n})
		}
		return all
	}
	page, err := Tell(chained(t, sampleRun, []note{
		{KindStranded, "stranded", StrandedDoc{Rows: rows(10, 10), Decision: StrandedExport}},
		{KindStranded, "stranded", StrandedDoc{Rows: rows(10, 10), Decision: StrandedExport, File: "/home/ann/stranded.jsonl", SHA256: "abc"}},
		{KindStranded, "stranded", StrandedDoc{Rows: rows(10, 10), Decision: StrandedExport, File: "/home/ann/stranded.jsonl", SHA256: "abc"}}, // killed before it appeared
		{KindStranded, "stranded", StrandedDoc{Rows: rows(5), Decision: StrandedExport, File: "/home/ann/stranded.2.jsonl", SHA256: "def"}},
		{KindStranded, "stranded", StrandedDoc{Rows: rows(5), Decision: StrandedExport}},
	})).HTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Exported: 20 records to /home/ann/stranded.jsonl, SHA-256 abc.", "Exported: 5 records to /home/ann/stranded.2.jsonl, SHA-256 def."} {
		if n := bytes.Count(page, []byte(want)); n != 1 {
			t.Errorf("%q stands there %d times", want, n)
		}
	}
}

// Names of topics, groups and people are text in the report, whatever is in them.
func TestNamesAreInert(t *testing.T) {
	evil := "<script>alert(1)</script>\"'><img src=x onerror=y>\x1b[31m\u202e../../{{.Run}}</style>"
	events := chained(t, sampleRun, []note{
		{KindPlan, "", PlanDoc{Verb: evil, From: evil, To: evil, By: evil, Why: evil, Link: evil, Tool: evil, Fence: evil, Options: map[string]string{evil: evil}, Actions: []Action{{Step: evil, What: evil}}}},
		{KindRegions, "", RegionsDoc{When: When(evil), Rows: []RegionRow{{Region: evil, Role: evil}}}},
		{KindGates, evil, GatesDoc{{Name: evil, Detail: evil, Fix: evil}}},
		{KindLanes, evil, LanesDoc{{Topic: evil, MapDigest: evil, Writer: evil}}},
		{KindGroups, evil, GroupsDoc{{Group: evil, Topic: evil, Outcome: evil}}},
		{KindVerify, evil, VerifyDoc{Sum: evil, First: []Difference{{What: evil}}}},
		{KindFence, evil, FenceDoc{Basis: []string{evil}, Rows: []FenceRow{{Topic: evil, Answer: evil}}}},
		{KindStranded, evil, StrandedDoc{Rows: []StrandedRow{{Topic: evil, Records: 1}}, Decision: evil, File: evil, SHA256: evil}},
		{KindHook, evil, HookDoc{Command: []string{evil}, Output: evil, Error: evil, When: evil, Step: evil}},
		{KindStep, evil, StepDoc{Name: evil, Outcome: evil, Proof: evil}},
		{Kind(evil), evil, nil},
		{KindOutcome, "", OutcomeDoc{Outcome: evil, Error: evil, Next: evil}},
	})
	page, err := Tell(events).HTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"<script", "<img", "\x1b", "\u202e", "onerror=y>"} {
		if i := bytes.Index(page, []byte(never)); i >= 0 {
			t.Errorf("%q stands in the report: …%s", never, page[max(0, i-100):i+len(never)])
		}
	}
	if n := bytes.Count(page, []byte("</style>")); n != 1 {
		t.Errorf("%d ends of the style", n)
	}
	if !bytes.Contains(page, []byte("&lt;script&gt;")) {
		t.Error("the names are not there at all")
	}
}

func FuzzEvents(f *testing.F) {
	for _, notes := range [][]note{switchover(2), {{KindPlan, "", PlanDoc{}}, {KindStep, "", StepDoc{}}, {KindOutcome, "", OutcomeDoc{}}}} {
		f.Add(bundleOf(f, chained(f, sampleRun, notes))[eventsFile], true)
		f.Add([]byte(`{"verb":"","actions":null}`), false)
		f.Add([]byte(`[{"lag":null},{"lag":-9223372036854775808}]`), false)
		f.Add([]byte(`{"took_seconds":1e308,"rto_seconds":-1e308,"outcome":""}`), false)
	}
	kinds := []Kind{KindPlan, KindRegions, KindGates, KindLanes, KindLoss, KindGrowth, KindChecks, KindVerify, KindGroups, KindAuthority, KindFence, KindStranded, KindHook, KindStep, KindOutcome}
	f.Fuzz(func(t *testing.T, data []byte, lines bool) {
		var events []Event
		if lines {
			var whole int
			events, whole, _ = readEvents(sampleRun, data)
			if whole > len(data) {
				t.Fatal("more was read than there is")
			}
		} else if json.Valid(data) { // documents of any content in a chain that holds
			c := fixedChain(sampleRun)
			for _, kind := range kinds {
				for part := range 3 {
					e, err := c.append(kind, string(data[:min(4, len(data))]), part, 2, json.RawMessage(data))
					if err != nil {
						return
					}
					events = append(events, e)
				}
			}
		}
		s := Tell(events)
		if _, err := s.HTML(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Summary(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzArchive(f *testing.F) {
	dir := lay(f, bundleOf(f, chained(f, sampleRun, switchover(1))))
	for _, name := range []string{"x.tar.zst", "x.tar.gz"} {
		archive := filepath.Join(f.TempDir(), name)
		if err := Pack(dir, archive); err != nil {
			f.Fatal(err)
		}
		body, err := os.ReadFile(archive)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := readArchive(bytes.NewReader(data))
		if err != nil {
			return
		}
		v := &Verdict{}
		events := v.events(c)
		m := v.manifest(c, events)
		v.files(c, m)
		v.report(c, m, events)
		v.outcome(m, events)
	})
}
