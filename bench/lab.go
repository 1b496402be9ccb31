package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"replicator/internal/kafkatest"
)

// A lab is what measurements share: the daemon built from this tree, Kafka's
// jars, a directory for files, and where to say how far things are.
type lab struct {
	dir    string
	remove func() // of dir
	bin    string // the daemon
	libs   string // Kafka's jars with MirrorMaker 2
	began  time.Time
	runs   int
}

// openLab builds the daemon and fetches Kafka if need be.
func openLab(ctx context.Context) (*lab, error) {
	if _, err := exec.LookPath("java"); err != nil && os.Getenv("JAVA_HOME") == "" {
		return nil, fmt.Errorf("find java: %w: the benchmarks run real brokers and need a JVM and Maven (Debian: apt-get install default-jdk-headless maven)", err)
	}
	libs, err := kafkatest.Libs(kafkatest.Kafka4, kafkatest.WithMirrorMaker)
	if err != nil {
		return nil, fmt.Errorf("fetch Kafka: %w: the first time it comes through Maven (Debian: apt-get install maven)", err)
	}
	dir, remove, err := kafkatest.TempDir("bench")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	l := &lab{dir: dir, remove: remove, libs: libs, bin: filepath.Join(dir, "replicator"), began: time.Now()}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", l.bin, "replicator/cmd/replicator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if out, err := build.CombinedOutput(); err != nil {
		l.close()
		return nil, fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return l, nil
}

func (l *lab) close() { l.remove() }

// say tells a line of progress, with the time since the beginning.
func (l *lab) say(format string, args ...any) {
	since := time.Since(l.began).Round(time.Second)
	fmt.Fprintf(os.Stderr, "%02d:%02d  %s\n", int(since.Minutes()), int(since.Seconds())%60, fmt.Sprintf(format, args...))
}

// tolerate keeps an error of one measurement among those of the run; the others go
// on. What ends the whole run is returned.
func (l *lab) tolerate(ctx context.Context, what string, err error, failed *[]string) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	l.say("FAILED %s: %v", what, err)
	*failed = append(*failed, fmt.Sprintf("%s: %v", what, err))
	return nil
}

// run is a number and a directory for one run of a mover: what one run leaves
// behind on the target is never found by another.
func (l *lab) run() (n int, dir string, err error) {
	l.runs++
	dir = filepath.Join(l.dir, fmt.Sprintf("run-%d", l.runs))
	return l.runs, dir, os.Mkdir(dir, 0o700)
}
