package lanemodel

// model is a scenario laid out, with the rules in force.
type model struct {
	rules   Rules
	options Options
	offsets []uint8 // source offset of each record
	old     []bool  // whether it is old from the start
	epochs  uint8
	daemons int
	command bool
	emit    func(*State, Step)
}

func newModel(sc Scenario, rules Rules, options Options) (*model, State, error) {
	offsets, old, faults, err := sc.parse()
	if err != nil {
		return nil, State{}, err
	}
	return &model{rules: rules, options: options, offsets: offsets, old: old, epochs: uint8(sc.Epochs), daemons: sc.Daemons, command: sc.Command},
		State{Left: faults}, nil
}

// isOld tells whether a record counts as old: a broker may forget a producer
// whose last batch is old. The design calls old what is older than an hour,
// brokers forget after a day; the model lets them forget at once.
func (m *model) isOld(s *State, record uint8) bool { return m.old[record] || s.Aged&(1<<record) != 0 }

// produce is the partition leader's answer to a produce request.
func (m *model) produce(s *State, r *request) {
	p := &s.Producers[r.Writer.ID]
	r.Answer = refused
	if p.Known {
		switch {
		case r.Writer.Epoch < p.Epoch:
			return
		case r.Writer.Epoch > p.Epoch:
			if r.Sequence != 0 {
				return
			}
		case r.Sequence < p.Next: // a duplicate: the original's offset, no error
			for o, b := range s.target() {
				if !b.Control && b.Writer == r.Writer && b.Sequence == r.Sequence {
					r.Answer, r.Offset = appended, uint8(o)
				}
			}
			return
		case r.Sequence > p.Next:
			return
		}
	}
	// A producer the partition does not know is taken at any epoch and sequence.
	r.Answer, r.Offset = appended, s.push(batch{Writer: r.Writer, Sequence: r.Sequence, Record: r.Record})
	*p = producer{Known: true, Epoch: r.Writer.Epoch, Next: r.Sequence + 1, Forgettable: m.isOld(s, r.Record)}
}

// control appends a control record, unless a higher epoch is known.
func (s *State) control(w writer) {
	p := &s.Producers[w.ID]
	if p.Known && w.Epoch < p.Epoch {
		return
	}
	s.push(batch{Control: true, Writer: w})
	if !p.Known || w.Epoch > p.Epoch {
		p.Next = 0
	}
	p.Known, p.Epoch, p.Forgettable = true, w.Epoch, false // its timestamp is the broker's clock
}

// disconnect closes every connection to the leader: what has not been
// processed never will be.
func (s *State) disconnect() {
	s.Late, s.LateCount = [lateSize]request{}, 0
	for i := range s.Daemons {
		d := &s.Daemons[i]
		d.Connected = false
		for k := range d.Flight[:d.InFlight] {
			if d.Flight[k].Answer == unanswered {
				d.Flight[k].Answer = lost
			}
		}
	}
}

// passTime lets far more time pass than any request or lease lives.
func (m *model) passTime(s *State) {
	s.Late, s.LateCount = [lateSize]request{}, 0
	m.age(s)
}

// age ends all leases and has the partition forget everybody. Behind a final
// failover the guard has taken the epoch anew meanwhile: it alone is remembered.
func (m *model) age(s *State) {
	s.Txn.Copy = writer{}
	for i := range s.Daemons {
		d := &s.Daemons[i]
		d.endCredit()
		d.Overdue = d.Phase > initProducer && d.Phase < stopped
		for k := range d.Flight[:d.InFlight] {
			d.Flight[k].expire()
		}
		for n := range d.Next { // what was read so far is old now
			s.Aged |= 1 << n
		}
	}
	s.Producers = [2]producer{}
	if m.rules.Guard && m.isFinal(s) && !s.Txn.Forgotten {
		if s.Txn.Epoch < m.epochs {
			s.Txn.Epoch++
		}
		s.control(s.Txn.writer)
	}
}

// isFinal says whether the failover has declared the lane's end.
func (m *model) isFinal(s *State) bool { return m.command && s.Daemons[command].Phase == final }

// worldSteps are the steps of the brokers and of the network.
func (m *model) worldSteps(from *State) {
	m.networkSteps(from)
	m.partitionSteps(from)
	m.coordinatorSteps(from)
}

func (m *model) networkSteps(from *State) {
	for k := range from.Late[:from.LateCount] {
		r := from.Late[k]
		first := true // one connection delivers in order
		for _, before := range from.Late[:k] {
			first = first && before.Writer != r.Writer
		}
		if !first {
			continue
		}
		s := *from
		copy(s.Late[k:], s.Late[k+1:])
		s.LateCount--
		s.Late[s.LateCount] = request{}
		without := s
		m.produce(&s, &r)
		m.emit(&s, Step{Kind: lateRequest, Record: r.Record, Writer: r.Writer, Sequence: r.Sequence, Offset: r.Offset, Done: r.Answer == appended})
		if without.use(Refuse) {
			m.emit(&without, Step{Kind: lateRefused, Record: r.Record, Writer: r.Writer})
		}
	}
	for k := range from.LateFacts[:from.LateFactCt] {
		s := *from
		f := s.LateFacts[k]
		copy(s.LateFacts[k:], s.LateFacts[k+1:])
		s.LateFactCt--
		s.LateFacts[s.LateFactCt] = fact{}
		s.write(f)
		m.emit(&s, Step{Kind: lateFact, Writer: f.Writer, Fact: f})
	}
}

func (m *model) partitionSteps(from *State) {
	s := *from
	if s.use(Restart) {
		for p := range s.Producers {
			if s.Producers[p].Forgettable {
				s.Producers[p] = producer{}
			}
		}
		s.disconnect()
		m.emit(&s, Step{Kind: brokerRestarts})
	}
	for p := range from.Producers {
		s = *from
		if s.Producers[p].Forgettable && s.use(Forget) {
			s.Producers[p] = producer{}
			m.emit(&s, Step{Kind: brokerForgets, Writer: writer{ID: uint8(p)}})
		}
	}
	s = *from
	if s.Txn.Stage == txnNone && s.use(Day) {
		m.passTime(&s)
		m.emit(&s, Step{Kind: dayPasses})
	}
	s = *from
	if s.LateCount > 0 && s.Txn.Stage == txnNone && m.isFinal(&s) && s.use(Stray) {
		m.age(&s)
		m.emit(&s, Step{Kind: requestOutlivesDay})
	}
	for n := uint8(1); n <= 2; n++ {
		s = *from
		if s.TargetEnd < n || !s.use(Truncate) {
			continue
		}
		s.TargetEnd -= n
		clear(s.Target[s.TargetEnd:])
		s.Producers = [2]producer{}
		for _, b := range s.target() { // the new leader's memory comes from its own log
			p := &s.Producers[b.Writer.ID]
			if b.Control {
				if !p.Known || b.Writer.Epoch > p.Epoch {
					p.Next = 0
				}
				p.Forgettable = false
			} else {
				p.Next, p.Forgettable = b.Sequence+1, m.isOld(&s, b.Record)
			}
			p.Known, p.Epoch = true, b.Writer.Epoch
		}
		s.disconnect()
		m.emit(&s, Step{Kind: tailLost, Offset: n})
	}
}

func (m *model) coordinatorSteps(from *State) {
	s := *from
	c := &s.Txn
	if c.Stage == txnEnding {
		s.control(c.writer)
		c.Stage = txnNone
		m.emit(&s, Step{Kind: controlWritten, Writer: c.writer, Offset: from.TargetEnd})
		if c.Copy == (writer{}) && s.use(CopyControl) {
			c.Copy = c.writer
			m.emit(&s, Step{Kind: controlCopied, Writer: c.writer, Offset: from.TargetEnd})
		}
	}
	if w := from.Txn.Copy; w != (writer{}) {
		s = *from
		c.Copy = writer{}
		s.control(w)
		m.emit(&s, Step{Kind: lateControl, Writer: w, Offset: from.TargetEnd})
	}
	s = *from
	if c.Stage == txnOpen && c.Epoch < m.epochs && s.use(TxnTimeout) {
		c.Epoch++
		c.Stage = txnEnding
		m.emit(&s, Step{Kind: txnTimesOut, Writer: c.writer})
	}
	if from.Txn.Stage != txnNone || from.Txn.Forgotten || from.Txn.Epoch == 0 {
		return
	}
	s = *from
	if c.Epoch < m.epochs && s.use(StrayInit) {
		c.Epoch++
		m.emit(&s, Step{Kind: strayInit, Writer: c.writer})
	}
	s = *from
	if s.hasSeen(c.writer) && s.use(TxnBack) {
		c.Epoch--
		m.emit(&s, Step{Kind: txnGoesBack, Writer: c.writer})
	}
	if c.ID != 0 { // one change of the producer id is enough
		return
	}
	s = *from
	if s.use(TxnLost) {
		c.Forgotten = true
		m.emit(&s, Step{Kind: txnForgotten})
	}
	s = *from
	if s.use(TxnExpire) {
		// A week without an opening. Lanes open again every day, so a week later no
		// holder may still send; without that rule a healthy writer goes on.
		c.Forgotten = true
		if m.rules.DailyOpening {
			m.passTime(&s)
		}
		m.emit(&s, Step{Kind: txnExpires})
	}
}
