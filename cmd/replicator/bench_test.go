package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"replicator/internal/bench"
)

func TestBenchHelpAndUsage(t *testing.T) {
	code, stdout, _ := shell(t, "bench", "--help")
	if code != exitDone {
		t.Errorf("code %d", code)
	}
	golden(t, "bench-help.txt", stdout)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--size", "10GB", "--yes"}, "did you mean 10GiB"},
		{[]string{"--size", "10", "--yes"}, "choose size: 10 is not within"},
		{[]string{"--codec", "lzo", "--yes"}, `choose codec: "lzo" is none of none, gzip`},
		{[]string{"-o", "yaml", "--yes"}, `choose output: "yaml" is none of table, json`},
		{[]string{"--timeout", "0s", "--yes"}, "choose timeout"},
		{[]string{"--batch-bytes", "10GiB", "--yes"}, "choose batch-bytes"},
		{nil, "there is no terminal to ask on\nhint: --yes"},
		{[]string{"extra"}, "hint: see replicator bench --help"},
	} {
		if code, _, stderr := shell(t, append([]string{"bench"}, c.args...)...); code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: code %d, %s", c.args, code, stderr)
		}
	}
}

// benchFile is a configuration of two fake clusters.
func benchFile(t *testing.T, more string) string {
	t.Helper()
	text := "clusters:\n"
	for _, alias := range []string{"east", "west"} {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID(alias))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		text += fmt.Sprintf("  %s: {bootstrap_servers: ['%s']}\n", alias, c.ListenAddrs()[0])
	}
	file := filepath.Join(t.TempDir(), "pair.yaml")
	if err := os.WriteFile(file, []byte(text+"links:\n  - {from: east, to: west, topics: ['.*']"+more+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestBenchRefusesBeforeAnythingIsMade(t *testing.T) {
	if code, _, stderr := shell(t, "bench", "-c", benchFile(t, ""), "--link", "north->south", "--yes"); code != exitUsage || !strings.Contains(stderr, `there is no "north->south": the configuration has east->west`) {
		t.Errorf("code %d, %s", code, stderr)
	}
	if code, _, stderr := shell(t, "bench", "-c", benchFile(t, ", replication_factor: 3"), "--yes"); code != exitRefused || !strings.Contains(stderr, "INVALID_REPLICATION_FACTOR") || !strings.Contains(stderr, "hint: the cluster has too few brokers") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestBenchPrintsOneDocument(t *testing.T) {
	code, stdout, stderr := shell(t, "bench", "-c", benchFile(t, ""), "--yes", "--partitions", "2", "--size", "1MiB", "--rate", "100", "--duration", "1s", "-o", "json")
	var r bench.Result
	if err := json.Unmarshal([]byte(stdout), &r); code != exitDone || err != nil || r.Compared.Records != 1048+100+2 || r.Link != "east->west" {
		t.Errorf("code %d, %v, %s, %s", code, err, stdout, stderr)
	}
	if !strings.HasPrefix(stderr, "link east->west: writes 1048 records (1023.4 KiB) and then 100 a second for 1s to replicator.bench.") || !strings.Contains(stderr, "\ndeleting what was made\n") {
		t.Errorf("%s", stderr)
	}
}

func benchResult() *bench.Result {
	r := &bench.Result{Link: "east->west", Topic: "replicator.bench.1", Partitions: 8, RecordBytes: 1000, Codec: "lz4", Began: time.Unix(1, 0)}
	r.Write = bench.WriteResult{Records: 268435, Bytes: 277_000_000, Seconds: 2.5, MBPerSecond: 110.8, ThrottledSeconds: 0.25}
	r.Copy = bench.CopyResult{
		Records: 268435, Bytes: 277_000_000, Seconds: 1.25, RecordsPerSecond: 214748, MBPerSecond: 221.6, SourceWireBytes: 79_000_000, TargetWireBytes: 79_100_000,
		SourceWireMBPerSecond: 63.2, TargetWireMBPerSecond: 63.28, CPUSeconds: 0.2, CPUSecondsPerGB: 0.722, PeakMemoryBytes: 90 << 20, TargetThrottledSeconds: 12,
	}
	r.RoundTrip = bench.RoundTripResult{Source: bench.PingResult{Requests: 100, P50Seconds: 0.0004, P99Seconds: 0.002}, Target: bench.PingResult{Requests: 37, P50Seconds: 0.0801, P99Seconds: 0.0850}}
	r.Latency = bench.LatencyResult{
		Records: 30000, RecordsPerSecond: 999.7, VisiblePerSecond: 997.1, FromSent: bench.Spread{P50Seconds: 0.085, P99Seconds: 0.091, P999Seconds: 0.2, MaxSeconds: 1.25},
		FromAcknowledged: bench.Spread{P50Seconds: 0.083, P99Seconds: 0.089, P999Seconds: 0.198, MaxSeconds: 1.2},
	}
	r.Compared = bench.ComparedResult{Records: 298443, Seconds: 3.1}
	r.Hints = []string{"cluster west throttled the copy for 12.0 s: the quota bounds it"}
	return r
}

func TestBenchTable(t *testing.T) {
	golden(t, "bench.txt", benchTable(screen{}, benchResult()))
}

// What is left is said whatever became of the run, and the exit code tells.
func TestBenchSaysWhatIsLeft(t *testing.T) {
	for _, c := range []struct {
		name   string
		failed error
		left   []bench.Trace
		keep   bool
		code   int
		want   string
	}{
		{name: "all deleted", code: exitDone},
		{name: "failed", failed: errors.New("no luck"), code: exitFailed, want: "hint: everything that was made was deleted"},
		{name: "refused", failed: &bench.RefusedError{Err: errors.New("not allowed"), Hint: "grant WRITE"}, code: exitRefused, want: "error: not allowed\nhint: grant WRITE\n"},
		{name: "refused and left", failed: &bench.RefusedError{Err: errors.New("not allowed")}, left: []bench.Trace{{Name: "t", Error: "denied"}}, code: exitFailed, want: "NOT DELETED: denied"},
		{name: "one left", left: []bench.Trace{{Cluster: "west", Kind: "topic", Name: "t", Error: "denied", Delete: "kafka-topics.sh --delete"}}, code: exitPartial,
			want: "topic t of cluster west: NOT DELETED: denied; kafka-topics.sh --delete\nerror: delete what was made: 1 topic or group left\nhint: "},
		{name: "failed and left", failed: bench.ErrInterrupted, left: []bench.Trace{{Name: "t", Error: "denied"}}, code: exitFailed, want: "NOT DELETED: denied"},
		{name: "kept", keep: true, left: []bench.Trace{{Cluster: "west", Kind: "group", Name: "g", Delete: "rm"}}, code: exitDone, want: "group g of cluster west: kept; rm\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			a := &app{stdout: &out, stderr: &errs}
			o := &benchOptions{Options: bench.DefaultOptions(), output: "table"}
			o.Keep = c.keep
			r := benchResult()
			r.Left = c.left
			code := exitDone
			if err := a.reportBench(r, c.failed, o); err != nil {
				ce, ok := errors.AsType[*codedError](err)
				if !ok {
					t.Fatal(err)
				}
				code = ce.code
				fmt.Fprintf(&errs, "error: %v\nhint: %s\n", ce.err, ce.hint)
			}
			if code != c.code || !strings.Contains(errs.String(), c.want) || (out.Len() > 0) == (c.failed != nil) {
				t.Errorf("code %d, %s, %s", code, &errs, &out)
			}
		})
	}
}
