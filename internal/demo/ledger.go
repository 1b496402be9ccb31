package demo

import "sync"

// ledger is what the producers know: which record was handed over, which was
// acknowledged, and where. A record has a number, by topic.
type ledger struct {
	mu     sync.Mutex
	topics [][]entry // by topic, then by number
	acked  int64
}

// entry is one record as its producer knows it.
type entry struct {
	acked  bool
	unsure bool // it was once handed over without an answer, and then written again
	region string
	at     position
}

type position struct {
	partition int32
	offset    int64
}

// key names a record.
type key struct {
	topic  int
	number int64
}

func newLedger() *ledger { return &ledger{topics: make([][]entry, len(topics))} }

// next gives out the number of a new record.
func (l *ledger) next(topic int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic] = append(l.topics[topic], entry{})
	return int64(len(l.topics[topic]) - 1)
}

func (l *ledger) ack(k key, region string, at position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.topics[k.topic][k.number]
	e.acked, e.region, e.at = true, region, at
	l.acked++
}

func (l *ledger) doubt(k key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[k.topic][k.number].unsure = true
}

// acknowledged is how many records were, in all.
func (l *ledger) acknowledged() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// each calls f with every entry.
func (l *ledger) each(f func(key, entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t, entries := range l.topics {
		for n, e := range entries {
			f(key{t, int64(n)}, e)
		}
	}
}
