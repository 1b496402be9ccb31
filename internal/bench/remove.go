package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"replicator/internal/pause"
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
	return Trace{Cluster: c.Alias(), Kind: kind, Name: name, cluster: c, Delete: deleteCommand(c.Config(), kind, name)}
}

// deleteCommand is the command of Kafka's own tools.
func deleteCommand(cfg cluster.Config, kind, name string) string {
	tool := "kafka-topics.sh"
	if kind == "group" {
		tool = "kafka-consumer-groups.sh"
	}
	command := fmt.Sprintf("%s --bootstrap-server %s", tool, strings.Join(cfg.BootstrapServers, ","))
	if cfg.TLS.Enabled || cfg.SASL.Mechanism != cluster.NoSASL {
		command += " --command-config FILE" // the reader's own: Kafka's tools do not read our configuration
	}
	return fmt.Sprintf("%s --delete --%s %s", command, kind, name)
}

const (
	removeTime = 30 * time.Second // for deleting one thing; a session of the group ends within it
	lateTime   = time.Second      // for a request that was given up to be done by a broker all the same
)

// remove deletes all that a run made, whatever became of the run, and returns
// what is left.
func (b *Bench) remove(ctx context.Context, broken bool) []Trace {
	b.o.Progress("deleting what was made")
	return removeAll(context.WithoutCancel(ctx), b.traces(), broken, removeTime)
}

// removeAll deletes everything side by side, each within a time of its own: a
// cluster that is away keeps nothing on the other. After a run that was broken
// off it looks once more for what a request that was under way made after it was
// deleted.
func removeAll(ctx context.Context, traces []Trace, broken bool, within time.Duration) []Trace {
	var work sync.WaitGroup
	for i := range traces {
		t := &traces[i]
		work.Go(func() {
			err := t.remove(ctx, within)
			if err == nil && broken && pause.For(ctx, lateTime) == nil {
				err = t.remove(ctx, within)
			}
			if err != nil {
				t.Error = err.Error()
			}
		})
	}
	work.Wait()
	left := []Trace{}
	for _, t := range traces {
		if t.Error != "" {
			left = append(left, t)
		}
	}
	return left
}

// remove deletes until a broker says that it is not there.
func (t *Trace) remove(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	wait := 50 * time.Millisecond
	for {
		gone, err := t.removeOnce(ctx)
		if gone {
			return nil
		}
		if denied(err) || pause.For(ctx, wait) != nil {
			return err
		}
		wait = min(2*wait, time.Second)
	}
}

func (t *Trace) removeOnce(ctx context.Context) (gone bool, err error) {
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
