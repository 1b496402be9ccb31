package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/demo"
)

func newDemoCommand(a *app) *cobra.Command {
	var duration time.Duration
	var evidence string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it: a region is lost under load and comes back, with a proof",
		Long: `Starts two regions of three embedded brokers each, a daemon with links in both
directions, producers that write all the time and a consumer group. It kills the
daemon, freezes it, kills the first region, fails over with the very commands an
operator would use, wakes the frozen daemon, brings the region back, deals with the
records only it had, and switches back. Then it proves what became of every record.

It needs nothing but this program and a shell, writes only to temporary directories
and leaves the evidence of the commands there, nothing else. The brokers are an
imitation of Kafka's (kfake) in processes of their own; what holds on real ones is
shown by the tests. It exits with 1 if anything of the proof is missing.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration < demo.MinDuration || duration > demo.MaxDuration {
				return coded(exitUsage, fmt.Errorf("choose duration: %s is not within %s and %s", duration, demo.MinDuration, demo.MaxDuration), "")
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o := demo.Options{Command: []string{self}, Out: a.stdout, Duration: duration, EvidenceDir: evidence}
			width, terminal := terminalWidth(a.stdout)
			o.Terminal = terminal && os.Getenv("TERM") != "dumb"
			o.Color = o.Terminal && os.Getenv("NO_COLOR") == ""
			o.Width = width
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().DurationVar(&duration, "duration", 6*time.Second, "how long all is well before the first region is lost")
	cmd.Flags().StringVar(&evidence, "evidence", "", "`directory` for the evidence of the commands (default a new temporary one)")
	cmd.AddCommand(newDemoRegionCommand(a))
	return cmd
}

// newDemoRegionCommand is a region of the demo, which starts it.
func newDemoRegionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "region NAME DIRECTORY PORT...",
		Short:  "Serve a region of the demo",
		Hidden: true,
		Args:   cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ports []int
			for _, text := range args[2:] {
				port, err := strconv.Atoi(text)
				if err != nil {
					return coded(exitUsage, fmt.Errorf("read port: %w", err), "")
				}
				ports = append(ports, port)
			}
			return demo.ServeRegion(cmd.Context(), a.stdout, args[0], args[1], ports)
		},
	}
}
