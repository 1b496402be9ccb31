package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shell executes a command line as a shell would, without a terminal.
func shell(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestInitCheckShowFitTogether(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pair.yaml")
	args := []string{"config", "init", file, "--from", "east=kafka.east.internal:9092", "--to", "west=10.0.0.2:9092,10.0.0.3:9092", "--topics", "orders.*"}
	if code, _, stderr := shell(t, args...); code != exitDone || !strings.Contains(stderr, "config check") {
		t.Fatalf("init: %d, %s", code, stderr)
	}
	if code, _, stderr := shell(t, args...); code != exitUsage || !strings.Contains(stderr, "hint: --force") {
		t.Errorf("init over a file: %d, %s", code, stderr)
	}
	if code, _, stderr := shell(t, append(args, "--force")...); code != exitDone {
		t.Errorf("init with --force: %d, %s", code, stderr)
	}
	if code, stdout, stderr := shell(t, "config", "check", file); code != exitDone || stdout != "OK: 2 clusters, 1 link\n" {
		t.Errorf("check: %d, %q, %s", code, stdout, stderr)
	}
	code, stdout, stderr := shell(t, "config", "show", "-c", file, "--memory", "32MiB")
	if code != exitDone || !strings.Contains(stdout, "memory: 32MiB") || !strings.Contains(stdout, "name: east->west") {
		t.Errorf("show: %d, %s%s", code, stdout, stderr)
	}
	t.Setenv("REPLICATOR_CONFIG", file)
	if code, _, stderr := shell(t, "config", "check"); code != exitDone {
		t.Errorf("check by variable: %d, %s", code, stderr)
	}
}

func TestErrorsGoToStderrWithAHintAndACode(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("colour: blue\nclusters: {east: {bootstrap_servers: [k]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REPLICATOR_CONFIG", "")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"config", "check", bad}, []string{"bad.yaml:1: colour", "bad.yaml:2: clusters.east.bootstrap_servers[0]", "links: there are none", "hint: "}},
		{[]string{"config", "check"}, []string{"clusters: there are none", "hint: name a file with --config"}},
		{[]string{"config", "check", bad + "x"}, []string{"no such file", "hint: replicator config init"}},
		{[]string{"config", "check", "a", "b"}, []string{"at most one file", "hint: see replicator config check --help"}},
		{[]string{"config", "init"}, []string{"--from and --to are needed", "hint: --from east="}},
		{[]string{"config", "init", "--from", "east", "--to", "w=k:1"}, []string{`read cluster "east": want alias=host:port`}},
		{[]string{"config", "init", "--from", "e=8.8.8.8:1", "--to", "w=k:1"}, []string{"not private"}},
		{[]string{"conifg"}, []string{`unknown command "conifg"`, "config", "hint: see replicator --help"}},
		{[]string{"--nonsense"}, []string{"unknown flag: --nonsense", "hint: see replicator --help"}},
		{[]string{"version", "-o", "xml"}, []string{`"xml" is neither text nor json`}},
		{[]string{"help", "frob"}, []string{`unknown command "frob"`, "hint: see replicator --help"}},
		{[]string{"help", "switchovr"}, []string{"switchover", "hint: see replicator --help"}},
		{[]string{"help", "config", "frob"}, []string{`unknown command "frob" for "replicator config"`, "hint: see replicator config --help"}},
		{[]string{"status", "--check", "alive"}, []string{"--check=alive", "hint: see replicator status --help"}},
		{[]string{"failback", "plan"}, []string{"--from", "hint: see replicator failback plan --help"}},
		{[]string{"failback", "run", "--from", "east", "--stranded", "keep"}, []string{`"keep" is none of`, "hint: see replicator failback run --help"}},
		{[]string{"evidence", "export"}, []string{"want the id of one run", "hint: see replicator evidence export --help"}},
		{[]string{"run", "pair.yaml"}, []string{`got "pair.yaml"`, "--config", "hint: see replicator run --help"}},
		{[]string{"switchover", "west"}, []string{`got "west"`, "by a flag", "hint: see replicator switchover --help"}},
		{[]string{"version", "extra"}, []string{"hint: see replicator version --help"}},
	} {
		code, stdout, stderr := shell(t, c.args...)
		if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "error: ") {
			t.Errorf("%v: code %d, stdout %q, stderr %s", c.args, code, stdout, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%v: missing %q in %s", c.args, want, stderr)
			}
		}
	}
}

func TestHelpOfACommand(t *testing.T) {
	for _, words := range [][]string{{}, {"status"}, {"offsets", "translate"}} {
		_, want, _ := shell(t, append(words, "--help")...)
		if code, stdout, stderr := shell(t, append([]string{"help"}, words...)...); code != exitDone || stdout != want || stderr != "" {
			t.Errorf("help %v: code %d, stderr %q, stdout %s", words, code, stderr, stdout)
		}
	}
	if _, stdout, _ := shell(t, "__complete", "help", "offsets", "t"); !strings.Contains(stdout, "translate") {
		t.Errorf("completion of help: %s", stdout)
	}
}

func TestVersionAndCompletion(t *testing.T) {
	if code, stdout, _ := shell(t, "version"); code != exitDone || !strings.HasPrefix(stdout, "replicator ") {
		t.Errorf("version: %d, %q", code, stdout)
	}
	code, stdout, _ := shell(t, "version", "-o", "json")
	var b buildInfo
	if err := json.Unmarshal([]byte(stdout), &b); code != exitDone || err != nil || b.Version == "" || b.Go == "" {
		t.Errorf("version -o json: %d, %q, %v", code, stdout, err)
	}
	for _, name := range []string{"bash", "zsh", "fish"} {
		if code, stdout, stderr := shell(t, "completion", name); code != exitDone || !strings.Contains(stdout, "replicator") {
			t.Errorf("completion %s: %d, %s", name, code, stderr)
		}
	}
	if _, stdout, _ := shell(t, "__complete", "config", ""); !strings.Contains(stdout, "check") || !strings.Contains(stdout, "init") {
		t.Errorf("completion of config: %s", stdout)
	}
}

// Of two links of one direction a cutover would move one, and the authority closes both.
func TestACutoverWantsOneLinkEachWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pair.yaml")
	write := func(links string) {
		t.Helper()
		clusters := "clusters: {east: {bootstrap_servers: [\"127.0.0.1:1\"]}, west: {bootstrap_servers: [\"127.0.0.1:2\"]}}\n"
		if err := os.WriteFile(file, []byte(clusters+"links: ["+links+"]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const (
		orders = "{from: east, to: west, name: a, topics: [orders]}"
		clicks = "{from: east, to: west, name: b, topics: [clicks]}"
		other  = "{from: east, to: west, name: b, topics: [payments], naming: prefix}"
		back   = "{from: west, to: east, topics: [orders, clicks]}"
	)
	for _, c := range []struct {
		links string
		args  []string
		code  int
		want  string
	}{
		{orders + "," + clicks + "," + back, []string{"switchover", "--to", "west", "--dry-run"}, exitUsage, "2 go from east to west (a, b)"},
		{orders + "," + clicks + "," + back, []string{"switchover", "--to", "east", "--dry-run"}, exitUsage, "2 go from east to west (a, b)"},
		{orders + "," + clicks + "," + back, []string{"failback", "run", "--from", "west", "--yes"}, exitUsage, "2 go from east to west (a, b)"},
		{orders + "," + clicks + "," + back, []string{"drill"}, exitUsage, "2 go from east to west (a, b)"},
		{orders + "," + clicks + "," + back, []string{"rollback", "--dry-run"}, exitUsage, "2 go from east to west (a, b)"},
		{orders + "," + clicks + "," + back, []string{"failover", "--to", "west", "--dry-run"}, exitUsage, "2 go from east to west (a, b)"},
		{orders + "," + clicks + "," + back, []string{"failover", "--to", "east", "--dry-run"}, exitRefused, "region east"}, // not reached
		{orders + "," + other + "," + back, []string{"switchover", "--to", "west", "--dry-run"}, exitRefused, "region west"},
		{orders + "," + back, []string{"switchover", "--to", "west", "--from", "west", "--dry-run"}, exitUsage, "both name west"},
	} {
		write(c.links)
		code, stdout, stderr := shell(t, append(c.args, "-c", file)...)
		if code != c.code || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "hint: ") {
			t.Errorf("%v of %s: code %d, %s%s", c.args, c.links, code, stdout, stderr)
		}
	}
}
