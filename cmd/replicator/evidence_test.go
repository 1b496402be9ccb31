package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"replicator/pkg/evidence"
)

// aBundle is what a switchover leaves; with kill it is killed before its end.
func aBundle(t *testing.T, kill bool) string {
	t.Helper()
	r, err := evidence.Start(evidence.Config{Run: "switchover-20261126T184501Z-3f9a", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	record := func(kind evidence.Kind, step string, doc any) {
		if err := r.Record(t.Context(), kind, step, doc); err != nil {
			t.Fatal(err)
		}
	}
	rto := 19.8
	record(evidence.KindPlan, "", evidence.PlanDoc{Verb: "switchover", From: "east", To: "west", Epoch: 3, NextEpoch: 4, By: "ada\x1b[31m@ops", Why: "change 4711", Tool: "replicator 1.4.0"})
	record(evidence.KindLoss, "gates", evidence.LossDoc{Rows: []evidence.LossRow{{Topic: "orders", Records: 31}}})
	record(evidence.KindStep, "gates", evidence.StepDoc{Name: "gates", Outcome: evidence.StepDone, Took: 1.2, Proof: "12 gates"})
	record(evidence.KindStep, "drain", evidence.StepDoc{Name: "drain", Outcome: evidence.StepBegun})
	if !kill {
		record(evidence.KindStep, "drain", evidence.StepDoc{Name: "drain", Outcome: evidence.StepDone, Took: 2.3, Proof: "every lane is at its source's end"})
		record(evidence.KindVerify, "verify", evidence.VerifyDoc{Records: 1_204_332})
		record(evidence.KindAuthority, "promote", evidence.AuthorityDoc{Copies: []evidence.AuthorityCopy{{Cluster: "west", Region: "west", Epoch: 4, Reachable: true}}})
		record(evidence.KindFence, "fence", evidence.FenceDoc{Lanes: 12, Fenced: 12, Refused: 12})
		record(evidence.KindStep, "hooks", evidence.StepDoc{Name: "hooks", Outcome: evidence.StepSkipped, Proof: "there are none"})
		record(evidence.KindOutcome, "", evidence.OutcomeDoc{Outcome: evidence.OutcomeDone, Took: 40.3, RTO: &rto, Next: "point producers to west"})
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return r.Bundle()
}

// steady replaces what differs from run to run.
func steady(out, path string) string {
	out = strings.ReplaceAll(out, path, "BUNDLE")
	lines := strings.Split(out, "\n")
	for i, line := range lines {
		if head, _, ok := strings.Cut(line, "last hash "); ok {
			lines[i] = head + "last hash HASH"
		}
		if at := strings.Index(line, "begun "); at >= 0 {
			end := at + len("begun ") + len(instant(time.Now()))
			lines[i] = line[:at] + "begun TIME" + line[end:]
		}
	}
	return strings.Join(lines, "\n")
}

func TestEvidenceTables(t *testing.T) {
	whole, killed := aBundle(t, false), aBundle(t, true)
	for name, args := range map[string][]string{
		"evidence-show.txt":          {"show", whole},
		"evidence-show-killed.txt":   {"show", killed},
		"evidence-verify.txt":        {"verify", whole},
		"evidence-verify-killed.txt": {"verify", killed},
	} {
		code, stdout, stderr := shell(t, append([]string{"evidence"}, args...)...)
		if code != exitDone || stderr != "" || strings.Contains(stdout, "\x1b") {
			t.Errorf("%v: %d, %q", args, code, stderr)
		}
		golden(t, name, steady(stdout, args[1]))
	}
}

func TestEvidenceOfATamperedBundleIsRefused(t *testing.T) {
	dir := aBundle(t, false)
	path := filepath.Join(dir, "events.jsonl")
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(body), "12 gates", "13 gates", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := shell(t, "evidence", "verify", dir, "-o", "json")
	var v evidence.Verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != exitRefused || v.Valid || v.Events != 2 || !strings.Contains(stderr, "events") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("verify: %d, %v, %s%s", code, err, stdout, stderr)
	}
	if code, stdout, _ := shell(t, "evidence", "show", dir); code != exitRefused || !strings.Contains(stdout, "NOT VALID") {
		t.Errorf("show: %d, %s", code, stdout)
	}
	out := filepath.Join(t.TempDir(), "report.html")
	if code, _, _ := shell(t, "evidence", "report", dir, "--out", out); code != exitRefused {
		t.Errorf("report: %d", code)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a report was written from events that do not hold")
	}
}

func TestEvidenceAnchorsAndReports(t *testing.T) {
	dir := aBundle(t, false)
	_, stdout, _ := shell(t, "evidence", "verify", dir, "-o", "json")
	var v evidence.Verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := shell(t, "evidence", "verify", dir, "--anchor", v.Head); code != exitDone || !strings.Contains(stdout, "all 10 events are those of the anchor") {
		t.Errorf("the right anchor: %d, %s%s", code, stdout, stderr)
	}
	if code, _, _ := shell(t, "evidence", "verify", dir, "--anchor", strings.Repeat("0", 64)); code != exitRefused {
		t.Errorf("another anchor: %d", code)
	}
	if code, _, stderr := shell(t, "evidence", "verify", dir, "--anchor", "abc"); code != exitUsage || !strings.Contains(stderr, "64 digits") {
		t.Errorf("no anchor at all: %d, %s", code, stderr)
	}
	if code, _, stderr := shell(t, "evidence", "verify", dir+"x"); code != exitFailed || !strings.Contains(stderr, "no such file") {
		t.Errorf("no bundle: %d, %s", code, stderr)
	}
	// The directory that bundles lie in is none, and nobody has tampered with it.
	if code, stdout, stderr := shell(t, "evidence", "show", filepath.Dir(dir)); code != exitFailed || stdout != "" || !strings.Contains(stderr, "this is not a bundle") {
		t.Errorf("the directory around it: %d, %s%s", code, stdout, stderr)
	}
	out := filepath.Join(t.TempDir(), "report.html")
	if code, _, stderr := shell(t, "evidence", "report", dir, "--out", out); code != exitDone {
		t.Fatalf("report: %d, %s", code, stderr)
	}
	made, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil || !bytes.Equal(kept, made) {
		t.Errorf("the report made anew is another one: %v", err)
	}
	if code, _, stderr := shell(t, "evidence", "report", dir, "--out", out); code != exitUsage || !strings.Contains(stderr, "--force") {
		t.Errorf("report over a file: %d, %s", code, stderr)
	}
	if code, stdout, _ := shell(t, "evidence", "show", dir, "-o", "json"); code != exitDone || !strings.Contains(stdout, `"epoch_after": 4`) {
		t.Errorf("show -o json: %d, %s", code, stdout)
	}
	if code, _, _ := shell(t, "evidence", "report", dir); code != exitUsage {
		t.Errorf("report without --out: %d", code)
	}
}
