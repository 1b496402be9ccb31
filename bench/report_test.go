package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// example is a result of three rounds whose figures are easy to follow.
func example() *results {
	run := func(m mover, round int, wall, cpu time.Duration, peakMiB int64) copyRun {
		return copyRun{Mover: m, Round: round, Wall: wall, CPU: cpu, CPUAll: cpu + time.Second, Peak: peakMiB << 20, Share: 1}
	}
	s, ms := time.Second, time.Millisecond
	relayed := run(relay, 1, s, 150*ms, 9)
	relayed.Wire = 250_000_000
	return &results{
		Date: "2026-01-02", Command: "go run ./bench compare", Took: 61 * time.Minute,
		Machine: machine{CPU: "A Processor", Cores: 2, Memory: 24e9, Kernel: "Linux 6", Go: "go1.26", Java: "openjdk 17", Kafka: "4.3.1", Commit: "abc"},
		Trials: []*trialResult{
			{Name: "lz4", Doc: "1,000-byte records", Partitions: 8, Records: 1_000_000, Bytes: 1_000_000_000, WireBytes: 250_000_000, Runs: []copyRun{
				run(ours, 1, s, 300*ms, 50), run(ours, 2, 2*s, 400*ms, 60), run(ours, 3, 1500*ms, 350*ms, 40),
				run(mmTuned, 1, 8*s, 10*s, 800), run(mmTuned, 2, 9*s, 11*s, 700), run(mmTuned, 3, 7*s, 10500*ms, 900),
				run(mmDefault, 1, 20*s, 20*s, 800),
				relayed,
			}},
			{Name: "small", Doc: "ten & ten <more>", Partitions: 8, Records: 1000, Bytes: 100_000_000, WireBytes: 90_000_000, Runs: []copyRun{
				run(ours, 1, s, s, 50), run(mmTuned, 1, s, 3*s, 500),
			}},
			{Name: "failed", Doc: "nothing measured"},
		},
		Latency: []latencyRun{
			{Mover: direct, Records: 1000, P50: ms, P99: 2 * ms, P999: 3 * ms, Max: 4 * ms},
			{Mover: ours, Records: 1000, P50: 2 * ms, P99: 12 * ms, P999: 30 * ms, Max: 123 * ms},
			{Mover: mmTuned, Records: 1000, P50: 20 * ms, P99: 40 * ms, P999: 50 * ms, Max: 60 * ms},
		},
		Kill: []killRun{
			{Mover: ours, Round: 1, Stalled: 4, First: 10 * s, All: 11 * s, Acknowledged: 60000},
			{Mover: ours, Round: 2, Stalled: 4, First: 10 * s, All: 13 * s, Acknowledged: 61000, Doubled: 1},
			{Mover: mmTuned, Round: 1, Stalled: 8, First: 14 * s, All: 15 * s, Acknowledged: 60000, Doubled: 7000, Disordered: 8},
		},
		Resume: []resumeRow{{Who: "replicator", Lag: 100, Placed: 24, Exact: 24}, {Who: "MirrorMaker 2", Lag: 100, Placed: 23, Again: 1064.4, Most: 1645, NotPlaced: 1}},
		Errors: []string{"workload failed, replicator, round 1: it ended\nwith a log"},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (go test ./bench -update writes it):\n%s", path, diff)
	}
}

func TestReport(t *testing.T) {
	golden(t, "report.md", example().report("chart.svg"))
}

// What is saved says the same when it is read again.
func TestSave(t *testing.T) {
	dir := t.TempDir()
	if err := example().save(dir, "x"); err != nil {
		t.Fatal(err)
	}
	read := func() (text string) {
		for _, ending := range []string{".json", ".md", ".svg"} {
			b, err := os.ReadFile(filepath.Join(dir, "x"+ending))
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
		}
		return text
	}
	before := read()
	again := newReportCommand()
	again.SetArgs([]string{filepath.Join(dir, "x.json")})
	if err := again.Execute(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, read()); diff != "" {
		t.Error(diff)
	}
}

// A run that was killed early leaves a report of what there is.
func TestReportOfNothing(t *testing.T) {
	r := &results{Date: "2026-01-02"}
	if text := r.report(r.chart()); !strings.Contains(text, "not measured") || strings.Contains(text, "NaN") {
		t.Error(text)
	}
}

func TestChart(t *testing.T) {
	svg := example().chart()
	golden(t, "chart.svg", svg)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
	}
	if strings.Contains(svg, ">failed<") {
		t.Error("a workload without a figure is drawn")
	}
}

func TestAims(t *testing.T) {
	got := map[string]verdict{}
	for _, a := range aims() {
		v := a.judge(example())
		if _, twice := got[v.Aim]; twice {
			t.Errorf("two aims are called %q", v.Aim)
		}
		got[v.Aim] = v
	}
	for name, want := range map[string]string{
		"CPU per GB, lz4, against MirrorMaker 2, tuned":   "at most 1/30, 1/30: met",
		"CPU per GB, lz4, against MirrorMaker 2, default": "at most 1/70, 1/57.1: missed by a factor of 1.22",
		"CPU per GB, none, against MirrorMaker 2, tuned":  "at most 1/6, not measured: not measured",
		"CPU per GB on the wire, lz4, against the relay":  "at most 3x, 2.33x: met",
		"throughput, lz4, against MirrorMaker 2, tuned":   "at least 4x, 5.33x: met",
		"CPU per GB, small, against MirrorMaker 2, tuned": "at most 1/4, 1/3: missed by a factor of 1.33",
		"peak RSS, lz4, against MirrorMaker 2, tuned":     "at most 1/20, 1/16: missed by a factor of 1.25",
		"latency, p99": "at most 10 ms, 12 ms: missed by a factor of 1.20",
		"latency, p99, against MirrorMaker 2, tuned":             "at most 1/2, 1/3.33: met",
		"one partition over 80 ms of round trip":                 "at least 50 MB/s, not measured: not measured",
		"kill -9 until every partition moves again, the worst":   "at most 12 s, 13 s: missed by a factor of 1.08",
		"kill -9, records doubled":                               "0, 1: missed",
		"kill -9, records lost":                                  "0, 0: met",
		"records that groups read again, any lag, the worst":     "0, 0: met",
		"CPU per GB, transactions, against MirrorMaker 2, tuned": "at most 1/4, not measured: not measured",
	} {
		v, ok := got[name]
		if have := v.Wanted + ", " + v.Got + ": " + v.String(); !ok || have != want {
			t.Errorf("%s: %q, want %q", name, have, want)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want spread
	}{
		{nil, spread{}},
		{[]float64{4}, spread{1, 4, 4, 4}},
		{[]float64{9, 1, 2}, spread{3, 2, 1, 9}},
		{[]float64{4, 1, 2, 8}, spread{4, 3, 1, 8}},
	} {
		before := append([]float64(nil), c.in...)
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.in, got, c.want)
		}
		if diff := cmp.Diff(before, c.in); diff != "" {
			t.Errorf("the argument changed: %s", diff)
		}
	}
}

func TestTrialFigures(t *testing.T) {
	// Half of the records in two seconds with one of CPU.
	tr := &trialResult{Bytes: 4e9, WireBytes: 1e9}
	r := copyRun{Wall: 2 * time.Second, CPU: time.Second, Share: 0.5}
	if got := tr.speed(r); got != 1000 {
		t.Errorf("%v MB/s, want 1000", got)
	}
	if got := tr.cpuPerGB(r); got != 0.5 {
		t.Errorf("%v CPU s/GB, want 0.5", got)
	}
	if got := tr.cpuPerWireGB(r); got != 2 {
		t.Errorf("%v CPU s/GB on the wire, want 2", got)
	}
}
