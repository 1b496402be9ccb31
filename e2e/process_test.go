package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/kafkatest"
	"replicator/internal/observe"
)

// The test binary is also the daemon the fault tests kill: TestMain becomes one
// when this variable names a configuration.
const daemonVariable = "E2E_DAEMON"

func runDaemon(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load(config.Source{File: file})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	log, err := observe.NewLogger(cfg.Log, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	for ctx.Err() == nil { // a supervisor would start it again
		opening, cancel := context.WithTimeout(ctx, time.Minute)
		d, err := daemon.New(opening, cfg, daemon.Options{Version: "e2e", Log: log, Group: os.Getenv(daemonVariable + "_GROUP")})
		cancel()
		if err == nil {
			err = d.Run(ctx)
		}
		if err != nil {
			log.Error("daemon ended", zap.Error(err))
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return 0
}

// process is a daemon in a process of its own.
type process struct {
	t     *testing.T
	group string
	file  string
	log   string
	real  bool // the program itself, which listens and is asked for its status
	mu    sync.Mutex
	cmd   *exec.Cmd
	done  chan struct{}
}

// daemonFile writes the configuration of a daemon that copies topics of the pair.
func daemonFile(t *testing.T, pair *kafkatest.ClusterPair, topics ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pair.yaml")
	var b bytes.Buffer
	fmt.Fprintf(&b, "clusters:\n  east: {bootstrap_servers: [%s]}\n  west: {bootstrap_servers: [%s]}\n", strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","))
	fmt.Fprintf(&b, "links:\n  - {from: east, to: west, topics: ['%s'], refresh_interval: 5s}\nhttp: {listen: ''}\n", strings.Join(topics, "','"))
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func startProcess(t *testing.T, file, name, group string) *process {
	t.Helper()
	return (&process{t: t, group: group, file: file, log: filepath.Join(t.TempDir(), name+".log")}).started()
}

func (p *process) started() *process {
	t := p.t
	t.Helper()
	p.start()
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(p.log)
			lines := strings.Split(string(b), "\n")
			t.Logf("last lines of %s:\n%s", p.log, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonVariable+"="+p.file, daemonVariable+"_GROUP="+p.group)
	if p.real {
		program, err := command()
		if err != nil {
			p.t.Fatalf("build the command: %v", err)
		}
		cmd = exec.Command(program, "run", "--config", p.file)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // killed on purpose
		close(done)
	}()
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends the process by SIGKILL and waits for its end.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop ends it by SIGTERM and returns how long that took.
func (p *process) stop() time.Duration {
	began := time.Now()
	p.signal(syscall.SIGTERM)
	<-p.done
	return time.Since(began)
}
