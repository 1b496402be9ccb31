package compare

import (
	"context"
	"fmt"
)

const (
	recentRecords = 1 << 16 // matched records remembered per partition
	unplacedLimit = 1 << 16 // missing and extra records remembered per partition
	runLength     = 3       // equal records in a row that count as agreeing again
	sameHash      = 16      // candidates looked at per hash when resynchronising
)

// lockstep walks the two streams of one partition.
type lockstep struct {
	source, target *side
	opts           Options
	out            *PartitionReport
	recent         *recent
	// missing and extra hold hashes counted as such, so that a record which
	// turns up far from its place is renamed, not counted twice.
	missing, extra map[uint64]int
}

func newLockstep(source, target *side, opts Options, out *PartitionReport) *lockstep {
	return &lockstep{
		source: source, target: target, opts: opts, out: out,
		recent:  newRecent(recentRecords),
		missing: make(map[uint64]int), extra: make(map[uint64]int),
	}
}

func (l *lockstep) run(ctx context.Context) error {
	if l.opts.SkipTargetPrefix {
		if err := l.skipPrefix(ctx); err != nil {
			return err
		}
	}
	for {
		if err := l.source.fill(ctx, 1, 1); err != nil {
			return err
		}
		if err := l.target.fill(ctx, 1, 1); err != nil {
			return err
		}
		n := min(len(l.source.entries), len(l.target.entries))
		i := 0
		for i < n && equal(l.source.entries[i], l.target.entries[i]) {
			i++
		}
		l.match(i)
		switch {
		case i == n && n > 0:
		case len(l.source.entries) == 0 && len(l.target.entries) == 0:
			l.finish()
			return nil
		default:
			if err := l.resync(ctx); err != nil {
				return err
			}
		}
	}
}

func equal(s, t entry) bool { return s.hash == t.hash && same(s.record, t.record) }

// match takes n equal entries off both sides.
func (l *lockstep) match(n int) {
	for _, e := range l.source.take(n) {
		l.recent.add(e.hash, e.record.Offset)
		if len(l.extra) > 0 && forget(l.extra, e.hash) {
			// It was written out of its place first, and now again in its place.
			l.out.Extra--
			l.out.Doubled++
			l.rename(Extra, Doubled, e.hash)
		}
	}
	l.target.take(n)
	l.out.Matched += int64(n)
}

// skipPrefix drops target records before the first one the source still has.
func (l *lockstep) skipPrefix(ctx context.Context) error {
	if err := l.source.fill(ctx, 1, 1); err != nil {
		return err
	}
	for {
		if err := l.target.fill(ctx, 1, 1); err != nil {
			return err
		}
		if len(l.target.entries) == 0 {
			return nil
		}
		for i, e := range l.target.entries {
			if len(l.source.entries) > 0 && equal(l.source.entries[0], e) {
				l.out.Skipped += int64(i)
				l.target.skip(i)
				return nil
			}
		}
		l.out.Skipped += int64(len(l.target.entries))
		l.target.skip(len(l.target.entries))
	}
}

// resync is called where the streams differ: it finds the nearest place where
// they agree again and names what lies before it.
func (l *lockstep) resync(ctx context.Context) error {
	if err := l.source.fill(ctx, l.opts.Window, windowBytes); err != nil {
		return err
	}
	if err := l.target.fill(ctx, l.opts.Window, windowBytes); err != nil {
		return err
	}
	s, t := l.source.entries, l.target.entries
	if len(t) == 0 && l.opts.Prefix && l.target.done {
		l.out.Lag += int64(len(s))
		l.source.skip(len(s))
		return nil
	}
	if len(s) == 0 || len(t) == 0 {
		l.classify(len(s), len(t))
		return nil
	}
	if i, j, ok := l.agree(s, t); ok {
		l.classify(i, j)
		return nil
	}
	// They agree nowhere in sight. Records that were changed one by one keep
	// their places; otherwise a long run was doubled or lost, and only one side
	// may advance, or the place where they agree again is passed by.
	n := 0
	for n < min(len(s), len(t)) && similar(s[n].record, t[n].record) {
		n++
	}
	switch {
	case n > 0:
		l.classify(n, n)
	case l.mostlyRecent(t):
		l.classify(0, len(t))
	case l.source.done && l.target.done:
		l.classify(len(s), len(t))
	case l.source.done:
		l.classify(0, len(t))
	default:
		l.classify(len(s), 0)
	}
	return nil
}

// agree finds the smallest i+j such that the streams run equal from s[i] and
// t[j] on.
func (l *lockstep) agree(s, t []entry) (int, int, bool) {
	places := make(map[uint64][]int, len(t))
	for j, e := range t {
		if p := places[e.hash]; len(p) < sameHash {
			places[e.hash] = append(p, j)
		}
	}
	best, bi, bj := -1, 0, 0
	for i := range s {
		if best >= 0 && i >= best {
			break
		}
		for _, j := range places[s[i].hash] {
			if (best < 0 || i+j < best) && runs(s[i:], t[j:]) {
				best, bi, bj = i+j, i, j
			}
		}
	}
	return bi, bj, best >= 0
}

// runs reports whether s and t begin equal for a run, or up to where one of
// them ends.
func runs(s, t []entry) bool {
	for x := range min(runLength, len(s), len(t)) {
		if !equal(s[x], t[x]) {
			return false
		}
	}
	return true
}

func (l *lockstep) mostlyRecent(t []entry) bool {
	n := 0
	for _, e := range t {
		if _, ok := l.recent.find(e.hash); ok {
			n++
		}
	}
	return n > len(t)/2
}

// classify takes i source and j target entries that are not matched in place,
// and counts every one of them.
func (l *lockstep) classify(i, j int) {
	s, t := l.source.take(i), l.target.take(j)

	inTarget := make(map[uint64][]int, len(t)) // places in t, not yet used
	for n, e := range t {
		inTarget[e.hash] = append(inTarget[e.hash], n)
	}
	used := make([]bool, len(t))
	var lost []entry // source entries without an equal in t
	for _, e := range s {
		p := inTarget[e.hash]
		if len(p) == 0 {
			lost = append(lost, e)
			continue
		}
		inTarget[e.hash] = p[1:]
		used[p[0]] = true
		l.recent.add(e.hash, e.record.Offset)
		l.out.Reordered++
		l.note(Reordered, e.hash, e.record.Offset, t[p[0]].record.Offset, "")
	}
	var over []entry // target entries without an equal in s
	for n, e := range t {
		if !used[n] {
			over = append(over, e)
		}
	}

	// What is left on both sides pairs up, in order, where it is similar.
	next := 0
	for _, e := range lost {
		pair := -1
		for n := next; n < len(over) && n < next+sameHash; n++ {
			if similar(e.record, over[n].record) {
				pair = n
				break
			}
		}
		if pair < 0 {
			l.lose(e)
			continue
		}
		for ; next < pair; next++ {
			l.surplus(over[next])
		}
		next = pair + 1
		l.out.Changed++
		l.note(Changed, over[pair].hash, e.record.Offset, over[pair].record.Offset, changes(e.record, over[pair].record))
	}
	for ; next < len(over); next++ {
		l.surplus(over[next])
	}
}

// lose counts a source record that is not on the target here.
func (l *lockstep) lose(e entry) {
	if forget(l.extra, e.hash) {
		l.out.Extra--
		l.out.Reordered++
		l.rename(Extra, Reordered, e.hash)
		return
	}
	l.out.Missing++
	remember(l.missing, e.hash)
	l.note(Missing, e.hash, e.record.Offset, -1, describe(e))
}

// surplus counts a target record that is not on the source here.
func (l *lockstep) surplus(e entry) {
	if forget(l.missing, e.hash) {
		l.out.Missing--
		l.out.Reordered++
		l.rename(Missing, Reordered, e.hash)
		return
	}
	if source, ok := l.recent.find(e.hash); ok {
		l.out.Doubled++
		l.note(Doubled, e.hash, source, e.record.Offset, describe(e))
		return
	}
	l.out.Extra++
	remember(l.extra, e.hash)
	l.note(Extra, e.hash, -1, e.record.Offset, describe(e))
}

func (l *lockstep) finish() {
	l.out.SourceRecords = l.source.read
	l.out.TargetRecords = l.target.read
	l.out.SourceSum = l.source.checksum.d.Sum64()
	l.out.TargetSum = l.target.checksum.d.Sum64()
}

func (l *lockstep) note(kind Kind, hash uint64, source, target int64, detail string) {
	if len(l.out.First) < l.opts.MaxDifferences {
		l.out.First = append(l.out.First, Difference{Kind: kind, SourceOffset: source, TargetOffset: target, Detail: detail, hash: hash})
	}
}

// rename corrects the name of a difference noted before.
func (l *lockstep) rename(from, to Kind, hash uint64) {
	for i := range l.out.First {
		if d := &l.out.First[i]; d.Kind == from && d.hash == hash {
			d.Kind = to
			return
		}
	}
}

func describe(e entry) string {
	return fmt.Sprintf("key %s, timestamp %d", printable(e.record.Key), millis(e.record))
}

func remember(m map[uint64]int, hash uint64) {
	if len(m) < unplacedLimit {
		m[hash]++
	}
}

func forget(m map[uint64]int, hash uint64) bool {
	n, ok := m[hash]
	if !ok {
		return false
	}
	if n == 1 {
		delete(m, hash)
	} else {
		m[hash] = n - 1
	}
	return true
}
