package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
)

// cutoverOptions are the flags of the commands that change which region is authoritative.
type cutoverOptions struct {
	verb       cutover.Verb
	command    string // its words, where they are not the verb alone
	to, from   string
	why, by    string
	expect     int64
	yes        bool
	dryRun     bool
	undo       bool
	acceptLoss bool
	force      bool
	stopped    bool
	skipGroups []string
	stranded   string
	exportTo   string
	evidence   string
	output     string
	timeout    time.Duration
}

func (o *cutoverOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.why, "why", "", "`reason`, kept in the history and the evidence")
	f.StringVar(&o.by, "by", cutover.Operator(), "`name` of who decides, kept there too")
	f.Int64Var(&o.expect, "expect-epoch", -1, "refuse unless the authority has this `epoch` now (-1: any)")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "show the actions, gates and tables, and write nothing")
	f.BoolVar(&o.undo, "undo", false, "undo an unfinished run that has not changed the authority yet")
	f.StringVar(&o.evidence, "evidence", "", "`directory` for the evidence (default cutover.evidence)")
	f.StringVarP(&o.output, "output", "o", "table", "`format`: table, wide, json, yaml")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "`time` the command may take in all, but for your answer, behind which it begins anew")
	f.StringArrayVar(&o.skipGroups, "skip-group", nil, "`name` of a group that may stay where it is (repeatable)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

func newSwitchoverCommand(a *app) *cobra.Command {
	o := &cutoverOptions{verb: cutover.Switchover}
	cmd := &cobra.Command{
		Use:   "switchover --to REGION",
		Short: "Make the other region authoritative, as planned: nothing is lost",
		Long: `Both regions are healthy. Applications are kept from writing to the old region, the
copy comes to its end and is compared, the new region becomes authoritative, the
old direction is fenced and every group is placed. What is written from then on is
copied back.

Until the authority record is written a failure undoes everything that was done;
behind it the same command, run again, finishes the run. That holds for a command
that was killed, too: what a run has done is kept on the cluster.

Exit codes: 0 done, 1 failed, 3 refused by a gate or undone, 4 interrupted: run it
again.`,
		Example: `  replicator switchover --to west --dry-run
  replicator switchover --to west --why "maintenance of east" --expect-epoch 4`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cutover(cmd.Context(), cmd.OutOrStdout(), o) },
	}
	o.add(cmd)
	o.addTo(a, cmd)
	cmd.Flags().BoolVar(&o.stopped, "writers-stopped", false, "applications have been stopped by hand: make no rules, only look whether they are still")
	return cmd
}

func (o *cutoverOptions) addTo(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "`region` that becomes authoritative")
	f.StringVar(&o.from, "from", "", "`region` that is given up; needed where several have a link to the new one")
	regions := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, err := a.load(nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for alias := range cfg.Clusters {
			out = append(out, alias)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	_ = cmd.RegisterFlagCompletionFunc("to", regions)
	_ = cmd.RegisterFlagCompletionFunc("from", regions)
}

func newFailoverCommand(a *app) *cobra.Command {
	o := &cutoverOptions{verb: cutover.Failover}
	cmd := &cobra.Command{
		Use:   "failover --to REGION --accept-loss",
		Short: "Make the other region authoritative although the old one is gone",
		Long: `The old region does not answer, or is given up. The command says between
what numbers the lost records of each topic lie, then makes the new region authoritative,
fences the old direction and places every group where it goes on.

Once the authority record is written nothing of it can be undone: the same command, run
again, finishes the run. When the old region returns, replicator failback finds the records
only it has.

Exit codes: 0 done, 1 failed, 3 refused by a gate, 4 interrupted: run it again.`,
		Example: `  replicator failover --to west --dry-run
  replicator failover --to west --accept-loss --why "east is dark since 02:10"`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cutover(cmd.Context(), cmd.OutOrStdout(), o) },
	}
	o.add(cmd)
	o.addTo(a, cmd)
	f := cmd.Flags()
	f.BoolVar(&o.acceptLoss, "accept-loss", false, "records that were not copied are given up")
	f.BoolVar(&o.force, "force", false, "although the old region answers, or something else is against it that only you can judge: the gate says what")
	return cmd
}

func newRollbackCommand(a *app) *cobra.Command {
	o := &cutoverOptions{verb: cutover.Rollback}
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Undo the last switchover, while nothing was written to the new region",
		Long: `Goes back to the region that was authoritative before the last switchover, if the
new one has taken no record of its own. If it has, the command refuses and names the
partitions: going back is then a switchover, which takes those records along.

Exit codes: as for replicator switchover.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cutover(cmd.Context(), cmd.OutOrStdout(), o) },
	}
	o.add(cmd)
	o.addTo(a, cmd)
	_ = cmd.Flags().MarkHidden("to")
	cmd.Flags().BoolVar(&o.stopped, "writers-stopped", false, "applications have been stopped by hand: make no rules, only look whether they are still")
	return cmd
}

func newFailbackCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "failback",
		Short: "Take a region that returned after a failover in again",
		Long: `When the old region returns it may hold records that were never copied: they are
stranded. plan finds and counts them, run deals with them as decided and prepares the
link to that region, which copies the difference only. A switchover then goes back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	plan := &cutoverOptions{verb: cutover.Failback, command: "failback plan", dryRun: true}
	planCmd := &cobra.Command{
		Use:   "plan --from REGION",
		Short: "Count the records only the returned region has, and write nothing",
		Long: `Counts the records only the returned region has, and shows what run would do with them.
Nothing is written.

Exit codes: 0 run would go through, 1 failed, 3 refused by a gate, as while there are
such records and --stranded does not say what becomes of them.`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cutover(cmd.Context(), cmd.OutOrStdout(), plan) },
	}
	run := &cutoverOptions{verb: cutover.Failback, command: "failback run"}
	runCmd := &cobra.Command{
		Use:   "run --from REGION --stranded DECISION",
		Short: "Deal with stranded records and have the region follow again",
		Long: `The decision about stranded records is one of:

  export   write them to a file, one JSON line each, and leave them out
  replay   append them to the authoritative region, with headers that say where they
           were; groups there read them as new records
  discard  leave them where they are

They stay in the logs of the returned region in any case, between what was copied
before and what is copied from now on: a group that goes on there below them reads
them.

Exit codes: as for replicator switchover.`,
		Example: `  replicator failback run --from east --stranded replay
  replicator failback run --from east --stranded export --export-to stranded.jsonl`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.cutover(cmd.Context(), cmd.OutOrStdout(), run) },
	}
	for _, one := range []struct {
		cmd *cobra.Command
		o   *cutoverOptions
	}{{planCmd, plan}, {runCmd, run}} {
		dry := one.o.dryRun
		one.o.add(one.cmd)
		one.o.dryRun = dry
		f := one.cmd.Flags()
		f.StringVar(&one.o.from, "from", "", "`region` that returned")
		f.StringVar(&one.o.stranded, "stranded", "", "`decision` about stranded records: export, replay, discard")
		f.StringVar(&one.o.exportTo, "export-to", "", "`file` for stranded records that are exported; one that is there is not replaced, the name gets a number")
		f.BoolVar(&one.o.stopped, "writers-stopped", false, "applications have been stopped by hand: make no rules, only look whether they are still")
	}
	_ = planCmd.Flags().MarkHidden("dry-run")
	_ = planCmd.Flags().MarkHidden("undo")
	cmd.AddCommand(planCmd, runCmd)
	return cmd
}

func (o *cutoverOptions) validate() error {
	switch {
	case !slices.Contains([]string{"table", "wide", "json", "yaml"}, o.output):
		return fmt.Errorf("choose output: %q is none of table, wide, json, yaml", o.output)
	case o.timeout <= 0:
		return fmt.Errorf("choose timeout: %v is no time", o.timeout)
	case o.to == "" && (o.verb == cutover.Switchover || o.verb == cutover.Failover):
		return errors.New("choose region: name the one that becomes authoritative with --to")
	case o.from == "" && o.verb == cutover.Failback:
		return errors.New("choose region: name the one that returned with --from")
	case o.stranded != "" && !slices.Contains(cutover.Decisions(), cutover.Decision(o.stranded)):
		return fmt.Errorf("decide about stranded records: %q is none of export, replay, discard", o.stranded)
	case o.verb == cutover.Failover && !o.acceptLoss && !o.dryRun && !o.undo:
		return errors.New("fail over: --accept-loss is missing: records that were not copied are given up; --dry-run says between what numbers they lie")
	case o.undo && o.dryRun:
		return errors.New("choose one of --undo and --dry-run")
	}
	return nil
}

// cutover makes the plan, asks, runs it, and prints what came of it.
func (a *app) cutover(ctx context.Context, out io.Writer, o *cutoverOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, fmt.Sprintf("see replicator %s --help", cmp.Or(o.command, string(o.verb))))
	}
	limit, cancel := newTimeLimit(ctx, o.timeout)
	defer cancel()
	ctx = limit
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	setup, done, err := a.openPair(ctx, cfg, o)
	if err != nil {
		return err
	}
	defer done()
	s := newScreen(out, statusOptions{output: o.output})
	req := cutover.Request{
		Verb: o.verb, By: o.by, Why: o.why, ExpectEpoch: o.expect, Force: o.force, Undo: o.undo, SkipGroups: o.skipGroups,
		Stranded: cutover.Decision(o.stranded), ExportTo: o.exportTo,
		Watch: &cutoverWatch{out: a.stderr, screen: newScreen(a.stderr, statusOptions{})},
	}
	if o.dryRun {
		plan, err := cutover.MakePlan(ctx, *setup, req)
		if err != nil {
			return a.cutoverError(err)
		}
		defer plan.Close()
		if o.output == "json" || o.output == "yaml" {
			err = writeDocument(out, o.output, planDocument(plan))
		} else {
			err = printText(out, s.cutoverPlan(plan))
		}
		if err == nil {
			err = plan.Refused()
		}
		return a.cutoverError(err)
	}
	file, ok := a.stdin.(*os.File)
	if !o.yes && (!ok || !term.IsTerminal(int(file.Fd()))) {
		return coded(exitUsage, fmt.Errorf("run %s: there is no terminal to ask on", o.verb), "--yes goes ahead without asking, --dry-run shows what would be done")
	}
	req.Confirm = func(plan *cutover.Plan) error { return a.confirm(limit, o, plan) }
	result, err := cutover.Execute(ctx, *setup, req)
	if err != nil {
		return a.cutoverError(err)
	}
	if o.output == "json" || o.output == "yaml" {
		err = writeDocument(out, o.output, resultDocument(result))
	} else {
		err = printText(out, s.cutoverResult(result))
	}
	if err != nil {
		return err
	}
	return outcomeError(result)
}

// confirm shows the plan and asks whether to go on with it.
func (a *app) confirm(limit *timeLimit, o *cutoverOptions, plan *cutover.Plan) error {
	fmt.Fprint(a.stderr, newScreen(a.stderr, statusOptions{output: o.output}).cutoverPlan(plan))
	if err := plan.Refused(); err != nil && !o.undo {
		return err
	}
	if o.yes {
		return nil
	}
	if yes, err := limit.ask(a.stdin, a.stderr, question(o, plan)); err != nil || !yes {
		return &cutover.RefusedError{Reasons: []string{"not confirmed"}, Fix: "nothing was changed"}
	}
	return nil
}

func question(o *cutoverOptions, plan *cutover.Plan) string {
	switch {
	case o.undo:
		return "Undo run " + plan.Resumes + "?"
	case o.verb == cutover.Failback:
		return fmt.Sprintf("Take %s in again?", o.from)
	case plan.Resumes != "":
		return "Go on with run " + plan.Resumes + "?"
	}
	return fmt.Sprintf("Make %s authoritative?", plan.To)
}

// cutoverError gives an error its exit code and what to do.
func (a *app) cutoverError(err error) error {
	var no *cutover.RefusedError
	var epoch *authority.EpochError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no):
		return coded(exitRefused, err, no.Fix)
	case errors.As(err, &epoch):
		return coded(exitRefused, err, "replicator authority history shows who changed it")
	}
	return err
}

func outcomeError(r *cutover.Result) error {
	o := r.Outcome
	switch o.Outcome {
	case evidence.OutcomeDone:
		return nil
	case evidence.OutcomeRefused:
		return coded(exitRefused, fmt.Errorf("refused: %s", o.Error), o.Next)
	case evidence.OutcomeUndone:
		return coded(exitRefused, fmt.Errorf("undone: %s", o.Error), o.Next)
	case evidence.OutcomeInterrupted:
		return coded(exitPartial, fmt.Errorf("interrupted: %s", o.Error), o.Next)
	}
	return coded(exitFailed, errors.New(o.Error), o.Next)
}

// openPair finds the links between the regions and opens both clusters; one that cannot
// be reached is what gates are for.
func (a *app) openPair(ctx context.Context, cfg *config.Config, o *cutoverOptions) (*cutover.Setup, func(), error) {
	forward, err := chooseDirection(cfg, o)
	if err != nil {
		return nil, nil, err
	}
	s := &cutover.Setup{
		Pair: authority.PairOf(forward.From, forward.To), Hooks: cfg.Cutover.Hooks, Tool: "replicator " + readBuildInfo().Version, Log: zap.NewNop(),
		Settings: cutover.Settings{
			LagLimit: int64(cfg.Cutover.LagLimit), ClockLimit: cfg.Cutover.ClockLimit, Writers: cfg.Cutover.Writers, Operators: cfg.Cutover.Operators, Settle: cfg.Cutover.Settle,
			DrainTimeout: cfg.Cutover.DrainTimeout, GroupsTimeout: cfg.Cutover.GroupsTimeout, VerifyRecords: int64(cfg.Cutover.VerifyRecords), EvidenceDir: cfg.Cutover.Evidence,
		},
	}
	if o.stopped {
		s.Settings.Writers = "stopped"
	}
	if o.evidence != "" {
		s.Settings.EvidenceDir = o.evidence
	}
	if s.Forward, err = cutoverLink(cfg, forward); err != nil {
		return nil, nil, err
	}
	if r := cfg.Reverse(forward); r != nil {
		reverse, err := cutoverLink(cfg, r)
		if err != nil {
			return nil, nil, err
		}
		s.Reverse = &reverse
	}
	s.Old, s.New = openRegion(ctx, cfg, forward.From), openRegion(ctx, cfg, forward.To)
	s.Secrets = append(cfg.Clusters[forward.From].Secrets(), cfg.Clusters[forward.To].Secrets()...)
	done := func() {
		for _, r := range []cutover.Region{s.Old, s.New} {
			if r.Cluster != nil {
				r.Cluster.Close()
			}
		}
	}
	if s.Old.Cluster != nil && s.New.Cluster != nil {
		if err := cluster.Distinct(s.Old.Cluster, s.New.Cluster); err != nil {
			done()
			return nil, nil, coded(exitUsage, err, "")
		}
	}
	if o.verb == cutover.Rollback && o.to == "" {
		return a.openRollback(ctx, cfg, o, s, done)
	}
	return s, done, nil
}

// openRollback turns the pair so that the region before the last switchover is the new one.
func (a *app) openRollback(ctx context.Context, cfg *config.Config, o *cutoverOptions, s *cutover.Setup, done func()) (*cutover.Setup, func(), error) {
	current, err := newestRecord(ctx, s)
	if err != nil {
		done()
		return nil, nil, err
	}
	to := s.Pair.Other(current.Region)
	switch {
	case current.Epoch == 0:
		done()
		if err := unreached(s); err != nil {
			return nil, nil, err
		}
		return nil, nil, coded(exitRefused, errors.New("roll back: no authority was ever set"), "there is nothing to undo")
	case current.Verb == string(cutover.Rollback):
		to = current.Region // killed behind its record, it is finished in its own direction
	}
	if s.New.Alias == to {
		return s, done, nil
	}
	done()
	turned := *o
	turned.to, turned.from = to, s.Pair.Other(to)
	return a.openPair(ctx, cfg, &turned)
}

// newestRecord is the newest authority record of those regions that can be reached; its
// epoch is 0 if there is none.
func newestRecord(ctx context.Context, s *cutover.Setup) (newest authority.Record, err error) {
	for _, r := range []cutover.Region{s.Old, s.New} {
		if r.Cluster == nil {
			continue // its gate says why
		}
		state, err := authority.Read(ctx, authority.Config{Cluster: r.Cluster, Pair: s.Pair})
		if err != nil {
			return newest, err
		}
		if current, ok := state.Current(); ok && current.Epoch > newest.Epoch {
			newest = current
		}
	}
	return newest, nil
}

// unreached is why it is not known that there is no record: a region that cannot be
// reached may have one. It is nil if both were reached.
func unreached(s *cutover.Setup) error {
	var dark []string
	for _, r := range []cutover.Region{s.Old, s.New} {
		if r.Cluster == nil {
			dark = append(dark, fmt.Sprintf("region %s cannot be reached: %v", r.Alias, r.Err))
		}
	}
	if len(dark) == 0 {
		return nil
	}
	return coded(exitRefused, fmt.Errorf("look up which region is authoritative: %s", strings.Join(dark, "; ")), "check its section of the configuration and its brokers")
}

func openRegion(ctx context.Context, cfg *config.Config, alias string) cutover.Region {
	r := cutover.Region{Alias: alias, Principal: cfg.Cutover.Principals[alias]}
	r.Cluster, r.Err = cluster.Open(ctx, alias, cfg.Clusters[alias], cluster.Options{Log: zap.NewNop()})
	return r
}

// chooseDirection finds the link from the region that is given up to the one that becomes
// authoritative.
func chooseDirection(cfg *config.Config, o *cutoverOptions) (*config.Link, error) {
	to, from := o.to, o.from
	if o.verb == cutover.Failback {
		to, from = "", o.from
	}
	for _, alias := range []string{to, from} {
		if _, ok := cfg.Clusters[alias]; alias != "" && !ok {
			var known []string
			for name := range cfg.Clusters {
				known = append(known, name)
			}
			slices.Sort(known)
			return nil, coded(exitUsage, fmt.Errorf("choose region: there is no %q: the configuration has %s", alias, strings.Join(known, ", ")), "a region is named by its cluster's key under clusters")
		}
	}
	if to != "" && to == from {
		return nil, coded(exitUsage, fmt.Errorf("choose regions: --from and --to both name %s", to), "one of them is enough in most cases; --to names the region that becomes authoritative")
	}
	var found []*config.Link
	named := false
	for i := range cfg.Links {
		l := &cfg.Links[i]
		if (to == "" || l.To == to) && (from == "" || l.From == from) {
			named = true
			if l.Governed() {
				found = append(found, l)
			}
		}
	}
	if err := oneLinkEachWay(cfg, found, o.verb); err != nil {
		return nil, err
	}
	if (o.verb == cutover.Rollback || o.verb == cutover.Drill) && to == "" && len(found) == 2 && found[0].From == found[1].To {
		found = found[:1] // the two directions of one pair
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, coded(exitUsage, fmt.Errorf("choose link: %d links fit", len(found)), "name the other region too, with --from or --to")
	case named:
		return nil, coded(exitRefused, errors.New("choose link: its topics have other names on its target: both regions may be written, and there is no authority to change"), "only links with naming: identity are switched")
	}
	return nil, coded(exitUsage, fmt.Errorf("choose link: none goes from %s to %s", orAny(from), orAny(to)), "add both directions under links")
}

// oneLinkEachWay refuses a pair of which a cutover would move a part only: the authority
// binds all its links, and a run drains, fences and prepares one in each direction. A failover
// prepares no link back.
func oneLinkEachWay(cfg *config.Config, found []*config.Link, verb cutover.Verb) error {
	for _, l := range found {
		ways := map[string][]string{}
		for i := range cfg.Links {
			o := &cfg.Links[i]
			back := o.From == l.To && o.To == l.From && verb != cutover.Failover
			if o.Governed() && (back || o.From == l.From && o.To == l.To) {
				ways[o.From] = append(ways[o.From], o.Name)
			}
		}
		for from, names := range ways {
			if len(names) > 1 {
				to := authority.PairOf(l.From, l.To).Other(from)
				return coded(exitUsage, fmt.Errorf("choose link: %d go from %s to %s (%s), and a cutover moves one in each direction", len(names), from, to, strings.Join(names, ", ")),
					"name all topics in one link, or give each link a cluster of its own under clusters, with the same brokers (docs/scale.md)")
			}
		}
	}
	return nil
}

func orAny(alias string) string {
	if alias == "" {
		return "any region"
	}
	return alias
}

func cutoverLink(cfg *config.Config, l *config.Link) (cutover.Link, error) {
	opts, err := daemon.LinkOptions(cfg, l)
	if err != nil {
		return cutover.Link{}, err
	}
	include, err := config.Compile(l.Groups)
	if err != nil {
		return cutover.Link{}, fmt.Errorf("link %s: groups: %w", l.Name, err)
	}
	exclude, err := config.Compile(l.GroupsExclude)
	if err != nil {
		return cutover.Link{}, fmt.Errorf("link %s: groups_exclude: %w", l.Name, err)
	}
	topics, err := opts.Match()
	if err != nil {
		return cutover.Link{}, fmt.Errorf("link %s: %w", l.Name, err)
	}
	out := cutover.Link{Name: l.Name, Options: opts, Topic: topics, Group: func(name string) bool { return include.Match(name) && !exclude.Match(name) }}
	if l.Checkpoints.Follow != "off" {
		out.CheckpointsTopic = l.Checkpoints.Topic
	}
	return out, nil
}
