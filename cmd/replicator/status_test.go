package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"replicator/internal/status"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"replicator/internal/stats"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/heartbeat"
	"replicator/pkg/mirror"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func healthyStatus() *status.Status {
	return &status.Status{
		Time: noon, Version: "v1.2.3", Instance: "host-1/812", Started: noon.Add(-26 * time.Hour),
		Memory: status.Memory{UsedBytes: 5 << 20, LimitBytes: 64 << 20},
		Links: []status.Link{{LinkStatus: mirror.LinkStatus{
			Name: "east->west", Source: "east", Target: "west", SourceID: "5L6g3nShT-eMCtK--X86sw", TargetID: "Qx1J2b3kTn6aVd0mZr9c4A",
			State: mirror.LinkCopying, Ready: true, LaneStates: map[mirror.LaneState]int{mirror.LaneCopying: 2},
			LagRecords: new(int64(30)), LagSeconds: new(0.25),
			Lanes: []mirror.LaneStatus{
				copyingLane("clicks", 0, 30, 0.25),
				copyingLane("orders", 11, 0, 0),
			},
			Routes: []mirror.RouteCount{
				{Route: "forward", Reason: "dense", Codec: "lz4", Batches: 9012, Records: 1234567, Bytes: 512 << 20},
				{Route: "repack", Reason: "small", Codec: "none", Batches: 312, Records: 3120, Bytes: 312 << 10},
				{Route: "skip", Reason: "marker", Codec: "none", Batches: 3, Records: 3, Bytes: 234},
			},
			Openings: 2, JournalAge: new(0.4),
			Latency:       stats.Histogram{Bounds: []float64{0.001, 0.0025, 0.005, 0.01, 0.1}, Counts: []uint64{10, 600, 300, 85, 5}, Sum: 3, Count: 1000},
			InFlightBytes: 4096, SourceBytes: 513 << 20, TargetBytes: 512 << 20,
		}, Checkpoints: &checkpoint.Status{
			Mode: "tail", CurrentAge: new(0.4),
			Latency: stats.Histogram{Bounds: []float64{0.01, 0.1, 0.25}, Counts: []uint64{10, 80, 10}, Sum: 6, Count: 100},
			Groups: []checkpoint.GroupStatus{
				{Group: "billing", Type: "consumer", Partitions: 2, Outcomes: map[string]int{"exact": 1, "end": 1}, Behind: 12, Placed: 2},
				{Group: "search-index", Type: "consumer", Partitions: 1, Outcomes: map[string]int{"ahead": 1}, Missing: 30, Delay: 0.1, NotPlaced: map[checkpoint.Reason]int{checkpoint.GroupActive: 1}},
			},
		}, Heartbeats: &heartbeat.Status{Written: 93600, Age: new(0.7)}}},
	}
}

func copyingLane(topic string, partition int32, lag int64, behind float64) mirror.LaneStatus {
	return mirror.LaneStatus{
		Topic: topic, Partition: partition, TargetTopic: topic, State: mirror.LaneCopying,
		Position: 1234567 - lag, SourceEnd: 1234567, SourceStable: 1234567, SourceStart: 1000, LagRecords: &lag, LagSeconds: &behind,
		Ordinal: 1233567 - lag, TargetEnd: 1233569 - lag, ProducerID: 4000, Epoch: 1, SourceBroker: 1, TargetBroker: 3,
		Records: 617000, Bytes: 256 << 20, Openings: 1,
	}
}

// troubledStatus has one of everything an operator may see.
func troubledStatus() *status.Status {
	s := healthyStatus()
	s.BoundaryRefusals = map[string]int64{"east": 0, "west": 2}
	l := &s.Links[0]
	l.State, l.Ready = mirror.LinkDegraded, false
	l.Reason = "47 of 64 lanes are not copying: orders-0: source offset 170 cannot be copied (corrupt): checksum is wrong"
	l.LagRecords, l.LagSeconds = new(int64(1234997)), new(5025.0)
	l.LaneStates = map[mirror.LaneState]int{mirror.LaneHalted: 2, mirror.LaneWaiting: 44, mirror.LaneOpening: 1, mirror.LaneCopying: 17}
	l.Checkpoints.Mode = "poll"
	l.Checkpoints.Reason = "read __consumer_offsets: TOPIC_AUTHORIZATION_FAILED; grant READ on topic __consumer_offsets of cluster east to follow commits within a second"
	l.Heartbeats = &heartbeat.Status{Failed: 12, Error: "write heartbeat to east: TOPIC_AUTHORIZATION_FAILED; grant WRITE on topic heartbeats of cluster east, or set heartbeats.enabled to false"}
	l.Warnings = []string{"journal topic has replication factor 1: losing its broker loses the map of offsets"}
	l.Errors = map[string]int64{"connection": 4, "open": 12, "group": 4}
	l.ThrottleTarget = 12.5
	l.Lanes = nil
	for p := range int32(17) {
		l.Lanes = append(l.Lanes, copyingLane("clicks", p, int64(p)*10, float64(p)/4))
	}
	for p := range int32(44) {
		l.Lanes = append(l.Lanes, mirror.LaneStatus{
			Topic: "payments", Partition: p, TargetTopic: "payments", State: mirror.LaneWaiting, Reason: "target partition has no leader",
			Position: -1, SourceEnd: -1, SourceStable: -1, SourceStart: -1, Ordinal: -1, TargetEnd: -1, SourceBroker: -1, TargetBroker: -1,
		})
	}
	halted := copyingLane("orders", 0, 1234397, 5025)
	halted.State, halted.Reason = mirror.LaneHalted, "source offset 170 cannot be copied (corrupt): checksum is wrong"
	long := copyingLane("a.rather.long.name.of.a.topic.as.enterprises.like.them.v2", 117, 600, 60)
	long.State, long.Reason = mirror.LaneHalted, "source topic was deleted and created again; to copy the new one from its beginning set on_recreate: restart"
	opening := copyingLane("orders", 1, 0, 0)
	opening.State, opening.Openings, opening.Position = mirror.LaneOpening, 0, -1
	opening.LagRecords, opening.LagSeconds = nil, nil
	l.Lanes = append(l.Lanes, long, halted, opening)
	l.Events = []mirror.Event{
		{Time: noon.Add(-25 * time.Hour), Kind: mirror.EventTopicCreated, Detail: "target topic orders created with 2 partitions"},
		{Time: noon.Add(-84 * time.Minute), Kind: mirror.EventGap, Lane: "clicks-3", Detail: "source offsets 100 to 199 were gone before they could be copied: 100 records are missing on the target for good"},
		{Time: noon.Add(-3 * time.Second), Kind: mirror.EventHalted, Lane: "orders-0", Detail: halted.Reason},
	}
	return s
}

// golden compares with a file of testdata, and writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got)\n%s", path, d)
	}
}

func TestStatusTables(t *testing.T) {
	silent := healthyStatus()
	silent.Links = []status.Link{{LinkStatus: mirror.LinkStatus{Name: "east->west", State: "silent"}}}
	later := healthyStatus()
	later.Time = noon.Add(2 * time.Second)
	later.Links[0].Routes[0].Records += 24000
	later.Links[0].Routes[0].Bytes += 30 << 20
	later.Links[0].Latency.Counts = []uint64{10, 600, 300, 285, 5}
	later.Links[0].Latency.Count += 200
	guards := healthyStatus()
	guards.Links[0].State, guards.Links[0].Guard = mirror.LinkClosed, &mirror.GuardStatus{
		Lanes: 3, Fenced: 3, Every: 15 * time.Minute,
		Assumed: "1 of 3 brokers of west have not told for how long a fence is remembered, taken for 1h0m0s at most: CLUSTER_AUTHORIZATION_FAILED: Cluster authorization failed.; grant DESCRIBE_CONFIGS on the cluster resource of cluster west",
	}
	for name, c := range map[string]struct {
		screen    screen
		s, before *status.Status
	}{
		"status-guard":        {screen{width: 80, lanes: 3}, guards, nil},
		"status-80":           {screen{width: 80, lanes: 20}, healthyStatus(), nil},
		"status-200":          {screen{width: 200, lanes: 20}, healthyStatus(), nil},
		"status-wide-200":     {screen{width: 200, lanes: 20, wide: true}, healthyStatus(), nil},
		"status-watch-80":     {screen{width: 80, lanes: 20}, later, healthyStatus()},
		"status-trouble-80":   {screen{width: 80, lanes: 20}, troubledStatus(), nil},
		"status-trouble-200":  {screen{width: 200, lanes: 20}, troubledStatus(), nil},
		"status-trouble-pipe": {screen{lanes: 5}, troubledStatus(), nil},
		"status-trouble-wide": {screen{wide: true, lanes: 5}, troubledStatus(), nil},
		"status-colour":       {screen{width: 80, lanes: 3, colour: true}, troubledStatus(), nil},
		"status-silent":       {screen{width: 80}, silent, nil},
		"status-none":         {screen{width: 80}, &status.Status{Time: noon, Started: noon, Version: "v1.2.3", Instance: "host-1/812"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.screen.render(c.s, c.before)
			for line := range strings.SplitSeq(got, "\n") {
				if c.screen.width > 0 && width(line) > c.screen.width {
					t.Errorf("%d columns wide: %s", width(line), line)
				}
			}
			golden(t, name+".txt", got)
		})
	}
}

func TestStatusCannotCommandATerminal(t *testing.T) {
	const evil = "x\x1b[2J\n\u009b31m\u202e\r"
	s := healthyStatus()
	s.Version, s.Instance = evil, evil
	s.BoundaryRefusals = map[string]int64{evil: 1}
	l := &s.Links[0]
	l.Name, l.Source, l.Target, l.SourceID, l.TargetID, l.Reason = evil, evil, evil, evil, evil, evil
	l.State = evil
	l.Warnings, l.Errors = []string{evil}, map[string]int64{evil: 1}
	l.LaneStates[evil] = 1
	l.Lanes = append(l.Lanes, mirror.LaneStatus{Topic: evil, TargetTopic: evil, State: evil, Reason: evil}, mirror.LaneStatus{Topic: evil, State: mirror.LaneHalted, Reason: evil})
	l.Routes = append(l.Routes, mirror.RouteCount{Route: evil, Reason: evil, Codec: evil})
	l.Events = []mirror.Event{{Kind: evil, Lane: evil, Detail: evil}}
	for _, c := range []screen{{width: 80}, {wide: true}} {
		for _, text := range []string{c.render(s, nil), lines(s, healthyStatus())} {
			if strings.ContainsAny(text, "\x1b\r\u009b\u202e") || strings.Contains(text, "\n\\u009b") {
				t.Errorf("a name reached the terminal as it is: %q", text)
			}
		}
	}
	if err := verdict(s); err != nil && strings.ContainsAny(err.Error(), "\x1b\n\r\u009b") {
		t.Errorf("a name reached the terminal by an error: %q", err)
	}
}

// serving is a daemon that answers /status with s.
func serving(t *testing.T, s *status.Status) (url, body string) {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	body = string(data) + "\n"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status":
			_, _ = io.WriteString(w, body)
		case "/healthz":
			if s.Links[0].State == "silent" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, "{}\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, body
}

func TestStatusExitCodesAndFormats(t *testing.T) {
	t.Setenv("REPLICATOR_CONFIG", "")
	t.Setenv("COLUMNS", "")
	halted := healthyStatus()
	halted.Links[0].LaneStates[mirror.LaneHalted] = 1 // and yet ready
	silent := healthyStatus()
	silent.Links = []status.Link{{LinkStatus: mirror.LinkStatus{Name: "east->west", State: "silent"}}}
	for name, c := range map[string]struct {
		s      *status.Status
		args   []string
		code   int
		stdout string // is in it
		stderr string
	}{
		"healthy":             {healthyStatus(), nil, exitDone, "east->west  copying", ""},
		"not ready":           {troubledStatus(), nil, exitRefused, "payments-0", "error: link east->west is not ready: 47 of 64"},
		"halted":              {halted, nil, exitRefused, "east->west", "error: link east->west has halted lanes: 1"},
		"silent":              {silent, nil, exitRefused, "silent", "error: link east->west does not answer"},
		"no link":             {&status.Status{}, nil, exitRefused, "no link is running", "error: no link is running"},
		"wide":                {healthyStatus(), []string{"-o", "wide"}, exitDone, "TARGET END", ""},
		"check":               {healthyStatus(), []string{"--check"}, exitDone, "ready\n", ""},
		"check ready":         {troubledStatus(), []string{"--check=ready"}, exitRefused, "", "error: link"},
		"halted is alive":     {troubledStatus(), []string{"--check=alive"}, exitDone, "alive\n", ""},
		"silent is not alive": {silent, []string{"--check=alive"}, exitRefused, "", "error: not alive"},
		"unknown output":      {healthyStatus(), []string{"-o", "xml"}, exitUsage, "", `error: choose output: "xml" is none of`},
		"watch json":          {healthyStatus(), []string{"-w", "-o", "json"}, exitUsage, "", "--watch prints tables only"},
		"token without addr":  {healthyStatus(), []string{"--addr=", "--token=env:X"}, exitUsage, "", "go with --addr"},
		"literal token":       {healthyStatus(), []string{"--token=hunter2"}, exitUsage, "", "want a reference"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serving(t, c.s)
			code, stdout, stderr := shell(t, append([]string{"status", "--addr", url}, c.args...)...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("code %d, want %d\nstdout %s\nstderr %s", code, c.code, stdout, stderr)
			}
			if strings.Contains(stderr, "hunter2") {
				t.Error("a secret was repeated")
			}
		})
	}
}

func TestStatusJSONIsUnchangedAndYAMLSaysTheSame(t *testing.T) {
	url, body := serving(t, troubledStatus())
	code, stdout, _ := shell(t, "status", "--addr", url, "-o", "json")
	if code != exitRefused || stdout != body {
		t.Errorf("code %d, changed: %s", code, cmp.Diff(body, stdout))
	}
	_, stdout, _ = shell(t, "status", "--addr", url, "-o", "yaml")
	if !strings.HasPrefix(stdout, "time: \"2026-03-01T12:00:00Z\"\nversion: v1.2.3\n") {
		t.Errorf("begins %.200s", stdout)
	}
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal([]byte(stdout), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(body), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(fromJSON, fromYAML); d != "" {
		t.Error(d)
	}
}

func TestStatusOfADaemonThatIsNotThere(t *testing.T) {
	url, _ := serving(t, healthyStatus())
	taken, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, c := range map[string]struct{ addr, want string }{
		"nobody listens": {gone.URL, "connection refused\nhint: is it running? --addr names another address"},
		"something else": {url + "/elsewhere", ""}, // the path is not ours to choose
		"no URL":         {"ftp://x", "is no address like http://127.0.0.1:8475"},
		"host and port":  {taken, ""},
	} {
		code, _, stderr := shell(t, "status", "--addr", c.addr)
		if (code == exitDone) != (c.want == "") || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: code %d, %s", name, code, stderr)
		}
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer other.Close()
	if code, _, stderr := shell(t, "status", "--addr", other.URL); code != exitFailed || !strings.Contains(stderr, "the answer is not a daemon's") {
		t.Errorf("web server: code %d, %s", code, stderr)
	}
	moved := httptest.NewServer(http.RedirectHandler(url+"/status", http.StatusFound))
	defer moved.Close()
	if code, _, stderr := shell(t, "status", "--addr", moved.URL); code != exitFailed || !strings.Contains(stderr, "302") {
		t.Errorf("redirect: code %d, %s", code, stderr)
	}
}

func TestStatusFindsTheDaemonByItsConfiguration(t *testing.T) {
	url, _ := serving(t, healthyStatus())
	file := filepath.Join(t.TempDir(), "pair.yaml")
	write := func(listen string) {
		text := fmt.Sprintf("clusters:\n  east: {bootstrap_servers: [10.0.0.1:9092]}\n  west: {bootstrap_servers: [10.0.0.2:9092]}\nlinks: [{from: east, to: west, topics: [orders]}]\nhttp: {listen: %q}\n", listen)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.TrimPrefix(url, "http://"))
	if code, stdout, stderr := shell(t, "status", "-c", file, "--check"); code != exitDone || stdout != "ready\n" {
		t.Errorf("code %d, %s%s", code, stdout, stderr)
	}
	for listen, want := range map[string]string{"": "it listens nowhere", "127.0.0.1:0": "its log says which"} {
		write(listen)
		if code, _, stderr := shell(t, "status", "-c", file); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("listen %q: code %d, %s", listen, code, stderr)
		}
	}
}

func TestWatchPrintsALineALookWithoutATerminal(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if n == 3 { // restarting
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		s := healthyStatus()
		s.Time = noon.Add(time.Duration(n) * time.Second)
		s.Links[0].Routes[0].Records += int64(n) * 1500
		s.Links[0].Routes[0].Bytes += int64(n) << 20
		_ = json.NewEncoder(w).Encode(s)
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &untilLines{n: 5, done: cancel}
	err := (&app{}).status(ctx, out, statusOptions{addr: srv.URL, output: "table", watch: true, interval: 100 * time.Millisecond})
	if err != nil {
		t.Error("interrupted watch:", err)
	}
	got := strings.ReplaceAll(out.String(), srv.URL, "URL")
	want := `2026-03-01T12:00:01Z east->west copying lag 30 records, behind 0.2 s, 2 copying
2026-03-01T12:00:02Z east->west copying lag 30 records, behind 0.2 s, 2 copying, 1,500 records/s, 1.0 MiB/s
error: ask URL/status: 503 Service Unavailable: not now
2026-03-01T12:00:04Z east->west copying lag 30 records, behind 0.2 s, 2 copying
2026-03-01T12:00:05Z east->west copying lag 30 records, behind 0.2 s, 2 copying, 1,500 records/s, 1.0 MiB/s
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got) %s", d)
	}
}

// untilLines keeps what is written, and calls done when it has n lines.
type untilLines struct {
	strings.Builder
	n    int
	done func()
}

func (u *untilLines) WriteString(text string) (int, error) {
	n, err := u.Builder.WriteString(text)
	if strings.Count(u.String(), "\n") == u.n {
		u.done()
	}
	return n, err
}

func TestQuantitiesReadWell(t *testing.T) {
	for got, want := range map[string]string{
		words.Number(0): "0", words.Number(999): "999", words.Number(-1234567): "-1,234,567",
		words.Size(0): "0 B", words.Size(1023): "1,023 B", words.Size(1024): "1.0 KiB", words.Size(1<<20 - 1): "1.0 MiB", words.Size(5 << 40): "5.0 TiB",
		words.Seconds(0): "0 s", words.Seconds(0.0025): "2.5 ms", words.Seconds(0.25): "0.2 s", words.Seconds(9.99): "10.0 s", words.Seconds(59): "59 s",
		words.Seconds(61): "1m01s", words.Seconds(3 * 3600): "3h00m", words.Seconds(26 * 3600): "1d02h", words.Seconds(-1): "0 s",
		words.Offset(-1): "-", snip("orders.very.long-12", 11): "order…ng-12",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
