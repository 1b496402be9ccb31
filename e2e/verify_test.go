package e2e

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/kafkatest"
	"replicator/internal/rusage"
	"replicator/internal/status"
	"replicator/internal/workload"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/verify"
)

// verified is what replicator verify -o json prints.
type verified struct {
	Equal bool                `json:"equal"`
	Total verify.Counts       `json:"total"`
	Lanes []verify.LaneReport `json:"lanes"`
}

func verifies(t *testing.T, code int, args ...string) (v verified, stderr string) {
	t.Helper()
	stdout, stderr := says(t, code, append([]string{"verify", "-o", "json", "--rate", "0"}, args...)...)
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatalf("%v in %s%s", err, stdout, stderr)
	}
	return v, stderr
}

// differences are those of all lanes, in words.
func (v verified) differences() (out []string) {
	for _, l := range v.Lanes {
		for _, d := range l.First {
			out = append(out, l.Topic+" "+d.String())
		}
	}
	return out
}

// Whatever was copied compares equal, in all formats, codecs and with all holes; what
// somebody else writes on the target is named, by the command and by the daemon.
func TestVerifyComparesWhatWasCopied(t *testing.T) {
	t.Parallel()
	pair := kafkatest.Pair(t)
	prefix := kafkatest.Topic(t, "v")
	var pairs []compare.Pair
	for _, spec := range workload.Catalogue(prefix+".", setting("E2E_RECORDS", 2000), false) {
		if _, err := workload.Write(t.Context(), opts(pair.Source), spec); err != nil {
			t.Fatalf("write %s: %v", spec.Topic, err)
		}
		pairs = append(pairs, compare.Pair{Source: spec.Topic, Target: spec.Topic})
	}
	live := prefix + ".live"
	pair.Source.CreateTopic(t, live, 2)
	put(t, pair.Source, live, 0, "before", 100)
	file := rewritten(t, daemonFile(t, pair, regexp.QuoteMeta(prefix)+`\..*`), func(text string) string {
		return strings.Replace(text, "refresh_interval: 5s", "name: verified, refresh_interval: 5s, verify: {share: 1}", 1)
	})
	state := runInProcess(t, file)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report, err := compare.WaitEqual(ctx, compare.Seeds(pair.Source.Bootstrap()...), compare.Seeds(pair.Target.Bootstrap()...), pairs, compare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	untilStatus(t, state, "a first round", func(l *status.Link) bool { return l.Verify != nil && l.Verify.Position != nil })

	all, _ := verifies(t, 0, "-c", file, "--all")
	t.Logf("%+v in %d lanes; read by the tests' own means: %v", all.Total, len(all.Lanes), report.Total)
	if !all.Equal || all.Total.Equal < report.Total.Matched || all.Total.Closed == 0 || all.Total.Closed == all.Total.Equal {
		t.Errorf("%+v, %d records are equal by the tests' own means", all.Total, report.Total.Matched)
	}
	some, _ := verifies(t, 0, "-c", file, "--last", "10", "--topic", regexp.QuoteMeta(live))
	if some.Total.Equal != 10 || len(some.Lanes) != 2 {
		t.Errorf("the last 10 of %d lanes: %+v", len(some.Lanes), some.Total)
	}
	if table, _ := says(t, 0, "verify", "-c", file, "--topic", regexp.QuoteMeta(live)); !strings.Contains(table, "equal") {
		t.Errorf("table:\n%s", table)
	}

	before := statusOf(t, state).Verify.Records
	put(t, pair.Source, live, 0, "now", 500)
	l := untilStatus(t, state, "the new records compared", func(l *status.Link) bool { return l.Verify.Records >= before+500 })
	if l.Verify.Differences != 0 || l.Verify.Failed != 0 || l.Verify.LagSeconds == nil {
		t.Errorf("%+v", l.Verify)
	}

	foreign := pair.Target.Client(t, kgo.DefaultProduceTopic(live), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := foreign.ProduceSync(t.Context(), &kgo.Record{Value: []byte("foreign")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	behind, stderr := verifies(t, 3, "-c", file, "--last", "50", "--topic", regexp.QuoteMeta(live))
	if d := behind.differences(); behind.Total.Extra != 1 || len(d) != 1 || !strings.Contains(d[0], "which is not the link's") {
		t.Errorf("a foreign record behind what was copied: %+v %v\n%s", behind.Total, d, stderr)
	}
	put(t, pair.Source, live, 0, "after", 20)
	l = untilStatus(t, state, "a difference", func(l *status.Link) bool { return l.Verify.Differences > 0 })
	if l.Verify.Differences != 1 || l.EventCounts[mirror.EventDifference] != 1 || len(l.Verify.First) != 1 || l.Verify.First[0].Kind != verify.Extra {
		t.Errorf("%+v, events %v", l.Verify, l.EventCounts)
	}
	within, _ := verifies(t, 3, "-c", file, "--last", "50", "--topic", regexp.QuoteMeta(live))
	if d := within.differences(); within.Total.Extra != 1 || len(d) != 1 || within.Total.Equal != 50 {
		t.Errorf("a foreign record between: %+v %v", within.Total, d)
	}
}

// runInProcess runs a daemon in the test's own process until the test ends.
func runInProcess(t *testing.T, file string) *daemon.Daemon {
	t.Helper()
	cfg, err := config.Load(config.Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	d, err := daemon.New(t.Context(), cfg, daemon.Options{Version: "e2e", Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run daemon: %v", err)
		}
	})
	return d
}

func statusOf(t *testing.T, d *daemon.Daemon) *status.Link {
	t.Helper()
	s := d.Status(t.Context())
	return &s.Links[0]
}

// untilStatus waits for the status of the daemon's only link.
func untilStatus(t *testing.T, d *daemon.Daemon, what string, ok func(*status.Link) bool) *status.Link {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		l := statusOf(t, d)
		if ok(l) {
			return l
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waiting for %s: %+v", what, l.Verify)
		}
	}
}

// What comparing costs: E2E_VERIFY_MIB says how much to write.
func TestVerifyCost(t *testing.T) {
	t.Parallel()
	mib := setting("E2E_VERIFY_MIB", 0)
	if mib == 0 {
		t.Skip("E2E_VERIFY_MIB is not set")
	}
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "cost")
	link := startLink(t, pair, mirror.Options{Topics: []string{regexp.QuoteMeta(topic)}})
	spec := workload.Spec{Topic: topic, Kind: workload.Plain, Codec: workload.LZ4, Records: mib << 10, ValueBytes: 1 << 10, Seed: 1}
	if _, err := workload.Write(t.Context(), opts(pair.Source), spec); err != nil {
		t.Fatal(err)
	}
	link.until("all records copied", func(s mirror.LinkStatus) bool {
		n := int64(0)
		for i := range s.Lanes {
			n += s.Lanes[i].Ordinal
		}
		return n >= int64(mib<<10)
	})
	lanes := map[offsets.Lane]offsets.Tail{}
	live, err := link.Live(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for l, ln := range live {
		lanes[l] = offsets.Tail{State: ln.State, TargetTopic: ln.TargetTopic}
	}
	if err := link.stop(); err != nil {
		t.Fatal(err)
	}
	source, target := openCluster(t, "east", pair.Source.Bootstrap(), nil), openCluster(t, "west", pair.Target.Bootstrap(), nil)
	ranges, err := verify.Ranges(t.Context(), source, lanes, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		rusage.ResetPeak()
		before := rusage.CPU()
		report, err := verify.Run(t.Context(), source, target, ranges, verify.Options{ReadCommitted: true})
		if err != nil || !report.Equal() {
			t.Fatalf("%+v, %v", report.Total, err)
		}
		used := rusage.CPU() - before
		gb := float64(report.Total.Bytes) / 1e9
		t.Logf("%d records, %d not opened, %.2f GB read from both sides in %v: %.2f CPU s per GB read, peak memory %d MiB",
			report.Total.Equal, report.Total.Closed, gb, report.Took, used.Seconds()/gb, rusage.PeakMemory()>>20)
	}

	// The daemon's comparing, of a link that seems to copy the same records once more.
	end, _ := ranges[0].State.Position()
	again := &replay{ranges: ranges, batchBytes: gbOf(t, pair, topic) * 1e9 / float64(mib<<10), step: end.Ordinal / 200}
	f := verify.NewFollower(verify.FollowConfig{Source: source, Target: target, Link: again, Share: 0.01, ReadCommitted: true, Interval: 5 * time.Millisecond, Log: logger(t)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	before := rusage.CPU()
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	for again.turns.Load() < 200 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	cancel()
	<-done
	used := rusage.CPU() - before
	s, _, _ := f.Status()
	gb := gbOf(t, pair, topic)
	t.Logf("a share of 1%%: %d of %d records, %d bytes read from both sides, %.3f CPU s per GB copied in 200 rounds", s.Records, mib<<10, s.Bytes, used.Seconds()/gb)
	if s.Records == 0 || s.Differences != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// gbOf is how many GB of batches the topic has, as they lie on the source.
func gbOf(t *testing.T, pair *kafkatest.ClusterPair, topic string) float64 {
	t.Helper()
	dirs, err := pair.Source.Admin().DescribeAllLogDirs(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if p.Topic == topic {
				n += p.Size
			}
		})
	})
	return float64(n) / 1e9
}

// replay is a link that copied lanes without holes and does so once more: each time it is asked, it
// has come a step of records further in each.
type replay struct {
	ranges     []verify.Range
	batchBytes float64 // of a record, as it lies in batches
	step       int64
	turns      atomic.Int64
}

func (r *replay) Status(context.Context) (s mirror.LinkStatus, ok bool) {
	n := r.turns.Add(1)
	for _, g := range r.ranges {
		at := min(n*r.step, g.To)
		s.Lanes = append(s.Lanes, mirror.LaneStatus{Topic: g.Lane.Topic, Partition: g.Lane.Partition, Position: at, Ordinal: at, Bytes: int64(float64(at) * r.batchBytes)})
	}
	return s, true
}

func (r *replay) Live(_ context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error) {
	out := map[offsets.Lane]offsets.Live{}
	for _, g := range r.ranges {
		first := g.State.Epochs()[0]
		at := min(r.turns.Load()*r.step, g.To)
		out[g.Lane] = offsets.Live{TargetTopic: g.TargetTopic, State: offsets.StateOf(first,
			offsets.Position{Lane: first.Lane, Writer: first.Writer, Ordinal: at, Source: at, Target: first.Target + at})}
	}
	return out, nil
}
