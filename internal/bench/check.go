package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/cluster"
)

// RefusedError is a run that was not begun: nothing was made.
type RefusedError struct {
	Err  error
	Hint string // what to do
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// check finds out, without making anything, whether the run can be made and its
// traces deleted, and completes the plan. What cannot be asked without making
// something, mayFence asks when the run has begun.
func (b *Bench) check(ctx context.Context) error {
	var err error
	if b.plan.SourceReplication, err = b.mayMake(ctx, b.source, b.names.topic, b.o.Partitions, -1); err != nil {
		return err
	}
	if b.plan.TargetReplication, err = b.mayMake(ctx, b.target, b.names.topic, b.o.Partitions, b.options.ReplicationFactor); err != nil {
		return err
	}
	if _, err = b.mayMake(ctx, b.target, b.names.journal, b.options.JournalPartitions, b.options.JournalReplicationFactor); err != nil {
		return err
	}
	return b.mayJoin(ctx)
}

// replicas is 0 in options that leave it to the cluster.
func replicas(rf int16) int16 {
	if rf <= 0 {
		return -1
	}
	return rf
}

// mayMake tells whether a topic can be made, used and deleted, and how many
// replicas it will have, -1 if the cluster does not say.
func (b *Bench) mayMake(ctx context.Context, c *cluster.Cluster, topic string, partitions int32, rf int16) (int16, error) {
	rf = replicas(rf)
	listed, err := c.Admin().ListTopics(ctx, topic)
	if err != nil {
		return -1, refuse(err, "READ, WRITE, CREATE and DELETE", "topic "+topic, c)
	}
	switch err := listed[topic].Err; {
	case err == nil:
		return -1, &RefusedError{fmt.Errorf("check topic %s of cluster %s: it exists", topic, c.Alias()), "run again: each run takes another name"}
	case !errors.Is(err, kerr.UnknownTopicOrPartition):
		return -1, refuse(fmt.Errorf("look for topic %s of cluster %s: %w", topic, c.Alias(), err), "READ, WRITE, CREATE and DELETE", "topic "+topic, c)
	}
	answers, err := c.Admin().ValidateCreateTopics(ctx, partitions, rf, nil, topic)
	if err != nil {
		return -1, refuse(fmt.Errorf("check topic %s of cluster %s: %w", topic, c.Alias(), err), "CREATE", "topic "+topic, c)
	}
	answer := answers[topic]
	if err := answer.Err; err != nil {
		err = fmt.Errorf("cluster %s does not make topic %s with %d partitions and replication factor %s: %w", c.Alias(), topic, partitions, factor(rf), err)
		if answer.ErrMessage != "" {
			err = fmt.Errorf("%w: %s", err, answer.ErrMessage)
		}
		if errors.Is(err, kerr.InvalidReplicationFactor) {
			return -1, &RefusedError{err, "the cluster has too few brokers for it: lower replication_factor of the link, or the cluster's default.replication.factor"}
		}
		return -1, refuse(err, "CREATE", "topic "+topic, c)
	}
	if answer.ReplicationFactor > 0 {
		rf = answer.ReplicationFactor
	}
	return rf, b.mayUse(ctx, c, topic)
}

func factor(rf int16) string {
	if rf < 0 {
		return "of the cluster's default"
	}
	return fmt.Sprint(rf)
}

// mayUse asks which operations on a topic are allowed. Brokers that do not tell
// are believed: what is missing shows when it is needed.
func (b *Bench) mayUse(ctx context.Context, c *cluster.Cluster, topic string) error {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	req.IncludeTopicAuthorizedOperations = true
	answer, err := req.RequestWith(ctx, c.Client())
	if err != nil {
		return fmt.Errorf("ask for rights on topic %s of cluster %s: %w", topic, c.Alias(), err)
	}
	for _, t := range answer.Topics {
		if t.AuthorizedOperations <= 0 {
			continue
		}
		var missing []string
		wanted := []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDelete}
		if c == b.target && topic == b.names.topic {
			wanted = append(wanted, kmsg.ACLOperationDescribeConfigs) // the largest batch it takes
		}
		for _, op := range wanted {
			if t.AuthorizedOperations&(1<<op) == 0 {
				missing = append(missing, strings.ToUpper(op.String()))
			}
		}
		if len(missing) > 0 {
			what := strings.Join(missing, " and ")
			return refuse(fmt.Errorf("check topic %s of cluster %s: %s is not allowed: %w", topic, c.Alias(), what, kerr.TopicAuthorizationFailed), what, "topic "+topic, c)
		}
	}
	return nil
}

// mayJoin asks for what does not exist, a member and a group: the error tells
// whether it would have been allowed.
func (b *Bench) mayJoin(ctx context.Context) error {
	name := b.names.group
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID = name, "nobody"
	if answer, err := beat.RequestWith(ctx, b.source.Client()); err != nil {
		return refuse(fmt.Errorf("look for group %s of cluster %s: %w", name, b.source.Alias(), err), "READ and DELETE", "group "+name, b.source)
	} else if err := kerr.ErrorForCode(answer.ErrorCode); errors.Is(err, kerr.GroupAuthorizationFailed) {
		return refuse(fmt.Errorf("check group %s of cluster %s: %w", name, b.source.Alias(), err), "READ", "group "+name, b.source)
	}
	drop := kmsg.NewPtrDeleteGroupsRequest()
	drop.Groups = []string{name}
	answer, err := drop.RequestWith(ctx, b.source.Client())
	if err != nil {
		return refuse(fmt.Errorf("look for group %s of cluster %s: %w", name, b.source.Alias(), err), "READ and DELETE", "group "+name, b.source)
	}
	for _, g := range answer.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); errors.Is(err, kerr.GroupAuthorizationFailed) {
			return refuse(fmt.Errorf("check group %s of cluster %s: deleting it: %w", name, b.source.Alias(), err), "DELETE", "group "+name, b.source)
		}
	}
	return nil
}

// mayFence asks for the producer id of the first partition, as the link will. A
// target that gives one keeps the transactional id until it expires; one that
// refuses has made nothing.
func (b *Bench) mayFence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Patience)
	defer cancel()
	id := fmt.Sprintf("replicator.%s.%s.%s.0", b.link.From, b.link.To, b.names.topic)
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &id
	req.TransactionTimeoutMillis = int32((10 * time.Second).Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	answer, err := req.RequestWith(ctx, b.target.Client())
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err != nil {
		return refuse(fmt.Errorf("check transactional id %s of cluster %s: %w", id, b.target.Alias(), err), "WRITE", "transactional id "+id, b.target)
	}
	return nil
}

// refuse says which right is missing, if that is what an error is about.
func refuse(err error, operation, resource string, c *cluster.Cluster) error {
	for _, denied := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed} {
		if errors.Is(err, denied) {
			return &RefusedError{err, fmt.Sprintf("grant %s on %s of cluster %s; docs/security.md has the list for replicator bench", operation, resource, c.Alias())}
		}
	}
	return err
}
