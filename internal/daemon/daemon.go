// Package daemon makes a configuration run: it opens the clusters, starts the
// links and tells how they are.
//
// What it promises: nothing is written before every cluster has been reached
// and is the one the configuration names; one link that cannot go on ends the
// daemon, so that whoever supervises it sees it; Run returns within ten seconds
// after its context has ended.
package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"replicator/internal/status"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/heartbeat"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// Daemon is a configuration that runs.
type Daemon struct {
	version  string
	instance string
	started  time.Time
	pool     *wire.Pool
	clusters map[string]*cluster.Cluster
	links    []*mirror.Link
	keepers  []*checkpoint.Keeper // of the links, nil where checkpoints.follow is off
	emitters []*heartbeat.Emitter // of the links, nil where heartbeats.enabled is false
	log      *zap.Logger

	mu       sync.Mutex
	refusals map[string]int64 // by cluster
}

// Options are what a daemon needs beside its configuration.
type Options struct {
	Version string
	Log     *zap.Logger
	Dial    cluster.DialFunc // below the guard, for tests
	Group   string           // instead of the links' own, to have two daemons work on the same lanes in tests
}

// New opens the clusters and prepares the links. Close the daemon if Run is not called.
func New(ctx context.Context, cfg *config.Config, o Options) (*Daemon, error) {
	d := &Daemon{
		version: o.Version, instance: instance(cfg.Instance), started: time.Now(), log: o.Log,
		pool: wire.NewPool(int64(cfg.Limits.Memory)), clusters: map[string]*cluster.Cluster{}, refusals: map[string]int64{},
	}
	for _, alias := range slices.Sorted(maps.Keys(cfg.Clusters)) { // of two faults, always the same is told
		cc := cfg.Clusters[alias]
		if !used(cfg, alias) {
			continue
		}
		c, err := cluster.Open(ctx, alias, cc, cluster.Options{
			Log: o.Log, Pool: d.pool, ClientID: "replicator", Dial: o.Dial, MaxFetch: int32(min(int64(cfg.Limits.Memory), 1<<30)),
			OnRefusal: func(e *cluster.BoundaryError) {
				d.mu.Lock()
				d.refusals[alias]++
				d.mu.Unlock()
				o.Log.Error("connection refused by the boundary", zap.Error(e))
			},
		})
		if err != nil {
			d.Close()
			return nil, err
		}
		d.clusters[alias] = c
	}
	for i := range cfg.Links {
		if err := d.addLink(cfg, &cfg.Links[i], o); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// addLink prepares a link and, unless they are off, the keeper of its groups and
// the emitter of its heartbeats.
func (d *Daemon) addLink(cfg *config.Config, lc *config.Link, o Options) error {
	opts, err := LinkOptions(cfg, lc)
	if err != nil {
		return err
	}
	opts.Group = o.Group
	l, err := mirror.New(mirror.Config{Options: opts, Source: d.clusters[lc.From], Target: d.clusters[lc.To], Pool: d.pool, Log: o.Log, Instance: d.instance})
	if err != nil {
		return err
	}
	d.links = append(d.links, l)
	var e *heartbeat.Emitter
	if lc.Heartbeats.Enabled {
		e = heartbeat.New(heartbeat.Config{
			Cluster: d.clusters[lc.From], Source: lc.From, Target: lc.To, Interval: lc.Heartbeats.Interval, Log: d.log.With(zap.String("link", lc.Name)),
		})
	}
	d.emitters = append(d.emitters, e)
	k, err := d.keeper(lc, l)
	d.keepers = append(d.keepers, k)
	return err
}

func (d *Daemon) keeper(lc *config.Link, l *mirror.Link) (*checkpoint.Keeper, error) {
	if lc.Checkpoints.Follow == "off" || len(lc.Groups) == 0 {
		return nil, nil
	}
	include, err := config.Compile(lc.Groups)
	if err != nil {
		return nil, fmt.Errorf("link %s: groups: %w", lc.Name, err)
	}
	exclude, err := config.Compile(lc.GroupsExclude)
	if err != nil {
		return nil, fmt.Errorf("link %s: groups_exclude: %w", lc.Name, err)
	}
	c := lc.Checkpoints
	return checkpoint.New(checkpoint.Config{
		Source: d.clusters[lc.From], Target: d.clusters[lc.To], Link: l,
		Group: func(name string) bool { return include.Match(name) && !exclude.Match(name) }, Topic: l.Copies,
		Follow: c.Follow, Interval: c.Interval, CommitGroups: c.CommitGroups, MirrorMaker: c.MirrorMaker,
		CheckpointsTopic: c.Topic, ReplicationFactor: int16(c.ReplicationFactor), Instance: d.instance,
		Log: d.log.With(zap.String("link", lc.Name)),
	}), nil
}

func used(cfg *config.Config, alias string) bool {
	for _, l := range cfg.Links {
		if l.From == alias || l.To == alias {
			return true
		}
	}
	return false
}

func instance(name string) string {
	if name == "" {
		name, _ = os.Hostname()
	}
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}

// LinkOptions turns a link's configuration into what mirror understands.
func LinkOptions(cfg *config.Config, lc *config.Link) (mirror.Options, error) {
	o := mirror.Options{
		From: lc.From, To: lc.To, Name: lc.Name, Topics: lc.Topics, TopicsExclude: lc.TopicsExclude,
		ReadUncommitted: lc.Isolation == "read_uncommitted", StartLatest: lc.Start == "latest",
		AppendToExisting: lc.AppendToExisting,
		KeepTopics:       !lc.Sync.CreateTopics, KeepPartitions: !lc.Sync.GrowPartitions,
		ReplicationFactor: int16(lc.ReplicationFactor),
		JournalTopic:      lc.Journal.Topic, JournalPartitions: int32(lc.Journal.Partitions), JournalReplicationFactor: int16(lc.Journal.ReplicationFactor),
		BatchBytes: int(lc.BatchBytes), MaxDecodedBytes: int(cfg.Limits.DecodedBatch),
		RefreshInterval: lc.RefreshInterval, SessionTimeout: lc.SessionTimeout, Rack: cfg.Clusters[lc.From].Rack,
	}
	o.OnGap = action(lc.OnGap)
	o.OnTruncation = action(lc.OnTruncation)
	o.OnRecreate = action(lc.OnRecreate)
	o.Rename, o.Heartbeats = lc.TargetName, lc.Heartbeats.Enabled
	if lc.Sync.TopicConfigs {
		exclude, err := config.Compile(lc.Sync.TopicConfigsExclude)
		if err != nil {
			return o, fmt.Errorf("link %s: %w", lc.Name, err)
		}
		o.SyncConfig = func(key string) bool { return !exclude.Match(key) }
	}
	if lc.Compression != "" {
		codec, err := wire.ParseCodec(lc.Compression)
		if err != nil {
			return o, fmt.Errorf("link %s: %w", lc.Name, err)
		}
		o.Codec = &codec
	}
	return o, nil
}

// action understands the words of on_gap, on_truncation and on_recreate.
func action(word string) mirror.Action {
	if word == "halt" {
		return mirror.Halt
	}
	return mirror.Continue // continue, follow, restart
}

// Run copies until ctx ends, then stops cleanly. It returns nil after a clean
// stop, or the error of the first link that could not go on.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { d.trim(ctx); return nil })
	for _, l := range d.links {
		g.Go(func() error { return l.Run(ctx) })
	}
	for _, k := range d.keepers {
		if k != nil {
			g.Go(func() error { k.Run(ctx); return nil })
		}
	}
	for _, e := range d.emitters {
		if e != nil {
			g.Go(func() error {
				e.Run(ctx)
				return nil
			})
		}
	}
	return g.Wait()
}

// trim gives memory back that was not needed for a while.
func (d *Daemon) trim(ctx context.Context) {
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			d.pool.Trim()
		case <-ctx.Done():
			return
		}
	}
}

// Close ends all connections.
func (d *Daemon) Close() {
	for _, c := range d.clusters {
		c.Close()
	}
}

// Status takes a snapshot. A link whose loop did not answer before ctx ended is
// named as silent.
func (d *Daemon) Status(ctx context.Context) status.Status {
	s := status.Status{
		Time: time.Now(), Version: d.version, Instance: d.instance, Started: d.started,
		Memory: status.Memory{UsedBytes: d.pool.Used(), LimitBytes: d.pool.Limit()},
	}
	d.mu.Lock()
	s.BoundaryRefusals = maps.Clone(d.refusals)
	d.mu.Unlock()
	s.Links = make([]status.Link, len(d.links))
	var asked sync.WaitGroup
	for i, l := range d.links {
		asked.Go(func() {
			ls, ok := l.Status(ctx)
			if !ok {
				ls.State = observe.Silent
			}
			s.Links[i] = status.Link{LinkStatus: ls}
			if k := d.keepers[i]; k != nil {
				cs := k.Status()
				s.Links[i].Checkpoints = &cs
			}
			if e := d.emitters[i]; e != nil {
				hs := e.Status()
				s.Links[i].Heartbeats = &hs
			}
		})
	}
	asked.Wait()
	return s
}
