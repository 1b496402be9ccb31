package checkpoint

import (
	"time"

	"replicator/pkg/offsets"
)

// book is what has been handed on, so that only changes are. It also decides
// between a poll and the tail.
//
// The tail reads commits in the order of their log, which is the order that
// counts. A poll reads them as the coordinator has them at some moment after
// its beginning; neither log offset nor time of a polled commit is known. So no
// two times of a broker are compared, only ours: what the tail read since a poll
// began, and a little before, stands against that poll, because it may be newer
// and because the tail will read whatever the poll saw. All else a poll saw
// stands against what was known: it was read later.
type book struct {
	groups map[groupKey]map[offsets.Lane]entry
}

// coordinatorLag is how long before a poll began a record read by the tail
// still stands against it: a record can be fetched a moment before the
// coordinator shows it (Kafka 3 applies a transaction's commits in the
// background).
const coordinatorLag = 3 * time.Second

type groupKey struct {
	name  string
	gtype GroupType
}

type entry struct {
	offset   int64 // next source offset
	metadata string
	tailed   time.Duration // since clockStart, when the tail last read a record of the key; 0: never
	deleted  bool          // the tail read so; kept until a later poll agrees
}

// clockStart makes of a time a number a third of its size that never goes back.
var clockStart = time.Now()

func clock(t time.Time) time.Duration { return t.Sub(clockStart) }

// standsAgainst says that what the tail read is not overruled by a poll.
func (e entry) standsAgainst(began time.Time) bool {
	return e.tailed > 0 && e.tailed >= clock(began)-coordinatorLag
}

func newBook() *book { return &book{groups: map[groupKey]map[offsets.Lane]entry{}} }

func (k Key) group() groupKey { return groupKey{k.Group, k.Type} }

func (b *book) put(k Key, e entry) {
	lanes := b.groups[k.group()]
	if lanes == nil {
		lanes = map[offsets.Lane]entry{}
		b.groups[k.group()] = lanes
	}
	lanes[k.Lane] = e
}

func (b *book) drop(k groupKey, lane offsets.Lane) {
	delete(b.groups[k], lane)
	if len(b.groups[k]) == 0 {
		delete(b.groups, k)
	}
}

// tail takes in a record the tail read.
func (b *book) tail(c *Commit) {
	b.put(c.Key, entry{offset: c.Offset, metadata: c.Metadata, tailed: clock(time.Now()), deleted: c.Deleted})
}

// verdict is what becomes of something a poll saw.
type verdict uint8

const (
	same  verdict = iota // as known
	news                 // to be handed on
	aside                // differs, but the tail's stands
)

// polled takes in a commit that a poll saw.
func (b *book) polled(c *Commit, began time.Time) verdict {
	old, known := b.groups[c.group()][c.Lane]
	switch {
	case known && !old.deleted && old.offset == c.Offset && old.metadata == c.Metadata:
		return same
	case known && old.standsAgainst(began):
		return aside
	}
	b.put(c.Key, entry{offset: c.Offset, metadata: c.Metadata})
	return news
}

// gone takes in that a poll did not find a key.
func (b *book) gone(k Key, began time.Time) verdict {
	old, known := b.groups[k.group()][k.Lane]
	switch {
	case !known:
		return same
	case old.standsAgainst(began):
		if old.deleted {
			return same
		}
		return aside
	}
	b.drop(k.group(), k.Lane)
	if old.deleted {
		return same
	}
	return news
}
