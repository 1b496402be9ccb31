package demo

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/words"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
)

func TestADurationOutOfBoundsIsRefused(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, time.Millisecond, time.Hour} {
		if err := Run(t.Context(), Options{Out: io.Discard, Duration: d}); err == nil || !strings.Contains(err.Error(), "is not within 1s and 2m0s") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

func TestARegionThatDoesNotStartEndsTheDemoWithWhatItSaid(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, c := range []struct {
		command []string
		want    []string
	}{
		{[]string{"/nonexistent/replicator"}, []string{"start region ", "no such file"}},
		{[]string{"sh", "-c", "echo out of order; exit 7"}, []string{"region ", "exit status 7", "out of order"}},
	} {
		err := Run(t.Context(), Options{Command: c.command, Out: io.Discard, Duration: time.Second})
		if err == nil {
			t.Fatalf("%v: a demo without regions passed", c.command)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q is not in %v", c.command, want, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// proven are the facts of a small demo in which everything is as it should be. In every
// partition records 0 to 3 are copied, 4 and 5 are stranded and replayed, 6 is written
// in west and copied back; record 3 is processed again in west.
func proven() facts {
	f := facts{
		entries: map[key]entry{}, visits: map[key][]visit{}, east: map[lane][]logRecord{}, west: map[lane][]logRecord{},
		story: story{kills: 1, lost: true, failover: &result{}, failback: &result{}, back: &result{}, tried: 3, closed: true},
	}
	link, app := offsets.Writer{ProducerID: 7, Epoch: 1}, offsets.Writer{ProducerID: 9}
	fence := evidence.FenceDoc{}
	at := map[int]int64{}
	for i, tp := range topics {
		f.story.estimate.Rows = append(f.story.estimate.Rows, evidence.LossRow{Topic: tp.name, Records: 10})
		for p := range tp.partitions {
			l, first := lane{tp.name, p}, at[i]
			at[i] += 7
			record := func(n, offset int64, w offsets.Writer, digest uint64) logRecord {
				return logRecord{key{i, first + n}, true, digest, offset, w}
			}
			for n := range int64(7) {
				f.entries[key{i, first + n}] = entry{acked: true}
				f.visits[key{i, first + n}] = []visit{{"east", position{p, n}}}
			}
			f.visits[key{i, first + 3}] = append(f.visits[key{i, first + 3}], visit{"west", position{p, 3}})
			for n := range int64(4) {
				f.east[l] = append(f.east[l], record(n, n, app, uint64(n)))
				f.west[l] = append(f.west[l], record(n, n, link, uint64(n)))
			}
			f.east[l] = append(f.east[l], record(4, 4, app, 4), record(5, 5, app, 5), record(4, 6, link, 14), record(5, 7, link, 15), record(6, 8, link, 16))
			f.west[l] = append(f.west[l], record(4, 5, app, 14), record(5, 6, app, 15), record(6, 7, app, 16))
			f.story.stranded = append(f.story.stranded, evidence.StrandedRow{Topic: tp.name, Partition: p, From: 4, To: 6, Records: 2})
			fence.Rows = append(fence.Rows, evidence.FenceRow{Topic: tp.name, Partition: p, OldWriter: link.String(), End: 5, Answer: "INVALID_PRODUCER_EPOCH: fenced"})
			f.story.resumes = append(f.story.resumes, resume{lane: l, source: 3, target: 3, has: true, expected: key{i, first + 3}, got: firstRecord{key: key{i, first + 3}, offset: 3}})
		}
	}
	f.story.fence = []evidence.FenceDoc{fence}
	for range 3 {
		f.runs = append(f.runs, checkedRun{&result{Run: "r", Outcome: evidence.OutcomeDoc{Outcome: evidence.OutcomeDone}}, &evidence.Verdict{Valid: true, Complete: true, Events: 5}})
	}
	return f
}

// Whatever of a proof is missing or wrong, it is not called one.
func TestOnlyACompleteProofIsOne(t *testing.T) {
	good := proven()
	const want = "PROVED: a region was lost and taken in again; of 77 acknowledged records 0 are lost, and 0 were accepted from the frozen daemon."
	if err := judge(good.findings()); err != nil || verdict(good, err) != want {
		t.Fatalf("%v, %q", err, verdict(good, err))
	}
	l, k := lane{"clicks", 2}, key{1, 16} // record 2 of that partition
	for _, c := range []struct {
		spoil func(*facts)
		want  string
	}{
		{func(f *facts) { f.story.kills = 0 }, "the daemon was not killed"},
		{func(f *facts) { f.story.lost = false }, "the region was not lost"},
		{func(f *facts) { f.story.closed = false }, "the frozen daemon did not stop"},
		{func(f *facts) { f.story.failover = nil }, "there was no failover"},
		{func(f *facts) { f.story.back = nil }, "there was no switchover back"},
		{func(f *facts) { delete(f.visits, k) }, "1 never processed"},
		{func(f *facts) { f.unknown = 1 }, "1 processed that no producer wrote"},
		{func(f *facts) { f.entries = map[key]entry{} }, "nothing was written"},
		{func(f *facts) { f.visits[k] = append(f.visits[k], f.visits[k][0]) }, "how often: 1 more than once without such a reason"},
		{func(f *facts) { f.visits[k] = append(f.visits[k], visit{"west", position{2, 2}}) }, "how often: 1 more than once without such a reason"}, // its commit was known
		{func(f *facts) { f.story.resumes[4].got.key.number++ }, "goes on at the exact record: clicks-0: expected clicks #3, read clicks #4"},
		{func(f *facts) { f.story.resumes = f.story.resumes[1:] }, "it is known of 10 of 11 partitions"},
		{func(f *facts) { f.story.fence[0].Rows[2].Answer = "the probe was APPENDED" }, "11 lanes of 11 were tried, 10 refused"},
		{func(f *facts) { f.story.fence = nil }, "0 lanes of 11 were tried"},
		{func(f *facts) { f.west[l][5].writer = offsets.Writer{ProducerID: 7, Epoch: 1} }, "1 of its records were accepted"},
		{func(f *facts) { f.story.stranded = nil }, "nothing was stranded"},
		{func(f *facts) { f.story.stranded[0].Records = 3 }, "east holds 22 records where 23 are said to be stranded"},
		{func(f *facts) { f.west[l][1].digest++ }, "clicks-2 differs at its record 1; both regions: 1 records differ"},
		{func(f *facts) { f.east[l] = f.east[l][:len(f.east[l])-1] }, "both regions: clicks-2 differs at its record 6"},
		{func(f *facts) { f.west[l] = append(f.west[l], logRecord{}) }, "1 that no producer wrote"},
		{func(f *facts) { f.west[l] = append(f.west[l][:1], f.west[l][2:]...) }, "lost or doubled: 1 lost"},
		{func(f *facts) { f.west[l] = append(f.west[l], f.west[l][2]) }, "lost or doubled: 1 doubled"},
		{func(f *facts) { f.runs[1].verdict.Valid = false }, "evidence: run r: outcome done, valid false"},
		{func(f *facts) { f.runs[1].verdict.Complete = false }, "complete false"},
		{func(f *facts) { f.runs = f.runs[1:] }, "evidence: 2 bundles of 3"},
	} {
		f := proven()
		c.spoil(&f)
		err := judge(f.findings())
		if !errors.Is(err, ErrNotProved) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
			continue
		}
		if s := verdict(f, err); !strings.HasPrefix(s, "NOT PROVED: ") {
			t.Errorf("last line %q", s)
		}
	}
}

// What the producer wrote twice for want of an answer may be there twice.
func TestARecordWrittenTwiceByItsProducerIsNoFault(t *testing.T) {
	f := proven()
	l, k := lane{"clicks", 2}, key{1, 14 + 4}
	f.entries[k] = entry{acked: true, unsure: true}
	f.visits[k] = append(f.visits[k], f.visits[k][0])
	for _, region := range []map[lane][]logRecord{f.west, f.east} {
		twice := region[l][len(region[l])-3] // as it was replayed
		twice.offset = 100
		region[l] = append(region[l], twice)
	}
	if err := judge(f.findings()); err != nil {
		t.Error(err)
	}
}

// Every record says which it is, with or without a value.
func TestARecordIsKnownByWhatItHolds(t *testing.T) {
	for i, tp := range topics {
		p := &producer{topic: tp, index: i, text: filler()}
		for n := range int64(20) {
			r := &kgo.Record{Topic: tp.name, Value: p.value(n)}
			if tp.shape != nil {
				tp.shape(r, n)
			}
			if k, ok := nameOf(r); !ok || k != (key{i, n}) {
				t.Errorf("%s %d is taken for %v, %v", tp.name, n, k, ok)
			}
		}
	}
	for _, r := range []*kgo.Record{{Topic: "orders", Value: []byte("x")}, {Topic: "orders", Value: []byte(`{"topic":"clicks","number":1}`)}, {Topic: "orders"}} {
		if k, ok := nameOf(r); ok {
			t.Errorf("%q is taken for %v", r.Value, k)
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

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := words.Number(n); got != want {
			t.Errorf("number(%d) = %q, want %q", n, got, want)
		}
	}
}
