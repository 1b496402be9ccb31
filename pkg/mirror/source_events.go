package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/pkg/offsets"
)

// fetchRefused decides what an error of a fetch means for its lane. The fetcher
// has let go of the lane; whatever is decided here starts its fetch again.
func (l *Link) fetchRefused(ln *lane, fl *fetchedLane) {
	if fl.diverging {
		l.truncated(ln, fl.divergingEnd, fmt.Sprintf("leader epoch %d ends there", fl.divergingEpoch))
		return
	}
	if fl.errorCode == 0 { // a replica nearer to us serves reads
		ln.nearBroker, ln.nearUntil = fl.preferred, time.Now().Add(nearFor)
		l.startFetch(ln)
		return
	}
	err := kerr.ErrorForCode(fl.errorCode)
	if ln.nearBroker >= 0 {
		// A replica that follows may lag or be gone: only the leader's word counts.
		ln.nearBroker, ln.nearUntil = -1, time.Now().Add(nearFor)
		l.fetchAgain(ln, time.Second)
		return
	}
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		l.outOfRange(ln)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		ln.reason = fmt.Sprintf("read source: %v; grant READ on topic %s of cluster %s", err, ln.key.Topic, l.opts.From)
		l.fail("authorization", errors.New(ln.key.String()+": "+ln.reason))
		l.fetchAgain(ln, 5*time.Second)
	default:
		// A leader that moved, a topic that is gone or new: the topology says.
		l.errors["fetch"]++
		l.log.Info("fetch refused", zap.Stringer("lane", ln.key), zap.Error(err))
		l.refreshSoon()
		l.fetchAgain(ln, time.Second)
	}
}

// nearFor is how long a preferred replica is used, or left alone after it failed,
// before the leader is asked again.
const nearFor = 5 * time.Minute

// fetchAgain starts the lane's fetch after wait, unless something else did.
func (l *Link) fetchAgain(ln *lane, wait time.Duration) {
	gen := ln.generation
	l.later(time.Now().Add(wait), func() {
		if ln.generation == gen {
			l.startFetch(ln)
		}
	})
}

// outOfRange asks the source's leader twice, a second apart, where its log
// starts and ends: one answer may come from a replica that lags.
func (l *Link) outOfRange(ln *lane) {
	ln.fetchHeld = true
	gen, at := ln.generation, ln.fetched
	l.spawn(func(ctx context.Context) {
		start, end, err := l.sourceRange(ctx, ln.key)
		if err == nil && pause.For(ctx, time.Second) == nil {
			var start2, end2 int64
			start2, end2, err = l.sourceRange(ctx, ln.key)
			start, end = min(start, start2), max(end, end2)
		}
		l.inbox.post(func() {
			if ln.generation != gen || !ln.open() {
				return
			}
			ln.fetchHeld = false
			if err == nil && start > ln.verify {
				ln.verify, ln.check = -1, nil // retention took what would be compared
			}
			switch {
			case err != nil:
				l.fail("fetch", fmt.Errorf("list offsets of source %s: %w", ln.key, err))
				l.refreshSoon()
				l.fetchAgain(ln, time.Second)
			case start > at:
				l.gap(ln, start)
			case end < at:
				l.truncated(ln, end, "its log ends there")
			default:
				l.fetchAgain(ln, 100*time.Millisecond)
			}
		})
	})
}

func (l *Link) sourceRange(ctx context.Context, key offsets.Lane) (start, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	one := func(list func(context.Context, ...string) (kadm.ListedOffsets, error)) (int64, error) {
		listed, err := list(ctx, key.Topic)
		if err != nil {
			return 0, err
		}
		at, ok := listed.Lookup(key.Topic, key.Partition)
		if !ok {
			return 0, errors.New("partition missing in the answer")
		}
		return at.Offset, at.Err
	}
	if start, err = one(l.source.Admin().ListStartOffsets); err == nil {
		end, err = one(l.source.Admin().ListEndOffsets)
	}
	return start, end, err
}

// gap passes source offsets that retention removed before they were copied: the
// journal says so first, and it is loud.
func (l *Link) gap(ln *lane, start int64) {
	from := ln.fetched
	detail := fmt.Sprintf("source offsets %d to %d (%d) were removed before they could be copied", from, start-1, start-from)
	l.event(EventGap, ln, detail)
	if l.opts.OnGap == Halt {
		l.halt(ln, detail+": on_gap is halt")
		return
	}
	ln.fetchHeld = true
	gen := ln.generation
	l.journal.Append(func(err error) {
		l.inbox.post(func() {
			if ln.generation != gen || !ln.open() {
				return
			}
			ln.fetchHeld = false
			if err != nil {
				l.doubt(ln, "journal", err, 0)
				return
			}
			ln.chain.push(item{route: Skip, reason: GapReason, next: start, leaderEpoch: -1, count: int32(min(start-from, 1<<31-1))})
			ln.fetched, ln.fetchEpoch = start, -1
			l.offer(ln)
			l.startFetch(ln)
		})
	}, offsets.Gap{Lane: ln.key, Writer: ln.writer, From: from, To: start, Reason: "retention", Time: time.Now()})
}

// truncated is a source that lost records which were already copied, an unclean
// election most likely: what the target holds above end exists nowhere else.
func (l *Link) truncated(ln *lane, end int64, why string) {
	detail := fmt.Sprintf("source log was truncated to offset %d (%s): the target holds its old records up to offset %d, %d offsets", end, why, ln.fetched-1, ln.fetched-end)
	l.event(EventTruncation, ln, detail)
	if l.opts.OnTruncation == Halt {
		l.halt(ln, detail+": set on_truncation to follow to go on with what the source holds now")
		return
	}
	// Follow: what was copied stays on the target; go on with the new records.
	// Within an epoch source offsets only grow, so this takes a new one.
	ln.follow = end
	l.doubt(ln, "truncation", errors.New(detail), 0)
}

// refused is a record the lane can never pass.
func (l *Link) refused(ln *lane, it *item) {
	l.count(it)
	detail := it.err.Error() + l.refusedHint(ln, it, it.err)
	l.event(EventRefused, ln, detail)
	l.halt(ln, detail)
}

// fetcherFailed notes a lost connection to a source broker; the fetcher tries again.
func (l *Link) fetcherFailed(f *fetcher, err error) {
	if err == nil {
		err = errors.New("connection closed")
	}
	l.fail("fetch", fmt.Errorf("source broker %d: %w", f.broker, err))
	l.refreshSoon()
	for ln := range f.lanes { // those it served in the leader's place go back to the leader
		if ln.nearBroker == f.broker {
			ln.nearBroker = -1
			l.stopFetch(ln)
			l.startFetch(ln)
		}
	}
}

// hangingAfter is how long the source's last stable offset may stand still below
// its end before a transaction counts as hanging: the broker's largest
// transaction time-out.
const hangingAfter = 15 * time.Minute

// housekeepLanes is how many lanes' journal entries are looked at in a second.
const housekeepLanes = 20

// housekeep keeps the journal short: positions of earlier holders go, small
// chunks of spans are merged, epochs the source has no records of any more are
// trimmed. What replaces an entry is acknowledged before the entry is deleted.
func (l *Link) housekeep() {
	if len(l.toKeep) == 0 {
		l.toKeep = slices.Collect(maps.Keys(l.lanes))
	}
	for range min(housekeepLanes, len(l.toKeep)) {
		ln := l.lanes[l.toKeep[0]]
		l.toKeep = l.toKeep[1:]
		if ln == nil || !ln.open() || !ln.validated || ln.keeping {
			continue
		}
		write, remove := l.journal.Compacted(ln.key, max(0, ln.sourceStart))
		if len(write)+len(remove) == 0 {
			continue
		}
		ln.keeping = true
		done := func(err error) {
			l.inbox.post(func() {
				ln.keeping = false
				if err != nil {
					l.errors["journal"]++
				}
			})
		}
		if len(write) > 0 {
			l.journal.Append(func(err error) {
				if err != nil || len(remove) == 0 {
					done(err)
					return
				}
				l.journal.Append(done, remove...)
			}, write...)
		} else {
			l.journal.Append(done, remove...)
		}
	}
}

// watch does what is done for every lane once a second.
func (l *Link) watch(ln *lane) {
	if ln.open() && ln.validated && ln.epochAt.since() > ln.reopenAfter {
		l.doubt(ln, "reopen", errEpochAge, 0)
		return
	}
	if ln.sourceStable >= 0 && ln.sourceStable < ln.sourceEnd && !ln.stuckSince.IsZero() && time.Since(ln.stuckSince) > hangingAfter {
		ln.stuckSince = time.Now()
		l.event(EventHanging, ln, fmt.Sprintf("a transaction on the source stays open: last stable offset %d, end %d; find its producer with kafka-transactions.sh find-hanging", ln.sourceStable, ln.sourceEnd))
	}
	if ln.nearBroker >= 0 && time.Now().After(ln.nearUntil) && ln.open() && !ln.fetchHeld {
		ln.nearBroker = -1
		l.stopFetch(ln)
		l.startFetch(ln)
	}
}

const commitEvery = 5 * time.Second

// commitPositions offers the lanes' positions to the source's group.
func (l *Link) commitPositions() {
	var positions []kmsg.OffsetCommitRequestTopic
	at := map[string]int{}
	for key, ln := range l.lanes {
		if ln.position < 0 || ln.position == ln.committed || !ln.open() {
			continue
		}
		ln.committed = ln.position
		i, ok := at[key.Topic]
		if !ok {
			i = len(positions)
			at[key.Topic] = i
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic, t.TopicID = key.Topic, ln.sourceID
			positions = append(positions, t)
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = key.Partition, ln.position
		positions[i].Partitions = append(positions[i].Partitions, p)
	}
	if len(positions) > 0 {
		l.member.commit(positions)
	}
}
