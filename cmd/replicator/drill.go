package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/authority"
	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
)

func newDrillCommand(a *app) *cobra.Command {
	o := &cutoverOptions{verb: cutover.Drill}
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Rehearse a switchover on the live pair, and change nothing",
		Long: `Tries everything a switchover rests on: its gates; a fence, on a scratch topic; how
long the copy takes to come to the source's present end; a comparison of the last
records; the translation of every group, into scratch groups; and the record each
group would go on with, read on both sides. It measures how long each takes and how
much a failover would lose now.

Producers, groups and the authority are not touched, no hook is run. Scratch topics
and groups are named replicator.drill.* and are deleted at the end; what a drill that
was killed has left, the next one deletes. Run it by a timer: the daemon shows when
the last one was and how it ended.

Exit codes: 0 passed, 1 failed to run, 3 a gate or check failed, a region cannot be
reached, or a run is unfinished, 4 interrupted: nothing is known.`,
		Example: `  replicator drill
  replicator drill --to west -o json`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.drill(cmd.Context(), cmd.OutOrStdout(), o) },
	}
	o.addTo(a, cmd)
	f := cmd.Flags()
	f.Lookup("to").Usage = "`region` that would be promoted (default the one that is not authoritative)"
	f.Lookup("from").Usage = "`region` that would be given up"
	f.StringVar(&o.why, "why", "", "`reason`, kept in the evidence")
	f.StringVar(&o.by, "by", cutover.Operator(), "`name` of who drills, kept there too")
	f.StringVar(&o.evidence, "evidence", "", "`directory` for the evidence (default cutover.evidence)")
	f.StringVarP(&o.output, "output", "o", "table", "`format`: table, wide, json, yaml")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "`time` the command may take in all")
	f.StringArrayVar(&o.skipGroups, "skip-group", nil, "`name` of a group that is left out (repeatable)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) drill(ctx context.Context, out io.Writer, o *cutoverOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator drill --help")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	setup, done, err := a.openDrill(ctx, cfg, o)
	if err != nil {
		return err
	}
	defer done()
	r, err := cutover.Rehearse(ctx, *setup, cutover.Request{
		By: o.by, Why: o.why, ExpectEpoch: -1, SkipGroups: o.skipGroups,
		Watch: &cutoverWatch{out: a.stderr, screen: newScreen(a.stderr, statusOptions{})},
	})
	if err != nil {
		return a.cutoverError(err)
	}
	if o.output == "json" || o.output == "yaml" {
		err = writeDocument(out, o.output, drillDocument(r))
	} else {
		err = printText(out, newScreen(out, statusOptions{output: o.output}).drillResult(r))
	}
	if err != nil {
		return err
	}
	switch r.Outcome.Outcome {
	case evidence.OutcomeDone:
		return nil
	case evidence.OutcomeInterrupted:
		return coded(exitPartial, fmt.Errorf("interrupted: %s", r.Outcome.Error), r.Outcome.Next)
	}
	if len(r.Drill.Failed) > 0 {
		return coded(exitRefused, errors.New(r.Outcome.Error), r.Outcome.Next)
	}
	return coded(exitFailed, errors.New(r.Outcome.Error), r.Outcome.Next)
}

// openDrill opens the pair so that the authoritative region is the old one.
func (a *app) openDrill(ctx context.Context, cfg *config.Config, o *cutoverOptions) (*cutover.Setup, func(), error) {
	s, done, err := a.openPair(ctx, cfg, o)
	if err != nil || o.to != "" {
		return s, done, err
	}
	best, err := newestRecord(ctx, s)
	if err != nil {
		done()
		return nil, nil, err
	}
	switch {
	case best.Region == s.Old.Alias, best.Region == "" && s.Reverse == nil:
		return s, done, nil
	case best.Region == "":
		done()
		if err := unreached(s); err != nil {
			return nil, nil, err
		}
		return nil, nil, coded(exitRefused, errors.New("drill: no region is authoritative yet: there are links in both directions and no record"), "replicator authority init --region REGION")
	}
	done()
	turned := *o
	turned.to, turned.from = s.Pair.Other(best.Region), best.Region
	return a.openPair(ctx, cfg, &turned)
}

// drillOutput is a drill as programs read it.
type drillOutput struct {
	authority.Drill
	Outcome evidence.OutcomeDoc `json:"outcome"`
	Gates   evidence.GatesDoc   `json:"gates"`
	Checks  evidence.ChecksDoc  `json:"checks"`
	Steps   []evidence.StepDoc  `json:"steps"`
	Groups  evidence.GroupsDoc  `json:"groups"`
	Bundle  string              `json:"bundle,omitempty"`
	Anchor  string              `json:"anchor"`
}

func drillDocument(r *cutover.DrillResult) drillOutput {
	return drillOutput{Drill: r.Drill, Outcome: r.Outcome, Gates: r.Gates, Checks: r.Checks, Steps: r.Steps, Groups: r.Groups, Bundle: r.Bundle, Anchor: r.Anchor}
}

func (c screen) drillResult(r *cutover.DrillResult) string {
	var b strings.Builder
	d := &r.Drill
	fmt.Fprintf(&b, "drill of a switchover from %s to %s: ", observe.Printable(d.From), observe.Printable(d.To))
	switch {
	case d.Success && r.Outcome.Outcome == evidence.OutcomeDone:
		b.WriteString(c.paint(green, "passed"))
	case r.Outcome.Outcome == evidence.OutcomeInterrupted:
		b.WriteString(c.paint(yellow, "interrupted"))
	default:
		b.WriteString(c.paint(red, "FAILED"))
	}
	fmt.Fprintf(&b, ", after %s\n", words.Seconds(r.Outcome.Took))
	c.gates(&b, r.Gates)
	g := grid{flexible: 2, wrap: true, columns: []column{{name: "CHECK"}, {name: "RESULT"}, {name: "DETAIL"}}}
	for _, k := range r.Checks {
		word := c.paint(green, "pass")
		if !k.OK {
			word = c.paint(red, "FAIL")
		}
		g.rows = append(g.rows, []string{observe.Printable(k.Name), word, observe.Printable(k.Detail)})
	}
	c.table(&b, g)
	t := grid{flexible: -1, columns: []column{{name: "STEP"}, {name: "OUTCOME"}, {name: "TOOK", right: true}}}
	for _, s := range r.Steps {
		t.rows = append(t.rows, []string{s.Name, s.Outcome, words.Seconds(s.Took)})
	}
	c.table(&b, t)
	if c.wide {
		c.groupsDoc(&b, r.Groups)
	}
	fmt.Fprintf(&b, "\nrun %s", r.Run)
	if r.Bundle != "" {
		fmt.Fprintf(&b, ", evidence in %s", r.Bundle)
	}
	fmt.Fprintf(&b, "\nanchor %s\n", r.Anchor)
	return b.String()
}

// lastDrill says when the last drill was, in words. It is of the newest that a copy has.
func lastDrill(c screen, d *authority.Drill, now time.Time) string {
	if d == nil {
		return "no drill was ever run: replicator drill rehearses a switchover"
	}
	ago := func(t time.Time) string { return words.Seconds(max(0, now.Sub(t).Seconds())) + " ago" }
	text := fmt.Sprintf("last successful drill %s", ago(d.Ended))
	if !d.Success {
		text = fmt.Sprintf("last drill %s %s: %s", c.paint(red, "failed"), ago(d.Ended), observe.Printable(strings.Join(d.Failed, ", ")))
		if d.LastSuccess != nil {
			text += "; the last successful one was " + ago(*d.LastSuccess)
		} else {
			text += "; none was successful yet"
		}
	}
	return fmt.Sprintf("%s (%s -> %s)", text, observe.Printable(d.From), observe.Printable(d.To))
}

// newestDrill is that of the copies that ended last.
func newestDrill(copies []*regionCopy) *authority.Drill {
	var all []authority.Drill
	for _, c := range copies {
		if d, ok := c.state.Drill(); ok {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return nil
	}
	newest := slices.MaxFunc(all, func(a, b authority.Drill) int { return a.Ended.Compare(b.Ended) })
	return &newest
}
