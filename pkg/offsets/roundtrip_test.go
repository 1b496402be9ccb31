package offsets

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pairLog is one partition of a region: what stands at each offset. 0 is no record of the pair's: a
// control record, a record of an aborted transaction, one that compaction removed.
type pairLog struct {
	identities []int
	start      map[int]int64 // identity: offset
}

func (l *pairLog) end() int64 { return int64(len(l.identities)) }

func (l *pairLog) append(identity int) int64 {
	if identity > 0 {
		l.start[identity] = l.end()
	}
	l.identities = append(l.identities, identity)
	return l.end() - 1
}

// pairLink is one direction: its source, its target, and its lane's journal on the target.
type pairLink struct {
	source, target *pairLog
	journal        *lane
	writer         Writer
	position       int64      // source offset, next
	ordinal        int64      // next
	stranded       [][2]int64 // source offsets [from, to) that are not copied, with a decision
}

// pairOfLogs switches back and forth between two regions. It keeps the records' identities, so that
// it knows what is the same without any map.
type pairOfLogs struct {
	t        *rapid.T
	identity int
	copied   map[int]bool // the records that stand on both sides
}

func (p *pairOfLogs) write(l *pairLog, label string) {
	for range rapid.IntRange(0, 12).Draw(p.t, label) {
		if rapid.IntRange(0, 4).Draw(p.t, "hole") == 0 {
			l.append(0)
			continue
		}
		p.identity++
		l.append(p.identity)
	}
}

func (p *pairOfLogs) open(k *pairLink, source int64) {
	k.writer.Epoch++
	k.target.append(0)
	e := EpochRecord{Lane: someLane, Writer: k.writer, Ordinal: k.ordinal, Source: source, Target: k.target.end(), SourceLeaderEpoch: -1}
	k.journal.apply(e)
	k.position = source
}

// copy is a daemon that copies what there is, and opens the lane anew in between.
func (p *pairOfLogs) copy(k *pairLink) {
	for range rapid.IntRange(1, 3).Draw(p.t, "openings") {
		b := NewSpanBuilder(someLane, k.writer, k.ordinal, k.position)
		limit := rapid.Int64Range(k.position, k.source.end()).Draw(p.t, "copies up to")
		for range rapid.IntRange(1, 3).Draw(p.t, "chunks") {
			to := rapid.Int64Range(k.position, limit).Draw(p.t, "chunk ends at")
			p.chunk(k, b, to)
		}
		p.open(k, k.position)
	}
}

func (p *pairOfLogs) chunk(k *pairLink, b *SpanBuilder, to int64) {
	var identities []int
	for ; k.position < to; k.position++ {
		if id := k.source.identities[k.position]; id > 0 {
			b.Add(k.position, 1)
			identities = append(identities, id)
		}
	}
	if s, ok := b.Take(); ok {
		k.journal.apply(s)
	}
	if len(identities) > 0 && rapid.IntRange(0, 5).Draw(p.t, "foreign write") == 0 {
		k.target.append(0)
		k.journal.apply(Shift{Lane: someLane, Writer: k.writer, Ordinal: k.ordinal, Target: k.target.end()})
	}
	for _, id := range identities {
		k.target.append(id)
		p.copied[id] = true
		k.ordinal++
	}
	if rapid.IntRange(0, 3).Draw(p.t, "position is late") > 0 {
		k.journal.apply(Position{Lane: someLane, Writer: k.writer, Ordinal: k.ordinal, Source: k.position, Target: k.target.end()})
	}
}

// fence closes a direction, once or more often; applications write to the target in between. The
// fences after the first keep where the lane ended.
func (p *pairOfLogs) fence(k *pairLink) {
	p.open(k, k.position)
	first, _ := k.journal.state().Last()
	for range rapid.IntRange(0, 2).Draw(p.t, "fenced again") {
		p.write(k.target, "written before it is fenced again")
		k.writer.Epoch++
		k.target.append(0)
		first.Writer = k.writer
		k.journal.apply(first)
	}
}

// prepare gives the journal of link to what link from copied, and opens it.
func (p *pairOfLogs) prepare(from, to *pairLink, promoted int64) {
	config := func() InverseConfig {
		return InverseConfig{From: from.journal.state().CopiedFrom(), Other: to.journal.state(), Time: someTime}
	}
	if rapid.IntRange(0, 2).Draw(p.t, "cut short") == 0 {
		inv, err := from.journal.state().Inverse(config())
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range inv.Entries[:rapid.IntRange(0, len(inv.Entries)).Draw(p.t, "entries written")] {
			to.journal.apply(e)
		}
	}
	inv, err := from.journal.state().Inverse(config())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range inv.Entries {
		back, err := DecodeEntry(EncodeEntry(e))
		if err != nil {
			p.t.Fatal(err)
		}
		to.journal.apply(back)
	}
	to.ordinal = inv.Next.Ordinal
	if promoted < inv.Next.Source || to.target.end() < inv.Next.Target {
		p.t.Fatalf("the opening would go back: at %d, %d, behind %+v", promoted, to.target.end(), inv.Next)
	}
	p.open(to, promoted)
}

// agrees asks a lane for every record that it should know, and for those that it should not.
func (p *pairOfLogs) agrees(k *pairLink, known map[int]bool) {
	s := k.journal.state()
	if err := s.Err(); err != nil {
		p.t.Fatal(err)
	}
	for id := range known {
		x, y := k.source.start[id], k.target.start[id]
		if got, want := s.Translate(x), (Translation{From: x, To: y, Outcome: Exact}); got != want {
			p.t.Fatalf("record %d: %+v, want %+v", id, got, want)
		}
		if got, want := s.TranslateBack(y), (Translation{From: y, To: x, Outcome: Exact}); got != want {
			p.t.Fatalf("record %d, back: %+v, want %+v", id, got, want)
		}
	}
	for x, id := range k.source.identities {
		got := s.Translate(int64(x))
		if id == 0 || !known[id] {
			if got.Outcome == Exact {
				p.t.Fatalf("source offset %d is no record on both sides, but %+v", x, got)
			}
		}
		for _, gap := range k.stranded {
			if int64(x) >= gap[0] && int64(x) < gap[1] && got.Outcome != InGap {
				p.t.Fatalf("source offset %d lies in the stranded %v, but %+v", x, gap, got)
			}
		}
		// Who goes on there reads every record of the other side that lies behind.
		for y, other := range k.target.identities {
			if known[other] && k.source.start[other] >= int64(x) && int64(y) < got.To {
				p.t.Fatalf("source offset %d is %+v, but record %d, at source offset %d, lies at %d", x, got, other, k.source.start[other], y)
			}
		}
	}
}

func TestRoundTripsKeepEveryRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pairOfLogs{t: t, copied: map[int]bool{}}
		a, b := &pairLog{start: map[int]int64{}}, &pairLog{start: map[int]int64{}}
		active := &pairLink{source: a, target: b, journal: newLane(someLane), writer: Writer{100, 0}}
		closed := &pairLink{source: b, target: a, journal: newLane(someLane), writer: Writer{50, 0}}
		p.open(active, 0)
		for range rapid.IntRange(3, 5).Draw(t, "switches") {
			p.write(active.source, "written before")
			p.copy(active)
			p.agrees(active, p.copied)
			p.fence(active)
			end := active.position
			promoted := active.target.end()
			if last, _ := active.journal.state().Last(); rapid.Bool().Draw(t, "at the first fence") {
				promoted = last.Target
			}
			p.write(active.target, "written after the promotion")
			if rapid.Bool().Draw(t, "source goes on") {
				p.write(active.source, "stranded")
			}
			if stranded := active.source.end(); stranded > end && rapid.Bool().Draw(t, "decided") {
				facts, err := active.journal.state().Strand(stranded, "discarded", someTime)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range facts {
					active.journal.apply(e)
				}
				active.position = stranded
				active.stranded = append(active.stranded, [2]int64{end, stranded})
				p.agrees(active, p.copied)
			}
			p.prepare(active, closed, promoted)
			p.agrees(closed, p.copied)
			active, closed = closed, active
			for _, k := range []*pairLink{active, closed} {
				if rapid.Bool().Draw(t, "housekeeping") {
					for range 3 {
						write, remove := k.journal.compacted(0)
						for _, e := range append(write, remove...) {
							k.journal.apply(e)
						}
					}
				}
			}
		}
		p.copy(active)
		p.agrees(active, p.copied)
	})
}

// The lane that is closed knows less: what the other direction has copied since.
func TestCopiedFromIsWhereTheNewestInverseEnds(t *testing.T) {
	w := Writer{7, 1}
	facts := []Entry{EpochRecord{Lane: someLane, Writer: w, Target: 1}}
	if got := StateOf(facts...).CopiedFrom(); got != 0 {
		t.Errorf("without an inverse: %d", got)
	}
	facts = append(facts, EpochRecord{Lane: someLane, Writer: Writer{InverseProducer, 0}, Ordinal: 10, Source: 20, Target: 40},
		Position{Lane: someLane, Writer: Writer{InverseProducer, 0}, Ordinal: 15, Source: 25, Target: 45})
	if got := StateOf(facts...).CopiedFrom(); got != 45 {
		t.Errorf("prepared, not opened: %d", got)
	}
	facts = append(facts, EpochRecord{Lane: someLane, Writer: Writer{7, 2}, Ordinal: 15, Source: 30, Target: 50},
		EpochRecord{Lane: someLane, Writer: Writer{7, 3}, Ordinal: 18, Source: 33, Target: 54})
	if got := StateOf(facts...).CopiedFrom(); got != 50 {
		t.Errorf("opened twice since: %d", got)
	}
	if !slices.ContainsFunc(StateOf(facts...).Epochs(), func(e EpochRecord) bool { return e.Inverse() }) {
		t.Error("the inverse does not count")
	}
}
