package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStatus(t *testing.T) {
	rss, peak, err := parseStatus("Name:\tjava\nVmPeak:\t 9000 kB\nVmHWM:\t  1024 kB\nVmRSS:\t   512 kB\nThreads:\t9\n")
	if err != nil || rss != 512<<10 || peak != 1<<20 {
		t.Errorf("%d, %d, %v", rss, peak, err)
	}
	for _, text := range []string{"", "Name:\tjava\nState:\tZ (zombie)\n", "VmHWM:\t1 kB\nVmRSS:\tmany kB\n", "VmHWM:\t1\nVmRSS:\t1\n"} {
		if _, _, err := parseStatus(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestUsage(t *testing.T) {
	before, err := usage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 20*time.Millisecond; { // burns CPU
	}
	after, err := usage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if spent := after.CPU - before.CPU; spent < time.Millisecond || spent > 10*time.Second {
		t.Errorf("20 ms of work took %v of CPU", spent)
	}
	if after.RSS < 1<<20 || after.Peak < after.RSS/2 {
		t.Errorf("%+v", after)
	}
	ended := exec.CommandContext(t.Context(), "true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := usage(ended.Process.Pid); err == nil {
		t.Error("a process that has ended was read")
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel("processor\t: 0\nmodel name\t: A: Processor\nmodel name\t: Another\n"); got != "A: Processor" {
		t.Errorf("%q", got)
	}
	if got := cpuModel("processor\t: 0\n"); got != "" {
		t.Errorf("%q", got)
	}
}
