package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/offsets"
)

func newGroupsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "groups",
		Short: "Move consumer groups to the target",
		Long: `Shows the groups whose offsets are kept on the target, and commits them to the
target's groups of the same names. A running daemon does so by itself
(checkpoints.commit_groups); these commands do it by hand, from the target
alone, also when the source region and the daemon are gone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGroupsList(a), newGroupsPlan(a), newGroupsApply(a))
	return cmd
}

type groupsOptions struct {
	targetOptions
	selection
}

func (o *groupsOptions) validate() error {
	return errors.Join(o.targetOptions.validate(), o.selection.validate())
}

func newGroupsList(a *app) *cobra.Command {
	o := &groupsOptions{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the groups that have checkpoints",
		Long: `Lists the source's groups whose offsets are kept on the target, with what these
offsets are there. ON TARGET is the state of the target's group of the same name;
- means that there is none, or none that this user may see.

Exit codes: 0 done, 1 failed, 4 a group named is not there, or the states of the
target's groups could not be read.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.listGroups(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.targetOptions.add(a, cmd, "table", "wide", "json", "yaml")
	o.selection.add(cmd)
	return cmd
}

// groupsDoc is what groups list prints as JSON.
type groupsDoc struct {
	Link    string      `json:"link"`
	Time    time.Time   `json:"time"` // when the target was read
	Current *currentDoc `json:"current,omitempty"`
	Groups  []groupDoc  `json:"groups"` // by name and type
}

type groupDoc struct {
	Group      string         `json:"group"`
	Type       string         `json:"type"` // consumer or share
	Topics     int            `json:"topics"`
	Partitions int            `json:"partitions"` // it has committed to
	Outcomes   map[string]int `json:"outcomes"`   // partitions by outcome; others than those named have none
	// Missing is how many source offsets the group has read and the target lacks.
	Missing int64      `json:"missing"`
	Newest  *time.Time `json:"newest_commit,omitempty"`
	Oldest  *time.Time `json:"oldest_commit,omitempty"`
	// State is the state of the target's group, as Kafka calls it; absent: there is
	// none, or it may not be seen.
	State string `json:"target_state,omitempty"`

	outcomes map[offsets.Outcome]int
}

// groupsOf counts placements by group; they are sorted by it.
func groupsOf(placements []*checkpoint.Placement, states kadm.ListedGroups) []groupDoc {
	groups := []groupDoc{}
	var g *groupDoc
	topic := ""
	for _, p := range placements {
		if g == nil || g.Group != p.Group || g.Type != p.Type.String() {
			groups = append(groups, groupDoc{
				Group: p.Group, Type: p.Type.String(), State: states[p.Group].State, Outcomes: map[string]int{}, outcomes: map[offsets.Outcome]int{},
			})
			g, topic = &groups[len(groups)-1], ""
		}
		if p.Lane.Topic != topic {
			topic = p.Lane.Topic
			g.Topics++
		}
		g.Partitions++
		g.Outcomes[p.Outcome.String()]++
		g.outcomes[p.Outcome]++
		if p.Outcome == offsets.Ahead {
			g.Missing += p.Missing
		}
		if t := when(p.Committed); t != nil {
			if g.Newest == nil || t.After(*g.Newest) {
				g.Newest = t
			}
			if g.Oldest == nil || t.Before(*g.Oldest) {
				g.Oldest = t
			}
		}
	}
	return groups
}

// chosen is what a command about groups works on.
type chosen struct {
	placements []*checkpoint.Placement
	missing    []string // groups named that have no checkpoints
}

// choosePlacements translates the checkpoints that are meant.
func (t *target) choosePlacements(ctx context.Context, o *groupsOptions) (*chosen, error) {
	checkpoints, missing, err := o.choose(t.standby.Checkpoints())
	if err != nil {
		return nil, err
	}
	placements, err := t.standby.Placements(ctx, checkpoints)
	if err != nil {
		return nil, explainTarget(ctx, err, t.link, &o.targetOptions)
	}
	return &chosen{placements, missing}, nil
}

func (a *app) listGroups(ctx context.Context, out io.Writer, o *groupsOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator groups list --help")
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
	states, unread := t.cluster.Admin().ListGroups(ctx) // an error of some brokers leaves the others' answers
	doc := &groupsDoc{Link: t.link.Name, Time: t.standby.Time().UTC(), Current: currentOf(t.standby), Groups: groupsOf(c.placements, states)}
	if o.output == "json" || o.output == "yaml" {
		err = writeDocument(out, o.output, doc)
	} else {
		err = printText(out, doc.table(targetScreen(out, &o.targetOptions)))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, doc.Current.sentence())
	switch {
	case unread != nil:
		return coded(exitPartial, fmt.Errorf("read states of groups on %s: %w", t.link.To, unread), "")
	case len(c.missing) > 0:
		return coded(exitPartial, fmt.Errorf("list groups: the target knows nothing of %s", named(c.missing)), "")
	}
	return nil
}

func (d *groupsDoc) table(c screen) string {
	if len(d.Groups) == 0 {
		return "no groups\n"
	}
	g := grid{flexible: 0, columns: []column{
		{name: "GROUP"}, {name: "TYPE"}, {name: "PARTITIONS", right: true}, {name: "NEWEST COMMIT", right: true}, {name: "MISSING", right: true}, {name: "ON TARGET"}, {name: "OUTCOMES"},
	}}
	if c.wide {
		g.columns = append(g.columns, column{name: "TOPICS", right: true}, column{name: "OLDEST COMMIT", right: true})
	}
	for i := range d.Groups {
		gr := &d.Groups[i]
		row := []string{
			observe.Printable(gr.Group), gr.Type, words.Number(int64(gr.Partitions)), age(d.Time, gr.Newest), words.Number(gr.Missing), orDash(gr.State), outcomeCounts(c, gr.outcomes),
		}
		if c.wide {
			row = append(row, words.Number(int64(gr.Topics)), age(d.Time, gr.Oldest))
		}
		g.rows = append(g.rows, row)
	}
	var b strings.Builder
	c.table(&b, g)
	return unindented(&b)
}
