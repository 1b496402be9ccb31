package cutover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"replicator/pkg/authority"
	"replicator/pkg/checkpoint"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/stranded"
	"replicator/pkg/writers"
)

// needs are the rights that the steps of a verb take on one region.
type needs struct {
	region Region
	topics []kmsg.ACLOperation // on the topics that are copied
	own    []string            // topics of the replicator: READ and WRITE, CREATE while they are not there
	ids    []string            // transactional ids: WRITE
	groups []string            // READ: offsets are committed to them
}

var (
	readOnly     = []kmsg.ACLOperation{kmsg.ACLOperationRead}
	readAndWrite = []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite}
)

// needsOf are all rights that some step takes, but for those on the cluster. The region
// that a failover gives up is asked for nothing.
func needsOf(s Setup, req Request, groups []string) []needs {
	on := func(region Region, link mirror.Options) needs {
		return needs{
			region: region, topics: readAndWrite,
			own: []string{authority.DefaultTopic, authority.DefaultAuditTopic, link.JournalTopic},
			ids: []string{s.Pair.TransactionalID(), epochsID(link)},
		}
	}
	promoted := on(s.New, s.Forward.Options)
	promoted.groups = groups
	if req.rehearsal {
		// It takes epochs of a scratch topic and commits to scratch groups.
		promoted.own, promoted.ids, promoted.groups = nil, []string{epochsID(s.Forward.Options)}, nil
		return []needs{promoted, {region: s.Old, topics: readOnly}}
	}
	if req.Verb == Failover {
		return []needs{promoted}
	}
	if req.Verb == Failback && req.Stranded == Replay {
		promoted.own = append(promoted.own, stranded.ProgressTopic)
		promoted.ids = append(promoted.ids, stranded.TransactionalID(s.Old.Alias))
	}
	old := needs{region: s.Old, topics: readAndWrite, own: []string{authority.DefaultTopic, authority.DefaultAuditTopic}, ids: []string{s.Pair.TransactionalID()}}
	if s.Reverse != nil {
		old = on(s.Old, s.Reverse.Options)
	}
	return []needs{promoted, old}
}

// epochsID stands for the transactional ids of a link's lanes; no lane has it.
func epochsID(o mirror.Options) string {
	return fmt.Sprintf("replicator.%s.%s.%s", o.From, o.To, anyLane)
}

const anyLane = "rights"

// idWords names what has to be granted for an id.
func idWords(id string) string {
	if prefix, ok := strings.CutSuffix(id, "."+anyLane); ok {
		return "transactional ids with the prefix " + prefix + "."
	}
	return "transactional id " + id
}

// rights: whoever runs the command may do what every step takes, also those behind the
// irreversible point. Brokers are asked and nothing is changed. On a topic that is not
// there yet only CREATE can be asked for.
func (g *gates) rights(ctx context.Context, s Setup, req Request, p *Plan) {
	var missing []string
	for _, n := range needsOf(s, req, committedTo(p.Groups, req.SkipGroups)) {
		c := n.region.Cluster
		if c == nil {
			continue
		}
		topics, err := s.topicsOf(ctx, n.region)
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		// A topic that may not be seen is in no list: those that were copied are asked for by name.
		topics = append(topics, p.world.topics()...)
		slices.Sort(topics)
		missing = append(missing, missingRights(ctx, c, slices.Compact(topics), n.topics)...)
		missing = append(missing, missingRights(ctx, c, n.own, readAndWrite)...)
		missing = append(missing, mayNotCreate(ctx, c, n.own)...)
		for _, id := range n.ids {
			if !mayWriteUnder(ctx, c, id) {
				missing = append(missing, fmt.Sprintf("WRITE on %s of cluster %s", idWords(id), c.Alias()))
			}
		}
		missing = append(missing, mayNotCommit(ctx, c, n.groups)...)
	}
	var warnings []string
	if !req.rehearsal {
		var no []string
		no, warnings = s.rightsOnRules(ctx, req, p.world)
		missing = append(missing, no...)
	}
	if len(missing) > 0 {
		g.fail("rights", "grant them; docs/security.md has the list for whoever runs a cutover", "missing: %s", strings.Join(missing, "; "))
		return
	}
	g.pass("rights", "%s", strings.Join(append([]string{"on topics, groups and transactional ids"}, warnings...), "; warning: "))
}

// rightsOnRules asks for ALTER where rules that stand have to be lifted: without it
// applications, or the daemon, would stay shut out behind the irreversible point. The
// lasting fence is a second bolt: that it cannot be made is a warning.
func (s Setup) rightsOnRules(ctx context.Context, req Request, w *world) (missing, warnings []string) {
	lift := func(region Region, what string) {
		if may, known := writers.MayAlter(ctx, region.Cluster); known && !may {
			missing = append(missing, fmt.Sprintf("ALTER on cluster %s: %s", region.Alias, what))
		}
	}
	_, fenced, err := standingFence(w.newState)
	switch {
	case req.Verb == Failback:
	case err != nil: // they could not be lifted
		missing = append(missing, err.Error())
	case fenced:
		lift(s.New, "rules that keep applications from writing to it have to be lifted")
	}
	if req.Verb != Failover && s.Old.Cluster != nil && s.Old.Principal != "" {
		plan, err := s.standingLinkFence(ctx, s.Old)
		switch {
		case err != nil:
			warnings = append(warnings, err.Error())
		case !plan.Possible:
			warnings = append(warnings, fmt.Sprintf("whether a rule keeps %s from writing to %s, and has to be lifted, is not known: %s", s.Old.Principal, s.Old.Alias, plan.Why))
		case len(plan.Rules) > 0:
			lift(s.Old, fmt.Sprintf("rules that keep %s from writing to it have to be lifted", s.Old.Principal))
		}
	}
	if req.Verb != Failback && s.New.Principal != "" {
		topics, err := s.topicsOf(ctx, s.New)
		if err == nil && len(topics) > 0 {
			var plan writers.Plan
			if plan, err = writers.LinkFence(ctx, s.New.Cluster, topics, s.New.Principal); err == nil && !plan.Possible {
				err = errors.New(plan.Why)
			}
		}
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("no rule will take WRITE from %s on %s, the fence rests on the epochs alone: %v", s.New.Principal, s.New.Alias, err))
		}
	}
	return missing, warnings
}

// committedTo are the groups that offsets may be committed to.
func committedTo(rows evidence.GroupsDoc, skipped []string) []string {
	names := map[string]bool{}
	for _, row := range rows {
		if checkpoint.Action(row.Action) != checkpoint.Skip && !slices.Contains(skipped, row.Group) {
			names[row.Group] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// missingRights asks a cluster what we may do with topics.
func missingRights(ctx context.Context, c *cluster.Cluster, topics []string, ops []kmsg.ACLOperation) []string {
	if len(topics) == 0 {
		return nil
	}
	described, err := describeTopics(ctx, c, topics)
	if err != nil {
		return []string{fmt.Sprintf("rights on topics of %s cannot be asked for: %v", c.Alias(), err)}
	}
	var out []string
	for _, t := range described {
		unseen := t.ErrorCode == kerr.TopicAuthorizationFailed.Code
		if t.Topic == nil || !unseen && t.AuthorizedOperations <= 0 { // the broker does not say, or it is not there
			continue
		}
		for _, op := range ops {
			if unseen || t.AuthorizedOperations&(1<<op) == 0 {
				out = append(out, fmt.Sprintf("%s on topic %s of cluster %s", strings.ToUpper(op.String()), *t.Topic, c.Alias()))
			}
		}
	}
	return some(out, c)
}

// some are the first of many missing rights.
func some(missing []string, c *cluster.Cluster) []string {
	slices.Sort(missing)
	if len(missing) > 5 {
		missing = append(missing[:5], fmt.Sprintf("%d more on %s", len(missing)-5, c.Alias()))
	}
	return missing
}

func describeTopics(ctx context.Context, c *cluster.Cluster, topics []string) ([]kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.Client())
	if err != nil {
		return nil, err
	}
	return resp.Topics, nil
}

// mayNotCreate are the rights that are missing to make the topics that are not there. A
// broker judges a request that only asks whether it would be valid by the same rights.
func mayNotCreate(ctx context.Context, c *cluster.Cluster, topics []string) []string {
	if len(topics) == 0 {
		return nil
	}
	described, err := describeTopics(ctx, c, topics)
	if err != nil {
		return nil // said where reading and writing are asked for
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.ValidateOnly = true
	for _, t := range described {
		if t.Topic != nil && t.ErrorCode == kerr.UnknownTopicOrPartition.Code {
			ask := kmsg.NewCreateTopicsRequestTopic()
			ask.Topic, ask.NumPartitions, ask.ReplicationFactor = *t.Topic, 1, 1
			req.Topics = append(req.Topics, ask)
		}
	}
	if len(req.Topics) == 0 {
		return nil
	}
	resp, err := req.RequestWith(ctx, c.Client())
	if err != nil {
		return nil // anything else is said where it matters
	}
	var out []string
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
			out = append(out, fmt.Sprintf("CREATE on topic %s of cluster %s", t.Topic, c.Alias()))
		}
	}
	return some(out, c)
}

// mayWriteUnder asks for the right on a transactional id by ending a transaction of a
// producer that nobody is: the right is looked at first, then it is refused, whoever holds
// the id.
func mayWriteUnder(ctx context.Context, c *cluster.Cluster, id string) bool {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = id, -1, -1
	resp, err := req.RequestWith(ctx, c.Client())
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	return !errors.Is(err, kerr.TransactionalIDAuthorizationFailed) // anything else is said where it matters
}

// groupsAtOnce are as many questions about groups as are under way at a time.
const groupsAtOnce = 100

// mayNotCommit are the rights that are missing to commit to groups. A heartbeat of a
// member that nobody is takes the same right, and changes nothing.
func mayNotCommit(ctx context.Context, c *cluster.Cluster, groups []string) []string {
	refused := make([]bool, len(groups))
	var asking errgroup.Group
	asking.SetLimit(groupsAtOnce)
	for i, name := range groups {
		asking.Go(func() error {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.Generation, req.MemberID = name, -1, "replicator.rights"
			resp, err := req.RequestWith(ctx, c.Client())
			if err == nil {
				err = kerr.ErrorForCode(resp.ErrorCode)
			}
			refused[i] = errors.Is(err, kerr.GroupAuthorizationFailed) // anything else is said where it matters
			return nil
		})
	}
	_ = asking.Wait() // none fails
	var out []string
	for i, name := range groups {
		if refused[i] {
			out = append(out, fmt.Sprintf("READ on group %s of cluster %s", name, c.Alias()))
		}
	}
	return some(out, c)
}
