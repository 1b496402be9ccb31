package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"replicator/pkg/cluster"
	"replicator/pkg/hooks"
)

var update = flag.Bool("update", false, "write the golden files")

const secretValue = "correct-horse-battery"

var sameSecrets = cmp.Comparer(func(a, b cluster.Secret) bool { return a == b })

func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("no test files %s: %v", pattern, err)
	}
	return found
}

func TestGoodFilesLoad(t *testing.T) {
	t.Setenv("TEST_SECRET", secretValue)
	for _, file := range files(t, "testdata/good/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := Load(Source{File: file})
			if err != nil {
				t.Fatal(err)
			}
			if faults := cfg.Check(); len(faults) > 0 {
				t.Fatalf("a loaded configuration has faults: %v", faults)
			}
			if len(cfg.Links) == 0 || len(cfg.Clusters) < 2 {
				t.Fatalf("loaded %d links of %d clusters", len(cfg.Links), len(cfg.Clusters))
			}
		})
	}
}

// Each bad file breaks rules of one kind; its golden file beside it is what
// the user reads.
func TestBadFilesNameEveryFault(t *testing.T) {
	t.Setenv("TEST_SECRET", secretValue)
	for _, file := range files(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := Load(Source{File: file})
			faults, ok := errors.AsType[Faults](err)
			if !ok {
				t.Fatalf("Load returned %v, want faults", err)
			}
			got := faults.Error() + "\n"
			for _, secret := range []string{"hunter2", secretValue} {
				if strings.Contains(got, secret) {
					t.Errorf("the faults show a secret:\n%s", got)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("faults differ (-want +got):\n%s", diff)
			}
		})
	}
}

// Two links of the same topics in opposite directions are a pair of which the
// authority record lets one copy.
func TestAPairHasAReverseAndHooksHaveDefaults(t *testing.T) {
	cfg, err := Load(Source{File: "testdata/good/pair.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if r := cfg.Reverse(&cfg.Links[0]); r != &cfg.Links[1] {
		t.Errorf("the reverse of %s is %v", cfg.Links[0].Name, r)
	}
	want := []hooks.Hook{
		{Step: "open-writers", When: "after", Command: []string{"/usr/local/bin/move-dns", "west"}, Timeout: time.Minute},
		{Step: "fence-writers", When: "before", Command: []string{"/bin/true"}, Timeout: 5 * time.Second, Optional: true},
	}
	if diff := cmp.Diff(want, cfg.Cutover.Hooks); diff != "" {
		t.Errorf("hooks differ (-want +got):\n%s", diff)
	}
}

func TestSmallestFileGetsAllDefaults(t *testing.T) {
	cfg, err := Load(Source{File: "testdata/good/smallest.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Instance, _ = os.Hostname()
	east, west := cluster.DefaultConfig(), cluster.DefaultConfig()
	east.BootstrapServers = []string{"kafka.east.internal:9092"}
	west.BootstrapServers = []string{"kafka.west.internal:9092"}
	want.Clusters = map[string]cluster.Config{"east": east, "west": west}
	link := DefaultLink()
	link.From, link.To, link.Topics = "east", "west", []string{"orders.*"}
	link.Name, link.Journal.Topic = "east->west", "replicator.east.west.journal"
	link.Checkpoints.Topic = "replicator.east.west.checkpoints"
	want.Links = []Link{link}
	if diff := cmp.Diff(&want, cfg, sameSecrets, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
}

func TestLaterLayersWin(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	write(t, file, `
clusters:
  east: {bootstrap_servers: ["10.0.0.1:9092"]}
  us-west: {bootstrap_servers: ["10.0.0.2:9092"], rack: file}
links:
  - {from: east, to: us-west, topics: [file], start: latest, compression: zstd}
limits: {memory: 32MiB}
log: {level: warn}
`)
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags := AddFlags(fs)
	if err := fs.Parse([]string{"--log-level", "error", "--set", "links[0].on_gap=halt", "--set", "clusters.east.rack=flag"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(Source{
		File: file,
		Environ: []string{
			"REPLICATOR_LIMITS_MEMORY=16MiB",
			"REPLICATOR_LOG_LEVEL=debug",
			"REPLICATOR_LINKS_0_TOPICS=a, b",
			"REPLICATOR_LINKS_0_COMPRESSION=",
			"REPLICATOR_LINKS_0_TOPICS_EXCLUDE=[\"x{1,2}\"]",
			"REPLICATOR_CLUSTERS_US_WEST_RACK=env",
			"REPLICATOR_CLUSTERS_EAST_RACK=env",
			"REPLICATOR_CLUSTERS_EAST_BOUNDARY_PORTS=9092,9093",
			"REPLICATOR_CLUSTERS_EAST_SASL_OAUTH_EXTENSIONS=a=b,c=d",
			"REPLICATOR_CLUSTERS_NORTH_BOOTSTRAP_SERVERS=10.0.0.3:9092",
			"REPLICATOR_CONFIG=elsewhere.yaml",
			"REPLICATOR_SERVICE_HOST=10.96.0.1",
			"REPLICATOR_PORT_8475_TCP=tcp://10.96.0.1:8475",
			"HOME=/",
		},
		Flags: flags.Settings(),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := cfg.Links[0]
	got := map[string]any{
		"file":     l.Start,
		"env":      cfg.Limits.Memory,
		"envlist":  l.Topics,
		"envyaml":  l.TopicsExclude,
		"envempty": l.Compression,
		"envalias": cfg.Clusters["us-west"].Rack,
		"envports": cfg.Clusters["east"].Boundary.Ports,
		"envtable": cfg.Clusters["east"].SASL.OAuth.Extensions,
		"envnew":   cfg.Clusters["north"].BootstrapServers,
		"envnewd":  cfg.Clusters["north"].Timeouts.Dial,
		"flag":     cfg.Log.Level,
		"set":      l.OnGap,
		"setover":  cfg.Clusters["east"].Rack,
	}
	want := map[string]any{
		"file": "latest", "env": Bytes(16 << 20), "envlist": []string{"a", "b"}, "envyaml": []string{"x{1,2}"}, "envempty": "",
		"envalias": "env", "envports": []int{9092, 9093}, "envtable": map[string]string{"a": "b", "c": "d"},
		"envnew": []string{"10.0.0.3:9092"}, "envnewd": 10 * time.Second, "flag": "error", "set": "halt", "setover": "flag",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings differ (-want +got):\n%s", diff)
	}
}

func TestHeartbeatsHaveTheirNameWhateverTheNaming(t *testing.T) {
	for _, naming := range []string{"identity", "prefix", "map"} {
		l := Link{From: "east", Naming: naming, TopicPrefix: "copy-of-"}
		if got := l.TargetName("heartbeats"); got == "east.heartbeats" {
			t.Errorf("naming %s without heartbeats: %q", naming, got)
		}
		l.Heartbeats.Enabled = true
		if got := l.TargetName("heartbeats"); got != "east.heartbeats" {
			t.Errorf("naming %s: %q, want east.heartbeats", naming, got)
		}
	}
}

func TestFaultsOfVariablesAndFlagsNameThem(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags := AddFlags(fs)
	if err := fs.Parse([]string{"--memory", "lots", "--set", "limits.memry=1GiB", "--set", "ssl.truststore.location=x"}); err != nil {
		t.Fatal(err)
	}
	_, err := Load(Source{
		File: "testdata/good/smallest.yaml",
		Environ: []string{
			"REPLICATOR_LIMIT_MEMORY=1GiB",
			"REPLICATOR_HTTP_PPROF=on",
			"REPLICATOR_LINKS_7_START=latest",
			"REPLICATOR_CLUSTERS_EAST_SASL_PASSWORD=hunter2",
			"REPLICATOR_DB_PASSWORD=hunter2",
		},
		Flags: flags.Settings(),
	})
	if err == nil {
		t.Fatal("no faults")
	}
	got := err.Error()
	if strings.Contains(got, "hunter2") {
		t.Errorf("a secret is shown:\n%s", got)
	}
	for _, want := range []string{
		"REPLICATOR_LIMIT_MEMORY: is no setting (did you mean REPLICATOR_LIMITS_MEMORY?)",
		`REPLICATOR_HTTP_PPROF: http.pprof "on": want true or false`,
		"REPLICATOR_LINKS_7_START: links[7]: there is no links[1] before it",
		"REPLICATOR_CLUSTERS_EAST_SASL_PASSWORD: clusters.east.sasl.password: want a reference",
		"REPLICATOR_DB_PASSWORD: is no setting",
		`--memory: limits.memory "lots": want a size`,
		"--set limits.memry: limits.memry: is no setting (did you mean limits.memory?)",
		"--set ssl.truststore.location: ssl.truststore.location: is no setting (use tls.ca_file",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
}

func TestVariableThatHoldsAReferredSecretIsNoSetting(t *testing.T) {
	t.Setenv("REPLICATOR_MY_PASSWORD", secretValue)
	file := filepath.Join(t.TempDir(), "c.yaml")
	write(t, file, `
clusters:
  east: {bootstrap_servers: ["10.0.0.1:9092"], sasl: {mechanism: SCRAM-SHA-256, username: u, password: "env:REPLICATOR_MY_PASSWORD"}}
  west: {bootstrap_servers: ["10.0.0.2:9092"]}
links: [{from: east, to: west, topics: [a]}]
`)
	if _, err := Load(Source{File: file, Environ: os.Environ()}); err != nil {
		t.Fatal(err)
	}
}

func TestShowNeverShowsASecretAndLoadsAgain(t *testing.T) {
	t.Setenv("TEST_SECRET", secretValue)
	for _, file := range files(t, "testdata/good/*.yaml") {
		cfg, err := Load(Source{File: file})
		if err != nil {
			t.Fatal(err)
		}
		out, err := Show(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte(secretValue)) {
			t.Errorf("%s: the secret is shown:\n%s", file, out)
		}
		again := filepath.Join(t.TempDir(), "again.yaml")
		write(t, again, string(out))
		second, err := Load(Source{File: again})
		if err != nil {
			t.Fatalf("%s: what is shown does not load: %v\n%s", file, err, out)
		}
		if diff := cmp.Diff(cfg, second, sameSecrets, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: what is shown is another configuration (-first +second):\n%s", file, diff)
		}
	}
	cfg := Default()
	c := cluster.DefaultConfig()
	c.SASL.Password = cluster.LiteralSecret(secretValue)
	cfg.Clusters = map[string]cluster.Config{"east": c}
	out, err := Show(&cfg)
	if err != nil || bytes.Contains(out, []byte(secretValue)) {
		t.Errorf("a literal secret is shown (%v):\n%s", err, out)
	}
}

func TestInitWritesAConfigurationThatLoads(t *testing.T) {
	for _, a := range []Answers{
		{From: End{"east", []string{"kafka.east:9092"}}, To: End{"west", []string{"10.0.0.2:9092", "[fd00::1]:9092"}}},
		{From: End{"east", []string{"k:9092"}}, To: End{"west", []string{"l:9092"}}, Topics: []string{`or"ders\..*`, "x"}, TLS: true},
	} {
		out, err := Init(a)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, string(out))
		cfg, err := Load(Source{File: file})
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := cfg.Clusters["west"].BootstrapServers; !reflect.DeepEqual(got, a.To.Servers) {
			t.Errorf("servers are %v, want %v", got, a.To.Servers)
		}
		if len(a.Topics) > 0 && !reflect.DeepEqual(cfg.Links[0].Topics, a.Topics) {
			t.Errorf("topics are %q, want %q", cfg.Links[0].Topics, a.Topics)
		}
		if cfg.Clusters["east"].TLS.Enabled != a.TLS {
			t.Errorf("tls.enabled is %v", !a.TLS)
		}
	}
	_, err := Init(Answers{From: End{"east", []string{"k"}}, To: End{"west", []string{"8.8.8.8:9092"}}})
	if err == nil || !strings.Contains(err.Error(), "add the port") || !strings.Contains(err.Error(), "not private") {
		t.Errorf("Init took addresses that do not load: %v", err)
	}
}

// A file that is anything at all ends in a configuration or in faults.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		found, _ := filepath.Glob(pattern)
		for _, file := range found {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := newReader()
		r.readFile("fuzz.yaml", []byte(text))
		cfg, err := assemble(r)
		if err != nil {
			if _, ok := errors.AsType[Faults](err); !ok {
				t.Fatalf("neither a configuration nor faults: %v", err)
			}
			return
		}
		if faults := cfg.Check(); len(faults) > 0 {
			t.Fatalf("a loaded configuration has faults: %v", faults)
		}
	})
}

func TestBytesReadWhatTheyWrite(t *testing.T) {
	for _, text := range []string{"0", "1", "1023", "1KiB", "1025", "64MiB", "3GiB", "1TiB"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b.String() != text {
			t.Errorf("%s became %s (%v)", text, b, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "64MB", "9999999TiB", "0x10"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %s", text, b)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
