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

	"replicator/pkg/offsets"
)

const (
	// patience is how long a poll waits for the tail to read what the poll may
	// have seen. Longer, and a transaction is open or a broker away.
	patience = 3 * time.Second
	// currentEvery is how often the tail is compared with the end offsets.
	currentEvery = time.Second
	// settlingPolls are the first polls of a tail: the first is the snapshot,
	// the second sees what the coordinator was about to show when the first
	// began and the tail began behind. Only then the tail knows everything.
	settlingPolls = 2
)

// followLoop is the state of a running follower. All of it belongs to the
// goroutine of run; others only send results.
type followLoop struct {
	*Follower
	ctx   context.Context
	sink  Sink
	poll  poller
	book  *book
	batch []Commit

	wanted map[string]bool // what Group and Topic said since the last poll began
	copied map[string]bool
	others map[string]bool // groups of kinds that are left out, as of the last poll
	listed map[string]bool // groups that were seen by the last poll that was judged

	tail     *tail  // nil: polls are all there is
	complete int    // polls without a problem since the tail began
	blind    string // what the tail cannot read; polls go on beside it
	stuck    string // where it cannot go on
	asked    *asked // ends the tail has to reach to be current

	waiting *judging // a poll that was read and is not judged

	noTail, noPoll, noEnds error // why not, the last time
	mode, reason           string
	current                time.Time

	polling, confirming, asking, opening, sharing bool
	noShares                                      bool // said once that there are none
	noGroups                                      bool // said that none is seen; none was since
	polls, confirms                               chan *judging
	ends                                          chan *asked
	opened                                        chan openedTail
	shares                                        chan *shareOffsets
	pollAt, giveUpAt, openAt                      *time.Timer
	running                                       sync.WaitGroup
}

// asked are end offsets as of a time.
type asked struct {
	tail *tail
	asOf time.Time
	ends map[int32]int64
	err  error
}

// judging is a poll on its way into the book.
type judging struct {
	*polled
	tail    *tail                         // beside which it began
	ends    map[int32]int64               // of __consumer_offsets after it, with a tail
	unsure  bool                          // something it saw was left aside, and the tail is not there yet
	missing map[string]map[string][]int32 // known and not seen: group, topic, partitions
	again   *polled                       // they were asked for by name
}

type openedTail struct {
	tail *tail
	err  error
}

func newFollowLoop(ctx context.Context, f *Follower, to Sink) *followLoop {
	l := &followLoop{
		Follower: f, ctx: ctx, sink: to, book: newBook(),
		poll:   poller{cluster: f.cfg.Cluster, wanted: f.cfg.Group, timeout: max(10*time.Second, 2*f.cfg.Interval)},
		wanted: map[string]bool{}, copied: map[string]bool{}, others: map[string]bool{},
		polls: make(chan *judging, 1), confirms: make(chan *judging, 1), ends: make(chan *asked, 1),
		opened: make(chan openedTail, 1), shares: make(chan *shareOffsets, 1),
		pollAt: time.NewTimer(0), giveUpAt: time.NewTimer(time.Hour), openAt: time.NewTimer(0),
	}
	l.giveUpAt.Stop()
	if f.cfg.Mode == FollowPoll {
		l.openAt.Stop()
	} else {
		l.pollAt.Stop() // first see whether there is a tail to poll beside
	}
	return l
}

// start runs a request beside the loop; the loop's end waits for it.
func (l *followLoop) start(f func()) { l.running.Go(f) }

func (l *followLoop) run() {
	ends := time.NewTicker(currentEvery)
	defer ends.Stop()
	shares := time.NewTicker(l.cfg.Interval)
	defer shares.Stop()
	l.startShares()
	for l.ctx.Err() == nil {
		var fetches chan kgo.Fetches
		if l.tail != nil {
			fetches = l.tail.fetches
		}
		select {
		case <-l.ctx.Done():
			return
		case f, ok := <-fetches:
			if ok {
				l.read(f)
			} else if l.ctx.Err() == nil {
				l.closeTail(errors.New("the client was closed"))
			}
		case <-ends.C:
			l.askEnds()
		case a := <-l.ends:
			l.asking = false
			l.tookEnds(a)
		case <-l.pollAt.C:
			l.startPoll()
		case j := <-l.polls:
			l.polling = false
			l.tookPoll(j)
		case <-l.giveUpAt.C:
			l.judge(true)
		case j := <-l.confirms:
			l.confirming = false
			l.confirmed(j)
		case <-l.openAt.C:
			l.openTail()
		case o := <-l.opened:
			l.opening = false
			l.tookTail(o)
		case <-shares.C:
			l.startShares()
		case s := <-l.shares:
			l.sharing = false
			l.tookShares(s)
		}
		l.say()
	}
}

func (l *followLoop) close() {
	if l.tail != nil {
		l.tail.close()
	}
	l.running.Wait()
	select {
	case o := <-l.opened:
		if o.tail != nil {
			o.tail.close()
		}
	default:
	}
}

// say tells the sink how commits are followed, if that has changed.
func (l *followLoop) say() {
	mode, reason := FollowPoll, ""
	if l.tail != nil && l.blind == "" {
		mode = FollowTail
	}
	switch {
	case l.blind != "":
		reason = l.blind
	case l.tail == nil && l.noTail != nil && !errors.Is(l.noTail, errNoOffsetsTopic):
		reason = l.noTail.Error()
	case l.noPoll != nil:
		reason = l.noPoll.Error()
	case l.noEnds != nil:
		reason = l.noEnds.Error()
	case l.stuck != "":
		reason = l.stuck
	}
	if l.tail == nil && l.opening && l.mode == "" {
		return // not decided yet
	}
	if mode == l.mode && reason == l.reason {
		return
	}
	l.mode, l.reason = mode, reason
	log := l.log.Info
	if reason != "" && (l.cfg.Mode == FollowTail || l.tail != nil || l.noPoll != nil) {
		log = l.log.Warn
	}
	log("following commits", zap.String("mode", mode), zap.String("reason", reason))
	l.sink.Following(mode, reason)
}

func (l *followLoop) sayCurrent(asOf time.Time) {
	if asOf.After(l.current) {
		l.current = asOf
		l.sink.Current(asOf)
	}
}

// add puts a commit into the batch; flush hands the batch on.
func (l *followLoop) add(c Commit) { l.batch = append(l.batch, c) }

func (l *followLoop) flush() {
	if len(l.batch) == 0 {
		return
	}
	n := int64(len(l.batch))
	l.count(func(s *FollowStats) { s.Commits += n })
	l.sink.Commits(l.batch)
	clear(l.batch)
	l.batch = l.batch[:0]
	if cap(l.batch) > 1<<16 { // a snapshot's
		l.batch = nil
	}
}

// counts tells whether commits of a group on a topic count.
func (l *followLoop) counts(group, topic string) bool {
	return remembered(l.wanted, group, l.cfg.Group) && remembered(l.copied, topic, l.cfg.Topic) && !l.others[group]
}

func remembered(said map[string]bool, name string, ask func(string) bool) bool {
	yes, ok := said[name]
	if !ok {
		yes = ask(name)
		said[name] = yes
	}
	return yes
}

// The tail.

func (l *followLoop) openTail() {
	if l.opening || l.tail != nil {
		return
	}
	l.opening = true
	l.start(func() {
		t, err := openTail(l.ctx, l.cfg.Cluster)
		l.opened <- openedTail{t, err}
	})
}

func (l *followLoop) tookTail(o openedTail) {
	l.noTail = o.err
	if o.err != nil {
		l.openAt.Reset(l.cfg.Retry)
		if l.mode == "" {
			l.pollAt.Reset(0)
		}
		return
	}
	l.tail, l.complete, l.blind, l.stuck, l.asked, l.noEnds = o.tail, 0, "", "", nil, nil
	l.count(func(s *FollowStats) { s.Tails++ })
	l.waiting = nil // began before the tail
	l.giveUpAt.Stop()
	l.pollAt.Reset(0)
}

func (l *followLoop) closeTail(err error) {
	l.tail.close()
	l.tail, l.asked, l.noTail, l.blind, l.stuck, l.noEnds = nil, nil, err, "", "", nil
	l.waiting = nil
	l.giveUpAt.Stop()
	l.openAt.Reset(l.cfg.Retry)
	l.pollAt.Reset(0)
}

// read takes in what the tail fetched.
func (l *followLoop) read(fetches kgo.Fetches) {
	var failed error
	fetches.EachError(func(_ string, p int32, err error) {
		if failed == nil && !errors.Is(err, context.Canceled) {
			failed = fmt.Errorf("partition %d: %w", p, err)
		}
	})
	var records int64
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		part := l.tail.parts[ftp.Partition]
		if part == nil {
			return
		}
		records += int64(len(ftp.Records))
		for _, r := range ftp.Records {
			l.readRecord(part, r)
		}
		if part.hold > 0 && part.next >= part.hold {
			for _, c := range part.held {
				l.book.tail(&c)
				l.add(c)
			}
			part.hold, part.held = 0, nil
		}
	})
	if records > 0 {
		l.count(func(s *FollowStats) { s.Records += records })
	}
	l.flush()
	if failed != nil {
		l.closeTail(tailError(l.cfg.Cluster, failed))
		return
	}
	l.reached()
	l.judge(false)
}

func (l *followLoop) readRecord(part *tailPart, r *kgo.Record) {
	below := r.Offset < part.hold
	if !below && part.held != nil { // the end of what was held, and more
		for _, c := range part.held {
			l.book.tail(&c)
			l.add(c)
		}
		part.hold, part.held = 0, nil
	}
	part.next = r.Offset + 1
	if r.Attrs.IsControl() {
		return
	}
	c, err := decodeCommit(r.Key, r.Value)
	switch {
	case errors.Is(err, errNotCommit):
		return
	case err != nil:
		l.count(func(s *FollowStats) { s.Undecodable++ })
		if l.blind == "" {
			l.blind = fmt.Sprintf("partition %d of topic %s of cluster %s, offset %d: %v: groups are polled instead", r.Partition, offsetsTopic, l.cfg.Cluster.Alias(), r.Offset, err)
			l.pollAt.Reset(0)
		}
		return
	case !l.counts(c.Group, c.Lane.Topic):
		return
	}
	if c.Deleted {
		c.Time = r.Timestamp
	}
	if below {
		if part.held == nil {
			part.held = map[Key]Commit{}
		}
		part.held[c.Key] = c
		return
	}
	l.book.tail(&c)
	l.add(c)
}

// askEnds asks where the tail has to get to, if it is not on its way already.
func (l *followLoop) askEnds() {
	if l.tail == nil || l.asking {
		return
	}
	if l.asked != nil {
		if p, behind := l.tail.behind(l.asked.ends); behind && time.Since(l.asked.asOf) > patience && l.stuck == "" {
			l.stuck = fmt.Sprintf("partition %d of topic %s of cluster %s cannot be read beyond offset %d, its end is %d: a transaction may be open: its groups are polled instead",
				p, offsetsTopic, l.cfg.Cluster.Alias(), l.tail.parts[p].next, l.asked.ends[p])
			l.pollAt.Reset(0)
		}
		return
	}
	l.asking = true
	t := l.tail
	l.start(func() {
		a := &asked{tail: t, asOf: time.Now()}
		ctx, cancel := context.WithTimeout(l.ctx, l.poll.timeout)
		defer cancel()
		a.ends, a.err = t.ends(ctx)
		l.ends <- a
	})
}

func (l *followLoop) tookEnds(a *asked) {
	if l.tail == nil || l.tail != a.tail || l.ctx.Err() != nil {
		return
	}
	if l.noEnds = a.err; a.err != nil {
		if notAuthorized(a.err) || len(a.ends) > len(l.tail.parts) {
			l.closeTail(a.err)
		}
		return
	}
	l.asked = a
	l.reached()
}

// reached looks whether the tail has got to the ends asked for.
func (l *followLoop) reached() {
	if l.asked == nil || l.tail == nil {
		return
	}
	if _, behind := l.tail.behind(l.asked.ends); behind {
		return
	}
	if l.complete >= settlingPolls && l.blind == "" {
		l.sayCurrent(l.asked.asOf)
	}
	l.asked, l.stuck = nil, ""
}

// Polls.

func (l *followLoop) startPoll() {
	if l.polling || l.confirming || l.waiting != nil {
		l.pollAt.Reset(l.cfg.Interval)
		return
	}
	l.polling = true
	clear(l.wanted)
	clear(l.copied)
	t := l.tail
	l.start(func() {
		j := &judging{polled: l.poll.poll(l.ctx), tail: t}
		if t != nil {
			ctx, cancel := context.WithTimeout(l.ctx, l.poll.timeout)
			defer cancel()
			ends, err := t.ends(ctx)
			if err != nil {
				j.fail(err)
			}
			j.ends = ends
		}
		l.polls <- j
	})
}

func (l *followLoop) tookPoll(j *judging) {
	if l.ctx.Err() != nil {
		return
	}
	if j.tail != l.tail {
		l.pollAt.Reset(0)
		return
	}
	l.waiting, l.others = j, j.others
	switch {
	case l.tail == nil || l.complete == 0: // the first is not worth waiting for
		l.judge(true)
	default:
		l.giveUpAt.Reset(patience)
		l.judge(false)
	}
}

// judge takes a poll into the book when the tail has read all that the poll
// may have seen, or when that takes too long.
func (l *followLoop) judge(now bool) {
	j := l.waiting
	if j == nil {
		return
	}
	if l.tail != nil && !now {
		if _, behind := l.tail.behind(j.ends); behind {
			return
		}
	}
	l.waiting = nil
	l.giveUpAt.Stop()
	if l.tail != nil {
		l.tail.keepBack(j.ends)
	}
	l.findMissing(j, l.judgeAnswers(j, j.polled))
	l.flush()
	if len(j.missing) == 0 {
		l.judged(j)
		return
	}
	l.confirming = true
	l.start(func() {
		j.again = l.poll.confirm(l.ctx, j.missing)
		l.confirms <- j
	})
}

// judgeAnswers takes in the commits that were read, and says of which keys
// something was read, be it an error.
func (l *followLoop) judgeAnswers(j *judging, p *polled) map[Key]bool {
	seen := map[Key]bool{}
	for _, g := range p.groups {
		for _, t := range g.Topics {
			if t.Topic == "" {
				j.fail(fmt.Errorf("fetch offsets of group %s of cluster %s: topic id %x has no name here yet", g.Group, l.cfg.Cluster.Alias(), t.TopicID))
				continue
			}
			if !l.counts(g.Group, t.Topic) {
				continue
			}
			for _, a := range t.Partitions {
				c := Commit{
					Key:    Key{Group: g.Group, Type: Consumer, Lane: offsets.Lane{Topic: t.Topic, Partition: a.Partition}},
					Offset: a.Offset, LeaderEpoch: max(a.LeaderEpoch, -1), Time: p.began,
				}
				if err := kerr.ErrorForCode(a.ErrorCode); err != nil {
					j.fail(fmt.Errorf("fetch offset of group %s on %v of cluster %s: %w", g.Group, c.Lane, l.cfg.Cluster.Alias(), err))
					seen[c.Key] = true
					continue
				}
				if a.Offset < 0 {
					continue // none
				}
				if a.Metadata != nil {
					c.Metadata = *a.Metadata
				}
				seen[c.Key] = true
				l.ruled(j, &c, l.book.polled(&c, p.began))
			}
		}
	}
	return seen
}

// ruled acts on a verdict.
func (l *followLoop) ruled(j *judging, c *Commit, v verdict) {
	if v == same {
		return
	}
	read := l.tail != nil && l.tail.hasRead(c.Group, j.ends)
	if v == aside {
		j.unsure = j.unsure || !read
		return
	}
	l.add(*c)
	// What a group that could not be seen before has committed may be old.
	if read && l.complete >= settlingPolls && l.blind == "" && l.listed[c.Group] {
		l.count(func(s *FollowStats) { s.Missed++ })
		l.log.Error("the tail missed a commit that a poll found", zap.String("group", c.Group), zap.Stringer("partition", c.Lane),
			zap.Bool("deleted", c.Deleted), zap.Int64("offset", c.Offset))
	}
}

// findMissing looks for what is known and was not read.
func (l *followLoop) findMissing(j *judging, seen map[Key]bool) {
	for k, lanes := range l.book.groups {
		if k.gtype != Consumer || j.failed[k.name] {
			continue
		}
		for lane, e := range lanes {
			key := Key{Group: k.name, Lane: lane}
			switch {
			case seen[key]:
			case !l.counts(k.name, lane.Topic):
				l.book.drop(k, lane)
			case e.deleted || e.standsAgainst(j.began):
				l.ruled(j, &Commit{Key: key}, l.book.gone(key, j.began))
			default:
				if j.missing == nil {
					j.missing = map[string]map[string][]int32{}
				}
				if j.missing[k.name] == nil {
					j.missing[k.name] = map[string][]int32{}
				}
				j.missing[k.name][lane.Topic] = append(j.missing[k.name][lane.Topic], lane.Partition)
			}
		}
	}
}

// confirmed takes in what became of the missing.
func (l *followLoop) confirmed(j *judging) {
	if l.ctx.Err() != nil {
		return
	}
	if j.tail != l.tail {
		l.pollAt.Reset(0)
		return
	}
	seen := l.judgeAnswers(j, j.again)
	if j.again.problem != nil {
		j.fail(j.again.problem)
	}
	for group, topics := range j.missing {
		if j.again.failed[group] {
			continue
		}
		for topic, partitions := range topics {
			for _, p := range partitions {
				key := Key{Group: group, Lane: offsets.Lane{Topic: topic, Partition: p}}
				if !seen[key] {
					l.ruled(j, new(deletion(key, j.again.began)), l.book.gone(key, j.again.began))
				}
			}
		}
	}
	l.flush()
	l.judged(j)
}

// judged ends a poll.
func (l *followLoop) judged(j *judging) {
	l.count(func(s *FollowStats) { s.Polls++ })
	l.noPoll = j.problem
	if j.problem == nil {
		l.complete++
		if !j.unsure {
			l.sayCurrent(j.began)
		}
	}
	l.sayNone(j)
	l.listed = j.listed
	if l.tail != nil && l.complete >= settlingPolls && j.problem == nil && l.blind == "" && l.stuck == "" && !l.noGroups {
		l.pollAt.Reset(l.cfg.Safety)
	} else {
		l.pollAt.Reset(l.cfg.Interval)
	}
}

// sayNone says when no group is seen at all, because a broker leaves out of its
// list what may not be seen.
func (l *followLoop) sayNone(j *judging) {
	if j.problem != nil || len(j.listed) > 0 {
		l.noGroups = l.noGroups && len(j.listed) == 0
		return
	}
	if !l.noGroups {
		l.log.Info("no group is seen that should be followed: if there are any, grant DESCRIBE on group NAME of cluster " + l.cfg.Cluster.Alias() + " for each, or by a prefix")
	}
	l.noGroups = true
}

// deletion tells that a key is gone.
func deletion(k Key, at time.Time) Commit {
	return Commit{Key: k, Deleted: true, LeaderEpoch: -1, Time: at}
}

// Share groups.

func (l *followLoop) startShares() {
	if !l.cfg.Shares || l.sharing {
		return
	}
	l.sharing = true
	var known []string
	for k := range l.book.groups {
		if k.gtype == Share {
			known = append(known, k.name)
		}
	}
	l.start(func() {
		ctx, cancel := context.WithTimeout(l.ctx, l.poll.timeout)
		defer cancel()
		s, err := pollShares(ctx, l.cfg.Cluster, known, l.cfg.Group, l.cfg.Topic)
		if err != nil {
			s = &shareOffsets{err: err}
		}
		l.shares <- s
	})
}

func (l *followLoop) tookShares(s *shareOffsets) {
	if s.err != nil {
		if !l.noShares && l.ctx.Err() == nil {
			l.noShares = true
			l.log.Debug("share groups are not followed", zap.Error(s.err))
		}
		return
	}
	seen := map[Key]bool{}
	for _, c := range s.commits {
		seen[c.Key] = true
		if l.book.polled(&c, s.began) == news {
			l.add(c)
		}
	}
	for k, lanes := range l.book.groups {
		if k.gtype != Share || !s.asked[k.name] {
			continue
		}
		for lane := range lanes {
			key := Key{Group: k.name, Type: Share, Lane: lane}
			if !seen[key] && l.book.gone(key, s.began) == news {
				l.add(deletion(key, s.began))
			}
		}
	}
	l.flush()
}
