package lanemodel

// daemonSteps are the steps daemon i can take, and those of the broker on its
// requests.
func (m *model) daemonSteps(from *State, i int) {
	switch d := &from.Daemons[i]; d.Phase {
	case idle, earlyAuthority, initProducer, addPartition, endTxn, earlyJournal, readTarget, readAuthority, writeEpoch, checkEnd:
		m.openStep(from, i)
	case ready:
		m.sendStep(from, i)
		m.stopStep(from, i)
	case draining:
		if d.InFlight == 0 {
			s := *from
			m.doubt(&s, i)
			m.emit(&s, Step{Kind: opensAgain, Who: i})
		}
	case final:
		if s := *from; !s.Closed {
			s.Closed = true
			m.emit(&s, Step{Kind: authorityClosed, Who: i})
		}
	}
	m.waitStep(from, i)
	m.journalStep(from, i)
	m.answerSteps(from, i)
	m.misfortunes(from, i)
}

// doubt is how every doubt ends: what was sent is left to the network, the
// lane is opened again from the start.
func (m *model) doubt(s *State, i int) {
	d := &s.Daemons[i]
	s.dropWait(i)
	for _, r := range d.Flight[:d.InFlight] {
		if r.Answer != unanswered {
			continue
		}
		if s.LateCount == lateSize {
			s.overflow = true
			break
		}
		s.Late[s.LateCount] = request{Writer: r.Writer, Sequence: r.Sequence, Record: r.Record, Age: r.Age}
		s.LateCount++
	}
	if d.Journaling.Kind != noFact {
		if s.LateFactCt == lateFactsSize {
			s.overflow = true
		} else {
			s.LateFacts[s.LateFactCt] = d.Journaling
			s.LateFactCt++
		}
	}
	again := daemon{Phase: initProducer, Mine: d.Mine, MineQuiet: d.MineQuiet}
	if d.Phase >= ready && d.Phase <= closing {
		again.Mine, again.MineQuiet = d.Writer, d.Quiet
	}
	if !m.rules.AuthorityAfterEpoch && i != command {
		again.Phase = earlyAuthority
	}
	*d = again
}

// sendStep is the next step of an open lane: send, write a span, validate, or open again.
func (m *model) sendStep(from *State, i int) {
	s := *from
	d := &s.Daemons[i]
	if int(d.Next) == len(m.offsets) || d.InFlight == window {
		return
	}
	if m.offsets[d.Next] != d.MapSource+d.Ordinal-d.MapOrdinal {
		if d.Journaling.Kind != noFact {
			return
		}
		d.MapOrdinal, d.MapSource = d.Ordinal, m.offsets[d.Next]
		d.Journaling = fact{Kind: spanFact, Writer: d.Writer, Ordinal: d.MapOrdinal, Source: d.MapSource}
		if m.rules.SpansAhead {
			d.Phase = awaitSpan
		}
		m.emit(&s, Step{Kind: writesFact, Who: i, Fact: d.Journaling})
		return
	}
	if d.InFlight > 0 {
		if m.rules.FirstAlone && d.Flight[0].Sequence == 0 || m.rules.WindowOfOne && m.anythingOld(&s, d) {
			return
		}
	}
	inDoubt := m.rules.SameConnection && !d.Connected || m.overdue(d)
	expired := m.rules.Lease && !d.Credit
	if inDoubt || expired {
		if d.InFlight > 0 {
			return
		}
		if !inDoubt && m.validates(&s, d) {
			d.Credit, d.CreditAge = true, s.now()
			m.emit(&s, Step{Kind: validates, Who: i})
			return
		}
		m.doubt(&s, i)
		m.emit(&s, Step{Kind: opensAgain, Who: i})
		return
	}
	if m.rules.LeaseWait && !d.Quiet && m.isOld(&s, d.Next) {
		return // until waitStep
	}
	a := s.now()
	if m.rules.Lease {
		a = s.underCredit(d.CreditAge)
	}
	d.Flight[d.InFlight] = request{Writer: d.Writer, Sequence: d.Sequence, Record: d.Next, Age: a}
	d.InFlight++
	step := Step{Kind: sends, Who: i, Record: d.Next, Writer: d.Writer, Sequence: d.Sequence, Done: m.isOld(&s, d.Next)}
	d.Next++
	d.Ordinal++
	d.Sequence++
	m.emit(&s, step)
}

// anythingOld tells whether the last acknowledged batch or an unanswered one is old.
func (m *model) anythingOld(s *State, d *daemon) bool {
	if d.Last > 0 && m.isOld(s, d.Last-1) {
		return true
	}
	for _, r := range d.Flight[:d.InFlight] {
		if m.isOld(s, r.Record) {
			return true
		}
	}
	return false
}

// validates asks, on the lane's connection and with nothing in flight, whether the lane is still ours.
func (m *model) validates(s *State, d *daemon) bool {
	if m.rules.ValidateEnd && s.TargetEnd != d.Expected {
		return false
	}
	if p := s.Producers[d.Writer.ID]; m.options.ValidateEpoch && !(p.Known && p.Epoch == d.Writer.Epoch) {
		return false
	}
	if m.options.ValidateFresh && (d.Last == 0 || m.isOld(s, d.Last-1)) {
		return false
	}
	return true
}

// stopStep closes the lane cleanly: nothing in flight, and nothing is sent under this epoch any more.
func (m *model) stopStep(from *State, i int) {
	s := *from
	d := &s.Daemons[i]
	if d.InFlight > 0 || d.Journaling.Kind != noFact || !s.use(Stop) {
		return
	}
	d.Journaling = fact{Kind: closedFact, Writer: d.Writer, Ordinal: d.Ordinal, Quiet: d.Quiet || !m.rules.LeaseWait}
	d.Phase = closing
	s.dropWait(i)
	m.emit(&s, Step{Kind: writesFact, Who: i, Fact: d.Journaling})
}

// waitStep is the end of a wait for the lease.
func (m *model) waitStep(from *State, i int) {
	s := *from
	d := &s.Daemons[i]
	if !d.Waiting {
		return
	}
	s.endWait(i)
	if d.Phase == newIDWait {
		d.Phase, d.Second, d.Writer = initProducer, true, writer{}
	} else {
		d.Quiet = true
	}
	m.emit(&s, Step{Kind: waitsOut, Who: i, Done: d.Second && d.Phase == initProducer})
}

// journalStep is the journal's answer to the daemon's write.
func (m *model) journalStep(from *State, i int) {
	s := *from
	d := &s.Daemons[i]
	if d.Journaling.Kind == noFact {
		return
	}
	f := d.Journaling
	s.write(f)
	d.Journaling = fact{}
	switch d.Phase {
	case awaitEpoch:
		d.Phase = checkEnd
	case awaitSpan:
		d.Phase = ready
	case closing:
		*d = daemon{}
	}
	m.emit(&s, Step{Kind: factAnswered, Who: i, Fact: f})
	s = *from
	if s.use(Late) {
		m.doubt(&s, i)
		m.emit(&s, Step{Kind: factTimesOut, Who: i})
	}
}

// answerSteps let the broker process the daemon's first unprocessed request, and the daemon read its first answer.
func (m *model) answerSteps(from *State, i int) {
	for k := range from.Daemons[i].Flight[:from.Daemons[i].InFlight] {
		if from.Daemons[i].Flight[k].Answer != unanswered {
			continue
		}
		s := *from
		r := &s.Daemons[i].Flight[k]
		m.produce(&s, r)
		m.emit(&s, Step{Kind: processed, Who: i, Record: r.Record, Writer: r.Writer, Sequence: r.Sequence, Offset: r.Offset, Done: r.Answer == appended})
		if s.use(Lost) {
			r.Answer, r.Offset = lost, 0
			m.emit(&s, Step{Kind: answerLost, Who: i, Record: r.Record, Offset: s.TargetEnd - 1})
		}
		s = *from
		if s.use(Refuse) {
			r.Answer = refused
			m.emit(&s, Step{Kind: refuses, Who: i, Record: r.Record})
		}
		s = *from
		if s.use(Late) {
			m.doubt(&s, i)
			m.emit(&s, Step{Kind: timesOut, Who: i})
		}
		break
	}
	s := *from
	d := &s.Daemons[i]
	if d.InFlight == 0 || d.Flight[0].Answer == unanswered {
		return
	}
	r := d.Flight[0]
	if r.Answer == lost { // an unanswered request ends the connection
		m.doubt(&s, i)
		m.emit(&s, Step{Kind: timesOut, Who: i})
		return
	}
	d.Flight[0], d.Flight[1] = d.Flight[1], request{}
	d.InFlight--
	if r.Answer == refused || m.rules.BaseOffset && r.Offset != d.Expected {
		d.Phase = draining
		m.emit(&s, Step{Kind: readsTrouble, Who: i, Record: r.Record, Offset: r.Offset, Done: r.Answer == appended})
		return
	}
	d.Expected = r.Offset + 1
	d.Last = r.Record + 1
	if !m.rules.LeaseFromSending {
		d.Credit, d.CreditAge = true, s.now()
	} else if !r.Stale {
		d.Credit, d.CreditAge = true, r.Age
	}
	m.emit(&s, Step{Kind: readsAnswer, Who: i, Record: r.Record, Offset: r.Offset})
}

// misfortunes are what can befall a daemon at any moment.
func (m *model) misfortunes(from *State, i int) {
	d := &from.Daemons[i]
	if d.Phase == idle || d.Phase >= stopped {
		return
	}
	s := *from
	if i != command && s.use(Crash) {
		m.doubt(&s, i)
		s.Daemons[i] = daemon{}
		m.emit(&s, Step{Kind: crashes, Who: i})
	}
	s = *from
	if d.Credit && m.rules.Lease && s.use(Pause) {
		d := &s.Daemons[i]
		d.endCredit()
		for k := range d.Flight[:d.InFlight] {
			d.Flight[k].Stale = true
		}
		m.emit(&s, Step{Kind: pauses, Who: i})
	}
}
