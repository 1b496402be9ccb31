package cutover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/authority"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/hooks"
	"replicator/pkg/writers"
)

// gates collects what had to hold.
type gates struct{ all evidence.GatesDoc }

func (g *gates) add(name string, ok bool, detail, fix string) {
	if ok {
		fix = ""
	}
	g.all = append(g.all, evidence.Gate{Name: name, OK: ok, Detail: detail, Fix: fix})
}

func (g *gates) pass(name, format string, args ...any) {
	g.add(name, true, fmt.Sprintf(format, args...), "")
}

func (g *gates) fail(name, fix, format string, args ...any) {
	g.add(name, false, fmt.Sprintf(format, args...), fix)
}

// judgeGates looks at everything that must hold before a run changes anything. An error
// is of not being able to look at all.
func judgeGates(ctx context.Context, s Setup, req Request, p *Plan) (evidence.GatesDoc, error) {
	g := &gates{}
	w := p.world
	g.authority(s, req, p)
	switch req.Verb {
	case Failover:
		if err := g.sourceGone(ctx, s, req, w); err != nil {
			return nil, err
		}
	default:
		if s.Old.Cluster == nil {
			fix := "bring it back, or give it up with replicator failover"
			if req.Verb == Failback {
				fix = "bring it back first"
			}
			g.fail("region "+s.Old.Alias, fix, "cannot be reached: %v", s.Old.Err)
			return g.all, nil
		}
		g.brokers(ctx, s.Old, false)
		g.reverse(s)
	}
	g.brokers(ctx, s.New, req.Verb == Failover)
	if w.standbyErr != nil {
		fix := "has the link " + s.Forward.Name + " copied to this cluster? check links.name and links.journal.topic"
		if kerr.IsRetriable(w.standbyErr) {
			fix = fmt.Sprintf("is a daemon of link %s running? it makes its topics when it starts; if it has just begun, run the command again in a moment", s.Forward.Name)
		}
		g.fail("journal", fix, "%v", w.standbyErr)
		return g.all, nil
	}
	if req.Verb != Failback {
		g.lanes(s, req, w)
		g.gaps(w)
		g.groups(s, req, p)
	}
	if req.Verb != Failover {
		if err := g.topics(ctx, s, req, w); err != nil {
			return nil, err
		}
	}
	if req.Verb == Switchover || req.Verb == Rollback {
		if err := g.stuck(ctx, s, w); err != nil {
			return nil, err
		}
		g.writers(ctx, s)
	}
	if req.Verb == Rollback {
		if err := g.unwritten(ctx, s); err != nil {
			return nil, err
		}
	}
	if req.Verb == Failback {
		g.stranded(req, p.Stranded)
	}
	g.rights(ctx, s, req, p)
	return g.all, nil
}

// authority: both copies say the same, and it is what the verb begins from.
func (g *gates) authority(s Setup, req Request, p *Plan) {
	w, epoch := p.world, p.Epoch
	const name = "authority"
	if w.oldErr != nil && s.Old.Cluster != nil && req.Verb != Failover {
		g.fail(name, "see to "+s.Old.Alias+", then run the command again", "the copy on %s cannot be read: %v", s.Old.Alias, w.oldErr)
		return
	}
	if w.oldErr == nil {
		old, _ := w.oldState.Current()
		now, _ := w.newState.Current()
		switch d := authority.Compare(w.oldState, w.newState); {
		case d.Relation == authority.Split:
			g.fail(name, "find out which region took writes since, then replicator authority settle --region REGION; the runbook \"Both regions claim authority\" has the steps",
				"split: at epoch %d %s says %s, %s says %s", d.Epoch, s.Old.Alias, orNobody(old.Region), s.New.Alias, orNobody(now.Region))
			return
		case d.Relation != authority.Equal && req.Verb != Failback:
			g.fail(name, "replicator failback brings the copy of a region that returned up to date",
				"the copies differ: %s has epoch %d, %s has epoch %d", s.Old.Alias, old.Epoch, s.New.Alias, now.Epoch)
			return
		}
	}
	current, ok := w.newState.Current()
	region := current.Region
	if old, has := w.oldState.Current(); w.oldErr == nil && has && (!ok || old.Epoch > current.Epoch) {
		current, ok, region = old, true, old.Region
	}
	if !ok {
		switch region = s.authoritativeWithoutRecord(); {
		case region == "" && w.oldErr != nil && req.Verb == Failover:
			// Writing it down now takes the region that is gone.
			g.fail(name, fmt.Sprintf("if applications wrote to %s until it was gone, run the command with a configuration without the link %s->%s: then %s counts as authoritative", s.Old.Alias, s.New.Alias, s.Old.Alias, s.Old.Alias),
				"it is not known which region is authoritative: there are links in both directions, %s has no record and %s does not answer", s.New.Alias, s.Old.Alias)
			return
		case region == "" && w.oldErr != nil:
			g.fail(name, "see to "+s.Old.Alias+", then run the command again", "it is not known which region is authoritative: there are links in both directions, %s has no record and %s does not answer", s.New.Alias, s.Old.Alias)
			return
		case region == "":
			g.fail(name, fmt.Sprintf("replicator authority init --region %s", s.Old.Alias), "no region is authoritative yet: there are links in both directions and no record")
			return
		}
	}
	switch {
	case req.ExpectEpoch >= 0 && req.ExpectEpoch != epoch:
		g.fail(name, "look at replicator authority history, then decide again", "the epoch is %d, not %d as expected: the world has moved on", epoch, req.ExpectEpoch)
	case req.Verb == Failback && p.Resumes == "" && takenIn(s, w.oldState, epoch):
		// Preparing the link anew would have it copy again what it has copied since.
		g.fail(name, "nothing has to be done; replicator status shows how far it is", "%s has been taken in under epoch %d already: link %s->%s is open", s.Old.Alias, epoch, s.New.Alias, s.Old.Alias)
	case req.Verb == Failback && region != s.New.Alias:
		g.fail(name, "", "%s is authoritative, not %s: there is nothing to take in again", region, s.New.Alias)
	case req.Verb == Failover && region == s.New.Alias && w.oldErr != nil && req.Force:
		g.pass(name, "warning: %s is authoritative already by its own copy, epoch %d; written anew because of --force. If %s was made authoritative meanwhile, both claim it when it returns, and nothing is copied until replicator authority settle",
			region, current.Epoch, s.Old.Alias)
	case req.Verb == Failover && region == s.New.Alias && w.oldErr != nil:
		g.fail(name, fmt.Sprintf("if nobody made %s authoritative since, nothing has to be done. If somebody did, or if you do not know, --force writes a new epoch, so that nothing is copied over by surprise when %s returns", s.Old.Alias, s.Old.Alias),
			"%s is authoritative already by its own copy, since %s, epoch %d; that copy may be behind, and %s does not answer", region, current.Since.UTC().Format(time.RFC3339), current.Epoch, s.Old.Alias)
	case req.Verb != Failback && region == s.New.Alias:
		g.fail(name, "nothing has to be done; replicator authority history shows when", "%s is authoritative already, since %s, epoch %d", region, current.Since.UTC().Format(time.RFC3339), current.Epoch)
	case req.Verb == Rollback && current.Verb != string(Switchover):
		g.fail(name, fmt.Sprintf("replicator switchover --to %s is the way back", s.New.Alias), "the last change was no switchover but %q: there is nothing to roll back", current.Verb)
	default:
		g.pass(name, "epoch %d, %s is authoritative", epoch, region)
	}
}

func orNobody(region string) string { return cmp.Or(region, "nobody") }

// sourceGone: a failover is for a region that does not answer.
func (g *gates) sourceGone(ctx context.Context, s Setup, req Request, w *world) error {
	name := "region " + s.Old.Alias
	switch {
	case s.Old.Cluster == nil && !s.Old.Partly:
		g.pass(name, "does not answer: %v", s.Old.Err)
		return nil
	case s.Old.Cluster == nil && req.Force:
		g.pass(name, "warning: %v; given up because of --force: what is written there from now on is stranded", s.Old.Err)
		return nil
	case s.Old.Cluster == nil:
		g.fail(name, "--force gives the region up; applications may still write to what is left of it", "%v", s.Old.Err)
		return nil
	}
	var alive []string
	brokers, err := s.Old.Cluster.Admin().ListBrokers(ctx)
	if err == nil {
		alive = append(alive, fmt.Sprintf("%d brokers answer", len(brokers)))
	}
	if topics := w.topics(); len(topics) > 0 {
		if seen, err := writers.Grown(ctx, s.Old.Cluster, topics, s.Settings.Settle); err == nil {
			if grown := seen.Written(); len(grown) > 0 {
				alive = append(alive, fmt.Sprintf("%d partitions are written to, such as %s", len(grown), grown[0]))
			} else {
				alive = append(alive, "no topic is written to")
			}
		} else if ctx.Err() != nil {
			return err
		}
	}
	what := strings.Join(alive, ", ")
	if req.Force {
		g.pass(name, "warning: it is alive (%s); given up because of --force: what is written there from now on is stranded", what)
		return nil
	}
	g.fail(name, fmt.Sprintf("replicator switchover --to %s loses nothing; --force gives the region up all the same", s.New.Alias), "is alive: %s", what)
	return nil
}

// brokers: every broker can be dialled inside the boundary. Where partly is true some may be
// down: the region is all there is, and what they lead is for the lanes to say.
func (g *gates) brokers(ctx context.Context, r Region, partly bool) {
	name := "brokers of " + r.Alias
	brokers, err := r.Cluster.Admin().ListBrokers(ctx)
	if err != nil {
		g.fail(name, "", "%v", err)
		return
	}
	var unreachable []string
	old, outside := 0, false
	for _, b := range brokers {
		conn, err := r.Cluster.Connect(ctx, b.NodeID)
		if err != nil {
			unreachable = append(unreachable, err.Error())
			_, refused := errors.AsType[*cluster.BoundaryError](err)
			outside = outside || refused
			continue
		}
		if _, ok := conn.MaxVersion(kmsg.DescribeProducers.Int16()); !ok {
			old++
		}
		conn.Close()
	}
	down := len(unreachable)
	switch {
	case old > 0:
		g.fail(name, "upgrade them to Kafka 2.8 or later", "%d of %d do not tell who has written to a partition: whether anybody writes, and whether a fence holds, could not be proved", old, len(brokers))
	case down == 0:
		g.pass(name, "%d, all inside the boundary", len(brokers))
	case partly && !outside && down < len(brokers):
		g.pass(name, "warning: %d of %d do not answer: %s", down, len(brokers), unreachable[0])
	default:
		g.fail(name, "bring them back, or extend clusters."+r.Alias+".boundary", "%d of %d cannot be used: %s", down, len(brokers), unreachable[0])
	}
}

// reverse: there is a link that can copy back.
func (g *gates) reverse(s Setup) {
	if s.Reverse == nil {
		g.fail("reverse link", fmt.Sprintf("add {from: %s, to: %s, topics: [...]} to links", s.New.Alias, s.Old.Alias), "none is configured: %s could not follow", s.Old.Alias)
		return
	}
	g.pass("reverse link", "%s", s.Reverse.Name)
}

// lanes: every partition of the source is copied, and near its end.
func (g *gates) lanes(s Setup, req Request, w *world) {
	planned := req.Verb != Failover
	var broken, never, behind []string
	var total int64
	known := 0
	for _, l := range w.lanes {
		if l.known {
			known++
		}
		switch {
		case l.known && l.tail.Err != nil:
			broken = append(broken, fmt.Sprintf("%s: %v", l.lane, l.tail.Err))
		case l.known && l.tail.Warning != "":
			broken = append(broken, fmt.Sprintf("%s: %s", l.lane, l.tail.Warning))
		case !l.known && planned:
			never = append(never, l.lane.String())
		case planned && l.lag() > s.Settings.LagLimit:
			behind = append(behind, fmt.Sprintf("%s by %d", l.lane, l.lag()))
		}
		if l.lag() > 0 {
			total += l.lag()
		}
	}
	switch {
	case known == 0:
		g.fail("lanes", "replicator status says why; is a daemon running? is that the region that is meant?", "the link %s has copied nothing", s.Forward.Name)
	case len(broken) > 0 && !planned && req.Force:
		g.pass("lanes", "warning: %d of %d cannot be read, given up because of --force: how far they were copied is not known, and no group is placed on them: %s", len(broken), known, first(broken))
	case len(broken) > 0 && !planned:
		g.fail("lanes", fmt.Sprintf("replicator offsets show says more; where a partition of %s has no leader, bring its brokers back. --force goes on without these lanes, and --skip-group leaves out the groups that read them", s.New.Alias), "%d of %d cannot be read: %s", len(broken), known, first(broken))
	case len(broken) > 0:
		g.fail("lanes", "replicator offsets show says more", "%d of %d cannot be read: %s", len(broken), known, first(broken))
	case len(never) > 0:
		g.fail("lanes", "replicator status says why; is a daemon running? if it has just begun, run the command again in a moment", "%d partitions were never copied: %s", len(never), first(never))
	default:
		g.pass("lanes", "%d, all readable on %s", known, s.New.Alias)
	}
	if !planned {
		return
	}
	if len(behind) > 0 {
		g.fail("lag", "wait until replicator status shows less, or raise cutover.lag_limit", "%d partitions are more than %d records behind: %s", len(behind), s.Settings.LagLimit, first(behind))
	} else {
		g.pass("lag", "%d records, at most %d a partition are allowed", total, s.Settings.LagLimit)
	}
}

func first(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}

// gaps: what was never copied is said; it is not a reason to stay.
func (g *gates) gaps(w *world) {
	var all []string
	for _, l := range w.lanes {
		for _, gap := range l.tail.State.Gaps() {
			all = append(all, fmt.Sprintf("%s [%d, %d) %s", l.lane, gap.From, gap.To, gap.Reason))
		}
	}
	if len(all) > 0 {
		g.pass("gaps", "warning: %d ranges of source offsets were never copied: %s", len(all), first(all))
		return
	}
	g.pass("gaps", "none")
}

// groups: every group can be placed.
func (g *gates) groups(s Setup, req Request, p *Plan) {
	var no, ahead []string
	places, named := 0, map[string]bool{}
	for _, row := range p.Groups {
		if checkpoint.Action(row.Action) != checkpoint.Skip {
			places++
			continue
		}
		text := fmt.Sprintf("%s (%s-%d: %s)", row.Group, row.Topic, row.Partition, row.Reason)
		switch {
		case strings.HasPrefix(row.Reason, string(checkpoint.TargetAhead)):
			ahead = append(ahead, text)
		case !slices.Contains(req.SkipGroups, row.Group) && !named[row.Group]:
			named[row.Group] = true
			no = append(no, text)
		}
	}
	switch {
	case len(no) > 0:
		g.fail("groups", "stop the group's members on "+s.New.Alias+", or leave it out with --skip-group; replicator groups plan -o wide shows all", "%d cannot be placed: %s", len(no), first(no))
	case len(ahead) > 0:
		g.pass("groups", "%d offsets can be placed; warning: %d have moved on by themselves on %s and stay: %s", places, len(ahead), s.New.Alias, first(ahead))
	default:
		g.pass("groups", "%d offsets can be placed", places)
	}
}

// stuck: no transaction hangs, or the copy would never come to the ends.
func (g *gates) stuck(ctx context.Context, s Setup, w *world) error {
	open := map[string]int64{}
	for _, l := range w.lanes {
		if l.sourceStable < l.sourceEnd && l.sourceStable >= 0 {
			open[l.lane.String()] = l.sourceStable
		}
	}
	if len(open) == 0 {
		g.pass("open transactions", "none")
		return nil
	}
	if err := pause.For(ctx, s.Settings.Settle); err != nil {
		return err
	}
	ends, stable, err := sourceEnds(ctx, s.Old.Cluster, s.Forward.Topic)
	if err != nil {
		return err
	}
	var stuck []string
	for l, at := range stable {
		if was, ok := open[l.String()]; ok && was == at && at < ends[l] {
			stuck = append(stuck, l.String())
		}
	}
	slices.Sort(stuck)
	if len(stuck) > 0 {
		g.pass("open transactions", "warning: %d partitions have had one open for %v: %s; the drain waits for it", len(stuck), s.Settings.Settle, first(stuck))
		return nil
	}
	g.pass("open transactions", "%d partitions, all moving", len(open))
	return nil
}

// writers: there is a way to keep applications from writing.
func (g *gates) writers(ctx context.Context, s Setup) {
	const name = "writers"
	switch s.Settings.Writers {
	case "stopped":
		g.pass(name, "stopped, by your word; growth of the source would undo the run")
	case "hook":
		if !slices.ContainsFunc(s.Hooks, func(h hooks.Hook) bool { return h.Step == "fence-writers" }) {
			g.fail(name, "add a hook with step: fence-writers to cutover.hooks", "cutover.writers is hook, and there is none")
			return
		}
		g.pass(name, "fenced by a hook")
	default:
		plan, err := s.planWriters(ctx)
		switch {
		case err != nil:
			g.fail(name, "", "%v", err)
		case !plan.Possible:
			g.fail(name, "use cutover.writers: hook, or stop the applications and run with --writers-stopped", "%s", plan.Why)
		default:
			if _, err := packPlan(plan); err != nil {
				g.fail(name, "use cutover.writers: hook, or stop the applications and run with --writers-stopped", "%v", err)
				return
			}
			detail := fmt.Sprintf("%d rules on %s would deny WRITE", len(plan.Rules), s.Old.Alias)
			if len(plan.Warnings) > 0 {
				detail += "; warning: " + strings.Join(plan.Warnings, "; ")
			}
			g.pass(name, "%s", detail)
		}
	}
}

// planWriters says which rules keep applications from writing to the old region.
func (s Setup) planWriters(ctx context.Context) (writers.Plan, error) {
	topics, err := s.topicsOf(ctx, s.Old)
	if err != nil {
		return writers.Plan{}, err
	}
	f := writers.Fence{Cluster: s.Old.Cluster, Topics: topics, Except: slices.Clone(s.Settings.Operators)}
	if s.Old.Principal != "" {
		f.Except = append(f.Except, s.Old.Principal)
	}
	return f.Plan(ctx)
}

// topicsOf are the topics of a region that are copied.
func (s Setup) topicsOf(ctx context.Context, r Region) ([]string, error) {
	topics, err := listTopics(ctx, r.Cluster)
	if err != nil {
		return nil, err
	}
	var out []string
	for t := range topics {
		if s.Forward.Topic(t) {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return out, nil
}

// topics are those of the lanes.
func (w *world) topics() []string {
	var out []string
	for _, l := range w.lanes {
		if len(out) == 0 || out[len(out)-1] != l.lane.Topic {
			out = append(out, l.lane.Topic)
		}
	}
	return out
}

// unwritten: the region that was promoted has taken no record of its own.
func (g *gates) unwritten(ctx context.Context, s Setup) error {
	written, err := writtenSince(ctx, s)
	if err != nil {
		return err
	}
	if len(written) > 0 {
		g.fail("nothing written", fmt.Sprintf("replicator switchover --to %s goes back with all of it", s.New.Alias),
			"%s has taken records since the switchover: %s; going back now is a switchover, not a rollback", s.Old.Alias, first(written))
		return nil
	}
	g.pass("nothing written", "%s has taken no record since the switchover", s.Old.Alias)
	return nil
}
