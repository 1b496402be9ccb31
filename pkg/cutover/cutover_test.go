package cutover

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/hooks"
	"replicator/pkg/mirror"
)

// A pair that is written to and copied is moved to and fro by commands that are killed,
// interrupted and outrun, or whose hooks fail.
func TestARegionIsMovedWhateverBefallsTheCommands(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.run()
	from, to, epoch := "east", "west", int64(1)
	rapid.Check(t, func(rt *rapid.T) {
		p.write(from, 4)
		p.passes(p.setup(from, to), Request{Verb: Switchover})
		command := func(t trouble, undo bool, hook ...hooks.Hook) string {
			s := p.setup(from, to)
			s.Settings.EvidenceDir, s.Hooks = "", hook
			c := &command{pair: p, setup: s, trouble: t}
			res, err := c.do(Request{Verb: Switchover, Undo: undo}, nil)
			now := p.look(s)
			said := fmt.Sprintf("%v; hooks %v, undo %v; %s; it came to %s", t, hook, undo, now, end(res, err))
			if d := authority.Compare(now.old, now.new); d.Relation == authority.Split || epochOf(now.new) > epoch+1 || epochOf(now.old) > epochOf(now.new) {
				rt.Fatalf("the authority is not what it was to be: %s", said)
			}
			if res == nil {
				return ""
			}
			rules := map[string]int{from: p.denied(from), to: p.denied(to)}
			switch res.Outcome.Outcome {
			case evidence.OutcomeDone:
				if epochOf(now.new) != epoch+1 || epochOf(now.old) != epoch+1 || rules[from] != 1 || rules[to] != 0 {
					rt.Fatalf("done, and it is not: rules %v; %s", rules, said)
				}
			case evidence.OutcomeUndone, evidence.OutcomeRefused:
				if epochOf(now.new) != epoch || rules[from] != 0 {
					rt.Fatalf("undone, and something is left: rules %v; %s", rules, said)
				}
				p.write(from, 1)
			}
			return res.Outcome.Outcome
		}
		ended := ""
		for range rapid.IntRange(1, 3).Draw(rt, "commands") {
			undo := rapid.IntRange(0, 3).Draw(rt, "undo") == 0
			if ended != evidence.OutcomeDone {
				tr := trouble{rapid.SampledFrom([]string{dies, loses, stopped}).Draw(rt, "what"), rapid.IntRange(1, 45).Draw(rt, "at")}
				var hook []hooks.Hook
				if rapid.Bool().Draw(rt, "a hook fails") {
					hook = []hooks.Hook{{
						Step: rapid.SampledFrom(stepsOf(Switchover)).Draw(rt, "step").name, When: rapid.SampledFrom([]string{hooks.Before, hooks.After}).Draw(rt, "side"), Command: []string{"false"},
					}}
				}
				ended = command(tr, undo, hook...)
			}
		}
		if ended != evidence.OutcomeDone && command(trouble{}, false) != evidence.OutcomeDone {
			rt.Fatalf("the last command does not come to its end")
		}
		from, to, epoch = to, from, epoch+1
		if err := p.mayWrite(to, 1); err == nil {
			rt.Fatalf("the application writes to %s, which is the old region now", to)
		}
		p.write(from, 1)
	})
	for _, alias := range []string{from, to} {
		p.same(alias, p.written)
	}
}

// does runs a verb that has to come to its end.
func (p *pair) does(s Setup, req Request) []evidence.Event {
	p.t.Helper()
	s.Settings.EvidenceDir = ""
	c := &command{pair: p, setup: s}
	res, err := c.do(req, nil)
	if res == nil || res.Outcome.Outcome != evidence.OutcomeDone {
		p.t.Fatalf("%s to %s comes to %s", req.Verb, s.New.Alias, end(res, err))
	}
	_, events, err := p.events(s)
	if err != nil {
		p.t.Fatal(err)
	}
	return events
}

// refuses runs a verb that is refused by its gates, and gives the reasons.
func (p *pair) refuses(s Setup, req Request, want string) {
	p.t.Helper()
	err := p.gates(s, req)
	if _, no := errors.AsType[*RefusedError](err); !no || !strings.Contains(err.Error(), want) {
		p.t.Errorf("%s to %s: %v, want a refusal: %s", req.Verb, s.New.Alias, err, want)
	}
}

// A region dies with records that nobody has copied, returns, and is taken in again: by
// commands that are killed at some moment, with each decision about those records.
func TestAGivenUpRegionIsTakenInAsDecided(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.run()
	from, to := "east", "west"
	has := map[string][]string{from: p.written, to: p.written}
	for round, decision := range []Decision{Replay, Export, Discard} {
		dead := p.setup(from, to)
		dead.Old = illRegion(t, from, "127.0.0.1:1")
		p.same(to, has[to])
		p.commit(from, 4+int64(round))
		until(t, "the group's checkpoint", func() error {
			plan, err := MakePlan(t.Context(), dead, Request{Verb: Failover, ExpectEpoch: -1})
			if err != nil {
				return err
			}
			defer plan.Close()
			for _, row := range plan.Groups {
				if row.Source == nil || *row.Source != 4+int64(round) {
					return fmt.Errorf("%+v", row)
				}
			}
			if len(plan.Groups) != partitions {
				return fmt.Errorf("%d offsets are known", len(plan.Groups))
			}
			return plan.Refused()
		})
		p.stop()
		stranded := p.write(from, 6)

		p.refuses(p.setup(from, to), Request{Verb: Failover}, "is alive")
		events := p.does(dead, Request{Verb: Failover})
		if lost := docs[evidence.LossDoc](t, events, evidence.KindLoss); len(lost) != 1 || lost[0].Actual || len(lost[0].Rows) != 1 {
			t.Errorf("the estimate is %+v", lost)
		}
		if was, is := p.resumes(from), p.resumes(to); !maps.Equal(was, is) {
			t.Errorf("the group went on with %v, goes on with %v", was, is)
		}
		since := p.write(to, 2)

		back := p.setup(from, to)
		p.refuses(back, Request{Verb: Failback}, "6 in 2 partitions, and nobody has decided what becomes of them")
		p.refuses(back, Request{Verb: Failback, Stranded: Export}, "no file is named")
		p.refuses(dead, Request{Verb: Failback, Stranded: Discard}, "cannot be reached: ")
		p.run()
		req := Request{Verb: Failback, Stranded: decision, ExportTo: filepath.Join(t.TempDir(), "stranded.jsonl")}
		last := []string{"reverse", "stranded", "fence-returned"}[round]
		killed := &command{pair: p, setup: back, told: saying(last, evidence.StepDone, runtime.Goexit)}
		if res, err := killed.do(req, nil); res != nil || err != nil {
			t.Fatalf("it was not killed: %s", end(res, err))
		}
		if last == "reverse" {
			p.refuses(back, Request{Verb: Failback, Undo: true}, "has begun to prepare the link "+to+"->"+from+": it cannot be undone")
		}
		events = p.does(back, req)
		// The evidence goes by what is said last.
		counted, lost := docs[evidence.StrandedDoc](t, events, evidence.KindStranded), docs[evidence.LossDoc](t, events, evidence.KindLoss)
		if n := len(counted) - 1; n < 0 || len(counted[n].Rows) != 2 || counted[n].Rows[0].Records+counted[n].Rows[1].Records != 6 || counted[n].Decision != string(decision) {
			t.Errorf("killed when %s was done: stranded are %+v", last, counted)
		}
		if n := len(lost) - 1; n < 0 || !lost[n].Actual || len(lost[n].Rows) != 1 || lost[n].Rows[0].Records != 6 {
			t.Errorf("killed when %s was done: lost are %+v", last, lost)
		}
		// Nothing is taken out of a log. What was replayed is copied back like everything new.
		switch decision {
		case Replay:
			since = append(since, stranded...)
		case Export:
			text, err := os.ReadFile(req.ExportTo)
			if err != nil || bytes.Count(text, []byte("\n")) != len(stranded) {
				t.Errorf("the file holds %s, %v", text, err)
			}
		}
		has[to] = slices.Concat(has[to], since)
		has[from] = slices.Concat(has[from], stranded, since)
		p.same(to, has[to])
		p.same(from, has[from])
		p.refuses(back, Request{Verb: Failback, Stranded: Discard}, "has been taken in under epoch")
		if err := p.mayWrite(from, 1); err == nil {
			t.Errorf("the application writes to %s, which was taken in", from)
		}
		from, to = to, from
	}
}

// gaveUp is a pair behind a failover to west: east is back, and has two records that west
// never saw.
func gaveUp(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.run()
	p.same("west", p.written)
	dead := p.setup("east", "west")
	dead.Old = illRegion(t, "east", "127.0.0.1:1")
	p.passes(dead, Request{Verb: Failover})
	p.does(dead, Request{Verb: Failover})
	p.write("east", 2)
	return p
}

// onProgress is a watcher that acts when a step says something.
type onProgress struct {
	says string
	then func()
}

func (onProgress) Event(evidence.Event) {}

func (w onProgress) Progress(_, text string) {
	if strings.Contains(text, w.says) {
		w.then()
	}
}

// A failback that was killed when it had prepared lanes is not given up by the next command
// because a gate refuses it: no other run could take the region in.
func TestAFailbackThatHasPreparedLanesIsNotGivenUp(t *testing.T) {
	t.Parallel()
	p := gaveUp(t)
	s := p.setup("east", "west")
	s.Settings.EvidenceDir = ""
	req := Request{Verb: Failback, Stranded: Discard, ExpectEpoch: -1}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	cut := req
	cut.Watch = onProgress{"lanes are prepared", interrupt}
	if res, err := Execute(ctx, s, cut); res == nil || res.Outcome.Outcome != evidence.OutcomeFailed {
		t.Fatalf("it was not interrupted: %s", end(res, err))
	}
	apart := s
	apart.Settings.ClockLimit = time.Nanosecond
	if res, err := Execute(t.Context(), apart, req); res == nil || over(res.Outcome) || p.denied("east") != 1 {
		t.Errorf("with clocks that are apart it comes to %s, and %d rules are left", end(res, err), p.denied("east"))
	}
	since := p.write("west", 2)
	p.does(s, req)
	p.same("east", p.written)
	p.same("west", slices.Concat(p.written[:20], since))
}

// Who writes to the region that returned while its stranded records are dealt with is found
// before the link back is open: these records are dealt with, too.
func TestWhatIsStrandedBehindTheCountIsCounted(t *testing.T) {
	t.Parallel()
	p := gaveUp(t)
	s := p.setup("east", "west")
	s.Settings.Writers, s.Settings.EvidenceDir = "stopped", ""
	req := Request{Verb: Failback, Stranded: Replay}
	late := &command{pair: p, setup: s, told: saying("stranded", evidence.StepDone, func() { p.write("east", 3) })}
	if res, err := late.do(req, nil); res == nil || res.Outcome.Outcome != evidence.OutcomeFailed || !strings.Contains(res.Outcome.Error, "east was written to after its stranded records were counted: orders-") {
		t.Errorf("with a writer in east it comes to %s", end(res, err))
	}
	p.does(s, req)
	p.same("west", p.written)
	p.same("east", slices.Concat(p.written, p.written[20:])) // what was replayed comes back as new
}

// What is written behind the fence, while groups are waited for, is in no copy: who moves the
// pair is told before the link back makes it look like any other record.
func TestWhatTheOldRegionTookBehindTheFenceIsSaid(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.run()
	s := p.setup("east", "west")
	s.Settings.Writers, s.Settings.EvidenceDir = "stopped", ""
	p.passes(s, Request{Verb: Switchover})
	c := &command{pair: p, setup: s, told: saying("groups", evidence.StepDone, func() { p.write("east", 3) })}
	res, err := c.do(Request{Verb: Switchover}, nil)
	if res == nil || res.Outcome.Outcome != evidence.OutcomeDone {
		t.Fatalf("it comes to %s", end(res, err))
	}
	_, events, err := p.events(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range docs[evidence.StepDoc](t, events, evidence.KindStep) {
		if step.Outcome != evidence.StepDone || step.Name != "fence-link" && step.Name != "reverse" {
			continue
		}
		if warned := strings.Contains(step.Proof, "WARNING: east has taken records that were not copied: orders-"); warned != (step.Name == "reverse") {
			t.Errorf("%s: %s", step.Name, step.Proof)
		}
	}
}

// A region that follows already dies, and the authority of the other one is written anew, as
// --force does. What it had taken as copies is not stranded when it returns, and it follows on.
func TestWhatWasCopiedBackIsNotStranded(t *testing.T) {
	t.Parallel()
	p := gaveUp(t)
	s := p.setup("east", "west")
	s.Settings.EvidenceDir = ""
	p.does(s, Request{Verb: Failback, Stranded: Replay})
	p.write("west", 6)
	has := slices.Concat(p.written, p.written[20:22]) // what was replayed comes back as new
	p.same("east", has)
	dead := s
	dead.Old = illRegion(t, "east", "127.0.0.1:1")
	p.does(dead, Request{Verb: Failover, Force: true})
	super := p.super("east")
	if err := super.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("alone")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	p.refuses(s, Request{Verb: Failback}, "1 in 1 partitions, and nobody has decided")
	p.does(s, Request{Verb: Failback, Stranded: Replay})
	since := p.write("west", 2)
	p.same("west", append(slices.Clone(p.written), "alone"))
	has = slices.Concat(has, since, []string{"alone", "alone"})
	p.same("east", has)
	p.passes(p.setup("west", "east"), Request{Verb: Switchover})
	p.does(p.setup("west", "east"), Request{Verb: Switchover})
	p.write("east", 2)
	p.same("west", append(slices.Clone(p.written), "alone"))
}

// A switchover is rolled back as long as nobody wrote to the new region.
func TestARollbackIsForARegionThatNobodyWroteTo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.run()
	p.passes(p.setup("east", "west"), Request{Verb: Switchover})
	// The guard of a closed link takes its epochs whenever it is time: that is no record.
	guarded := p.setup("east", "west")
	guarded.Settings.EvidenceDir = ""
	guarding := &command{pair: p, setup: guarded, told: saying("promote", evidence.StepBegun, func() {
		if _, err := mirror.Fence(t.Context(), mirror.FenceConfig{Options: guarded.Reverse.Options, Target: p.regions["east"], Log: zap.NewNop(), Instance: "guard"}); err != nil {
			t.Error(err)
		}
	})}
	if res, err := guarding.do(Request{Verb: Switchover}, nil); res == nil || res.Outcome.Outcome != evidence.OutcomeDone {
		t.Fatalf("with a guard at work a switchover comes to %s", end(res, err))
	}
	p.passes(p.setup("west", "east"), Request{Verb: Rollback})
	p.does(p.setup("west", "east"), Request{Verb: Rollback})
	p.refuses(p.setup("east", "west"), Request{Verb: Rollback}, "there is nothing to roll back")
	p.write("east", 1)
	p.passes(p.setup("east", "west"), Request{Verb: Switchover})
	p.does(p.setup("east", "west"), Request{Verb: Switchover})
	p.write("west", 1)
	p.refuses(p.setup("west", "east"), Request{Verb: Rollback}, "west has taken records since the switchover: orders-")
}

// What is found behind the gates, before the point, is taken back: the application can
// write where it did.
func TestWhatIsFoundBeforeThePointIsTakenBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.run()
	p.passes(p.setup("east", "west"), Request{Verb: Switchover})
	super := p.super("east")
	append1 := func() {
		if err := super.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("super")}).FirstErr(); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name   string
		settle time.Duration // so that a writer is seen at once, unless it is held up
		begin  func() (end func())
		at     string // a step, when it is begun
		then   func()
		want   string // a regular expression
	}{
		{name: "a super user writes on", settle: 30 * time.Millisecond, begin: func() func() {
			ctx, cancel := context.WithCancel(t.Context())
			var writing sync.WaitGroup
			writing.Go(func() {
				for ctx.Err() == nil {
					append1()
				}
			})
			return func() { cancel(); writing.Wait() }
		}, want: "(fence-writers: east is still written to: 1 partitions grew, such as topic orders partition 0|promote: east was written to after its writers were fenced: orders-0)"},
		{name: "a transaction is open", begin: func() func() {
			c := p.super("east", kgo.TransactionalID("open"))
			err := c.BeginTransaction()
			if err == nil {
				err = c.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("open")}).FirstErr()
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := c.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
					t.Error(err)
				}
			}
		}, want: "fence-writers: east does not come to rest: 1 transactions are open"},
		{name: "nobody copies", begin: func() func() {
			p.stop()
			append1()
			return p.run
		}, want: "drain: not done after cutover.drain_timeout, 2s: 1 of 2 partitions are behind, 1 records: orders-0"},
		{name: "somebody writes behind the rules", at: "promote", then: append1, want: "promote: east was written to after its writers were fenced: orders-0 at offset "},
		{name: "a partition appears", at: "drain", then: func() {
			if _, err := p.regions["east"].Admin().CreatePartitions(t.Context(), 1, "orders"); err != nil {
				t.Error(err)
			}
			if err := p.super("east").ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: partitions, Value: []byte("new")}).FirstErr(); err != nil {
				t.Error(err)
			}
		}, want: "drain: partition orders-2 appeared after writers were fenced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := p.setup("east", "west")
			s.Settings.EvidenceDir, s.Settings.Settle = "", cmp.Or(c.settle, s.Settings.Settle)
			if c.begin != nil { // it would be waited for
				s.Settings.DrainTimeout = 2 * time.Second
			}
			p.passes(s, Request{Verb: Switchover})
			cmd := &command{pair: p, setup: s}
			if c.at != "" {
				cmd.told = saying(c.at, evidence.StepBegun, c.then)
			}
			stop := func() {}
			if c.begin != nil {
				stop = c.begin()
			}
			res, err := cmd.do(Request{Verb: Switchover}, nil)
			stop()
			if res == nil || res.Outcome.Outcome != evidence.OutcomeUndone || !regexp.MustCompile("^"+c.want).MatchString(res.Outcome.Error) || res.Outcome.Next == "" {
				t.Errorf("it comes to %s; want %s", end(res, err), c.want)
			}
			if now := p.look(s); epochOf(now.new) != 1 || epochOf(now.old) != 1 || now.facts != "" || p.denied("east") != 0 {
				t.Errorf("left behind: %s, %d rules", now, p.denied("east"))
			}
			p.write("east", 2)
		})
	}
}

// Members of a group on the new region are in the way of placing it; members on the old one
// are waited for, and named.
func TestMembersOfGroupsAreSaid(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.commit("east", 7)
	p.run()
	s := p.setup("east", "west")
	p.passes(s, Request{Verb: Switchover})
	join := func(alias string) *kgo.Client {
		c := p.super(alias, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
		until(t, "a member on "+alias, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			c.PollFetches(ctx)
			groups, err := p.regions[alias].Admin().DescribeGroups(t.Context(), "billing")
			if g := groups["billing"]; err == nil && (g.State != "Stable" || len(g.Members) == 0) {
				err = errors.New(g.State)
			}
			return err
		})
		return c
	}
	member := join("west")
	p.refuses(s, Request{Verb: Switchover}, "groups: 1 cannot be placed: billing (orders-0: ")
	if err := p.gates(s, Request{Verb: Switchover, SkipGroups: []string{"billing"}}); err != nil {
		t.Errorf("left out, it stands in the way: %v", err)
	}
	member.Close()
	p.passes(s, Request{Verb: Switchover})
	join("east")
	s.Settings.GroupsTimeout = 300 * time.Millisecond
	events := p.does(s, Request{Verb: Switchover})
	proof := ""
	for _, doc := range docs[evidence.StepDoc](t, events, evidence.KindStep) {
		if doc.Name == "groups" {
			proof = doc.Proof
		}
	}
	if want := "2 offsets of 1 group on west, read back; the next record of 2 positions is the same on both sides; warning: billing still have members on east"; !strings.HasPrefix(proof, want) {
		t.Errorf("the groups' proof is %q", proof)
	}
	if was, is := p.resumes("east"), p.resumes("west"); !maps.Equal(was, is) {
		t.Errorf("the group goes on with %v, was at %v", is, was)
	}
}

// A drill on a living pair leaves nothing, neither its own nor what a killed one left. It
// is in nobody's way.
func TestADrillLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.first("east")
	p.write("east", 20)
	p.commit("east", 7)
	p.run()
	s := p.setup("east", "west")
	s.Settings.EvidenceDir = ""
	p.passes(s, Request{Verb: Switchover})
	drill := func(at string) (res *DrillResult, err error) {
		c := &command{pair: p, setup: s, told: saying(at, evidence.StepDone, runtime.Goexit)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			res, err = Rehearse(t.Context(), s, Request{By: "test", ExpectEpoch: -1, Watch: c})
		}()
		<-done
		return res, err
	}
	if res, err := drill("groups"); res != nil || err != nil {
		t.Fatalf("it was not killed: %+v, %v", res, err)
	}
	res, err := drill("")
	if err != nil || res.Outcome.Outcome != evidence.OutcomeDone || !res.Drill.Success || res.Drill.RTO == nil {
		t.Fatalf("a drill comes to %+v, %v", res, err)
	}
	if want := "leftovers gates fence drain verify groups probe clean-up"; names(res.Steps) != want {
		t.Errorf("its steps are %s, want %s", names(res.Steps), want)
	}
	own := scratchOf(s.Pair, res.Run)
	for _, region := range []Region{s.Old, s.New} {
		topics, err := listTopics(t.Context(), region.Cluster)
		if err != nil {
			t.Fatal(err)
		}
		groups, err := region.Cluster.Admin().ListGroups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(slices.Collect(maps.Keys(topics)), groups.Groups()) {
			if own.owner(name) != "" {
				t.Errorf("%s is left on %s", name, region.Alias)
			}
		}
	}
	if now := p.look(s); epochOf(now.new) != 1 || epochOf(now.old) != 1 || now.facts != "" {
		t.Errorf("left behind: %s", now)
	}
	killed := &command{pair: p, setup: s, told: saying("drain", evidence.StepBegun, runtime.Goexit)}
	if res, err := killed.do(Request{Verb: Switchover}, nil); res != nil || err != nil {
		t.Fatalf("it was not killed: %s", end(res, err))
	}
	if _, err := drill(""); err == nil || !strings.Contains(err.Error(), "is not finished") {
		t.Errorf("a drill beside an unfinished run: %v", err)
	}
}

func names(steps []evidence.StepDoc) string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Name)
	}
	return strings.Join(all, " ")
}
