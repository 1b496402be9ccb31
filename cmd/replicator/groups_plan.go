package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/offsets"
)

func newGroupsPlan(a *app) *cobra.Command {
	o := &groupsOptions{}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would commit, and write nothing",
		Long: `Compares the translated offsets with what the target's groups have, and shows what
replicator groups apply would do: place an offset, keep one that is there already,
or skip one, with the reason:

  group_active      the target's group has members
  group_unreadable  its state or offsets could not be read
  group_other_type  the target's group of this name is no consumer group
  target_ahead      the target's group has moved on by itself
  no_translation    there is no target offset
  no_topic          the target has no such partition
  log_unreadable    where the target's log starts and ends could not be read
  not_allowed       a right is missing

Exit codes: 0 done, 1 failed, 3 a group given with --group cannot be placed in
full.`,
		Example: `  replicator groups plan
  replicator groups plan --group billing -o wide`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.planGroups(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.targetOptions.add(a, cmd, "table", "wide", "json", "yaml")
	o.selection.add(cmd)
	return cmd
}

// planDoc is what groups plan and apply print as JSON.
type planDoc struct {
	Link       string         `json:"link"`
	Time       time.Time      `json:"time"` // when the target was read
	Current    *currentDoc    `json:"current,omitempty"`
	Actions    map[string]int `json:"actions"`    // partitions by action
	Reasons    map[string]int `json:"reasons"`    // skipped partitions by reason
	Partitions []placementDoc `json:"partitions"` // by group, topic and partition
	Applied    bool           `json:"applied"`    // false: a plan
	Proof      *proofDoc      `json:"proof,omitempty"`
}

// placementDoc is what is done about one partition of a group. All offsets are next
// offsets.
type placementDoc struct {
	Group       string            `json:"group"`
	Type        string            `json:"type"`
	Topic       string            `json:"topic"` // of the source
	Partition   int32             `json:"partition"`
	TargetTopic string            `json:"target_topic,omitempty"`
	Source      *int64            `json:"source_offset,omitempty"`
	Outcome     offsets.Outcome   `json:"outcome"`
	Current     *int64            `json:"current_offset,omitempty"` // of the target's group before
	New         *int64            `json:"new_offset,omitempty"`     // the translated one
	Repeat      *int64            `json:"repeat_at_most,omitempty"`
	Action      checkpoint.Action `json:"action"`
	Reason      checkpoint.Reason `json:"reason,omitempty"`
	Detail      string            `json:"detail,omitempty"`
}

// planOf makes the document of what was planned or applied.
func planOf(t *target, placements []*checkpoint.Placement) *planDoc {
	d := newPlan(placements)
	d.Link, d.Time, d.Current = t.link.Name, t.standby.Time().UTC(), currentOf(t.standby)
	return d
}

func newPlan(placements []*checkpoint.Placement) *planDoc {
	d := &planDoc{Actions: map[string]int{}, Reasons: map[string]int{}, Partitions: make([]placementDoc, 0, len(placements))}
	for _, p := range placements {
		d.Actions[string(p.Action)]++
		if p.Reason != "" {
			d.Reasons[string(p.Reason)]++
		}
		d.Partitions = append(d.Partitions, placementDoc{
			Group: p.Group, Type: p.Type.String(), Topic: p.Lane.Topic, Partition: p.Lane.Partition, TargetTopic: p.TargetTopic,
			Source: known(p.Source), Outcome: p.Outcome, Current: known(p.Current), New: known(p.Target), Repeat: known(p.Repeat),
			Action: p.Action, Reason: p.Reason, Detail: cmp.Or(p.Detail, p.Clamped),
		})
	}
	return d
}

func (a *app) planGroups(ctx context.Context, out io.Writer, o *groupsOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator groups plan --help")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, err := a.openTarget(ctx, &o.targetOptions, true)
	if err != nil {
		return err
	}
	defer t.close()
	c, err := t.choosePlacements(ctx, o)
	if err != nil {
		return err
	}
	if err := (checkpoint.Placer{Target: t.cluster}).Plan(ctx, c.placements); err != nil {
		return explainTarget(ctx, fmt.Errorf("plan groups: %w", err), t.link, &o.targetOptions)
	}
	doc := planOf(t, c.placements)
	if o.output == "json" || o.output == "yaml" {
		err = writeDocument(out, o.output, doc)
	} else {
		err = printText(out, doc.table(targetScreen(out, &o.targetOptions)))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, doc.Current.sentence())
	refused := doc.refused(func(group string) bool { return slices.Contains(o.groups, group) })
	for _, name := range c.missing {
		refused = append(refused, name+" (the target knows nothing of it)")
	}
	if len(refused) > 0 {
		return coded(exitRefused, fmt.Errorf("refuse groups: %s", named(refused)), "")
	}
	return nil
}

// refused names the groups that cannot be placed in full, each with a reason.
func (d *planDoc) refused(group func(string) bool) []string {
	var out []string
	seen := map[string]bool{}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		if p.Action != checkpoint.Skip || !group(p.Group) || seen[p.Group] {
			continue
		}
		seen[p.Group] = true
		why := string(p.Reason)
		if p.Detail != "" {
			why += ": " + p.Detail
		}
		if p.Reason != checkpoint.GroupActive && p.Reason != checkpoint.GroupOtherType {
			why = fmt.Sprintf("%s-%d: %s", p.Topic, p.Partition, why)
		}
		out = append(out, fmt.Sprintf("%s (%s)", p.Group, why))
	}
	return out
}

// action colours a word by whether something is done.
func (c screen) action(a checkpoint.Action) string {
	switch a {
	case checkpoint.Place:
		return c.paint(green, string(a))
	case checkpoint.Skip:
		return c.paint(yellow, string(a))
	}
	return string(a)
}

func (d *planDoc) table(c screen) string {
	if len(d.Partitions) == 0 {
		return "no offsets\n"
	}
	g := grid{flexible: 0, columns: []column{
		{name: "GROUP"}, {name: "TOPIC"}, {name: "PARTITION", right: true}, {name: "CURRENT", right: true}, {name: "NEW", right: true}, {name: "ACTION"}, {name: "REASON"},
	}}
	if c.wide {
		g.columns = append(g.columns, column{name: "TYPE"}, column{name: "TARGET TOPIC"}, column{name: "SOURCE", right: true}, column{name: "OUTCOME"}, column{name: "REPEAT", right: true}, column{name: "DETAIL"})
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		row := []string{
			observe.Printable(p.Group), observe.Printable(p.Topic), strconv.Itoa(int(p.Partition)), optionalOffset(p.Current), optionalOffset(p.New), c.action(p.Action), orDash(string(p.Reason)),
		}
		if c.wide {
			row = append(row, p.Type, orDash(p.TargetTopic), optionalOffset(p.Source), c.outcome(p.Outcome), repeat(p.Repeat), orDash(p.Detail))
		}
		g.rows = append(g.rows, row)
	}
	var b strings.Builder
	c.table(&b, g)
	return unindented(&b) + "\n" + d.summary(c)
}

// summary counts, a line for each action.
func (d *planDoc) summary(c screen) string {
	var b strings.Builder
	for _, action := range []checkpoint.Action{checkpoint.Place, checkpoint.Keep, checkpoint.Skip} {
		n, groups := 0, map[string]bool{}
		for i := range d.Partitions {
			if p := &d.Partitions[i]; p.Action == action {
				n++
				groups[p.Group] = true
			}
		}
		if n == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s %s of %s", c.action(action), words.Count(int64(n), "offset"), words.Count(int64(len(groups)), "group"))
		if action == checkpoint.Skip {
			b.WriteString(": " + d.reasons())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (d *planDoc) reasons() string {
	var parts []string
	for _, r := range checkpoint.Reasons() {
		if n := d.Reasons[string(r)]; n > 0 {
			parts = append(parts, words.Number(int64(n))+" "+string(r))
		}
	}
	return strings.Join(parts, ", ")
}

// partial is the error of what was not placed.
func (d *planDoc) partial(missing []string) error {
	refused := d.refused(func(string) bool { return true })
	for _, name := range missing {
		refused = append(refused, name+" (the target knows nothing of it)")
	}
	placed := d.Actions[string(checkpoint.Place)] + d.Actions[string(checkpoint.Keep)]
	switch {
	case len(refused) == 0:
		return nil
	case placed == 0:
		return coded(exitRefused, errors.New("refuse groups: "+named(refused)), "nothing was written; replicator groups plan -o wide shows all reasons")
	}
	return coded(exitPartial, errors.New("not placed in full: "+named(refused)), "replicator groups plan -o wide shows all reasons")
}
