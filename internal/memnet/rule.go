package memnet

import (
	"net"
	"slices"
	"time"
)

// Direction is one of the two streams of a connection.
type Direction int

// The two directions.
const (
	ToListener Direction = iota // from the side that dialed: requests
	ToDialer                    // from the side that listened: answers
)

// Match selects connections.
type Match struct {
	From string // host that dialed; "" any
	To   string // host, or host:port, that was dialed; "" any
}

func (m Match) matches(from, to string) bool {
	return (m.From == "" || m.From == from) && (m.To == "" || m.To == to || m.To == hostOf(to))
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

type ruleKind int

const (
	delayRule ruleKind = iota
	holdRule
	muteRule
	refuseRule
	partitionRule
	cutRule
)

// Rule is a fault in force.
type Rule struct {
	n       *Network
	kind    ruleKind
	matches func(from, to string) bool
	dir     Direction
	delay   time.Duration
	left    int64
	hits    int
}

// Delay makes bytes of one direction arrive d after they were written. The
// order of a stream is kept. Dialing takes the delays of both directions.
func (n *Network) Delay(m Match, dir Direction, d time.Duration) *Rule {
	return n.add(&Rule{kind: delayRule, matches: m.matches, dir: dir, delay: d})
}

// Hold keeps the bytes of one direction that were not read yet, and the
// end of the stream behind them, in the network until the rule is lifted.
func (n *Network) Hold(m Match, dir Direction) *Rule {
	return n.add(&Rule{kind: holdRule, matches: m.matches, dir: dir})
}

// Mute throws away what is written in one direction from now on. A connection
// that has lost bytes this way stays mute after the rule was lifted.
func (n *Network) Mute(m Match, dir Direction) *Rule {
	return n.add(&Rule{kind: muteRule, matches: m.matches, dir: dir})
}

// Refuse makes dials fail with "connection refused". Connections that exist go on.
func (n *Network) Refuse(m Match) *Rule {
	return n.add(&Rule{kind: refuseRule, matches: m.matches})
}

// Partition parts two sets of hosts: what is written stays in the network, and
// dials hang until the rule is lifted or their context ends.
func (n *Network) Partition(a, b []string) *Rule {
	return n.add(&Rule{kind: partitionRule, matches: func(from, to string) bool {
		to = hostOf(to)
		return slices.Contains(a, from) && slices.Contains(b, to) || slices.Contains(b, from) && slices.Contains(a, to)
	}})
}

// CutAfter resets the connection that writes the byte after the next count
// bytes of one direction, over all connections matched. The bytes before it arrive.
// It happens once.
func (n *Network) CutAfter(m Match, dir Direction, count int64) *Rule {
	return n.add(&Rule{kind: cutRule, matches: m.matches, dir: dir, left: count})
}

// Cut resets the connections matched now: both sides see "connection reset",
// bytes under way are gone. It returns how many there were.
func (n *Network) Cut(m Match) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for p := range n.pipes {
		if m.matches(p.from, p.to) {
			p.reset()
			count++
		}
	}
	return count
}

// Open counts the connections matched that neither side has closed.
func (n *Network) Open(m Match) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for p := range n.pipes {
		if m.matches(p.from, p.to) && !p.dialer.closed && !p.listener.closed {
			count++
		}
	}
	return count
}

// Lift ends the rule. What it held arrives now.
func (r *Rule) Lift() {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	r.lift()
}

func (r *Rule) lift() {
	for i, other := range r.n.rules {
		if other == r {
			r.n.rules = append(r.n.rules[:i:i], r.n.rules[i+1:]...)
			break
		}
	}
	r.n.wakeAll()
}

// Drop ends the rule and resets the connections in which it holds bytes.
func (r *Rule) Drop() {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	for p := range r.n.pipes {
		for _, s := range p.streams() {
			if r.holds(s) && len(s.segments) > 0 {
				p.reset()
			}
		}
	}
	r.lift()
}

// Held is how many bytes the rule keeps in the network at the moment.
func (r *Rule) Held() int {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	held := 0
	for p := range r.n.pipes {
		for _, s := range p.streams() {
			if r.holds(s) {
				held += s.size
			}
		}
	}
	return held
}

// Hits is how often the rule has acted: writes delayed, held or thrown away,
// dials refused or kept waiting, connections cut.
func (r *Rule) Hits() int {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	return r.hits
}

func (r *Rule) holds(s *stream) bool {
	return r.matches(s.pipe.from, s.pipe.to) && (r.kind == partitionRule || r.kind == holdRule && r.dir == s.dir)
}

func (n *Network) add(r *Rule) *Rule {
	n.mu.Lock()
	defer n.mu.Unlock()
	r.n = n
	n.rules = append(n.rules, r)
	n.wakeAll()
	return r
}
