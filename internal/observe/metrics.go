package observe

import "github.com/prometheus/client_golang/prometheus"

// namespace begins the name of every series.
const namespace = "replicator_"

// kind is what a metric is to Prometheus.
type kind string

const (
	gauge     kind = "gauge"
	counter   kind = "counter"
	histogram kind = "histogram"
)

// metric is one family of series. The reference in docs/metrics.md is made from
// these.
type metric struct {
	name   string
	kind   kind
	help   string
	labels []string
	desc   *prometheus.Desc
}

// families are all metrics, in the order of the reference.
var families []*metric

func define(k kind, name, help string, labels ...string) *metric {
	m := &metric{name: namespace + name, kind: k, help: help, labels: labels}
	m.desc = prometheus.NewDesc(m.name, help, labels, nil)
	families = append(families, m)
	return m
}

// Of the process.
var (
	buildInfo   = define(gauge, "build_info", "Always 1; the labels say what is running.", "version", "revision", "go_version")
	startTime   = define(gauge, "start_time_seconds", "When the daemon was started, in seconds since 1970.")
	memoryUsed  = define(gauge, "memory_used_bytes", "Bytes of the data path's budget that frames hold now.")
	memoryLimit = define(gauge, "memory_limit_bytes", "Byte budget of the data path (limits.memory).")
	refusals    = define(counter, "boundary_refusals_total", "Connections not made because the address was outside the cluster's boundary.", "cluster")

	authorityEpoch  = define(gauge, "authority_epoch", "Epoch of the authoritative region, the highest of the copies watched; 0 if none was ever set.", "pair")
	authorityRegion = define(gauge, "authority_region", "1 for the region that is authoritative, 0 for the other.", "pair", "region")
	authorityAge    = define(gauge, "authority_age_seconds", "Time since the cluster's copy of the authority was last seen to say what is known of it.", "pair", "cluster")
	drillTime       = define(gauge, "drill_last_timestamp_seconds", "When the last rehearsal of a switchover ended, in seconds since 1970, by the copies watched.", "pair")
	drillSuccess    = define(gauge, "drill_last_success", "1 if the last rehearsal of a switchover passed every gate and check, else 0.", "pair")
)

// Of a link.
var (
	linkInfo        = define(gauge, "link_info", "Always 1; the labels name the clusters of the link.", "link", "source", "target", "source_cluster_id", "target_cluster_id")
	linkState       = define(gauge, "link_state", "1 for the state the link is in, 0 for the others. Silent: its loop does not answer.", "link", "state")
	linkReady       = define(gauge, "link_ready", "1 if lanes are assigned and copying and none is halted, or the link is closed.", "link")
	lanes           = define(gauge, "lanes", "Lanes of this daemon by state.", "link", "state")
	lagRecords      = define(gauge, "lag_records", "Records the source has and the target lacks: the sum over the lanes whose lag is known.", "link")
	lagSeconds      = define(gauge, "lag_seconds", "Time since the oldest record not yet on the target was appended to the source: the largest of all lanes whose lag is known.", "link")
	lagUnknown      = define(gauge, "lag_unknown_lanes", "Lanes whose lag is not known, and which the lag of the link leaves out.", "link")
	latency         = define(histogram, "replication_latency_seconds", "Time from the append on the source to the acknowledgement by the target, by batch.", "link")
	batches         = define(counter, "batches_total", "Source batches by the route they took, why, and their codec.", "link", "route", "reason", "codec")
	records         = define(counter, "records_total", "Records of source batches by the route they took, why, and their codec.", "link", "route", "reason", "codec")
	bytesRouted     = define(counter, "bytes_total", "Bytes of source batches, as they lie on the source, by the route they took, why, and their codec.", "link", "route", "reason", "codec")
	networkBytes    = define(counter, "network_bytes_total", "Bytes over data connections: source_read is read from source brokers, target_write written to target brokers.", "link", "path")
	throttleSeconds = define(counter, "throttle_seconds_total", "Time brokers asked data connections to wait because of quotas.", "link", "side")
	inFlightBytes   = define(gauge, "in_flight_bytes", "Bytes sent to the target and not yet answered.", "link")
	openings        = define(counter, "openings_total", "Times a lane was opened: an epoch taken and earlier holders fenced.", "link")
	journalAge      = define(gauge, "journal_age_seconds", "Time since the newest position in the journal was acknowledged; it grows while nothing is copied.", "link")
	events          = define(counter, "events_total", "Events an operator should know of, by kind.", "link", "kind")
	failures        = define(counter, "errors_total", "Errors that were followed by another try, by class.", "link", "class")
	mapBytes        = define(gauge, "map_bytes", "Memory the offset maps of the lanes take.", "link")
	warnings        = define(gauge, "target_warnings", "Things the target grants less of than it should; status says which.", "link")
)

// Of the fence of a link that is closed because the other region is authoritative.
var (
	guardLanes   = define(gauge, "guard_lanes", "Lanes whose fence is kept while the link is closed; no series while it is not.", "link")
	guardFenced  = define(gauge, "guard_fenced_lanes", "Lanes whose epoch this daemon has taken since the link was closed.", "link")
	guardRenewed = define(counter, "guard_renewals_total", "Epochs taken since the link was closed, so that the target's brokers do not forget the fence.", "link")
	guardAge     = define(gauge, "guard_age_seconds", "Time since an epoch was taken last.", "link")
	guardEvery   = define(gauge, "guard_interval_seconds", "How often the epoch of each lane is taken again: a quarter of the time brokers of the target remember a fence, at most six hours.", "link")
	guardAssumed = define(gauge, "guard_assumed", "1 while some broker of the target has not told for how long it remembers a fence, and may forget it sooner.", "link")
	guardFailing = define(gauge, "guard_failing", "1 while the fence of some lane cannot be renewed.", "link")
)

// Of the heartbeats of a link, where heartbeats.enabled is true.
var (
	heartbeats      = define(counter, "heartbeats_total", "Heartbeats this daemon wrote to the source.", "link")
	heartbeatErrors = define(counter, "heartbeat_errors_total", "Heartbeats that could not be written to the source; the next is tried an interval later.", "link")
	heartbeatAge    = define(gauge, "heartbeat_age_seconds", "Time since the newest heartbeat was acknowledged by the source.", "link")
)

// Of the comparing of a link's two sides, where verify.share is above 0.
var (
	verifyRecords     = define(counter, "verify_records_total", "Copied records this daemon has read again from both sides and compared.", "link")
	verifyBytes       = define(counter, "verify_bytes_total", "Bytes read from both sides for that.", "link")
	verifyDifferences = define(counter, "verify_differences_total", "Records that differ between source and target: changed, missing, extra or out of order.", "link")
	verifyFailures    = define(counter, "verify_failures_total", "Ranges of records that could not be compared.", "link")
	verifyLag         = define(gauge, "verify_lag_seconds", "Time since all that was copied until then had been looked at, as far as the share goes.", "link")
	verifyPosition    = define(gauge, "verify_position_timestamp_seconds", "When that was, in seconds since 1970.", "link")
)

// Of the groups of a link, for the lanes of this daemon.
var (
	checkpointMode    = define(gauge, "checkpoint_mode", "1 for the way commits on the source are followed, 0 for the others.", "link", "mode")
	checkpointCurrent = define(gauge, "checkpoint_current_age_seconds", "Time since all commits of the source's groups were known: how old a checkpoint can be.", "link")
	checkpointLatency = define(histogram, "checkpoint_latency_seconds", "Time from a commit on the source to the acknowledgement of its checkpoint by the target; with mode poll from when the commit was seen.", "link")
	checkpointsDone   = define(counter, "checkpoints_written_total", "Checkpoints written to the target.", "link")
	offsetsPlaced     = define(counter, "offsets_placed_total", "Offsets committed to groups of the target.", "link")
	checkpointErrors  = define(counter, "checkpoint_errors_total", "Errors of following, writing or placing that were followed by another try, by class.", "link", "class")
	groupPartitions   = define(gauge, "group_partitions", "Partitions the group has committed to, by what its offset is on the target.", "link", "group", "outcome")
	groupBehind       = define(gauge, "group_behind_offsets", "Source offsets between what the group committed and the source's end.", "link", "group")
	groupMissing      = define(gauge, "group_missing_offsets", "Source offsets the group has read and the target lacks.", "link", "group")
	groupDelay        = define(gauge, "group_checkpoint_delay_seconds", "Age of the group's oldest commit that has no checkpoint yet; 0 when all have.", "link", "group")
	groupPlaced       = define(gauge, "group_placed_partitions", "Partitions whose translated offset the target's group has.", "link", "group")
	groupNotPlaced    = define(gauge, "group_not_placed_partitions", "Partitions whose offset the target's group has not got, by reason.", "link", "group", "reason")
)

// Of a topic. Sums over the lanes of this daemon.
var (
	topicLanes      = define(gauge, "topic_lanes", "Lanes of the topic by state; states without a lane are left out.", "link", "topic", "state")
	topicLagRecords = define(gauge, "topic_lag_records", "Lag in records of the topic: the sum over the lanes whose lag is known.", "link", "topic")
	topicLagSeconds = define(gauge, "topic_lag_seconds", "Lag in seconds of the topic: the largest of the lanes whose lag is known.", "link", "topic")
)

// Of a partition (http.partition_metrics). Topic and partition are the source's.
var (
	partitionState       = define(gauge, "partition_state", "1 for the state the lane is in; the other states have no series.", "link", "topic", "partition", "state")
	partitionLagRecords  = define(gauge, "partition_lag_records", "Source end minus position: at most this many records are missing on the target.", "link", "topic", "partition")
	partitionLagSeconds  = define(gauge, "partition_lag_seconds", "Time since the oldest record not yet on the target was appended to the source.", "link", "topic", "partition")
	partitionPosition    = define(gauge, "partition_position", "Next source offset to copy: all below it is on the target and acknowledged, or accounted for.", "link", "topic", "partition")
	partitionSourceEnd   = define(gauge, "partition_source_end", "High watermark of the source partition: the next offset to be written.", "link", "topic", "partition")
	partitionSourceLSO   = define(gauge, "partition_source_stable", "Last stable offset of the source partition: the first one of an open transaction, else its end.", "link", "topic", "partition")
	partitionSourceStart = define(gauge, "partition_source_start", "First offset the source partition still has.", "link", "topic", "partition")
	partitionOrdinal     = define(gauge, "partition_ordinal", "Records the lane has appended in all, since it was first copied.", "link", "topic", "partition")
	partitionMapBytes    = define(gauge, "partition_map_bytes", "Memory the offset map of the lane takes.", "link", "topic", "partition")
	partitionTargetEnd   = define(gauge, "partition_target_end", "Target offset of the lane's next record.", "link", "topic", "partition")
	partitionRecords     = define(counter, "partition_records_total", "Records appended to the target by this daemon since it got the lane.", "link", "topic", "partition")
	partitionBytes       = define(counter, "partition_bytes_total", "Bytes of record batches appended to the target by this daemon since it got the lane.", "link", "topic", "partition")
	partitionOpenings    = define(counter, "partition_openings_total", "Times this daemon opened the lane since it got it.", "link", "topic", "partition")
)

// linkStates and eventKinds are what a link's state and an event's kind can be:
// a series that begins at 0 shows its first increase.
var (
	checkpointModes = []string{"starting", "tail", "poll"}
	linkStates      = []string{"starting", "copying", "degraded", "closed", "stopping", string(Silent)}
	eventKinds      = []string{
		"gap", "truncation", "recreated", "deleted", "grown", "topic_created", "cut",
		"foreign_writer", "fenced", "refused", "halted", "closed", "hanging", "target_topic", "difference",
	}
)
