package demo

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"replicator/internal/compare"
)

func TestADurationOutOfBoundsIsRefused(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, time.Millisecond, time.Hour} {
		if err := Run(t.Context(), Options{Out: io.Discard, Duration: d}); err == nil || !strings.Contains(err.Error(), "is not within 1s and 2m0s") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

func TestADaemonThatDoesNotStartEndsTheDemoWithWhatItSaid(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, c := range []struct {
		command []string
		want    []string
	}{
		{[]string{"/nonexistent/replicator"}, []string{"start daemon A", "no such file"}},
		{[]string{"sh", "-c", "echo out of order; exit 7"}, []string{"daemon A", "exit status 7", "out of order"}},
	} {
		err := Run(t.Context(), Options{Command: c.command, Out: io.Discard, Duration: time.Second})
		if err == nil {
			t.Fatalf("%v: a demo without daemons passed", c.command)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q is not in %v", c.command, want, err)
			}
		}
	}
}

// Whatever of a proof is missing, it is not called one.
func TestOnlyACompleteProofIsOne(t *testing.T) {
	good := func() findings {
		r := compare.Report{Partitions: make([]compare.PartitionReport, 11), SourceSum: 7, TargetSum: 7}
		r.Total = compare.Counts{SourceRecords: 1200, TargetRecords: 1200, Matched: 1200}
		return findings{report: r, produced: 1200, kills: 3, planned: 3}
	}
	const want = "PROVED: 1,200 records in 11 partitions, 3 kill -9: 0 lost, 0 doubled, order kept, checksums equal."
	if got := good(); got.err() != nil || got.String() != want {
		t.Errorf("%q, %v", got, got.err())
	}
	for _, c := range []struct {
		spoil func(*findings)
		want  string
	}{
		{func(f *findings) { f.report.Total.Missing = 2000 }, "2,000 lost"},
		{func(f *findings) { f.report.Total.Doubled, f.report.Total.Reordered = 1, 2 }, "1 doubled, 2 out of order"},
		{func(f *findings) { f.report.Total.Extra = 1 }, "1 that no producer wrote"},
		{func(f *findings) { f.report.Total.Changed = 1 }, "1 changed"},
		{func(f *findings) { f.report.Total.Layout = 1 }, "1 topics with other partitions"},
		{func(f *findings) { f.report.TargetSum = 8 }, "the checksums differ"},
		{func(f *findings) { f.produced = 1201 }, "east holds 1,200 records, its producers wrote 1,201"},
		{func(f *findings) { f.produced, f.report.Total = 0, compare.Counts{} }, "nothing was written"},
		{func(f *findings) { f.kills = 2 }, "2 of 3 kills were made"},
		{func(f *findings) {
			f.report.Total.Missing = 1
			p := &f.report.Partitions[4]
			p.Source, p.Partition = "clicks", 2
			p.First = []compare.Difference{{Kind: compare.Missing, SourceOffset: 17, TargetOffset: -1}}
		}, "1 lost; first clicks-2: missing source offset 17"},
	} {
		f := good()
		c.spoil(&f)
		if err := f.err(); !errors.Is(err, ErrNotProved) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if s := f.String(); !strings.HasPrefix(s, "NOT PROVED: ") || !strings.Contains(s, c.want) {
			t.Errorf("last line %q, want %q", s, c.want)
		}
	}
}

func TestATerminalGetsFoldedLinesAndAFileWholeOnes(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("seven letters ", 12))
	for _, c := range []struct {
		terminal, color bool
		lines           int
	}{{false, false, 1}, {true, false, 5}, {true, true, 5}} {
		var out bytes.Buffer
		s := newScreen(Options{Out: &out, Terminal: c.terminal, Color: c.color, Width: 50})
		s.began = time.Now()
		s.alarm("%s", long)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != c.lines {
			t.Errorf("%+v: %d lines: %q", c, len(lines), lines)
		}
		if got := strings.Contains(out.String(), "\x1b["); got != c.color {
			t.Errorf("%+v: colours %v", c, got)
		}
		for _, l := range lines {
			if !c.color && c.terminal && len(l) > 50 {
				t.Errorf("%+v: %d columns: %q", c, len(l), l)
			}
		}
	}
}

// Waits are told apart by when the record was written: the outage is not hidden
// in a percentile, nor does it spoil the others.
func TestWaitsInAnOutageAreCountedApart(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return noon.Add(time.Duration(s * float64(time.Second))) }
	d := &demo{outages: []outage{{at(10), at(13)}}}
	waits, longest := d.steady([]arrival{{at(1), 9}, {at(2), 5}, {at(9.9), 3000}, {at(12), 1000}, {at(14), 7}})
	if len(waits) != 3 || waits[0] != 5 || waits[2] != 9 || longest != 3000 {
		t.Errorf("waits %v, longest %v", waits, longest)
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %q, want %q", n, got, want)
		}
	}
}
