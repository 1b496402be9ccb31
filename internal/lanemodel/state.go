package lanemodel

import "slices"

// Sizes of the model. A run that would need more reports it (Result.Overflow)
// instead of looking away.
const (
	targetSize    = 16 // batches and control records in the target partition
	journalSize   = 16 // facts in the journal
	lateSize      = 6  // requests in the network whose sender no longer waits
	lateFactsSize = 4  // the same, for journal writes
	window        = 2  // requests of one daemon in flight; the real window only adds more of the same
	actors        = 3  // daemons A and B, the failover command C
	command       = 2  // index of C
)

// writer is a producer id and an epoch; the zero value is nobody. Epochs
// start at 1 here so that it is.
type writer struct{ ID, Epoch uint8 }

// batch is one entry of the target's log: one record, or a control record.
type batch struct {
	Control  bool
	Writer   writer
	Sequence uint8
	Record   uint8
}

type factKind uint8

const (
	noFact factKind = iota
	epochFact
	spanFact
	closedFact
)

// fact is one entry of the journal. Ordinal and Source are "next": the record
// with that ordinal has that source offset, and so on until the next fact.
type fact struct {
	Kind    factKind
	Writer  writer
	Ordinal uint8
	Source  uint8
	Quiet   bool // closedFact: no request of an earlier epoch can be alive
}

type answer uint8

const (
	unanswered answer = iota
	appended
	refused
	lost // no answer will come
)

// request is a produce request with one record, from its sending until its
// answer was read.
type request struct {
	Writer   writer
	Sequence uint8
	Record   uint8
	Age      age // of the sending
	Stale    bool
	Answer   answer
	Offset   uint8 // target offset, if appended
}

// producer is what the partition's leader remembers of a producer id.
type producer struct {
	Known       bool
	Epoch       uint8
	Next        uint8 // next sequence
	Forgettable bool  // its last batch is old: it goes at the next check, or at a restart
}

type txnStage uint8

const (
	txnNone txnStage = iota
	txnOpen
	txnEnding // the control record is on its way to the partition
)

// coordinator is the transaction coordinator's view of the lane's
// transactional id.
type coordinator struct {
	writer
	Stage     txnStage
	Forgotten bool   // the next InitProducerId makes a new producer id
	Copy      writer // a second copy of a control record still in the network
}

type phase uint8

const (
	idle phase = iota
	earlyAuthority
	initProducer
	addPartition
	endTxn
	earlyJournal
	readTarget
	newIDWait
	readAuthority
	writeEpoch
	awaitEpoch
	checkEnd
	ready
	awaitSpan
	draining
	closing
	stopped
	final
	halted    // the opener finds records it cannot translate
	misplaced // the opener computed a wrong position
)

// daemon is one holder, or would-be holder, of the lane.
type daemon struct {
	Phase    phase
	Writer   writer
	Control  uint8 // target offset behind its own control record
	Expected uint8 // predicted base offset of the next append
	Ordinal  uint8 // next
	Next     uint8 // index of the next source record
	Sequence uint8 // next
	Last     uint8 // index + 1 of the last record acknowledged in this epoch
	// From MapOrdinal on, source offsets run from MapSource.
	MapOrdinal, MapSource uint8

	Credit     bool // may send: its last answered request is not older than the lease
	CreditAge  age
	Connected  bool // still the connection of the opening
	Quiet      bool // has waited out the lease, or need not
	Waiting    bool // waits out the lease since its control record
	Second     bool // this is the opening behind the second barrier
	Overdue    bool // its epoch was taken more than a day ago
	SeenEarly  uint8
	Mine       writer // the last epoch this process has held
	MineQuiet  bool
	Journaling fact // a journal write without an answer yet
	Flight     [window]request
	InFlight   uint8
}

// State is one state of the whole world. It holds no pointers, so that two
// states are the same if their bytes are.
type State struct {
	Target     [targetSize]batch
	TargetEnd  uint8 // next
	Journal    [journalSize]fact
	JournalEnd uint8 // next
	Late       [lateSize]request
	LateCount  uint8
	LateFacts  [lateFactsSize]fact
	LateFactCt uint8
	Producers  [2]producer
	Txn        coordinator
	Daemons    [actors]daemon
	Closed     bool  // the authority record forbids this direction
	Aged       uint8 // bit set of the records that became old while the world ran
	Left       [faultCount]uint8
	overflow   bool
}

// age says when a request was sent, seen from each daemon that waits out the
// lease: before the wait began, within its first half (while a credit from
// before could still be used), or later. Two bits a daemon. A wait is twice
// the lease, so at its end everything sent in the first half is dead.
type age uint8

const (
	beforeWait age = 0
	firstHalf  age = 1
	later      age = 2
)

func (a age) of(waiter int) age               { return a >> (2 * waiter) & 3 }
func (a age) with(waiter int, v age) age      { return a&^(3<<(2*waiter)) | v<<(2*waiter) }
func (a age) deadAfterWaitOf(waiter int) bool { return a.of(waiter) != later }

// now is the age of something that starts at this moment: how far each wait
// has come is not known, so it may be as late as can be.
func (s *State) now() age {
	var a age
	for w := range s.Daemons {
		if s.Daemons[w].Waiting {
			a = a.with(w, later)
		}
	}
	return a
}

// underCredit is the age of a request sent under a credit that began at c.
func (s *State) underCredit(c age) age {
	a := s.now()
	for w := range s.Daemons {
		if s.Daemons[w].Waiting && c.of(w) == beforeWait {
			a = a.with(w, firstHalf)
		}
	}
	return a
}

// everyAge applies f to the age of every request and credit in the world.
func (s *State) everyAge(f func(age) age) {
	for i := range s.Late[:s.LateCount] {
		s.Late[i].Age = f(s.Late[i].Age)
	}
	for i := range s.Daemons {
		d := &s.Daemons[i]
		d.CreditAge = f(d.CreditAge)
		for k := range d.Flight[:d.InFlight] {
			d.Flight[k].Age = f(d.Flight[k].Age)
		}
	}
}

// beginWait starts the wait of daemon w: whatever was sent until now was sent before it.
func (s *State) beginWait(w int) {
	s.everyAge(func(a age) age { return a.with(w, beforeWait) })
	s.Daemons[w].Waiting = true
}

// dropWait ends the wait of daemon w without result.
func (s *State) dropWait(w int) {
	if s.Daemons[w].Waiting {
		s.Daemons[w].Waiting = false
		s.everyAge(func(a age) age { return a.with(w, 0) })
	}
}

// endWait lets daemon w's wait come to its end. Requests sent before it or in
// its first half are no longer in the network, credits from then are over.
func (s *State) endWait(w int) {
	keep := s.Late[:0]
	for _, r := range s.Late[:s.LateCount] {
		if !r.Age.deadAfterWaitOf(w) {
			keep = append(keep, r)
		}
	}
	n := uint8(len(keep))
	clear(s.Late[n:])
	s.LateCount = n
	for i := range s.Daemons {
		d := &s.Daemons[i]
		if i != w && d.CreditAge.deadAfterWaitOf(w) {
			d.endCredit()
		}
		for k := range d.Flight[:d.InFlight] {
			r := &d.Flight[k]
			if i != w && r.Age.deadAfterWaitOf(w) {
				r.expire()
			}
		}
	}
	s.dropWait(w)
}

func (d *daemon) endCredit() { d.Credit, d.CreditAge = false, 0 }

// expire makes a request older than the lease: it gives no credit any more,
// and if it has not reached the broker it never will.
func (r *request) expire() {
	r.Stale = true
	if r.Answer == unanswered {
		r.Answer = lost
	}
}

// resolve finds ordinal and source offset of a record on the target: the
// epoch record of its writer counts the sequence numbers into ordinals, the
// last fact of the same writer at or below gives the source offset.
func resolve(journal []fact, w writer, sequence uint8) (ordinal, source uint8, ok bool) {
	for _, f := range journal {
		if f.Kind == epochFact && f.Writer == w {
			ordinal, ok = f.Ordinal+sequence, true
			source = f.Source + sequence
			base := f.Ordinal
			for _, sp := range journal {
				if sp.Kind == spanFact && sp.Writer == w && sp.Ordinal >= base && sp.Ordinal <= ordinal {
					base, source = sp.Ordinal, sp.Source+ordinal-sp.Ordinal
				}
			}
			return ordinal, source, ok
		}
	}
	return 0, 0, false
}

// lastEpoch is the newest epoch record of the journal, and whether its holder
// has closed the lane, and quietly.
func lastEpoch(journal []fact) (last writer, isClosed, quiet bool) {
	for _, f := range journal {
		if f.Kind == epochFact {
			last = f.Writer
		}
	}
	for _, f := range journal {
		if f.Kind == closedFact && f.Writer == last {
			isClosed, quiet = true, f.Quiet
		}
	}
	return last, isClosed, quiet
}

func (s *State) journal() []fact { return s.Journal[:s.JournalEnd] }
func (s *State) target() []batch { return s.Target[:s.TargetEnd] }

// write puts a fact into the journal; the same fact twice is one, as its key is.
func (s *State) write(f fact) {
	if slices.Contains(s.journal(), f) {
		return
	}
	if s.JournalEnd == journalSize {
		s.overflow = true
		return
	}
	s.Journal[s.JournalEnd] = f
	s.JournalEnd++
}

func (s *State) push(b batch) (offset uint8) {
	if s.TargetEnd == targetSize {
		s.overflow = true
		return 0
	}
	s.Target[s.TargetEnd] = b
	s.TargetEnd++
	return s.TargetEnd - 1
}

// use spends one of the scenario's faults.
func (s *State) use(f Fault) bool {
	if s.Left[f] == 0 {
		return false
	}
	s.Left[f]--
	return true
}
