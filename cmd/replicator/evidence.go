package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/evidence"
)

func newEvidenceCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "Check and show what a switchover or another run left behind",
		Long: `Every run of switchover, failover, rollback, failback and drill leaves a bundle: a
directory, or an archive made of it, with its events, a report and a manifest. verify,
show and report need no cluster; list and export read what the clusters keep.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newEvidenceVerify(), newEvidenceShow(), newEvidenceReport(a), newEvidenceList(a), newEvidenceExport(a))
	return cmd
}

func oneBundle(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one bundle, a directory or an archive, got %d arguments", len(args))
	}
	return nil
}

// evidenceOptions are the flags of the commands that read one bundle.
type evidenceOptions struct{ output, anchor string }

func (o *evidenceOptions) add(cmd *cobra.Command, formats ...string) {
	f := cmd.Flags()
	f.StringVar(&o.anchor, "anchor", "", "`hash` of an event, or number:hash, that was kept elsewhere")
	if len(formats) > 0 {
		f.StringVarP(&o.output, "output", "o", "table", "`format`: "+strings.Join(formats, ", "))
		_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails only without the flag
	}
}

// open reads and checks a bundle.
func (o *evidenceOptions) open(path string, formats ...string) ([]evidence.Event, *evidence.Verdict, error) {
	if len(formats) > 0 && !slices.Contains(formats, o.output) {
		return nil, nil, coded(exitUsage, fmt.Errorf("choose output: %q is none of %s", o.output, strings.Join(formats, ", ")), "")
	}
	var anchor *evidence.Anchor
	if o.anchor != "" {
		parsed, err := evidence.ParseAnchor(o.anchor)
		if err != nil {
			return nil, nil, coded(exitUsage, err, "the command of the run printed it, and the report shows it")
		}
		anchor = &parsed
	}
	return evidence.Open(path, anchor)
}

var documentFormats = []string{"table", "json", "yaml"}

func newEvidenceVerify() *cobra.Command {
	o := &evidenceOptions{}
	cmd := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Check that a bundle is what its run wrote",
		Long: `Checks a bundle, a directory or an archive: every event holds the hash of the one
before, every file is as the manifest says, and the report shows what the events say.
A run that was killed leaves a bundle that is valid and incomplete.

Who can write a whole bundle can write all of it anew. --anchor compares it with the
hash of an event that was kept elsewhere: the command of the run printed it, and the
topic replicator.audit has all events.

Exit codes: 0 valid, 1 it cannot be read, 3 not valid.`,
		Example: `  replicator evidence verify switchover-20261126T184501Z-3f9a.tar.zst
  replicator evidence verify ./switchover-20261126T184501Z-3f9a --anchor 34:bd71…`,
		Args: oneBundle,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, verdict, err := o.open(args[0], documentFormats...)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if o.output == "table" {
				err = printText(out, verdictTable(newScreen(out, statusOptions{}), verdict))
			} else {
				err = writeDocument(out, o.output, verdict)
			}
			if err != nil {
				return err
			}
			return refuseBundle(verdict)
		},
	}
	o.add(cmd, documentFormats...)
	return cmd
}

// refuseBundle is the error of a bundle that does not hold.
func refuseBundle(v *evidence.Verdict) error {
	if v.Valid {
		return nil
	}
	var bad []string
	for _, f := range v.Findings {
		if f.Result == evidence.Bad {
			bad = append(bad, f.Name)
		}
	}
	return coded(exitRefused, fmt.Errorf("the bundle is not what its run wrote: %s", strings.Join(bad, ", ")), "look for another copy of it; the topic replicator.audit has the events")
}

// worth says in words what a bundle is worth.
func worth(c screen, v *evidence.Verdict) string {
	switch {
	case !v.Valid:
		return c.paint(red, "NOT VALID")
	case !v.Complete:
		return c.paint(yellow, "valid, incomplete")
	}
	return c.paint(green, "valid, complete")
}

func verdictTable(c screen, v *evidence.Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", observe.Printable(v.Path), worth(c, v))
	fmt.Fprintf(&b, "run %s, %s\n", orDash(v.Run), words.Count(int64(v.Events), "event"))
	if v.Head != "" {
		fmt.Fprintf(&b, "last hash %s\n", evidence.Anchor{Seq: v.Events, Hash: v.Head})
	}
	g := grid{flexible: 2, wrap: true, columns: []column{{name: "CHECK"}, {name: "RESULT"}, {name: "DETAIL"}}}
	for _, f := range v.Findings {
		result := string(f.Result)
		switch f.Result {
		case evidence.Good:
			result = c.paint(green, result)
		case evidence.Bad:
			result = c.paint(red, result)
		}
		g.rows = append(g.rows, []string{f.Name, result, observe.Printable(f.Detail)})
	}
	c.table(&b, g)
	return b.String()
}

func newEvidenceShow() *cobra.Command {
	o := &evidenceOptions{}
	cmd := &cobra.Command{
		Use:   "show BUNDLE",
		Short: "Show what a run did",
		Long: `Checks a bundle and shows its run: what happened, the steps with their times and
proofs, and the figures people ask for first. -o json is the bundle's summary, made
anew from the events.

Exit codes: 0 done, 1 it cannot be read, 3 the bundle is not valid; what is shown then
are the events before the first one that does not hold.`,
		Args: oneBundle,
		RunE: func(cmd *cobra.Command, args []string) error {
			events, verdict, err := o.open(args[0], documentFormats...)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			brief := evidence.Tell(events).Brief()
			if o.output == "table" {
				err = printText(out, storyTable(newScreen(out, statusOptions{}), &brief, verdict))
			} else {
				err = writeDocument(out, o.output, brief)
			}
			if err != nil {
				return err
			}
			return refuseBundle(verdict)
		},
	}
	o.add(cmd, documentFormats...)
	return cmd
}

func storyTable(c screen, d *evidence.SummaryDoc, v *evidence.Verdict) string {
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			c.wrapped(&b, fmt.Sprintf("%-9s ", label), observe.Printable(value))
		}
	}
	title := d.Verb
	if d.From != "" {
		title += " from " + d.From + " to " + d.To
	}
	fmt.Fprintf(&b, "%s: %s\n", observe.Printable(title), c.runOutcome(d.Outcome))
	line("run", d.Run)
	line("by", d.By)
	line("why", d.Why)
	begun := "begun " + instant(d.Begun)
	if d.Took != nil {
		begun += ", took " + words.Seconds(*d.Took)
	}
	line("time", begun)
	epoch := strconv.FormatInt(d.EpochBefore, 10) + " before"
	if d.EpochAfter != nil {
		epoch += ", " + strconv.FormatInt(*d.EpochAfter, 10) + " after"
	}
	line("epoch", epoch)
	line("figures", strings.Join(figures(d), ", "))
	line("error", d.Error)
	line("next", d.Next)
	line("tool", d.Tool)
	fmt.Fprintf(&b, "%-9s %s; replicator evidence verify says more\n", "evidence", worth(c, v))
	if len(d.Steps) == 0 {
		return b.String()
	}
	g := grid{flexible: 3, wrap: true, columns: []column{{name: "STEP"}, {name: "OUTCOME"}, {name: "TOOK", right: true}, {name: "PROOF"}}}
	for _, s := range d.Steps {
		outcome, took := c.runOutcome(s.Outcome), words.Seconds(s.Took)
		if s.Outcome == evidence.StepBegun {
			outcome, took = c.paint(yellow, "not ended"), "-"
		}
		g.rows = append(g.rows, []string{observe.Printable(s.Name), outcome, took, orDash(s.Proof)})
	}
	c.table(&b, g)
	return b.String()
}

// runOutcome colours the outcome of a run or a step.
func (c screen) runOutcome(s string) string {
	switch s {
	case evidence.OutcomeDone:
		return c.paint(green, s)
	case evidence.OutcomeFailed:
		return c.paint(red, s)
	case evidence.StepSkipped:
		return s
	case evidence.OutcomeUndone, evidence.OutcomeInterrupted, evidence.OutcomeRefused, "unfinished":
		return c.paint(yellow, s)
	}
	return observe.Printable(s)
}

// figures are those a run has.
func figures(d *evidence.SummaryDoc) []string {
	var out []string
	if d.WritersFencedSeconds != nil {
		out = append(out, words.Seconds(*d.WritersFencedSeconds)+" without writes")
	}
	if d.RTO != nil {
		out = append(out, "RTO "+words.Seconds(*d.RTO))
	}
	switch {
	case d.LossActual != nil:
		out = append(out, words.Count(*d.LossActual, "record")+" lost")
	case d.LossEstimated != nil && d.LossSeen != nil:
		out = append(out, words.Between(*d.LossSeen, *d.LossEstimated, "record")+" not copied (estimated before)")
	}
	if d.Differences != nil && d.Compared != nil {
		out = append(out, words.Count(*d.Differences, "difference")+" in "+words.Count(*d.Compared, "record"))
	}
	if d.LanesFenced != nil {
		out = append(out, words.Count(int64(*d.LanesFenced), "lane")+" fenced")
	}
	if d.GroupsOffsets > 0 {
		out = append(out, fmt.Sprintf("%s of %s proved", words.Number(int64(d.GroupsProved)), words.Count(int64(d.GroupsOffsets), "group offset")))
	}
	return out
}

func newEvidenceReport(a *app) *cobra.Command {
	o := &evidenceOptions{}
	file := ""
	force := false
	cmd := &cobra.Command{
		Use:   "report BUNDLE --out FILE",
		Short: "Write the report of a run anew, as one HTML file",
		Long: `Checks a bundle and writes its report from the events: one HTML file that needs
nothing else, for a browser or on paper.

Exit codes: 0 done, 1 failed, 3 the bundle is not valid; nothing is written then.`,
		Args: oneBundle,
		RunE: func(_ *cobra.Command, args []string) error {
			if file == "" {
				return coded(exitUsage, errors.New("say where to write the report: --out is needed"), "--out report.html, or --out - for standard output")
			}
			events, verdict, err := o.open(args[0])
			if err != nil {
				return err
			}
			if err := refuseBundle(verdict); err != nil {
				return err
			}
			page, err := evidence.Tell(events).HTML()
			if err != nil {
				return err
			}
			if file == "-" {
				return printText(a.stdout, string(page))
			}
			return writeNewFile(file, page, force)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&file, "out", "", "`file` to write, - for standard output")
	cmd.Flags().BoolVar(&force, "force", false, "write over a file that is there")
	return cmd
}

// writeNewFile writes a file that is not there yet.
func writeNewFile(name string, body []byte, force bool) error {
	mode := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		mode = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(name, mode, 0o600)
	if errors.Is(err, os.ErrExist) {
		return coded(exitUsage, fmt.Errorf("write report: %s is there already", name), "--force writes over it")
	}
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = io.Copy(f, bytes.NewReader(body))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
