package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A second run of a day keeps what the first one found.
func TestResultsOfEarlierRunsStay(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []string{"2026-01-02-soak", "2026-01-02-soak-2", "2026-01-02-soak-3"} {
		name, err := freeName(dir, "2026-01-02-soak")
		if err != nil || name != want {
			t.Fatalf("%s, %v, want %s", name, err, want)
		}
		if err := keep(dir, name, want, nil, "report of "+want); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"2026-01-02-soak.json": "\"2026-01-02-soak\"\n", "2026-01-02-soak-2.md": "report of 2026-01-02-soak-2"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if charts, _ := filepath.Glob(filepath.Join(dir, "*.svg")); len(charts) > 0 {
		t.Errorf("charts of nothing: %q", charts)
	}
	if name, err := freeName(filepath.Join(dir, "new"), "x"); err != nil || name != "x" {
		t.Errorf("in no directory: %s, %v", name, err)
	}
	if _, err := freeName(filepath.Join(dir, "2026-01-02-soak.json"), "x"); err == nil {
		t.Error("a file is no directory of results")
	}
}

// One measurement may fail, the end of the whole run is not one of them.
func TestTolerate(t *testing.T) {
	l := &lab{began: time.Now()}
	var failed []string
	why := errors.New("why")
	if err := errors.Join(l.tolerate(t.Context(), "a", nil, &failed), l.tolerate(t.Context(), "b", why, &failed)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.tolerate(ctx, "c", why, &failed); !errors.Is(err, why) {
		t.Errorf("the run goes on: %v", err)
	}
	if len(failed) != 1 || failed[0] != "b: why" {
		t.Errorf("%q", failed)
	}
}

func TestCapacityChecksItsFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // of the error, empty: none
	}{
		{nil, ""},
		{[]string{"--part", "lanes|sizes", "--lanes", "1,100,300", "--groups", "0", "--sizes", "100,1000000"}, ""},
		{[]string{"--part", "typo"}, "--part: none of lanes, active, groups, sizes matches typo"},
		{[]string{"--part", "("}, "--part: "},
		{[]string{"--lanes", "150"}, "--lanes: 150"},
		{[]string{"--lanes", "0"}, "--lanes: 0"},
		{[]string{"--groups", "-1"}, "--groups: -1"},
		{[]string{"--sizes", "0"}, "--sizes: 0"},
		{[]string{"--sizes", "1000001"}, "--sizes: 1000001"},
		{[]string{"--idle", "1ms"}, "--idle"},
	} {
		made := &capacity{}
		cmd := made.command()
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		_, err := made.settle()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

// Only what was copied while it was measured counts, and that must be most of it.
func TestCopyFigures(t *testing.T) {
	got, err := copyFigures(2e9, 100, 1000, 9*time.Second, 900*time.Millisecond)
	if want := "200 MB/s, 0.500 CPU s/GB (0.90 s for 1.80 GB of records)"; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	for name, c := range map[string]struct {
		before, copied int64
		wall           time.Duration
	}{"all at once": {1000, 1000, time.Second}, "most at once": {501, 1000, time.Second}, "nothing": {0, 0, 0}} {
		if got, err := copyFigures(2e9, c.before, c.copied, c.wall, time.Second); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A relay nobody connects to ends with the process that started it.
func TestTheRelayEndsWithStdin(t *testing.T) {
	in, parent := io.Pipe()
	out, printed := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- relayTo(t.Context(), "127.0.0.1:1", in, printed) }()
	line := make([]byte, 64)
	if n, err := out.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), "127.0.0.1:") {
		t.Fatalf("%q, %v", line[:n], err)
	}
	_ = parent.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it waits for a connection")
	}
}

// What a soak that failed leaves behind, however far it came.
func TestASoakThatFailsKeepsLogs(t *testing.T) {
	s := &soak{lab: &lab{dir: t.TempDir(), began: time.Now()}, out: filepath.Join(t.TempDir(), "results"), name: "x"}
	s.killDaemons()
	s.load.kill()
	if err := s.keepTraces(t.Context()); err != nil {
		t.Errorf("before there is a daemon: %v", err)
	}
	s.steady = &soakDaemon{name: "steady", dir: t.TempDir()}
	s.victim = &soakDaemon{name: "victim", dir: t.TempDir()} // has printed nothing
	if err := os.WriteFile(s.steady.log(), []byte("why"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.killDaemons()
	if err := s.keepTraces(t.Context()); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(s.out, "x-steady.log")); err != nil || string(text) != "why" {
		t.Errorf("%q, %v", text, err)
	}
}
