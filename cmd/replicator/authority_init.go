package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/term"

	"replicator/internal/config"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/cutover"
)

// initOptions are those of commands that write a region down by decision.
type initOptions struct {
	link, region, why string
	yes               bool
	timeout           time.Duration
}

func (o *initOptions) add(cmd *cobra.Command, is string) {
	f := cmd.Flags()
	f.StringVar(&o.link, "link", "", "`name` of a link of the pair; needed where the configuration has several pairs")
	f.StringVar(&o.region, "region", "", "`alias` of the cluster that is "+is+" (required)")
	f.StringVar(&o.why, "why", "", "`text` for the history")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.DurationVar(&o.timeout, "timeout", 60*time.Second, "`time` the command may take in all, but for your answer")
}

// chosen is the pair of the region that was given.
func (a *app) chosen(o *initOptions, verb, question string) (*config.Config, *governedPair, error) {
	file, ok := a.stdin.(*os.File)
	switch {
	case o.region == "":
		return nil, nil, coded(exitUsage, errors.New("choose region: "+question), "--region names its cluster")
	case o.timeout <= 0:
		return nil, nil, coded(exitUsage, fmt.Errorf("choose timeout: %v is no time", o.timeout), "")
	case !o.yes && (!ok || !term.IsTerminal(int(file.Fd()))):
		return nil, nil, coded(exitUsage, errors.New(verb+": there is no terminal to ask on"), "--yes writes without asking")
	}
	cfg, err := a.load(nil)
	if err != nil {
		return nil, nil, err
	}
	p, err := choosePair(cfg, o.link)
	if err == nil && !p.Has(o.region) {
		err = coded(exitUsage, fmt.Errorf("choose region: %q is none of pair %s", o.region, p), "")
	}
	return cfg, p, err
}

func newAuthorityInit(a *app) *cobra.Command {
	o := &initOptions{}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write down which region has been authoritative so far",
		Long: `Writes epoch 1 to both copies: the region that applications have written to all the
time. It changes nothing else, and is refused where a record exists, or where a
link has copied to the region. To change the authoritative region is another
command's work.

Exit codes: 0 both copies have it, 1 failed, 3 refused, 4 one copy has it and the
other cluster could not be reached or written to: run it again later.`,
		Example: "  replicator authority init --region east",
		Args:    flagsOnly,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.initAuthority(cmd.Context(), o) },
	}
	o.add(cmd, "authoritative")
	return cmd
}

func (a *app) initAuthority(ctx context.Context, o *initOptions) error {
	cfg, p, err := a.chosen(o, "init authority", "which has been authoritative so far?")
	if err != nil {
		return err
	}
	reading, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	copies := readCopies(reading, cfg, p.Pair)
	defer closeCopies(copies)
	if err := allFailed(copies); err != nil {
		return err
	}
	first, err := initRecord(p, copies, o)
	if err != nil {
		return err
	}
	if err := neverCopiedTo(reading, p, copies, o.region); err != nil {
		return err
	}
	if !o.yes {
		if yes, err := ask(ctx, a.stdin, a.stderr, fmt.Sprintf("Write down that %s has been the authoritative region of %s?", o.region, p)); err != nil || !yes {
			return coded(exitRefused, errors.New("init authority: not confirmed"), "nothing was written")
		}
	}
	writing, stop := context.WithTimeout(ctx, o.timeout)
	defer stop()
	return a.writeInit(writing, p, copies, first)
}

// initRecord is the record to write: a new one, or the one that an earlier init left
// on one copy only.
func initRecord(p *governedPair, copies []*regionCopy, o *initOptions) (authority.Record, error) {
	first := authority.Record{
		Pair: p.String(), Epoch: 1, Region: o.region, Verb: "init", By: cutover.Operator(), Why: o.why, Tool: readBuildInfo().Version, Since: time.Now().UTC(),
	}
	for _, c := range copies {
		for _, r := range c.state.Records {
			if r.Epoch != 1 || r.Verb != "init" || r.Region != o.region || len(c.state.Conflicts) > 0 {
				return first, coded(exitRefused, fmt.Errorf("init authority: the copy on %s has epoch %d for %s already", c.alias, r.Epoch, r.Region), "replicator authority history lists all changes")
			}
			first = r
		}
	}
	return first, nil
}

// neverCopiedTo refuses a region that a link of the pair has copied to: it was not
// authoritative, and what a link back would copy has to be prepared first.
func neverCopiedTo(ctx context.Context, p *governedPair, copies []*regionCopy, region string) error {
	other := p.Other(region)
	journals := map[string]bool{"replicator." + other + "." + region + ".journal": true}
	for _, l := range p.links {
		if l.To == region {
			journals[l.Journal.Topic] = true
		}
	}
	for _, c := range copies {
		switch {
		case c.alias != region:
			continue
		case c.cluster == nil:
			return coded(exitFailed, fmt.Errorf("init authority: it is not known whether anything was copied to %s: %w", region, c.err), "it has to be reached once")
		}
		topics, err := c.cluster.Admin().ListTopicsWithInternal(ctx, slices.Sorted(maps.Keys(journals))...)
		if err != nil {
			return fmt.Errorf("init authority: list topics of %s: %w", region, err)
		}
		for _, t := range topics.Sorted() {
			if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
				continue
			}
			written, err := false, t.Err
			if err == nil {
				written, err = everWritten(ctx, c.cluster, t.Topic)
			}
			switch {
			case err != nil:
				return coded(exitFailed, fmt.Errorf("init authority: it is not known whether anything was copied to %s: describe topic %s: %w", region, t.Topic, err), "")
			case written:
				return coded(exitRefused, fmt.Errorf("init authority: link %s has copied to %s (topic %s has records), so %s has been authoritative", authority.Direction(other, region), region, t.Topic, other),
					"replicator authority init --region "+other)
			}
		}
	}
	return nil
}

// everWritten tells whether a journal has ever had a record. A daemon that found no
// authority makes the journals of its links and leaves them empty; a lane that was opened
// for copying has written there before anything else.
func everWritten(ctx context.Context, c *cluster.Cluster, journal string) (bool, error) {
	ends, err := c.Admin().ListEndOffsets(ctx, journal)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return false, err
	}
	written := false
	ends.Each(func(o kadm.ListedOffset) { written = written || o.Offset > 0 })
	return written, nil
}

// writeInit writes the record, and that the links which copy from its region may go
// on: nothing has to be prepared, as nothing was ever copied to it.
func (a *app) writeInit(ctx context.Context, p *governedPair, copies []*regionCopy, first authority.Record) error {
	written := 0
	var failed error
	for _, c := range copies {
		err := c.err
		if err == nil {
			err = initCopy(ctx, p, c, first)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("copy on %s: %w", c.alias, err))
			continue
		}
		written++
		fmt.Fprintf(a.stdout, "the copy on %s has epoch %d: %s is authoritative\n", c.alias, first.Epoch, first.Region)
	}
	switch {
	case failed == nil:
		return nil
	case written == 0:
		return coded(exitFailed, fmt.Errorf("init authority: %w", failed), "")
	}
	return coded(exitPartial, fmt.Errorf("init authority: %w", failed), "run the same command again when the cluster is there")
}

func initCopy(ctx context.Context, p *governedPair, c *regionCopy, first authority.Record) error {
	change, err := authority.Change(ctx, c.config(p.Pair))
	if err != nil {
		return err
	}
	defer change.Close()
	if err := change.Copy(ctx, []authority.Record{first}); err != nil {
		return err
	}
	if now := change.State(); now.Epoch() != first.Epoch {
		return fmt.Errorf("it has epoch %d for %s by now", now.Epoch(), now.Region(""))
	}
	for _, l := range p.links {
		if ready := change.State().Ready[authority.Direction(l.From, l.To)]; !starts(l, first, c) || ready.Epoch >= first.Epoch {
			continue
		}
		if err := change.Ready(ctx, authority.Ready{From: l.From, To: l.To, Epoch: first.Epoch, Run: first.Run}); err != nil {
			return err
		}
	}
	return nil
}

// starts tells whether a link copies from the record's region to this copy's cluster.
func starts(l *config.Link, first authority.Record, c *regionCopy) bool {
	return l.From == first.Region && l.To == c.alias
}
