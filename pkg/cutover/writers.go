package cutover

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
	"replicator/pkg/writers"
)

// writersFact is the name of the fact that says which rules keep writers from a region's topics.
const writersFact = "writers"

// writersFenced is that fact.
type writersFenced struct {
	Run    string `json:"run"`
	Packed []byte `json:"packed"` // gzip of the writers.Plan as JSON
	// Earlier stood when a failback added to it. The region is not authoritative: undoing the
	// failback leaves these rules.
	Earlier *writersFenced `json:"earlier,omitempty"`
}

func (f *writersFenced) plan() (plan writers.Plan, err error) {
	z, err := gzip.NewReader(bytes.NewReader(f.Packed))
	if err == nil {
		err = json.NewDecoder(io.LimitReader(z, maxUnpacked)).Decode(&plan)
	}
	return plan, err
}

// fenceWriters keeps applications from writing to the old region and proves it.
func (r *run) fenceWriters(ctx context.Context) (string, error) {
	old, err := r.onOld(ctx)
	if err != nil {
		return "", err
	}
	name, how := "fence-writers", "they were stopped, as told"
	if r.req.Verb == Failback {
		name = "fence-returned"
		if err := r.notTakenIn(ctx); err != nil {
			return "", err
		}
	}
	switch {
	case r.Settings.Writers == "hook" && r.req.Verb == Failback:
		how = "no rules, because cutover.writers is hook"
	case r.Settings.Writers == "hook":
		how = "a hook did it"
	case r.Settings.Writers == "acl":
		plan, err := r.fenceByRules(ctx, old)
		if err != nil && r.req.Verb != Failback {
			return "", err
		}
		if err != nil { // a region that returned may have no writers left: the ends tell
			how = "no rules: " + err.Error()
		} else {
			if err := r.spared(ctx, old); err != nil {
				return "", err
			}
			how = fmt.Sprintf("%d rules deny WRITE to %s", len(plan.Rules), principals(plan))
		}
	}
	r.fencedNow()
	topics, err := r.topicsOf(ctx, r.Old)
	if err != nil {
		return "", err
	}
	if len(topics) == 0 {
		return how + "; there is no topic", nil
	}
	r.progress(name, "%s; reading the ends of %s twice", how, r.Old.Alias)
	seen, err := r.still(ctx, name, topics)
	if err != nil {
		return "", err
	}
	r.ends = map[offsets.Lane]int64{}
	for _, e := range seen.Ends {
		r.ends[offsets.Lane{Topic: e.Topic, Partition: e.Partition}] = e.LogEnd
	}
	return fmt.Sprintf("%s; no end of %d partitions moved in %v", how, len(seen.Ends), seen.Second.Sub(seen.First).Round(time.Millisecond)), nil
}

// spared looks whether the rules that were just made keep us out too: the link back is
// prepared while they stand, behind the point where that could still be undone.
func (r *run) spared(ctx context.Context, old *authority.Changer) error {
	topics, err := r.topicsOf(ctx, r.Old)
	if err != nil {
		return err
	}
	missing := missingRights(ctx, r.Old.Cluster, topics, []kmsg.ACLOperation{kmsg.ACLOperationWrite})
	if len(missing) == 0 {
		return nil
	}
	_, err = r.unfence(ctx, old)
	return errors.Join(refused("name the principal of whoever runs this command in cutover.operators", "the rules keep out whoever runs this command, too: %s", strings.Join(missing, "; ")), err)
}

// growthTime is how long, in times the ends are read apart, growth may go on after writers
// were fenced: a request that was authorized before may still be written.
const growthTime = 10

// still waits until nobody writes to the old region any more and no transaction is open.
func (r *run) still(ctx context.Context, step string, topics []string) (writers.Observation, error) {
	settle := r.Settings.Settle
	seen, err := writers.AwaitStill(ctx, r.Old.Cluster, topics, settle, growthTime*settle)
	if err != nil {
		return seen, err
	}
	if len(seen.Written()) == 0 && !seen.Still() {
		r.progress(step, "%d transactions are open, such as %s", len(seen.Open), openTransaction(seen))
		if seen, err = writers.AwaitStill(ctx, r.Old.Cluster, topics, settle, r.Settings.DrainTimeout); err != nil {
			return seen, err
		}
	}
	switch grown := seen.Written(); {
	case len(grown) > 0:
		doc := make(evidence.GrowthDoc, len(grown))
		for i, g := range grown {
			doc[i] = evidence.GrowthRow{Topic: g.Topic, Partition: g.Partition, From: g.From, To: g.To, PerSecond: g.PerSecond}
		}
		return seen, errors.Join(r.event(ctx, evidence.KindGrowth, step, doc),
			refused("stop whoever writes there (super users pass every rule), then run the command again",
				"%s is still written to: %d partitions grew, such as %s", r.Old.Alias, len(grown), grown[0]))
	case !seen.Still():
		return seen, refused("end it (kafka-transactions.sh abort), or wait for its time-out, then run the command again",
			"%s does not come to rest: %d transactions are open, such as %s", r.Old.Alias, len(seen.Open), openTransaction(seen))
	}
	return seen, nil
}

func openTransaction(seen writers.Observation) string {
	if len(seen.Open) == 0 {
		return "none, but not all records are replicated"
	}
	return seen.Open[0].String()
}

func principals(p writers.Plan) string {
	var names []string
	for _, rule := range p.Rules {
		if !slices.Contains(names, rule.Principal) {
			names = append(names, rule.Principal)
		}
	}
	return first(names)
}

// fenceByRules makes the rules. What is to be made is written down first, so that
// whoever comes after a killed command knows what to lift.
func (r *run) fenceByRules(ctx context.Context, old *authority.Changer) (writers.Plan, error) {
	fact, standing, err := readFence(old.State())
	if err != nil {
		return standing, err
	}
	plan, err := r.planWriters(ctx)
	if err != nil {
		return plan, err
	}
	if !plan.Possible {
		return plan, refused("use cutover.writers: hook, or stop the applications and run with --writers-stopped", "%s", plan.Why)
	}
	next := writersFenced{Run: r.id}
	if fact != nil && fact.Run == r.id {
		next.Earlier = fact.Earlier
	} else if fact != nil && r.req.Verb == Failback {
		next.Earlier = &writersFenced{Run: fact.Run, Packed: fact.Packed}
	}
	plan = withStanding(plan, standing)
	if err := putFence(ctx, old, next, plan); err != nil {
		return plan, err
	}
	r.progress("fence-writers", "%d rules for %s are written down", len(plan.Rules), r.Old.Alias)
	r.fencedNow()
	return plan, writers.Apply(ctx, r.Old.Cluster, plan)
}

// fencedNow notes that the old region's writers have nowhere to write, unless it is known
// since when.
func (r *run) fencedNow() {
	if r.fencedAt.IsZero() {
		r.fencedAt = time.Now()
	}
}

// withStanding adds to a plan what an earlier one has made: topics and principals may have
// come since, and what we made stays ours to lift.
func withStanding(plan, standing writers.Plan) writers.Plan {
	at := map[[2]string]int{}
	for i, rule := range plan.Rules {
		at[[2]string{rule.Topic, rule.Principal}] = i
	}
	for _, rule := range standing.Rules {
		if i, ok := at[[2]string{rule.Topic, rule.Principal}]; ok {
			plan.Rules[i].Existed = rule.Existed
		} else {
			plan.Rules = append(plan.Rules, rule)
		}
	}
	return plan
}

// putFence writes a plan down, packed: ten thousand rules are much alike.
func putFence(ctx context.Context, c *authority.Changer, f writersFenced, plan writers.Plan) (err error) {
	if f.Packed, err = packPlan(plan); err != nil {
		return err
	}
	if f.Earlier != nil && len(f.Packed)+len(f.Earlier.Packed) > maxPacked {
		return tooManyRules(len(plan.Rules))
	}
	return c.Put(ctx, writersFact, f.Run, f)
}

func tooManyRules(n int) error {
	return refused("use cutover.writers: hook, or stop the applications and run with --writers-stopped",
		"%d rules are more than can be written down before they are made", n)
}

func packPlan(plan writers.Plan) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	err := json.NewEncoder(z).Encode(plan)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack rules: %w", err)
	}
	if b.Len() > maxPacked {
		return nil, tooManyRules(len(plan.Rules))
	}
	return b.Bytes(), nil
}

// Limits of packed plans: what a fact may hold, and what each may unpack to.
const (
	maxPacked   = 600 << 10
	maxUnpacked = 256 << 20
)

// standingFence is the plan of the rules that keep writers from a region.
func standingFence(s authority.State) (plan writers.Plan, ok bool, err error) {
	f, plan, err := readFence(s)
	return plan, f != nil && err == nil, err
}

// readFence reads the fact with its plan; nil if there is none.
func readFence(s authority.State) (f *writersFenced, plan writers.Plan, err error) {
	fact, ok := s.Facts[writersFact]
	if !ok {
		return nil, plan, nil
	}
	f = &writersFenced{}
	if err = json.Unmarshal(fact.Data, f); err == nil {
		plan, err = f.plan()
	}
	if err != nil {
		return nil, plan, fmt.Errorf("read fact %s: %w", writersFact, err)
	}
	return f, plan, nil
}

// OpenWriters takes away the rules that a run made against the applications of a region,
// and returns how many there were. The right is that of the region's own copy. lifted is
// called when they are gone, before that is written down.
func OpenWriters(ctx context.Context, region *cluster.Cluster, c *authority.Changer, run string, lifted func(rules int)) (int, error) {
	f, plan, err := readFence(c.State())
	if err != nil || f == nil {
		return 0, err
	}
	return liftFence(ctx, region, c, writersFenced{Run: run}, plan, lifted)
}

// liftFence takes away the rules of a plan but those of f.Earlier, and writes down that only
// these are left.
func liftFence(ctx context.Context, region *cluster.Cluster, c *authority.Changer, f writersFenced, plan writers.Plan, lifted func(rules int)) (int, error) {
	// The rules may be another command's by now. Who cannot write this down any more has no
	// right to lift them.
	if err := putFence(ctx, c, f, plan); err != nil {
		return 0, err
	}
	run, left := f.Run, any(nil)
	if f.Earlier != nil {
		earlier, err := f.Earlier.plan()
		if err != nil {
			return 0, fmt.Errorf("read the rules of run %s: %w", f.Earlier.Run, err)
		}
		plan.Rules = slices.DeleteFunc(plan.Rules, func(rule writers.Rule) bool {
			return slices.ContainsFunc(earlier.Rules, func(e writers.Rule) bool { return e.Topic == rule.Topic && e.Principal == rule.Principal })
		})
		run, left = f.Earlier.Run, f.Earlier
	}
	if err := writers.Lift(ctx, region, plan); err != nil {
		return 0, err
	}
	lifted(len(plan.Rules))
	return len(plan.Rules), c.Put(ctx, writersFact, run, left)
}

// lift lets applications write to the authoritative region.
func (r *run) lift(ctx context.Context, step string, region Region, c *authority.Changer) (string, error) {
	rules, err := OpenWriters(ctx, region.Cluster, c, r.id, r.liftedRules(step))
	if err == nil && rules == 0 {
		err = skip("no rule of ours keeps writers from %s", region.Alias)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rules on %s lifted", rules, region.Alias), nil
}

func (r *run) liftedRules(step string) func(int) {
	return func(rules int) { r.progress(step, "%d rules lifted, to be written down", rules) }
}

// unfence takes away what fenceByRules has added on the old region.
func (r *run) unfence(ctx context.Context, old *authority.Changer) (string, error) {
	f, plan, err := readFence(old.State())
	if err != nil {
		return "", err
	}
	if r.req.Verb != Failback { // the old region is authoritative still, whoever made the rules
		return r.lift(ctx, "fence-writers", r.Old, old)
	}
	if f == nil || f.Run != r.id {
		return "", skip("no rule of this run keeps writers from %s", r.Old.Alias)
	}
	rules, err := liftFence(ctx, r.Old.Cluster, old, *f, plan, r.liftedRules("fence-writers"))
	if err != nil {
		return "", err
	}
	proof := fmt.Sprintf("%d rules on %s lifted", rules, r.Old.Alias)
	if f.Earlier != nil {
		proof += ", those of run " + f.Earlier.Run + " stand"
	}
	return proof, nil
}

func (r *run) unfenceWriters(ctx context.Context) (string, error) {
	// The fact on the old region says whether there are rules, whatever this call was told.
	// Who may not even take the right has made none, and needs none to see that.
	if r.old == nil && r.Old.Cluster != nil {
		asking, cancel := context.WithTimeout(ctx, oldTime)
		state, err := authority.Read(asking, r.authorityOn(r.Old))
		cancel()
		if err != nil {
			return "", err
		}
		if _, ok, err := standingFence(state); err == nil && !ok {
			return "", skip("no rule of ours keeps writers from %s", r.Old.Alias)
		}
	}
	old, err := r.onOld(ctx)
	if err != nil {
		return "", err
	}
	return r.unfence(ctx, old)
}

// openWriters lets applications write to the new region: the rules of an earlier run,
// when it was the old one, are lifted.
func (r *run) openWriters(ctx context.Context) (string, error) {
	proof, err := r.lift(ctx, "open-writers", r.New, r.changer)
	if none, ok := errors.AsType[*skipped](err); ok {
		proof, err = none.why, nil
	}
	if err == nil && r.openAt.IsZero() {
		r.openAt = time.Now()
	}
	return proof, err
}
