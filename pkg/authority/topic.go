package authority

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"replicator/internal/newtopic"
)

// settleTime is how long a topic may take to be found, and the leaders of one just made to
// know it.
const settleTime = 30 * time.Second

// The later a setting in a list, the sooner it is left out for a cluster that does
// not take it.
var (
	authoritySettings = []newtopic.Setting{
		{Name: "cleanup.policy", Value: "compact"},
		{Name: newtopic.MinInSync, Value: "2"},
		{Name: "unclean.leader.election.enable", Value: "false"},
	}
	auditSettings = []newtopic.Setting{
		{Name: "cleanup.policy", Value: "delete"},
		{Name: retentionMs, Value: strconv.FormatInt(AuditRetention.Milliseconds(), 10)},
		{Name: retentionBytes, Value: "-1"},
		{Name: newtopic.MinInSync, Value: "2"},
		{Name: "unclean.leader.election.enable", Value: "false"},
		// A command with a wrong clock must not have its events removed early, nor kept for ever.
		{Name: "message.timestamp.type", Value: "LogAppendTime"},
	}
)

const (
	retentionMs    = "retention.ms"
	retentionBytes = "retention.bytes"
)

// How long the audit topic keeps events: as it is made here, and what it has to keep
// them at least, for a run that was left unfinished has to be taken up by its events.
const (
	AuditRetention    = 365 * 24 * time.Hour
	MinAuditRetention = 30 * 24 * time.Hour
)

// ensure creates a topic if it is missing, and refuses one that would lose what is
// written to it. What it may not ask of its settings it lets pass.
func ensure(ctx context.Context, cfg Config, topic string, settings []newtopic.Setting) error {
	alias := cfg.Cluster.Alias()
	l := &log{cfg.Cluster.Client(), alias, topic}
	finding, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	err := insist(finding, func() error {
		_, err := l.locate(finding)
		return err
	})
	switch {
	case errors.Is(err, errMissing):
		t := newtopic.Topic{Name: topic, Partitions: 1, Replicas: cfg.ReplicationFactor, Settings: settings}
		if err := newtopic.Create(ctx, cfg.Cluster.Admin(), t); err != nil {
			return fmt.Errorf("create topic %s on cluster %s: %w", topic, alias, right(err, "CREATE", "topic "+topic, alias))
		}
		if err := l.settle(ctx); err != nil {
			return fmt.Errorf("create topic %s on cluster %s: %w", topic, alias, err)
		}
	case err != nil:
		return fmt.Errorf("use topic %s of cluster %s: %w", topic, alias, err)
	}
	return checkSettings(ctx, cfg, topic, settings[0].Value)
}

// settle waits until the leader of a topic that was just made knows it.
func (l *log) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return insist(ctx, func() error {
		at, err := l.locate(ctx)
		if errors.Is(err, errMissing) {
			return fmt.Errorf("%w: %w", err, kerr.UnknownTopicOrPartition)
		}
		if err == nil {
			_, err = l.list(ctx, at, atStart)
		}
		return err
	})
}

// checkSettings refuses a topic with another cleanup policy than it needs, or with
// a retention that ends too soon.
func checkSettings(ctx context.Context, cfg Config, topic, policy string) error {
	for name, value := range settingsOf(ctx, cfg, topic) {
		n, err := strconv.ParseInt(value, 10, 64)
		fail := func(fix string) error {
			return fmt.Errorf("use topic %s of cluster %s: %s is %q and would lose records; %s", topic, cfg.Cluster.Alias(), name, value, fix)
		}
		switch {
		case name == "cleanup.policy" && value != policy:
			return fail("set it to " + policy)
		case policy == "delete" && name == retentionBytes && err == nil && n >= 0:
			return fail("set it to -1")
		case policy == "delete" && name == retentionMs && err == nil && n >= 0 && n < MinAuditRetention.Milliseconds():
			return fail(fmt.Sprintf("set it to -1, which is for ever, or to %d (30 days) at least", MinAuditRetention.Milliseconds()))
		}
	}
	return nil
}

// settingsOf are a topic's settings; none where they may not be asked.
func settingsOf(ctx context.Context, cfg Config, topic string) map[string]string {
	described, err := cfg.Cluster.Admin().DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil
	}
	on, err := described.On(topic, nil)
	if err != nil || on.Err != nil {
		return nil
	}
	out := map[string]string{}
	for _, s := range on.Configs {
		if s.Value != nil {
			out[s.Key] = strings.TrimSpace(*s.Value)
		}
	}
	return out
}
