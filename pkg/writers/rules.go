package writers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/cluster"
)

// Everybody is the principal that stands for all, as Kafka writes it.
const Everybody = "User:*"

const anyHost = "*"

// A Rule is an ACL: DENY WRITE on one topic, by its name, for one principal, from
// every host.
type Rule struct {
	Topic     string `json:"topic"`
	Principal string `json:"principal"` // "User:name"
	// Existed: the rule stood when the plan was made. It is neither made nor lifted.
	Existed bool `json:"existed,omitempty"`
}

func (r Rule) String() string {
	return fmt.Sprintf("DENY WRITE on topic %s for %s", r.Topic, r.Principal)
}

// key is the rule alone, whoever made it.
func (r Rule) key() Rule { return Rule{Topic: r.Topic, Principal: r.Principal} }

func (r Rule) creation() kmsg.CreateACLsRequestCreation {
	c := kmsg.NewCreateACLsRequestCreation()
	c.ResourceType, c.ResourceName, c.ResourcePatternType = kmsg.ACLResourceTypeTopic, r.Topic, kmsg.ACLResourcePatternTypeLiteral
	c.Principal, c.Host = r.Principal, anyHost
	c.Operation, c.PermissionType = kmsg.ACLOperationWrite, kmsg.ACLPermissionTypeDeny
	return c
}

// filter matches this rule and no other.
func (r Rule) filter() kmsg.DeleteACLsRequestFilter {
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourceName, f.ResourcePatternType = kmsg.ACLResourceTypeTopic, new(r.Topic), kmsg.ACLResourcePatternTypeLiteral
	f.Principal, f.Host = new(r.Principal), new(anyHost)
	f.Operation, f.PermissionType = kmsg.ACLOperationWrite, kmsg.ACLPermissionTypeDeny
	return f
}

func compareRules(a, b Rule) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), strings.Compare(a.Principal, b.Principal))
}

// acl is an ACL on topics as a broker shows it.
type acl struct {
	name      string // of the topic, of its prefix, or "*"
	prefixed  bool
	principal string
	host      string
	operation kmsg.ACLOperation
	deny      bool
}

func (a acl) covers(topic string) bool {
	if a.prefixed {
		return strings.HasPrefix(topic, a.name)
	}
	return a.name == topic || a.name == "*"
}

// writing: the ACL is about writing to topics.
func (a acl) writing() bool {
	return a.operation == kmsg.ACLOperationWrite || a.operation == kmsg.ACLOperationAll
}

// rule is the ACL as a Rule, false where it is not exactly one.
func (a acl) rule() (Rule, bool) {
	exact := a.deny && !a.prefixed && a.name != "*" && a.host == anyHost && a.operation == kmsg.ACLOperationWrite
	return Rule{Topic: a.name, Principal: a.principal}, exact
}

func (a acl) String() string {
	verb, pattern := "ALLOW", "topic "+a.name
	if a.deny {
		verb = "DENY"
	}
	if a.prefixed {
		pattern = "topics that begin with " + a.name
	} else if a.name == "*" {
		pattern = "all topics"
	}
	s := fmt.Sprintf("%s %s on %s for %s", verb, strings.ToUpper(a.operation.String()), pattern, a.principal)
	if a.host != anyHost {
		s += " from " + a.host
	}
	return s
}

// listACLs asks every broker for its ACLs on topics and returns what any of them
// shows: they follow the controller, each at its own pace, and each goes by its own.
func listACLs(ctx context.Context, c *cluster.Cluster) ([]acl, error) {
	ids, err := brokers(ctx, c)
	if err != nil {
		return nil, err
	}
	seen := map[acl]bool{}
	for _, id := range ids {
		acls, err := listACLsAt(ctx, c, id)
		if err != nil {
			return nil, err
		}
		for _, a := range acls {
			seen[a] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b acl) int { return strings.Compare(a.String(), b.String()) }), nil
}

func listACLsAt(ctx context.Context, c *cluster.Cluster, broker int32) ([]acl, error) {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType = kmsg.ACLResourceTypeTopic
	req.ResourcePatternType = kmsg.ACLResourcePatternTypeAny
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	fail := func(err error) ([]acl, error) { return nil, fmt.Errorf("list ACLs of broker %d: %w", broker, err) }
	answer, err := c.Client().Broker(int(broker)).RetriableRequest(ctx, req)
	if err != nil {
		return fail(err)
	}
	resp, ok := answer.(*kmsg.DescribeACLsResponse)
	if !ok {
		return fail(fmt.Errorf("answered by %T", answer))
	}
	if err := refusal(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return fail(err)
	}
	var all []acl
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			all = append(all, acl{
				name: r.ResourceName, prefixed: r.ResourcePatternType == kmsg.ACLResourcePatternTypePrefixed,
				principal: a.Principal, host: a.Host, operation: a.Operation, deny: a.PermissionType == kmsg.ACLPermissionTypeDeny,
			})
		}
	}
	return all, nil
}

// brokers are the ids of all brokers that are up.
func brokers(ctx context.Context, c *cluster.Cluster) ([]int32, error) {
	meta, err := c.Admin().BrokerMetadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	return meta.Brokers.NodeIDs(), nil
}

// rulesOf are the ACLs that are exactly a Rule.
func rulesOf(acls []acl) map[Rule]bool {
	rules := map[Rule]bool{}
	for _, a := range acls {
		if r, ok := a.rule(); ok {
			rules[r] = true
		}
	}
	return rules
}

// refusal is a broker's error with its own words, nil for none. Some of its words are
// whole requests.
func refusal(code int16, message *string) error {
	const most = 160 // bytes
	err := kerr.ErrorForCode(code)
	if err == nil || message == nil || *message == "" {
		return err
	}
	if len(*message) > most {
		return fmt.Errorf("%w (%q...)", err, (*message)[:most])
	}
	return fmt.Errorf("%w (%q)", err, *message)
}

// inherent errors do not go away by trying again: the reason and what to do.
func inherent(err error, alias string) (why string, ok bool) {
	const instead = "or fence the writers by a hook, or stop them yourself and say --writers-stopped"
	switch {
	case errors.Is(err, kerr.SecurityDisabled):
		return fmt.Sprintf("cluster %s has no authorizer: its ACLs keep nobody from writing; fence the writers by a hook, or stop them yourself and say --writers-stopped", alias), true
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fmt.Sprintf("the ACLs of cluster %s may not be listed; grant ALTER on cluster %s, which implies DESCRIBE, %s", alias, alias, instead), true
	case errors.Is(err, kerr.UnsupportedVersion):
		return fmt.Sprintf("cluster %s does not offer ACLs (%v), %s", alias, err, instead), true
	}
	return "", false
}

var principalForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*:.`)

// checkPrincipals refuses names without a type: such a rule would match nobody.
func checkPrincipals(names []string) error {
	for _, name := range names {
		if !principalForm.MatchString(name) {
			return fmt.Errorf("read principal %q: it has no type; write User:%s", name, name)
		}
	}
	return nil
}

// sorted is a sorted copy without doubles.
func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
