package observe

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"replicator/internal/status"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"replicator/pkg/mirror"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

func mainWithLeakCheck(m *testing.M) { goleak.VerifyTestMain(m) }

// scrape gathers the way a server would, with every series checked against its
// description.
func scrape(t *testing.T, s status.Status, partitions bool) map[string]*dto.MetricFamily {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(NewCollector(CollectorConfig{
		Source: always(s), Partitions: partitions, Build: Build{Version: "v1.2.3", GoVersion: "go1.26"},
	}))
	found, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*dto.MetricFamily)
	for _, f := range found {
		out[f.GetName()] = f
	}
	return out
}

// value of the series whose labels are those given, as name, value, ...; false:
// there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
	for _, m := range families[namespace+name].GetMetric() {
		all := true
		for i := 0; i < len(labels); i += 2 {
			all = all && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			})
		}
		if all {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
		}
	}
	return 0, false
}

func TestSeriesShowTheSnapshot(t *testing.T) {
	f := scrape(t, example(), true)
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"build_info", []string{"version", "v1.2.3"}, 1},
		{"memory_used_bytes", nil, 5 << 20},
		{"start_time_seconds", nil, float64(noon.Unix() - 3600)},
		{"boundary_refusals_total", []string{"cluster", "west"}, 1},
		{"boundary_refusals_total", []string{"cluster", "east"}, 0},
		{"link_state", []string{"state", "degraded"}, 1},
		{"link_state", []string{"state", "copying"}, 0},
		{"link_ready", nil, 0},
		{"lanes", []string{"state", "halted"}, 1},
		{"lanes", []string{"state", "opening"}, 0},
		{"lag_records", []string{"link", "east->west"}, 1030},
		{"lag_seconds", nil, 90.5},
		{"lag_unknown_lanes", nil, 1},
		{"records_total", []string{"route", "forward", "reason", "dense", "codec", "lz4"}, 900},
		{"batches_total", []string{"route", "skip"}, 3},
		{"bytes_total", []string{"route", "forward"}, 90000},
		{"network_bytes_total", []string{"path", "source_read"}, 100000},
		{"throttle_seconds_total", []string{"side", "target"}, 1.5},
		{"in_flight_bytes", nil, 4096},
		{"openings_total", nil, 3},
		{"events_total", []string{"kind", "halted"}, 1},
		{"events_total", []string{"kind", "gap"}, 0},
		{"errors_total", []string{"class", "connection"}, 4},
		{"target_warnings", nil, 1},
		{"topic_lanes", []string{"topic", "orders", "state", "waiting"}, 1},
		{"topic_lag_records", []string{"topic", "orders"}, 1000},
		{"topic_lag_seconds", []string{"topic", "clicks"}, 0.25},
		{"partition_position", []string{"topic", "clicks", "partition", "0"}, 970},
		{"partition_source_stable", []string{"topic", "clicks"}, 990},
		{"partition_source_end", []string{"topic", "clicks"}, 1000},
		{"partition_source_start", []string{"topic", "clicks"}, 10},
		{"partition_ordinal", []string{"topic", "clicks"}, 900},
		{"partition_target_end", []string{"topic", "clicks"}, 901},
		{"partition_records_total", []string{"topic", "clicks"}, 900},
		{"partition_bytes_total", []string{"topic", "clicks"}, 90000},
		{"partition_openings_total", []string{"topic", "orders", "partition", "0"}, 2},
		{"partition_state", []string{"topic", "orders", "partition", "0", "state", "halted"}, 1},
	} {
		if got, ok := value(f, c.name, c.labels...); !ok || got != c.want {
			t.Errorf("%s %v: got %v (there: %v), want %v", c.name, c.labels, got, ok, c.want)
		}
	}
}

func TestUnknownHasNoSeries(t *testing.T) {
	f := scrape(t, example(), true)
	unknown := []string{"topic", "orders", "partition", "1"}
	for _, name := range []string{"partition_lag_records", "partition_lag_seconds", "partition_position", "partition_source_end", "partition_source_stable", "partition_source_start", "partition_ordinal", "partition_target_end"} {
		if v, ok := value(f, name, unknown...); ok {
			t.Errorf("%s of a lane that knows nothing is %v", name, v)
		}
	}
	if v, ok := value(f, "journal_age_seconds"); ok {
		t.Errorf("age of a journal never written is %v", v)
	}
	s := example()
	s.Links[0].LagRecords, s.Links[0].LagSeconds = nil, nil
	for _, name := range []string{"lag_records", "lag_seconds"} {
		if v, ok := value(scrape(t, s, true), name); ok {
			t.Errorf("%s is %v though no lane knows its lag", name, v)
		}
	}
}

func TestSilentLinkShowsOnlyThatItIsSilent(t *testing.T) {
	f := scrape(t, silent(), true)
	var of []string
	for name, fam := range f {
		for _, m := range fam.GetMetric() {
			if len(m.GetLabel()) > 0 && m.GetLabel()[0].GetName() == "link" {
				of = append(of, strings.TrimPrefix(name, namespace))
				break
			}
		}
	}
	slices.Sort(of)
	if d := cmp.Diff([]string{"link_ready", "link_state"}, of); d != "" {
		t.Error("series of a link whose loop does not answer (-want +got)", d)
	}
	if v, _ := value(f, "link_state", "state", "silent"); v != 1 {
		t.Error("state silent is not shown")
	}
}

func TestPartitionSeriesCanBeSwitchedOff(t *testing.T) {
	f := scrape(t, example(), false)
	for name := range f {
		if strings.HasPrefix(name, namespace+"partition_") {
			t.Errorf("%s is there", name)
		}
	}
	if _, ok := value(f, "topic_lag_records", "topic", "orders"); !ok {
		t.Error("the lag of topics went with them")
	}
}

func TestLatencyIsAPrometheusHistogram(t *testing.T) {
	h := scrape(t, example(), false)[namespace+"replication_latency_seconds"].GetMetric()[0].GetHistogram()
	var got []uint64
	for _, b := range h.GetBucket() {
		got = append(got, b.GetCumulativeCount())
	}
	// One observation was beyond all bounds.
	if d := cmp.Diff([]uint64{1, 6, 8}, got); d != "" || h.GetSampleCount() != 9 || h.GetSampleSum() != 0.9 {
		t.Errorf("count %d, sum %v, buckets (-want +got) %s", h.GetSampleCount(), h.GetSampleSum(), d)
	}
}

func TestNamesThatAreNoTextDoNotBreakTheScrape(t *testing.T) {
	s := example()
	s.Links[0].Lanes[0].Topic = "or\xffders\n"
	if _, ok := value(scrape(t, s, true), "partition_position", "topic", "or\uFFFDders\n"); !ok {
		t.Error("the lane has no series")
	}
}

func TestMetricsAreWellNamed(t *testing.T) {
	reg := NewRegistry(NewCollector(CollectorConfig{Source: always(example()), Partitions: true, Build: Build{Version: "v1"}}))
	found, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(found).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, m := range families {
		if m.help == "" || !strings.HasSuffix(m.help, ".") {
			t.Errorf("%s: help text %q is no sentence", m.name, m.help)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is missing: its lint was not run (Debian: apt-get install prometheus)")
		return
	}
	var text strings.Builder
	for _, f := range found {
		if strings.HasPrefix(f.GetName(), namespace) {
			if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestEveryMetricIsEmitted(t *testing.T) {
	s := example()
	s.Links[0].JournalAge = new(0.5)
	s.Links[0].Guard = &mirror.GuardStatus{Lanes: 3, Fenced: 2, Renewed: 5, Last: new(noon), Every: time.Hour}
	f := scrape(t, s, true)
	for _, m := range families {
		if f[m.name] == nil {
			t.Errorf("%s is described and documented, but a full status does not show it", m.name)
		}
	}
}

// Series of kinds and states begin at 0, so all of them have to be known here.
func TestKindsAndStatesAreThoseOfMirror(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../pkg/mirror/status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := func(prefix string) (out []string) {
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if lit, ok := v.Values[0].(*ast.BasicLit); ok && strings.HasPrefix(v.Names[0].Name, prefix) {
					s, _ := strconv.Unquote(lit.Value)
					out = append(out, s)
				}
			}
		}
		slices.Sort(out)
		return out
	}
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	if d := cmp.Diff(constants("Event"), sorted(eventKinds)); d != "" {
		t.Error("kinds of events (-mirror +observe)", d)
	}
	known := constants("Link")
	if !slices.Contains(known, string(Silent)) {
		known = sorted(append(known, string(Silent)))
	}
	if d := cmp.Diff(known, sorted(linkStates)); d != "" {
		t.Error("states of links (-mirror +observe)", d)
	}
}

func TestReferenceDocumentsEveryMetric(t *testing.T) {
	const path = "../../docs/metrics.md"
	want := reference()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("docs/metrics.md is not what the code exports; go test ./internal/observe -update writes it (-want +got)\n%s", d)
	}
}

// reference is the text of docs/metrics.md.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Metrics

Made from the code by ` + "`go test ./internal/observe -update`" + `; a test keeps the two equal.

All come from one snapshot a scrape, the one ` + "`/status`" + ` shows. What is not known has no series: it is never 0. Counters begin at 0
when the daemon starts; those of a partition, when it gets the lane. Every link is seen by each daemon for its own lanes: sum over
instances. The process also exports the usual ` + "`go_*` and `process_*`" + ` series.

`)
	section := ""
	for _, m := range families {
		s := "Process"
		switch {
		case strings.HasPrefix(m.name, namespace+"partition_"):
			s = "Partition (`http.partition_metrics`)"
		case strings.HasPrefix(m.name, namespace+"topic_"):
			s = "Topic"
		case slices.Contains(m.labels, "link"):
			s = "Link"
		}
		if s != section {
			section = s
			fmt.Fprintf(&b, "## %s\n\n| name | type | labels | meaning |\n|---|---|---|---|\n", s)
		}
		labels := "`" + strings.Join(m.labels, "`, `") + "`"
		if len(m.labels) == 0 {
			labels = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, labels, m.help)
		if i := slices.Index(families, m); i+1 < len(families) && nextSection(families[i+1]) != nextSection(m) {
			b.WriteString("\n")
		}
	}
	fmt.Fprintf(&b, "\n## Values of labels\n\n")
	fmt.Fprintf(&b, "- `state` of a link: %s\n", quoted(linkStates))
	states := make([]string, len(mirror.LaneStates))
	for i, s := range mirror.LaneStates {
		states[i] = string(s)
	}
	fmt.Fprintf(&b, "- `state` of a lane: %s\n", quoted(states))
	fmt.Fprintf(&b, "- `kind`: %s\n", quoted(eventKinds))
	return b.String()
}

func nextSection(m *metric) string {
	return fmt.Sprint(strings.HasPrefix(m.name, namespace+"partition_"), strings.HasPrefix(m.name, namespace+"topic_"), slices.Contains(m.labels, "link"))
}

func quoted(s []string) string { return "`" + strings.Join(s, "`, `") + "`" }
