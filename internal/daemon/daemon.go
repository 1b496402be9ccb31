// Package daemon makes a configuration run: it opens the clusters, starts the
// links and tells how they are.
//
// What it promises: no record is copied before both clusters of its link have been
// reached and are those the configuration names; one link that cannot go on ends the
// daemon, so that whoever supervises it sees it; Run returns within ten seconds
// after its context has ended.
package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"replicator/internal/config"
	"replicator/internal/status"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// Daemon is a configuration that runs.
type Daemon struct {
	version   string
	instance  string
	started   time.Time
	pool      *wire.Pool
	links     []*link
	open      func(ctx context.Context, alias string) (*cluster.Cluster, error)
	log       *zap.Logger
	openAgain time.Duration

	mu       sync.Mutex
	clusters map[string]*cluster.Cluster // those that were reached
	reaching map[string]*sync.Mutex      // by cluster: one at a time tries
	watchers map[watched]*authority.Watcher
	watch    func(*authority.Watcher) // runs a watcher; nil before Run
	refusals map[string]int64         // by cluster
}

// Options are what a daemon needs beside its configuration.
type Options struct {
	Version string
	Log     *zap.Logger
	Dial    cluster.DialFunc // below the guard, for tests
	Group   string           // instead of the links' own, to have two daemons work on the same lanes in tests
}

// New opens the clusters and prepares the links. Close the daemon if Run is not called.
//
// A cluster that cannot be reached is an error, unless a link to another region has
// to be kept out there: where the authority on a link's target says that it is
// closed, the daemon starts without its source, and tries again to reach it.
func New(ctx context.Context, cfg *config.Config, o Options) (*Daemon, error) {
	d := &Daemon{
		version: o.Version, instance: instance(cfg.Instance), started: time.Now(), log: o.Log, openAgain: openAgain,
		pool: wire.NewPool(int64(cfg.Limits.Memory)), clusters: map[string]*cluster.Cluster{}, reaching: map[string]*sync.Mutex{},
		watchers: map[watched]*authority.Watcher{}, refusals: map[string]int64{},
	}
	d.open = func(ctx context.Context, alias string) (*cluster.Cluster, error) {
		return cluster.Open(ctx, alias, cfg.Clusters[alias], cluster.Options{
			Log: o.Log, Pool: d.pool, ClientID: "replicator", Dial: o.Dial, MaxFetch: int32(min(int64(cfg.Limits.Memory), 1<<30)),
			OnRefusal: func(e *cluster.BoundaryError) {
				d.mu.Lock()
				d.refusals[alias]++
				d.mu.Unlock()
				o.Log.Error("connection refused by the boundary", zap.Error(e))
			},
		})
	}
	for alias := range cfg.Clusters {
		d.reaching[alias] = &sync.Mutex{}
	}
	if err := d.start(ctx, cfg, o); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) start(ctx context.Context, cfg *config.Config, o Options) error {
	var first error // of two faults, always the same is told
	missing := map[string]error{}
	for _, alias := range slices.Sorted(maps.Keys(cfg.Clusters)) {
		if !used(cfg, alias) {
			continue
		}
		if err := d.reach(ctx, alias); err != nil {
			missing[alias] = err
			if first == nil {
				first = err
			}
		}
	}
	guards := false
	for i := range cfg.Links {
		lc := &cfg.Links[i]
		opts, err := LinkOptions(cfg, lc)
		if err != nil {
			return err
		}
		opts.Group = o.Group
		l := &link{cfg: lc, opts: opts, paired: cfg.Reverse(lc) != nil, missing: cmp.Or(missing[lc.From], missing[lc.To])}
		d.links = append(d.links, l)
		switch {
		case l.missing == nil:
			if err := d.prepare(l); err != nil {
				return err
			}
		case !lc.Governed():
			return first
		case missing[lc.To] == nil:
			p, err := d.authorityOf(l, d.cluster(lc.To)).Sync(ctx)
			guards = guards || err == nil && !p.Append
		}
	}
	if len(missing) > 0 && !guards {
		return first
	}
	return nil
}

// cluster returns the cluster if it was reached, else nil.
func (d *Daemon) cluster(alias string) *cluster.Cluster {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clusters[alias]
}

// reach opens a cluster unless it is open.
func (d *Daemon) reach(ctx context.Context, alias string) error {
	d.reaching[alias].Lock()
	defer d.reaching[alias].Unlock()
	if d.cluster(alias) != nil {
		return nil
	}
	c, err := d.open(ctx, alias)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clusters[alias] = c
	return nil
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
	d.mu.Lock()
	d.watch = func(w *authority.Watcher) { g.Go(func() error { w.Run(ctx); return nil }) }
	for _, w := range d.watchers {
		d.watch(w)
	}
	d.mu.Unlock()
	for _, l := range d.links {
		g.Go(func() error { return d.run(ctx, l) })
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
	d.mu.Lock()
	defer d.mu.Unlock()
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
	s.Authority = d.authorities(s.Time)
	s.Links = make([]status.Link, len(d.links))
	var asked sync.WaitGroup
	for i, l := range d.links {
		asked.Go(func() { s.Links[i] = l.status(ctx) })
	}
	asked.Wait()
	return s
}
