package writers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
)

const (
	rulesPerRequest = 1000                  // KRaft takes 10,000 changes at once
	askTime         = 5 * time.Second       // for what stands after a failure
	showInterval    = 50 * time.Millisecond // between two questions to brokers that do not show the rules yet
)

// A StandsError says what an Apply or Lift that failed has left.
type StandsError struct {
	Cluster  string
	Lifting  bool
	Standing []Rule // rules of the plan that stand now, on any broker; nil with Unknown
	Missing  []Rule // rules of the plan that do not
	Unknown  bool   // the cluster could not be asked
	Err      error
}

func (e *StandsError) Error() string {
	verb, next := "make", "repeat it, or lift the fence"
	if e.Lifting {
		verb, next = "take away", "repeat it"
	}
	if e.Unknown {
		return fmt.Sprintf("%s rules on cluster %s: %v; which of them stand could not be asked: %s", verb, e.Cluster, e.Err, next)
	}
	return fmt.Sprintf("%s rules on cluster %s: %v; %d of %d stand: %s", verb, e.Cluster, e.Err, len(e.Standing), len(e.Standing)+len(e.Missing), next)
}

func (e *StandsError) Unwrap() error { return e.Err }

// Apply makes the rules of a plan and returns when every broker shows them, which the
// context bounds. It may be repeated. It needs ALTER on the cluster. A failure is a
// *StandsError.
func Apply(ctx context.Context, c *cluster.Cluster, p Plan) error {
	if err := p.belongs(c); err != nil {
		return err
	}
	err := create(ctx, c, p.made())
	if err == nil {
		err = settle(ctx, c, p.made(), true)
	}
	if err == nil {
		err = p.existed(ctx, c)
	}
	return p.stands(ctx, c, err, false)
}

// Lift takes away the rules that Apply made and returns when no broker shows them
// any more. It may be repeated. It needs ALTER on the cluster. A failure is a
// *StandsError.
func Lift(ctx context.Context, c *cluster.Cluster, p Plan) error {
	if err := p.belongs(c); err != nil {
		return err
	}
	err := remove(ctx, c, p.made())
	if err == nil {
		err = settle(ctx, c, p.made(), false)
	}
	return p.stands(ctx, c, err, true)
}

// existed looks for the rules that the plan found standing. They are somebody else's,
// who may have taken them away.
func (p *Plan) existed(ctx context.Context, c *cluster.Cluster) error {
	rules := slices.DeleteFunc(slices.Clone(p.Rules), func(r Rule) bool { return !r.Existed })
	if len(rules) == 0 {
		return nil
	}
	behind, err := Behind(ctx, c, rules, true)
	if err == nil && len(behind) > 0 {
		err = fmt.Errorf("rules that stood when the plan was made are gone, make a new plan: %s", strings.Join(behind, "; "))
	}
	return err
}

// made are the rules that are the plan's own.
func (p *Plan) made() []Rule {
	return slices.DeleteFunc(slices.Clone(p.Rules), func(r Rule) bool { return r.Existed })
}

func (p *Plan) belongs(c *cluster.Cluster) error {
	if p.ClusterID != c.ID() {
		return fmt.Errorf("use fence plan of cluster %s: it was made for cluster id %q, this is %q", p.Cluster, p.ClusterID, c.ID())
	}
	if !p.Possible {
		return fmt.Errorf("use fence plan of cluster %s: %s", p.Cluster, p.Why)
	}
	return nil
}

// ByHand are the commands of Kafka's own tool that take the rules of a plan away, one for
// each principal.
func (p *Plan) ByHand(bootstrap string) []string {
	topics := map[string]string{}
	for _, r := range p.made() {
		topics[r.Principal] += " --topic " + r.Topic
	}
	var out []string
	for _, principal := range slices.Sorted(maps.Keys(topics)) {
		out = append(out, fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --remove --force --operation Write --deny-principal '%s'%s", bootstrap, principal, topics[principal]))
	}
	return out
}

// stands turns a failure into one that says what stands.
func (p *Plan) stands(ctx context.Context, c *cluster.Cluster, cause error, lifting bool) error {
	if cause == nil {
		return nil
	}
	e := &StandsError{Cluster: p.Cluster, Lifting: lifting, Err: cause}
	// It is asked for although the context may be over: an operator has to know.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	acls, err := listACLs(ctx, c)
	if err != nil {
		e.Unknown = true
		return e
	}
	standing := rulesOf(acls)
	for _, r := range p.Rules {
		if standing[r.key()] {
			e.Standing = append(e.Standing, r)
		} else {
			e.Missing = append(e.Missing, r)
		}
	}
	return e
}

func create(ctx context.Context, c *cluster.Cluster, rules []Rule) error {
	for part := range slices.Chunk(rules, rulesPerRequest) {
		req := kmsg.NewPtrCreateACLsRequest()
		for _, r := range part {
			req.Creations = append(req.Creations, r.creation())
		}
		resp, err := req.RequestWith(ctx, c.Client())
		if err != nil {
			return err
		}
		var refused []error
		for i, r := range resp.Results {
			if err := refusal(r.ErrorCode, r.ErrorMessage); err != nil && i < len(part) {
				refused = append(refused, fmt.Errorf("%v: %w", part[i], err))
			}
		}
		if err := firstOf(refused, len(part)); err != nil {
			return err
		}
		if len(resp.Results) != len(part) {
			return fmt.Errorf("asked for %d rules, answered for %d", len(part), len(resp.Results))
		}
	}
	return nil
}

func remove(ctx context.Context, c *cluster.Cluster, rules []Rule) error {
	for part := range slices.Chunk(rules, rulesPerRequest) {
		req := kmsg.NewPtrDeleteACLsRequest()
		for _, r := range part {
			req.Filters = append(req.Filters, r.filter())
		}
		resp, err := req.RequestWith(ctx, c.Client())
		if err != nil {
			return err
		}
		var refused []error
		for i, res := range resp.Results {
			if i >= len(part) {
				break
			}
			err := refusal(res.ErrorCode, res.ErrorMessage)
			for _, m := range res.MatchingACLs {
				err = errors.Join(err, refusal(m.ErrorCode, m.ErrorMessage))
			}
			if err != nil {
				refused = append(refused, fmt.Errorf("%v: %w", part[i], err))
			}
		}
		if err := firstOf(refused, len(part)); err != nil {
			return err
		}
	}
	return nil
}

// firstOf tells of many refusals the first and their number.
func firstOf(refused []error, of int) error {
	if len(refused) < 2 {
		return errors.Join(refused...)
	}
	return fmt.Errorf("%d of %d refused, the first: %w", len(refused), of, refused[0])
}

// settle waits until every broker shows the rules, or none of them. A broker
// answers from what its authorizer uses, which follows the controller by a moment.
func settle(ctx context.Context, c *cluster.Cluster, rules []Rule, stand bool) error {
	if len(rules) == 0 {
		return nil
	}
	for {
		behind, err := Behind(ctx, c, rules, stand)
		if err != nil || len(behind) == 0 {
			return err
		}
		if pause.For(ctx, showInterval) != nil {
			return fmt.Errorf("wait for the brokers to follow: %w: %s", context.Cause(ctx), strings.Join(behind, "; "))
		}
	}
}

// Behind asks every broker for the rules and says which brokers lack some (stand), or
// still have some (not stand), in words. A broker that cannot be asked is an error.
func Behind(ctx context.Context, c *cluster.Cluster, rules []Rule, stand bool) ([]string, error) {
	ids, err := brokers(ctx, c)
	if err != nil {
		return nil, err
	}
	var behind []string
	for _, id := range ids {
		acls, err := listACLsAt(ctx, c, id)
		if err != nil {
			return nil, err
		}
		shown := rulesOf(acls)
		wrong := slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return shown[r.key()] == stand })
		if len(wrong) == 0 {
			continue
		}
		what := "lacks"
		if !stand {
			what = "still has"
		}
		behind = append(behind, fmt.Sprintf("broker %d %s %d rules, the first: %v", id, what, len(wrong), wrong[0]))
	}
	return behind, nil
}

// A Drift is how the ACLs have moved away from a plan.
type Drift struct {
	New     []Rule `json:"new,omitempty"`     // a plan made now would have them: somebody may write who could not before
	Missing []Rule `json:"missing,omitempty"` // the plan has them and they do not stand
}

// Check lists the ACLs again and compares them with a plan that was applied.
func Check(ctx context.Context, c *cluster.Cluster, p Plan) (Drift, error) {
	if err := p.belongs(c); err != nil {
		return Drift{}, err
	}
	acls, err := listACLs(ctx, c)
	if err != nil {
		return Drift{}, fmt.Errorf("check fence of cluster %s: %w", p.Cluster, err)
	}
	now := Plan{Topics: p.Topics, Except: p.Except, Named: p.Named, Link: p.Link}
	now.fill(acls)
	planned := map[Rule]bool{}
	for _, r := range p.Rules {
		planned[r.key()] = true
	}
	var d Drift
	standing := rulesOf(acls)
	for _, r := range now.Rules {
		if !planned[r.key()] {
			d.New = append(d.New, r.key())
		}
	}
	for _, r := range p.Rules {
		if !standing[r.key()] {
			d.Missing = append(d.Missing, r)
		}
	}
	return d, nil
}
