package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"replicator/pkg/verify"
)

func verifyExample() *verifyDoc {
	lane := func(topic string, partition int32, c verify.Counts, first ...verify.Difference) verify.LaneReport {
		return verify.LaneReport{Topic: topic, Partition: partition, TargetTopic: topic, From: 1000, To: 11_000, TargetFrom: 990, TargetTo: 10_990, Counts: c, Checksum: "0123456789abcdef", First: first}
	}
	d := &verifyDoc{Link: "east->west", Source: "east", Target: "west"}
	d.Lanes = []verify.LaneReport{
		lane("ledger", 0, verify.Counts{Equal: 9900, Closed: 9000, Compacted: 100, Bytes: 3 << 20}),
		lane("orders", 0, verify.Counts{Equal: 10_000, Closed: 10_000, Bytes: 5 << 20}),
		lane("orders", 1, verify.Counts{Equal: 9999, Closed: 9000, Changed: 1, Extra: 1, Bytes: 5 << 20},
			verify.Difference{Kind: verify.Changed, SourceOffset: 4711, TargetOffset: 4701, Detail: "value differ; written by the link's producer 7/3"},
			verify.Difference{Kind: verify.Extra, SourceOffset: -1, TargetOffset: 4800, Detail: "the map has no such record; written without a producer id, so not by the link"}),
		lane("payments", 0, verify.Counts{}),
	}
	d.Lanes[3].Error = "read source partition payments-0 at offset 1000: TOPIC_AUTHORIZATION_FAILED; grant READ on topic payments"
	d.Lanes[3].Warnings = []string{"whether topic payments of cluster east is compacted is not known; it counts as if it were: grant DESCRIBE_CONFIGS on it"}
	for i := range d.Lanes {
		d.Total = d.Total.Plus(d.Lanes[i].Counts)
	}
	d.Took, d.Checksum, d.NotCompared = 1234*time.Millisecond, "fedcba9876543210", d.Failed()
	return d
}

func TestVerifyTables(t *testing.T) {
	golden(t, "verify.txt", verifyExample().table(screen{}))
	golden(t, "verify-wide.txt", verifyExample().table(screen{wide: true}))
}

func TestVerifySaysWhatItFoundByItsExitCode(t *testing.T) {
	d := verifyExample()
	for _, c := range []struct {
		change func()
		code   int
		says   string
	}{
		{func() {}, exitRefused, "differ in 2 records"},
		{func() { d.Total.Changed, d.Total.Extra = 0, 0 }, exitPartial, "1 of 4 lanes could not be compared: payments-0 (read source"},
		{func() { d.Lanes[3].Error = "" }, exitDone, ""},
	} {
		c.change()
		err := d.verdict()
		if c.code == exitDone {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		ce, ok := err.(*codedError)
		if !ok || ce.code != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want code %d and %q", err, c.code, c.says)
		}
	}
}

func TestVerifyUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--last", "0"}, "the last 0 are none"},
		{[]string{"--last", "5", "--all"}, "exclude each other"},
		{[]string{"--rate", "50MB"}, "did you mean 50MiB"},
		{[]string{"--parallel", "0"}, "not from 1 to 64"},
		{[]string{"--topic", "("}, "choose topics"},
		{[]string{"-o", "csv"}, "choose output"},
	} {
		if code, _, stderr := shell(t, append([]string{"verify"}, c.args...)...); code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: code %d, %s", c.args, code, stderr)
		}
	}
}

// verify reads the source as well: that is not the reason why a target does not answer.
func TestVerifyDoesNotSayThatItNeedsTheTargetOnly(t *testing.T) {
	file, clusters := pairFile(t, eastWest)
	clusters["west"].Close()
	if code, _, stderr := shell(t, "verify", "-c", file); code != exitFailed || strings.Contains(stderr, "only the target") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("verify: %d, %s", code, stderr)
	}
	if code, _, stderr := shell(t, "offsets", "show", "-c", file); code != exitFailed || !strings.Contains(stderr, "only the target") {
		t.Errorf("offsets show: %d, %s", code, stderr)
	}
}

func TestProgressIsALineElsewhereThanOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgressLine(&out)
	p.show(verify.Progress{Offsets: 100, Done: 50, Lanes: 4, LanesDone: 2, Bytes: 1 << 20})
	if out.Len() > 0 {
		t.Errorf("at once: %q", out.String())
	}
	p.told = p.told.Add(-11 * time.Second)
	p.show(verify.Progress{Offsets: 100, Done: 50, Lanes: 4, LanesDone: 2, Bytes: 1 << 20})
	p.end()
	if s := out.String(); !strings.HasPrefix(s, "verify: 50%, 2 of 4 lanes, 1.0 MiB read, ") || !strings.HasSuffix(s, ", 0 differences\n") {
		t.Errorf("%q", s)
	}
}
