package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// usage is what a process has used so far.
type usage struct {
	cpu  time.Duration
	rss  int64 // bytes now
	peak int64 // bytes at most
}

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skipf("read usage: %v", err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] { // user and system time, in hundredths of a second
		n, _ := strconv.ParseInt(f, 10, 64)
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			u.rss = kb << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			u.peak = kb << 10
		}
	}
	return u
}

// Thousands of lanes open within seconds, cost next to nothing while idle, and
// copy again soon after the target's broker came back.
func TestManyLanes(t *testing.T) {
	lanes := setting("E2E_LANES", 400)
	pair := kafkatest.StartPair(t, kafkatest.Config{Heap: "1g"}, kafkatest.Config{Heap: "1g"})
	src, dst := opts(pair.Source), opts(pair.Target)
	const topics = 4
	var names []string
	for i := range topics {
		spec := workload.Spec{Topic: fmt.Sprintf("many-%d", i), Kind: workload.ManyParts, Partitions: int32(lanes / topics), Records: lanes / topics * 5, ValueBytes: 100}
		if _, err := workload.Write(t.Context(), src, spec); err != nil {
			t.Fatal(err)
		}
		names = append(names, spec.Topic)
	}
	// A first daemon makes the topics, so that what is measured is lanes, not topics.
	file := daemonFile(t, pair, "many-.*")
	first := startProcess(t, file, "first", "")
	began := time.Now()
	if _, err := compare.WaitEqual(t.Context(), src, dst, compare.Same(names...), compare.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("first start, %d topics made: all %d lanes copied after %v", topics, lanes, time.Since(began))
	t.Logf("stopped in %v", first.stop())

	more := func(from int64) {
		for i := range topics {
			spec := workload.Spec{Topic: names[i], Kind: workload.ManyParts, Partitions: int32(lanes / topics), Records: lanes / topics * 5, First: from, ValueBytes: 100}
			if _, err := workload.Write(t.Context(), src, spec); err != nil {
				t.Fatal(err)
			}
		}
	}
	more(5)
	began = time.Now()
	d := startProcess(t, file, "second", "")
	if _, err := compare.WaitEqual(t.Context(), src, dst, compare.Same(names...), compare.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("second start: all %d lanes open and copied after %v", lanes, time.Since(began))

	before, from := usageOf(t, d.cmd.Process.Pid), time.Now()
	time.Sleep(10 * time.Second) // what is measured is the time itself
	after := usageOf(t, d.cmd.Process.Pid)
	idle := 100 * (after.cpu - before.cpu).Seconds() / time.Since(from).Seconds()
	t.Logf("idle with %d lanes: %.2f %% of a core, RSS %d MiB, peak %d MiB", lanes, idle, after.rss>>20, after.peak>>20)

	more(10)
	if _, err := compare.WaitEqual(t.Context(), src, dst, compare.Same(names...), compare.Options{}); err != nil {
		t.Fatal(err)
	}
	b := pair.Target.Broker(1)
	b.Kill()
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	more(15)
	report, err := compare.WaitEqual(t.Context(), src, dst, compare.Same(names...), compare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("after a kill -9 of the target's broker: all lanes copied again %v after it was back; %v", time.Since(back), report)
}
