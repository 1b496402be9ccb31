package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"replicator/pkg/wire"
)

const (
	// maxUnproven bounds how many keys of a lane wait to be seen again, at about 100 bytes each.
	maxUnproven = 1 << 17
	// maxLoose bounds how many changed records are looked at again for their order.
	maxLoose = 1 << 12
)

// lockstep walks both sides of one lane.
type lockstep struct {
	source, target *side
	places         places
	to             int64 // source offset at which the range ends
	own            []Span
	compacted      struct{ source, target bool }
	keep           int // differences in detail
	out            *LaneReport
	sum            uint64
	// unproven are records the target's compaction seems to have removed: then a later record has
	// their key. By that key.
	unproven map[uint64][]Difference
	waiting  int     // in unproven
	loose    []loose // changed records
}

// loose is a changed record: what was expected and what was found.
type loose struct {
	source, target fingerprint
	first          int // its place in the report, -1 if it is not there
}

type fingerprint struct {
	timestamp           int64
	key, value, headers uint64
}

func (r *record) fingerprint() fingerprint {
	return fingerprint{r.timestamp, r.key, r.value, r.headers}
}

// run compares until both sides end.
func (l *lockstep) run(ctx context.Context, step func()) error {
	for {
		more, err := l.source.fill(ctx)
		if err != nil {
			return fmt.Errorf("read source: %w", err)
		}
		also, err := l.target.fill(ctx)
		if err != nil {
			return fmt.Errorf("read target: %w", err)
		}
		if !more && !also {
			l.finish()
			return nil
		}
		if !l.closed() {
			if err := l.source.open(); err != nil {
				return fmt.Errorf("open source batch: %w", err)
			}
			if err := l.target.open(); err != nil {
				return fmt.Errorf("open target batch: %w", err)
			}
			l.records()
		}
		step()
	}
}

// closed compares two batches without opening them. False: they have to be opened.
func (l *lockstep) closed() bool {
	if l.waiting > 0 {
		return false // keys are to be seen
	}
	s, whole := l.source.whole()
	t, also := l.target.whole()
	if !whole || !also || !wire.SameContent(s, t) {
		return false
	}
	if at, ok := l.places.follow(s.BaseOffset(), s.NextOffset()); !ok || at != t.BaseOffset() {
		return false
	}
	n := int64(s.RecordCount())
	l.out.Equal += n
	l.out.Closed += n
	l.add(xxhash.Sum64(s.Content()))
	l.add(uint64(s.BaseTimestamp()))
	l.source.pass()
	l.target.pass()
	return true
}

// add takes a hash into the checksum.
func (l *lockstep) add(h uint64) { l.sum = bits.RotateLeft64(l.sum*0x9e3779b185ebca87^h, 31) }

// addText takes the checksum of a lane into that of all.
func (l *lockstep) addText(sum string) { l.add(xxhash.Sum64String(sum)) }

// text is the checksum as reports have it.
func (l *lockstep) text() string { return fmt.Sprintf("%016x", l.sum) }

// records compares what lies open until one side has to be filled again.
func (l *lockstep) records() {
	s, t := l.source, l.target
	if s.has() {
		l.places.follow(s.opened[s.at].offset, s.opened[len(s.opened)-1].offset+1)
	}
	for (s.has() || s.ended) && (t.has() || t.ended) && (s.has() || t.has()) {
		var from, at int64 // where the target's record comes from, where the source's belongs
		var ok bool
		if t.has() {
			if from, ok = l.places.source(t.opened[t.at].offset); !ok {
				l.foreign(&t.opened[t.at])
				t.at++
				continue
			}
		}
		if s.has() {
			if at, ok = l.places.target(s.opened[s.at].offset); !ok {
				l.unplaced(&s.opened[s.at])
				s.at++
				continue
			}
		}
		switch {
		case s.has() && t.has() && s.opened[s.at].offset == from:
			l.pair(&s.opened[s.at], &t.opened[t.at])
			s.at++
			t.at++
		case s.has() && (!t.has() || s.opened[s.at].offset < from):
			l.lacking(&s.opened[s.at], at)
			s.at++
		default:
			l.surplus(&t.opened[t.at], from)
			t.at++
		}
	}
}

// pair compares two records that are one.
func (l *lockstep) pair(s, t *record) {
	l.seen(s)
	a, b := s.fingerprint(), t.fingerprint()
	if a == b {
		l.out.Equal++
		l.add(a.key)
		l.add(a.value)
		l.add(a.headers)
		l.add(uint64(a.timestamp))
		return
	}
	l.out.Changed++
	first := l.note(Difference{Changed, s.offset, t.offset, changes(a, b) + l.by()})
	if len(l.loose) < maxLoose {
		l.loose = append(l.loose, loose{a, b, first})
	}
}

// changes says which parts of two records differ.
func changes(a, b fingerprint) string {
	var parts []string
	if a.key != b.key {
		parts = append(parts, "key")
	}
	if a.value != b.value {
		parts = append(parts, "value")
	}
	if a.headers != b.headers {
		parts = append(parts, "headers")
	}
	if a.timestamp != b.timestamp {
		parts = append(parts, fmt.Sprintf("timestamp (%d on the source, %d on the target)", a.timestamp, b.timestamp))
	}
	return strings.Join(parts, ", ") + " differ"
}

// by says who wrote the target's record.
func (l *lockstep) by() string {
	w := l.target.writer
	switch {
	case w.ProducerID < 0:
		return "; written without a producer id, so not by the link"
	case l.places.ours(w):
		return fmt.Sprintf("; written by the link's producer %v", w)
	}
	return fmt.Sprintf("; written by producer %v, which is not the link's", w)
}

// foreign is a target record that the map does not know.
func (l *lockstep) foreign(t *record) {
	if l.target.aborted {
		return // no reader of committed records sees it: the target's own, from when it was the source
	}
	for _, s := range l.own {
		if t.offset >= s.From && t.offset < s.To {
			l.out.Stranded++
			return
		}
	}
	l.out.Extra++
	l.note(Difference{Extra, -1, t.offset, "the map has no such record" + l.by()})
}

// unplaced is a source record that the map does not know.
func (l *lockstep) unplaced(s *record) {
	l.seen(s)
	if l.places.inGap(s.offset) {
		l.out.InGap++
		return
	}
	l.out.Missing++
	l.note(Difference{Missing, s.offset, -1, "the map has no place for it"})
}

// lacking is a source record that is not at its place on the target.
func (l *lockstep) lacking(s *record, at int64) {
	l.seen(s)
	d := Difference{Missing, s.offset, at, "the target has no record there"}
	switch {
	case at < l.target.start:
		l.out.Retained++
	case !l.compacted.target:
		l.out.Missing++
		l.note(d)
	case s.tombstone || l.waiting == maxUnproven:
		// Compaction removes what deletes a key after a while, and its key need not come again.
		l.out.Compacted++
	default:
		d.Detail += ", and no later one has its key"
		l.unproven[s.key] = append(l.unproven[s.key], d)
		l.waiting++
	}
}

// seen takes in that a key comes again on the source: earlier records with it may be gone.
func (l *lockstep) seen(s *record) {
	if l.waiting == 0 {
		return
	}
	if n := len(l.unproven[s.key]); n > 0 {
		l.out.Compacted += int64(n)
		l.waiting -= n
		delete(l.unproven, s.key)
	}
}

// surplus is a target record whose source record is not there.
func (l *lockstep) surplus(t *record, from int64) {
	switch {
	case from < l.source.start:
		l.out.Retained++
	case l.compacted.source:
		l.out.Compacted++
	default:
		l.out.Extra++
		l.note(Difference{Extra, from, t.offset, "the source has no record there" + l.by()})
	}
}

// note keeps a difference and returns its place, -1 if there are enough.
func (l *lockstep) note(d Difference) int {
	if len(l.out.First) >= l.keep {
		return -1
	}
	l.out.First = append(l.out.First, d)
	return len(l.out.First) - 1
}

// finish judges what only the end tells.
func (l *lockstep) finish() {
	// A key whose last record lies behind the range, or which the source has compacted since for
	// such a record, proves nothing.
	all := l.to >= l.places.end.Source && (!l.compacted.source || l.source.end <= l.to)
	if all {
		lost := slices.Concat(slices.Collect(maps.Values(l.unproven))...)
		slices.SortFunc(lost, func(a, b Difference) int { return cmp.Compare(a.SourceOffset, b.SourceOffset) })
		for _, d := range lost {
			l.out.Missing++
			l.note(d)
		}
	} else {
		l.out.Compacted += int64(l.waiting)
	}
	expected, found := map[fingerprint]bool{}, map[fingerprint]bool{}
	for _, c := range l.loose {
		expected[c.source], found[c.target] = true, true
	}
	for _, c := range l.loose {
		if !found[c.source] || !expected[c.target] {
			continue
		}
		l.out.Changed--
		l.out.Reordered++
		if c.first >= 0 {
			d := &l.out.First[c.first]
			d.Kind, d.Detail = Reordered, "another record of the range stands at its place"+d.Detail[strings.IndexByte(d.Detail+";", ';'):]
		}
	}
}
