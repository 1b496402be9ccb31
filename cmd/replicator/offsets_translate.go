package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/offsets"
)

type translateOptions struct {
	targetOptions
	selection
	source, target int64 // a single offset of one side; -1: that of groups
}

func newOffsetsTranslate(a *app) *cobra.Command {
	o := &translateOptions{}
	cmd := &cobra.Command{
		Use:   "translate",
		Short: "Tell where groups of the source resume on the target",
		Long: `Translates what groups committed on the source into offsets of the target, or one
offset given, either way. OUTCOME says what an offset stands for:

  exact    the record exists on the target
  next     the offset holds no record: it is the next record after it
  end      everything copied has been read
  ahead    the group has read further than was copied
  gap      the records there were never copied; it is the first after them
  before   below what the link, or the target's log, still knows
  unknown  there is no offset

REPEAT is how many records the group reads a second time, at most. AGE is the time
since it committed. -o csv prints a file for kafka-consumer-groups
--reset-offsets --from-file: topic,partition,offset for one group, with the group
in front for several.

Exit codes: 0 done, 1 failed, 4 some offset has no translation.`,
		Example: `  replicator offsets translate
  replicator offsets translate --group billing --topic orders -o wide
  replicator offsets translate --topic orders --partition 3 --at-source-offset 170
  replicator offsets translate --group billing -o csv > billing.csv`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.translate(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.targetOptions.add(a, cmd, "table", "wide", "json", "yaml", "csv")
	o.selection.add(cmd)
	f := cmd.Flags()
	f.Int64Var(&o.source, "at-source-offset", -1, "translate this next `offset` of the source (with --topic and --partition)")
	f.Int64Var(&o.target, "at-target-offset", -1, "translate this next `offset` of the target back to the source (with --topic and --partition)")
	return cmd
}

func (o *translateOptions) single() bool { return o.source >= 0 || o.target >= 0 }

func (o *translateOptions) validate() error {
	if err := errors.Join(o.targetOptions.validate(), o.selection.validate()); err != nil {
		return err
	}
	switch {
	case o.source < -1 || o.target < -1:
		return errors.New("choose offset: it is negative")
	case o.source >= 0 && o.target >= 0:
		return errors.New("choose one of --at-source-offset and --at-target-offset")
	case o.single() && o.partition < 0:
		return errors.New("translate one offset: of which --topic and --partition?")
	case o.single() && (len(o.groups) > 0 || o.pattern != ""):
		return errors.New("translate one offset: it has no group")
	case o.single() && o.output == "csv":
		return errors.New("choose output: csv is for groups")
	}
	return nil
}

// translationsDoc is what offsets translate prints as JSON.
type translationsDoc struct {
	Link    string           `json:"link"`
	Time    time.Time        `json:"time"`              // when the target was read
	Current *currentDoc      `json:"current,omitempty"` // absent: not known, or not asked for
	Offsets []translationDoc `json:"offsets"`           // by group, topic and partition
}

// translationDoc is one offset. All offsets are next offsets.
type translationDoc struct {
	Group       string          `json:"group,omitempty"`
	Type        string          `json:"type,omitempty"` // of the group: consumer or share
	Topic       string          `json:"topic"`          // of the source
	Partition   int32           `json:"partition"`
	TargetTopic string          `json:"target_topic,omitempty"`
	Source      *int64          `json:"source_offset,omitempty"`
	Target      *int64          `json:"target_offset,omitempty"`
	Outcome     offsets.Outcome `json:"outcome"`
	// Missing counts offsets that were read and are not on the other side (ahead),
	// or lie in the gap.
	Missing int64 `json:"missing"`
	// Repeat is how many records are read a second time at most.
	Repeat    *int64     `json:"repeat_at_most,omitempty"`
	Committed *time.Time `json:"committed,omitempty"`
	Metadata  string     `json:"metadata,omitempty"` // as the group committed it
	Detail    string     `json:"detail,omitempty"`   // of the outcome, for people
}

func translationOf(p *checkpoint.Placement) translationDoc {
	return translationDoc{
		Group: p.Group, Type: p.Type.String(), Topic: p.Lane.Topic, Partition: p.Lane.Partition, TargetTopic: p.TargetTopic,
		Source: known(p.Source), Target: known(p.Target), Outcome: p.Outcome, Missing: p.Missing, Repeat: known(p.Repeat),
		Committed: when(p.Committed), Metadata: p.Metadata, Detail: p.Why,
	}
}

// partial is why not everything was translated, empty if it was.
func (d *translationsDoc) partial(missing []string) string {
	unknown := 0
	for i := range d.Offsets {
		if d.Offsets[i].Outcome == offsets.Unknown {
			unknown++
		}
	}
	switch {
	case len(missing) > 0:
		return "the target knows nothing of " + named(missing)
	case unknown > 0:
		return fmt.Sprintf("%s of %s cannot be translated (outcome unknown; -o wide says why)", words.Number(int64(unknown)), words.Count(int64(len(d.Offsets)), "offset"))
	}
	return ""
}

func (a *app) translate(ctx context.Context, out io.Writer, o *translateOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator offsets translate --help")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, err := a.openTarget(ctx, &o.targetOptions, !o.single())
	if err != nil {
		return err
	}
	defer t.close()
	if o.single() {
		return a.translateOne(ctx, out, t, o)
	}
	chosen, missing, err := o.choose(t.standby.Checkpoints())
	if err != nil {
		return err
	}
	placements, err := t.standby.Placements(ctx, chosen)
	if err != nil {
		return explainTarget(ctx, err, t.link, &o.targetOptions)
	}
	doc := &translationsDoc{Link: t.link.Name, Time: t.standby.Time(), Current: currentOf(t.standby), Offsets: make([]translationDoc, 0, len(placements))}
	for _, p := range placements {
		doc.Offsets = append(doc.Offsets, translationOf(p))
	}
	why := doc.partial(missing)
	switch o.output {
	case "json", "yaml":
		err = writeDocument(out, o.output, doc)
	case "csv":
		var left []string
		if left, err = doc.csv(out, len(o.groups) == 1 && o.pattern == "" || doc.oneGroup()); why == "" && len(left) > 0 {
			why = fmt.Sprintf("%s left out: %s", words.Count(int64(len(left)), "offset"), named(left))
		} else if len(left) > 0 {
			fmt.Fprintf(a.stderr, "left out: %s\n", named(left))
		}
	default:
		err = printText(out, doc.table(targetScreen(out, &o.targetOptions)))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, doc.Current.sentence())
	if why != "" {
		return coded(exitPartial, errors.New(why), "")
	}
	return nil
}

// translateOne translates an offset that needs no group.
func (a *app) translateOne(ctx context.Context, out io.Writer, t *target, o *translateOptions) error {
	lane := offsets.Lane{Topic: o.topic, Partition: o.partition}
	tails, err := t.tails(ctx, []offsets.Lane{lane}, &o.targetOptions)
	if err != nil {
		return err
	}
	one := translationDoc{Topic: o.topic, Partition: o.partition, TargetTopic: t.link.TargetName(o.topic), Source: known(o.source), Target: known(o.target)}
	tail, ok := tails[lane]
	switch {
	case one.TargetTopic == "":
		one.Detail = "the topic is not among those the link copies"
	case !ok:
		one.Detail = "the link has not copied this partition"
	case tail.Err != nil:
		one.Detail = tail.Err.Error()
	case o.target >= 0:
		got := tail.State.TranslateBack(o.target)
		one.Source, one.Outcome, one.Missing, one.Detail = known(got.To), got.Outcome, got.Missing, got.Reason
	default:
		got := tail.State.Translate(o.source).Within(tail.Start, tail.End)
		one.Target, one.Outcome, one.Missing, one.Detail = known(got.To), got.Outcome, got.Missing, got.Reason
		one.Repeat = known(checkpoint.Repeat(tail.State, got))
	}
	doc := &translationsDoc{Link: t.link.Name, Time: t.standby.Time(), Offsets: []translationDoc{one}}
	if o.output == "json" || o.output == "yaml" {
		err = writeDocument(out, o.output, doc)
	} else {
		err = printText(out, doc.single(targetScreen(out, &o.targetOptions), o.target >= 0))
	}
	if err == nil && one.Outcome == offsets.Unknown {
		return coded(exitPartial, fmt.Errorf("translate offset of %s: %s", observe.Printable(lane.String()), observe.Printable(one.Detail)), "replicator offsets show lists the partitions the link has copied")
	}
	return err
}

// tails reads how far lanes have come. It knows that no lane at all would be all.
func (t *target) tails(ctx context.Context, lanes []offsets.Lane, o *targetOptions) (map[offsets.Lane]offsets.Tail, error) {
	var copied []offsets.Lane
	for _, l := range lanes {
		if t.link.TargetName(l.Topic) != "" {
			copied = append(copied, l)
		}
	}
	if len(copied) == 0 {
		return nil, nil
	}
	tails, err := t.standby.Tails(ctx, copied)
	if err != nil {
		return nil, explainTarget(ctx, err, t.link, o)
	}
	return tails, nil
}
