package lanemodel

import (
	"fmt"
	"hash/maphash"
	"strings"
)

// Result is what a search found.
type Result struct {
	States    int  // different states seen
	Depth     int  // steps of the longest shortest path
	Exhausted bool // every reachable state was seen
	Copied    bool // some run copied every record: the scenario is not stuck by construction
	Overflow  bool // a state needed more room than the model has: the search is not complete
	Steps     [stepKinds]int
	Violation string // "" or what is wrong in the last state of Story
	Story     []Step // the shortest run into the violation
	End       State
}

// Run searches the scenario breadth first until a violation is found, every
// state was seen, or limit states were.
func Run(sc Scenario, rules Rules, options Options, limit int) (Result, error) {
	m, first, err := newModel(sc, rules, options)
	if err != nil {
		return Result{}, err
	}
	var res Result
	seed := maphash.MakeSeed()
	hash := func(s *State) uint64 { return maphash.Comparable(seed, *s) | 1 }
	seen := newTable()
	seen.add(hash(&first), 0)
	level := []State{first}
	var parent uint64
	var next []State
	var found uint64
	m.emit = func(s *State, p Step) {
		if found != 0 {
			return
		}
		res.Steps[p.Kind]++
		if s.overflow {
			res.Overflow = true
			return
		}
		h := hash(s)
		if !seen.add(h, parent) {
			return
		}
		if wrong := m.check(s, &res); wrong != "" {
			res.Violation, res.End, found = wrong, *s, h
			return
		}
		next = append(next, *s)
	}
	for len(level) > 0 && found == 0 && seen.n < limit {
		next = next[:0]
		for i := range level {
			parent = hash(&level[i])
			m.successors(&level[i])
			if found != 0 {
				break
			}
		}
		level, next = next, level
		if len(level) > 0 || found != 0 {
			res.Depth++
		}
	}
	res.States = seen.n
	res.Exhausted = found == 0 && len(level) == 0 && !res.Overflow
	if found != 0 {
		res.Story = m.retell(first, found, seen, hash)
	}
	return res, nil
}

func (m *model) successors(s *State) {
	for i := range s.Daemons {
		if i == command && m.command || i < m.daemons {
			m.daemonSteps(s, i)
		}
	}
	m.worldSteps(s)
}

// retell walks from the first state to the found one and notes the steps.
func (m *model) retell(first State, found uint64, seen *table, hash func(*State) uint64) []Step {
	var path []uint64
	for h := found; h != 0; h = seen.parent(h) {
		path = append(path, h)
	}
	var story []Step
	state := first
	for i := len(path) - 2; i >= 0; i-- {
		var to State
		var how *Step
		m.emit = func(s *State, p Step) {
			if how == nil && hash(s) == path[i] {
				to, how = *s, &p
			}
		}
		m.successors(&state)
		if how == nil {
			break
		}
		story, state = append(story, *how), to
	}
	return story
}

// check tells what is wrong in a state, "" if nothing is.
func (m *model) check(s *State, res *Result) string {
	copied := uint8(0)
	for _, b := range s.target() {
		if b.Control {
			continue
		}
		switch {
		case b.Record < copied:
			return "a record is doubled or out of order"
		case b.Record > copied:
			return "a record is missing"
		}
		ordinal, source, ok := resolve(s.journal(), b.Writer, b.Sequence)
		switch {
		case !ok:
			return "a record on the target without an epoch record in the journal"
		case ordinal != copied || source != m.offsets[copied]:
			return "the journal gives a wrong source offset for a record on the target"
		}
		copied++
	}
	if int(copied) == len(m.offsets) {
		res.Copied = true
	}
	for i := range s.Daemons {
		switch d := &s.Daemons[i]; d.Phase {
		case halted:
			return "an opener finds records the journal cannot translate"
		case misplaced:
			return "an opener works out a wrong position"
		case final:
			for o := d.Control; o < s.TargetEnd; o++ {
				if !s.Target[o].Control {
					return "data behind the final end of a failover"
				}
			}
		}
	}
	return ""
}

// Tell writes the result down as a story.
func (r Result) Tell() string {
	var b strings.Builder
	if r.Violation == "" {
		how := "not exhausted"
		if r.Exhausted {
			how = "exhausted"
		}
		fmt.Fprintf(&b, "clean: %d states, depth %d, %s\n", r.States, r.Depth, how)
		return b.String()
	}
	fmt.Fprintf(&b, "VIOLATION after %d steps (%d states): %s\n", len(r.Story), r.States, r.Violation)
	for i, p := range r.Story {
		fmt.Fprintf(&b, "%3d. %v\n", i+1, p)
	}
	b.WriteString("target:\n")
	for o, e := range r.End.target() {
		if e.Control {
			fmt.Fprintf(&b, "  %2d control record %v\n", o, e.Writer)
		} else {
			fmt.Fprintf(&b, "  %2d record %d %v sequence %d\n", o, e.Record, e.Writer, e.Sequence)
		}
	}
	b.WriteString("journal:\n")
	for _, f := range r.End.journal() {
		fmt.Fprintf(&b, "  %v\n", f)
	}
	return b.String()
}

// table holds the hashes of the states seen, each with the hash of the state
// it was first reached from. Hashes have 64 bits; that two of some ten
// million states share one, and hide a violation, is a chance in a million.
type table struct {
	keys, parents []uint64
	n             int
}

func newTable() *table { return &table{keys: make([]uint64, 1<<14), parents: make([]uint64, 1<<14)} }

func (t *table) slot(h uint64) uint64 {
	mask := uint64(len(t.keys) - 1)
	i := (h >> 1) & mask
	for t.keys[i] != 0 && t.keys[i] != h {
		i = (i + 1) & mask
	}
	return i
}

func (t *table) add(h, parent uint64) bool {
	i := t.slot(h)
	if t.keys[i] == h {
		return false
	}
	t.keys[i], t.parents[i] = h, parent
	t.n++
	if t.n*4 > len(t.keys)*3 {
		keys, parents := t.keys, t.parents
		t.keys, t.parents = make([]uint64, 2*len(keys)), make([]uint64, 2*len(keys))
		for k, h := range keys {
			if h != 0 {
				j := t.slot(h)
				t.keys[j], t.parents[j] = h, parents[k]
			}
		}
	}
	return true
}

func (t *table) parent(h uint64) uint64 { return t.parents[t.slot(h)] }
