package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"replicator/internal/kafkatest"
)

// built is the path of the daemon's binary, built from this tree.
func built(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "replicator")
	if out, err := exec.Command("go", "build", "-o", bin, "replicator/cmd/replicator").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// daemon is the built binary copying the topic "bench" as it comes, to a target
// topic of another name.
type daemon struct{ cmd *exec.Cmd }

// startDaemon starts one; checkpoints are the settings of that name.
func startDaemon(t *testing.T, pair *kafkatest.ClusterPair, bin, from, target, checkpoints string) *daemon {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pair.yaml")
	config := fmt.Sprintf("clusters:\n  %s: {bootstrap_servers: [%s]}\n  west: {bootstrap_servers: [%s]}\nlinks:\n  - {from: %s, to: west, topics: [bench], naming: map, topic_map: {bench: %s}, checkpoints: {%s}}\nhttp: {listen: ''}\nlog: {level: warn}\n",
		from, strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","), from, target, checkpoints)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{exec.Command(bin, "run", "-c", file)}
	d.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	return d
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// stop ends it and waits; a second call does nothing.
func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(os.Interrupt)
	_ = d.cmd.Wait()
}
