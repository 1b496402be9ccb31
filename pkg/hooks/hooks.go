package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// The two values of When.
const (
	Before = "before"
	After  = "after"
	// Undo is when a step is taken back: its hooks take back what those before and after it did.
	Undo = "undo"
)

const (
	// DefaultTimeout is what a hook has without a timeout of its own.
	DefaultTimeout = time.Minute
	grace          = 5 * time.Second // between SIGTERM and SIGKILL
	pipeDelay      = time.Second     // for output after the end, where a child outside the group holds it open
	prefix         = "REPLICATOR_"
)

// A Hook is a command at one side of a step.
type Hook struct {
	// Step is the step's name: "fence", "promote".
	Step string `koanf:"step"`
	// When is "before", "after" or "undo".
	When string `koanf:"when"`
	// Command is a program, found by PATH unless it has a slash, and its arguments.
	Command []string `koanf:"command"`
	// Timeout is how long it may take, 0 for DefaultTimeout.
	Timeout time.Duration `koanf:"timeout"`
	// Optional: when it fails the step goes on.
	Optional bool `koanf:"optional"`
}

func (h Hook) String() string {
	return fmt.Sprintf("hook %s %s (%s)", h.When, h.Step, strings.Join(h.Command, " "))
}

// Check finds what is wrong with a hook, where steps are those that there are.
func (h Hook) Check(steps []string) error {
	switch {
	case !slices.Contains(steps, h.Step):
		return fmt.Errorf("step %q: there is no such step; it is one of %s", h.Step, strings.Join(steps, ", "))
	case h.When != Before && h.When != After && h.When != Undo:
		return fmt.Errorf("when %q: it is %s, %s or %s", h.When, Before, After, Undo)
	case len(h.Command) == 0 || h.Command[0] == "":
		return errors.New("command: it is empty; write a list, the program first: [/usr/local/bin/switch-dns, orders]")
	case slices.ContainsFunc(h.Command, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return errors.New("command: it contains a zero byte")
	case h.Timeout < 0:
		return fmt.Errorf("timeout %v: it is negative", h.Timeout)
	}
	return nil
}

// Result is how a hook went.
type Result struct {
	Step     string        `json:"step"`
	When     string        `json:"when"`
	Command  []string      `json:"command"`
	Started  time.Time     `json:"started"`
	Took     time.Duration `json:"took"`             // nanoseconds
	Exit     int           `json:"exit"`             // -1 where it did not start or was killed
	Output   string        `json:"output,omitempty"` // of both streams, in the order it came
	Err      string        `json:"error,omitempty"`
	Optional bool          `json:"optional,omitempty"`
}

// Error is the failure of a hook that is not optional.
type Error struct {
	Result Result
	Err    error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("run hook %s %s (%s): %v", e.Result.When, e.Result.Step, strings.Join(e.Result.Command, " "), e.Err)
	if last := lastLine(e.Result.Output); last != "" {
		s += fmt.Sprintf("; it said %q", last)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Run runs the hooks of one side of a step, one after the other, in their order. env
// has names without REPLICATOR_: {"RUN": "r1"}; STEP and WHEN are added. The
// results are of all that ran, the failed one too, whose failure is an *Error.
func Run(ctx context.Context, hooks []Hook, step, when string, env map[string]string) ([]Result, error) {
	var results []Result
	for _, h := range hooks {
		if h.Step != step || h.When != when {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return results, fmt.Errorf("run %v: %w", h, err)
		}
		r, err := run(ctx, h, environment(env, step, when))
		results = append(results, r)
		if err != nil && (!h.Optional || ctx.Err() != nil) {
			return results, &Error{r, err}
		}
	}
	return results, nil
}

// environment is the whole of what a hook gets.
func environment(env map[string]string, step, when string) []string {
	all := maps.Clone(env)
	if all == nil {
		all = map[string]string{}
	}
	all["STEP"], all["WHEN"] = step, when
	var out []string
	for _, name := range []string{"HOME", "PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, prefix+name+"="+all[name])
	}
	return out
}

func run(ctx context.Context, h Hook, env []string) (Result, error) {
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	r := Result{Step: h.Step, When: h.When, Command: h.Command, Started: time.Now(), Exit: -1, Optional: h.Optional}
	if len(h.Command) == 0 {
		r.Err = "the command is empty"
		return r, errors.New(r.Err)
	}
	var out output
	// The context is awaited below: it ends the whole group.
	cmd := exec.Command(h.Command[0], h.Command[1:]...) //nolint:noctx // see above
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, &out, &out, pipeDelay
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %v", timeout))
	defer cancel()
	err := await(ctx, cmd)
	r.Took, r.Output = time.Since(r.Started), out.String()
	if cmd.ProcessState != nil {
		r.Exit = cmd.ProcessState.ExitCode()
	}
	if err != nil {
		r.Err = err.Error()
	}
	return r, err
}

// await runs a command to its end, or to the end of the context.
func await(ctx context.Context, cmd *exec.Cmd) error {
	g := newGroup(cmd)
	if err := cmd.Start(); err != nil {
		return startError(cmd, err)
	}
	var err error // of the end
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.killLeftovers()
		err = cmd.Wait()
	}()
	select {
	case <-ended:
		return exitError(err)
	case <-ctx.Done():
	}
	g.terminate()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
		g.kill()
		<-ended
	}
	return fmt.Errorf("%w and was ended", context.Cause(ctx))
}

func startError(cmd *exec.Cmd, err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("start it: there is no program %s (or the interpreter in its first line): %w", cmd.Path, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("start it: %s is not executable for this user: %w", cmd.Path, err)
	}
	return fmt.Errorf("start it: %w", err)
}

func exitError(err error) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it ended well; a process of its own session goes on and holds the output
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return fmt.Errorf("it ended with exit status %d", exit.ExitCode())
	}
	return err
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	line := []rune(s[strings.LastIndexByte(s, '\n')+1:])
	const most = 200
	return string(line[:min(len(line), most)])
}
