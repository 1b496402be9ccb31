package evidence

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"replicator/internal/words"
)

// tiles are the figures people ask for first.
func (s *Story) tiles() []tile {
	var tiles []tile
	if o := s.Outcome; o != nil {
		if o.WritersFencedSeconds != nil {
			tiles = append(tiles, tile{words.Seconds(*o.WritersFencedSeconds), "without writes", "no region took writes for that long", ""})
		}
		if o.RTO != nil {
			tiles = append(tiles, tile{words.Seconds(*o.RTO), "until writes were possible", "from the run's beginning (RTO)", ""})
		}
	}
	for _, l := range []struct {
		doc              *LossDoc
		name, note, tone string
	}{{s.Actual, "lost", "counted", bad}, {s.Loss, "not copied", "estimated before", warning}} {
		if least, most, ok := l.doc.Between(); ok {
			tone := good
			if most > 0 {
				tone = l.tone
			}
			tiles = append(tiles, tile{words.Between(least, most, "record"), l.name, l.note, tone})
			break
		}
	}
	if len(s.Verify) > 0 {
		records, differences := s.compared()
		tone := good
		if differences > 0 {
			tone = bad
		}
		tiles = append(tiles, tile{words.Count(differences, "difference"), "of source and target", "in " + words.Count(records, "record") + " compared", tone})
	}
	if f := s.Fence; f != nil {
		tone := good
		if f.Fenced < f.Lanes || slices.ContainsFunc(f.Rows, func(r FenceRow) bool { return r.tone() == bad }) {
			tone = bad
		}
		tiles = append(tiles, tile{fmt.Sprintf("%s of %s", words.Number(int64(f.Fenced)), words.Number(int64(f.Lanes))), "lanes fenced", words.Count(int64(f.Refused), "append") + " of the old writer refused", tone})
	}
	if n := len(s.Groups); n > 0 {
		proved := s.Brief().GroupsProved
		tone := good
		if proved < n {
			tone = warning
		}
		tiles = append(tiles, tile{fmt.Sprintf("%s of %s", words.Number(int64(proved)), words.Number(int64(n))), "group offsets proved", "read back as they were placed", tone})
	}
	return tiles
}

func (s *Story) options() []pair {
	var options []pair
	for _, name := range slices.Sorted(maps.Keys(s.Plan.Options)) {
		options = append(options, pair{plain(name), plain(s.Plan.Options[name])})
	}
	return options
}

// bars are the steps on the axis of time.
func (s *Story) bars() []bar {
	whole := 0.0
	for i := range s.Steps {
		whole = max(whole, s.Steps[i].To)
	}
	bars := make([]bar, 0, len(s.Steps))
	for i := range s.Steps {
		l := &s.Steps[i]
		b := bar{Name: plain(l.Name), Outcome: plain(l.Outcome), Tone: outcomeTone(l.Outcome), Took: words.Seconds(l.Took), Proof: plain(l.Proof), Begun: "+" + words.Seconds(l.From), Width: 0.5}
		if l.Outcome == StepBegun {
			b.Outcome, b.Took = "not ended", "-"
		}
		if whole > 0 {
			b.Left = min(99.5, 100*l.From/whole)
			b.Width = max(0.5, 100*(l.To-l.From)/whole)
		}
		bars = append(bars, b)
	}
	return bars
}

// blocks are the sections with tables, those of which there is something.
func (s *Story) blocks() []block {
	all := []block{
		s.regionBlock(), s.gateBlock(), s.authorityBlock(), s.growthBlock(), s.lossBlock(), s.laneBlock(), s.checkBlock(), s.verifyBlock(), s.fenceBlock(), s.groupBlock(), s.strandedBlock(), s.hookBlock(),
	}
	return slices.DeleteFunc(all, func(b block) bool { return len(b.Tables) == 0 && len(b.Lines) == 0 && len(b.Hooks) == 0 })
}

func (s *Story) regionBlock() block {
	b := block{Title: "Regions before and after", Anchor: "regions"}
	for _, doc := range []*RegionsDoc{s.Before, s.After} {
		if doc == nil {
			continue
		}
		b.Tables = append(b.Tables, table{
			Caption: string(doc.When), Head: columns("Region", "Cluster", "Reachable", "Role", ">Epoch", "Writers", "Link", ">Lag records", ">Lag"),
		}.fold(rowsOf(doc.Rows, func(r *RegionRow) []cell {
			reachable := word("yes", good)
			if !r.Reachable {
				reachable = word("no", bad)
			}
			return []cell{
				text(r.Region), code(r.ClusterID), reachable, text(r.Role), code(words.Number(r.Epoch)), text(r.Writers), text(r.LinkState), code(words.Optional(r.LagRecords, words.Number)), code(words.Optional(r.LagSeconds, words.Seconds)),
			}
		})))
	}
	return b
}

func (s *Story) gateBlock() block {
	b := block{Title: "Gates", Anchor: "gates"}
	if len(s.Gates) == 0 {
		return b
	}
	gates := slices.Clone(s.Gates)
	slices.SortStableFunc(gates, func(a, b Gate) int { return first(a.OK, b.OK) })
	b.Tables = []table{table{Head: columns("Gate", "Result", "Detail", "What to do")}.fold(rowsOf(gates, func(g *Gate) []cell {
		fix := cell{}
		if !g.OK && g.Fix != "" {
			fix = code(g.Fix)
		}
		return []cell{text(g.Name), okay(g.OK), text(g.Detail), fix}
	}))}
	return b
}

// first sorts what is not good before what is.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (s *Story) authorityBlock() block {
	b := block{Title: "Authority", Anchor: "authority"}
	for i, doc := range s.Copies {
		if i > 0 && i < len(s.Copies)-1 {
			continue // the first look and the last
		}
		caption := "first look"
		if i > 0 {
			caption = "last look"
		}
		if doc.Step != "" {
			caption += ", step " + plain(doc.Step)
		}
		b.Tables = append(b.Tables, table{
			Caption: caption, Head: columns("Copy on", ">Epoch", "Authoritative", "Since", "Read", "Error"),
		}.fold(rowsOf(doc.Copies, func(c *AuthorityCopy) []cell {
			read := word("yes", good)
			if !c.Reachable || c.Error != "" {
				read = word("no", bad)
			}
			return []cell{text(c.Cluster), code(words.Number(c.Epoch)), text(c.Region), code(words.Optional(c.Since, instant)), read, text(c.Error)}
		})))
	}
	return b
}

func (s *Story) growthBlock() block {
	b := block{Title: "Writers that went on", Anchor: "growth"}
	if len(s.Growth) == 0 {
		return b
	}
	b.Lines = []string{"These partitions of the source grew although their writers were fenced."}
	rows := slices.Clone(s.Growth)
	slices.SortStableFunc(rows, func(a, b GrowthRow) int { return cmp.Compare(b.PerSecond, a.PerSecond) })
	b.Tables = []table{table{Head: columns("Topic", ">Partition", ">End, first look", ">End, second look", ">Records a second")}.fold(rowsOf(rows, func(r *GrowthRow) []cell {
		return []cell{text(r.Topic), code(partition(r.Partition)), code(words.Offset(r.From)), code(words.Offset(r.To)), code(strconv.FormatFloat(r.PerSecond, 'f', 1, 64))}
	}))}
	return b
}

func partition(p int32) string { return strconv.Itoa(int(p)) }

func (s *Story) lossBlock() block {
	b := block{Title: "Loss", Anchor: "loss"}
	for _, l := range []struct {
		doc     *LossDoc
		caption string
	}{{s.Loss, "estimated before"}, {s.Actual, "counted after"}} {
		if l.doc == nil {
			continue
		}
		rows := slices.Clone(l.doc.Rows)
		slices.SortStableFunc(rows, func(a, b LossRow) int { return cmp.Compare(b.Records, a.Records) })
		least, most, _ := l.doc.Between()
		caption := l.caption + ": " + words.Between(least, most, "record")
		if l.doc.Basis != "" {
			caption += ". It rests on: " + plain(l.doc.Basis)
		}
		head := columns("Topic", ">Records, at least", ">At most", ">Bytes, at most", ">Last seen, before")
		if l.doc.Actual {
			head = columns("Topic", ">Records", ">Bytes", ">From first to last")
		}
		b.Tables = append(b.Tables, table{Caption: caption, Head: head}.fold(rowsOf(rows, func(r *LossRow) []cell {
			row := []cell{text(r.Topic), code(words.Number(r.Records)), code(words.Optional(r.Bytes, words.Size)), code(words.Optional(r.Seconds, words.Seconds))}
			if !l.doc.Actual {
				row = slices.Insert(row, 1, code(words.Number(r.AtLeast())))
			}
			return row
		})))
	}
	return b
}

// behind is how bad a lane is: not known is worse than any lag.
func behind(l *LaneRow) int64 {
	if l.Lag == nil {
		return 1<<63 - 1
	}
	return *l.Lag
}

func (s *Story) laneBlock() block {
	b := block{Title: "Lanes", Anchor: "lanes"}
	if len(s.Lanes) == 0 {
		return b
	}
	rows := slices.Clone(s.Lanes)
	slices.SortStableFunc(rows, func(a, b LaneRow) int { return cmp.Compare(behind(&b), behind(&a)) })
	lag, unknown, level := int64(0), 0, 0
	for i := range rows {
		switch {
		case rows[i].Lag == nil:
			unknown++
		case *rows[i].Lag == 0:
			level++
		default:
			lag += *rows[i].Lag
		}
	}
	line := fmt.Sprintf("%s: %s at their source's end, %s behind in all", words.Count(int64(len(rows)), "lane"), words.Number(int64(level)), words.Count(lag, "offset"))
	if unknown > 0 {
		line += fmt.Sprintf(", the lag of %s is not known", words.Number(int64(unknown)))
	}
	if s.LanesStep != "" {
		line += ". Seen in the step " + plain(s.LanesStep)
	}
	b.Lines = []string{line + "."}
	b.Tables = []table{table{
		Head: columns("Topic", ">Partition", ">Source end", ">Position", ">Lag", ">Target end", "Writer", "Map", "Old writer"),
	}.fold(rowsOf(rows, func(r *LaneRow) []cell {
		refused := cell{Text: "-"}
		if r.Refused {
			refused = word("refused", good)
		}
		digest := r.MapDigest
		if len(digest) > 12 {
			digest = digest[:12]
		}
		return []cell{
			text(r.Topic), code(partition(r.Partition)), code(words.Offset(r.SourceEnd)), code(words.Offset(r.Position)), code(words.Optional(r.Lag, words.Number)), code(words.Offset(r.TargetEnd)), code(r.Writer), code(digest), refused,
		}
	}))}
	return b
}

func (s *Story) checkBlock() block {
	b := block{Title: "Checks", Anchor: "checks"}
	if len(s.Checks) == 0 {
		return b
	}
	checks := slices.Clone(s.Checks)
	slices.SortStableFunc(checks, func(a, b CheckLine) int { return first(a.OK, b.OK) })
	b.Tables = []table{table{Head: columns("Step", "Check", "Result", "Detail")}.fold(rowsOf(checks, func(c *CheckLine) []cell {
		return []cell{text(c.Step), text(c.Name), okay(c.OK), text(c.Detail)}
	}))}
	return b
}

func (s *Story) verifyBlock() block {
	b := block{Title: "Source and target compared", Anchor: "compared"}
	for i := range s.Verify {
		v := &s.Verify[i]
		line := fmt.Sprintf("%s of %s compared: %s.", words.Count(v.Records, "record"), words.Count(int64(v.Lanes), "lane"), words.Count(v.Differences, "difference"))
		if v.Step != "" {
			line = "Step " + plain(v.Step) + ": " + line
		}
		if v.Sum != "" {
			line += " Checksum " + plain(v.Sum) + "."
		}
		b.Lines = append(b.Lines, line)
		if len(v.First) == 0 {
			continue
		}
		b.Tables = append(b.Tables, table{Caption: "step " + plain(orDash(v.Step)), Head: columns("Topic", ">Partition", ">Source offset", ">Target offset", "What")}.fold(rowsOf(v.First, func(d *Difference) []cell {
			return []cell{text(d.Topic), code(partition(d.Partition)), code(words.Offset(d.SourceOffset)), code(words.Offset(d.TargetOffset)), text(d.What)}
		})))
	}
	return b
}

func (s *Story) fenceBlock() block {
	b := block{Title: "Fence of the old direction", Anchor: "fence"}
	f := s.Fence
	if f == nil {
		return b
	}
	line := fmt.Sprintf("%s, %s of them fenced: their epoch was taken. On %s an append of the old writer was tried and refused.", words.Count(int64(f.Lanes), "lane"), words.Number(int64(f.Fenced)), words.Number(int64(f.Refused)))
	if f.HoldsUntil != nil {
		line += " Brokers remember it until " + instant(*f.HoldsUntil) + " at least, if nobody renews it."
	}
	b.Lines = []string{line}
	for _, basis := range f.Basis {
		b.Lines = append(b.Lines, "It rests on: "+plain(basis))
	}
	rows := slices.Clone(f.Rows)
	order := []string{bad, quiet, good}
	slices.SortStableFunc(rows, func(a, b FenceRow) int {
		return cmp.Compare(slices.Index(order, a.tone()), slices.Index(order, b.tone()))
	})
	b.Tables = []table{table{Head: columns("Topic", ">Partition", "Old writer", "New writer", ">Final end", "Broker's answer")}.fold(rowsOf(rows, func(r *FenceRow) []cell {
		answer := word(r.Answer, r.tone())
		return []cell{text(r.Topic), code(partition(r.Partition)), code(r.OldWriter), code(r.NewWriter), code(words.Offset(r.End)), answer}
	}))}
	return b
}

// tone of the broker's answer: refused is what an old writer has to hear.
func (r *FenceRow) tone() string {
	switch {
	case strings.HasPrefix(r.Answer, "INVALID_PRODUCER_EPOCH"):
		return good
	case strings.HasPrefix(r.Answer, NotTried):
		return quiet
	}
	return bad
}

// worry is how much a group's row has to be looked at.
func worry(g *GroupRow) int {
	switch {
	case g.Proved != nil && !*g.Proved:
		return 4
	case g.Target == nil:
		return 3
	case g.Proved == nil:
		return 2
	case g.Outcome != "exact" && g.Outcome != "next" && g.Outcome != "end":
		return 1
	}
	return 0
}

func (s *Story) groupBlock() block {
	b := block{Title: "Consumer groups", Anchor: "groups"}
	if len(s.Groups) == 0 {
		return b
	}
	rows := slices.Clone(s.Groups)
	slices.SortStableFunc(rows, func(a, b GroupRow) int { return cmp.Compare(worry(&b), worry(&a)) })
	groups, outcomes := map[string]bool{}, map[string]int{}
	for i := range rows {
		groups[rows[i].Group] = true
		outcomes[rows[i].Outcome]++
	}
	var counts []string
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		counts = append(counts, words.Number(int64(outcomes[o]))+" "+plain(orDash(o)))
	}
	b.Lines = []string{fmt.Sprintf("%s of %s: %s.", words.Count(int64(len(rows)), "offset"), words.Count(int64(len(groups)), "group"), strings.Join(counts, ", "))}
	b.Tables = []table{table{
		Head: columns("Group", "Topic", ">Partition", ">Source offset", ">Target offset", "Outcome", "Action", "Reason", "Read back"),
	}.fold(rowsOf(rows, func(g *GroupRow) []cell {
		proved := cell{Text: "-"}
		if g.Proved != nil {
			proved = okay(*g.Proved)
		}
		return []cell{
			text(g.Group), text(g.Topic), code(partition(g.Partition)), code(words.Optional(g.Source, words.Offset)), code(words.Optional(g.Target, words.Offset)), text(g.Outcome), text(g.Action), text(g.Reason), proved,
		}
	}))}
	return b
}

func (s *Story) strandedBlock() block {
	b := block{Title: "Stranded records", Anchor: "stranded"}
	d := s.Stranded
	if d == nil {
		return b
	}
	records := int64(0)
	lanes := map[string]bool{} // a partition has several ranges where it was written to between two calls
	for i := range d.Rows {
		records += d.Rows[i].Records
		lanes[fmt.Sprintf("%s-%d", d.Rows[i].Topic, d.Rows[i].Partition)] = true
	}
	line := fmt.Sprintf("%s in %s, taken by the old region after the last replicated position.", words.Count(records, "record"), words.Count(int64(len(lanes)), "partition"))
	if records > 0 {
		line += " Decision: " + plain(cmp.Or(d.Decision, "none yet")) + "."
	}
	b.Lines = []string{line}
	for _, e := range s.Exports {
		b.Lines = append(b.Lines, fmt.Sprintf("Exported: %s to %s, SHA-256 %s.", words.Count(e.Records, "record"), plain(e.File), plain(e.SHA256)))
	}
	rows := slices.Clone(d.Rows)
	slices.SortStableFunc(rows, func(a, b StrandedRow) int { return cmp.Compare(b.Records, a.Records) })
	if len(rows) > 0 {
		b.Tables = []table{table{Head: columns("Topic", ">Partition", ">From", ">To", ">Records", ">Bytes")}.fold(rowsOf(rows, func(r *StrandedRow) []cell {
			return []cell{text(r.Topic), code(partition(r.Partition)), code(words.Offset(r.From)), code(words.Offset(r.To)), code(words.Number(r.Records)), code(words.Optional(r.Bytes, words.Size))}
		}))}
	}
	return b
}

func (s *Story) hookBlock() block {
	b := block{Title: "Hooks", Anchor: "hooks"}
	for i := range s.Hooks {
		h := &s.Hooks[i]
		v := hookView{
			Command: plain(strings.Join(h.Command, " ")), Step: plain(h.Step), When: plain(h.When), Took: words.Seconds(h.Took), Result: "exit " + strconv.Itoa(h.Exit), Tone: good,
			Output: plain(h.Output), Error: plain(h.Error),
		}
		if h.Exit != 0 || h.Error != "" {
			v.Tone = bad
		}
		b.Hooks = append(b.Hooks, v)
	}
	return b
}
