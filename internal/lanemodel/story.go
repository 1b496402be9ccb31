package lanemodel

import "fmt"

// StepKind is what happens in a step.
type StepKind uint8

// The steps.
const (
	starts StepKind = iota
	readsAuthority
	authorityClosed
	takesEpoch
	takesAnother
	abortsOther
	addsPartition
	endsTxn
	fencedByCoordinator
	readsJournalEarly
	seesOtherID
	findsPosition
	cannotTranslate
	writesFact
	factAnswered
	factTimesOut
	openingCounts
	openingFails
	sends
	validates
	opensAgain
	waitsOut
	processed
	answerLost
	refuses
	timesOut
	readsAnswer
	readsTrouble
	crashes
	pauses
	lateRequest
	lateRefused
	lateFact
	brokerRestarts
	brokerForgets
	dayPasses
	requestOutlivesDay
	tailLost
	controlWritten
	controlCopied
	lateControl
	txnTimesOut
	strayInit
	txnGoesBack
	txnForgotten
	txnExpires
	stepKinds
)

// Step is one step of a run, told by String.
type Step struct {
	Kind     StepKind
	Who      int
	Record   uint8
	Writer   writer
	Sequence uint8
	Offset   uint8
	Fact     fact
	Done     bool
}

func (w writer) String() string { return fmt.Sprintf("(id %d, epoch %d)", w.ID, w.Epoch) }

func (f fact) String() string {
	switch f.Kind {
	case epochFact:
		return fmt.Sprintf("epoch record %v: ordinal %d is source offset %d", f.Writer, f.Ordinal, f.Source)
	case spanFact:
		return fmt.Sprintf("span of %v: from ordinal %d on source offset %d", f.Writer, f.Ordinal, f.Source)
	case closedFact:
		return fmt.Sprintf("closed by %v at ordinal %d, quiet %v", f.Writer, f.Ordinal, f.Quiet)
	}
	return "nothing"
}

func (p Step) landed() string {
	if p.Done {
		return fmt.Sprintf("appended at %d", p.Offset)
	}
	return "refused"
}

// String tells the step as a sentence.
func (p Step) String() string {
	who := string("ABC"[p.Who])
	record := fmt.Sprintf("record %d", p.Record)
	switch p.Kind {
	case starts:
		return who + " sets out to open the lane"
	case readsAuthority:
		return fmt.Sprintf("%s reads the authority record: closed %v", who, p.Done)
	case authorityClosed:
		return who + " writes the authority record: this direction is closed"
	case takesEpoch:
		return fmt.Sprintf("%s: InitProducerId gives %v", who, p.Writer)
	case takesAnother:
		return fmt.Sprintf("%s: InitProducerId gives %v, seen before, so it asks again", who, p.Writer)
	case abortsOther:
		return fmt.Sprintf("%s: InitProducerId finds an open transaction; the coordinator aborts it with %v", who, p.Writer)
	case addsPartition:
		return who + ": AddPartitionsToTxn done"
	case endsTxn:
		return who + ": EndTxn answered, the control record still on its way"
	case fencedByCoordinator:
		return who + " is fenced by the coordinator and opens again"
	case readsJournalEarly:
		return who + " reads the journal, its control record not yet seen"
	case seesOtherID:
		return fmt.Sprintf("%s sees its control record; the last epoch record is of another producer id %v: waits out the lease", who, p.Writer)
	case findsPosition:
		tail := ""
		if p.Done {
			tail = "; no wait needed"
		}
		return fmt.Sprintf("%s reads target and journal up to offset %d: next is %s%s", who, p.Offset, record, tail)
	case cannotTranslate:
		return who + " finds a record on the target that the journal cannot translate"
	case writesFact:
		return fmt.Sprintf("%s writes to the journal: %v", who, p.Fact)
	case factAnswered:
		return fmt.Sprintf("journal acknowledges to %s: %v", who, p.Fact)
	case factTimesOut:
		return who + ": the journal write times out and may still arrive"
	case openingCounts:
		return fmt.Sprintf("%s: its opening counts %v", who, p.Writer)
	case openingFails:
		return who + ": the leader's end is not its own any more; opens again"
	case sends:
		age := ""
		if p.Done {
			age = " (old)"
		}
		return fmt.Sprintf("%s sends %s%s as %v sequence %d", who, record, age, p.Writer, p.Sequence)
	case validates:
		return who + " validates and may send again"
	case opensAgain:
		return who + " opens the lane again"
	case waitsOut:
		if p.Done {
			return who + " has waited out the lease and takes the epoch again"
		}
		return who + " has waited out the lease"
	case processed:
		return fmt.Sprintf("broker takes %s's %s %v sequence %d: %s", who, record, p.Writer, p.Sequence, p.landed())
	case answerLost:
		return fmt.Sprintf("broker takes %s's %s; the answer is lost", who, record)
	case refuses:
		return fmt.Sprintf("broker refuses %s's %s for a passing reason", who, record)
	case timesOut:
		return who + " gives up on its requests, which may still arrive, and opens again"
	case readsAnswer:
		return fmt.Sprintf("%s reads the answer for %s: offset %d", who, record, p.Offset)
	case readsTrouble:
		return fmt.Sprintf("%s reads the answer for %s: %s, not as predicted; sends no more", who, record, p.landed())
	case crashes:
		return who + " crashes"
	case pauses:
		return who + " does nothing for longer than the lease"
	case lateRequest:
		return fmt.Sprintf("a LATE request arrives: %s %v sequence %d: %s", record, p.Writer, p.Sequence, p.landed())
	case lateRefused:
		return fmt.Sprintf("a LATE request arrives: %s %v, refused for a passing reason", record, p.Writer)
	case lateFact:
		return fmt.Sprintf("a LATE journal entry arrives: %v", p.Fact)
	case brokerRestarts:
		return "the broker RESTARTS: connections closed, producers with old batches forgotten"
	case brokerForgets:
		return fmt.Sprintf("the broker FORGETS producer id %d, its last batch being old", p.Writer.ID)
	case dayPasses:
		return "a DAY passes: all producers forgotten, connections still open"
	case requestOutlivesDay:
		return "a DAY passes: all producers forgotten, and a request sent before is still in the network"
	case tailLost:
		return fmt.Sprintf("UNCLEAN ELECTION: the last %d entries of the target are gone, connections closed", p.Offset)
	case controlWritten:
		return fmt.Sprintf("the control record of %v is written at %d", p.Writer, p.Offset)
	case controlCopied:
		return fmt.Sprintf("the control record of %v is written at %d; a copy stays in the network", p.Writer, p.Offset)
	case lateControl:
		return fmt.Sprintf("a LATE copy of the control record of %v arrives at offset %d", p.Writer, p.Offset)
	case txnTimesOut:
		return fmt.Sprintf("the coordinator aborts the open transaction with %v, which nobody holds", p.Writer)
	case strayInit:
		return fmt.Sprintf("a stray InitProducerId takes %v", p.Writer)
	case txnGoesBack:
		return fmt.Sprintf("the coordinator LOSES its last epoch and is back at %v", p.Writer)
	case txnForgotten:
		return "the coordinator LOSES the transactional id"
	case txnExpires:
		return "a WEEK passes without an opening: the transactional id expires"
	}
	return fmt.Sprintf("step %d", p.Kind)
}
