package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"replicator/pkg/cluster"
)

// Trace is something a run made on a cluster.
type Trace struct {
	Cluster string `json:"cluster"`
	Kind    string `json:"kind"` // topic or group
	Name    string `json:"name"`
	Error   string `json:"error,omitempty"` // why it could not be deleted
	Delete  string `json:"delete"`          // the command that deletes it

	cluster *cluster.Cluster
}

// traces are all that a run makes.
func (b *Bench) traces() []Trace {
	return []Trace{
		trace(b.source, "group", b.names.group),
		trace(b.source, "topic", b.names.topic),
		trace(b.target, "topic", b.names.topic),
		trace(b.target, "topic", b.names.journal),
	}
}

func trace(c *cluster.Cluster, kind, name string) Trace {
	tool := "kafka-topics.sh"
	if kind == "group" {
		tool = "kafka-consumer-groups.sh"
	}
	return Trace{
		Cluster: c.Alias(), Kind: kind, Name: name, cluster: c,
		Delete: fmt.Sprintf("%s --bootstrap-server %s --delete --%s %s", tool, strings.Join(c.Config().BootstrapServers, ","), kind, name),
	}
}

const (
	removeTime = 30 * time.Second // for deleting everything; a session of the group ends within it
	lateTime   = time.Second      // for a request that was given up to be done by a broker all the same
)

// remove deletes all that a run made, whatever became of the run, and returns
// what is left. After a run that was broken off it looks once more for what a
// request that was under way made after it was deleted.
func (b *Bench) remove(ctx context.Context, broken bool) []Trace {
	b.o.Progress("deleting what was made")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	left := removeAll(ctx, b.traces())
	if broken && pause(ctx, lateTime) {
		left = removeAll(ctx, b.traces())
	}
	return left
}

func removeAll(ctx context.Context, traces []Trace) []Trace {
	left := []Trace{}
	for _, t := range traces {
		if err := t.remove(ctx); err != nil {
			t.Error = err.Error()
			left = append(left, t)
		}
	}
	return left
}

// remove deletes until a broker says that it is not there.
func (t Trace) remove(ctx context.Context) error {
	wait := 50 * time.Millisecond
	for {
		gone, err := t.removeOnce(ctx)
		if gone {
			return nil
		}
		if denied(err) || !pause(ctx, wait) {
			return err
		}
		wait = min(2*wait, time.Second)
	}
}

func (t Trace) removeOnce(ctx context.Context) (gone bool, err error) {
	admin := t.cluster.Admin()
	if t.Kind == "group" {
		_, err = admin.DeleteGroup(ctx, t.Name)
		return errors.Is(err, kerr.GroupIDNotFound), orPending(err)
	}
	_, err = admin.DeleteTopic(ctx, t.Name)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return false, err
	}
	// Deleting is not done when it is answered: every broker has to have heard of it.
	listed, err := admin.ListTopics(ctx, t.Name)
	if err != nil {
		return false, err
	}
	err = listed[t.Name].Err
	return errors.Is(err, kerr.UnknownTopicOrPartition), orPending(err)
}

// orPending is an error that says what is waited for, where there is no other.
func orPending(err error) error {
	if err == nil {
		return errors.New("it is still there")
	}
	return err
}

func denied(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed)
}
