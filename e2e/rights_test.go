package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/daemon"
	"replicator/internal/kafkatest"
	"replicator/internal/status"
	"replicator/pkg/authority"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// groupRights are what a link needs besides leastRights to keep the groups whose
// names begin with prefix.
func groupRights(from, to, prefix string) []grant {
	own, theirs := "replicator."+from+"."+to+".checkpoints", from+".checkpoints.internal"
	return []grant{
		{kind: "group", name: prefix, prefix: true, operation: kadm.OpDescribe},
		{kind: "topic", name: "__consumer_offsets", operation: kadm.OpRead},
		{target: true, kind: "topic", name: own, operation: kadm.OpCreate},
		{target: true, kind: "topic", name: own, operation: kadm.OpRead},
		{target: true, kind: "topic", name: own, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: theirs, operation: kadm.OpCreate},
		{target: true, kind: "topic", name: theirs, operation: kadm.OpWrite},
		{target: true, kind: "group", name: prefix, prefix: true, operation: kadm.OpRead},
	}
}

// heartbeatRights are what it needs for heartbeats. The settings of the copy are
// left alone without DESCRIBE_CONFIGS and ALTER_CONFIGS.
func heartbeatRights(from string) []grant {
	const here = "heartbeats"
	there := from + ".heartbeats"
	return []grant{
		{kind: "topic", name: here, operation: kadm.OpCreate},
		{kind: "topic", name: here, operation: kadm.OpWrite},
		{kind: "topic", name: here, operation: kadm.OpRead},
		{kind: "topic", name: here, operation: kadm.OpDescribeConfigs},
		{target: true, kind: "topic", name: there, operation: kadm.OpCreate},
		{target: true, kind: "topic", name: there, operation: kadm.OpWrite},
		{target: true, kind: "topic", name: there, operation: kadm.OpRead},
		{target: true, kind: "topic", name: there, operation: kadm.OpAlterConfigs},
	}
}

// readerRights are what the commands need to read: offsets translate, show and
// export, groups list and plan. They ask the target only.
func readerRights(from, to, prefix string) []grant {
	id := "replicator." + from + "." + to
	return []grant{
		{target: true, kind: "topic", name: prefix, prefix: true, operation: kadm.OpRead},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpRead},
		{target: true, kind: "topic", name: id + ".journal", operation: kadm.OpDescribeConfigs},
		{target: true, kind: "topic", name: id + ".checkpoints", operation: kadm.OpRead},
		{target: true, kind: "group", name: prefix, prefix: true, operation: kadm.OpDescribe},
	}
}

// linkNow is the whole status of the link, false between two starts.
func (s *supervised) linkNow() (status.Link, bool) {
	d := s.now.Load()
	if d == nil {
		return status.Link{}, false
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	return d.Status(ctx).Links[0], true
}

// saysAnywhere looks at the log and at the whole status.
func (s *supervised) saysAnywhere(text string) bool {
	if s.says(text) {
		return true
	}
	st, ok := s.linkNow()
	b, err := json.Marshal(st)
	return ok && err == nil && strings.Contains(string(b), text)
}

// ruled is a link whose rights are tried.
type ruled struct {
	*supervised
	from, to     side
	topic, group string
	want         int64 // what the group should have on the target
}

func ruledLink(t *testing.T, pair *kafkatest.ClusterPair, name string, heartbeats bool, without *grant) *ruled {
	t.Helper()
	c := &ruled{
		from:  side{alias: name + "e", Cluster: pair.Source, user: name, mechanism: kafkatest.OAuthBearer},
		to:    side{alias: name + "w", Cluster: pair.Target, user: name},
		topic: name + ".orders", group: name + ".billing",
	}
	rights := append(leastRights(c.from.alias, c.to.alias, name+"."), groupRights(c.from.alias, c.to.alias, name+".")...)
	if heartbeats {
		rights = append(rights, heartbeatRights(c.from.alias)...)
	}
	for _, g := range rights {
		if without == nil || g != *without {
			g.give(t, c.from, c.to)
		}
	}
	c.from.CreateTopic(t, c.topic, 1)
	putEach(t, c.from.Cluster, c.topic, 1, 20)
	c.commit(t, 7)
	c.supervised = supervise(t, linkFile(t, c.from, c.to, name+`\..*`,
		fmt.Sprintf(", checkpoints: {interval: 1s}, heartbeats: {enabled: %t}", heartbeats), ""), daemon.Options{})
	return c
}

// commit has the source's group commit, and notes where that is on the target:
// the record with the same value.
func (c *ruled) commit(t *testing.T, at int64) {
	t.Helper()
	want := kadm.Offsets{}
	want.Add(kadm.Offset{Topic: c.topic, At: at, LeaderEpoch: -1})
	eventually(t, c.group+" has committed", func() bool { // the first commit of all waits for its topic
		return c.from.Admin().CommitAllOffsets(t.Context(), c.group, want) == nil
	})
	c.want = at
}

// placed tells whether the target's group would read next what the source's would.
func (c *ruled) placed(t *testing.T) bool {
	t.Helper()
	fetched, err := c.to.Admin().FetchOffsets(t.Context(), c.group)
	at, ok := fetched.Lookup(c.topic, 0)
	if err != nil || !ok { // nobody has committed anything there yet, perhaps
		return false
	}
	found := int64(-1)
	err = compare.Read(t.Context(), internal(c.to.Cluster), c.topic, func(r *kgo.Record) error {
		if string(r.Value) == fmt.Sprintf("%s 0 %d", c.topic, c.want) {
			found = r.Offset
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at.At == found
}

// well waits until nothing is wrong.
func (c *ruled) well(t *testing.T) {
	t.Helper()
	eventually(t, c.group+" is where it belongs", func() bool { return c.placed(t) })
	eventually(t, "all is well with "+c.group, func() bool {
		s, ok := c.linkNow()
		return ok && s.State == "copying" && s.Checkpoints != nil && s.Checkpoints.Mode == "tail" && s.Checkpoints.Reason == ""
	})
}

// Checkpoints with exactly the rights of the list, and with each one missing: it
// is named, records are copied all the same, and granting it is all it takes.
func leastPrivilegeOfGroups(t *testing.T, pair *kafkatest.ClusterPair) {
	names := groupRights("a", "b", "c")
	all := make([]*ruled, len(names))
	missing := make([]grant, len(names))
	for i := range names {
		name := fmt.Sprintf("g%02d", i)
		missing[i] = groupRights(name+"e", name+"w", name+".")[i]
		all[i] = ruledLink(t, pair, name, false, &missing[i])
	}
	for i, c := range all {
		g := missing[i]
		at := c.from
		if g.target {
			at = c.to
		}
		resource := g.kind + " " + g.name
		if g.kind == "group" {
			resource = "group"
		}
		says := func(operation kadm.ACLOperation) {
			t.Helper()
			want := fmt.Sprintf("grant %v on %s", operation, resource)
			began := time.Now()
			eventually(t, fmt.Sprintf("without %v it says %q", g, want), func() bool { return c.saysAnywhere(want) })
			if !c.saysAnywhere(" of cluster " + at.alias) {
				t.Errorf("without %v the cluster is not named", g)
			}
			t.Logf("without %v: said after %v", g, time.Since(began).Round(time.Millisecond))
		}
		if g.target && g.kind == "group" { // READ implies it, and it is asked for first
			says(kadm.OpDescribe)
			see := g
			see.operation = kadm.OpDescribe
			see.give(t, c.from, c.to)
		}
		says(g.operation)
		mustEqual(t, c.from.Cluster, c.to.Cluster, c.topic) // while it is missing
		if !g.target && !c.placed(t) && g.kind == "topic" {
			eventually(t, "polls do what the tail may not", func() bool { return c.placed(t) })
		}
		g.give(t, c.from, c.to)
		c.well(t)
		if n := c.starts.Load(); n != 1 {
			t.Errorf("without %v: it had to be started %d times", g, n)
		}
		c.stop()
	}
}

// With all rights nothing is refused, share groups and heartbeats included; what
// the commands need is less.
func exactRights(t *testing.T, pair *kafkatest.ClusterPair) {
	// Nobody has made the topic of heartbeats yet.
	beating := map[kadm.ACLOperation]*ruled{}
	for _, operation := range []kadm.ACLOperation{kadm.OpCreate, kadm.OpWrite} {
		name := "h" + strings.ToLower(operation.String())
		without := grant{kind: "topic", name: "heartbeats", operation: operation}
		c := ruledLink(t, pair, name, true, &without)
		beating[operation] = c
		eventually(t, fmt.Sprintf("without %v it says so", without), func() bool {
			return c.saysAnywhere(fmt.Sprintf("grant %v on topic heartbeats of cluster %s, or set heartbeats.enabled to false", operation, c.from.alias))
		})
		c.well(t)
		without.give(t, c.from, c.to)
		eventually(t, "heartbeats come", func() bool { s, ok := c.linkNow(); return ok && s.Heartbeats != nil && s.Heartbeats.Written > 0 })
		c.stop()
	}

	c := ruledLink(t, pair, "exact", true, nil)
	shared := shareGroup(t, c)
	c.well(t)
	copied := c.from.alias + ".heartbeats"
	eventually(t, "heartbeats are on the target", func() bool {
		n := 0
		err := compare.Read(t.Context(), internal(c.to.Cluster), copied, func(*kgo.Record) error { n++; return nil })
		return err == nil && n > 0
	})
	eventually(t, "the share group is on the target", func() bool {
		d, err := c.to.Admin().DescribeShareGroupOffsets(t.Context(), shared)
		if err != nil {
			return false
		}
		for _, partitions := range d[shared].Offsets {
			for _, o := range partitions {
				if o.StartOffset > 0 {
					return true
				}
			}
		}
		return false
	})
	if said := c.log.String(); strings.Contains(said, "grant ") || strings.Contains(said, "AUTHORIZATION") {
		t.Errorf("with all rights something was refused:\n%s", said)
	}
	// Under the running link: taken away, said, given back.
	for _, g := range groupRights(c.from.alias, c.to.alias, "exact.") {
		if g.operation == kadm.OpCreate || g.operation == kadm.OpDescribe || strings.HasSuffix(g.name, ".checkpoints") && g.operation == kadm.OpRead {
			continue // asked for at the start, or by a poll once a minute
		}
		before := len(c.log.String())
		g.take(t, c.from, c.to)
		c.commit(t, c.want+1)
		want := fmt.Sprintf("grant %v on %s", g.operation, g.kind)
		if g.kind == "group" {
			want = "grant DESCRIBE on group"
		}
		eventually(t, fmt.Sprintf("with %v taken away it says %q", g, want), func() bool {
			s, _ := c.linkNow()
			b, err := json.Marshal(s)
			return err == nil && strings.Contains(c.log.String()[before:]+string(b), want)
		})
		putEach(t, c.from.Cluster, c.topic, 1, 1)
		mustEqual(t, c.from.Cluster, c.to.Cluster, c.topic)
		g.give(t, c.from, c.to)
		c.well(t)
	}
	c.stop()
	commandRights(t, c)
}

// shareGroup makes a share group on the link's source that has dealt with records.
func shareGroup(t *testing.T, c *ruled) string {
	t.Helper()
	group := strings.TrimSuffix(c.group, "billing") + "workers"
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.from.InternalBootstrap()...), kgo.ShareGroup(group), kgo.ConsumeTopics(c.topic))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			cl.PollFetches(ctx)
		}
	}()
	eventually(t, "the share group is there", func() bool {
		d, err := c.from.Admin().DescribeShareGroupOffsets(ctx, group)
		return err == nil && len(d[group].Offsets) > 0
	})
	cancel()
	<-done
	cl.Close()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: c.topic, At: 12, LeaderEpoch: -1})
	eventually(t, "the share group has come to offset 12", func() bool {
		r, err := c.from.Admin().AlterShareGroupOffsets(t.Context(), group, o)
		return err == nil && r.Ok()
	})
	return group
}

// commandRights tries what the commands need, as somebody who has nothing else.
func commandRights(t *testing.T, c *ruled) {
	reader := c.to
	reader.user = "reader"
	file := linkFile(t, c.from, reader, c.topic, ", heartbeats: {enabled: true}", "") // as the daemon has it
	rights := readerRights(c.from.alias, reader.alias, "exact.")
	grant{target: true, kind: "topic", name: c.from.alias + ".heartbeats", operation: kadm.OpRead}.give(t, c.from, reader)
	for _, g := range rights {
		g.give(t, c.from, reader)
	}
	commands := [][]string{{"offsets", "translate"}, {"offsets", "show"}, {"offsets", "export"}, {"groups", "list"}, {"groups", "plan"}}
	run := func(want string, args ...string) {
		t.Helper()
		stdout, stderr, code := runCommand(t, append(args, "-c", file)...)
		if said := stdout + stderr; want == "" && (code != 0 || strings.Contains(said, "AUTHORIZATION") || strings.Contains(said, "warning: ")) || !strings.Contains(said, want) {
			t.Errorf("%v: exit code %d, want %q in\n%s", args, code, want, said)
		}
	}
	for _, args := range commands {
		run("", args...)
	}
	for _, g := range rights {
		g.take(t, c.from, reader)
		resource := g.kind + " " + g.name
		if g.prefix {
			resource = g.kind + " exact."
		}
		run(fmt.Sprintf("grant %v on %s", g.operation, resource), "groups", "plan", "-o", "wide")
		g.give(t, c.from, reader)
	}
	if _, err := c.to.Admin().DeleteGroups(t.Context(), c.group); err != nil {
		t.Fatal(err)
	}
	run("grant READ on group "+c.group+" of cluster "+reader.alias, "groups", "apply", "--yes", "--group", c.group, "-o", "wide")
	grant{target: true, kind: "group", name: "exact.", prefix: true, operation: kadm.OpRead}.give(t, c.from, reader)
	run("", "groups", "apply", "--yes", "--group", c.group)
	if !c.placed(t) {
		t.Errorf("%s was not placed", c.group)
	}
}

// A closed link with exactly the rights of the list keeps its fence, far more often than
// brokers would have it, and says why. Given the one right more it goes by what they say.
func guardRight(t *testing.T, pair *kafkatest.ClusterPair) {
	from := side{alias: "guarde", Cluster: pair.Source, user: "guard", mechanism: kafkatest.OAuthBearer}
	to := side{alias: "guardw", Cluster: pair.Target, user: "guard"}
	for _, g := range leastRights(from.alias, to.alias, "guard.") {
		g.give(t, from, to)
	}
	from.CreateTopic(t, "guard.orders", 1)
	putEach(t, from.Cluster, "guard.orders", 1, 20)
	file := linkFile(t, from, to, `guard\..*`, recordsOnly, "")
	s := supervise(t, file, daemon.Options{})
	mustEqual(t, from.Cluster, to.Cluster, "guard.orders")

	west := openCluster(t, to.alias, pair.Target.InternalBootstrap(), wire.NewPool(16<<20))
	of := authority.PairOf(from.alias, to.alias)
	change, err := authority.Change(t.Context(), authority.Config{Cluster: west, Pair: of})
	if err != nil {
		t.Fatal(err)
	}
	defer change.Close()
	if err := change.Set(t.Context(), authority.Record{Pair: of.String(), Epoch: 1, Region: to.alias, Verb: "failover", By: "ann", Run: "1", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	guard := func() mirror.GuardStatus {
		if l, ok := s.linkNow(); ok && l.Guard != nil {
			return *l.Guard
		}
		return mirror.GuardStatus{}
	}
	const want = "grant DESCRIBE_CONFIGS on the cluster resource of cluster guardw"
	eventually(t, "without the right it says what it assumes", func() bool {
		g := guard()
		return g.Every == 15*time.Minute && strings.Contains(g.Assumed, want) && g.Error == ""
	})
	right := grant{target: true, kind: "cluster", operation: kadm.OpDescribeConfigs}
	right.give(t, from, to)
	eventually(t, "with the right it goes by what brokers say", func() bool { g := guard(); return g.Every == 6*time.Hour && g.Assumed == "" })
	right.take(t, from, to)
	eventually(t, "without it again it assumes", func() bool { return strings.Contains(guard().Assumed, want) })
	// authority show asks as whoever runs it, here as the daemon.
	stdout, _, _ := runCommand(t, "authority", "show", "-c", file)
	if !strings.Contains(stdout, "1 of 1 brokers of guardw have not told") {
		t.Errorf("authority show does not say that it is not known for how long the fence holds:\n%s", stdout)
	}
}
