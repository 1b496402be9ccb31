package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/pkg/writers"
)

func (w *writersTest) linkFence(t *testing.T) {
	const topic = "link.orders"
	w.CreateTopic(t, topic, 1)
	for _, op := range []kadm.ACLOperation{kadm.OpWrite, kadm.OpRead} {
		w.allow(t, "replicator", kadm.NewACLs().Operations(op).Topics(topic))
	}
	w.allow(t, "literal", write().Topics(topic))
	w.agree(t)
	p, err := writers.LinkFence(t.Context(), w.admin, []string{topic}, "User:replicator")
	if err != nil || !p.Possible {
		t.Fatalf("%+v, %v", p, err)
	}
	if d := cmp.Diff([]writers.Rule{{Topic: topic, Principal: "User:replicator"}}, p.Rules); d != "" {
		t.Error(d)
	}
	if err := writers.Apply(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
	if err := putOne(t.Context(), w.producer(t, "replicator"), topic, 0); !refused(err) {
		t.Errorf("the link wrote: %v", err)
	}
	if err := putOne(t.Context(), w.producer(t, "literal"), topic, 0); err != nil {
		t.Errorf("an application: %v", err)
	}
	if f := w.producer(t, "replicator", kgo.ConsumeTopics(topic)).PollFetches(t.Context()); f.Err() != nil || f.NumRecords() == 0 {
		t.Errorf("reading: %v", f.Err())
	}
	if d, err := writers.Check(t.Context(), w.admin, p); err != nil || len(d.New)+len(d.Missing) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	// The fence of the way back would have to spare it, and sees that it is stopped.
	back, err := writers.Fence{Cluster: w.admin, Topics: []string{topic}, Except: []string{"User:replicator"}}.Plan(t.Context())
	if err != nil || !strings.Contains(strings.Join(back.Warnings, "\n"), "User:replicator is to go on and is denied WRITE already on topic link.orders") {
		t.Errorf("%q, %v", back.Warnings, err)
	}
	if err := writers.Lift(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
	if err := putOne(t.Context(), w.producer(t, "replicator"), topic, 0); err != nil {
		t.Errorf("the link after the lifting: %v", err)
	}
}

// With exactly these rights everything works; with one less the plan or the error says
// which is missing.
func (w *writersTest) rights(t *testing.T) {
	const topic = "rights.orders"
	w.CreateTopic(t, topic, 1)
	w.allow(t, "literal", write().Topics(topic))
	operator := openAs(t, "east", w.Cluster, "operator")
	onCluster := func(op kadm.ACLOperation) *kadm.ACLBuilder { return kadm.NewACLs().Operations(op).Clusters() }
	plan := func(topics ...string) writers.Plan {
		t.Helper()
		p, err := writers.Fence{Cluster: operator, Topics: topics}.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	cannot := func(says string) {
		t.Helper()
		w.agree(t)
		if p := plan(topic); p.Possible || !strings.Contains(p.Why, says) {
			t.Errorf("%+v, want %q", p, says)
		}
	}
	cannot("grant ALTER on cluster east, which implies DESCRIBE")
	w.allow(t, "operator", onCluster(kadm.OpDescribe))
	cannot("may be listed and not changed; grant ALTER on cluster east")
	// A plan of somebody who could: nothing of it is made, and that is said.
	foreign, err := writers.Fence{Cluster: w.admin, Topics: []string{topic}}.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var stands *writers.StandsError
	if err := writers.Apply(t.Context(), operator, foreign); !errors.As(err, &stands) || !errors.Is(err, kerr.ClusterAuthorizationFailed) || len(stands.Standing) != 0 || len(stands.Missing) != 2 {
		t.Errorf("%v: %+v", err, stands)
	}
	w.allow(t, "operator", onCluster(kadm.OpAlter))
	take := func(op kadm.ACLOperation) {
		t.Helper()
		if _, err := w.Admin().DeleteACLs(t.Context(), onCluster(op).Allow("User:operator").AllowHosts("*")); err != nil {
			t.Fatal(err)
		}
	}
	take(kadm.OpDescribe) // ALTER implies it
	w.agree(t)
	p := plan(topic)
	if !p.Possible {
		t.Fatal(p.Why)
	}
	if err := writers.Apply(t.Context(), operator, p); err != nil {
		t.Fatal(err)
	}
	take(kadm.OpAlter)
	w.allow(t, "operator", onCluster(kadm.OpDescribe))
	w.agree(t)
	if err := writers.Lift(t.Context(), operator, p); !errors.As(err, &stands) || !stands.Lifting || len(stands.Standing) != 2 || len(stands.Missing) != 0 {
		t.Errorf("%v: %+v", err, stands)
	}
	w.allow(t, "operator", onCluster(kadm.OpAlter))
	w.agree(t)
	if err := writers.Lift(t.Context(), operator, p); err != nil {
		t.Fatal(err)
	}
	// Looking for growth.
	if _, err := writers.Grown(t.Context(), operator, []string{topic}, 0); err == nil || !strings.Contains(err.Error(), "grant DESCRIBE on the topics") {
		t.Errorf("without a right: %v", err)
	}
	w.allow(t, "operator", kadm.NewACLs().Operations(kadm.OpDescribe).Topics(topic))
	w.agree(t)
	again := openAs(t, "east", w.Cluster, "operator") // a client keeps what it was told of a topic for a second
	if _, err := writers.Grown(t.Context(), again, []string{topic}, time.Millisecond); err != nil {
		t.Errorf("with DESCRIBE: %v", err)
	}
}

func (w *writersTest) grown(t *testing.T) {
	topics := []string{"grown.orders", "grown.quiet"}
	for _, topic := range topics {
		w.CreateTopic(t, topic, 2)
		w.allow(t, "literal", write().Topics(topic))
		w.allow(t, "operator", kadm.NewACLs().Operations(kadm.OpRead).Topics(topic))
	}
	w.allow(t, "literal", kadm.NewACLs().Operations(kadm.OpWrite).TransactionalIDs("grown-tx"))
	w.allow(t, "operator", kadm.NewACLs().Operations(kadm.OpDescribe).TransactionalIDs("grown-tx"))
	w.agree(t)
	for _, topic := range topics { // transactions begin at offset 1
		if err := putOne(t.Context(), w.producer(t, "literal"), topic, 0); err != nil {
			t.Fatal(err)
		}
	}
	operator := openAs(t, "east", w.Cluster, "operator")
	look := func(apart time.Duration) writers.Observation {
		t.Helper()
		o, err := writers.Grown(t.Context(), operator, topics, apart)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := look(100 * time.Millisecond); !o.Still() || len(o.Ends) != 4 {
		t.Errorf("nobody writes: %+v", o)
	}
	// Somebody writes while we look.
	ctx, stop := context.WithCancel(t.Context())
	written := make(chan int)
	cl := w.producer(t, "literal")
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if putOne(ctx, cl, "grown.orders", 1) != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		written <- n
	}()
	o := look(time.Second)
	stop()
	n := <-written
	if o.Still() || len(o.Written()) != 1 || o.Grown[0].Topic != "grown.orders" || o.Grown[0].Partition != 1 ||
		o.Grown[0].To-o.Grown[0].From > int64(n) || o.Grown[0].PerSecond < 1 || o.Grown[0].Control {
		t.Errorf("%d written, %+v", n, o.Grown)
	} else {
		t.Log(o.Grown[0])
	}
	// A transaction is open, and is fenced.
	tx := w.producer(t, "literal", kgo.TransactionalID("grown-tx"), kgo.TransactionTimeout(50*time.Second))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := putOne(t.Context(), tx, "grown.quiet", 0); err != nil {
		t.Fatal(err)
	}
	o = look(time.Millisecond)
	if len(o.Written()) != 0 || len(o.Open) != 1 {
		t.Fatalf("%+v", o)
	}
	got := o.Open[0]
	t.Log(got)
	if until := time.Until(got.Ends); got.Topic != "grown.quiet" || got.Partition != 0 || got.TransactionalID != "grown-tx" || got.State != "Ongoing" ||
		got.ProducerID < 0 || got.Start != got.LastStable || until <= 0 || until > 50*time.Second {
		t.Errorf("%+v", got)
	}
	p, err := writers.Fence{Cluster: w.admin, Topics: topics}.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := writers.Apply(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
	if err := putOne(t.Context(), tx, "grown.quiet", 0); !refused(err) {
		t.Errorf("in the transaction: %v", err)
	}
	// Its end goes on, which is not writing.
	looking := make(chan writers.Observation)
	go func() {
		o, err := writers.Grown(t.Context(), operator, topics, 3*time.Second)
		if err != nil {
			t.Error(err)
		}
		looking <- o
	}()
	time.Sleep(1500 * time.Millisecond) // within the two looks; too early would show as no growth
	err = tx.EndTransaction(t.Context(), kgo.TryCommit)
	t.Logf("commit under the fence: %v", err)
	if err != nil {
		if err := tx.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Errorf("abort under the fence: %v", err)
		}
	}
	o = <-looking
	if !o.Still() || len(o.Grown) != 1 || !o.Grown[0].Control {
		t.Errorf("%+v", o)
	}
	if err := writers.Lift(t.Context(), w.admin, p); err != nil {
		t.Fatal(err)
	}
}

func (w *writersTest) uncovered(t *testing.T, open *kafkatest.Cluster) {
	// Where no ACL means nobody, there is nobody to deny.
	const topic = "uncovered"
	if _, err := w.Admin().DeleteACLs(t.Context(), write().Topics("*").Allow("User:wildcard").AllowHosts("*")); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	w.CreateTopic(t, topic, 1)
	p, err := writers.Fence{Cluster: w.admin, Topics: []string{topic}}.Plan(t.Context())
	if err != nil || !p.Possible || len(p.Rules) != 0 || !strings.Contains(strings.Join(p.Warnings, "\n"), "no ACL is about topic uncovered") {
		t.Errorf("%+v, %v", p, err)
	}
	if err := writers.Apply(t.Context(), w.admin, p); err != nil {
		t.Error(err)
	}
	// Where it means everybody, the first rule would take more than writing.
	west := &writersTest{Cluster: open, admin: openAs(t, "west", open, kafkatest.AdminUser)}
	west.CreateTopic(t, topic, 1)
	if err := putOne(t.Context(), west.producer(t, "literal", kgo.DisableIdempotentWrite()), topic, 0); err != nil {
		t.Fatal(err)
	}
	if p, err := (writers.Fence{Cluster: west.admin, Topics: []string{topic}}).Plan(t.Context()); err != nil || p.Possible || !strings.Contains(p.Why, "reading too") {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := west.Admin().CreateACLs(t.Context(), write().Topics(topic).Deny("User:late")); err != nil {
		t.Fatal(err)
	}
	west.agree(t)
	if ends, err := kadm.NewClient(west.producer(t, "reader")).ListEndOffsets(t.Context(), topic); !refused(err) && !refused(ends.Error()) {
		t.Errorf("everybody may still read: %v", err)
	}
	// Its operator may not know the setting.
	west.allow(t, "operator", kadm.NewACLs().Operations(kadm.OpAlter).Clusters())
	west.agree(t)
	operator := openAs(t, "west", open, "operator")
	if p, err := (writers.Fence{Cluster: operator, Topics: []string{"another"}}).Plan(t.Context()); err != nil || p.Possible ||
		!strings.Contains(p.Why, "grant DESCRIBE_CONFIGS on cluster west to find out") {
		t.Errorf("%+v, %v", p, err)
	}
}
