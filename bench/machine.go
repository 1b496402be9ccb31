package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"replicator/internal/kafkatest"
)

// machine is where and of what a result was measured.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Java   string `json:"java"`
	Kafka  string `json:"kafka"`
	Commit string `json:"commit"` // with "+changes" if the tree has any
}

// thisMachine looks. What cannot be known is empty.
func thisMachine(ctx context.Context) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Kafka: kafkatest.Kafka4}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(string(info))
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = int64(s.Totalram) * int64(s.Unit)
	}
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	if out, err := exec.CommandContext(ctx, java, "--version").Output(); err == nil { //nolint:gosec // JAVA_HOME is the user's own
		first, _, _ := strings.Cut(string(out), "\n")
		m.Java = strings.TrimSpace(first)
	}
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=10", "HEAD").Output(); err == nil {
		m.Commit = string(bytes.TrimSpace(out))
		if changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(changed) > 0 {
			m.Commit += "+changes"
		}
	}
	return m
}

// line is the machine in words.
func (m machine) line() string {
	return fmt.Sprintf("%s, %d cores, %.0f GiB, %s, %s, %s, Kafka %s, commit %s.", m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Java, m.Kafka, m.Commit)
}

// cpuModel takes the name of the processor out of /proc/cpuinfo, "" where that
// has none.
func cpuModel(info string) string {
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
