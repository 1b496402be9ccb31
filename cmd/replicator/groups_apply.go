package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
)

type applyOptions struct {
	groupsOptions
	yes, dryRun bool
}

func newGroupsApply(a *app) *cobra.Command {
	o := &applyOptions{}
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Commit the translated offsets to the target's groups, and prove it",
		Long: `Shows the summary of the plan, asks, commits the translated offsets to the target's
groups of the same names, then reads all of them again and compares. Only groups
without active members are written to, and none is set back that has moved on by
itself on the target. Applying twice changes nothing.

Exit codes: 0 everything is as planned, 1 failed or read back otherwise, 3 nothing
could be placed, 4 some offsets were not placed, or could not be read back.`,
		Example: `  replicator groups apply --group billing
  replicator groups apply --groups 'payments\..*' --yes`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.dryRun {
				return a.planGroups(cmd.Context(), cmd.OutOrStdout(), &o.groupsOptions)
			}
			return a.applyGroups(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.targetOptions.add(a, cmd, "table", "wide", "json", "yaml")
	o.selection.add(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "write nothing: replicator groups plan")
	return cmd
}

// proofDoc is what was read back after applying.
type proofDoc struct {
	Proved   int             `json:"proved"`   // offsets that are as planned
	Groups   int             `json:"groups"`   // they are of
	Differ   []differenceDoc `json:"differ"`   // offsets that are others
	Unproved []differenceDoc `json:"unproved"` // offsets that could not be read back
}

type differenceDoc struct {
	Group       string `json:"group"`
	TargetTopic string `json:"target_topic"`
	Partition   int32  `json:"partition"`
	Planned     int64  `json:"planned_offset"`
	Found       *int64 `json:"found_offset,omitempty"` // absent: none
	Detail      string `json:"detail,omitempty"`
}

func (d *differenceDoc) String() string {
	found := "none"
	if d.Found != nil {
		found = words.Number(*d.Found)
	}
	if d.Detail != "" {
		found = d.Detail
	}
	return fmt.Sprintf("%s %s-%d: planned %s, found %s", d.Group, d.TargetTopic, d.Partition, words.Number(d.Planned), found)
}

// proofOf counts what Placer.Prove found.
func proofOf(placements, differ []*checkpoint.Placement) *proofDoc {
	proof := &proofDoc{Differ: []differenceDoc{}, Unproved: []differenceDoc{}}
	bad := map[checkpoint.Key]bool{}
	for _, p := range differ {
		bad[p.Key] = true
		d := differenceDoc{Group: p.Group, TargetTopic: p.TargetTopic, Partition: p.Lane.Partition, Planned: p.Target, Found: known(p.Current)}
		if p.Action == checkpoint.Skip && p.Reason != checkpoint.TargetAhead {
			d.Detail = strings.TrimSuffix(string(p.Reason)+": "+p.Detail, ": ")
			proof.Unproved = append(proof.Unproved, d)
			continue
		}
		proof.Differ = append(proof.Differ, d)
	}
	groups := map[string]bool{}
	for _, p := range placements {
		if p.Action != checkpoint.Skip && !bad[p.Key] {
			proof.Proved++
			groups[p.Group] = true
		}
	}
	proof.Groups = len(groups)
	return proof
}

func (p *proofDoc) sentence() string {
	return fmt.Sprintf("proved: %s of %s are as planned\n", words.Count(int64(p.Proved), "offset"), words.Count(int64(p.Groups), "group"))
}

// err is what the proof found wrong.
func (p *proofDoc) err() error {
	list := func(differences []differenceDoc) string {
		names := make([]string, len(differences))
		for i := range differences {
			names[i] = differences[i].String()
		}
		return named(names)
	}
	switch {
	case len(p.Differ) > 0:
		return coded(exitFailed, fmt.Errorf("prove offsets: %s read back otherwise: %s", words.Count(int64(len(p.Differ)), "offset"), list(p.Differ)),
			"somebody else commits to these groups; find out who, then apply again")
	case len(p.Unproved) > 0:
		return coded(exitPartial, fmt.Errorf("prove offsets: %s could not be read back: %s", words.Count(int64(len(p.Unproved)), "offset"), list(p.Unproved)), "")
	}
	return nil
}

func (a *app) applyGroups(ctx context.Context, out io.Writer, o *applyOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator groups apply --help")
	}
	file, ok := a.stdin.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	if !o.yes && !terminal {
		return coded(exitUsage, errors.New("apply groups: there is no terminal to ask on"), "--yes applies without asking, --dry-run shows what would be done")
	}
	reading, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, err := a.openTarget(reading, &o.targetOptions, true)
	if err != nil {
		return err
	}
	defer t.close()
	c, err := t.choosePlacements(reading, &o.groupsOptions)
	if err != nil {
		return err
	}
	placer := checkpoint.Placer{Target: t.cluster}
	if err := placer.Plan(reading, c.placements); err != nil {
		return explainTarget(reading, fmt.Errorf("plan groups: %w", err), t.link, &o.targetOptions)
	}
	plan := planOf(t, c.placements)
	if plan.Actions[string(checkpoint.Place)]+plan.Actions[string(checkpoint.Keep)] == 0 {
		if err := plan.partial(c.missing); err != nil {
			return err
		}
		return coded(exitRefused, errors.New("apply groups: there is no offset to place"), "replicator groups list shows the groups that have checkpoints")
	}
	if !o.yes {
		fmt.Fprintf(a.stderr, "on cluster %s:\n%s%s\n", t.link.To, plan.summary(newScreen(a.stderr, statusOptions{})), plan.Current.sentence())
		if yes, err := ask(ctx, a.stdin, a.stderr, "Commit these offsets?"); err != nil || !yes {
			if err == nil {
				err = errors.New("no")
			}
			return coded(exitRefused, fmt.Errorf("apply groups: not confirmed: %w", err), "nothing was written")
		}
	}
	// People may have thought for long: the time begins anew, and so does the plan.
	writing, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := placer.ApplyAll(writing, c.placements); err != nil {
		return explainTarget(writing, fmt.Errorf("apply groups: %w", err), t.link, &o.targetOptions)
	}
	differ, err := placer.Prove(writing, c.placements)
	if err != nil {
		return explainTarget(writing, err, t.link, &o.targetOptions)
	}
	return a.reportApplied(out, planOf(t, c.placements), proofOf(c.placements, differ), c.missing, o)
}

// reportApplied prints what was done and returns what is wrong with it.
func (a *app) reportApplied(out io.Writer, doc *planDoc, proof *proofDoc, missing []string, o *applyOptions) error {
	doc.Applied, doc.Proof = true, proof
	var err error
	switch c := targetScreen(out, &o.targetOptions); o.output {
	case "json", "yaml":
		err = writeDocument(out, o.output, doc)
	case "wide":
		err = printText(out, doc.table(c)+proof.sentence())
	default:
		err = printText(out, doc.summary(c)+proof.sentence())
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, doc.Current.sentence())
	if err := proof.err(); err != nil {
		if rest := doc.partial(missing); rest != nil {
			fmt.Fprintln(a.stderr, observe.Printable(rest.Error()))
		}
		return err
	}
	return doc.partial(missing)
}
