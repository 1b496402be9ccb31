package kafkatest

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Need says that the rest of the test needs a real Kafka of a version. Where
// it cannot be had the test is skipped and [Main] says so at the end; with
// E2E=required the test fails.
func Need(t testing.TB, version string) {
	t.Helper()
	need(t, func() error { return haveKafka(version) })
}

// need is Need for all that a cluster needs.
func (c Config) need(t testing.TB) {
	t.Helper()
	need(t, func() error {
		err := haveKafka(c.Version)
		if err == nil && c.MovableClock {
			_, err = faketimeLibrary()
		}
		return err
	})
}

// NeedProgram is Need for a test that also runs a Java program from its source
// file against Kafka's jars, which needs a JDK. It returns the directory of the
// jars, see [Libs].
func NeedProgram(t testing.TB, version string, opts ...LibsOption) (libs string) {
	t.Helper()
	need(t, func() error {
		err := haveKafka(version)
		if err == nil {
			err = haveCompiler()
		}
		if err == nil {
			libs, err = Libs(version, opts...)
		}
		return err
	})
	return libs
}

func haveKafka(version string) error {
	if _, err := javaPath(); err != nil {
		return err
	}
	_, err := Libs(version)
	return err
}

// need skips or fails the test if what it needs is not there.
func need(t testing.TB, have func() error) {
	t.Helper()
	mode := os.Getenv("E2E")
	var reason string
	switch {
	case mode == "off":
		reason = "E2E is off"
	case testing.Short():
		reason = "-short leaves real Kafka out"
	default:
		if err := have(); err != nil {
			reason = err.Error()
		}
	}
	if reason == "" {
		tally.ran(t.Name())
		return
	}
	tally.notRun(t.Name(), reason)
	if mode == "required" {
		t.Fatalf("real Kafka is required here, but: %s", reason)
	}
	t.Skip("not run: " + reason)
}

// tallied remembers which tests had a real Kafka and which did not.
type tallied struct {
	mu      sync.Mutex
	with    map[string]bool
	without map[string]string // test to reason
}

var tally = tallied{with: map[string]bool{}, without: map[string]string{}}

func (y *tallied) ran(test string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.with[test] = true
}

func (y *tallied) notRun(test, reason string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.without[test] = reason
}

// report prints what was not run, and adds one line to the file:
//
//	real-kafka <package's directory>: ran 12, not run 0
//	real-kafka <package's directory>: ran 0, not run 12 (TestA, TestB, ...: reason)
func (y *tallied) report(w io.Writer, file string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	dir, err := os.Getwd() // go test runs a package in its directory
	if err != nil {
		return err
	}
	line := fmt.Sprintf("real-kafka %s: ran %d, not run %d", filepath.Base(dir), len(y.with), len(y.without))
	if len(y.without) > 0 {
		tests := slices.Sorted(maps.Keys(y.without))
		reason, _, _ := strings.Cut(y.without[tests[0]], "\n")
		line += fmt.Sprintf(" (%s: %s)", strings.Join(tests, ", "), reason)
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, line); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
