package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
)

// planOutput is a plan as programs read it.
type planOutput struct {
	evidence.PlanDoc
	Resumes  string                `json:"resumes,omitempty"`
	Regions  evidence.RegionsDoc   `json:"regions"`
	Gates    evidence.GatesDoc     `json:"gates"`
	Passed   bool                  `json:"passed"`
	Lanes    evidence.LanesDoc     `json:"lanes"`
	Groups   evidence.GroupsDoc    `json:"groups"`
	Loss     *evidence.LossDoc     `json:"loss,omitempty"`
	Stranded *evidence.StrandedDoc `json:"stranded,omitempty"`
}

func planDocument(p *cutover.Plan) planOutput {
	return planOutput{PlanDoc: p.PlanDoc, Resumes: p.Resumes, Regions: p.Regions, Gates: p.Gates, Passed: p.Refused() == nil, Lanes: p.Lanes, Groups: p.Groups, Loss: p.Loss, Stranded: p.Stranded}
}

// resultOutput is a finished run as programs read it.
type resultOutput struct {
	Run     string              `json:"run"`
	Resumed bool                `json:"resumed"`
	Outcome evidence.OutcomeDoc `json:"outcome"`
	Before  evidence.RegionsDoc `json:"before"`
	After   evidence.RegionsDoc `json:"after"`
	Bundle  string              `json:"bundle,omitempty"`
	Anchor  string              `json:"anchor"`
}

func resultDocument(r *cutover.Result) resultOutput {
	return resultOutput{Run: r.Run, Resumed: r.Resumed, Outcome: r.Outcome, Before: r.Before, After: r.After, Bundle: r.Bundle, Anchor: r.Anchor}
}

// cutoverPlan prints a plan for people.
func (c screen) cutoverPlan(p *cutover.Plan) string {
	var b strings.Builder
	switch {
	case p.Verb == string(cutover.Failback):
		fmt.Fprintf(&b, "%s: a region returns, %s stays authoritative with epoch %d\n", p.Verb, p.To, p.Epoch)
	default:
		fmt.Fprintf(&b, "%s: %s -> %s, epoch %d -> %d\n", p.Verb, p.From, p.To, p.Epoch, p.NextEpoch)
	}
	if p.Resumes != "" {
		fmt.Fprintf(&b, "goes on with run %s\n", p.Resumes)
	}
	c.regions(&b, p.Regions)
	c.gates(&b, p.Gates)
	c.loss(&b, p.Loss)
	c.stranded(&b, p.Stranded)
	if c.wide {
		c.lanesDoc(&b, p.Lanes)
		c.groupsDoc(&b, p.Groups)
	}
	b.WriteString("\nactions, in this order:\n")
	for i, act := range p.Actions {
		mark := ""
		if act.Irreversible {
			mark = "  " + c.paint(bold, "<- the point behind which nothing is undone")
		}
		fmt.Fprintf(&b, "%3d. %-14s %s%s\n", i+1, act.Step, act.What, mark)
	}
	if p.Fence != "" && p.Verb != string(cutover.Failback) {
		b.WriteByte('\n')
		c.wrapped(&b, "the fence: ", p.Fence)
	}
	b.WriteByte('\n')
	return b.String()
}

func (c screen) gates(b *strings.Builder, gates evidence.GatesDoc) {
	if len(gates) == 0 {
		return
	}
	g := grid{flexible: 2, wrap: true, columns: []column{{name: "GATE"}, {name: "RESULT"}, {name: "DETAIL"}}}
	for _, gate := range gates {
		word, text := c.paint(green, "pass"), gate.Detail
		if !gate.OK {
			word = c.paint(red, "FAIL")
			if gate.Fix != "" {
				text += " -> " + gate.Fix
			}
		} else if strings.Contains(gate.Detail, "warning:") {
			word = c.paint(yellow, "warn")
		}
		g.rows = append(g.rows, []string{observe.Printable(gate.Name), word, observe.Printable(text)})
	}
	c.table(b, g)
}

func (c screen) regions(b *strings.Builder, d evidence.RegionsDoc) {
	g := grid{flexible: -1, columns: []column{{name: "REGION"}, {name: "ROLE"}, {name: "EPOCH", right: true}, {name: "REACHABLE"}, {name: "WRITERS"}, {name: "LINK TO IT"}, {name: "LAG", right: true}}}
	for _, r := range d.Rows {
		reachable := c.paint(green, "yes")
		if !r.Reachable {
			reachable = c.paint(red, "no")
		}
		role := r.Role
		if role == evidence.RoleAuthoritative {
			role = c.paint(bold, role)
		}
		g.rows = append(g.rows, []string{observe.Printable(r.Region), role, strconv.FormatInt(r.Epoch, 10), reachable, r.Writers, r.LinkState, optionalOffset(r.LagRecords)})
	}
	c.table(b, g)
}

func (c screen) loss(b *strings.Builder, d *evidence.LossDoc) {
	if d == nil {
		return
	}
	g := grid{flexible: 0, columns: []column{{name: "TOPIC"}, {name: "LOST, AT LEAST", right: true}, {name: "AT MOST", right: true}, {name: "BYTES, AT MOST", right: true}, {name: "LAST SEEN, BEFORE", right: true}}}
	for i := range d.Rows {
		r := &d.Rows[i]
		g.rows = append(g.rows, []string{observe.Printable(r.Topic), words.Number(r.AtLeast()), words.Number(r.Records), words.Optional(r.Bytes, words.Size), words.Optional(r.Seconds, words.Seconds)})
	}
	c.table(b, g)
	least, most, _ := d.Between()
	c.wrapped(b, fmt.Sprintf("loss: %s; ", words.Between(least, most, "record")), d.Basis)
}

func (c screen) stranded(b *strings.Builder, d *evidence.StrandedDoc) {
	if d == nil {
		return
	}
	if len(d.Rows) == 0 {
		b.WriteString("\nno record is stranded\n")
		return
	}
	g := grid{flexible: 0, columns: []column{{name: "TOPIC"}, {name: "PARTITION", right: true}, {name: "FROM", right: true}, {name: "TO", right: true}, {name: "STRANDED RECORDS", right: true}, {name: "BYTES", right: true}}}
	var sum int64
	for _, r := range d.Rows {
		sum += r.Records
		g.rows = append(g.rows, []string{observe.Printable(r.Topic), strconv.Itoa(int(r.Partition)), words.Number(r.From), words.Number(r.To), words.Number(r.Records), words.Optional(r.Bytes, words.Size)})
	}
	c.table(b, g)
	fmt.Fprintf(b, "%s stranded\n", words.Count(sum, "record"))
}

func (c screen) lanesDoc(b *strings.Builder, d evidence.LanesDoc) {
	g := grid{flexible: 0, columns: []column{{name: "TOPIC"}, {name: "PARTITION", right: true}, {name: "SOURCE END", right: true}, {name: "POSITION", right: true}, {name: "LAG", right: true}, {name: "TARGET END", right: true}}}
	for _, r := range d {
		g.rows = append(g.rows, []string{observe.Printable(r.Topic), strconv.Itoa(int(r.Partition)), words.Offset(r.SourceEnd), words.Offset(r.Position), optionalOffset(r.Lag), words.Offset(r.TargetEnd)})
	}
	c.table(b, g)
}

func (c screen) groupsDoc(b *strings.Builder, d evidence.GroupsDoc) {
	g := grid{flexible: 0, columns: []column{{name: "GROUP"}, {name: "TOPIC"}, {name: "PARTITION", right: true}, {name: "SOURCE", right: true}, {name: "TARGET", right: true}, {name: "OUTCOME"}, {name: "ACTION"}, {name: "REASON"}}}
	for _, r := range d {
		g.rows = append(g.rows, []string{observe.Printable(r.Group), observe.Printable(r.Topic), strconv.Itoa(int(r.Partition)), optionalOffset(r.Source), optionalOffset(r.Target), r.Outcome, r.Action, orDash(r.Reason)})
	}
	c.table(b, g)
}

// cutoverResult prints how a run ended.
func (c screen) cutoverResult(r *cutover.Result) string {
	var b strings.Builder
	c.regions(&b, r.After)
	o := r.Outcome
	word := c.paint(green, o.Outcome)
	if o.Outcome != evidence.OutcomeDone {
		word = c.paint(red, o.Outcome)
	}
	fmt.Fprintf(&b, "\n%s after %s", word, words.Seconds(o.Took))
	if o.WritersFencedSeconds != nil {
		fmt.Fprintf(&b, "; no region took writes for %s", words.Seconds(*o.WritersFencedSeconds))
	}
	if o.RTO != nil {
		fmt.Fprintf(&b, "; writes were open %s after the beginning", words.Seconds(*o.RTO))
	}
	fmt.Fprintf(&b, "\nrun %s", r.Run)
	if r.Bundle != "" {
		fmt.Fprintf(&b, ", evidence in %s", r.Bundle)
	}
	fmt.Fprintf(&b, "\nanchor %s\n", r.Anchor)
	return b.String()
}

// cutoverWatch prints a run as it goes.
type cutoverWatch struct {
	out    io.Writer
	screen screen

	mu   sync.Mutex
	last time.Time // of the last line of progress
	text string
}

// Event prints the beginning and end of each step and what hooks did.
func (w *cutoverWatch) Event(e evidence.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := e.Time.Local().Format("15:04:05")
	switch e.Kind {
	case evidence.KindStep:
		d, err := evidence.Decode[evidence.StepDoc](e)
		if err != nil {
			return
		}
		word := d.Outcome
		switch d.Outcome {
		case evidence.StepBegun:
			return
		case evidence.StepDone:
			word = w.screen.paint(green, word)
		case evidence.StepFailed:
			word = w.screen.paint(red, word)
		default:
			word = w.screen.paint(yellow, word)
		}
		w.screen.line(w.out, fmt.Sprintf("%s  %-14s %s  ", at, d.Name, word), observe.Printable(d.Proof)+" ("+words.Seconds(d.Took)+")")
	case evidence.KindHook:
		d, err := evidence.Decode[evidence.HookDoc](e)
		if err != nil {
			return
		}
		text := fmt.Sprintf("%s, exit %d", strings.Join(d.Command, " "), d.Exit)
		if d.Error != "" {
			text += ": " + d.Error
		}
		w.screen.line(w.out, fmt.Sprintf("%s  %-14s hook %s  ", at, d.Step, d.When), observe.Printable(text))
	}
	w.text = ""
}

// Progress prints how far a step is, not more than once in two seconds.
func (w *cutoverWatch) Progress(step, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text == w.text || time.Since(w.last) < 2*time.Second {
		return
	}
	w.last, w.text = time.Now(), text
	w.screen.line(w.out, fmt.Sprintf("%s  %-14s ...  ", w.last.Format("15:04:05"), step), observe.Printable(text))
}

func (c screen) line(out io.Writer, label, text string) {
	var b strings.Builder
	c.wrapped(&b, label, text)
	_, _ = io.WriteString(out, b.String()) // a closed terminal does not stop a run
}
