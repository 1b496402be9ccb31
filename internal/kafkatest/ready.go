package kafkatest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

const pollInterval = 50 * time.Millisecond

// poll asks until there is no error, the context ends, or a wait is pointless
// because alive returns an error.
func poll(ctx context.Context, alive func() error, ask func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error // the answer to a question that was not cut off
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if dead := alive(); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), cmp.Or(last, err))
		case <-tick.C:
		}
	}
}

func waitListening(ctx context.Context, addr string, p *Process) error {
	alive := func() error {
		if p.Running() {
			return nil
		}
		return fmt.Errorf("%s ended (%s):\n%s", p.name, p.State(), p.Tail(50))
	}
	return poll(ctx, alive, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Ready waits until every broker belongs to the cluster and answers a client
// that logs in as AdminUser on its CLIENT listener.
func (c *Cluster) Ready(ctx context.Context) error {
	if err := c.waitMembers(ctx); err != nil {
		return err
	}
	var all errgroup.Group
	for _, b := range c.brokers {
		all.Go(func() error { return b.answers(ctx) })
	}
	return all.Wait()
}

// Ready waits until this broker answers a client that logs in as AdminUser and
// is among the members the cluster tells.
func (b *Broker) Ready(ctx context.Context) error {
	if err := b.answers(ctx); err != nil {
		return err
	}
	err := poll(ctx, b.ended, func(ctx context.Context) error {
		members, err := b.cluster.members(ctx)
		if err == nil && !members[b.id] {
			err = fmt.Errorf("broker %d is not among the brokers of the cluster", b.id)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for broker %d: %w", b.id, err)
	}
	return nil
}

func (b *Broker) answers(ctx context.Context) error {
	err := poll(ctx, b.ended, func(ctx context.Context) error {
		// A client of its own each time: a failed login is remembered by none.
		opts := append(b.cluster.ClientOpts(), kgo.SeedBrokers(b.Addr()), kgo.RequestRetries(0),
			kgo.RetryTimeout(5*time.Second), kgo.DialTimeout(2*time.Second))
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			return err
		}
		defer cl.Close()
		seed := cl.SeedBrokers()[0]
		if _, err := seed.Request(ctx, kmsg.NewPtrApiVersionsRequest()); err != nil {
			return err
		}
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, seed)
		if err != nil {
			return err
		}
		for _, node := range resp.Brokers {
			if int(node.NodeID) == b.id {
				return nil
			}
		}
		return fmt.Errorf("broker %d does not know itself yet", b.id)
	})
	if err != nil {
		return fmt.Errorf("wait for the client listener of broker %d: %w", b.id, err)
	}
	return nil
}

func (c *Cluster) waitMembers(ctx context.Context) error {
	alive := func() error {
		for _, b := range c.brokers {
			if err := b.ended(); err != nil {
				return err
			}
		}
		return nil
	}
	err := poll(ctx, alive, func(ctx context.Context) error {
		members, err := c.members(ctx)
		if err == nil && len(members) < len(c.brokers) {
			err = fmt.Errorf("%d of %d brokers belong to the cluster", len(members), len(c.brokers))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the brokers: %w", err)
	}
	return nil
}

// members are the node ids the cluster tells.
func (c *Cluster) members(ctx context.Context) (map[int]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // one try of many
	defer cancel()
	// Not through kadm: of brokers alone it tells what its client has cached.
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	m, err := req.RequestWith(ctx, c.adminClient)
	if err != nil {
		return nil, err
	}
	if m.ControllerID < 0 {
		return nil, errors.New("there is no controller yet")
	}
	if c.id == "" && m.ClusterID != nil { // ZooKeeper's choice
		c.id = *m.ClusterID
	}
	ids := map[int]bool{}
	for _, b := range m.Brokers {
		ids[int(b.NodeID)] = true
	}
	return ids, nil
}

func (c *Cluster) openAdmin() error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(c.InternalBootstrap()...),
		kgo.MetadataMinAge(10*time.Millisecond),
		kgo.DialTimeout(2*time.Second),
	)
	if err != nil {
		return fmt.Errorf("open the admin client: %w", err)
	}
	c.adminClient, c.admin = cl, kadm.NewClient(cl)
	return nil
}

// createScramUsers gives every user its SCRAM passwords. They live in the
// metadata of the cluster, so this works alike for all versions.
func (c *Cluster) createScramUsers(ctx context.Context) error {
	var upserts []kadm.UpsertSCRAM
	for _, m := range c.cfg.scram() {
		mechanism := kadm.ScramSha256
		if m == Scram512 {
			mechanism = kadm.ScramSha512
		}
		for _, u := range c.cfg.Users {
			upserts = append(upserts, kadm.UpsertSCRAM{User: u, Mechanism: mechanism, Iterations: 4096, Password: Password(u)})
		}
	}
	// One mechanism a request: some versions refuse a user named twice.
	for len(upserts) > 0 {
		n := len(c.cfg.Users)
		results, err := c.admin.AlterUserSCRAMs(ctx, nil, upserts[:n])
		if err == nil {
			err = results.Error()
		}
		if err != nil {
			return fmt.Errorf("create SCRAM users: %w", err)
		}
		upserts = upserts[n:]
	}
	return nil
}
