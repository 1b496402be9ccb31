package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
)

func newOffsetsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "offsets",
		Short: "Tell what source offsets are on the target",
		Long: `Tells where groups of the source would resume on the target, and what the link
knows of the offsets of both sides. Everything comes from the target cluster:
it works when the source region and the daemon are gone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOffsetsTranslate(a), newOffsetsShow(a), newOffsetsExport(a))
	return cmd
}

// targetOptions are the flags of every command that reads a link's target.
type targetOptions struct {
	link    string
	output  string
	outputs []string // those the command has
	timeout time.Duration
	source  bool // the command reads the source as well
}

func (o *targetOptions) add(a *app, cmd *cobra.Command, outputs ...string) {
	o.outputs = outputs
	f := cmd.Flags()
	f.StringVar(&o.link, "link", "", "`name` of the link; needed where the configuration has several")
	f.StringVarP(&o.output, "output", "o", outputs[0], "`format`: "+strings.Join(outputs, ", "))
	f.DurationVar(&o.timeout, "timeout", 60*time.Second, "`time` the command may take in all")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("link", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, err := a.load(nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return linkNames(cfg), cobra.ShellCompDirectiveNoFileComp
	})
}

func (o *targetOptions) validate() error {
	switch {
	case !slices.Contains(o.outputs, o.output):
		return fmt.Errorf("choose output: %q is none of %s", o.output, strings.Join(o.outputs, ", "))
	case o.timeout <= 0:
		return fmt.Errorf("choose timeout: %v is no time", o.timeout)
	}
	return nil
}

func linkNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Links))
	for i := range cfg.Links {
		names[i] = cfg.Links[i].Name
	}
	return names
}

// selection are the flags that choose among checkpoints. Empty chooses all.
type selection struct {
	groups    []string // exact
	pattern   string   // of whole names of groups
	topic     string   // of the source, exact
	partition int32    // -1: all
}

func (s *selection) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.groups, "group", nil, "`name` of a group (repeatable; default all)")
	f.StringVar(&s.pattern, "groups", "", "`pattern` of whole names of groups")
	s.addLane(cmd)
}

func (s *selection) addLane(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.topic, "topic", "", "`name` of a topic, as the source calls it (default all)")
	f.Int32Var(&s.partition, "partition", -1, "`number` of a partition (with --topic; default all)")
}

func (s *selection) validate() error {
	if s.partition < -1 {
		return fmt.Errorf("choose partition: %d is negative", s.partition)
	}
	if s.partition >= 0 && s.topic == "" {
		return fmt.Errorf("choose partition %d: of which --topic?", s.partition)
	}
	if s.pattern != "" {
		if _, err := regexp.Compile(s.pattern); err != nil {
			return fmt.Errorf("choose groups: %w", err)
		}
	}
	return nil
}

// lane tells whether a partition of the source is chosen.
func (s *selection) lane(topic string, partition int32) bool {
	return (s.topic == "" || s.topic == topic) && (s.partition < 0 || s.partition == partition)
}

// what names the topic that is chosen, or one partition of it.
func (s *selection) what() string {
	if s.partition >= 0 {
		return fmt.Sprintf("partition %s-%d", observe.Printable(s.topic), s.partition)
	}
	return "topic " + observe.Printable(s.topic)
}

// choose returns the checkpoints that are meant, and the groups asked for by name
// that have none.
func (s *selection) choose(all []*checkpoint.Checkpoint) (chosen []*checkpoint.Checkpoint, missing []string, err error) {
	group := func(string) bool { return true }
	if s.pattern != "" {
		match, err := config.Compile([]string{s.pattern})
		if err != nil {
			return nil, nil, err
		}
		group = match.Match
	}
	if len(s.groups) > 0 {
		byPattern := group
		group = func(name string) bool {
			return slices.Contains(s.groups, name) || s.pattern != "" && byPattern(name)
		}
	}
	found := map[string]bool{}
	for _, c := range all {
		if group(c.Group) && s.lane(c.Lane.Topic, c.Lane.Partition) {
			chosen = append(chosen, c)
			found[c.Group] = true
		}
	}
	for _, name := range s.groups {
		if !found[name] && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return chosen, missing, nil
}

// named writes names of others, as many as a line holds.
func named(names []string) string {
	const most = 10
	quoted := make([]string, 0, most)
	for i, name := range names {
		if i == most {
			return fmt.Sprintf("%s and %s more", strings.Join(quoted, ", "), words.Number(int64(len(names)-most)))
		}
		quoted = append(quoted, observe.Printable(name))
	}
	return strings.Join(quoted, ", ")
}
