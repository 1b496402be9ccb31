package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// target is what a link's target cluster tells of the link. Its source is never
// connected to.
type target struct {
	link    *config.Link
	cluster *cluster.Cluster
	standby *checkpoint.Standby
}

func (t *target) close() {
	if t.standby != nil {
		t.standby.Close()
	}
	t.cluster.Close()
}

// openTarget opens the target of the link that is meant and reads journal and,
// if they are wanted, checkpoints.
func (a *app) openTarget(ctx context.Context, o *targetOptions, checkpoints bool) (*target, error) {
	cfg, err := a.load(nil)
	if err != nil {
		return nil, err
	}
	link, err := chooseLink(cfg, o.link)
	if err != nil {
		return nil, err
	}
	c, err := cluster.Open(ctx, link.To, cfg.Clusters[link.To], cluster.Options{Log: zap.NewNop()})
	if err != nil {
		hint := "only the target is connected to: its section of the configuration has to fit"
		if o.source {
			hint = "check its section of the configuration and its brokers"
		}
		return nil, coded(exitFailed, err, hint)
	}
	t := &target{link: link, cluster: c}
	sc := checkpoint.StandbyConfig{Target: c, JournalTopic: link.Journal.Topic, TargetName: link.TargetName, Log: zap.NewNop()}
	if checkpoints {
		sc.CheckpointsTopic = link.Checkpoints.Topic
	}
	if t.standby, err = checkpoint.OpenStandby(ctx, sc); err != nil {
		t.close()
		return nil, explainTarget(ctx, err, link, o)
	}
	for _, w := range t.standby.Warnings() {
		fmt.Fprintf(a.stderr, "warning: journal %s: %s\n", link.Journal.Topic, observe.Printable(w))
	}
	return t, nil
}

func chooseLink(cfg *config.Config, name string) (*config.Link, error) {
	var found *config.Link
	for i := range cfg.Links {
		if l := &cfg.Links[i]; l.Name == name || name == "" && len(cfg.Links) == 1 {
			found = l
		}
	}
	switch {
	case found != nil:
		return found, nil
	case len(cfg.Links) == 0:
		return nil, coded(exitUsage, errors.New("choose link: the configuration has none"), "add one under links")
	case name == "":
		return nil, coded(exitUsage, fmt.Errorf("choose link: there are several: %s", strings.Join(linkNames(cfg), ", ")), "name one with --link")
	}
	return nil, coded(exitUsage, fmt.Errorf("choose link: there is no %q: the configuration has %s", name, strings.Join(linkNames(cfg), ", ")), "")
}

// explainTarget says what it means when something is not on the target.
func explainTarget(ctx context.Context, err error, link *config.Link, o *targetOptions) error {
	journal, isJournal := errors.AsType[*offsets.TopicError](err)
	switch {
	case ctx.Err() != nil:
		return coded(exitFailed, fmt.Errorf("read target %s: not done after %v: %w", link.To, o.timeout, err), "--timeout gives it longer")
	case isJournal:
		return coded(exitFailed, fmt.Errorf("%w; without it nothing can be said of offsets", journal),
			fmt.Sprintf("has link %s copied to cluster %s? check links.name, links.journal.topic and the cluster's bootstrap_servers with replicator config show", link.Name, link.To))
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return coded(exitFailed, fmt.Errorf("%w: no daemon has kept checkpoints of this link on cluster %s, so nothing is known of its groups", err, link.To),
			fmt.Sprintf("is checkpoints.follow off, or checkpoints.topic (%s) another one? replicator offsets translate --topic T --partition P --at-source-offset N needs the journal only", link.Checkpoints.Topic))
	}
	return err
}

// currentDoc says up to when commits of the source are in the checkpoints.
type currentDoc struct {
	UpTo     time.Time `json:"up_to"`
	Instance string    `json:"instance"` // of the daemon that said so
	Mode     string    `json:"mode"`     // tail or poll
}

func currentOf(s *checkpoint.Standby) *currentDoc {
	f, ok := s.Current()
	if !ok {
		return nil
	}
	return &currentDoc{UpTo: f.Current, Instance: f.Instance, Mode: f.Mode}
}

// sentence tells people what it means.
func (c *currentDoc) sentence() string {
	if c == nil {
		return "no daemon has said up to when commits of the source are in the checkpoints: how old they are is not known"
	}
	return fmt.Sprintf("commits of the source up to %s are in the checkpoints (daemon %s, %s); what a group committed later is not known here, and it would read those records again",
		c.UpTo.UTC().Format(time.RFC3339), observe.Printable(c.Instance), observe.Printable(c.Mode))
}

// known makes an offset absent that is not known.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

// when makes a time absent that is not known.
func when(t time.Time) *time.Time {
	if t.IsZero() || t.UnixMilli() <= 0 {
		return nil
	}
	t = t.UTC()
	return &t
}

// age writes how long ago something was.
func age(now time.Time, t *time.Time) string {
	return words.Optional(t, func(t time.Time) string { return words.Span(now.Sub(t)) })
}

// writeDocument prints a document in one of the formats for programs.
func writeDocument(out io.Writer, format string, doc any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // a link's name has a >
	enc.SetIndent("", "  ")
	err := enc.Encode(doc)
	if err == nil && format == "yaml" {
		err = writeYAML(out, body.Bytes())
	} else if err == nil {
		_, err = out.Write(body.Bytes())
	}
	if err != nil {
		return fmt.Errorf("print %s: %w", format, err)
	}
	return nil
}

// targetScreen is a screen for these commands.
func targetScreen(out io.Writer, o *targetOptions) screen {
	return newScreen(out, statusOptions{output: o.output})
}

func printText(out io.Writer, text string) error {
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
