package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Remembered is for how long the brokers of a link's target remember a producer, and so
// a fence that nobody renews.
type Remembered struct {
	For time.Duration // the least of all brokers, from a producer's last batch on
	// Assumed says why For is taken on trust: not all brokers said it. Empty: they did.
	Assumed string
}

const (
	// assumedRemembered is what a broker that does not tell counts for, a twenty-fourth of
	// the default: no answer may mean less than the default. Renewals at a quarter of it use
	// up the 32,767 epochs of a producer id in 341 days.
	assumedRemembered = time.Hour
	// rememberedTime bounds the asking: a broker that hangs must not keep renewals waiting.
	rememberedTime = 5 * time.Second
)

// The settings that say it. Brokers before 3.4 have the second one alone.
const (
	producerExpiration      = "producer.id.expiration.ms"
	transactionalExpiration = "transactional.id.expiration.ms"
)

// remembered asks every broker of the target. One that does not say counts as
// assumedRemembered.
func (op *opener) remembered(ctx context.Context) Remembered {
	ctx, cancel := context.WithTimeout(ctx, rememberedTime)
	defer cancel()
	assumed := func(who string, err error) Remembered {
		return Remembered{For: assumedRemembered, Assumed: fmt.Sprintf("%s not told for how long a fence is remembered, taken for %v at most: %v", who, assumedRemembered,
			right(err, "DESCRIBE_CONFIGS", "the cluster resource", op.opts.To))}
	}
	brokers, err := op.target.Admin().ListBrokers(ctx)
	if err == nil && len(brokers) == 0 {
		err = errors.New("no broker is listed")
	}
	if err != nil {
		return assumed(op.opts.To+" has", fmt.Errorf("list brokers: %w", err))
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, b := range brokers {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(b.NodeID))
		r.ConfigNames = []string{producerExpiration, transactionalExpiration}
		req.Resources = append(req.Resources, r)
	}
	var least time.Duration
	var why error
	silent := 0
	for _, shard := range op.target.Client().RequestSharded(ctx, req) { // each broker answers for itself
		said, err := rememberedBy(shard.Resp, shard.Err)
		switch {
		case err != nil:
			silent++
			why = err
		case least == 0 || said < least:
			least = said
		}
	}
	if silent == 0 {
		return Remembered{For: least}
	}
	out := assumed(fmt.Sprintf("%d of %d brokers of %s have", silent, len(brokers), op.opts.To), why)
	if least > 0 {
		out.For = min(out.For, least)
	}
	return out
}

// rememberedBy reads one broker's answer.
func rememberedBy(resp kmsg.Response, err error) (time.Duration, error) {
	if err != nil {
		return 0, err
	}
	said := map[string]time.Duration{}
	for _, r := range resp.(*kmsg.DescribeConfigsResponse).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return 0, err
		}
		for _, c := range r.Configs {
			if c.Value == nil {
				continue
			}
			if ms, err := strconv.ParseInt(*c.Value, 10, 64); err == nil && ms > 0 {
				said[c.Name] = time.Duration(ms) * time.Millisecond
			}
		}
	}
	for _, name := range []string{producerExpiration, transactionalExpiration} {
		if d, ok := said[name]; ok {
			return d, nil
		}
	}
	return 0, fmt.Errorf("the answer has no %s", producerExpiration)
}
