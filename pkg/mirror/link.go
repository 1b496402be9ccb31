package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"replicator/internal/stats"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// Link copies one direction of a pair. Run does everything; Status may be asked
// at any time.
type Link struct {
	opener
	source *cluster.Cluster
	pool   *wire.Pool // data frames
	member *membership

	inbox    *mailbox
	answers  chan answer
	fetchedc chan *fetched
	begun    chan struct{} // closed when the loop runs
	dead     chan struct{} // closed when the loop has ended
	ctx      context.Context
	workers  sync.WaitGroup

	freeMu      sync.Mutex
	freeFetched []*fetched

	// All below belongs to the loop.
	lanes     map[offsets.Lane]*lane
	appenders map[int32]*appender
	fetchers  map[int32]*fetcher
	touched   map[*appender]struct{}
	timers    timers
	now       time.Time // when this turn of the loop began
	topo      *topology
	partsThen map[string]int // partitions of source topics when the link began
	refresh   chan struct{}  // asks the topology keeper
	toOpen    []*lane
	openers   int
	dirty     map[*lane]struct{}
	toKeep    []offsets.Lane // lanes whose journal entries are looked at next
	assigned  bool           // the group has given an assignment, even an empty one
	// groupProblem is why the group takes us no more, "" while it does.
	groupProblem string
	// journalProblem is why the last positions could not be journalled, or "".
	// Lanes whose map does not change go on all the same.
	journalProblem string
	stopping       bool
	stopped        chan struct{}

	authority        Authority // nil: the link is not governed
	permission       Permission
	permitted        bool // permission is known
	authorityProblem string
	askAuthority     chan struct{} // asks keepAuthority
	appends          atomic.Bool   // for others than the loop, see Appends
	shut             atomic.Bool   // the same, see Closed
	guard            *renewer      // while closed
	guardEnd         context.CancelFunc

	routes      [nRoutes][nReasons][nCodecs]RouteCount
	events      []Event
	eventCounts map[string]int64
	errors      map[string]int64
	openings    int64
	latency     stats.Histogram
	inFlight    int64
	largest     int // bytes of the largest answer asked for so far
	journalled  time.Time
	warnings    []string
	fatal       error
}

// Config is what a link needs.
type Config struct {
	Options  Options
	Source   *cluster.Cluster
	Target   *cluster.Cluster
	Pool     *wire.Pool
	Log      *zap.Logger
	Instance string
	// Authority governs the link; nil: it always appends.
	Authority Authority
}

// New checks the options and makes a link; Run starts it.
func New(c Config) (*Link, error) {
	o := c.Options.withDefaults()
	filter, err := newTopicFilter(o)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", o.Name, err)
	}
	if err := cluster.Distinct(c.Source, c.Target); err != nil {
		return nil, fmt.Errorf("link %s: %w", o.Name, err)
	}
	return &Link{
		opener: opener{
			opts: o, filter: filter, target: c.Target, openPool: wire.NewPool(16 << 20),
			log: c.Log.With(zap.String("link", o.Name)), instance: c.Instance,
		},
		source: c.Source, pool: c.Pool,
		inbox: newMailbox(), answers: make(chan answer, 16), fetchedc: make(chan *fetched), begun: make(chan struct{}), dead: make(chan struct{}),
		lanes: map[offsets.Lane]*lane{}, appenders: map[int32]*appender{}, fetchers: map[int32]*fetcher{},
		touched: map[*appender]struct{}{}, dirty: map[*lane]struct{}{}, refresh: make(chan struct{}, 1),
		eventCounts: map[string]int64{}, errors: map[string]int64{}, latency: stats.NewLatency(), stopped: make(chan struct{}),
		authority: c.Authority, askAuthority: make(chan struct{}, 1),
	}, nil
}

// stopTime bounds a clean stop, lastWait what may be left of it.
const (
	stopTime = 8 * time.Second
	lastWait = time.Second
)

// Run copies until ctx ends, then stops cleanly: what is in flight is answered
// and journalled, the lanes are handed over, the group is left. It returns nil
// after a clean stop, or what made it impossible to go on.
func (l *Link) Run(ctx context.Context) error {
	journal, err := l.openJournal(ctx, false)
	if err != nil {
		close(l.dead) // no loop will answer Status
		if ctx.Err() != nil {
			return nil // asked to stop before anything was begun: a clean stop
		}
		return fmt.Errorf("link %s: %s: %w", l.opts.Name, l.opts.To, err)
	}
	l.journal = journal
	defer journal.Close()
	l.warnings = journal.Warnings()
	for _, w := range l.warnings {
		l.log.Warn("journal", zap.String("warning", w))
	}

	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.ctx = inner
	l.spawn(l.keepTopology)
	if l.authority != nil {
		l.spawn(l.keepAuthority)
	}
	l.member = l.join()
	err = l.loop(ctx)
	l.letGo()
	cancel()
	ended := make(chan struct{})
	go func() {
		l.workers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(lastWait):
		// A request of kgo can outlive its context while it queues behind one that is
		// not answered. It ends when its cluster is closed.
		l.log.Warn("stop: requests are still unanswered")
	}
	return err
}

func journalReplication(rf int16) int16 {
	if rf <= 0 {
		return -1
	}
	return rf
}

// spawn runs fn until it returns; Run waits for it.
func (l *Link) spawn(fn func(context.Context)) {
	l.workers.Go(func() { fn(l.ctx) })
}

// loop owns all lanes. Everything that happens to them happens here, one event
// at a time; nothing in it waits for the network.
func (l *Link) loop(ctx context.Context) error {
	close(l.begun)
	defer close(l.dead)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var spare []func()
	stop := ctx.Done()
	l.later(time.Now().Add(tickEvery), l.tick)
	l.later(time.Now().Add(commitEvery), l.commitTick)
	for {
		timer.Reset(l.timers.next(time.Now(), time.Minute))
		select {
		case <-stop:
			l.now = time.Now()
			stop = nil
			l.beginStop()
		case a := <-l.answers:
			l.now = time.Now()
			l.answered(a.request, a.err)
		case f := <-l.fetchedc:
			l.now = time.Now()
			l.onFetched(f)
		case <-l.inbox.wake:
			l.now = time.Now()
			fns := l.inbox.take(spare)
			for _, fn := range fns {
				fn()
			}
			clear(fns)
			spare = fns
		case <-timer.C:
			l.now = time.Now()
			for _, fn := range l.timers.due(l.now) {
				fn()
			}
		case <-l.stopped:
			return l.fatal
		}
		l.startOpenings()
		for a := range l.touched {
			delete(l.touched, a)
			l.pump(a)
			l.validateNow(a)
		}
	}
}

func (l *Link) touch(a *appender) {
	if a != nil {
		l.touched[a] = struct{}{}
	}
}

func (l *Link) later(at time.Time, fn func()) { l.timers.add(at, fn) }

const tickEvery = time.Second

// tick does what is done every second: positions to the journal, connections
// kept alive, lanes whose epoch is a day old opened again.
func (l *Link) tick() {
	l.later(time.Now().Add(tickEvery), l.tick)
	l.writePositions(l.dirty)
	for _, a := range l.appenders {
		if a.conn != nil && a.requests == 0 && !a.asking && time.Since(a.lastUse) > keepAliveEvery {
			l.keepAlive(a)
		}
	}
	if err := l.journal.Err(); err != nil && l.fatal == nil {
		l.stopWith(fmt.Errorf("link %s: journal: %w", l.opts.Name, err))
	}
	for _, ln := range l.lanes {
		l.watch(ln)
	}
	if !l.stopping {
		l.housekeep()
	}
}

func (l *Link) commitTick() {
	l.later(time.Now().Add(commitEvery), l.commitTick)
	l.commitPositions()
}

// stopWith ends the link because of an error nobody here can mend.
func (l *Link) stopWith(err error) {
	l.log.Error("link stops", zap.Error(err))
	if l.fatal == nil {
		l.fatal = err
	}
	l.beginStop()
}

// letGo gives back what is left when the loop has ended. Frames go back only
// after the connections that may still be sending them are gone.
func (l *Link) letGo() {
	for _, a := range l.appenders {
		if a.conn != nil {
			a.conn.Close()
			a.conn.Wait()
		}
	}
	for _, ln := range l.lanes {
		ln.sent = 0
		ln.dropQueued()
	}
}

// beginStop drains every lane, then leaves the group.
func (l *Link) beginStop() {
	if l.stopping {
		return
	}
	l.stopping = true
	l.stopGuard()
	l.log.Info("stopping", zap.Int("lanes", len(l.lanes)))
	deadline := time.Now().Add(stopTime)
	l.releaseLanes(slices.Collect(maps.Keys(l.lanes)), func() {
		go func() {
			l.member.leave(deadline)
			close(l.stopped)
		}()
	})
	l.later(deadline.Add(-2*time.Second), func() {
		// Whatever is still unanswered stays in doubt; the next holder finds it out.
		for key, ln := range l.lanes {
			l.log.Warn("stop: lane not drained in time", zap.Stringer("lane", key))
			l.handedOver(ln)
		}
	})
}

// Status takes a snapshot. It returns false if the loop does not answer before
// ctx ends.
func (l *Link) Status(ctx context.Context) (LinkStatus, bool) {
	none := LinkStatus{Name: l.opts.Name, Source: l.opts.From, Target: l.opts.To, SourceID: l.source.ID(), TargetID: l.target.ID(), LaneStates: map[LaneState]int{}}
	select {
	case <-l.begun:
	case <-l.dead:
		none.State, none.Reason = LinkStopping, "stopped"
		return none, true
	default:
		none.State, none.Reason = LinkStarting, "reading the journal"
		return none, true
	}
	got := make(chan LinkStatus, 1)
	l.inbox.post(func() { got <- l.status() })
	select {
	case s := <-got:
		return s, true
	case <-l.dead:
		none.State, none.Reason = LinkStopping, "stopped"
		return none, true
	case <-ctx.Done():
		none.Reason = "the link does not answer"
		return none, false
	}
}

func (l *Link) status() LinkStatus {
	t := time.Now()
	s := LinkStatus{
		Name: l.opts.Name, Source: l.opts.From, Target: l.opts.To, SourceID: l.source.ID(), TargetID: l.target.ID(),
		LaneStates: map[LaneState]int{}, EventCounts: maps.Clone(l.eventCounts), Errors: maps.Clone(l.errors),
		Events: slices.Clone(l.events), Openings: l.openings, InFlightBytes: l.inFlight, Warnings: l.warnings,
		Lanes: make([]LaneStatus, 0, len(l.lanes)),
	}
	s.Latency = l.latency.Clone()
	src, dst := l.source.DataTraffic(), l.target.DataTraffic()
	s.SourceBytes, s.TargetBytes = src.ReadBytes, dst.WrittenBytes
	s.ThrottleSource, s.ThrottleTarget = src.Throttled.Seconds(), dst.Throttled.Seconds()
	if !l.journalled.IsZero() {
		age := t.Sub(l.journalled).Seconds()
		s.JournalAge = &age
	}
	for _, ln := range l.lanes {
		ls := ln.status(t)
		ls.MapBytes = int64(l.journal.State(ln.key).Bytes())
		s.LaneStates[ln.state]++
		if ls.LagRecords != nil {
			sum := *ls.LagRecords
			if s.LagRecords != nil {
				sum += *s.LagRecords
			}
			s.LagRecords = &sum
		}
		if ls.LagSeconds != nil && (s.LagSeconds == nil || *ls.LagSeconds > *s.LagSeconds) {
			s.LagSeconds = ls.LagSeconds
		}
		s.Lanes = append(s.Lanes, ls)
	}
	slices.SortFunc(s.Lanes, func(a, b LaneStatus) int {
		if c := slices.Index(LaneStates, a.State) - slices.Index(LaneStates, b.State); c != 0 {
			return c
		}
		if a.Topic != b.Topic {
			if a.Topic < b.Topic {
				return -1
			}
			return 1
		}
		return int(a.Partition - b.Partition)
	})
	for r := range nRoutes {
		for w := range nReasons {
			for c := range nCodecs {
				if n := l.routes[r][w][c]; n.Batches > 0 || n.Records > 0 { // a gap has records only
					n.Route, n.Reason, n.Codec = r.String(), w.String(), wire.Codec(c).String()
					s.Routes = append(s.Routes, n)
				}
			}
		}
	}
	if l.permitted {
		s.AuthorityEpoch = new(l.permission.Epoch)
	}
	if l.guard != nil {
		s.Guard = l.guard.snapshot()
	}
	l.judge(&s)
	return s
}

// judge says in one word how the link is, and whether it is ready.
func (l *Link) judge(s *LinkStatus) {
	bad := len(l.lanes) - s.LaneStates[LaneCopying]
	unread := slices.IndexFunc(s.Lanes, func(ln LaneStatus) bool { return ln.State == LaneCopying && ln.Reason != "" })
	switch {
	case l.stopping:
		s.State, s.Reason = LinkStopping, "stopping"
	case l.closed():
		s.State, s.Reason = LinkClosed, l.permission.Why
	case l.authorityProblem != "" || l.authority != nil && !l.permitted:
		s.State, s.Reason = LinkDegraded, l.barred()
	case l.topo == nil:
		s.State, s.Reason = LinkStarting, "topics not known yet"
	case len(l.topo.topics) == 0:
		s.State, s.Reason = LinkStarting, l.nothingToCopy()
	case l.groupProblem != "":
		s.State, s.Reason = LinkDegraded, l.groupProblem
	case !l.assigned:
		s.State, s.Reason = LinkStarting, "no assignment of lanes yet"
	case bad > 0:
		s.State = LinkDegraded
		s.Reason = fmt.Sprintf("%d of %d lanes are not copying", bad, len(l.lanes))
		if len(s.Lanes) > 0 && s.Lanes[0].Reason != "" {
			s.Reason += ": " + s.Lanes[0].Topic + "-" + fmt.Sprint(s.Lanes[0].Partition) + ": " + s.Lanes[0].Reason
		}
	case l.journalProblem != "":
		s.State, s.Reason = LinkDegraded, l.journalProblem
	case unread >= 0:
		s.State, s.Reason = LinkDegraded, fmt.Sprintf("%s-%d: %s", s.Lanes[unread].Topic, s.Lanes[unread].Partition, s.Lanes[unread].Reason)
	case l.topo.problem() != "":
		s.State, s.Reason = LinkDegraded, l.topo.problem()
	default:
		s.State = LinkCopying
	}
	s.Ready = s.State == LinkCopying || s.State == LinkClosed || s.State == LinkDegraded && s.LaneStates[LaneCopying] > 0 && s.LaneStates[LaneHalted] == 0
}

// nothingToCopy says why a link has no topic.
func (l *Link) nothingToCopy() string {
	return fmt.Sprintf("no topic matches %q: a broker does not list what may not be read, so grant READ on topics of cluster %s that should be copied", l.opts.Topics, l.opts.From)
}

// count notes a route taken.
func (l *Link) count(it *item) {
	codec := it.codec
	if codec < 0 || codec >= nCodecs {
		codec = 0
	}
	c := &l.routes[it.route][it.reason][codec]
	c.Batches += int64(it.batches)
	c.Records += int64(it.count)
	c.Bytes += int64(it.bytes)
}

const keptEvents = 100

// event tells the log, the metrics and the status of something an operator
// should know. lane may be nil.
func (l *Link) event(kind string, ln *lane, detail string) {
	e := Event{Time: time.Now(), Kind: kind, Detail: detail}
	if ln != nil {
		e.Lane = ln.key.String()
	}
	l.eventCounts[kind]++
	if len(l.events) == keptEvents {
		l.events = slices.Delete(l.events, 0, 1)
	}
	l.events = append(l.events, e)
	level := zap.WarnLevel
	if kind == EventTopicCreated || kind == EventGrown {
		level = zap.InfoLevel
	}
	l.log.Log(level, "event", zap.String("kind", kind), zap.String("lane", e.Lane), zap.String("detail", detail))
}

// fail counts an error of a class and logs it.
func (l *Link) fail(class string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	l.errors[class]++
	l.log.Warn("retrying", zap.String("class", class), zap.Error(err))
}

func (l *Link) routing() routing {
	return routing{readCommitted: !l.opts.ReadUncommitted, smallBytes: l.opts.SmallBatchBytes, packBytes: l.opts.BatchBytes, maxDecoded: l.opts.MaxDecodedBytes, codec: l.opts.Codec}
}

func (l *Link) spareFetched() *fetched {
	l.freeMu.Lock()
	defer l.freeMu.Unlock()
	if n := len(l.freeFetched); n > 0 {
		f := l.freeFetched[n-1]
		l.freeFetched = l.freeFetched[:n-1]
		return f
	}
	return &fetched{}
}

func (l *Link) recycle(f *fetched) {
	f.reset()
	l.freeMu.Lock()
	l.freeFetched = append(l.freeFetched, f)
	l.freeMu.Unlock()
}
