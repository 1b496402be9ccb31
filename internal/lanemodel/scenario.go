package lanemodel

import (
	"fmt"
	"strconv"
	"strings"
)

// Fault is something that goes wrong; a scenario says how often each may.
type Fault int

// The faults.
const (
	Crash       Fault = iota // a daemon dies; what it had sent may still arrive
	Late                     // a daemon gives up waiting; its requests may still arrive
	Lost                     // a request is carried out, its answer is lost
	Refuse                   // the broker refuses a request for a passing reason
	Pause                    // a daemon does nothing for longer than the lease
	Stop                     // a daemon closes the lane cleanly
	Restart                  // the target's leader restarts: connections closed, old producers forgotten
	Forget                   // the leader's check forgets a producer whose last batch is old
	Day                      // a day passes over idle, open connections: all producers forgotten
	Truncate                 // unclean election: up to two last entries are gone, connections closed
	TxnExpire                // a week passes over the transactional id
	TxnLost                  // the coordinator forgets the transactional id at any moment
	TxnBack                  // the coordinator loses its last epoch, already used on the target, and will give it again
	TxnTimeout               // the coordinator aborts an open transaction with an epoch nobody holds
	StrayInit                // an InitProducerId nobody waits for takes an epoch
	Stray                    // behind a final failover, a request is still in the network after a day
	CopyControl              // a control record is delivered twice, the second time late
	faultCount
)

var faultNames = [faultCount]string{"crash", "late", "lost", "refuse", "pause", "stop", "restart", "forget", "day", "truncate",
	"txn-expire", "txn-lost", "txn-back", "txn-timeout", "stray-init", "stray", "copy-control"}

// FaultNames lists the faults as ParseFaults reads them.
func FaultNames() []string { return faultNames[:] }

// Faults is how often each fault may happen.
type Faults [faultCount]uint8

// ParseFaults reads "crash late=2".
func ParseFaults(text string) (Faults, error) {
	var f Faults
words:
	for word := range strings.FieldsSeq(text) {
		name, count, has := strings.Cut(word, "=")
		n := 1
		if has {
			var err error
			if n, err = strconv.Atoi(count); err != nil || n < 0 || n > 9 {
				return f, fmt.Errorf("parse faults: %q: count is a number from 0 to 9", word)
			}
		}
		for i, known := range faultNames {
			if name == known {
				f[i] = uint8(n)
				continue words
			}
		}
		return f, fmt.Errorf("parse faults: %q is none of %s", name, strings.Join(faultNames[:], ", "))
	}
	return f, nil
}

func (f Faults) String() string {
	var words []string
	for i, n := range f {
		switch {
		case n == 1:
			words = append(words, faultNames[i])
		case n > 1:
			words = append(words, fmt.Sprintf("%s=%d", faultNames[i], n))
		}
	}
	return strings.Join(words, " ")
}

// Scenario is a small world to search through.
type Scenario struct {
	Name    string
	Records string // the source log: f a fresh record, o an old one (older than an hour), _ an offset without a record
	Daemons int    // 1 or 2
	Command bool   // with the failover command
	Epochs  int    // how many epochs the coordinator hands out for one producer id: the bound of the search
	Faults  string // see ParseFaults
}

func (sc Scenario) String() string {
	return fmt.Sprintf("%s: records %s, %d daemons, command %v, %d epochs, faults: %s", sc.Name, sc.Records, sc.Daemons, sc.Command, sc.Epochs, sc.Faults)
}

// parse lays the source log out: the source offset and the age of each record.
func (sc Scenario) parse() (offsets []uint8, old []bool, faults Faults, err error) {
	for i, c := range sc.Records {
		switch c {
		case 'f', 'o':
			offsets = append(offsets, uint8(i))
			old = append(old, c == 'o')
		case '_':
		default:
			return nil, nil, faults, fmt.Errorf("parse records %q: %q is none of f, o, _", sc.Records, c)
		}
	}
	if len(offsets) == 0 || len(offsets) > 7 || sc.Daemons < 1 || sc.Daemons > 2 || sc.Epochs < 1 || sc.Epochs > 9 {
		return nil, nil, faults, fmt.Errorf("scenario %s: want 1 to 7 records, 1 or 2 daemons, 1 to 9 epochs", sc.Name)
	}
	faults, err = ParseFaults(sc.Faults)
	return offsets, old, faults, err
}
