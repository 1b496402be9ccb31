package kafkatest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeMaven puts a mvn in PATH that behaves as the script says. It is called
// with $1.. as Maven is; $DIR is the output directory.
func fakeMaven(t *testing.T, script string) (calls func() int) {
	t.Helper()
	bin := t.TempDir()
	log := filepath.Join(bin, "calls")
	text := "#!/bin/sh\necho called >> " + log + "\nfor a in \"$@\"; do case $a in -DoutputDirectory=*) DIR=${a#*=};; esac; done\n" + script
	if err := os.WriteFile(filepath.Join(bin, "mvn"), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("KAFKATEST_CACHE", t.TempDir())
	return func() int {
		b, _ := os.ReadFile(log)
		return strings.Count(string(b), "called")
	}
}

func TestKafkaIsFetchedOnceByAllWhoAsk(t *testing.T) {
	calls := fakeMaven(t, `sleep 0.2; echo jar > "$DIR/kafka.jar"`)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			dir, err := Libs(Kafka4)
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(filepath.Join(dir, "kafka.jar")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := calls(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if _, err := Libs(Kafka4, WithMirrorMaker); err != nil || calls() != 2 {
		t.Errorf("with MirrorMaker: %v after %d calls, want a fetch of its own", err, calls())
	}
}

func TestAFetchThatFailsLeavesNothingThatLooksWhole(t *testing.T) {
	calls := fakeMaven(t, `echo half > "$DIR/kafka.jar"; echo "no route to the repository"; exit 1`)
	for range 2 {
		_, err := Libs(Kafka4)
		if err == nil || !strings.Contains(err.Error(), "no route to the repository") {
			t.Fatalf("%v: want Maven's own words", err)
		}
	}
	if n := calls(); n != 2*fetchAttempts {
		t.Errorf("tried %d times, want %d", n, 2*fetchAttempts)
	}
	left, _ := filepath.Glob(filepath.Join(os.Getenv("KAFKATEST_CACHE"), "*", "*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAReservedPortIsGivenToNobodyElse(t *testing.T) {
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.free()
	if conn, err := net.Dial("tcp4", Network{Host: loopbackHost}.addr(p)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial a reserved port: %v %v, want connection refused", conn, err)
	}
	var more []*port
	for range 200 {
		q, err := reservePort()
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, q)
		if q.number == p.number {
			t.Error("the port was given twice")
		}
	}
	for _, q := range more {
		q.free()
	}
	p.yield()
	l, err := net.Listen("tcp4", Network{Host: loopbackHost}.addr(p)) // with SO_REUSEADDR, as a JVM does
	if err != nil {
		t.Fatalf("its owner cannot listen: %v", err)
	}
	_ = l.Close()
}

// TestMainOfAKilledProcess is not a test: it is the process that
// TestNothingOutlivesAKilledProcess kills.
func TestMainOfAKilledProcess(t *testing.T) {
	if os.Getenv("KAFKATEST_VICTIM") == "" {
		t.Skip("runs only as a child of another test")
	}
	c := Start(t, Config{})
	fmt.Printf("\nvictim %d %s\n", c.Broker(1).Process().PID(), c.Dir())
	<-t.Context().Done()
}

func TestNothingOutlivesAKilledProcess(t *testing.T) {
	Need(t, Kafka4)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestMainOfAKilledProcess$", "-test.v")
	cmd.Env = append(os.Environ(), "KAFKATEST_VICTIM=1", "E2E_REPORT=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "victim %d %s", &pid, &dir) // other lines do not match
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if dir == "" {
		t.Fatal("the child did not start a cluster")
	}
	deadline := time.Now().Add(10 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("broker %d outlived its parent", pid)
		}
		time.Sleep(10 * time.Millisecond) // there is nothing to wait on: it is not our child
	}
	h, err := newHome("next")
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its data is still there after the next cluster: %v", err)
	}
}

// A directory whose owner was killed goes away with the next one that is made, one
// that is in use does not.
func TestTempDirSweepsWhatNobodyHolds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	left, err := newHome("left")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used, remove, err := TempDir("used")
	if err != nil {
		t.Fatal(err)
	}
	_ = left.lock.Close() // as the kernel does
	_, removeNext, err := TempDir("next")
	if err != nil {
		t.Fatal(err)
	}
	defer removeNext()
	if _, err := os.Stat(left.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what nobody holds is still there: %v", err)
	}
	if _, err := os.Stat(used); err != nil {
		t.Errorf("what is in use is gone: %v", err)
	}
	remove()
	if _, err := os.Stat(used); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was not removed: %v", err)
	}
}

func TestTheReportNamesWhatWasNotRun(t *testing.T) {
	y := tallied{with: map[string]bool{}, without: map[string]string{}}
	y.ran("TestA")
	y.notRun("TestC", "no java\nmore")
	y.notRun("TestB", "no java\nmore")
	file := filepath.Join(t.TempDir(), "report")
	var printed strings.Builder
	if err := y.report(&printed, file); err != nil {
		t.Fatal(err)
	}
	want := "real-kafka kafkatest: ran 1, not run 2 (TestB, TestC: no java)\n"
	if printed.String() != want {
		t.Errorf("printed %q, want %q", printed.String(), want)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written) != want {
		t.Errorf("wrote %q, %v; want %q", written, err, want)
	}
}

func TestWithoutJavaATestIsSkippedOrFailsWhereItIsRequired(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"": "--- SKIP", "required": "--- FAIL"} {
		report := filepath.Join(t.TempDir(), "report")
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestToolsOfKafkaRun$", "-test.v")
		cmd.Env = []string{"HOME=" + t.TempDir(), "E2E=" + mode, "E2E_REPORT=" + report}
		out, _ := cmd.CombinedOutput() // the exit code differs by mode
		if !strings.Contains(string(out), want) || !strings.Contains(string(out), "java is not in PATH") {
			t.Errorf("mode %q: %s", mode, out)
		}
		line, _ := os.ReadFile(report)
		if !strings.Contains(string(line), "ran 0, not run 1 (TestToolsOfKafkaRun: java") {
			t.Errorf("mode %q reported %q", mode, line)
		}
	}
}

func TestAJavaWithoutACompilerIsNoJDK(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	java := "#!/bin/sh\n[ \"$1\" != --describe-module ]\n"
	if err := os.WriteFile(filepath.Join(home, "bin", "java"), []byte(java), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JAVA_HOME", home)
	if err := haveCompiler(); err == nil || !strings.Contains(err.Error(), "default-jdk-headless") {
		t.Errorf("have a compiler: %v, want an error that names the package", err)
	}
}

func TestTheConfigurationOfASecuredPair(t *testing.T) {
	pair := &ClusterPair{
		Source: unstarted(t, Config{Name: "east", TLS: MutualTLS, Brokers: 2}),
		Target: unstarted(t, Config{Name: "west", TLS: ServerTLS, SASL: []string{Scram256}}),
	}
	text, err := pair.YAML("", "orders.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"bootstrap_servers: [" + strings.Join(pair.Source.Bootstrap(), ", ") + "]",
		"cluster_id: \"" + pair.Target.ID() + "\"",
		`sasl: {mechanism: SCRAM-SHA-256, username: admin, password: "file:` + pair.Target.Dir(),
		`{from: east, to: west, topics: ["orders.*"]}`,
		"cert_file:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// unstarted is a cluster with its ports and files, but no process.
func unstarted(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c := &Cluster{cfg: cfg.withDefaults(), certs: map[string]*Certificate{}}
	t.Cleanup(c.Close)
	var err error
	if c.home, err = newHome(cfg.Name); err != nil {
		t.Fatal(err)
	}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	return c
}
