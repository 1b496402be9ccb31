// Command replicator copies Kafka topics between regions.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"replicator/internal/config"
)

// Exit codes. They are documented in the help and do not change.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // wrong usage or configuration
	exitRefused = 3 // a gate or check said no
	exitPartial = 4 // done in part, or not known
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop; a second one, unhandled again, ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app is what commands share.
type app struct {
	configFile string
	stdin      io.Reader
	stdout     io.Writer
	stderr     io.Writer
	environ    []string
}

// load reads the configuration the command line names.
func (a *app) load(flags *config.Flags) (*config.Config, error) {
	src := config.Source{File: a.configFile, Environ: a.environ}
	if flags != nil {
		src.Flags = flags.Settings()
	}
	cfg, err := config.Load(src)
	if err != nil {
		return nil, coded(exitUsage, err, a.loadHint(err))
	}
	return cfg, nil
}

func (a *app) loadHint(err error) string {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		if a.configFile == "" && len(faults) == 1 && faults[0].Key == "clusters" {
			return "name a file with --config or " + config.FileVariable + "; replicator config init writes a first one"
		}
		return "deploy/reference.yaml explains every key"
	}
	if errors.Is(err, os.ErrNotExist) {
		return "replicator config init writes a first one"
	}
	return ""
}

// codedError is an error with the exit code it ends the command with and, in
// most cases, a hint what to do.
type codedError struct {
	code int
	err  error
	hint string
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func coded(code int, err error, hint string) error {
	return &codedError{code: code, err: err, hint: hint}
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: os.Environ()}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// Until a command's own code begins, every error is one of usage.
	running := false
	root.PersistentPreRun = func(*cobra.Command, []string) { running = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	ce, ok := errors.AsType[*codedError](err)
	switch {
	case ok:
	case running:
		ce = &codedError{code: exitFailed, err: err}
	default:
		ce = &codedError{code: exitUsage, err: err, hint: "see " + cmd.CommandPath() + " --help"}
	}
	fmt.Fprintf(stderr, "error: %v\n", ce.err)
	if ce.hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", ce.hint)
	}
	return ce.code
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "replicator",
		Short: "Copies Kafka topics between regions, exactly once",
		Long: `replicator copies Kafka topics from one region's cluster to another's and keeps,
on the target, everything needed to resume there.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused by a
gate or check, 4 done in part or not known.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVarP(&a.configFile, "config", "c", configFromEnv(a.environ), "configuration `file`, also "+config.FileVariable)
	_ = root.MarkPersistentFlagFilename("config", "yaml", "yml") // fails only without the flag
	root.AddCommand(
		newRunCommand(a),
		newStatusCommand(a),
		newOffsetsCommand(a),
		newGroupsCommand(a),
		newAuthorityCommand(a),
		newSwitchoverCommand(a),
		newFailoverCommand(a),
		newRollbackCommand(a),
		newFailbackCommand(a),
		newDrillCommand(a),
		newVerifyCommand(a),
		newEvidenceCommand(a),
		newConfigCommand(a),
		newBenchCommand(a),
		newDemoCommand(a),
		newVersionCommand(a),
	)
	strictHelp(root)
	return root
}

// strictHelp has the help of a command that is not there be wrong usage: cobra's prints
// that of another one, and reports success.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return
	}
	help.Run = nil
	help.RunE = func(_ *cobra.Command, args []string) error {
		cmd, rest, err := root.Find(args)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("unknown command %q for %q", rest[0], cmd.CommandPath())
		}
		if err != nil {
			return coded(exitUsage, err, "see "+cmd.CommandPath()+" --help")
		}
		cmd.InitDefaultHelpFlag() // its own help lists it
		return cmd.Help()
	}
}

func configFromEnv(environ []string) string {
	file := ""
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, config.FileVariable+"="); ok {
			file = value
		}
	}
	return file
}

// flagsOnly is the check of a command without arguments: for cobra's, an argument would be
// a command that it does not know.
func flagsOnly(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("want flags only, got %q: a configuration is named with --config, a region by a flag too", args[0])
	}
	return nil
}

// atMostOne is the check of a command with one optional argument.
func atMostOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("want at most one %s, got %d arguments", what, len(args))
		}
		return nil
	}
}
