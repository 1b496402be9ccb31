package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// command builds the program itself, once, for tests of what it says and of its
// exit code.
var command = sync.OnceValues(func() (string, error) {
	file, err := filepath.Abs(filepath.Join("..", "build", "e2e", "replicator"))
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", file, "replicator/cmd/replicator").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return file, nil
})

// runCommand runs the program to its end and returns what it said on standard
// output and standard error, and its exit code.
func runCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	program, err := command()
	if err != nil {
		t.Fatalf("build the command: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	// What steers these tests would be settings that do not exist.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("%v does not end:\n%s", args, says.String())
	}
	return out.String(), says.String(), cmd.ProcessState.ExitCode()
}

// refusedRun runs a configuration that cannot run and returns the last lines it
// says: error and hint.
func refusedRun(t *testing.T, file string, want int) string {
	t.Helper()
	_, stderr, code := runCommand(t, "run", "--config", file)
	if code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	at := strings.LastIndex(stderr, "\nerror: ") + 1
	if !strings.HasPrefix(stderr[at:], "error: ") {
		t.Errorf("no error at the end of:\n%s", stderr)
	}
	t.Logf("%s", strings.TrimSpace(stderr[at:]))
	return stderr[at:]
}

// rewritten is a changed copy of a configuration file.
func rewritten(t *testing.T, file string, change func(string) string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(copied, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
