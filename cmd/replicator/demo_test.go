package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/demo"
)

// commandVariable makes the test binary the command itself, so that a demo run
// by a test can start, and kill, real daemons.
const commandVariable = "TEST_BINARY_IS_THE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// demoOptions run a short demo with this test binary as the daemon.
func demoOptions(t *testing.T, out *bytes.Buffer) demo.Options {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes and takes seconds")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(commandVariable, "1")
	t.Setenv("TMPDIR", t.TempDir())
	// What the user has set for a replicator of their own is not for the demo's.
	t.Setenv("REPLICATOR_LOG_LEVEL", "error")
	return demo.Options{Command: []string{self}, Out: out, Duration: 2 * time.Second, Patience: 2 * time.Minute, Quick: true}
}

func nothingLeft(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "replicator-demo-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestDemoProvesWhatBecameOfEveryRecord(t *testing.T) {
	var out bytes.Buffer
	if err := demo.Run(t.Context(), demoOptions(t, &out)); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	nothingLeft(t)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	last := regexp.MustCompile(`^PROVED: a region was lost and taken in again; of [0-9,]+ acknowledged records 0 are lost, and 0 were accepted from the frozen daemon\.$`)
	if !last.MatchString(lines[len(lines)-1]) {
		t.Errorf("last line %q", lines[len(lines)-1])
	}
	if strings.ContainsAny(out.String(), "\x1b\r") {
		t.Errorf("a file got what is for terminals: %q", &out)
	}
	for _, want := range []string{"kill -9 of the daemon (pid ", "is frozen with batches in flight", "region east is lost", "$ replicator failover --to west --accept-loss",
		"next record expected: ", "west's brokers refused its appends", "$ replicator failback run --from east --stranded replay", "report.html"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}

func TestDemoFailsWhenARecordIsNotRight(t *testing.T) {
	var out bytes.Buffer
	o := demoOptions(t, &out)
	o.BeforeProof = func(ctx context.Context, _, west []string) error {
		client, err := kgo.NewClient(kgo.SeedBrokers(west...))
		if err != nil {
			return err
		}
		defer client.Close()
		return client.ProduceSync(ctx, &kgo.Record{Topic: "audit", Key: []byte("not"), Value: []byte("a producer's")}).FirstErr()
	}
	err := demo.Run(t.Context(), o)
	nothingLeft(t)
	if !errors.Is(err, demo.ErrNotProved) || !strings.Contains(err.Error(), "lost or doubled: 1 that no producer wrote") || !strings.Contains(err.Error(), "both regions: audit-") {
		t.Errorf("%v\n%s", err, &out)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "NOT PROVED: ") || strings.Contains(out.String(), "\nPROVED") {
		t.Errorf("last line %q", last)
	}
}

// The first signal ends a demo at any time: 1, a word why, and nothing left.
func TestDemoInterruptedLeavesNothing(t *testing.T) {
	var discard bytes.Buffer
	demoOptions(t, &discard)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &cutter{at: "partitions are copied", cut: cancel}
	var errs bytes.Buffer
	if code := execute(ctx, []string{"demo", "--duration", "1m"}, strings.NewReader(""), out, &errs); code != exitFailed || errs.String() != "error: interrupted: nothing was proved\n" {
		t.Errorf("code %d, %s", code, &errs)
	}
	nothingLeft(t)
	if strings.Contains(out.seen.String(), "PROVED") {
		t.Errorf("proved:\n%s", &out.seen)
	}
}

// cutter calls a function when a text is written.
type cutter struct {
	seen bytes.Buffer
	at   string
	cut  func()
}

func (c *cutter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.at)) {
		c.cut()
	}
	return c.seen.Write(b)
}

func TestDemoHelpAndUsage(t *testing.T) {
	code, stdout, _ := shell(t, "demo", "--help")
	if code != exitDone {
		t.Errorf("code %d", code)
	}
	golden(t, "demo-help.txt", stdout)
	if code, _, stderr := shell(t, "demo", "--duration", "1h"); code != exitUsage || !strings.Contains(stderr, "1h0m0s is not within 1s and 2m0s") {
		t.Errorf("code %d, %s", code, stderr)
	}
}
