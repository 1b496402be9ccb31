package evidence

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// reportVersion is raised with every change of what report or summary say of the same events.
const reportVersion = 2

// reportFormat says who writes a report the same way, byte by byte.
func reportFormat() string { return fmt.Sprintf("%d/%s", reportVersion, runtime.Version()) }

// Story is what the events of a run tell, the last word of each kind. It is a function of the
// events alone.
type Story struct {
	Run    string
	Plan   PlanDoc
	Begun  time.Time // first event
	Last   time.Time // last event
	Head   Anchor
	Events []Event

	// Outcome is nil while the run has none: it goes on, or was killed.
	Outcome *OutcomeDoc
	Steps   []StepLine
	Resumed []time.Time // when the run was taken up again
	Before  *RegionsDoc
	After   *RegionsDoc
	Gates   GatesDoc
	Copies  []AuthorityTable
	Loss    *LossDoc // estimated
	Actual  *LossDoc // counted
	Growth  GrowthDoc
	Lanes   LanesDoc
	// LanesStep is the step whose end Lanes show.
	LanesStep string
	Checks    []CheckLine
	Verify    []VerifyLine
	Groups    GroupsDoc
	Fence     *FenceDoc
	Stranded  *StrandedDoc
	Exports   []ExportLine
	Hooks     []HookDoc

	// Unread are events whose documents this version does not understand.
	Unread []string
}

// StepLine is one step in the order of time.
type StepLine struct {
	StepDoc
	From float64 // seconds since the run's first event
	To   float64
}

// ExportLine is a file of stranded records.
type ExportLine struct {
	File    string
	SHA256  string
	Records int64
}

// export notes the file of a document, which has the rows of all its parts. A file is told
// of again when its command was killed before it appeared.
func (s *Story) export(d *StrandedDoc, part int) {
	if d.File == "" {
		return
	}
	line := ExportLine{File: d.File, SHA256: d.SHA256}
	for i := range d.Rows {
		line.Records += d.Rows[i].Records
	}
	same := func(l ExportLine) bool { return l.File == d.File && l.SHA256 == d.SHA256 }
	if i := slices.IndexFunc(s.Exports, same); i >= 0 && part > 1 {
		line.Records += s.Exports[i].Records
	}
	s.Exports = append(slices.DeleteFunc(s.Exports, same), line)
}

// CheckLine is one check with its step.
type CheckLine struct {
	Check
	Step string
}

// VerifyLine is what one step compared.
type VerifyLine struct {
	VerifyDoc
	Step string
}

// AuthorityTable is one look at all copies of the authority record.
type AuthorityTable struct {
	AuthorityDoc
	Step string
}

// Verb of the run, also where its plan is not there.
func (s *Story) Verb() string {
	if s.Plan.Verb != "" {
		return s.Plan.Verb
	}
	return "run"
}

// Result is the outcome, or unfinished.
func (s *Story) Result() string {
	if s.Outcome == nil {
		return "unfinished"
	}
	return s.Outcome.Outcome
}

// EpochAfter is the authority's epoch when the run ended, as the last look at it had it. ok is
// false where the run did not look.
func (s *Story) EpochAfter() (epoch int64, ok bool) {
	if len(s.Copies) == 0 {
		return 0, false
	}
	for _, c := range s.Copies[len(s.Copies)-1].Copies {
		if c.Reachable && c.Error == "" {
			epoch, ok = max(epoch, c.Epoch), true
		}
	}
	return epoch, ok
}

// Tell reads the events of a run, which a [Chain] has checked.
func Tell(events []Event) *Story {
	s := &Story{Events: events}
	for i := range events {
		e := &events[i]
		if i == 0 {
			s.Run, s.Begun = e.Run, e.Time
		}
		s.Last, s.Head = e.Time, Anchor{Seq: e.Seq, Hash: e.Hash}
		if e.Kind != KindOutcome {
			s.Outcome = nil // the run went on
		}
		if err := s.take(e); err != nil {
			s.Unread = append(s.Unread, err.Error())
		}
	}
	return s
}

func (s *Story) take(e *Event) error {
	switch e.Kind {
	case KindPlan:
		doc, err := Decode[PlanDoc](*e)
		if err != nil {
			return err
		}
		if s.Plan.Verb != "" {
			s.Resumed = append(s.Resumed, e.Time)
			return nil // what it set out to do first is what it did
		}
		s.Plan = doc
	case KindRegions:
		doc, err := Decode[RegionsDoc](*e)
		if err != nil {
			return err
		}
		if doc.When == After {
			s.After = &doc
		} else if s.Before == nil {
			s.Before = &doc
		}
	case KindGates:
		return last(e, &s.Gates)
	case KindAuthority:
		doc, err := Decode[AuthorityDoc](*e)
		if err != nil {
			return err
		}
		s.Copies = append(s.Copies, AuthorityTable{doc, e.Step})
	case KindLoss:
		return s.takeLoss(e)
	case KindGrowth:
		return more(e, &s.Growth)
	case KindLanes:
		s.LanesStep = e.Step
		if e.Part > 1 {
			return more(e, &s.Lanes)
		}
		return last(e, &s.Lanes)
	case KindChecks:
		doc, err := Decode[ChecksDoc](*e)
		if err != nil {
			return err
		}
		for _, c := range doc {
			s.Checks = append(s.Checks, CheckLine{c, e.Step})
		}
	case KindVerify:
		doc, err := Decode[VerifyDoc](*e)
		if err != nil {
			return err
		}
		// A step that was done again compares again.
		s.Verify = slices.DeleteFunc(s.Verify, func(v VerifyLine) bool { return v.Step == e.Step })
		s.Verify = append(s.Verify, VerifyLine{doc, e.Step})
	case KindGroups:
		if e.Part > 1 {
			return more(e, &s.Groups)
		}
		return last(e, &s.Groups)
	case KindFence:
		doc, err := Decode[FenceDoc](*e)
		if err != nil {
			return err
		}
		if e.Part > 1 && s.Fence != nil {
			doc.Rows = append(s.Fence.Rows, doc.Rows...)
		}
		s.Fence = &doc
	case KindStranded:
		doc, err := Decode[StrandedDoc](*e)
		if err != nil {
			return err
		}
		s.export(&doc, e.Part)
		s.takeStranded(doc)
	case KindHook:
		doc, err := Decode[HookDoc](*e)
		if err != nil {
			return err
		}
		s.Hooks = append(s.Hooks, doc)
	case KindStep:
		doc, err := Decode[StepDoc](*e)
		if err != nil {
			return err
		}
		s.takeStep(doc, e.Time.Sub(s.Begun).Seconds())
	case KindOutcome:
		doc, err := Decode[OutcomeDoc](*e)
		if err != nil {
			return err
		}
		s.Outcome = &doc
	default:
		return fmt.Errorf("event %d is of kind %.40q, which this version does not know", e.Seq, e.Kind)
	}
	return nil
}

// takeStranded puts what a call of the run found to what earlier calls found. A call that
// goes on finds only what no earlier one has dealt with, and what was written since.
func (s *Story) takeStranded(doc StrandedDoc) {
	if s.Stranded == nil {
		s.Stranded = &StrandedDoc{Rows: []StrandedRow{}}
	}
	type lane struct {
		topic     string
		partition int32
	}
	found, of := s.Stranded.Rows, map[lane][]int{}
	for i := range found {
		at := lane{found[i].Topic, found[i].Partition}
		of[at] = append(of[at], i)
	}
	for _, row := range doc.Rows {
		at := lane{row.Topic, row.Partition}
		n := slices.IndexFunc(of[at], func(i int) bool {
			f := &found[i]
			return f.From == row.From || f.From < row.From && row.From < f.To
		})
		switch {
		case n < 0:
			of[at] = append(of[at], len(found))
			found = append(found, row)
		case found[of[at][n]].From == row.From:
			found[of[at][n]] = row
		}
		// Else it is the rest of a range, in a file of its own: counted already.
	}
	doc.Rows = found
	s.Stranded = &doc
}

func (s *Story) takeLoss(e *Event) error {
	doc, err := Decode[LossDoc](*e)
	switch {
	case err != nil:
		return err
	case doc.Actual:
		s.takeActual(doc)
	default:
		if e.Part > 1 && s.Loss != nil {
			doc.Rows = append(s.Loss.Rows, doc.Rows...)
		}
		s.Loss = &doc
	}
	return nil
}

// takeActual puts what a call of the run counted to what earlier calls counted. A row is a
// topic, of which calls may have counted different partitions: the ranges they found, which
// the run tells of before, say how many records these are together.
func (s *Story) takeActual(doc LossDoc) {
	counted := []LossRow{}
	if s.Actual != nil {
		counted = s.Actual.Rows
	}
	at := make(map[string]int, len(counted))
	for i := range counted {
		at[counted[i].Topic] = i
	}
	for _, row := range doc.Rows {
		i, told := at[row.Topic]
		if !told {
			at[row.Topic] = len(counted)
			counted = append(counted, row)
			continue
		}
		if former := counted[i].Seconds; former != nil && (row.Seconds == nil || *row.Seconds < *former) {
			row.Seconds = former
		}
		row.Records, row.Bytes = s.strandedOf(row)
		counted[i] = row
	}
	doc.Rows = counted
	s.Actual = &doc
}

// strandedOf are the records and bytes of all ranges of a topic, or those of the row if there is none.
func (s *Story) strandedOf(row LossRow) (records int64, bytes *int64) {
	ranges := 0
	bytes = new(int64)
	if s.Stranded != nil {
		for _, f := range s.Stranded.Rows {
			if f.Topic != row.Topic {
				continue
			}
			ranges++
			records += f.Records
			if f.Bytes == nil || bytes == nil {
				bytes = nil // not known of all
				continue
			}
			*bytes += *f.Bytes
		}
	}
	if ranges == 0 {
		return row.Records, row.Bytes
	}
	return records, bytes
}

// takeStep puts the end of a step where its beginning stands.
func (s *Story) takeStep(doc StepDoc, at float64) {
	at = max(0, at) // clocks may be set
	line := StepLine{StepDoc: doc, From: at, To: at}
	if doc.Outcome == StepBegun {
		s.Steps = append(s.Steps, line)
		return
	}
	if n := len(s.Steps); n > 0 && s.Steps[n-1].Name == doc.Name && s.Steps[n-1].Outcome == StepBegun {
		line.From = s.Steps[n-1].From
		s.Steps[n-1] = line
		return
	}
	line.From = max(0, at-max(0, doc.Took))
	s.Steps = append(s.Steps, line)
}

func last[T ~[]E, E any](e *Event, to *T) error {
	doc, err := Decode[T](*e)
	if err != nil {
		return err
	}
	*to = doc
	return nil
}

func more[T ~[]E, E any](e *Event, to *T) error {
	doc, err := Decode[T](*e)
	if err != nil {
		return err
	}
	*to = append(*to, doc...)
	return nil
}

// SummaryDoc is summary.json.
type SummaryDoc struct {
	Run       string    `json:"run"`
	Verb      string    `json:"verb"`
	Link      string    `json:"link,omitempty"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Outcome   string    `json:"outcome"` // done, failed, undone, interrupted, refused, unfinished
	Error     string    `json:"error,omitempty"`
	Next      string    `json:"next,omitempty"`
	By        string    `json:"by"`
	Why       string    `json:"why,omitempty"`
	Tool      string    `json:"tool"`
	Begun     time.Time `json:"begun"`
	LastEvent time.Time `json:"last_event"`
	Took      *float64  `json:"took_seconds,omitempty"`

	EpochBefore int64  `json:"epoch_before"`
	EpochAfter  *int64 `json:"epoch_after,omitempty"`

	WritersFencedSeconds *float64 `json:"writers_fenced_seconds,omitempty"`
	RTO                  *float64 `json:"rto_seconds,omitempty"`
	LossSeen             *int64   `json:"loss_seen_records,omitempty"`      // estimated: at least
	LossEstimated        *int64   `json:"loss_estimated_records,omitempty"` // estimated: at most
	LossActual           *int64   `json:"loss_actual_records,omitempty"`
	Compared             *int64   `json:"records_compared,omitempty"`
	Differences          *int64   `json:"differences,omitempty"`
	LanesFenced          *int     `json:"lanes_fenced,omitempty"`
	LanesRefused         *int     `json:"lanes_refused,omitempty"`
	GroupsOffsets        int      `json:"group_offsets"`
	GroupsProved         int      `json:"group_offsets_proved"`

	Steps  []StepDoc `json:"steps"`
	Events int       `json:"events"`
	Head   string    `json:"head"`
}

// Brief is the story in a few fields.
func (s *Story) Brief() SummaryDoc {
	d := SummaryDoc{
		Run: s.Run, Verb: s.Verb(), Link: s.Plan.Link, From: s.Plan.From, To: s.Plan.To, Outcome: s.Result(), By: s.Plan.By, Why: s.Plan.Why, Tool: s.Plan.Tool,
		Begun: s.Begun, LastEvent: s.Last, EpochBefore: s.Plan.Epoch, Steps: []StepDoc{}, Events: len(s.Events), Head: s.Head.Hash,
	}
	if o := s.Outcome; o != nil {
		d.Error, d.Next, d.Took, d.WritersFencedSeconds, d.RTO = o.Error, o.Next, &o.Took, o.WritersFencedSeconds, o.RTO
	}
	if epoch, ok := s.EpochAfter(); ok {
		d.EpochAfter = &epoch
	}
	if least, most, ok := s.Loss.Between(); ok {
		d.LossSeen, d.LossEstimated = &least, &most
	}
	if _, n, ok := s.Actual.Between(); ok {
		d.LossActual = &n
	}
	if len(s.Verify) > 0 {
		records, differences := s.compared()
		d.Compared, d.Differences = &records, &differences
	}
	if s.Fence != nil {
		d.LanesFenced, d.LanesRefused = &s.Fence.Fenced, &s.Fence.Refused
	}
	d.GroupsOffsets = len(s.Groups)
	for i := range s.Groups {
		if p := s.Groups[i].Proved; p != nil && *p {
			d.GroupsProved++
		}
	}
	for i := range s.Steps {
		d.Steps = append(d.Steps, s.Steps[i].StepDoc)
	}
	return d
}

// compared are the records that were compared in all steps, and the differences found.
func (s *Story) compared() (records, differences int64) {
	for i := range s.Verify {
		records += s.Verify[i].Records
		differences += s.Verify[i].Differences
	}
	return records, differences
}

// Between says between what numbers the loss of all topics lies, in records; the two are one
// where it was counted. False: not known.
func (d *LossDoc) Between() (least, most int64, ok bool) {
	if d == nil {
		return 0, 0, false
	}
	for i := range d.Rows {
		least += d.Rows[i].AtLeast()
		most += d.Rows[i].Records
	}
	return least, most, true
}

// AtLeast is how many records of the topic are lost at least.
func (r *LossRow) AtLeast() int64 {
	if r.Seen == nil {
		return r.Records // counted, or by a version that did not tell
	}
	return *r.Seen
}

// Summary is summary.json.
func (s *Story) Summary() ([]byte, error) {
	body, err := json.MarshalIndent(s.Brief(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write summary: %w", err)
	}
	return append(body, '\n'), nil
}
