//go:build unix

package hooks

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", script, "hook"}, args...)
}

func one(t *testing.T, h Hook) (Result, error) {
	t.Helper()
	h.Step, h.When = "promote", Before
	results, err := Run(t.Context(), []Hook{h}, "promote", Before, nil)
	if len(results) != 1 {
		t.Fatalf("%d results, want 1 (%v)", len(results), err)
	}
	return results[0], err
}

func TestOnlyTheHooksOfTheStepRunInTheirOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "order")
	note := func(step, when, word string) Hook {
		return Hook{Step: step, When: when, Command: shell(`echo "$1" >>"$2"; echo "said $1"`, word, file)}
	}
	all := []Hook{note("fence", Before, "no"), note("promote", After, "no"), note("promote", Before, "first"), note("promote", Before, "second")}
	results, err := Run(t.Context(), all, "promote", Before, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "first\nsecond\n" {
		t.Errorf("ran %q, %v", got, err)
	}
	if len(results) != 2 || results[0].Output != "said first\n" || results[1].Output != "said second\n" || results[0].Exit != 0 || results[0].Err != "" || results[0].Took <= 0 {
		t.Errorf("results: %+v", results)
	}
}

func TestEnvironmentIsMinimal(t *testing.T) {
	t.Setenv("KAFKA_PASSWORD", "correct-horse")
	t.Setenv("HOME", "/somewhere")
	results, err := Run(t.Context(), []Hook{{Step: "promote", When: After, Command: []string{"env"}}}, "promote", After,
		map[string]string{"RUN": "r1", "PAIR": "east/west", "EPOCH": "2", "STEP": "not this"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"HOME=/somewhere", "PATH=" + os.Getenv("PATH"),
		"REPLICATOR_EPOCH=2", "REPLICATOR_PAIR=east/west", "REPLICATOR_RUN=r1", "REPLICATOR_STEP=promote", "REPLICATOR_WHEN=after",
	}
	if d := cmp.Diff(want, strings.Split(strings.TrimSpace(results[0].Output), "\n")); d != "" {
		t.Error(d)
	}
}

func TestArgumentsAreNoShellWords(t *testing.T) {
	r, err := one(t, Hook{Command: []string{"printf", "%s|", "$HOME", "; echo no", "`id`", "a b"}})
	if err != nil || r.Output != "$HOME|; echo no|`id`|a b|" {
		t.Errorf("%q, %v", r.Output, err)
	}
}

func TestStandardInputIsEmpty(t *testing.T) {
	if r, err := one(t, Hook{Command: []string{"cat"}, Timeout: 5 * time.Second}); err != nil || r.Output != "" {
		t.Errorf("%q, %v", r.Output, err)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name    string
		command []string
		exit    int
		says    string
		is      error
	}{
		{"exit status", shell("echo why; exit 3"), 3, `exit status 3; it said "why"`, nil},
		{"a signal", shell("kill -9 $$"), -1, "signal: killed", nil},
		{"missing, by PATH", []string{"no-such-program-anywhere"}, -1, "there is no program no-such-program-anywhere", exec.ErrNotFound},
		{"missing file", []string{filepath.Join(dir, "none")}, -1, "there is no program", fs.ErrNotExist},
		{"missing interpreter", []string{write("interpreter", "#!/no/such/interpreter\n", 0o700)}, -1, "interpreter", fs.ErrNotExist},
		{"not executable", []string{write("plain", "#!/bin/sh\n", 0o600)}, -1, "is not executable", fs.ErrPermission},
		{"a directory", []string{dir}, -1, "is not executable", fs.ErrPermission},
		{"no program", []string{write("text", "\x00\x01", 0o700)}, -1, "exec format error", nil},
		{"empty", nil, -1, "empty", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := one(t, Hook{Command: c.command})
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "run hook before promote (") {
				t.Errorf("error %v, want %q in it", err, c.says)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v is no %v", err, c.is)
			}
			if r.Exit != c.exit || r.Err == "" {
				t.Errorf("result %+v, want exit %d", r, c.exit)
			}
			optional, err := one(t, Hook{Command: c.command, Optional: true})
			if err != nil || optional.Err != r.Err || !optional.Optional {
				t.Errorf("optional: %+v, %v", optional, err)
			}
		})
	}
}

func TestAFailureEndsTheRow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	touch := Hook{Step: "fence", When: Before, Command: []string{"touch", file}}
	bad := Hook{Step: "fence", When: Before, Command: []string{"false"}}
	results, err := Run(t.Context(), []Hook{bad, touch}, "fence", Before, nil)
	if _, statErr := os.Stat(file); err == nil || len(results) != 1 || statErr == nil {
		t.Errorf("%+v, %v, %v", results, err, statErr)
	}
	bad.Optional = true
	results, err = Run(t.Context(), []Hook{bad, touch}, "fence", Before, nil)
	if _, statErr := os.Stat(file); err != nil || len(results) != 2 || statErr != nil {
		t.Errorf("optional: %+v, %v, %v", results, err, statErr)
	}
}

// gone waits until a process is no more, or a zombie that somebody else has to reap.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // between two looks
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil && syscall.Kill(pid, 0) != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d still lives", pid)
		}
	}
}

// children starts n processes that last, tells their numbers and goes on as rest says.
func children(rest string) []string {
	return shell(`sleep 300 & echo $!; sleep 300 & echo $!; ` + rest)
}

func pids(t *testing.T, r Result, n int) []int {
	t.Helper()
	var out []int
	for line := range strings.Lines(r.Output) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			out = append(out, pid)
		}
	}
	if len(out) != n {
		t.Fatalf("%d processes in %q, want %d", len(out), r.Output, n)
	}
	return out
}

func TestTimeoutEndsTheWholeGroup(t *testing.T) {
	began := time.Now()
	r, err := one(t, Hook{Command: children("wait"), Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "it took longer than 300ms and was ended") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, pid := range pids(t, r, 2) {
		gone(t, pid)
	}
}

func TestWhatIgnoresTheRequestIsKilled(t *testing.T) {
	began := time.Now()
	r, err := one(t, Hook{Command: shell(`trap "echo asked" TERM; echo $$; while :; do sleep 0.1; done`), Timeout: 200 * time.Millisecond})
	if took := time.Since(began); err == nil || took < grace || took > grace+3*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if !strings.Contains(r.Output, "asked") {
		t.Errorf("it was not asked first: %q", r.Output)
	}
	gone(t, pids(t, r, 1)[0])
}

func TestContextEndsAnOptionalHookToo(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the operator interrupted")
	time.AfterFunc(200*time.Millisecond, func() { cancel(why) })
	row := []Hook{
		{Step: "groups", When: After, Command: children("wait"), Optional: true},
		{Step: "groups", When: After, Command: []string{"true"}},
	}
	results, err := Run(ctx, row, "groups", After, nil)
	if !errors.Is(err, why) || len(results) != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	for _, pid := range pids(t, results[0], 2) {
		gone(t, pid)
	}
	if results, err := Run(ctx, row, "groups", After, nil); !errors.Is(err, why) || len(results) != 0 {
		t.Errorf("after the end: %+v, %v", results, err)
	}
}

func TestOutputIsKeptAtBothEnds(t *testing.T) {
	// 4 MiB, far more than a pipe holds.
	r, err := one(t, Hook{Command: shell(`echo begin; i=0; while [ $i -lt 64 ]; do head -c 65536 /dev/zero | tr '\0' x; i=$((i+1)); done; echo; echo end >&2`)})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Output, "begin\nxxx") || !strings.HasSuffix(r.Output, "xxx\nend\n") {
		t.Errorf("%q ... %q", r.Output[:20], r.Output[len(r.Output)-20:])
	}
	total := 64*65536 + len("begin\n") + len("\nend\n")
	note := "\n[" + strconv.Itoa(total-2*kept) + " bytes left out]\n"
	if !strings.Contains(r.Output, note) || len(r.Output) != 2*kept+len(note) {
		t.Errorf("%d bytes are kept, want %d with %q", len(r.Output), 2*kept+len(note), note)
	}
}

func TestOutputOfAnySizeInAnyPieces(t *testing.T) {
	for _, n := range []int{0, 1, kept - 1, kept, kept + 1, 2*kept - 1, 2 * kept, 2*kept + 1, 5*kept + 3} {
		var all []byte
		for i := range n {
			all = append(all, 'a'+byte(i%26))
		}
		for _, piece := range []int{1, 1000, kept, 3 * kept} {
			if piece == 1 && n > 3*kept {
				continue
			}
			var o output
			for at := 0; at < n; at += piece {
				if w, err := o.Write(all[at:min(n, at+piece)]); w != min(piece, n-at) || err != nil {
					t.Fatal(w, err)
				}
			}
			want := string(all)
			if n > 2*kept {
				want = string(all[:kept]) + "\n[" + strconv.Itoa(n-2*kept) + " bytes left out]\n" + string(all[n-kept:])
			}
			if got := o.String(); got != want {
				t.Errorf("%d bytes in pieces of %d: %d bytes, want %d", n, piece, len(got), len(want))
			}
			if len(o.tail) > 2*kept || cap(o.head) > 2*kept {
				t.Errorf("%d and %d bytes are held", cap(o.head), len(o.tail))
			}
		}
	}
}

func TestOutputIsInert(t *testing.T) {
	r, err := one(t, Hook{Command: []string{"printf", `\033]0;title\007\033[2Jred\r\n\377 tab\tü \342\200\256 back\000\n`}})
	want := `\x1b]0;title\x07\x1b[2Jred` + "\n" + `\xff tab` + "\t" + `ü \u202e back\x00` + "\n"
	if err != nil || r.Output != want {
		t.Errorf("%q, %v\nwant %q", r.Output, err, want)
	}
	for _, c := range r.Output {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			t.Errorf("control character %q", c)
		}
	}
}

func TestCheck(t *testing.T) {
	steps := []string{"fence", "promote"}
	good := Hook{Step: "fence", When: After, Command: []string{"true"}}
	if err := good.Check(steps); err != nil {
		t.Error(err)
	}
	for says, spoil := range map[string]func(*Hook){
		"there is no such step": func(h *Hook) { h.Step = "fences" },
		"before, after or undo": func(h *Hook) { h.When = "during" },
		"it is empty":           func(h *Hook) { h.Command = nil },
		"the program first":     func(h *Hook) { h.Command = []string{""} },
		"zero byte":             func(h *Hook) { h.Command = []string{"a\x00b"} },
		"negative":              func(h *Hook) { h.Timeout = -1 },
	} {
		h := good
		spoil(&h)
		if err := h.Check(steps); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", h, err, says)
		}
	}
}
