package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/authority"
	"replicator/pkg/evidence"
)

// auditOptions are the flags of the commands that read the audit topics of a pair.
type auditOptions struct {
	link, output string
	timeout      time.Duration
}

func (o *auditOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.link, "link", "", "`name` of a link of the pair; needed where the configuration has several pairs")
	f.DurationVar(&o.timeout, "timeout", 60*time.Second, "`time` the command may take in all")
}

// runDoc is one run as the audit topics have it.
type runDoc struct {
	Run      string    `json:"run"`
	Clusters []string  `json:"clusters"` // that have events of it
	Events   int       `json:"events"`
	Began    time.Time `json:"began"`
	Last     time.Time `json:"last"`
	Outcome  string    `json:"outcome"` // "" none: killed, or still at work
	// Removed is how many events the topic's retention has removed: the run's first ones.
	Removed int `json:"removed,omitempty"`
}

// keptDoc says from when on a cluster has the events of runs.
type keptDoc struct {
	Cluster string     `json:"cluster"`
	Since   *time.Time `json:"since,omitempty"` // of the first event it has; absent: it has none
	Removed bool       `json:"removed"`         // there were earlier ones
	// Days is how long an event is kept at least, -1 for ever; absent: not known.
	Days  *float64 `json:"days,omitempty"`
	Error string   `json:"error,omitempty"` // why nothing is known
}

// keptOn reads from when on the clusters have the events of runs.
func keptOn(ctx context.Context, p authority.Pair, copies []*regionCopy) []keptDoc {
	var out []keptDoc
	for _, c := range copies {
		d := keptDoc{Cluster: c.alias}
		err := c.err
		if c.cluster != nil {
			var from authority.AuditStart
			from, err = authority.AuditBegins(ctx, c.config(p))
			d.Removed = from.Removed
			if !from.Since.IsZero() {
				d.Since = &from.Since
			}
			switch {
			case from.Retention < 0:
				d.Days = new(-1.0)
			case from.Retention > 0:
				d.Days = new(from.Retention.Hours() / 24)
			}
		}
		if err != nil {
			d.Error = err.Error()
		}
		out = append(out, d)
	}
	return out
}

// words says where the record of runs begins.
func (d keptDoc) words() string {
	text := "events of runs on " + d.Cluster + ": "
	switch {
	case d.Error != "":
		return text + "not known: " + observe.Printable(d.Error)
	case d.Since == nil && !d.Removed:
		return text + "none was ever written"
	case d.Since == nil:
		text += "none is left, earlier ones were removed"
	case d.Removed:
		text += "from " + instant(*d.Since) + " on, earlier ones were removed"
	default:
		text += "all, the first of " + instant(*d.Since)
	}
	switch {
	case d.Days == nil:
		return text
	case *d.Days < 0:
		return text + "; they are kept for ever"
	}
	return text + fmt.Sprintf("; they are kept for %.4g days", *d.Days)
}

// runsDoc is what evidence list prints as JSON.
type runsDoc struct {
	Runs []*runDoc `json:"runs"`
	Kept []keptDoc `json:"kept"` // by cluster
}

func newEvidenceList(a *app) *cobra.Command {
	o := &auditOptions{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the runs that the clusters know of",
		Long: `Reads topic replicator.audit of both clusters of a pair: every run's events are there,
whatever has become of the bundle, as long as the topic keeps them. The list says from
when on that is, which run it has in part only, and which cluster cannot be reached.

Exit codes: 0 both were read, 1 neither, 4 one of them.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.listRuns(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "table", "`format`: "+strings.Join(documentFormats, ", "))
	return cmd
}

func (a *app) listRuns(ctx context.Context, out io.Writer, o *auditOptions) error {
	if !slices.Contains(documentFormats, o.output) {
		return coded(exitUsage, fmt.Errorf("choose output: %q is none of %s", o.output, strings.Join(documentFormats, ", ")), "")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, copies, err := a.openCopies(ctx, o.link)
	if err != nil {
		return err
	}
	defer closeCopies(copies)
	runs := map[string]*runDoc{}
	var missing error
	read := 0
	for _, c := range copies {
		if err := readRuns(ctx, p, c, runs); err != nil {
			missing = errors.Join(missing, err)
		} else {
			read++
		}
	}
	list := make([]*runDoc, 0, len(runs))
	for _, r := range runs {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *runDoc) int { return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Run, b.Run)) })
	kept := keptOn(ctx, p.Pair, copies)
	if o.output == "table" {
		err = printText(out, newScreen(out, statusOptions{}).runs(list, kept))
	} else {
		err = writeDocument(out, o.output, runsDoc{list, kept})
	}
	switch {
	case err != nil:
		return err
	case missing != nil && read == 0:
		return coded(exitFailed, fmt.Errorf("list runs: %w", missing), "check the clusters' sections of the configuration and their brokers")
	case missing != nil:
		return coded(exitPartial, fmt.Errorf("list runs: %w", missing), "runs that only this cluster knows are not listed")
	}
	return nil
}

// readRuns adds the runs of one cluster.
func readRuns(ctx context.Context, p *governedPair, c *regionCopy, runs map[string]*runDoc) error {
	if c.cluster == nil {
		return c.err
	}
	infos, err := authority.Runs(ctx, c.config(p.Pair))
	if err != nil {
		return err
	}
	for _, info := range infos {
		r := runs[info.ID]
		if r == nil {
			r = &runDoc{Run: info.ID, Began: info.First.UTC()}
			runs[info.ID] = r
		}
		r.Clusters = append(r.Clusters, c.alias)
		if info.Events < r.Events {
			continue
		}
		r.Events, r.Last, r.Outcome, r.Removed = info.Events, info.Last.UTC(), "", 0
		// An event that cannot be read is for evidence export to say.
		if last, err := evidence.ParseEvent(info.LastEvent); err == nil && last.Kind == evidence.KindOutcome {
			if doc, err := evidence.Decode[evidence.OutcomeDoc](last); err == nil {
				r.Outcome = doc.Outcome
			}
		}
		if first, err := evidence.ParseEvent(info.FirstEvent); err == nil {
			r.Removed = first.Seq - 1
		}
	}
	return nil
}

func readRun(ctx context.Context, p *governedPair, c *regionCopy, run string) ([]evidence.Event, error) {
	lines, err := authority.ReadAudit(ctx, c.config(p.Pair), run)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	if first, err := evidence.ParseEvent(lines[0]); err == nil && first.Seq > 1 {
		return nil, fmt.Errorf("read run %s on cluster %s: the topic's retention has removed its first %d events; only its bundle has them", run, c.alias, first.Seq-1)
	}
	events, err := evidence.FromLines(run, lines)
	if err != nil {
		return nil, fmt.Errorf("read run %s on cluster %s: %w", run, c.alias, err)
	}
	return events, nil
}

func (c screen) runs(list []*runDoc, kept []keptDoc) string {
	var b strings.Builder
	if len(list) == 0 {
		b.WriteString("no run is known\n")
	} else {
		c.runTable(&b, list)
	}
	for i, d := range kept {
		if i == 0 {
			b.WriteString("\n")
		}
		b.WriteString(d.words() + "\n")
	}
	return unindented(&b)
}

func (c screen) runTable(b *strings.Builder, list []*runDoc) {
	g := grid{flexible: -1, columns: []column{{name: "RUN"}, {name: "BEGAN"}, {name: "EVENTS", right: true}, {name: "OUTCOME"}, {name: "KEPT ON"}}}
	for _, r := range list {
		outcome := r.Outcome
		if outcome == "" {
			outcome = c.paint(yellow, "not ended")
		}
		if r.Removed > 0 {
			outcome += fmt.Sprintf(", its first %s removed", words.Count(int64(r.Removed), "event"))
		}
		g.rows = append(g.rows, []string{observe.Printable(r.Run), r.Began.Format(time.RFC3339), words.Number(int64(r.Events)), outcome, strings.Join(r.Clusters, ", ")})
	}
	c.table(b, g)
}

func newEvidenceExport(a *app) *cobra.Command {
	o := &auditOptions{}
	to := "."
	cmd := &cobra.Command{
		Use:   "export RUN",
		Short: "Make the bundle of a run from what a cluster keeps",
		Long: `Reads the events of a run from topic replicator.audit and writes its bundle: a
directory below --to, or, where that ends in .tar.zst or .tar.gz, one file. It works
for a run whose machine is lost, and for one that was killed.`,
		Example: `  replicator evidence export failover-20261126T184501Z-3f9a --to /tmp
  replicator evidence export failover-20261126T184501Z-3f9a --to failover.tar.zst`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("want the id of one run, got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exportRun(cmd.Context(), cmd.OutOrStdout(), o, args[0], to)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&to, "to", to, "`directory`, or file ending in .tar.zst or .tar.gz")
	return cmd
}

func (a *app) exportRun(ctx context.Context, out io.Writer, o *auditOptions, run, to string) error {
	if err := evidence.CheckRun(run); err != nil {
		return coded(exitUsage, err, "replicator evidence list shows the runs")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, copies, err := a.openCopies(ctx, o.link)
	if err != nil {
		return err
	}
	defer closeCopies(copies)
	var events []evidence.Event
	var failed error
	for _, c := range copies {
		if c.cluster == nil {
			failed = errors.Join(failed, c.err)
			continue
		}
		found, err := readRun(ctx, p, c, run)
		failed = errors.Join(failed, err)
		if len(found) > len(events) {
			events = found
		}
	}
	if len(events) == 0 {
		return coded(exitFailed, errors.Join(fmt.Errorf("export run %s: no cluster that was read has it", run), failed), "replicator evidence list shows the runs")
	}
	archive := strings.HasSuffix(to, ".tar.zst") || strings.HasSuffix(to, ".tar.gz")
	dir := to
	if archive {
		if dir, err = os.MkdirTemp(filepath.Dir(to), ".evidence-"); err != nil {
			return fmt.Errorf("export run %s: %w", run, err)
		}
		defer os.RemoveAll(dir)
	}
	bundle, err := evidence.Export(dir, run, events)
	if err == nil && archive {
		err, bundle = evidence.Pack(bundle, to), to
	}
	if err != nil {
		return fmt.Errorf("export run %s: %w", run, err)
	}
	fmt.Fprintf(out, "%s\n", bundle)
	return nil
}

// openCopies opens both clusters of a pair; what is wrong with one stands in its copy.
func (a *app) openCopies(ctx context.Context, link string) (*governedPair, []*regionCopy, error) {
	cfg, err := a.load(nil)
	if err != nil {
		return nil, nil, err
	}
	p, err := choosePair(cfg, link)
	if err != nil {
		return nil, nil, err
	}
	return p, readCopies(ctx, cfg, p.Pair), nil
}
