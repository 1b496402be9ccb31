// Package status is the whole state of a daemon at one moment. The metrics,
// /status and `replicator status` all show this one value, so they cannot
// disagree.
package status

import (
	"time"

	"replicator/pkg/checkpoint"
	"replicator/pkg/heartbeat"
	"replicator/pkg/mirror"
	"replicator/pkg/verify"
)

// Status is a daemon at one moment.
type Status struct {
	Time     time.Time `json:"time"`
	Version  string    `json:"version"`
	Instance string    `json:"instance"` // who this daemon is: host and process id
	Started  time.Time `json:"started"`
	Memory   Memory    `json:"memory"`
	Links    []Link    `json:"links"`
	// Authority is of the pairs whose links obey one; absent without such links.
	Authority []Authority `json:"authority,omitempty"`
	// BoundaryRefusals counts connections the dial guard refused, by cluster.
	BoundaryRefusals map[string]int64 `json:"boundary_refusals,omitempty"`
}

// Memory is the byte budget of the data path: what its frames hold now, and what
// they may hold.
type Memory struct {
	UsedBytes  int64 `json:"used_bytes"`
	LimitBytes int64 `json:"limit_bytes"`
}

// Link is one direction of a pair: its lanes, the groups that are kept for it, its heartbeats.
type Link struct {
	mirror.LinkStatus
	// Checkpoints is absent where checkpoints.follow is off.
	Checkpoints *checkpoint.Status `json:"checkpoints,omitempty"`
	// Heartbeats is absent where heartbeats.enabled is false.
	Heartbeats *heartbeat.Status `json:"heartbeats,omitempty"`
	// Verify is absent where verify.share is 0.
	Verify *verify.FollowStatus `json:"verify,omitempty"`
}
