package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"replicator/pkg/cluster"
)

const (
	// groupsPerRequest bounds an answer: 50 groups of 1,000 partitions with
	// short metadata are 2 MB. Brokers before 3.0 take one group a request;
	// then so many requests are in flight on a connection.
	groupsPerRequest = 50
	// requestsInFlight is how many such requests wait at once.
	requestsInFlight = 2
)

// poller asks the coordinators for what groups have committed.
type poller struct {
	cluster *cluster.Cluster
	wanted  func(group string) bool
	timeout time.Duration // of one poll
	known   []string      // groups that are read whether or not they are listed, sorted
}

// polled is what one poll saw.
type polled struct {
	began   time.Time
	groups  []kmsg.OffsetFetchResponseGroup
	failed  map[string]bool // groups that could not be read
	others  map[string]bool // groups of kinds that are left out
	listed  map[string]bool // groups wanted that were seen
	problem error           // the first thing that could not be read
}

func (p *polled) fail(err error) {
	if p.problem == nil {
		p.problem = err
	}
}

// poll lists the groups and reads the commits of those wanted.
func (p *poller) poll(ctx context.Context) *polled {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	out := &polled{began: time.Now(), failed: map[string]bool{}, others: map[string]bool{}, listed: map[string]bool{}}
	var requests []kmsg.OffsetFetchRequestGroup
	listed := p.list(ctx, out)
	for _, name := range listed {
		out.listed[name] = true
	}
	for _, name := range p.known {
		if !out.listed[name] && !out.others[name] {
			listed = append(listed, name)
		}
	}
	for _, name := range listed {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = name // and no topics: all of them
		requests = append(requests, g)
	}
	p.fetch(ctx, out, requests)
	return out
}

// consumerGroup tells groups whose commits are progress in topics from others,
// such as those of Connect's workers. Brokers before 3.8 tell no type.
func consumerGroup(g *kmsg.ListGroupsResponseGroup) bool {
	switch strings.ToLower(g.GroupType) {
	case "", "classic":
		return g.ProtocolType == "" || g.ProtocolType == "consumer"
	case "consumer", "streams":
		return true
	}
	return false
}

func (p *poller) list(ctx context.Context, out *polled) []string {
	var names []string
	for _, shard := range p.cluster.Client().RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		err := shard.Err
		if err == nil {
			resp := shard.Resp.(*kmsg.ListGroupsResponse)
			err = kerr.ErrorForCode(resp.ErrorCode)
			for i := range resp.Groups {
				g := &resp.Groups[i]
				switch {
				case !consumerGroup(g):
					out.others[g.Group] = true
				case p.wanted(g.Group):
					names = append(names, g.Group)
				}
			}
		}
		if err != nil {
			out.fail(p.hint(fmt.Errorf("list groups of broker %d of cluster %s: %w", shard.Meta.NodeID, p.cluster.Alias(), err), "DESCRIBE on the cluster"))
		}
	}
	slices.Sort(names)
	return names
}

// fetch reads commits, some groups a request. What cannot be read is in
// failed, whatever else is read.
func (p *poller) fetch(ctx context.Context, out *polled, requests []kmsg.OffsetFetchRequestGroup) {
	var mu sync.Mutex
	var wait errgroup.Group
	wait.SetLimit(requestsInFlight)
	for some := range slices.Chunk(requests, groupsPerRequest) {
		wait.Go(func() error {
			req := kmsg.NewPtrOffsetFetchRequest()
			req.Groups = some
			shards := p.cluster.Client().RequestSharded(ctx, req)
			mu.Lock()
			defer mu.Unlock()
			missing := map[string]bool{}
			for _, g := range some {
				missing[g.Group] = true
			}
			failed := func(group string, broker int32, err error) {
				delete(missing, group)
				out.failed[group] = true
				out.fail(p.hint(fmt.Errorf("fetch offsets of group %s from broker %d of cluster %s: %w", group, broker, p.cluster.Alias(), err), "DESCRIBE on group "+group))
			}
			for _, shard := range shards {
				if shard.Err != nil {
					for _, g := range shard.Req.(*kmsg.OffsetFetchRequest).Groups {
						failed(g.Group, shard.Meta.NodeID, shard.Err)
					}
					continue
				}
				for _, g := range shard.Resp.(*kmsg.OffsetFetchResponse).Groups {
					err := kerr.ErrorForCode(g.ErrorCode)
					if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
						failed(g.Group, shard.Meta.NodeID, err)
						continue
					}
					delete(missing, g.Group)
					out.groups = append(out.groups, g)
				}
			}
			for group := range missing {
				failed(group, -1, errors.New("no answer"))
			}
			return nil
		})
	}
	_ = wait.Wait() // failures are in out
}

// confirm asks for keys a poll did not find, by name: a group or topic we may
// not see is left out silently when it is not named, and is an error when it
// is. Only what a broker says is gone comes back without an error.
func (p *poller) confirm(ctx context.Context, missing map[string]map[string][]int32) *polled {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	out := &polled{began: time.Now(), failed: map[string]bool{}}
	hidden, err := p.hiddenTopics(ctx, missing)
	if err != nil {
		out.fail(err)
		for group := range missing {
			out.failed[group] = true
		}
		return out
	}
	var requests []kmsg.OffsetFetchRequestGroup
	for _, group := range slices.Sorted(maps.Keys(missing)) {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = group
		for topic, partitions := range missing[group] {
			why, isHidden := hidden[topic]
			switch {
			case isHidden && why != nil:
				out.failed[group] = true
				out.fail(p.hint(fmt.Errorf("see topic %s of cluster %s: %w", topic, p.cluster.Alias(), why), "DESCRIBE on topic "+topic))
			case isHidden: // the topic is gone, and its commits with it
			default:
				t := kmsg.NewOffsetFetchRequestGroupTopic()
				t.Topic, t.Partitions = topic, partitions
				g.Topics = append(g.Topics, t)
			}
		}
		if len(g.Topics) > 0 {
			requests = append(requests, g)
		} else {
			r := kmsg.NewOffsetFetchResponseGroup()
			r.Group = group
			out.groups = append(out.groups, r)
		}
	}
	p.fetch(ctx, out, requests)
	return out
}

// hiddenTopics returns the topics that are not there (nil) or not ours to see.
func (p *poller) hiddenTopics(ctx context.Context, missing map[string]map[string][]int32) (map[string]error, error) {
	topics := map[string]bool{}
	for _, lanes := range missing {
		for topic := range lanes {
			topics[topic] = true
		}
	}
	req := kmsg.NewPtrMetadataRequest()
	for topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(topic)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, p.cluster.Client())
	if err != nil {
		return nil, fmt.Errorf("ask for topics of cluster %s: %w", p.cluster.Alias(), err)
	}
	hidden := map[string]error{}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		err := kerr.ErrorForCode(t.ErrorCode)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			hidden[*t.Topic] = nil
		case err != nil:
			hidden[*t.Topic] = err
		}
	}
	return hidden, nil
}

// hint adds to a refusal what has to be granted.
func (p *poller) hint(err error, right string) error {
	if notAuthorized(err) {
		return fmt.Errorf("%w: grant %s of cluster %s", err, right, p.cluster.Alias())
	}
	return err
}

func notAuthorized(err error) bool {
	if _, ok := errors.AsType[*kadm.AuthError](err); ok {
		return true
	}
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}
