package observe

import (
	"context"
	"testing"
	"time"

	"replicator/internal/status"

	"replicator/internal/stats"
	"replicator/pkg/checkpoint"
	"replicator/pkg/heartbeat"
	"replicator/pkg/mirror"
	"replicator/pkg/verify"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// example is a daemon with one link: a lane that copies, one that is halted,
// and one of which nothing is known yet.
func example() status.Status {
	return status.Status{
		Time: noon, Version: "v1.2.3", Instance: "host-1", Started: noon.Add(-time.Hour),
		Memory:           status.Memory{UsedBytes: 5 << 20, LimitBytes: 64 << 20},
		Authority:        authorities(),
		BoundaryRefusals: map[string]int64{"east": 0, "west": 1},
		Links: []status.Link{{LinkStatus: mirror.LinkStatus{
			Name: "east->west", Source: "east", Target: "west", SourceID: "5L6g3nShT-eMCtK--X86sw", TargetID: "Qx1J2b3kTn6aVd0mZr9c4A",
			State: mirror.LinkDegraded, Reason: "2 of 3 lanes are not copying",
			LaneStates: map[mirror.LaneState]int{mirror.LaneCopying: 1, mirror.LaneHalted: 1, mirror.LaneWaiting: 1},
			LagRecords: new(int64(1030)), LagSeconds: new(90.5),
			Lanes: []mirror.LaneStatus{
				{
					Topic: "orders", Partition: 0, TargetTopic: "orders", State: mirror.LaneHalted, Reason: "source offset 170 cannot be copied (corrupt): checksum is wrong",
					Position: 170, SourceEnd: 1170, SourceStable: 1170, SourceStart: 0, LagRecords: new(int64(1000)), LagSeconds: new(90.5),
					Ordinal: 160, TargetEnd: 165, Records: 60, Bytes: 6000, Openings: 2,
				},
				{Topic: "orders", Partition: 1, TargetTopic: "orders", State: mirror.LaneWaiting, Position: -1, SourceEnd: -1, SourceStable: -1, SourceStart: -1, Ordinal: -1, TargetEnd: -1},
				{
					Topic: "clicks", Partition: 0, TargetTopic: "clicks", State: mirror.LaneCopying,
					Position: 970, SourceEnd: 1000, SourceStable: 990, SourceStart: 10, LagRecords: new(int64(30)), LagSeconds: new(0.25),
					Ordinal: 900, TargetEnd: 901, Records: 900, Bytes: 90000, Openings: 1,
				},
			},
			Routes: []mirror.RouteCount{
				{Route: "forward", Reason: "dense", Codec: "lz4", Batches: 90, Records: 900, Bytes: 90000},
				{Route: "skip", Reason: "marker", Codec: "none", Batches: 3, Records: 3, Bytes: 234},
			},
			Events:        []mirror.Event{{Time: noon.Add(-time.Minute), Kind: mirror.EventHalted, Lane: "orders-0", Detail: "checksum is wrong"}},
			EventCounts:   map[string]int64{mirror.EventHalted: 1},
			Errors:        map[string]int64{"connection": 4},
			Openings:      3,
			Latency:       stats.Histogram{Bounds: []float64{0.001, 0.01, 0.1}, Counts: []uint64{1, 5, 2}, Sum: 0.9, Count: 9},
			InFlightBytes: 4096, SourceBytes: 100000, TargetBytes: 91000, ThrottleTarget: 1.5,
			Warnings: []string{"journal topic has replication factor 1"},
		}, Checkpoints: &checkpoint.Status{
			Mode: "tail", CurrentAge: new(0.5), Written: 12, Placed: 7, Failures: map[string]int64{"write": 1},
			Latency: stats.Histogram{Bounds: []float64{0.001, 0.01, 0.1}, Counts: []uint64{0, 5, 7}, Sum: 0.4, Count: 12},
			Groups: []checkpoint.GroupStatus{
				{Group: "billing", Type: "consumer", Partitions: 3, Outcomes: map[string]int{"exact": 2, "ahead": 1}, Behind: 40, Missing: 30, Delay: 0.2, Placed: 2, NotPlaced: map[checkpoint.Reason]int{checkpoint.GroupActive: 1}},
			},
		}, Heartbeats: &heartbeat.Status{Written: 40, Failed: 2, Age: new(0.75)},
			Verify: &verify.FollowStatus{Share: 0.01, Records: 1200, Bytes: 1 << 20, Differences: 1, Failed: 2, Position: new(time.Unix(1_790_000_000, 0)), LagSeconds: new(4.5)}}},
	}
}

// always is a source that shows the same status to all.
func always(s status.Status) *Source {
	return NewSource(func(context.Context) status.Status { return s })
}

func silent() status.Status {
	s := example()
	s.Links = []status.Link{{LinkStatus: mirror.LinkStatus{Name: "east->west", Source: "east", Target: "west", State: Silent}}}
	return s
}

func healthy() status.Status {
	s := example()
	l := &s.Links[0]
	l.State, l.Ready, l.Reason = mirror.LinkCopying, true, ""
	l.Lanes = l.Lanes[2:]
	l.LaneStates = map[mirror.LaneState]int{mirror.LaneCopying: 1}
	return s
}

func TestMain(m *testing.M) { mainWithLeakCheck(m) }
