// Package config is the whole configuration of a daemon: one YAML file, with
// environment and flags above it.
//
// What it promises:
//
//   - Strict: a key it does not know, a value of another type, a variable that
//     is not set and settings that contradict each other are faults.
//   - All faults at once, each with its key, its value, the line or variable
//     it comes from and, where there is one, what was probably meant.
//   - A loaded configuration is complete (every default filled in, every name
//     derived) and free of secrets: it holds references to them.
//   - The defaults stand in one place, Default, DefaultLink and
//     cluster.DefaultConfig.
//
// The order is defaults, file, environment (REPLICATOR_...), flags; the later
// wins key by key, lists as a whole.
package config

import (
	"time"

	"replicator/pkg/cluster"
	"replicator/pkg/hooks"
	"replicator/pkg/mirrormaker"
)

// Config is the configuration of one daemon.
type Config struct {
	// Instance names this daemon in the journal and in status. Empty is the
	// host's name.
	Instance string                    `koanf:"instance"`
	Clusters map[string]cluster.Config `koanf:"clusters"`
	Links    []Link                    `koanf:"links"`
	Cutover  Cutover                   `koanf:"cutover"`
	HTTP     HTTP                      `koanf:"http"`
	Limits   Limits                    `koanf:"limits"`
	Log      Log                       `koanf:"log"`
}

// Link is one direction of copying.
type Link struct {
	// From and To are aliases of clusters.
	From string `koanf:"from"`
	To   string `koanf:"to"`
	// Name labels the link in metrics and names its journal, so it must stay
	// the same over the link's life. Load fills in "from->to".
	Name string `koanf:"name"`
	// Topics and TopicsExclude are regular expressions of whole names; a topic
	// is copied when one of the first and none of the second matches.
	Topics        []string `koanf:"topics"`
	TopicsExclude []string `koanf:"topics_exclude"`
	// Naming says what a topic is called on the target.
	Naming string `koanf:"naming" oneof:"identity prefix map"`
	// TopicPrefix goes before a name with naming prefix. Load fills in "from.".
	TopicPrefix string `koanf:"topic_prefix"`
	// TopicMap gives the target's name for the source's with naming map; a
	// topic that is not in it is not copied.
	TopicMap  map[string]string `koanf:"topic_map"`
	Isolation string            `koanf:"isolation" oneof:"read_committed read_uncommitted"`
	// ReplicationFactor of topics made on the target; -1 is its default.
	ReplicationFactor int    `koanf:"replication_factor"`
	Start             string `koanf:"start" oneof:"earliest latest"`
	OnGap             string `koanf:"on_gap" oneof:"continue halt"`
	OnTruncation      string `koanf:"on_truncation" oneof:"halt follow"`
	OnRecreate        string `koanf:"on_recreate" oneof:"halt restart"`
	// AppendToExisting lets a lane that the journal does not know append to a
	// target partition that already holds records.
	AppendToExisting bool `koanf:"append_to_existing"`
	// Compression of every batch on the target; those of another codec are
	// packed anew. Empty keeps the source's, and most batches unopened.
	Compression string `koanf:"compression" oneof:"none gzip snappy lz4 zstd" optional:"true"`
	// BatchBytes is the size small batches are merged up to.
	BatchBytes Bytes `koanf:"batch_bytes"`
	// RefreshInterval is how often topics and partitions are looked at.
	RefreshInterval time.Duration `koanf:"refresh_interval"`
	// SessionTimeout is how long a silent daemon keeps its lanes.
	SessionTimeout time.Duration `koanf:"session_timeout"`
	// Groups and GroupsExclude are regular expressions of whole names of the
	// source's groups whose offsets are translated.
	Groups        []string    `koanf:"groups"`
	GroupsExclude []string    `koanf:"groups_exclude"`
	Checkpoints   Checkpoints `koanf:"checkpoints"`
	Heartbeats    Heartbeats  `koanf:"heartbeats"`
	Verify        Verify      `koanf:"verify"`
	Sync          Sync        `koanf:"sync"`
	Journal       Journal     `koanf:"journal"`
}

// Checkpoints says how the groups' offsets come to the target.
type Checkpoints struct {
	// Follow is how commits are read: off its __consumer_offsets (tail), by
	// asking (poll), or the first where that may be read (auto).
	Follow string `koanf:"follow" oneof:"auto tail poll off"`
	// Interval is how often groups are asked for with poll, and how often
	// offsets are committed to the target's groups.
	Interval time.Duration `koanf:"interval"`
	// CommitGroups commits translated offsets to the target's groups that have
	// no active member.
	CommitGroups bool `koanf:"commit_groups"`
	// MirrorMaker writes MirrorMaker 2's checkpoints too, from.checkpoints.internal.
	MirrorMaker bool `koanf:"mirrormaker"`
	// Topic is where checkpoints are kept on the target. Load derives one from
	// the link's name: replicator.from.to.checkpoints.
	Topic string `koanf:"topic"`
	// ReplicationFactor of the topics when they are created; -1 is 3 where there
	// are three brokers, else the target's default.
	ReplicationFactor int `koanf:"replication_factor"`
}

// Heartbeats are MirrorMaker 2's: records in the topic heartbeats of the source,
// copied to from.heartbeats on the target.
type Heartbeats struct {
	// Enabled writes and copies them; the replicator writes nothing else to a source.
	Enabled  bool          `koanf:"enabled"`
	Interval time.Duration `koanf:"interval"`
}

// Verify says how much of what is copied the daemon reads again from both sides
// and compares.
type Verify struct {
	// Share of the bytes copied, from 0 (off) to 1 (all).
	Share float64 `koanf:"share"`
	// Rate bounds what is read for it from both sides together, per second.
	Rate Bytes `koanf:"rate"`
}

// Sync says what of the topics themselves is kept alike.
type Sync struct {
	// CreateTopics creates topics that the target lacks.
	CreateTopics bool `koanf:"create_topics"`
	// GrowPartitions adds partitions to the target when the source has more.
	GrowPartitions bool `koanf:"grow_partitions"`
	// TopicConfigs copies topic configuration, but for the keys that one of
	// TopicConfigsExclude (regular expressions of whole keys) matches.
	TopicConfigs        bool     `koanf:"topic_configs"`
	TopicConfigsExclude []string `koanf:"topic_configs_exclude"`
}

// Journal is the link's topic on the target that tells what its records are.
type Journal struct {
	// Topic is its name. Load derives one from the link's:
	// replicator.from.to.journal.
	Topic string `koanf:"topic"`
	// Partitions and ReplicationFactor hold when it is created; -1 is 3 where
	// there are three brokers, else the target's default.
	Partitions        int `koanf:"partitions"`
	ReplicationFactor int `koanf:"replication_factor"`
}

// TargetName is what a topic of the source is called on the target, "" for one
// that naming: map does not copy.
func (l *Link) TargetName(topic string) string {
	if l.Heartbeats.Enabled && topic == mirrormaker.HeartbeatsTopic {
		return mirrormaker.RemoteHeartbeats(l.From)
	}
	switch l.Naming {
	case "prefix":
		return l.TopicPrefix + topic
	case "map":
		return l.TopicMap[topic]
	}
	return topic
}

// Governed tells whether the authority record decides if the link may append: its
// topics have the same names on both sides, so that only one region can be written.
func (l *Link) Governed() bool { return l.Naming == "identity" }

// Reverse is the governed link of the other direction, nil if there is none.
func (c *Config) Reverse(l *Link) *Link {
	for i := range c.Links {
		r := &c.Links[i]
		if r.From == l.To && r.To == l.From && r.Governed() && l.Governed() {
			return r
		}
	}
	return nil
}

// Cutover says how the commands change the region that is authoritative. The
// daemon does not read it.
type Cutover struct {
	// LagLimit is how many records a partition may be behind for a planned switchover
	// to begin.
	LagLimit int `koanf:"lag_limit"`
	// ClockLimit is how far the clocks of regions and operator may be apart.
	ClockLimit time.Duration `koanf:"clock_limit"`
	// Writers is how applications are kept from writing in a planned switchover.
	Writers string `koanf:"writers" oneof:"acl hook stopped"`
	// Principals are the daemon's on each cluster, by alias: they go on when writers are
	// fenced, and lose WRITE on the region that was promoted.
	Principals map[string]string `koanf:"principals"`
	// Operators are the principals of whoever runs the commands: the rules spare them, on
	// both clusters, because the link back is prepared while they stand.
	Operators []string `koanf:"operators"`
	// Settle is how far apart the source's ends are read twice.
	Settle time.Duration `koanf:"settle"`
	// DrainTimeout is how long writers stay fenced for the link to come to the ends.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
	// GroupsTimeout is how long groups of the old region may go on committing.
	GroupsTimeout time.Duration `koanf:"groups_timeout"`
	// VerifyRecords of each partition are compared before the promotion.
	VerifyRecords int `koanf:"verify_records"`
	// Evidence is the directory for what runs leave behind.
	Evidence string       `koanf:"evidence"`
	Hooks    []hooks.Hook `koanf:"hooks"`
}

// HTTP is the listener of metrics, health and status.
type HTTP struct {
	// Listen is host:port; port 0 is any free one. Empty listens nowhere.
	Listen string `koanf:"listen"`
	// AllowedHosts are the host names requests may be for, beside IP addresses
	// of the listener: a web page of elsewhere cannot read the status.
	AllowedHosts []string `koanf:"allowed_hosts"`
	// TLS and Token are required to listen beyond loopback.
	TLS   HTTPTLS        `koanf:"tls"`
	Token cluster.Secret `koanf:"token"`
	// Pprof serves /debug/pprof.
	Pprof bool `koanf:"pprof"`
	// PartitionMetrics exports series per partition.
	PartitionMetrics bool `koanf:"partition_metrics"`
}

// HTTPTLS is the listener's certificate.
type HTTPTLS struct {
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
}

// Limits bound what the daemon uses.
type Limits struct {
	// Memory is the budget of all records between source and target.
	Memory Bytes `koanf:"memory"`
	// DecodedBatch is the largest size one compressed batch may grow to.
	DecodedBatch Bytes `koanf:"decoded_batch"`
}

// Log is the daemon's log, on standard error.
type Log struct {
	Level  string `koanf:"level" oneof:"debug info warn error"`
	Format string `koanf:"format" oneof:"json console"`
}

// Default is a configuration without clusters and links.
func Default() Config {
	return Config{
		Cutover: Cutover{
			LagLimit: 10_000, ClockLimit: 30 * time.Second, Writers: "acl", Settle: 2 * time.Second, DrainTimeout: time.Minute,
			GroupsTimeout: 30 * time.Second, VerifyRecords: 1000, Evidence: "evidence",
		},
		HTTP:   HTTP{Listen: "127.0.0.1:8475", AllowedHosts: []string{"localhost"}, PartitionMetrics: true},
		Limits: Limits{Memory: 64 << 20, DecodedBatch: 128 << 20},
		Log:    Log{Level: "info", Format: "json"},
	}
}

// DefaultHook is what a hook has that says nothing.
func DefaultHook() hooks.Hook { return hooks.Hook{When: hooks.After, Timeout: hooks.DefaultTimeout} }

// DefaultLink is what a link has that says nothing.
func DefaultLink() Link {
	return Link{
		Naming:            "identity",
		Isolation:         "read_committed",
		ReplicationFactor: -1,
		Start:             "earliest",
		OnGap:             "continue",
		OnTruncation:      "halt",
		OnRecreate:        "halt",
		BatchBytes:        256 << 10,
		RefreshInterval:   30 * time.Second,
		SessionTimeout:    10 * time.Second,
		Groups:            []string{".*"},
		// MirrorMaker 2's, and our own.
		GroupsExclude: []string{`console-consumer-.*`, `connect-.*`, `__.*`, `replicator\..*`},
		Checkpoints:   Checkpoints{Follow: "auto", Interval: 5 * time.Second, CommitGroups: true, MirrorMaker: true, ReplicationFactor: -1},
		Heartbeats:    Heartbeats{Interval: time.Second},
		Verify:        Verify{Rate: 20 << 20},
		Sync: Sync{
			CreateTopics:   true,
			GrowPartitions: true,
			TopicConfigs:   true,
			// What belongs to a cluster or to how we write, not to the data:
			// where replicas lie, throttles, placement, and the three that a
			// forwarded batch needs as the replicator sets them.
			TopicConfigsExclude: []string{
				`follower\.replication\.throttled\.replicas`,
				`leader\.replication\.throttled\.replicas`,
				`message\.timestamp\..*`,
				`message\.format\.version`,
				`min\.insync\.replicas`,
				`unclean\.leader\.election\.enable`,
				`remote\..*`,
				`confluent\..*`,
				`compression\.type`,
			},
		},
		Journal: Journal{Partitions: 16, ReplicationFactor: -1},
	}
}
