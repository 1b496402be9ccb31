package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"replicator/internal/compare"
	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/workload"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// Bench is one run on one link's pair of clusters.
type Bench struct {
	o       Options
	link    *config.Link
	names   names
	options mirror.Options // of the run's own link
	plan    Plan
	source  *cluster.Cluster
	target  *cluster.Cluster
	pool    *wire.Pool
	log     *zap.Logger
	made    bool // something may be on the clusters
}

// Open connects to the two clusters of a link and checks that the run can be
// made; it makes nothing. An error it can explain is a *RefusedError. Close the
// Bench in the end.
func Open(ctx context.Context, cfg *config.Config, link *config.Link, o Options, log *zap.Logger) (*Bench, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	b := &Bench{o: o, link: link, names: newNames(), pool: wire.NewPool(int64(cfg.Limits.Memory)), log: log}
	var err error
	if b.options, err = daemon.LinkOptions(cfg, link); err != nil {
		return nil, err
	}
	b.isolate()
	b.plan = Plan{
		Link: link.Name, Source: link.From, Target: link.To, Topic: b.names.topic, Keep: o.Keep, options: o,
		Bytes: (o.bulk() + o.steady()) * int64(o.RecordBytes), SteadyBytes: o.steady() * int64(o.RecordBytes),
	}
	open := func(alias string) (*cluster.Cluster, error) {
		return cluster.Open(ctx, alias, cfg.Clusters[alias], cluster.Options{
			Log: log, Pool: b.pool, ClientID: "replicator", MaxFetch: int32(min(int64(cfg.Limits.Memory), 1<<30)),
		})
	}
	if b.source, err = open(link.From); err == nil {
		b.target, err = open(link.To)
	}
	if err == nil {
		err = cluster.Distinct(b.source, b.target)
	}
	if err == nil {
		err = b.check(ctx)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// isolate makes the link's options those of a link that shares nothing with it:
// how records are copied stays the same, what is copied and where it is kept does
// not. From and To stay, so that the transactional ids of the lanes, which hold
// the topic's name, are under the prefix the link's principal may use.
func (b *Bench) isolate() {
	o := &b.options
	o.Name = "bench of " + b.link.Name
	o.Only, o.Rename, o.Heartbeats = b.names.topic, nil, false
	o.JournalTopic, o.JournalPartitions, o.Group = b.names.journal, min(b.o.Partitions, 16), b.names.group
	o.KeepTopics, o.KeepPartitions, o.AppendToExisting = false, false, false
	o.StartLatest = false
	o.SyncConfig = nil // the target's defaults, and fewer rights
	// What happens to a scratch topic happens because somebody else meddles.
	o.OnGap, o.OnTruncation, o.OnRecreate = mirror.Halt, mirror.Halt, mirror.Halt
}

// Plan says what Run will do.
func (b *Bench) Plan() Plan { return b.plan }

// Close ends all connections.
func (b *Bench) Close() {
	for _, c := range []*cluster.Cluster{b.source, b.target} {
		if c != nil {
			c.Close()
		}
	}
}

// ErrInterrupted is a run whose context ended before it was done.
var ErrInterrupted = errors.New("interrupted: nothing was measured to the end")

// Run measures, compares and deletes what it made. The result says what is left
// on the clusters in any case, the figures count only without an error. A right
// that could not be asked for by Open is a *RefusedError as there.
func (b *Bench) Run(ctx context.Context) (Result, error) {
	r := Result{
		Link: b.link.Name, Topic: b.names.topic, Partitions: b.o.Partitions, RecordBytes: b.o.RecordBytes, Codec: b.o.Codec, BatchBytes: b.o.BatchBytes,
		Hints: []string{}, Left: []Trace{}, Began: time.Now().UTC(),
	}
	err := b.measure(ctx, &r)
	if ctx.Err() != nil {
		err = ErrInterrupted
	}
	if b.made && b.o.Keep {
		r.Left = b.traces()
	} else if b.made {
		r.Left = b.remove(ctx, err != nil)
	}
	return r, err
}

func (b *Bench) measure(ctx context.Context, r *Result) error {
	if err := b.mayFence(ctx); err != nil {
		return err
	}
	if err := b.create(ctx); err != nil {
		return err
	}
	if err := b.write(ctx, &r.Write); err != nil {
		return fmt.Errorf("write to cluster %s: %w", b.link.From, err)
	}
	if err := b.roundTrips(ctx, &r.RoundTrip); err != nil {
		return err
	}
	l, err := b.startLink(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = l.stop() }() // again, after a run that went well
	if err := b.copied(ctx, l, r); err != nil {
		return fmt.Errorf("copy from cluster %s to %s: %w", b.link.From, b.link.To, err)
	}
	if err := b.latency(ctx, l, &r.Latency); err != nil {
		return fmt.Errorf("measure latency: %w", err)
	}
	if err := l.stop(); err != nil {
		return fmt.Errorf("stop the link: %w", err)
	}
	r.Hints = r.hints(b.link.From, b.link.To)
	return b.compare(ctx, r)
}

// compare reads both sides to their ends.
func (b *Bench) compare(ctx context.Context, r *Result) error {
	b.o.Progress("comparing all records on both sides")
	report, err := compare.Topics(ctx, compare.Cluster(b.source.ClientOptions()), compare.Cluster(b.target.ClientOptions()),
		compare.Same(b.names.topic), compare.Options{Parallel: int(min(b.o.Partitions, 16))})
	if err != nil {
		return err
	}
	r.Compared = ComparedResult{Records: report.Total.Matched, Differences: report.Total.Differences(), Seconds: report.Took.Seconds()}
	if err := report.Err(); err != nil {
		return err
	}
	// A warm-up record a partition is not among those whose latency counts.
	if want := r.Write.Records + r.Latency.Records + int64(b.o.Partitions); report.Total.SourceRecords != want {
		return fmt.Errorf("compare %s: cluster %s holds %d records, %d were written", b.names.topic, b.link.From, report.Total.SourceRecords, want)
	}
	return nil
}

// workload is how the source's records look.
func (b *Bench) workload(records int, first int64) workload.Spec {
	return workload.Spec{
		Topic: b.names.topic, Kind: workload.Plain, Codec: workload.Codec(b.o.Codec), Partitions: b.o.Partitions,
		Records: records, First: first, ValueBytes: b.o.RecordBytes, BatchBytes: b.o.BatchBytes,
	}
}
