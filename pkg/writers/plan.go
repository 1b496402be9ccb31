package writers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/cluster"
)

// A Fence says who is to be kept from writing where.
type Fence struct {
	Cluster *cluster.Cluster
	Topics  []string
	// Except are principals that go on ("User:replicator"): the ones of links that
	// write to these topics later.
	Except []string
	// Principals are denied besides those the ACLs allow to write. Where everybody
	// may write ("User:*"), they are denied instead of everybody.
	Principals []string
}

// A Plan is what a fence does, and what it cannot.
type Plan struct {
	Cluster   string   `json:"cluster"`    // alias
	ClusterID string   `json:"cluster_id"` // as the brokers tell it
	Topics    []string `json:"topics"`
	Except    []string `json:"except,omitempty"`     // as given
	Named     []string `json:"principals,omitempty"` // as given: Fence.Principals
	// Link: a plan of LinkFence; Named alone are denied, whoever else may write.
	Link bool `json:"link,omitempty"`
	// Writers are the principals that may write to some of the topics, with the ACL
	// that allows it (one of them, if there are several). Those that go on are here too.
	Writers []Writer `json:"writers,omitempty"`
	Rules   []Rule   `json:"rules,omitempty"` // by topic, then principal
	// Possible: the fence can be set up by ACLs, as far as can be told beforehand.
	// Otherwise Why says the reason and what to do.
	Possible bool   `json:"possible"`
	Why      string `json:"why,omitempty"`
	// Warnings say whom the fence does not keep out, and whom it hits besides.
	Warnings []string `json:"warnings,omitempty"`
}

// A Writer is a principal that ACLs allow to write.
type Writer struct {
	Principal string `json:"principal"`
	By        string `json:"by"`     // the ACL, in words
	Topics    int    `json:"topics"` // how many of the plan's topics
}

// Plan lists the cluster's ACLs and says which rules keep the writers out. It
// changes nothing. It needs DESCRIBE on the cluster; without it, or without an
// authorizer, the plan is not Possible. An error is that nothing could be asked.
func (f Fence) Plan(ctx context.Context) (Plan, error) {
	p, err := f.empty()
	if err != nil {
		return Plan{}, err
	}
	acls, err := listACLs(ctx, f.Cluster)
	if err != nil {
		var cannot bool
		if p.Why, cannot = inherent(err, p.Cluster); cannot {
			return p, nil
		}
		return Plan{}, fmt.Errorf("plan fence of writers of cluster %s: %w", p.Cluster, err)
	}
	p.Possible = true
	p.fill(acls)
	if err := p.askUncovered(ctx, f.Cluster, acls); err != nil {
		return Plan{}, err
	}
	p.askAlter(ctx, f.Cluster)
	p.warn(acls, f.Cluster.Config().SASL.Mechanism)
	return p, nil
}

func (f Fence) empty() (Plan, error) {
	if len(f.Topics) == 0 {
		return Plan{}, errors.New("plan fence of writers: no topics")
	}
	if err := checkPrincipals(slices.Concat(f.Except, f.Principals)); err != nil {
		return Plan{}, err
	}
	for _, name := range f.Except {
		if name == Everybody || slices.Contains(f.Principals, name) {
			return Plan{}, fmt.Errorf("plan fence of writers: %s is to go on and to be kept out", name)
		}
	}
	return Plan{
		Cluster: f.Cluster.Alias(), ClusterID: f.Cluster.ID(),
		Topics: sorted(f.Topics), Except: sorted(f.Except), Named: sorted(f.Principals),
	}, nil
}

// fill sets Writers and Rules by the ACLs there are.
func (p *Plan) fill(acls []acl) {
	standing := rulesOf(acls)
	allow := slices.DeleteFunc(slices.Clone(acls), func(a acl) bool { return a.deny || !a.writing() })
	writers := map[string]*Writer{}
	for _, topic := range p.Topics {
		deny := map[string]bool{}
		seen := map[string]bool{}
		for _, a := range allow {
			if !a.covers(topic) || seen[a.principal] {
				continue
			}
			seen[a.principal] = true
			if w := writers[a.principal]; w != nil {
				w.Topics++
			} else {
				writers[a.principal] = &Writer{Principal: a.principal, By: a.String(), Topics: 1}
			}
			if !p.Link && !slices.Contains(p.Except, a.principal) && (a.principal != Everybody || len(p.Named) == 0) {
				deny[a.principal] = true
			}
		}
		for _, name := range p.Named {
			deny[name] = true
		}
		for name := range deny {
			r := Rule{Topic: topic, Principal: name}
			r.Existed = standing[r]
			p.Rules = append(p.Rules, r)
		}
	}
	for _, w := range writers {
		p.Writers = append(p.Writers, *w)
	}
	slices.SortFunc(p.Writers, func(a, b Writer) int { return strings.Compare(a.Principal, b.Principal) })
	slices.SortFunc(p.Rules, compareRules)
}

// askUncovered looks at topics that no ACL is about. With
// allow.everyone.if.no.acl.found everybody may do everything with them, and the
// first rule would take that away, reading too. Without it only super users may
// write there, and there is nobody to deny.
func (p *Plan) askUncovered(ctx context.Context, c *cluster.Cluster, acls []acl) error {
	uncovered := slices.DeleteFunc(slices.Clone(p.Topics), func(topic string) bool {
		return slices.ContainsFunc(acls, func(a acl) bool { return a.covers(topic) })
	})
	if len(uncovered) == 0 {
		return nil
	}
	const setting = "allow.everyone.if.no.acl.found"
	set, err := brokersHave(ctx, c, setting)
	if err != nil && !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return fmt.Errorf("plan fence of writers of cluster %s: %w", p.Cluster, err)
	}
	switch {
	case err == nil && !set:
		p.Warnings = append(p.Warnings, fmt.Sprintf("no ACL is about %s: only super users can write there, and they cannot be fenced by ACLs", some(uncovered)))
		if len(p.Named) > 0 {
			return nil
		}
	default:
		known := setting + " is set on brokers of cluster " + p.Cluster
		if err != nil {
			known = fmt.Sprintf("it cannot be told whether %s is set (grant DESCRIBE_CONFIGS on cluster %s to find out)", setting, p.Cluster)
		}
		p.Possible, p.Rules = false, nil
		p.Why = fmt.Sprintf("no ACL is about %s, and %s: there the first rule would take all rights from everybody, reading too; "+
			"give these topics ALLOW rules first, or fence the writers by a hook, or stop them yourself and say --writers-stopped", some(uncovered), known)
	}
	return nil
}

// brokersHave tells whether a setting is in the configuration of some broker. The
// value of one that belongs to an authorizer is not shown.
func brokersHave(ctx context.Context, c *cluster.Cluster, key string) (bool, error) {
	ids, err := brokers(ctx, c)
	if err != nil {
		return false, err
	}
	configs, err := c.Admin().DescribeBrokerConfigs(ctx, ids...)
	if err != nil {
		return false, fmt.Errorf("read settings of brokers: %w", err)
	}
	for _, rc := range configs {
		if rc.Err != nil {
			return false, fmt.Errorf("read settings of broker %s: %w", rc.Name, rc.Err)
		}
		for _, kv := range rc.Configs {
			if kv.Key == key && (kv.Value == nil || *kv.Value != "false") {
				return true, nil
			}
		}
	}
	return false, nil
}

// MayAlter asks whether rules may be made and lifted. known is false where the cluster
// does not tell.
func MayAlter(ctx context.Context, c *cluster.Cluster) (may, known bool) {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeClusterAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, c.Client())
	if err == nil {
		err = refusal(resp.ErrorCode, resp.ErrorMessage)
	}
	const unknown = -1 << 31 // a broker that does not tell
	if err != nil || resp.ClusterAuthorizedOperations == unknown {
		return false, false
	}
	return slices.Contains(kadm.DecodeACLOperations(resp.ClusterAuthorizedOperations), kmsg.ACLOperationAlter), true
}

// askAlter looks whether rules may be made, so that a fence fails before it begins.
func (p *Plan) askAlter(ctx context.Context, c *cluster.Cluster) {
	if !p.Possible || !slices.ContainsFunc(p.Rules, func(r Rule) bool { return !r.Existed }) {
		return
	}
	switch may, known := MayAlter(ctx, c); {
	case !known:
		p.Warnings = append(p.Warnings, "whether rules may be made was not asked: cluster "+p.Cluster+" does not tell; it needs ALTER on the cluster")
	case !may:
		p.Possible = false
		p.Why = fmt.Sprintf("ACLs of cluster %s may be listed and not changed; grant ALTER on cluster %s, or fence the writers by a hook, or stop them yourself and say --writers-stopped", p.Cluster, p.Cluster)
	}
}

// warn says whom the rules do not keep out, and whom they hit besides.
func (p *Plan) warn(acls []acl, login cluster.Mechanism) {
	add := func(format string, args ...any) { p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...)) }
	everybody := slices.ContainsFunc(p.Writers, func(w Writer) bool { return w.Principal == Everybody })
	denied := slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Principal == Everybody })
	switch {
	case denied:
		add("everybody may write (%s), so everybody is denied, and DENY has no exceptions: %s cannot write there either until the fence is lifted; "+
			"to spare them, name the principals of the applications", p.by(Everybody), orNobody(p.Except))
	case everybody:
		add("everybody may write (%s), and only %s are denied: other principals are found by the growth check alone", p.by(Everybody), strings.Join(p.Named, ", "))
	}
	for _, name := range p.Except {
		if stopped := p.deniedAlready(acls, name); len(stopped) > 0 {
			add("%s is to go on and is denied WRITE already on %s: the fence of an earlier run, which has to be lifted before it can write", name, some(stopped))
		}
	}
	if len(p.Rules) > 0 {
		add("super users are not listed by brokers and no rule keeps them out; principals that are allowed to write later are not in this plan")
	}
	if login == cluster.AWSMSKIAM {
		add("clients that log in by IAM are not subject to ACLs")
	}
}

func (p *Plan) by(principal string) string {
	for _, w := range p.Writers {
		if w.Principal == principal {
			return w.By
		}
	}
	return ""
}

// deniedAlready lists topics where an ACL that stands denies a principal to write.
func (p *Plan) deniedAlready(acls []acl, principal string) []string {
	return slices.DeleteFunc(slices.Clone(p.Topics), func(topic string) bool {
		return !slices.ContainsFunc(acls, func(a acl) bool {
			return a.deny && a.writing() && (a.principal == principal || a.principal == Everybody) && a.covers(topic)
		})
	})
}

// LinkFence plans the lasting fence of a link: its principal is denied WRITE on the
// topics of the side that was promoted. Reading goes on. While it stands, nobody can
// take the epochs of the link's lanes by this principal, so that the daemon of the
// closed direction cannot be their guard; and the link of this direction cannot be
// started again before the plan is lifted.
func LinkFence(ctx context.Context, c *cluster.Cluster, topics []string, principal string) (Plan, error) {
	p, err := Fence{Cluster: c, Topics: topics, Principals: []string{principal}}.empty()
	if err != nil {
		return Plan{}, err
	}
	acls, err := listACLs(ctx, c)
	if err != nil {
		var cannot bool
		if p.Why, cannot = inherent(err, p.Cluster); cannot {
			return p, nil
		}
		return Plan{}, fmt.Errorf("plan fence of %s on cluster %s: %w", principal, p.Cluster, err)
	}
	p.Possible, p.Link = true, true
	p.fill(acls)
	if err := p.askUncovered(ctx, c, acls); err != nil {
		return Plan{}, err
	}
	p.askAlter(ctx, c)
	p.Warnings = append(p.Warnings, fmt.Sprintf("if %s is a super user of cluster %s, no rule keeps it out", principal, p.Cluster))
	return p, nil
}

// StandingLinkFence finds the lasting fence of a link by its rules as they stand, to be
// lifted: those that deny the principal to write to a topic that match tells. The
// topics need not be there: the rule of one that was deleted would keep the link from
// one that is made again under its name. Without the right to list ACLs the plan is not
// Possible.
func StandingLinkFence(ctx context.Context, c *cluster.Cluster, principal string, match func(topic string) bool) (Plan, error) {
	p := Plan{Cluster: c.Alias(), ClusterID: c.ID(), Named: []string{principal}, Link: true, Possible: true}
	acls, err := listACLs(ctx, c)
	switch {
	case errors.Is(err, kerr.SecurityDisabled), errors.Is(err, kerr.UnsupportedVersion):
		return p, nil // there are none
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		p.Possible = false
		p.Why = fmt.Sprintf("the ACLs of cluster %s may not be listed; grant ALTER on cluster %s, which implies DESCRIBE", p.Cluster, p.Cluster)
		return p, nil
	case err != nil:
		return Plan{}, fmt.Errorf("find fence of %s on cluster %s: %w", principal, p.Cluster, err)
	}
	for r := range rulesOf(acls) {
		if r.Principal == principal && match(r.Topic) {
			p.Rules = append(p.Rules, r)
			p.Topics = append(p.Topics, r.Topic)
		}
	}
	slices.SortFunc(p.Rules, compareRules)
	slices.Sort(p.Topics)
	return p, nil
}

// some lists names, the first few of many.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more topics", strings.Join(names[:most], ", "), len(names)-most)
	}
	if len(names) == 1 {
		return "topic " + names[0]
	}
	return "topics " + strings.Join(names, ", ")
}

func orNobody(names []string) string {
	if len(names) == 0 {
		return "the replicator"
	}
	return strings.Join(names, ", ")
}
