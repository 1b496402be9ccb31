package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/authority"
)

func newAuthorityShow(a *app) *cobra.Command {
	o := &targetOptions{}
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show which region is authoritative, and whether both copies say so",
		Long: `Reads both copies of a pair's authority, tells which region is authoritative and
which links may append. A cluster that cannot be reached is said.

Exit codes: 0 both copies say the same, 1 neither could be read, 4 one could not be
read or is behind, or they contradict each other.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.showAuthority(cmd.Context(), cmd.OutOrStdout(), o, "show", (*authorityDoc).table)
		},
	}
	o.add(a, cmd, "table", "json", "yaml")
	return cmd
}

func newAuthorityHistory(a *app) *cobra.Command {
	o := &targetOptions{}
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List all changes of a pair's authority",
		Long: `Lists the authority records of both copies, the newest last. A record that only one
copy has names the cluster. Records are kept for ever; from when on a cluster has the
events of the runs that wrote them is said below.

Exit codes: as of show.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.showAuthority(cmd.Context(), cmd.OutOrStdout(), o, "history", (*authorityDoc).history)
		},
	}
	o.add(a, cmd, "table", "json", "yaml")
	return cmd
}

// authorityDoc is what authority show and history print as JSON.
type authorityDoc struct {
	Pair     string    `json:"pair"`
	Time     time.Time `json:"time"` // when the copies were read
	Region   string    `json:"region,omitempty"`
	Epoch    int64     `json:"epoch"`    // 0: no record was ever written
	Implied  string    `json:"implied"`  // authoritative without a record; empty: the links copy both ways
	Relation string    `json:"relation"` // of both copies: equal, stale, split; unknown if one is
	Stale    string    `json:"stale,omitempty"`
	// Warning is what is wrong between the copies, for people.
	Warning string      `json:"warning,omitempty"`
	Copies  []copyDoc   `json:"copies"`
	Links   []allowDoc  `json:"links"`
	History []changeDoc `json:"history"` // of both copies, by epoch
	Fence   []fenceRow  `json:"fence,omitempty"`
	Events  []keptDoc   `json:"events,omitempty"` // of history: from when on runs can be proved
	// Assumed says of which links it is not known for how long brokers remember a fence, and why.
	Assumed []string `json:"fence_assumed,omitempty"`
	// Drill is the last one of either direction; absent: there was none.
	Drill *authority.Drill `json:"drill,omitempty"`
}

type copyDoc struct {
	Cluster   string            `json:"cluster"`
	Missing   bool              `json:"missing"` // the topic is not there
	Current   *authority.Record `json:"current,omitempty"`
	Ready     []authority.Ready `json:"ready,omitempty"`
	Conflicts []int64           `json:"conflicts,omitempty"` // epochs this copy gives to two regions
	Error     string            `json:"error,omitempty"`     // why nothing is known
}

type allowDoc struct {
	Link      string `json:"link"`
	MayAppend *bool  `json:"may_append,omitempty"` // absent: not known
	Why       string `json:"why"`
}

type changeDoc struct {
	authority.Record
	Clusters []string `json:"clusters"` // whose copies have it
}

// fenceRow is how well one lane of the closed direction is fenced.
type fenceRow struct {
	Lane  string  `json:"lane"`
	Holds bool    `json:"holds"`
	Age   float64 `json:"age_seconds"` // since its epoch was last taken
	Why   string  `json:"why"`
}

func authorityOf(p *governedPair, copies []*regionCopy, now time.Time) *authorityDoc {
	d := &authorityDoc{Pair: p.String(), Time: now, Implied: p.implied(), Region: p.implied(), Relation: "unknown", Copies: []copyDoc{}, Links: []allowDoc{}, History: []changeDoc{}}
	known := true
	for _, c := range copies {
		cd := copyDoc{Cluster: c.alias, Missing: c.err == nil && c.state.Missing, Conflicts: c.state.Conflicts}
		if c.err != nil {
			known, cd.Error = false, c.err.Error()
		}
		if r, ok := c.state.Current(); ok {
			cd.Current = &r
			if r.Epoch > d.Epoch {
				d.Epoch, d.Region = r.Epoch, r.Region
			}
		}
		for _, k := range slices.Sorted(maps.Keys(c.state.Ready)) {
			cd.Ready = append(cd.Ready, c.state.Ready[k])
		}
		d.Copies = append(d.Copies, cd)
		d.remember(c)
	}
	slices.SortStableFunc(d.History, func(a, b changeDoc) int { return int(a.Epoch - b.Epoch) })
	if known {
		d.compare(copies[0], copies[1])
	}
	d.Drill = newestDrill(copies)
	for _, l := range p.links {
		d.Links = append(d.Links, allowed(l.From, l.To, d.Implied, known, copies))
	}
	return d
}

// remember adds the records of a copy to the history.
func (d *authorityDoc) remember(c *regionCopy) {
	for _, r := range c.state.Records {
		i := slices.IndexFunc(d.History, func(h changeDoc) bool { return h.Epoch == r.Epoch && h.Region == r.Region })
		if i < 0 {
			i, d.History = len(d.History), append(d.History, changeDoc{Record: r})
		}
		d.History[i].Clusters = append(d.History[i].Clusters, c.alias)
	}
}

func (d *authorityDoc) compare(a, b *regionCopy) {
	stale := func(behind, ahead *regionCopy) {
		d.Relation, d.Stale = "stale", behind.alias
		d.Warning = fmt.Sprintf("the copy on %s is behind: it has epoch %d, %s has epoch %d; running the last command again writes it there", behind.alias, behind.state.Epoch(), ahead.alias, ahead.state.Epoch())
	}
	switch diff := authority.Compare(a.state, b.state); diff.Relation {
	case authority.Equal:
		d.Relation = "equal"
	case authority.StaleA:
		stale(a, b)
	case authority.StaleB:
		stale(b, a)
	case authority.Split:
		d.Relation, d.Region = "split", ""
		d.Warning = fmt.Sprintf("the copies contradict each other: epoch %d was given to two regions; decide for one and write a higher epoch to both", diff.Epoch)
	}
}

// allowed tells whether a link may append, by the copy on its target.
func allowed(from, to, implied string, known bool, copies []*regionCopy) allowDoc {
	d := allowDoc{Link: authority.Direction(from, to)}
	for _, c := range copies {
		if c.alias != to {
			continue
		}
		if c.err != nil {
			d.Why = "the copy on its target is not known"
			return d
		}
		ok, why := c.state.MayAppend(from, to)
		if c.state.Epoch() == 0 && implied != from {
			ok, why = false, "no authority was ever set, and the links copy both ways: replicator authority init"
		}
		if c.state.Epoch() == 0 && !known { // the other copy may have one
			why = "its target has no record, and the links copy both ways"
			if ok {
				why = "its target has no record, " + from + " is implied"
			}
		}
		d.MayAppend, d.Why = &ok, why
	}
	return d
}

func (a *app) showAuthority(ctx context.Context, out io.Writer, o *targetOptions, verb string, table func(*authorityDoc, screen) string) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator authority "+verb+" --help")
	}
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	p, err := choosePair(cfg, o.link)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	copies := readCopies(ctx, cfg, p.Pair)
	defer closeCopies(copies)
	if err := allFailed(copies); err != nil {
		return err
	}
	doc := authorityOf(p, copies, time.Now().UTC())
	if verb == "show" {
		doc.Fence, doc.Assumed = fenceRows(ctx, cfg, p, copies)
	} else {
		doc.Events = keptOn(ctx, p.Pair, copies)
	}
	if o.output == "table" {
		err = printText(out, table(doc, targetScreen(out, o)))
	} else {
		err = writeDocument(out, o.output, doc)
	}
	if err != nil {
		return err
	}
	return doc.partial()
}

// partial says what keeps the answer from being whole.
func (d *authorityDoc) partial() error {
	for i := range d.Copies {
		c := &d.Copies[i]
		if c.Error != "" {
			return coded(exitPartial, fmt.Errorf("read authority: the copy on %s is not known: %s", c.Cluster, observe.Printable(c.Error)), "a newer record may be there")
		}
		if len(c.Conflicts) > 0 {
			return coded(exitPartial, fmt.Errorf("read authority: the copy on %s gives epochs %v to two regions: somebody wrote to the topic by hand", c.Cluster, c.Conflicts), "")
		}
	}
	if d.Warning != "" {
		return coded(exitPartial, fmt.Errorf("compare authority: %s", d.Warning), "")
	}
	return nil
}

// complete tells whether both copies were read.
func (d *authorityDoc) complete() bool {
	return !slices.ContainsFunc(d.Copies, func(c copyDoc) bool { return c.Error != "" })
}

var changeColumns = []column{{name: "EPOCH", right: true}, {name: "REGION"}, {name: "SINCE"}, {name: "BY"}, {name: "VERB"}, {name: "WHY"}, {name: "RUN"}}

// changeCells are what a record has in a table.
func changeCells(r *authority.Record) []string {
	return []string{words.Number(r.Epoch), orDash(r.Region), words.Optional(when(r.Since), instant), orDash(r.By), orDash(r.Verb), orDash(r.Why), orDash(r.Run)}
}

func (d *authorityDoc) table(c screen) string {
	var b strings.Builder
	switch {
	case d.Relation == "split":
		fmt.Fprintf(&b, "pair %s: %s which region is authoritative\n", d.Pair, c.paint(red, "it is not decided"))
	case d.Epoch > 0:
		fmt.Fprintf(&b, "pair %s: %s is authoritative, epoch %s\n", d.Pair, c.paint(bold, d.Region), words.Number(d.Epoch))
	case !d.complete():
		fmt.Fprintf(&b, "pair %s: %s which region is authoritative: no record is on the copy that could be read\n", d.Pair, c.paint(yellow, "it is not known"))
	case d.Implied != "":
		fmt.Fprintf(&b, "pair %s: no authority was ever set; %s is implied, the links copy from it\n", d.Pair, c.paint(bold, d.Implied))
	default:
		fmt.Fprintf(&b, "pair %s: no authority was ever set, and the links copy both ways\n", d.Pair)
	}
	g := grid{flexible: 6, wrap: true, columns: append([]column{{name: "COPY"}}, changeColumns...)}
	for i := range d.Copies {
		k := &d.Copies[i]
		row := []string{k.Cluster, "-", "-", "-", "-", "-", "-", "-"}
		switch {
		case k.Error != "":
			row[2], row[6] = c.paint(yellow, "unknown"), observe.Printable(k.Error)
		case k.Current != nil:
			copy(row[1:], changeCells(k.Current))
		}
		g.rows = append(g.rows, row)
	}
	c.table(&b, g)
	links := grid{flexible: 2, wrap: true, columns: []column{{name: "LINK"}, {name: "MAY APPEND"}, {name: "WHY"}}}
	for _, l := range d.Links {
		links.rows = append(links.rows, []string{l.Link, yesNo(c, l.MayAppend), observe.Printable(l.Why)})
	}
	c.table(&b, links)
	drill := lastDrill(c, d.Drill, d.Time)
	if d.Drill == nil && !d.complete() {
		drill = "no drill is on the copy that could be read"
	}
	b.WriteString("\n" + drill + "\n")
	if len(d.Fence) > 0 {
		fence := grid{flexible: 3, wrap: true, columns: []column{{name: "FENCED LANE"}, {name: "HOLDS"}, {name: "AGE", right: true}, {name: "WHY"}}}
		rows, left := d.shown()
		for _, f := range rows {
			fence.rows = append(fence.rows, []string{observe.Printable(f.Lane), yesNo(c, &f.Holds), words.Seconds(f.Age), orDash(f.Why)})
		}
		c.table(&b, fence)
		if left > 0 {
			fmt.Fprintf(&b, "and %s more; -o json has all\n", words.Count(int64(left), "lane"))
		}
	}
	for _, why := range d.Assumed {
		c.wrapped(&b, "fence: ", c.paint(yellow, observe.Printable(why)))
	}
	return b.String()
}

func yesNo(c screen, v *bool) string {
	switch {
	case v == nil:
		return c.paint(yellow, "unknown")
	case *v:
		return c.paint(green, "yes")
	}
	return "no"
}

func (d *authorityDoc) history(c screen) string {
	switch {
	case len(d.History) == 0 && !d.complete():
		return "no change is on the copy that could be read\n"
	case len(d.History) == 0:
		return "no authority was ever set\n"
	}
	g := grid{flexible: 5, wrap: true, columns: append(slices.Clone(changeColumns), column{name: "ONLY ON"})}
	for i := range d.History {
		h := &d.History[i]
		only := ""
		if len(h.Clusters) == 1 {
			only = h.Clusters[0]
		}
		g.rows = append(g.rows, append(changeCells(&h.Record), orDash(only)))
	}
	var b strings.Builder
	c.table(&b, g)
	for i, k := range d.Events {
		if i == 0 {
			b.WriteString("\n")
		}
		b.WriteString(k.words() + "\n")
	}
	return unindented(&b)
}
