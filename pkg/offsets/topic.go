package offsets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/newtopic"
	"replicator/internal/pause"
)

// topicFacts is what the journal's topic was when it was opened.
type topicFacts struct {
	id         [16]byte
	partitions int
	warnings   []string
}

// leader of a journal partition, as the newest metadata has it.
type leader struct {
	broker int32
	epoch  int32
}

// errStale is an answer of a broker that does not know the newest state of the cluster.
var errStale = errors.New("cluster's metadata is not settled")

// topicSettings are what a new journal topic gets. The later a setting in the list, the sooner
// it is left out for a cluster that does not take it.
var topicSettings = []newtopic.Setting{
	{Name: "cleanup.policy", Value: "compact"},
	{Name: newtopic.MinInSync, Value: "2"},
	{Name: "compression.type", Value: "producer"},
	{Name: "segment.bytes", Value: strconv.Itoa(64 << 20)}, // compaction leaves the last segment alone, and a reader reads it all
	{Name: "unclean.leader.election.enable", Value: "false"},
}

// ensureTopic creates the journal's topic if it is missing and may be created, and checks what it is.
func ensureTopic(ctx context.Context, cfg JournalConfig) (topicFacts, error) {
	brokers, err := cfg.Admin.ListBrokers(ctx)
	if err != nil {
		return topicFacts{}, fmt.Errorf("open journal %s: list brokers: %w", cfg.Topic, err)
	}
	created := false
	for {
		topics, err := cfg.Admin.ListTopicsWithInternal(ctx, cfg.Topic)
		if err != nil {
			return topicFacts{}, fmt.Errorf("open journal %s: describe topic: %w", cfg.Topic, right(err, cfg.rights(), cfg.Topic))
		}
		t := topics[cfg.Topic]
		switch {
		case errors.Is(t.Err, kerr.UnknownTopicOrPartition) && cfg.ReadOnly:
			return topicFacts{}, &TopicError{Topic: cfg.Topic, Reason: "does not exist: no link of this name has copied to this cluster, or journal.topic is another"}
		case errors.Is(t.Err, kerr.UnknownTopicOrPartition) && !created:
			if err := createTopic(ctx, cfg); err != nil {
				return topicFacts{}, fmt.Errorf("create journal %s: %w", cfg.Topic, err)
			}
			created = true
			continue
		case t.Err != nil && !kerr.IsRetriable(t.Err):
			return topicFacts{}, fmt.Errorf("open journal %s: describe topic: %w", cfg.Topic, right(t.Err, cfg.rights(), cfg.Topic))
		case t.Err == nil && settled(t):
			facts := topicFacts{id: t.ID, partitions: len(t.Partitions)}
			facts.warnings, err = checkTopic(ctx, cfg, t, len(brokers))
			return facts, err
		}
		if pause.For(ctx, retryAfter) != nil {
			return topicFacts{}, fmt.Errorf("open journal %s: wait for the topic's leaders: %w", cfg.Topic, ctx.Err())
		}
	}
}

// rights are the operations on the topic that the journal needs.
func (cfg JournalConfig) rights() string {
	if cfg.ReadOnly {
		return "READ"
	}
	return "READ and WRITE"
}

// settled tells whether every partition, numbered from 0 on, has a leader.
func settled(t kadm.TopicDetail) bool {
	for p := range int32(len(t.Partitions)) {
		d, ok := t.Partitions[p]
		if !ok || d.Err != nil && !errors.Is(d.Err, kerr.ReplicaNotAvailable) || d.Leader < 0 {
			return false
		}
	}
	return len(t.Partitions) > 0
}

func createTopic(ctx context.Context, cfg JournalConfig) error {
	t := newtopic.Topic{Name: cfg.Topic, Partitions: cfg.Partitions, Replicas: cfg.ReplicationFactor, Settings: topicSettings}
	return right(newtopic.Create(ctx, cfg.Admin, t), "CREATE", cfg.Topic)
}

// checkTopic returns what is less safe than it could be, and an error for what cannot work.
func checkTopic(ctx context.Context, cfg JournalConfig, t kadm.TopicDetail, brokers int) (warnings []string, err error) {
	replicas := len(t.Partitions[0].Replicas)
	for _, p := range t.Partitions {
		replicas = min(replicas, len(p.Replicas))
	}
	if replicas < min(brokers, 3) {
		warnings = append(warnings, fmt.Sprintf("replication factor is %d with %d brokers, should be %d", replicas, brokers, min(brokers, 3)))
	}
	configs, err := cfg.Admin.DescribeTopicConfigs(ctx, cfg.Topic)
	var settings kadm.ResourceConfig
	if err == nil {
		settings, err = configs.On(cfg.Topic, nil)
	}
	if err == nil {
		err = settings.Err
	}
	if err != nil {
		return append(warnings, fmt.Sprintf("settings could not be read, so it is not known whether it is compacted: %v", right(err, "DESCRIBE_CONFIGS", cfg.Topic))), nil
	}
	value := func(name string) (string, bool) {
		for _, c := range settings.Configs {
			if c.Key == name && c.Value != nil {
				return *c.Value, true
			}
		}
		return "", false
	}
	policy, ok := value("cleanup.policy")
	if policies := strings.Split(policy, ","); ok && (len(policies) != 1 || strings.TrimSpace(policies[0]) != "compact") {
		return nil, &TopicError{Topic: cfg.Topic, Reason: fmt.Sprintf(
			"cleanup.policy is %q and would delete facts that are still needed; set it to compact, and if records may have been deleted already, start from a new journal", policy)}
	}
	if v, ok := value("min.insync.replicas"); ok && replicas >= 3 {
		if n, err := strconv.Atoi(v); err == nil && n < 2 {
			warnings = append(warnings, fmt.Sprintf("min.insync.replicas is %d with %d replicas, should be 2: one broker's disk may hold the only copy of an acknowledged entry", n, replicas))
		}
	}
	if v, _ := value("unclean.leader.election.enable"); v == "true" {
		warnings = append(warnings, "unclean.leader.election.enable is true: an election may drop acknowledged entries")
	}
	return warnings, nil
}

// leaders asks a broker for the topic as it is now. That it is gone, or another one, or has
// another number of partitions, ends the journal.
func (j *Journal) leaders(ctx context.Context) ([]leader, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(j.cfg.Topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, j.client)
	if err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("read metadata: %d topics in the answer", len(resp.Topics))
	}
	now := resp.Topics[0]
	if err := j.sameTopic(now); err != nil {
		return nil, err
	}
	leaders := make([]leader, len(j.next))
	for i := range leaders {
		leaders[i].broker = -1
	}
	for _, p := range now.Partitions {
		if int(p.Partition) < len(leaders) {
			leaders[p.Partition] = leader{broker: p.Leader, epoch: p.LeaderEpoch}
		}
	}
	if i := slices.IndexFunc(leaders, func(l leader) bool { return l.broker < 0 }); i >= 0 && len(now.Partitions) < len(leaders) {
		return nil, fmt.Errorf("read metadata: partition %d: %w", i, errStale)
	}
	return leaders, nil
}

func (j *Journal) sameTopic(now kmsg.MetadataResponseTopic) error {
	err := kerr.ErrorForCode(now.ErrorCode)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.missing.IsZero() {
			j.missing = time.Now()
		}
		if time.Since(j.missing) >= goneAfter {
			j.failLocked(&TopicError{Topic: j.cfg.Topic, Reason: "the topic was deleted while it was in use"})
		}
		return err
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.missing = time.Time{}
	var gone *TopicError
	switch none := [16]byte{}; {
	case now.TopicID != j.topic.id && now.TopicID != none && j.topic.id != none:
		gone = &TopicError{Topic: j.cfg.Topic, Reason: "the topic was deleted and made anew while it was in use"}
	case len(now.Partitions) > len(j.next):
		gone = &TopicError{Topic: j.cfg.Topic, Reason: fmt.Sprintf(
			"the number of partitions was changed from %d to %d while it was in use; lanes are no longer where they are looked for", len(j.next), len(now.Partitions))}
	default:
		return nil
	}
	j.failLocked(gone)
	return gone
}

// listEnds asks the leaders for the ends of partitions. An end below what was already read means
// that the journal was cut.
func (j *Journal) listEnds(ctx context.Context, partitions []int32, ends map[int32]int64) error {
	leaders, err := j.leaders(ctx)
	if err != nil {
		return err
	}
	byBroker := map[int32][]kmsg.ListOffsetsRequestTopicPartition{}
	read := make(map[int32]int64, len(partitions)) // before the question, so that no end can be older
	j.mu.Lock()
	for _, p := range partitions {
		read[p] = j.next[p]
	}
	j.mu.Unlock()
	for _, p := range partitions {
		l := leaders[p]
		if l.broker < 0 {
			return fmt.Errorf("list end offset of partition %d: %w", p, kerr.LeaderNotAvailable)
		}
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p, -1
		// With the epoch a leader that was replaced and does not know it refuses to answer.
		rp.CurrentLeaderEpoch = l.epoch
		byBroker[l.broker] = append(byBroker[l.broker], rp)
	}
	answers := make(chan error, len(byBroker))
	found := make(chan kmsg.ListOffsetsResponseTopicPartition, len(partitions))
	for broker, parts := range byBroker {
		go func() { answers <- j.listFrom(ctx, broker, parts, found) }()
	}
	for range byBroker {
		err = errors.Join(err, <-answers)
	}
	if err != nil {
		return err
	}
	close(found)
	for p := range found {
		if p.Offset < read[p.Partition] {
			lost := &TopicError{Topic: j.cfg.Topic, Reason: fmt.Sprintf(
				"partition %d ends at offset %d and was read to %d: acknowledged entries are lost", p.Partition, p.Offset, read[p.Partition])}
			j.fail(lost)
			return lost
		}
		ends[p.Partition] = p.Offset
	}
	if len(ends) < len(partitions) {
		return fmt.Errorf("list end offsets: %d of %d partitions answered: %w", len(ends), len(partitions), errStale)
	}
	return nil
}

// listFrom asks one broker and hands on what it found, each partition at most once.
func (j *Journal) listFrom(ctx context.Context, broker int32, parts []kmsg.ListOffsetsRequestTopicPartition, found chan<- kmsg.ListOffsetsResponseTopicPartition) error {
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = j.cfg.Topic, parts
	req.Topics = append(req.Topics, t)
	resp, err := j.client.Broker(int(broker)).RetriableRequest(ctx, req)
	if err != nil {
		return fmt.Errorf("list end offsets on broker %d: %w", broker, err)
	}
	asked := make(map[int32]bool, len(parts))
	for _, p := range parts {
		asked[p.Partition] = true
	}
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("list end offset of partition %d on broker %d: %w", p.Partition, broker, err)
			}
			if asked[p.Partition] {
				asked[p.Partition] = false
				found <- p
			}
		}
	}
	return nil
}
