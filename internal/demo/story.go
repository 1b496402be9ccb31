package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"replicator/internal/pause"
	"replicator/internal/status"
	"replicator/internal/words"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
)

// story is what happened that the proof is about.
type story struct {
	kills    int  // of the daemon
	lost     bool // east was killed
	failover *result
	failback *result
	back     *result // the switchover at the end

	fence    []evidence.FenceDoc // of the failover
	tried    int                 // lanes of the woken daemon whose appends were refused
	closed   bool                // it stopped
	resumes  []resume            // of the group on west
	estimate evidence.LossDoc
	stranded []evidence.StrandedRow
}

// resume is where the group went on in one partition of west.
type resume struct {
	lane    lane
	source  int64 // its offset in east, as it was known in west
	target  int64
	outcome string
	// expected is the first record behind source that was copied; false: it had read
	// all of the copy.
	expected     key
	has          bool
	expectedFrom int64
	got          firstRecord
}

func (r resume) right() bool {
	if r.has {
		return r.got.key == r.expected
	}
	return r.got.offset >= r.target
}

// storyTime is about how long the story takes beyond the time in which all is well.
const storyTime = 17 * time.Second

// play is everything between the first record and the last.
func (d *demo) play(ctx context.Context) error {
	d.screen.begin(d.opts.Duration + storyTime)
	for _, part := range []func(context.Context) error{d.peace, d.loss, d.takeover, d.wake, d.comeback, d.wayBack, d.end} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// peace: east is written and read, the daemon copies, is killed once, and goes on.
func (d *demo) peace(ctx context.Context) error {
	if _, err := d.command(ctx, "authority", "init", "--region", d.east.name, "--yes"); err != nil {
		return err
	}
	if err := d.daemon.start(ctx); err != nil {
		return err
	}
	d.screen.event("the daemon (pid %d, %s/status) copies east->west; its link west->east is closed", d.daemon.pid(), d.daemon.url())
	for _, kind := range []string{writersSign, readersSign} {
		if err := d.signs.tell(kind, d.east.name); err != nil {
			return err
		}
	}
	if err := d.caughtUp(ctx, d.east, d.west); err != nil {
		return err
	}
	d.screen.event("producers write to east, group %s processes there, all %d partitions are copied", groupName, partitions())
	if err := pause.For(ctx, d.opts.Duration/2); err != nil {
		return err
	}
	pid := d.daemon.pid()
	if err := d.daemon.kill(); err != nil {
		return err
	}
	d.story.kills++
	d.screen.alarm("kill -9 of the daemon (pid %d), which is started again", pid)
	killed := time.Now()
	if err := d.daemon.start(ctx); err != nil {
		return err
	}
	if err := d.caughtUp(ctx, d.east, d.west); err != nil {
		return err
	}
	d.screen.event("it goes on where the target says it was: all partitions copied again %.1f s after the kill", time.Since(killed).Seconds())
	return pause.For(ctx, d.opts.Duration/2)
}

// loss: the daemon freezes with batches in flight, then the region dies.
func (d *demo) loss(ctx context.Context) error {
	if err := d.daemon.freeze(); err != nil {
		return err
	}
	d.screen.alarm("the daemon (pid %d) is frozen with batches in flight (SIGSTOP); producers go on", d.daemon.pid())
	if err := pause.For(ctx, time.Second); err != nil {
		return err
	}
	pid := d.east.pid()
	if err := d.east.kill(); err != nil {
		return err
	}
	d.story.lost = true
	d.screen.alarm("region east is lost (kill -9 of its brokers, pid %d)", pid)
	return pause.For(ctx, time.Second)
}

// takeover: west becomes authoritative, and the group goes on there.
func (d *demo) takeover(ctx context.Context) error {
	r, err := d.change(ctx, "failover", "--to", d.west.name, "--accept-loss", "--why", "east is dark")
	if err != nil {
		return err
	}
	s := &d.story
	s.failover = r
	if s.fence, err = document[evidence.FenceDoc](r, evidence.KindFence, ""); err != nil {
		return err
	}
	losses, err := document[evidence.LossDoc](r, evidence.KindLoss, "")
	if err != nil {
		return err
	}
	for _, l := range losses {
		if !l.Actual {
			s.estimate.Rows = append(s.estimate.Rows, l.Rows...)
		}
	}
	d.screen.event("lost, as estimated from west alone: %s", between(s.estimate))
	err = d.consumer.await(ctx, func() bool {
		region, first := d.consumer.stay()
		return region == d.west.name && len(first) == partitions()
	})
	if err != nil {
		return err
	}
	if s.resumes, err = d.resumed(r); err != nil {
		return err
	}
	exact := 0
	for _, r := range s.resumes {
		if r.has && r.right() {
			exact++
		}
	}
	d.screen.event("producers write to west; group %s goes on there, in %d of %d partitions at the very record that was next in east%s",
		groupName, exact, len(s.resumes), others(exact, len(s.resumes)))
	for _, r := range s.resumes {
		if r.has {
			d.screen.event("such as %s-%d: offset %s in east is %s in west; next record expected: %s, next record read: %s", r.lane.topic, r.lane.partition,
				words.Number(r.source), words.Number(r.target), r.expected, r.got.key)
			break
		}
	}
	return nil
}

// others says why there was no record to compare in the other partitions.
func others(exact, all int) string {
	if exact == all {
		return ""
	}
	return "; in the others it had read all that was copied"
}

// String names a record for people.
func (k key) String() string { return fmt.Sprintf("%s #%d", topics[k.topic].name, k.number) }

// between says between what numbers a loss is estimated.
func between(d evidence.LossDoc) string {
	least, most, _ := d.Between()
	return words.Between(least, most, "record")
}

// resumed compares where the group went on with where it should have.
func (d *demo) resumed(r *result) ([]resume, error) {
	groups, err := document[evidence.GroupsDoc](r, evidence.KindGroups, "")
	if err != nil {
		return nil, err
	}
	lanes, err := document[evidence.LanesDoc](r, evidence.KindLanes, "")
	if err != nil {
		return nil, err
	}
	copied := map[lane]int64{} // next source offset that was not
	for _, doc := range lanes {
		for _, l := range doc {
			copied[lane{l.Topic, l.Partition}] = l.Position
		}
	}
	_, first := d.consumer.stay()
	var out []resume
	for _, doc := range groups {
		for _, g := range doc {
			if g.Group != groupName || g.Source == nil || g.Target == nil {
				continue
			}
			l := lane{g.Topic, g.Partition}
			out = append(out, resume{lane: l, source: *g.Source, target: *g.Target, outcome: g.Outcome, got: first[l]})
		}
	}
	// What east had behind the offset is known from its producers: east is gone.
	d.ledger.each(func(k key, e entry) {
		if !e.acked || e.region != d.east.name {
			return
		}
		for i := range out {
			r := &out[i]
			if topics[k.topic].name != r.lane.topic || e.at.partition != r.lane.partition || e.at.offset < r.source || e.at.offset >= copied[r.lane] {
				continue
			}
			if !r.has || e.at.offset < r.expectedFrom {
				r.expected, r.has, r.expectedFrom = k, true, e.at.offset
			}
		}
	})
	return out, nil
}

// wake: the frozen daemon goes on with what it had in flight.
func (d *demo) wake(ctx context.Context) error {
	if err := d.daemon.thaw(); err != nil {
		return err
	}
	d.screen.alarm("the frozen daemon is woken: it still holds batches of east")
	s, err := d.until(ctx, "the woken daemon to stop copying to west", func(s status.Status) bool {
		l := linkOf(s, d.east, d.west)
		return l != nil && l.State == mirror.LinkClosed
	})
	if err != nil {
		return err
	}
	l := linkOf(s, d.east, d.west)
	d.story.closed = true
	d.story.tried = int(l.EventCounts[mirror.EventFenced])
	d.screen.event("west's brokers refused its appends in %d partitions; it has read the authority record and closed its link, whose fence it guards now", d.story.tried)
	return nil
}

// comeback: east returns with records nobody has copied.
func (d *demo) comeback(ctx context.Context) error {
	if err := pause.For(ctx, time.Second); err != nil {
		return err
	}
	if err := d.east.start(ctx); err != nil {
		return err
	}
	d.screen.alarm("region east is back (pid %d) with what its brokers had written", d.east.pid())
	r, err := d.change(ctx, "failback", "run", "--from", d.east.name, "--stranded", "replay")
	if err != nil {
		return err
	}
	s := &d.story
	s.failback = r
	docs, err := document[evidence.StrandedDoc](r, evidence.KindStranded, "stranded")
	if err != nil {
		return err
	}
	var n int64
	for _, doc := range docs {
		for _, row := range doc.Rows {
			s.stranded = append(s.stranded, row)
			n += row.Records
		}
	}
	d.screen.event("%s records were stranded in east (estimated: %s): appended to west, marked by headers", words.Number(n), between(s.estimate))
	if err := d.caughtUp(ctx, d.west, d.east); err != nil {
		return err
	}
	d.screen.event("the link west->east copies the difference: all partitions have caught up")
	return nil
}

// wayBack: a planned switchover to east.
func (d *demo) wayBack(ctx context.Context) error {
	if d.opts.Quick {
		return nil
	}
	if err := d.passes(ctx, "switchover", "--to", d.east.name, "--dry-run"); err != nil {
		return err
	}
	r, err := d.change(ctx, "switchover", "--to", d.east.name, "--why", "east is well again")
	if err != nil {
		return err
	}
	d.story.back = r
	if r.Outcome.WritersFencedSeconds != nil {
		d.screen.event("no region took writes for %.1f s; producers and group are back in east", *r.Outcome.WritersFencedSeconds)
	}
	err = d.consumer.await(ctx, func() bool {
		region, first := d.consumer.stay()
		return region == d.east.name && len(first) == partitions()
	})
	if err != nil {
		return err
	}
	return pause.For(ctx, time.Second)
}

// end stops the producers and waits until everything is processed and copied.
func (d *demo) end(ctx context.Context) error {
	if err := d.signs.tell(writersSign, "none"); err != nil {
		return err
	}
	if err := d.quiet(ctx); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// What is missing then, the proof names.
	err := d.consumer.await(waiting, func() bool { return d.unprocessed() == 0 })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		d.screen.event("producers have ended; all %s acknowledged records are processed", words.Number(d.ledger.acknowledged()))
	}
	from, to := d.east, d.west
	if d.opts.Quick {
		from, to = d.west, d.east
	}
	return d.caughtUp(ctx, from, to)
}

// quiet waits until no producer is at work.
func (d *demo) quiet(ctx context.Context) error {
	for {
		region, _ := d.signs.now(writersSign)
		d.signs.mu.Lock()
		busy := d.signs.working[writersSign]
		d.signs.mu.Unlock()
		if region == "none" && busy == 0 {
			return nil
		}
		if err := pause.For(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// unprocessed is how many acknowledged records nobody processed.
func (d *demo) unprocessed() (n int64) {
	d.consumer.mu.Lock()
	defer d.consumer.mu.Unlock()
	d.ledger.each(func(k key, e entry) {
		if e.acked && len(d.consumer.visits[k]) == 0 {
			n++
		}
	})
	return n
}

// caughtUp waits until a link's every lane is open and stands where its source ended
// at a moment, or behind.
func (d *demo) caughtUp(ctx context.Context, from, to *region) error {
	var ends map[lane]int64
	_, err := d.until(ctx, fmt.Sprintf("%s->%s to catch up", from.name, to.name), func(s status.Status) bool {
		l := linkOf(s, from, to)
		if l == nil || l.LaneStates[mirror.LaneCopying] != partitions() {
			return false
		}
		if ends == nil {
			var err error
			if ends, err = from.ends(ctx); err != nil {
				return false
			}
		}
		for _, ln := range l.Lanes {
			if ln.Position < ends[lane{ln.Topic, ln.Partition}] {
				return false
			}
		}
		return true
	})
	return err
}

// until asks the daemon for its status until it is as wanted.
func (d *demo) until(ctx context.Context, what string, ok func(status.Status) bool) (status.Status, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, 20*time.Second, fmt.Errorf("waited 20 s for %s", what))
	defer cancel()
	var last status.Status
	for {
		if s, answered := d.daemon.ask(waiting); answered {
			if last = s; ok(s) {
				return s, nil
			}
		}
		if err := pause.For(waiting, 50*time.Millisecond); err != nil {
			p := d.daemon.current()
			if p == nil || ctx.Err() != nil {
				return last, err
			}
			said := []string{err.Error()}
			for _, l := range last.Links {
				said = append(said, fmt.Sprintf("%s: %s %s %v", l.Name, l.State, l.Reason, l.LaneStates))
			}
			return last, errors.New(strings.Join(append(said, p.log.tail()), "\n"))
		}
	}
}

func linkOf(s status.Status, from, to *region) *status.Link {
	for i := range s.Links {
		if s.Links[i].Source == from.name && s.Links[i].Target == to.name {
			return &s.Links[i]
		}
	}
	return nil
}
