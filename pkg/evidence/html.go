package evidence

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"replicator/internal/words"
)

//go:embed report.html.tmpl
var reportTemplate string

var reportPage = template.Must(template.New("report").Parse(reportTemplate))

const (
	// shown is how many rows of a table are printed, the worst.
	shown = 50
	// folded is how many more can be opened on a screen. The others are in events.jsonl.
	folded = 2000
)

// Tones of a word. The word says the same.
const (
	good    = "good"
	warning = "warning"
	bad     = "bad"
	quiet   = "quiet"
)

// cell of a table.
type cell struct {
	Text string
	Tone string // not empty: a word of state
	Code bool   // an offset, a hash, a command: set in one width
}

// Class of the cell below a heading.
func (c cell) Class(h heading) string {
	var class []string
	if h.Right {
		class = append(class, "right")
	}
	if c.Code {
		class = append(class, "code")
	}
	if len(c.Text) > 40 { // may be cut anywhere, so that it leaves room for the others
		class = append(class, "long")
	}
	return strings.Join(class, " ")
}

type heading struct {
	Name  string
	Right bool
}

type table struct {
	Head    []heading
	Rows    [][]cell
	Folded  [][]cell
	Left    int // rows that are in events.jsonl only
	Total   int
	Caption string
	InOrder bool // not worst first
}

// block is one section of the report.
type block struct {
	Title  string
	Anchor string
	Lines  []string // sentences above the table
	Tables []table
	Hooks  []hookView
}

type hookView struct {
	Command, Step, When, Took, Result, Tone, Output, Error string
}

type pair struct{ Name, Value string }

type tile struct{ Value, Name, Note, Tone string }

type bar struct {
	Name, Outcome, Tone, Took, Proof string
	Begun                            string
	Left, Width                      float64 // percent
}

// page is what the template shows.
type page struct {
	Title, Result, Tone, Sentence string
	Error, Next                   string
	Facts                         []pair
	Tiles                         []tile
	Actions                       []Action
	FencePlan                     string
	Bars                          []bar
	Resumed                       []string
	Blocks                        []block
	Options                       []pair
	Unread                        []string
	Events                        table
	Run, Anchor                   string
	Killed                        bool
}

// HTML is the report: one file, readable without scripts, the same for the same events.
func (s *Story) HTML() ([]byte, error) {
	var b bytes.Buffer
	if err := reportPage.Execute(&b, s.page()); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return b.Bytes(), nil
}

// columns makes headings: a name that begins with > is of numbers.
func columns(names ...string) []heading {
	head := make([]heading, len(names))
	for i, name := range names {
		rest, right := strings.CutPrefix(name, ">")
		head[i] = heading{Name: rest, Right: right}
	}
	return head
}

func text(s string) cell { return cell{Text: plain(orDash(s))} }
func code(s string) cell { return cell{Text: plain(orDash(s)), Code: true} }
func word(s, tone string) cell {
	return cell{Text: plain(s), Tone: tone}
}

// fold keeps the first rows in sight and the next ones folded; they come worst first.
func (t table) fold(rows [][]cell) table {
	t.Caption = plain(t.Caption)
	t.Total = len(rows)
	t.Rows = rows[:min(shown, len(rows))]
	rest := rows[len(t.Rows):]
	t.Folded = rest[:min(folded, len(rest))]
	t.Left = len(rest) - len(t.Folded)
	return t
}

// rowsOf makes the rows of those elements that may be shown. The others are counted only.
func rowsOf[E any](elements []E, row func(*E) []cell) [][]cell {
	rows := make([][]cell, len(elements))
	for i := range elements {
		if i < shown+folded {
			rows[i] = row(&elements[i])
		}
	}
	return rows
}

func outcomeTone(outcome string) string {
	switch outcome {
	case OutcomeDone:
		return good
	case OutcomeFailed:
		return bad
	case StepSkipped:
		return quiet
	}
	return warning
}

func okay(ok bool) cell {
	if ok {
		return word("ok", good)
	}
	return word("failed", bad)
}

func (s *Story) page() page {
	p := page{
		Result: plain(s.Result()), Tone: outcomeTone(s.Result()), Sentence: plain(s.sentence()), Run: s.Run, Anchor: s.Head.String(),
		FencePlan: plain(s.Plan.Fence), Killed: s.Outcome == nil,
	}
	p.Title = plain(s.title())
	if o := s.Outcome; o != nil {
		p.Error, p.Next = plain(o.Error), plain(o.Next)
	}
	p.Facts = s.facts()
	p.Tiles = s.tiles()
	for _, a := range s.Plan.Actions {
		p.Actions = append(p.Actions, Action{plain(a.Step), plain(a.What), a.Irreversible})
	}
	p.Options = s.options()
	p.Bars = s.bars()
	for _, t := range s.Resumed {
		p.Resumed = append(p.Resumed, instant(t))
	}
	p.Blocks = s.blocks()
	for _, u := range s.Unread {
		p.Unread = append(p.Unread, plain(u))
	}
	p.Events = table{InOrder: true, Head: columns(">Event", "Time", "Kind", "Step", "Hash")}.fold(rowsOf(s.Events, func(e *Event) []cell {
		kind := string(e.Kind)
		if e.Of > 1 {
			kind += fmt.Sprintf(" (%d of %d)", e.Part, e.Of)
		}
		return []cell{code(words.Number(int64(e.Seq))), code(e.Time.UTC().Format("15:04:05.000")), text(kind), text(e.Step), code(e.Hash[:min(16, len(e.Hash))])}
	}))
	return p
}

func (s *Story) title() string {
	title := strings.ToUpper(s.Verb()[:1]) + s.Verb()[1:]
	switch {
	case s.Plan.From != "" && s.Plan.To != "":
		title += " from " + s.Plan.From + " to " + s.Plan.To
	case s.Plan.Link != "":
		title += " of " + s.Plan.Link
	}
	return title
}

// sentence says in one what happened.
func (s *Story) sentence() string {
	epoch, looked := s.EpochAfter()
	var authority string
	switch {
	case looked && epoch > s.Plan.Epoch:
		authority = fmt.Sprintf("The authority moved to %s, epoch %d became %d.", s.regionOf(epoch), s.Plan.Epoch, epoch)
	case looked:
		authority = fmt.Sprintf("The authority did not move, its epoch is %d.", epoch)
	case s.Plan.NextEpoch == s.Plan.Epoch:
		authority = "The authority was not to move."
	default:
		authority = "Whether the authority moved was not looked at."
	}
	switch s.Result() {
	case OutcomeDone:
		return authority
	case OutcomeFailed:
		return "The run failed" + s.failedStep() + ". " + authority
	case OutcomeUndone:
		return "The run failed" + s.failedStep() + ", and what it had done was taken back. " + authority
	case OutcomeInterrupted:
		return "The run was interrupted and can be taken up again. " + authority
	case OutcomeRefused:
		failed := 0
		for _, g := range s.Gates {
			if !g.OK {
				failed++
			}
		}
		return fmt.Sprintf("Refused: %s said no. Nothing was done.", words.Count(int64(failed), "gate"))
	}
	return "The run has no outcome: it was killed, or still goes on. Below is what was true until then. " + authority
}

func (s *Story) failedStep() string {
	for _, step := range slices.Backward(s.Steps) {
		if step.Outcome == StepFailed {
			return " in its step " + step.Name
		}
	}
	return ""
}

func (s *Story) regionOf(epoch int64) string {
	if n := len(s.Copies); n > 0 {
		for _, c := range s.Copies[n-1].Copies {
			if c.Epoch == epoch && c.Region != "" {
				return c.Region
			}
		}
	}
	return s.Plan.To
}

func (s *Story) facts() []pair {
	facts := []pair{{"Run", s.Run}}
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, pair{name, plain(value)})
		}
	}
	add("Link", s.Plan.Link)
	add("By", s.Plan.By)
	add("Why", s.Plan.Why)
	add("Begun", instant(s.Begun))
	if s.Outcome != nil {
		add("Ended", instant(s.Last)+", after "+words.Seconds(s.Outcome.Took))
	} else {
		add("Last event", instant(s.Last))
	}
	epoch, looked := s.EpochAfter()
	switch {
	case looked:
		add("Epoch", fmt.Sprintf("%d before, %d after", s.Plan.Epoch, epoch))
	case s.Plan.Verb != "":
		add("Epoch", fmt.Sprintf("%d before, %d planned", s.Plan.Epoch, s.Plan.NextEpoch))
	}
	add("Tool", s.Plan.Tool)
	return facts
}

// More is the table of the folded rows.
func (t table) More() table { return table{Head: t.Head, Rows: t.Folded} }
