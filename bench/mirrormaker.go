package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// mirrorMakerConfig is the configuration of a MirrorMaker 2 that copies one
// topic of a pair to ALIAS.TOPIC, in its dedicated mode.
type mirrorMakerConfig struct {
	pair  *kafkatest.ClusterPair
	alias string // of the source
	topic string
	more  []string // "key = value"
}

// tuned are the settings that make MirrorMaker 2 fast: two tasks, compressed
// and large batches, large fetches, and sockets that the system sizes.
func tuned(alias string, codec workload.Codec) []string {
	return []string{
		"tasks.max = 2",
		"target.producer.compression.type = " + string(codec), "target.producer.batch.size = 262144", "target.producer.linger.ms = 20",
		alias + ".consumer.max.poll.records = 5000", alias + ".consumer.fetch.max.bytes = 52428800", alias + ".consumer.max.partition.fetch.bytes = 8388608",
		alias + ".consumer.receive.buffer.bytes = -1", "target.producer.send.buffer.bytes = -1",
	}
}

// flushOften has MirrorMaker 2 write its source offsets, and the offset syncs it
// held back, every 5 s instead of once a minute. Settings of its Connect worker
// count under the target's name only: without that they are ignored.
const flushOften = "target.offset.flush.interval.ms = 5000"

// eagerGroups let MirrorMaker 2 tell everything about groups a second after it
// knows it, instead of after 1 to 10 minutes.
func eagerGroups() []string {
	return []string{
		"emit.checkpoints.interval.seconds = 1", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1",
		"refresh.groups.interval.seconds = 1", flushOften, "offset-syncs.topic.location = target",
	}
}

// properties is the file's text. Beside what is asked for it says only what a
// cluster of one broker and a copy in one direction need.
func (c mirrorMakerConfig) properties() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("clusters = %s, target", c.alias)
	for alias, cluster := range map[string]*kafkatest.Cluster{c.alias: c.pair.Source, "target": c.pair.Target} {
		line("%s.bootstrap.servers = %s", alias, strings.Join(cluster.Bootstrap(), ","))
		if ca := cluster.CAFile(); ca != "" {
			line("%s.security.protocol = SSL", alias)
			line("%s.ssl.truststore.type = PEM", alias)
			line("%s.ssl.truststore.location = %s", alias, ca)
		}
	}
	line("%s->target.enabled = true", c.alias)
	line("%s->target.topics = %s", c.alias, c.topic)
	line("target->%s.enabled = false", c.alias)
	line("target->%s.emit.heartbeats.enabled = false", c.alias)
	for _, topic := range []string{"", "offset-syncs.topic.", "checkpoints.topic.", "heartbeats.topic.", "offset.storage.", "status.storage.", "config.storage."} {
		line("%sreplication.factor = 1", topic)
	}
	for _, l := range c.more {
		line("%s", l)
	}
	return b.String()
}

// startMirrorMaker starts a MirrorMaker 2 in a directory of its own, with the
// heap its own script gives it. The JVM has the serial collector, which takes
// less CPU than the script's.
func (l *lab) startMirrorMaker(dir, properties string) (*kafkatest.Process, error) {
	file := filepath.Join(dir, "mm2.properties")
	if err := os.WriteFile(file, []byte(properties), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	j := kafkatest.Java{Libs: l.libs, Main: "org.apache.kafka.connect.mirror.MirrorMaker", Args: []string{file}, Heap: "2g", FullJIT: true, Dir: dir}
	return j.Start(filepath.Join(dir, "mm2.log"))
}
