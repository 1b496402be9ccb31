package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/internal/stats"
	"replicator/pkg/cluster"
	"replicator/pkg/mirrormaker"
	"replicator/pkg/offsets"
)

const (
	// roundGap is the least time between two rounds, so that commits of a moment
	// go out together.
	roundGap = 50 * time.Millisecond
	// aheadEvery is how often commits that are ahead of their lane are looked at.
	aheadEvery = 100 * time.Millisecond
	// rewriteAfter is the age at which a checkpoint is written again although
	// nothing has changed: a daemon that lost the lane may have overwritten it with
	// an older one.
	rewriteAfter = 10 * time.Minute
	// refreshAfter is the age at which an offset is committed to the target's group
	// again although nothing has changed, because brokers forget the offsets of
	// groups nobody uses (offsets.retention.minutes, a week by default).
	refreshAfter = time.Hour
	// notePlacedAfter is how long a checkpoint may wait until the topic knows what
	// was placed, should the group not move on.
	notePlacedAfter = 30 * time.Second
	writeTime       = 10 * time.Second // until writing checkpoints has failed
	// closedPoll is how often it is looked whether the link may write to its target again.
	closedPoll = 100 * time.Millisecond
	// forgetAfter is how long a daemon that is gone is remembered. Until another
	// one starts, its word stays, however old: it is what a failover goes by.
	forgetAfter = 24 * time.Hour
)

// Link is what a keeper needs of the link whose groups it keeps.
type Link interface {
	// Live returns those of the lanes that this daemon has open.
	Live(ctx context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error)
	// Held returns all lanes of this daemon.
	Held(ctx context.Context) (offsets.Held, error)
}

// Config is what a keeper needs.
type Config struct {
	Source, Target    *cluster.Cluster
	Link              Link
	Group             func(name string) bool // groups whose offsets are translated
	Topic             func(name string) bool // source topics that are copied
	Follow            string                 // auto, tail or poll
	Interval          time.Duration          // of polling and of committing to the target's groups
	CommitGroups      bool                   // commit to the target's groups
	MirrorMaker       bool                   // write MirrorMaker 2's checkpoints too
	CheckpointsTopic  string                 // on the target
	ReplicationFactor int16                  // of topics that are made; 0 or less: the best the target allows
	Closed            func() bool            // nothing is written to the target while it says so; nil: never
	Instance          string                 // who this daemon is
	Log               *zap.Logger
}

// Keeper follows the groups of a link's source and keeps their checkpoints on the
// target, for the lanes this daemon holds. Run does everything; Status may be
// asked at any time.
type Keeper struct {
	cfg    Config
	log    *zap.Logger
	wake   chan struct{}
	gained chan struct{} // asks the sweep to look at lanes that are new
	client *kgo.Client   // the writer's

	mu       sync.Mutex
	mode     string         // how commits are followed
	problem  string         // why not better
	current  time.Time      // as the follower says: all is in incoming, or was
	taken    time.Time      // current, when the writer last took in what came
	incoming map[Key]Commit // not yet taken by the writer
	progress map[Key]*progress
	byLane   map[offsets.Lane]map[*progress]struct{}
	dirty    map[offsets.Lane]map[*progress]struct{} // to be translated
	held     map[offsets.Lane]heldLane               // open lanes of this daemon, as of the last sweep
	opening  map[offsets.Lane]bool                   // its other ones: nothing is written of them yet

	written  int64
	failures map[string]int64 // by class
	writing  string           // why checkpoints could not be written last, "" if they could
	placing  string           // why the target's groups could not be committed to at all
	latency  stats.Histogram
	placed   int64
}

// heldLane is a lane of this daemon.
type heldLane struct {
	writer      offsets.Writer // of its opening
	targetTopic string
	sourceEnd   int64 // next, -1 unknown
}

// progress is one group in one partition.
type progress struct {
	Key
	commit    Commit
	have      Checkpoint // as the topic has it; Source -1: it has none
	placed    int64      // target offset last committed to the target's group, -1 none
	placedFor int64      // the translation that led to it, which may lie outside the target's log
	placedAt  time.Time
	reason    Reason // why it is not placed
	detail    string
	unwritten time.Time // when the oldest commit was made that is not in the topic yet; zero: all are
	vouched   time.Time // up to when all commits were known before that one came, by our clock
	arrived   time.Time // the same of the newest
	lookAt    time.Time // ahead of its lane: no write before
	rewrite   bool      // write it though nothing has changed
}

// New makes a keeper.
func New(cfg Config) *Keeper {
	return &Keeper{
		cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1), gained: make(chan struct{}, 1), mode: "starting",
		incoming: map[Key]Commit{}, progress: map[Key]*progress{}, byLane: map[offsets.Lane]map[*progress]struct{}{},
		dirty: map[offsets.Lane]map[*progress]struct{}{}, held: map[offsets.Lane]heldLane{},
		failures: map[string]int64{}, latency: stats.NewLatency(),
	}
}

// Run keeps checkpoints until ctx ends. What fails is said in the status and
// tried again.
func (k *Keeper) Run(ctx context.Context) {
	if !k.open(ctx) {
		return
	}
	defer k.client.Close()
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer workers.Wait()
	defer cancel()
	workers.Go(func() {
		if err := Follow(ctx, FollowConfig{
			Cluster: k.cfg.Source, Mode: k.cfg.Follow, Interval: k.cfg.Interval, Group: k.cfg.Group, Topic: k.cfg.Topic, Shares: true, Log: k.log,
		}, intake{k}); err != nil && ctx.Err() == nil {
			k.fail("follow", err)
		}
	})
	workers.Go(func() { k.sweep(ctx) })
	k.write(ctx)
}

// open prepares the topics and reads what is in them, until it works or ctx ends.
func (k *Keeper) open(ctx context.Context) bool {
	for try := 0; ; try++ {
		if k.closed() { // until the link may write to its target
			if try = -1; pause.For(ctx, closedPoll) != nil {
				return false
			}
			continue
		}
		err := k.prepare(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		k.fail("topic", err)
		k.mu.Lock()
		k.writing = err.Error()
		k.mu.Unlock()
		if pause.For(ctx, min(time.Second<<min(try, 3), 5*time.Second)) != nil {
			return false
		}
	}
}

func (k *Keeper) prepare(ctx context.Context) error {
	for _, topic := range k.topics() {
		if err := ensureTopic(ctx, k.cfg.Target, topic, k.cfg.ReplicationFactor); err != nil {
			return err
		}
	}
	kept, err := readTopic(ctx, k.cfg.Target, k.cfg.CheckpointsTopic)
	if err != nil {
		return err
	}
	client, err := k.cfg.Target.NewClient(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // one partition, so that order is kept
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(writeTime),
		kgo.ProduceRequestTimeout(writeTime/2),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		return err
	}
	k.client = client
	if err := k.forgetDaemons(ctx, kept.fresh); err != nil {
		client.Close()
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writing = ""
	return nil
}

// forgetDaemons removes what daemons said that have been gone for long: every start
// is an instance of its own.
func (k *Keeper) forgetDaemons(ctx context.Context, said map[string]Freshness) error {
	var old []*kgo.Record
	for _, f := range said {
		if time.Since(f.Said) > forgetAfter {
			key, _ := encodeFreshness(f)
			old = append(old, &kgo.Record{Topic: k.cfg.CheckpointsTopic, Key: key})
		}
	}
	if len(old) == 0 {
		return nil
	}
	if err := k.client.ProduceSync(ctx, old...).FirstErr(); err != nil {
		return fmt.Errorf("forget daemons that are gone: %w", right(err, "WRITE", "topic "+k.cfg.CheckpointsTopic, k.cfg.Target.Alias()))
	}
	return nil
}

func (k *Keeper) topics() []string {
	topics := []string{k.cfg.CheckpointsTopic}
	if k.cfg.MirrorMaker {
		topics = append(topics, mirrormaker.CheckpointsTopic(k.cfg.Source.Alias()))
	}
	return topics
}

// mended takes note of a topic that could not be used, and makes it again if it is
// gone.
func (k *Keeper) mended(ctx context.Context, class string, err error) {
	k.fail(class, err)
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		k.mend(ctx)
	}
}

// mend makes topics again that were deleted. Everything is written anew: unlike
// records, checkpoints can be made again from what is known.
func (k *Keeper) mend(ctx context.Context) {
	for _, topic := range k.topics() {
		if err := ensureTopic(ctx, k.cfg.Target, topic, k.cfg.ReplicationFactor); err != nil {
			k.fail("topic", err)
			return
		}
	}
	k.client.PurgeTopicsFromProducing(k.topics()...) // it knows them by their old ids
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.progress {
		p.rewrite = true
		k.touch(p)
	}
}

// of returns the progress of a key, new or not. Called with the lock held.
func (k *Keeper) of(key Key) *progress {
	p := k.progress[key]
	if p == nil {
		p = &progress{Key: key, commit: Commit{Key: key, Offset: -1}, placed: -1, placedFor: -1}
		p.have.Source = -1
		k.progress[key] = p
		if k.byLane[key.Lane] == nil {
			k.byLane[key.Lane] = map[*progress]struct{}{}
		}
		k.byLane[key.Lane][p] = struct{}{}
	}
	return p
}

// forget drops a key. Called with the lock held.
func (k *Keeper) forget(p *progress) {
	delete(k.progress, p.Key)
	delete(k.byLane[p.Lane], p)
	if len(k.byLane[p.Lane]) == 0 {
		delete(k.byLane, p.Lane)
	}
}

// touch has a key translated in the next round. Called with the lock held.
func (k *Keeper) touch(p *progress) {
	if k.dirty[p.Lane] == nil {
		k.dirty[p.Lane] = map[*progress]struct{}{}
	}
	k.dirty[p.Lane][p] = struct{}{}
}

// closed says that the link must not write to its target.
func (k *Keeper) closed() bool { return k.cfg.Closed != nil && k.cfg.Closed() }

func (k *Keeper) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// fail counts an error and logs it.
func (k *Keeper) fail(class string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	k.mu.Lock()
	k.failures[class]++
	k.mu.Unlock()
	k.log.Warn("retrying", zap.String("class", "checkpoint_"+class), zap.Error(err))
}

// intake is the keeper as its follower sees it.
type intake struct{ k *Keeper }

var _ Sink = intake{}

// Commits takes commits in; those of one key replace one another, so that what
// waits is bounded by the number of keys.
func (i intake) Commits(commits []Commit) {
	i.k.mu.Lock()
	for _, c := range commits {
		i.k.incoming[c.Key] = c
	}
	i.k.mu.Unlock()
	i.k.wakeUp()
}

// Current notes up to when all commits are known.
func (i intake) Current(asOf time.Time) {
	i.k.mu.Lock()
	defer i.k.mu.Unlock()
	i.k.current = asOf
}

// Following notes how commits are read.
func (i intake) Following(mode, reason string) {
	i.k.mu.Lock()
	changed := i.k.mode != mode || i.k.problem != reason
	i.k.mode, i.k.problem = mode, reason
	i.k.mu.Unlock()
	if !changed {
		return
	}
	say := i.k.log.Info
	if reason != "" {
		say = i.k.log.Warn
	}
	say("following consumer groups", zap.String("mode", mode), zap.String("reason", reason))
}

// write translates and writes, round after round.
func (k *Keeper) write(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		next := k.round(ctx)
		if pause.For(ctx, roundGap) != nil {
			return
		}
		timer.Reset(next)
	}
}

// round takes in what came, translates what is dirty and writes it. It returns
// when to look again by itself.
func (k *Keeper) round(ctx context.Context) time.Duration {
	lanes := k.takeIn()
	if k.closed() {
		return closedPoll
	}
	if len(lanes) == 0 {
		return time.Second
	}
	live, err := k.cfg.Link.Live(ctx, lanes)
	if err != nil {
		return time.Second
	}
	k.onlyHeld(live)
	if err := k.writeOut(ctx, k.translate(live, time.Now())); err != nil {
		k.mended(ctx, "write", err)
		return time.Second
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for lane := range k.dirty {
		if _, ok := live[lane]; ok {
			return aheadEvery
		}
	}
	return time.Second // other daemons' lanes, or none
}

// onlyHeld leaves out lanes whose checkpoints have not been read since they became
// ours: what another daemon has written of them is not known yet.
func (k *Keeper) onlyHeld(live map[offsets.Lane]offsets.Live) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for lane := range live {
		if _, ok := k.held[lane]; !ok {
			delete(live, lane)
			select {
			case k.gained <- struct{}{}:
			default:
			}
		}
	}
}

// takeIn moves what came to the table and returns the lanes with something to do.
func (k *Keeper) takeIn() []offsets.Lane {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.taken
	k.taken = k.current
	for key, c := range k.incoming {
		p := k.of(key)
		if _, ours := k.held[key.Lane]; c.Deleted && !ours {
			k.clean(p)
			k.forget(p) // whose lane it is removes the checkpoint
			continue
		}
		if p.commit.Offset != c.Offset || p.commit.Deleted != c.Deleted || p.commit.Metadata != c.Metadata || p.have.Source < 0 {
			if p.unwritten.IsZero() && !(p.have.Source == c.Offset && p.have.Metadata == c.Metadata) {
				p.unwritten, p.vouched = c.Time, before
			}
			p.arrived = before
			p.lookAt = time.Time{}
			k.touch(p)
		}
		p.commit = c
	}
	clear(k.incoming)
	lanes := make([]offsets.Lane, 0, len(k.dirty))
	for lane := range k.dirty {
		lanes = append(lanes, lane)
	}
	return lanes
}

// change is one key on its way to the topics.
type change struct {
	progress *progress
	commit   Commit // it is about
	new      Checkpoint
	topic    string // on the target
	remove   bool
	moved    bool // MirrorMaker's topic has to hear of it
}

// translate works out what has to be written for lanes as they are now.
func (k *Keeper) translate(live map[offsets.Lane]offsets.Live, now time.Time) (updates []change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for lane, now2 := range live {
		for p := range k.dirty[lane] {
			u := change{progress: p, commit: p.commit, topic: now2.TargetTopic}
			switch {
			case p.commit.Deleted:
				u.remove = true
			case p.commit.Offset < 0: // kept by an earlier daemon; not seen on the source yet
				k.clean(p)
				continue
			default:
				t := now2.State.Translate(p.commit.Offset)
				u.new = p.have
				u.new.Key = p.Key
				u.new.at(&p.commit, t, now)
				u.new.Placed = p.placed
				same := p.have.Source >= 0 && p.have.says(&u.new)
				if t.Outcome == offsets.Ahead {
					// It stays dirty: what it is will be known when the lane has come there.
					if now.Before(p.lookAt) && !p.rewrite {
						continue
					}
					p.lookAt = now.Add(k.cfg.Interval)
				} else {
					k.clean(p)
				}
				if same && !p.rewrite {
					p.unwritten = time.Time{}
					continue
				}
				u.moved = p.rewrite || p.have.Source != u.new.Source || p.have.Target != u.new.Target || p.have.Metadata != u.new.Metadata
				p.rewrite = false
			}
			updates = append(updates, u)
		}
	}
	return updates
}

// clean takes a key out of what has to be translated. Called with the lock held.
func (k *Keeper) clean(p *progress) {
	delete(k.dirty[p.Lane], p)
	if len(k.dirty[p.Lane]) == 0 {
		delete(k.dirty, p.Lane)
	}
}

// writeOut writes updates and waits for their acknowledgement; those that failed
// are dirty again.
func (k *Keeper) writeOut(ctx context.Context, updates []change) error {
	if len(updates) == 0 {
		return nil
	}
	records := make([]*kgo.Record, 0, 2*len(updates))
	owner := make([]int, 0, 2*len(updates))
	failed := make([]error, len(updates))
	var unwritable []error
	own, theirs := k.cfg.CheckpointsTopic, mirrormaker.CheckpointsTopic(k.cfg.Source.Alias())
	for i := range updates {
		u := &updates[i]
		r := &kgo.Record{Topic: own, Key: encodeKey(u.progress.Key)}
		if !u.remove {
			r.Value = encodeValue(&u.new)
		}
		records, owner = append(records, r), append(owner, i)
		if !k.cfg.MirrorMaker || u.remove || !u.moved || u.new.Target < 0 || u.progress.Type != Consumer {
			continue
		}
		// MirrorMaker 2 stamps a checkpoint with the time it read the group.
		key, value, err := mirrormaker.Checkpoint{
			Group: u.progress.Group, Topic: u.topic, Partition: u.progress.Lane.Partition,
			Upstream: u.new.Source, Downstream: u.new.Target, Metadata: u.new.Metadata,
		}.Encode()
		if err != nil {
			// Their format cannot hold it, and never will: ours does.
			unwritable = append(unwritable, err)
			continue
		}
		records, owner = append(records, &kgo.Record{Topic: theirs, Key: key, Value: value}), append(owner, i)
	}
	if len(unwritable) > 0 {
		k.fail("mirrormaker", errors.Join(unwritable...))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*writeTime)
	defer cancel()
	at := make(map[*kgo.Record]int, len(records))
	for i, r := range records {
		at[r] = owner[i]
	}
	var first error
	for _, res := range k.client.ProduceSync(ctx, records...) {
		if res.Err != nil {
			failed[at[res.Record]] = res.Err
			first = right(res.Err, "WRITE", "topic "+res.Record.Topic, k.cfg.Target.Alias())
		}
	}
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writing = ""
	for i := range updates {
		u := &updates[i]
		p := u.progress
		if failed[i] != nil {
			k.touch(p)
			p.lookAt = time.Time{}
			continue
		}
		k.written++
		same := p.commit.Offset == u.commit.Offset && p.commit.Deleted == u.commit.Deleted && p.commit.Metadata == u.commit.Metadata
		if u.remove {
			if same {
				k.forget(p)
				k.clean(p)
			}
			continue
		}
		p.have = u.new
		if !p.unwritten.IsZero() {
			k.latency.Observe(max(0, now.Sub(p.unwritten).Seconds()))
			p.unwritten = time.Time{}
			if !same {
				p.unwritten, p.vouched = p.commit.Time, p.arrived
			}
		}
	}
	if first != nil {
		err := fmt.Errorf("write checkpoints: %w", first)
		k.writing = err.Error()
		return err
	}
	return nil
}
