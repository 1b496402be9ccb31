package lanemodel

// openStep is the next step of an opening.
func (m *model) openStep(from *State, i int) {
	s := *from
	d, c := &s.Daemons[i], &s.Txn
	switch d.Phase {
	case idle:
		if i == 1 && c.Epoch == 0 && s.Daemons[0].Phase == idle {
			return // A and B are alike: A is who starts first
		}
		m.doubt(&s, i)
		m.emit(&s, Step{Kind: starts, Who: i})

	case earlyAuthority:
		d.Phase = initProducer
		if s.Closed {
			*d = daemon{Phase: stopped}
		}
		m.emit(&s, Step{Kind: readsAuthority, Who: i, Done: s.Closed})

	case initProducer:
		if i == command && m.rules.AuthorityBeforeFence && !s.Closed {
			s.Closed = true
			m.emit(&s, Step{Kind: authorityClosed, Who: i})
			return
		}
		m.initProducerID(&s, i)

	case addPartition:
		switch {
		case d.Writer != c.writer || c.Forgotten:
			m.doubt(&s, i)
			m.emit(&s, Step{Kind: fencedByCoordinator, Who: i})
		case c.Stage == txnNone:
			c.Stage = txnOpen
			d.Phase = endTxn
			m.emit(&s, Step{Kind: addsPartition, Who: i})
		}

	case endTxn:
		if d.Writer != c.writer || c.Stage != txnOpen {
			m.doubt(&s, i)
			m.emit(&s, Step{Kind: fencedByCoordinator, Who: i})
			return
		}
		c.Stage = txnEnding
		d.Phase = readTarget
		if !m.rules.JournalAfterControl {
			d.Phase = earlyJournal
		}
		m.emit(&s, Step{Kind: endsTxn, Who: i})

	case earlyJournal:
		d.SeenEarly = s.JournalEnd
		d.Phase = readTarget
		m.emit(&s, Step{Kind: readsJournalEarly, Who: i})

	case readTarget:
		if !m.rules.Barrier {
			m.readPosition(&s, i, s.TargetEnd)
			return
		}
		for o, b := range from.target() { // usually one, and a reader may start behind the first
			if b.Control && b.Writer == d.Writer {
				again := *from
				m.readPosition(&again, i, uint8(o+1))
			}
		}

	case readAuthority:
		d.Phase = writeEpoch
		if s.Closed {
			s.dropWait(i)
			*d = daemon{Phase: stopped}
		}
		m.emit(&s, Step{Kind: readsAuthority, Who: i, Done: s.Closed})

	case writeEpoch:
		if m.rules.EndCheck && !m.rules.EndCheckLast {
			if !m.endIsOurs(&s, i) {
				return
			}
			d.Credit, d.CreditAge = true, s.now()
		}
		d.Journaling = fact{Kind: epochFact, Writer: d.Writer, Ordinal: d.Ordinal, Source: d.MapSource}
		d.Phase = awaitEpoch
		if !m.rules.EpochRecordFirst {
			d.Phase = checkEnd
		}
		m.emit(&s, Step{Kind: writesFact, Who: i, Fact: d.Journaling})

	case checkEnd:
		if m.rules.EndCheck && m.rules.EndCheckLast {
			if !m.endIsOurs(&s, i) {
				return
			}
			d.Credit, d.CreditAge = true, s.now()
		}
		if !m.rules.EndCheck {
			d.Credit, d.CreditAge = true, s.now()
		}
		if !m.rules.ReadOnConnection {
			d.Connected = true
		}
		d.Phase = ready
		m.emit(&s, Step{Kind: openingCounts, Who: i, Writer: d.Writer})
	}
}

// initProducerID is the coordinator's answer.
func (m *model) initProducerID(s *State, i int) {
	d, c := &s.Daemons[i], &s.Txn
	switch {
	case c.Stage == txnEnding:
		return
	case c.Forgotten:
		*c = coordinator{writer: writer{ID: 1, Epoch: 1}, Copy: c.Copy}
	case c.Epoch >= m.epochs:
		return
	default:
		c.Epoch++
	}
	if c.Stage == txnOpen {
		c.Stage = txnEnding
		m.emit(s, Step{Kind: abortsOther, Who: i, Writer: c.writer})
		return
	}
	if m.rules.EpochAbove && s.hasSeen(c.writer) {
		m.emit(s, Step{Kind: takesAnother, Who: i, Writer: c.writer})
		return
	}
	d.Writer = c.writer
	d.Phase = addPartition
	if !m.rules.Barrier {
		d.Phase = readTarget
		d.SeenEarly = s.JournalEnd
	}
	m.emit(s, Step{Kind: takesEpoch, Who: i, Writer: c.writer})
}

// hasSeen tells whether journal or target show this epoch, or one above it, for the producer id.
func (s *State) hasSeen(w writer) bool {
	for _, f := range s.journal() {
		if f.Writer.ID == w.ID && f.Writer.Epoch >= w.Epoch {
			return true
		}
	}
	for _, b := range s.target() {
		if b.Writer.ID == w.ID && b.Writer.Epoch >= w.Epoch {
			return true
		}
	}
	return false
}

// readPosition, the own control record seen below end, reads the journal and
// works out where the lane stands: from the last batch below end and what the
// journal says of its writer.
func (m *model) readPosition(s *State, i int, end uint8) {
	d := &s.Daemons[i]
	known := s.journal()
	if !m.rules.JournalAfterControl {
		known = known[:d.SeenEarly]
	}
	last, isClosed, quiet := lastEpoch(known)
	s.beginWait(i) // the earliest moment it may begin is the hardest case
	skipClosed := m.options.SkipClosed && isClosed && (quiet || !m.rules.QuietClose)
	if m.rules.TwoBarriers && !d.Second && last != (writer{}) && last.ID != d.Writer.ID && !(m.options.SkipNewID && skipClosed) {
		d.Phase = newIDWait
		m.emit(s, Step{Kind: seesOtherID, Who: i, Writer: last})
		return
	}

	var ordinal, source, total uint8
	for _, b := range s.Target[:end] {
		if b.Control {
			continue
		}
		total++
		o, src, ok := resolve(known, b.Writer, b.Sequence)
		if !ok {
			d.Phase = halted
			m.emit(s, Step{Kind: cannotTranslate, Who: i})
			return
		}
		ordinal, source = o+1, src+1
	}
	next := uint8(0)
	for int(next) < len(m.offsets) && m.offsets[next] < source {
		next++
	}
	if ordinal != total || next != total {
		d.Phase = misplaced
		m.emit(s, Step{Kind: findsPosition, Who: i, Record: next, Offset: end})
		return
	}
	d.Ordinal, d.Next = ordinal, next
	d.MapOrdinal, d.MapSource = ordinal, source
	d.Control, d.Expected = end, end
	d.Connected = true
	switch {
	case m.options.SkipFirst && last == (writer{}),
		skipClosed && last.ID == d.Writer.ID,
		skipClosed && m.options.SkipNewID,
		!m.rules.OwnRequestsToo && last == d.Mine && last != (writer{}) && d.MineQuiet:
		d.Quiet = true
		s.dropWait(i)
	}
	switch {
	case i == command:
		d.Phase = final
		s.dropWait(i)
	case m.rules.AuthorityAfterEpoch:
		d.Phase = readAuthority
	default:
		d.Phase = writeEpoch
	}
	m.emit(s, Step{Kind: findsPosition, Who: i, Record: next, Offset: d.Control, Done: d.Quiet})
}

// endIsOurs asks the leader for its end; false: the opening does not count and starts again.
func (m *model) endIsOurs(s *State, i int) bool {
	d := &s.Daemons[i]
	connected := d.Connected || !m.rules.ReadOnConnection || !m.rules.SameConnection
	if s.TargetEnd == d.Control && connected && !m.overdue(d) {
		return true
	}
	m.doubt(s, i)
	m.emit(s, Step{Kind: openingFails, Who: i})
	return false
}

func (m *model) overdue(d *daemon) bool { return m.rules.DailyOpening && d.Overdue }
