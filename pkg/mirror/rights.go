package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// notAuthorized says that a broker refused for want of a right.
func notAuthorized(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) ||
		errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed)
}

// right adds to a refusal what has to be granted; other errors stay as they are.
func right(err error, operation, resource, cluster string) error {
	if _, said := errors.AsType[*hintError](err); !said && notAuthorized(err) {
		return &hintError{err, fmt.Sprintf("grant %s on %s of cluster %s", operation, resource, cluster)}
	}
	return err
}

// sourceRight and targetRight are right for a topic of either side.
func (l *Link) sourceRight(err error, operation, topic string) error {
	return right(err, operation, "topic "+topic, l.opts.From)
}

func (op *opener) targetRight(err error, operation, topic string) error {
	return right(err, operation, "topic "+topic, op.opts.To)
}

// listEach lists offsets of topics. kadm answers for none of them when one is
// refused: then each is asked for alone, and only the refused ones have an error.
func listEach(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics []string) (kadm.ListedOffsets, map[string]error) {
	listed, err := list(ctx, topics...)
	if err == nil || len(topics) == 1 || !notAuthorized(err) {
		return listed, each(topics, err)
	}
	all, failed := kadm.ListedOffsets{}, map[string]error{}
	for _, topic := range topics {
		some, err := list(ctx, topic)
		if err != nil {
			failed[topic] = err
			continue
		}
		all[topic] = some[topic]
	}
	return all, failed
}

// describeEach reads the configurations of topics, with the same care as listEach.
func describeEach(ctx context.Context, admin *kadm.Client, topics []string) (map[string]kadm.ResourceConfig, map[string]error) {
	out := map[string]kadm.ResourceConfig{}
	take := func(described kadm.ResourceConfigs, failed map[string]error) {
		for _, rc := range described {
			if rc.Err != nil {
				failed[rc.Name] = rc.Err
			} else {
				out[rc.Name] = rc
			}
		}
	}
	described, err := admin.DescribeTopicConfigs(ctx, topics...)
	if err == nil || len(topics) == 1 || !notAuthorized(err) {
		failed := each(topics, err)
		take(described, failed)
		return out, failed
	}
	failed := map[string]error{}
	for _, topic := range topics {
		if described, err = admin.DescribeTopicConfigs(ctx, topic); err != nil {
			failed[topic] = err
		}
		take(described, failed)
	}
	return out, failed
}

func each(topics []string, err error) map[string]error {
	failed := map[string]error{}
	if err != nil {
		for _, topic := range topics {
			failed[topic] = err
		}
	}
	return failed
}
