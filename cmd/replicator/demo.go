package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/demo"
)

func newDemoCommand(a *app) *cobra.Command {
	var duration time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it: two regions, live traffic, kills, a proof",
		Long: `Starts two regions of three embedded brokers each on loopback, producers that
write all the time, and two daemons in processes of their own. It kills one
daemon with kill -9, then both at once, lets the producers end, reads both
regions back and compares them record by record.

It needs nothing but this program, writes only to a temporary directory, and
leaves nothing behind. It exits with 1 unless the copy was proved to be right.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration < demo.MinDuration || duration > demo.MaxDuration {
				return coded(exitUsage, fmt.Errorf("choose duration: %s is not within %s and %s", duration, demo.MinDuration, demo.MaxDuration), "")
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o := demo.Options{Command: []string{self, "run", "--config"}, Out: a.stdout, Duration: duration}
			width, terminal := terminalWidth(a.stdout)
			o.Terminal = terminal && os.Getenv("TERM") != "dumb"
			o.Color = o.Terminal && os.Getenv("NO_COLOR") == ""
			o.Width = width
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().DurationVar(&duration, "duration", 20*time.Second, "how long the producers write, at least")
	return cmd
}
