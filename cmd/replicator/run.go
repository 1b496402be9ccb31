package main

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/observe"
)

func newRunCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Copy, until told to stop",
		Long: `Reads the configuration, opens its clusters and copies every link's topics until
SIGTERM or SIGINT: then what is in flight is drained and journalled, the lanes are
handed over and the group is left, within 10 seconds. A second signal ends the
process at once; nothing is lost by that either.`,
		Args: flagsOnly,
	}
	flags := config.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := a.load(flags)
		if err != nil {
			return err
		}
		log, err := observe.NewLogger(cfg.Log, a.stderr)
		if err != nil {
			return err
		}
		defer func() { _ = log.Sync() }() // a terminal does not support it
		return run(cmd.Context(), cfg, log)
	}
	return cmd
}

// gcPercent of a process that copies. The heap is a few large buffers that live
// for long: collecting it often is cheap, and keeps the process near its budget
// instead of at twice that.
const gcPercent = 25

// openTime bounds reaching both clusters at the start.
const openTime = 60 * time.Second

func run(ctx context.Context, cfg *config.Config, log *zap.Logger) error {
	if len(cfg.Links) == 0 {
		return coded(exitUsage, errors.New("no links are configured"), "add one under links")
	}
	debug.SetGCPercent(gcPercent)
	build := readBuildInfo()
	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	d, err := daemon.New(opening, cfg, daemon.Options{Version: build.Version, Log: log})
	if err != nil && ctx.Err() != nil {
		return nil // asked to stop before there was anything to stop
	}
	if err != nil {
		return err
	}
	source := observe.NewSource(d.Status)
	// What observes the links outlives them, so that a clean stop can be watched.
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer unwatch()
	if cfg.HTTP.Listen != "" {
		registry := observe.NewRegistry(observe.NewCollector(observe.CollectorConfig{
			Source: source, Partitions: cfg.HTTP.PartitionMetrics,
			Build: observe.Build{Version: build.Version, Revision: build.Revision, GoVersion: build.Go},
		}))
		server, err := observe.Listen(ctx, observe.ServerConfig{HTTP: cfg.HTTP, Source: source, Gatherer: registry, Log: log})
		if err != nil {
			d.Close()
			return err
		}
		watchers.Go(func() {
			if err := server.Serve(watching); err != nil {
				log.Error("metrics and status are not served", zap.Error(err))
			}
		})
	}
	watchers.Go(func() { observe.Notify(ctx, source, log) })
	context.AfterFunc(ctx, func() { log.Info("asked to stop") })

	log.Info("copying", zap.String("version", build.Version), zap.Int("links", len(cfg.Links)))
	if err = d.Run(ctx); err == nil {
		log.Info("stopped")
	}
	return err
}
