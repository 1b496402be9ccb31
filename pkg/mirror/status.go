package mirror

import (
	"time"

	"replicator/internal/stats"
)

// LinkState says in one word how a link is.
type LinkState string

// States of a link.
const (
	LinkStarting LinkState = "starting" // the topics or the assignment are not known yet
	LinkCopying  LinkState = "copying"  // every lane that is ours is copying, or has nothing to copy
	LinkDegraded LinkState = "degraded" // some lanes are opening, waiting or halted
	LinkClosed   LinkState = "closed"   // the other region is authoritative: nothing is appended, the fence is kept
	LinkStopping LinkState = "stopping" // a clean stop is under way
)

// LaneState says in one word how a lane is.
type LaneState string

// States of a lane.
const (
	LaneWaiting  LaneState = "waiting"  // something it needs is missing: a leader, a connection, the target topic
	LaneOpening  LaneState = "opening"  // taking its epoch, fencing, reading where the target ends
	LaneCopying  LaneState = "copying"  // open: appends whatever the source has
	LaneDraining LaneState = "draining" // appends nothing new, waits for its answers
	LaneHalted   LaneState = "halted"   // stopped by a fault that a person has to look at
	LaneClosed   LaneState = "closed"   // the authority does not allow the link to append
)

// LaneStates lists all states, the worst first: the order of tables.
var LaneStates = []LaneState{LaneHalted, LaneWaiting, LaneOpening, LaneDraining, LaneClosed, LaneCopying}

// LinkStatus is one direction of a pair as this daemon sees it: only the lanes
// assigned to this daemon are in it.
type LinkStatus struct {
	Name       string            `json:"name"` // "east->west"
	Source     string            `json:"source"`
	Target     string            `json:"target"`
	SourceID   string            `json:"source_cluster_id"`
	TargetID   string            `json:"target_cluster_id"`
	State      LinkState         `json:"state"`
	Ready      bool              `json:"ready"`            // lanes assigned, target writable; or closed
	Reason     string            `json:"reason,omitempty"` // why it is not ready, or degraded
	LaneStates map[LaneState]int `json:"lane_states"`
	// LagRecords is the sum over the lanes whose lag is known; LagSeconds is the
	// largest one. Absent: no lane knows its lag.
	LagRecords *int64       `json:"lag_records,omitempty"`
	LagSeconds *float64     `json:"lag_seconds,omitempty"`
	Lanes      []LaneStatus `json:"lanes"`
	Routes     []RouteCount `json:"routes"`
	Events     []Event      `json:"events"` // the newest last, at most 100
	// EventCounts and Errors count since the start of the daemon.
	EventCounts    map[string]int64 `json:"event_counts"`
	Errors         map[string]int64 `json:"errors"` // by class
	Openings       int64            `json:"openings"`
	Latency        stats.Histogram  `json:"latency_seconds"` // source append to target acknowledgement, by batch
	InFlightBytes  int64            `json:"in_flight_bytes"` // sent to the target, not yet answered
	SourceBytes    int64            `json:"source_bytes"`    // read from source brokers by data connections
	TargetBytes    int64            `json:"target_bytes"`    // written to target brokers by data connections
	ThrottleSource float64          `json:"throttle_source_seconds"`
	ThrottleTarget float64          `json:"throttle_target_seconds"`
	// JournalAge is the time since the journal's newest position was acknowledged.
	JournalAge *float64 `json:"journal_age_seconds,omitempty"`
	Warnings   []string `json:"warnings,omitempty"` // what the target grants less than it should
	// AuthorityEpoch is that of the pair's authority record as the target has it, 0:
	// none was ever written. Absent: the link is not governed, or it is not known.
	AuthorityEpoch *int64       `json:"authority_epoch,omitempty"`
	Guard          *GuardStatus `json:"guard,omitempty"` // of a closed link
}

// LaneStatus is one lane. Offsets are next offsets.
type LaneStatus struct {
	Topic       string    `json:"topic"` // on the source
	Partition   int32     `json:"partition"`
	TargetTopic string    `json:"target_topic"`
	State       LaneState `json:"state"`
	Reason      string    `json:"reason,omitempty"`
	// Position is the next source offset to append: all below it is on the target
	// and acknowledged, or accounted for. -1 while unknown.
	Position int64 `json:"position"`
	// SourceEnd is the source's high watermark, SourceStable its last stable
	// offset, SourceStart its log start. -1 while unknown.
	SourceEnd    int64 `json:"source_end"`
	SourceStable int64 `json:"source_stable"`
	SourceStart  int64 `json:"source_start"`
	// LagRecords is SourceEnd - Position, an upper bound of the records missing on
	// the target; LagSeconds the time since the oldest of them was appended to the
	// source. Absent while unknown.
	LagRecords *int64   `json:"lag_records,omitempty"`
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	// Ordinal is how many records the lane has appended in all, TargetEnd the
	// target offset of the next one. -1 while unknown.
	Ordinal       int64 `json:"ordinal"`
	TargetEnd     int64 `json:"target_end"`
	MapBytes      int64 `json:"map_bytes"` // memory its offset map takes
	ProducerID    int64 `json:"producer_id"`
	Epoch         int16 `json:"epoch"`
	SourceBroker  int32 `json:"source_broker"` // fetched from; -1 none
	TargetBroker  int32 `json:"target_broker"` // appended to; -1 none
	InFlightBytes int64 `json:"in_flight_bytes"`
	QueuedBytes   int64 `json:"queued_bytes"`
	// Records, Bytes and Openings count what this daemon did since its start.
	Records  int64 `json:"records"`
	Bytes    int64 `json:"bytes"` // of record batches, as appended
	Openings int64 `json:"openings"`
}

// RouteCount says how many batches took a route, and why.
type RouteCount struct {
	Route   string `json:"route"`  // forward, repack, skip, refuse
	Reason  string `json:"reason"` // one word: dense, small, hole, marker, aborted, ...
	Codec   string `json:"codec"`  // of the source batch
	Batches int64  `json:"batches"`
	Records int64  `json:"records"`
	Bytes   int64  `json:"bytes"` // of the source batches
}

// Event is something an operator should know of.
type Event struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`           // see the Event constants
	Lane   string    `json:"lane,omitempty"` // "orders-3"; empty: the whole link
	Detail string    `json:"detail"`
}

// Kinds of events.
const (
	EventGap           = "gap"            // source records were gone before they could be copied
	EventTruncation    = "truncation"     // the source lost records that were already copied
	EventRecreated     = "recreated"      // the source topic was deleted and created again
	EventDeleted       = "deleted"        // the source topic is gone
	EventGrown         = "grown"          // partitions were added
	EventTopicCreated  = "topic_created"  // we created the target topic
	EventCut           = "cut"            // the target lost its tail: sent again
	EventForeignWriter = "foreign_writer" // somebody else writes to the target partition
	EventFenced        = "fenced"         // another holder took a lane of ours
	EventRefused       = "refused"        // a record that can never be copied
	EventHalted        = "halted"         // a lane stopped for a person to look at
	EventClosed        = "closed"         // the other region was promoted: the link stopped
	EventHanging       = "hanging"        // a transaction on the source stays open
	EventTargetTopic   = "target_topic"   // the target topic is not as it should be
	EventDifference    = "difference"     // source and target were compared and differ
)
