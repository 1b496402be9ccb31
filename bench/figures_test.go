package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"replicator/internal/workload"
)

func TestStalls(t *testing.T) {
	killed := time.Now()
	at := func(d time.Duration) time.Time { return killed.Add(d) }
	n, first, all := stalls(killed, map[int32]time.Time{0: at(3 * time.Millisecond), 1: at(12 * time.Second), 2: at(10 * time.Second), 3: at(11 * time.Second)})
	if n != 3 || first != 10*time.Second || all != 12*time.Second {
		t.Error(n, first, all)
	}
	if n, _, _ := stalls(killed, map[int32]time.Time{0: at(time.Millisecond)}); n != 0 {
		t.Errorf("%d stood still", n)
	}
}

func TestResumeRows(t *testing.T) {
	// A target with a marker at offset 0 and one in between: records 0..3 are at
	// offsets 1, 2, 4, 5.
	logs := map[int32]*partitionLog{0: {at: []int64{1, 2, 4, 5}, sequence: []int64{0, 1, 2, 3}}}
	exact, marker, again, skipped, end, none := standing{"exact", 0, 0, 1}, standing{"marker", 0, 0, 2}, standing{"again", 5, 0, 3}, standing{"skipped", 5, 0, 1}, standing{"end", 5, 0, 4}, standing{"none", 5, 0, 1}
	rows := resumeRows("m", []standing{exact, marker, again, skipped, end, none}, map[standing]int64{exact: 2, marker: 3, again: 1, skipped: 5, end: 6}, logs)
	want := []resumeRow{
		{Who: "m", Lag: 0, Placed: 2, Exact: 2},
		{Who: "m", Lag: 5, Placed: 3, Exact: 1, Again: 1, Most: 3, Skipped: 2, NotPlaced: 1},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
}

// What is relayed arrives whole, through the buffer and more.
func TestRelay(t *testing.T) {
	sink, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	stdin, end := io.Pipe()
	stdout, said := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- relayTo(t.Context(), sink.Addr().String(), stdin, said) }()
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	in, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	out, err := sink.Accept()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("0123456789", relayBuffer/4)
	go func() {
		_, _ = io.WriteString(in, want)
		_ = in.Close()
	}()
	got, err := io.ReadAll(out)
	if err != nil || string(got) != want {
		t.Errorf("%d bytes came of %d, %v", len(got), len(want), err)
	}
	select {
	case err := <-done:
		t.Errorf("it ended before its CPU clock was read: %v", err)
	default:
	}
	_ = end.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTrials(t *testing.T) {
	names := map[string]bool{}
	for _, tr := range trials(0.5) {
		if names[tr.name] || tr.doc == "" || tr.spec.Records == 0 || tr.spec.Topic != "bench-"+tr.name {
			t.Errorf("%+v", tr)
		}
		names[tr.name] = true
	}
	if full, half := trials(1)[0].spec.Records, trials(0.5)[0].spec.Records; half*2 != full {
		t.Errorf("%d is not half of %d", half, full)
	}
	// The aims speak of workloads that there are.
	r := example()
	r.Trials = nil
	for name := range names {
		runs := example().Trials[0].Runs
		r.Trials = append(r.Trials, &trialResult{Name: name, Bytes: 1, WireBytes: 1, Runs: runs})
	}
	for _, a := range aims() {
		if v := a.judge(r); !v.Measured {
			t.Errorf("no workload is there for %q", a.name)
		}
	}
}

func TestConfigurations(t *testing.T) {
	for m, want := range map[string][]string{
		"tuned": tuned("east", workload.Zstd), "groups": eagerGroups(),
	} {
		for _, l := range want {
			if k, v, ok := strings.Cut(l, " = "); !ok || k == "" || v == "" {
				t.Errorf("%s: %q is no setting", m, l)
			}
		}
	}
}
