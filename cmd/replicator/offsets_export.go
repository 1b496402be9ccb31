package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newOffsetsExport(a *app) *cobra.Command {
	o := &targetOptions{}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print all that the target knows of the link's offsets, for other tools",
		Long: `Prints the link, every lane and every checkpoint with its translation: as JSON
lines, each with a field "kind" (link, lane, checkpoint), or as one JSON document.
The fields are those of offsets show and offsets translate; docs/cli.md explains
them. What is not known is absent. Fields may be added, none changes its meaning.

Exit codes: 0 done, 1 failed, 4 some lane could not be read.`,
		Example: `  replicator offsets export > offsets.jsonl
  replicator offsets export | jq -c 'select(.kind == "checkpoint" and .outcome != "exact")'`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.exportOffsets(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.add(a, cmd, "jsonl", "json")
	return cmd
}

// linkDoc is what is exported of the link itself.
type linkDoc struct {
	Name             string      `json:"name"`
	From             string      `json:"from"` // alias of the source cluster
	To               string      `json:"to"`   // alias of the target cluster
	TargetID         string      `json:"target_cluster_id"`
	JournalTopic     string      `json:"journal_topic"`
	CheckpointsTopic string      `json:"checkpoints_topic"`
	Time             time.Time   `json:"time"`              // when the target was read
	Current          *currentDoc `json:"current,omitempty"` // up to when commits are known
}

// exportDoc is what offsets export prints as JSON.
type exportDoc struct {
	Link        linkDoc          `json:"link"`
	Lanes       []laneDoc        `json:"lanes"`
	Checkpoints []translationDoc `json:"checkpoints"`
}

func (a *app) exportOffsets(ctx context.Context, out io.Writer, o *targetOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator offsets export --help")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, err := a.openTarget(ctx, o, true)
	if err != nil {
		return err
	}
	defer t.close()
	lanes, err := t.lanes(ctx, &selection{partition: -1}, o, 0)
	if err != nil {
		return err
	}
	placements, err := t.standby.Placements(ctx, t.standby.Checkpoints())
	if err != nil {
		return explainTarget(ctx, err, t.link, o)
	}
	doc := &exportDoc{
		Link: linkDoc{
			Name: t.link.Name, From: t.link.From, To: t.link.To, TargetID: t.cluster.ID(), JournalTopic: t.link.Journal.Topic,
			CheckpointsTopic: t.link.Checkpoints.Topic, Time: lanes.Time, Current: currentOf(t.standby),
		},
		Lanes: lanes.Lanes, Checkpoints: make([]translationDoc, 0, len(placements)),
	}
	for i := range doc.Lanes {
		doc.Lanes[i].Detail = nil // the same however many lanes there are
	}
	for _, p := range placements {
		doc.Checkpoints = append(doc.Checkpoints, translationOf(p))
	}
	if o.output == "json" {
		err = writeDocument(out, o.output, doc)
	} else {
		err = doc.lines(out)
	}
	if err != nil {
		return err
	}
	return lanes.partial()
}

// lines prints one JSON object a line.
func (d *exportDoc) lines(out io.Writer) error {
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	line := func(doc any) error {
		if err := enc.Encode(doc); err != nil {
			return fmt.Errorf("print jsonl: %w", err)
		}
		return nil
	}
	err := line(struct {
		Kind string `json:"kind"`
		linkDoc
	}{"link", d.Link})
	for i := 0; err == nil && i < len(d.Lanes); i++ {
		err = line(struct {
			Kind string `json:"kind"`
			laneDoc
		}{"lane", d.Lanes[i]})
	}
	for i := 0; err == nil && i < len(d.Checkpoints); i++ {
		err = line(struct {
			Kind string `json:"kind"`
			translationDoc
		}{"checkpoint", d.Checkpoints[i]})
	}
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print jsonl: %w", err)
	}
	return nil
}
