package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"replicator/internal/config"
)

func newConfigCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, show or write the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheck(a), newConfigShow(a), newConfigInit(a))
	return cmd
}

// configArgument lets a file stand as an argument where --config is meant.
func (a *app) configArgument(args []string) {
	if len(args) == 1 {
		a.configFile = args[0]
	}
}

func newConfigCheck(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [file]",
		Short: "Find every fault of the configuration",
		Long: `Reads file, environment and flags as run would, and prints every fault with its
line. Nothing is connected to. Exits with 2 when there is a fault.`,
		Args: atMostOne("file"),
	}
	flags := config.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.configArgument(args)
		cfg, err := a.load(flags)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "OK: %s, %s\n", count(len(cfg.Clusters), "cluster"), count(len(cfg.Links), "link"))
		return err
	}
	return cmd
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func newConfigShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [file]",
		Short: "Print the effective configuration, without secrets",
		Long: `Prints the configuration as it is in effect: defaults, file, environment and
flags together, names filled in. Secrets appear as references.`,
		Args: atMostOne("file"),
	}
	flags := config.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.configArgument(args)
		cfg, err := a.load(flags)
		if err != nil {
			return err
		}
		out, err := config.Show(cfg)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(out)
		return err
	}
	return cmd
}

func newConfigInit(a *app) *cobra.Command {
	var from, to string
	var topics []string
	var tls, force bool
	cmd := &cobra.Command{
		Use:   "init [file]",
		Short: "Write a first configuration",
		Long: `Writes a small commented configuration to a file, or to standard output. What
the flags do not say is asked for when there is a terminal.`,
		Example: `  replicator config init pair.yaml --from east=kafka.east.internal:9092 --to west=kafka.west.internal:9092 --topics 'orders.*'`,
		Args:    atMostOne("file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			answers, err := a.answers(cmd, from, to, topics, tls)
			if err != nil {
				return err
			}
			out, err := config.Init(answers)
			if err != nil {
				return coded(exitUsage, err, "")
			}
			if len(args) == 0 {
				_, err = cmd.OutOrStdout().Write(out)
				return err
			}
			if err := writeNew(args[0], out, force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s; next: replicator config check %s\n", args[0], args[0])
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "source, as `alias=host:port[,host:port]`")
	f.StringVar(&to, "to", "", "target, as `alias=host:port[,host:port]`")
	f.StringArrayVar(&topics, "topics", nil, "`pattern` of topics to copy (repeatable; default all)")
	f.BoolVar(&tls, "tls", false, "both clusters are reached over TLS")
	f.BoolVar(&force, "force", false, "replace the file if it exists")
	return cmd
}

// answers takes what the flags say and asks for the rest.
func (a *app) answers(cmd *cobra.Command, from, to string, topics []string, tls bool) (config.Answers, error) {
	out := config.Answers{Topics: topics, TLS: tls}
	var ask *asker
	if file, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		ask = &asker{in: bufio.NewReader(a.stdin), out: cmd.ErrOrStderr()}
	}
	if ask == nil && (from == "" || to == "") {
		return out, coded(exitUsage, errors.New("write configuration: --from and --to are needed"),
			"--from east=kafka.east.internal:9092 --to west=kafka.west.internal:9092")
	}
	asked := from == "" || to == ""
	for _, end := range []struct {
		flag string
		into *config.End
		what string
	}{{from, &out.From, "Source, as alias=host:port"}, {to, &out.To, "Target, as alias=host:port"}} {
		var err error
		if end.flag != "" {
			*end.into, err = config.ParseEnd(end.flag)
		} else {
			*end.into, err = ask.end(end.what)
		}
		if err != nil {
			return out, coded(exitUsage, err, "")
		}
	}
	if asked && len(topics) == 0 {
		line, err := ask.line("Topics, a pattern of whole names [.*]")
		if err != nil {
			return out, err
		}
		if line != "" {
			out.Topics = []string{line}
		}
	}
	return out, nil
}

// asker puts questions on a terminal.
type asker struct {
	in  *bufio.Reader
	out io.Writer
}

func (q *asker) line(question string) (string, error) {
	fmt.Fprintf(q.out, "%s: ", question)
	line, err := q.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// end asks until the answer can be read.
func (q *asker) end(question string) (config.End, error) {
	for {
		line, err := q.line(question)
		if err != nil {
			return config.End{}, err
		}
		end, err := config.ParseEnd(line)
		if err == nil {
			return end, nil
		}
		fmt.Fprintf(q.out, "  %v\n", err)
	}
}

// writeNew writes a file and takes no other's place unasked.
func writeNew(path string, data []byte, force bool) error {
	mode := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		mode = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, mode, 0o644) //nolint:gosec // a configuration holds references to secrets, never secrets
	if errors.Is(err, os.ErrExist) {
		return coded(exitUsage, fmt.Errorf("write configuration %s: the file exists", path), "--force replaces it")
	}
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write configuration %s: %w", path, err)
	}
	return nil
}
