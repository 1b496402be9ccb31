package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"replicator/internal/words"
	"replicator/pkg/evidence"
)

// ErrNotProved is returned when something of the proof is missing or wrong.
var ErrNotProved = errors.New("not everything is as it should be")

// facts are what the proof rests on: what the producers and the consumer know, what
// was read back from both regions, and what the commands left behind. findings judges
// them; it asks nobody.
type facts struct {
	story   story
	runs    []checkedRun
	quick   bool
	entries map[key]entry
	visits  map[key][]visit
	unknown int64 // processed, and written by no producer
	east    map[lane][]logRecord
	west    map[lane][]logRecord
}

// finding is one part of the proof.
type finding struct {
	what   string
	faults []string // none: it holds
	detail string
}

// prove reads both regions and says what was found.
func (d *demo) prove(ctx context.Context) error {
	if d.opts.BeforeProof != nil {
		if err := d.opts.BeforeProof(ctx, d.east.addrs, d.west.addrs); err != nil {
			return fmt.Errorf("before the proof: %w", err)
		}
	}
	d.screen.event("the daemon was asked to stop and did; both regions are read back")
	f := facts{story: d.story, runs: d.runs, quick: d.opts.Quick, entries: map[key]entry{}, visits: d.consumer.visits, unknown: d.consumer.unknown}
	d.ledger.each(func(k key, e entry) { f.entries[k] = e })
	var err error
	if f.east, err = d.east.readBack(ctx); err != nil {
		return err
	}
	if f.west, err = d.west.readBack(ctx); err != nil {
		return err
	}
	d.screen.close()
	findings := f.findings()
	d.lossTable()
	d.screen.text("\n")
	d.screen.heading("The proof, from what producers and consumer know and what both regions hold")
	for _, p := range findings {
		d.screen.finding(len(p.faults) == 0, p.what, strings.Join(append(slices.Clone(p.faults), p.detail), "; "))
	}
	d.screen.text("\n")
	d.screen.heading("Reports")
	for _, r := range d.runs {
		d.screen.say("%s/report.html", r.Bundle)
	}
	d.screen.say("check one: replicator evidence verify DIRECTORY")
	err = judge(findings)
	d.screen.verdict(err == nil, verdict(f, err))
	return err
}

// judge is nil if every part of the proof holds.
func judge(findings []finding) error {
	var faults []string
	for _, p := range findings {
		for _, fault := range p.faults {
			faults = append(faults, p.what+": "+fault)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotProved, strings.Join(faults, "; "))
}

// verdict is the last line.
func verdict(f facts, err error) string {
	if err != nil {
		return "NOT PROVED: " + err.Error()
	}
	return fmt.Sprintf("PROVED: a region was lost and taken in again; of %s acknowledged records 0 are lost, and 0 were accepted from the frozen daemon.", words.Number(f.acknowledged()))
}

func (f facts) acknowledged() (n int64) {
	for _, e := range f.entries {
		if e.acked {
			n++
		}
	}
	return n
}

// findings are all parts of the proof.
func (f facts) findings() []finding {
	return []finding{f.happened(), f.everyProcessed(), f.oftenProcessed(), f.resumed(), f.fence(), f.accepted(), f.loss(), f.alike(), f.held(), f.evidence()}
}

// happened: what was announced was done.
func (f facts) happened() finding {
	p := finding{what: "what happened", detail: "1 kill -9 and 1 freeze of the daemon, 1 region lost and returned"}
	s := f.story
	for _, c := range []struct {
		missing bool
		what    string
	}{
		{s.kills != 1, "the daemon was not killed"}, {!s.lost, "the region was not lost"}, {!s.closed, "the frozen daemon did not stop"},
		{s.failover == nil, "there was no failover"}, {s.failback == nil, "the region was not taken in again"}, {s.back == nil && !f.quick, "there was no switchover back"},
	} {
		if c.missing {
			p.faults = append(p.faults, c.what)
		}
	}
	if s.back != nil {
		p.detail += ", 1 switchover back"
	}
	return p
}

// everyProcessed: each record that a producer got an acknowledgement for.
func (f facts) everyProcessed() finding {
	p := finding{what: "every acknowledged record is processed"}
	acked, missed := int64(0), int64(0)
	for k, e := range f.entries {
		if !e.acked {
			continue
		}
		if acked++; len(f.visits[k]) == 0 {
			missed++
		}
	}
	foreign := f.unknown
	for k := range f.visits {
		if _, ok := f.entries[k]; !ok {
			foreign++
		}
	}
	p.detail = fmt.Sprintf("%s of %s, across both regions", words.Number(acked-missed), words.Number(acked))
	p.count(missed, "never processed")
	p.count(foreign, "processed that no producer wrote")
	if acked == 0 {
		p.faults = append(p.faults, "nothing was written")
	}
	return p
}

func (p *finding) count(n int64, what string) {
	if n > 0 {
		p.faults = append(p.faults, words.Number(n)+" "+what)
	}
}

// processed says why records were processed more than once.
type processed struct {
	once, uncommitted, rewritten, unexplained int64
}

// oftenProcessed: a record is processed twice only where its producer had to write it
// twice, or where the group's commit died with the region.
func (f facts) oftenProcessed() finding {
	c := processed{}
	from := map[lane]int64{} // where the group went on in west, in offsets of east
	for _, r := range f.story.resumes {
		from[r.lane] = r.source
	}
	for k, visits := range f.visits {
		e := f.entries[k]
		first := visits[0]
		switch {
		case len(visits) == 1:
			c.once++
		case e.unsure:
			c.rewritten++
		case len(visits) == 2 && first.region == "east" && visits[1].region == "west" && first.offset >= from[lane{topics[k.topic].name, first.partition}]:
			c.uncommitted++
		default:
			c.unexplained++
		}
	}
	p := finding{what: "how often", detail: fmt.Sprintf("%s once; %s twice, whose commits in east nobody had copied when it died", words.Number(c.once), words.Number(c.uncommitted))}
	if c.rewritten > 0 {
		p.detail += fmt.Sprintf("; %s again, which their producer wrote twice for want of an answer from east", words.Number(c.rewritten))
	}
	p.count(c.unexplained, "more than once without such a reason")
	return p
}

// resumed: the group goes on at the exact record.
func (f facts) resumed() finding {
	p := finding{what: "the group goes on at the exact record"}
	exact := 0
	for _, r := range f.story.resumes {
		switch {
		case !r.right():
			p.faults = append(p.faults, fmt.Sprintf("%s-%d: expected %s, read %s at offset %d", r.lane.topic, r.lane.partition, r.expected, r.got.key, r.got.offset))
		case r.has:
			exact++
		}
	}
	if len(f.story.resumes) != partitions() {
		p.faults = append(p.faults, fmt.Sprintf("it is known of %d of %d partitions", len(f.story.resumes), partitions()))
	}
	if exact == 0 {
		p.faults = append(p.faults, "in no partition was there a record to compare")
	}
	p.detail = fmt.Sprintf("next record expected = next record read in %d of %d partitions%s", exact, len(f.story.resumes), others(exact, len(f.story.resumes)))
	return p
}

// fence: what the brokers answered to the failover command.
func (f facts) fence() finding {
	p := finding{what: "the fence"}
	lanes, refused := 0, 0
	answers := map[string]int{}
	for _, doc := range f.story.fence {
		for _, row := range doc.Rows {
			lanes++
			if strings.HasPrefix(row.Answer, "INVALID_PRODUCER_EPOCH") {
				refused++
			}
			answer, _, _ := strings.Cut(row.Answer, ":")
			answers[answer]++
		}
	}
	if lanes != partitions() || refused != lanes {
		p.faults = append(p.faults, fmt.Sprintf("%d lanes of %d were tried, %d refused: %v", lanes, partitions(), refused, answers))
	}
	p.detail = fmt.Sprintf("failover tried an append of the former writer in %d partitions: %d refused (INVALID_PRODUCER_EPOCH)", lanes, refused)
	return p
}

// accepted: behind the end that the fence made final, west holds nothing of the former
// writer.
func (f facts) accepted() finding {
	p := finding{what: "the frozen daemon, woken"}
	var accepted, looked int64
	for _, doc := range f.story.fence {
		for _, row := range doc.Rows {
			for _, r := range f.west[lane{row.Topic, row.Partition}] {
				if r.offset < row.End {
					continue
				}
				looked++
				if r.writer.String() == row.OldWriter {
					accepted++
				}
			}
		}
	}
	if looked == 0 {
		p.faults = append(p.faults, "west holds nothing behind the fence")
	}
	p.count(accepted, "of its records were accepted")
	p.detail = fmt.Sprintf("its appends refused in %d partitions, 0 records accepted (%s behind the fence were looked at)", f.story.tried, words.Number(looked))
	return p
}

// loss: what was estimated from west alone is counted now.
func (f facts) loss() finding {
	p := finding{what: "the loss"}
	var actual, held int64
	for _, row := range f.story.stranded {
		actual += row.Records
		for _, r := range f.east[lane{row.Topic, row.Partition}] {
			if r.offset >= row.From && r.offset < row.To {
				held++
			}
		}
	}
	if actual == 0 {
		p.faults = append(p.faults, "nothing was stranded: there was nothing to show")
	}
	if held != actual {
		p.faults = append(p.faults, fmt.Sprintf("east holds %s records where %s are said to be stranded", words.Number(held), words.Number(actual)))
	}
	p.detail = fmt.Sprintf("%s estimated, %s counted when east was back; all of them replayed to west", between(f.story.estimate), words.Number(actual))
	return p
}

// alike: both regions hold the same records in the same order, but for the stranded
// ones in the middle of east.
func (f facts) alike() finding {
	p := finding{what: "both regions"}
	stranded := map[lane][2]int64{}
	for _, row := range f.story.stranded {
		stranded[lane{row.Topic, row.Partition}] = [2]int64{row.From, row.To}
	}
	var same, differ int64
	for l := range unionKeys(f.east, f.west) {
		var east []logRecord
		for _, r := range f.east[l] {
			if s, ok := stranded[l]; !ok || r.offset < s[0] || r.offset >= s[1] {
				east = append(east, r)
			}
		}
		west := f.west[l]
		for i := range max(len(east), len(west)) {
			if i < len(east) && i < len(west) && east[i].digest == west[i].digest {
				same++
				continue
			}
			if differ == 0 {
				p.faults = append(p.faults, fmt.Sprintf("%s-%d differs at its record %d", l.topic, l.partition, i))
			}
			differ++
		}
	}
	p.count(differ, "records differ")
	if same == 0 {
		p.faults = append(p.faults, "nothing was copied")
	}
	p.detail = fmt.Sprintf("%s records the same on both sides, in the same order: key, value, headers, timestamp; the stranded ones lie in east alone and, replayed, in both", words.Number(same))
	return p
}

func unionKeys(a, b map[lane][]logRecord) map[lane]bool {
	out := map[lane]bool{}
	for l := range a {
		out[l] = true
	}
	for l := range b {
		out[l] = true
	}
	return out
}

// held: west has each acknowledged record once, unless its producer wrote it twice.
func (f facts) held() finding {
	p := finding{what: "lost or doubled"}
	count := map[key]int{}
	var foreign, missing, doubled int64
	for _, records := range f.west {
		for _, r := range records {
			if _, ok := f.entries[r.key]; !r.known || !ok {
				foreign++
				continue
			}
			count[r.key]++
		}
	}
	for k, e := range f.entries {
		switch n := count[k]; {
		case e.acked && n == 0:
			missing++
		case n > 1 && !e.unsure:
			doubled++
		}
	}
	p.count(missing, "lost")
	p.count(doubled, "doubled")
	p.count(foreign, "that no producer wrote")
	p.detail = "west holds every acknowledged record, none twice that its producer did not write twice"
	return p
}

// evidence: every command left a bundle that holds against the anchor it printed.
func (f facts) evidence() finding {
	p := finding{what: "evidence"}
	events := 0
	for _, r := range f.runs {
		events += r.verdict.Events
		if !r.verdict.Valid || !r.verdict.Complete || r.Outcome.Outcome != evidence.OutcomeDone {
			fault := []string{fmt.Sprintf("run %s: outcome %s, valid %v, complete %v", r.Run, r.Outcome.Outcome, r.verdict.Valid, r.verdict.Complete)}
			for _, found := range r.verdict.Findings {
				if found.Result != evidence.Good {
					fault = append(fault, fmt.Sprintf("%s %s: %s", found.Name, found.Result, found.Detail))
				}
			}
			p.faults = append(p.faults, strings.Join(fault, ", "))
		}
	}
	want := 3
	if f.quick {
		want = 2
	}
	if len(f.runs) != want {
		p.faults = append(p.faults, fmt.Sprintf("%d bundles of %d", len(f.runs), want))
	}
	p.detail = fmt.Sprintf("%d bundles verified against the anchors the commands printed, %d events", len(f.runs), events)
	return p
}

// lossTable sets the estimate beside what was counted.
func (d *demo) lossTable() {
	actual := map[string]int64{}
	for _, row := range d.story.stranded {
		actual[row.Topic] += row.Records
	}
	d.screen.text("\n")
	d.screen.heading("Records west lacked when east died")
	rows := [][]string{{"topic", "estimated: at least", "at most", "counted"}}
	for _, row := range d.story.estimate.Rows {
		rows = append(rows, []string{row.Topic, words.Number(row.AtLeast()), words.Number(row.Records), words.Number(actual[row.Topic])})
	}
	d.screen.table(1, rows...)
}
