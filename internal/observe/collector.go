package observe

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"replicator/internal/status"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"replicator/internal/stats"
	"replicator/pkg/checkpoint"
	"replicator/pkg/mirror"
	"replicator/pkg/verify"
)

// Build says what is running.
type Build struct {
	Version   string
	Revision  string // of the source tree, may be empty
	GoVersion string
}

// CollectorConfig is what a collector needs.
type CollectorConfig struct {
	Source     *Source
	Build      Build
	Partitions bool // series per partition
}

// Collector makes metrics of a snapshot at every scrape. It holds no counts of
// its own.
type Collector struct{ cfg CollectorConfig }

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector makes a collector.
func NewCollector(cfg CollectorConfig) *Collector { return &Collector{cfg: cfg} }

// NewRegistry makes a registry of the collector and of what the Go runtime and
// the operating system know of the process.
func NewRegistry(c *Collector) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range families {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	e := emitter(ch)
	b := c.cfg.Build
	e.emit(buildInfo, 1, b.Version, b.Revision, b.GoVersion)
	ctx, cancel := context.WithTimeout(context.Background(), 2*answerTime)
	defer cancel()
	s, err := c.cfg.Source.Get(ctx)
	if err != nil {
		return // what is not known has no series
	}
	e.emit(startTime, float64(s.Started.UnixMilli())/1000)
	e.emit(memoryUsed, float64(s.Memory.UsedBytes))
	e.emit(memoryLimit, float64(s.Memory.LimitBytes))
	for name, n := range s.BoundaryRefusals {
		e.emit(refusals, float64(n), name)
	}
	for i := range s.Authority {
		e.authority(&s.Authority[i])
	}
	for i := range s.Links {
		l := &s.Links[i]
		e.link(l)
		if l.State == Silent {
			continue
		}
		if l.Checkpoints != nil {
			e.groups(l.Name, l.Checkpoints)
		}
		if h := l.Heartbeats; h != nil {
			e.emit(heartbeats, float64(h.Written), l.Name)
			e.emit(heartbeatErrors, float64(h.Failed), l.Name)
			e.optional(heartbeatAge, h.Age, l.Name)
		}
		if v := l.Verify; v != nil {
			e.verify(l.Name, v)
		}
		e.topics(l)
		if c.cfg.Partitions {
			for j := range l.Lanes {
				e.lane(l.Name, &l.Lanes[j])
			}
		}
	}
}

// emitter turns numbers into series.
type emitter chan<- prometheus.Metric

func (e emitter) emit(m *metric, v float64, labels ...string) {
	t := prometheus.GaugeValue
	if m.kind == counter {
		t = prometheus.CounterValue
	}
	out, err := prometheus.NewConstMetric(m.desc, t, v, valid(labels)...)
	if err != nil {
		out = prometheus.NewInvalidMetric(m.desc, err)
	}
	e <- out
}

// valid makes names that others chose fit for labels, which are UTF-8.
func valid(labels []string) []string {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	return labels
}

func (e emitter) optional(m *metric, v *float64, labels ...string) {
	if v != nil {
		e.emit(m, *v, labels...)
	}
}

// offset leaves out what is unknown, which is -1.
func (e emitter) offset(m *metric, v int64, labels ...string) {
	if v >= 0 {
		e.emit(m, float64(v), labels...)
	}
}

func (e emitter) link(l *status.Link) {
	for _, s := range linkStates {
		e.emit(linkState, oneIf(s == string(l.State)), l.Name, s)
	}
	e.emit(linkReady, oneIf(l.Ready && l.State != Silent), l.Name)
	if l.State == Silent {
		return
	}
	e.emit(linkInfo, 1, l.Name, l.Source, l.Target, l.SourceID, l.TargetID)
	for _, s := range mirror.LaneStates {
		e.emit(lanes, float64(l.LaneStates[s]), l.Name, string(s))
	}
	if l.LagRecords != nil {
		e.emit(lagRecords, float64(*l.LagRecords), l.Name)
	}
	e.optional(lagSeconds, l.LagSeconds, l.Name)
	unknown := 0
	for i := range l.Lanes {
		if l.Lanes[i].LagRecords == nil {
			unknown++
		}
	}
	e.emit(lagUnknown, float64(unknown), l.Name)
	sum := int64(0)
	for i := range l.Lanes {
		sum += l.Lanes[i].MapBytes
	}
	e.emit(mapBytes, float64(sum), l.Name)
	e.histogram(latency, &l.Latency, l.Name)
	for _, r := range l.Routes {
		e.emit(batches, float64(r.Batches), l.Name, r.Route, r.Reason, r.Codec)
		e.emit(records, float64(r.Records), l.Name, r.Route, r.Reason, r.Codec)
		e.emit(bytesRouted, float64(r.Bytes), l.Name, r.Route, r.Reason, r.Codec)
	}
	e.emit(networkBytes, float64(l.SourceBytes), l.Name, "source_read")
	e.emit(networkBytes, float64(l.TargetBytes), l.Name, "target_write")
	e.emit(throttleSeconds, l.ThrottleSource, l.Name, "source")
	e.emit(throttleSeconds, l.ThrottleTarget, l.Name, "target")
	e.emit(inFlightBytes, float64(l.InFlightBytes), l.Name)
	e.emit(openings, float64(l.Openings), l.Name)
	e.optional(journalAge, l.JournalAge, l.Name)
	if g := l.Guard; g != nil {
		e.emit(guardLanes, float64(g.Lanes), l.Name)
		e.emit(guardFenced, float64(g.Fenced), l.Name)
		e.emit(guardRenewed, float64(g.Renewed), l.Name)
		if g.Last != nil {
			e.emit(guardAge, max(0, time.Since(*g.Last).Seconds()), l.Name)
		}
		if g.Every > 0 {
			e.emit(guardEvery, g.Every.Seconds(), l.Name)
		}
		e.emit(guardAssumed, oneIf(g.Assumed != ""), l.Name)
		e.emit(guardFailing, oneIf(g.Error != ""), l.Name)
	}
	counts := make(map[string]int64, len(eventKinds))
	for _, k := range eventKinds {
		counts[k] = 0
	}
	maps.Copy(counts, l.EventCounts)
	for k, n := range counts {
		e.emit(events, float64(n), l.Name, k)
	}
	for class, n := range l.Errors {
		e.emit(failures, float64(n), l.Name, class)
	}
	e.emit(warnings, float64(len(l.Warnings)), l.Name)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (e emitter) histogram(m *metric, h *stats.Histogram, labels ...string) {
	if len(h.Bounds) == 0 || len(h.Bounds) != len(h.Counts) {
		return
	}
	buckets := make(map[float64]uint64, len(h.Bounds))
	sum := uint64(0)
	for i, b := range h.Bounds {
		sum += h.Counts[i]
		buckets[b] = sum // Prometheus counts what is at most the bound
	}
	out, err := prometheus.NewConstHistogram(m.desc, h.Count, h.Sum, buckets, valid(labels)...)
	if err != nil {
		out = prometheus.NewInvalidMetric(m.desc, err)
	}
	e <- out
}

// verify are the series of the comparing of a link's two sides.
func (e emitter) verify(link string, v *verify.FollowStatus) {
	e.emit(verifyRecords, float64(v.Records), link)
	e.emit(verifyBytes, float64(v.Bytes), link)
	e.emit(verifyDifferences, float64(v.Differences), link)
	e.emit(verifyFailures, float64(v.Failed), link)
	e.optional(verifyLag, v.LagSeconds, link)
	if v.Position != nil {
		e.emit(verifyPosition, float64(v.Position.UnixMilli())/1000, link)
	}
}

func (e emitter) authority(a *status.Authority) {
	for _, c := range a.Copies {
		e.optional(authorityAge, c.Age, a.Pair, c.Cluster)
	}
	if a.Drill != nil {
		e.emit(drillTime, float64(a.Drill.Ended.UnixMilli())/1000, a.Pair)
		e.emit(drillSuccess, oneIf(a.Drill.Success), a.Pair)
	}
	if !a.Known {
		return
	}
	e.emit(authorityEpoch, float64(a.Epoch), a.Pair)
	for _, region := range a.Regions {
		e.emit(authorityRegion, oneIf(region == a.Region), a.Pair, region)
	}
}

// groups are the series of the groups of a link.
func (e emitter) groups(link string, s *checkpoint.Status) {
	for _, m := range checkpointModes {
		e.emit(checkpointMode, oneIf(m == s.Mode), link, m)
	}
	e.optional(checkpointCurrent, s.CurrentAge, link)
	e.histogram(checkpointLatency, &s.Latency, link)
	e.emit(checkpointsDone, float64(s.Written), link)
	e.emit(offsetsPlaced, float64(s.Placed), link)
	for class, n := range s.Failures {
		e.emit(checkpointErrors, float64(n), link, class)
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		for outcome, n := range g.Outcomes {
			e.emit(groupPartitions, float64(n), link, g.Group, outcome)
		}
		e.emit(groupBehind, float64(g.Behind), link, g.Group)
		e.emit(groupMissing, float64(g.Missing), link, g.Group)
		e.emit(groupDelay, g.Delay, link, g.Group)
		e.emit(groupPlaced, float64(g.Placed), link, g.Group)
		for reason, n := range g.NotPlaced {
			e.emit(groupNotPlaced, float64(n), link, g.Group, string(reason))
		}
	}
}

// topicSum is what the lanes of a topic add up to.
type topicSum struct {
	lanes   map[mirror.LaneState]int
	records *int64
	seconds *float64
}

func (e emitter) topics(l *status.Link) {
	sums := make(map[string]*topicSum)
	for i := range l.Lanes {
		ln := &l.Lanes[i]
		t := sums[ln.Topic]
		if t == nil {
			t = &topicSum{lanes: make(map[mirror.LaneState]int)}
			sums[ln.Topic] = t
		}
		t.lanes[ln.State]++
		if ln.LagRecords != nil {
			if t.records == nil {
				t.records = new(int64)
			}
			*t.records += *ln.LagRecords
		}
		if ln.LagSeconds != nil && (t.seconds == nil || *ln.LagSeconds > *t.seconds) {
			t.seconds = ln.LagSeconds
		}
	}
	for topic, t := range sums {
		for state, n := range t.lanes {
			e.emit(topicLanes, float64(n), l.Name, topic, string(state))
		}
		if t.records != nil {
			e.emit(topicLagRecords, float64(*t.records), l.Name, topic)
		}
		e.optional(topicLagSeconds, t.seconds, l.Name, topic)
	}
}

func (e emitter) lane(link string, ln *mirror.LaneStatus) {
	topic, partition := ln.Topic, strconv.Itoa(int(ln.Partition))
	e.emit(partitionState, 1, link, topic, partition, string(ln.State))
	if ln.LagRecords != nil {
		e.emit(partitionLagRecords, float64(*ln.LagRecords), link, topic, partition)
	}
	e.optional(partitionLagSeconds, ln.LagSeconds, link, topic, partition)
	e.offset(partitionPosition, ln.Position, link, topic, partition)
	e.offset(partitionSourceEnd, ln.SourceEnd, link, topic, partition)
	e.offset(partitionSourceLSO, ln.SourceStable, link, topic, partition)
	e.offset(partitionSourceStart, ln.SourceStart, link, topic, partition)
	e.offset(partitionOrdinal, ln.Ordinal, link, topic, partition)
	e.emit(partitionMapBytes, float64(ln.MapBytes), link, topic, partition)
	e.offset(partitionTargetEnd, ln.TargetEnd, link, topic, partition)
	e.emit(partitionRecords, float64(ln.Records), link, topic, partition)
	e.emit(partitionBytes, float64(ln.Bytes), link, topic, partition)
	e.emit(partitionOpenings, float64(ln.Openings), link, topic, partition)
}
