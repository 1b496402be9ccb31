package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"replicator/pkg/authority"
	"replicator/pkg/cutover"
)

func newAuthoritySettle(a *app) *cobra.Command {
	o := &initOptions{}
	cmd := &cobra.Command{
		Use:   "settle",
		Short: "Decide which region is authoritative where both claim it",
		Long: `Where the copies give one epoch to different regions, or one of them gives it to two,
somebody has written to the topic by hand, and both directions are closed. Find out
which region took writes since, then settle it: the next epoch is written to both
copies. Both clusters have to answer. No link appends until replicator failback run
has taken the other region in again, and dealt with the records only that one has.

Exit codes: 0 both copies have it, 1 failed, 3 refused: nothing contradicts.`,
		Example: `  replicator authority settle --region west --why "east took no writes since 02:10"`,
		Args:    flagsOnly,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.settleAuthority(cmd.Context(), o) },
	}
	o.add(cmd, "to be authoritative")
	return cmd
}

func (a *app) settleAuthority(ctx context.Context, o *initOptions) error {
	cfg, p, err := a.chosen(o, "settle authority", "which is to be authoritative?")
	if err != nil {
		return err
	}
	reading, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	copies := readCopies(reading, cfg, p.Pair)
	defer closeCopies(copies)
	for _, c := range copies {
		if c.err != nil {
			return coded(exitFailed, fmt.Errorf("settle authority: %w", c.err), "both clusters have to answer, so that both say the same")
		}
	}
	split := authority.Compare(copies[0].state, copies[1].state)
	if split.Relation != authority.Split && len(copies[0].state.Conflicts)+len(copies[1].state.Conflicts) == 0 {
		return coded(exitRefused, fmt.Errorf("settle authority: nothing contradicts: epoch %d", split.Epoch), "replicator switchover or failover change the authoritative region")
	}
	next := authority.Record{
		Epoch: max(copies[0].state.Epoch(), copies[1].state.Epoch()) + 1, Region: o.region, Verb: "settle",
		By: cutover.Operator(), Why: o.why, Tool: readBuildInfo().Version, Since: time.Now().UTC(),
	}
	if !o.yes {
		if yes, err := ask(ctx, a.stdin, a.stderr, fmt.Sprintf("Make %s the authoritative region of %s, epoch %d?", o.region, p, next.Epoch)); err != nil || !yes {
			return coded(exitRefused, errors.New("settle authority: not confirmed"), "nothing was written")
		}
	}
	writing, stop := context.WithTimeout(ctx, o.timeout)
	defer stop()
	opened, shut := 0, error(nil) // rules of a run that kept applications off the region
	for _, c := range copies {
		change, err := authority.Change(writing, c.config(p.Pair))
		if err == nil {
			err = change.Set(writing, next, authority.AllowGap())
			if err == nil && c.alias == o.region {
				_, shut = cutover.OpenWriters(writing, c.cluster, change, "settle", func(rules int) { opened = rules })
			}
			change.Close()
		}
		if err != nil {
			return fmt.Errorf("settle authority: the copy on %s: %w", c.alias, err)
		}
	}
	if shut != nil {
		return coded(exitFailed, fmt.Errorf("%s is authoritative with epoch %d, and rules of an earlier run keep applications from writing there: %w", o.region, next.Epoch, shut),
			"it takes ALTER on the cluster; replicator authority history has the run that made them, kafka-acls --remove takes them away")
	}
	if opened > 0 {
		fmt.Fprintf(a.stderr, "%d rules that kept applications from writing to %s were lifted\n", opened, o.region)
	}
	fmt.Fprintf(a.stderr, "%s is authoritative with epoch %d; replicator failback run --from %s takes %s in again\n", o.region, next.Epoch, p.Other(o.region), p.Other(o.region))
	return nil
}
