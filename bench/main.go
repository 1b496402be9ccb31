// Command bench measures the replicator on real brokers of this machine, and
// its peer beside it.
//
//	go run ./bench compare    # against MirrorMaker 2; make bench does this
//
// A mover, which is a replicator or a MirrorMaker 2, always runs as a process
// of its own between two brokers on loopback. What counts are ratios within
// one run: brokers and movers share the processors.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Measures the replicator on real brokers",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newCompareCommand(), newReportCommand(), newResumeCommand(), newGroupsCommand(), newProfileCommand(), newRelayCommand(),
		newSoakCommand(), newCapacityCommand())
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
