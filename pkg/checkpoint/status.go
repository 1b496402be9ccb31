package checkpoint

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"replicator/internal/stats"
	"replicator/pkg/offsets"
)

// Status is how a link's groups are kept, for the lanes of this daemon.
type Status struct {
	Mode string `json:"mode"` // how commits are followed: tail, poll, starting
	// Reason is why commits are not followed better, why checkpoints are not
	// written or groups not committed to; empty: all is well.
	Reason string `json:"reason,omitempty"`
	// CurrentAge is the time since all commits of the source were in the checkpoints
	// of this daemon's lanes; absent before that was so for the first time.
	CurrentAge *float64 `json:"current_age_seconds,omitempty"`
	// Latency is the time from a commit on the source to the acknowledgement of its
	// checkpoint by the target. With poll it begins when the commit was seen.
	Latency  stats.Histogram  `json:"latency_seconds"`
	Written  int64            `json:"written"`          // checkpoints written since the start
	Placed   int64            `json:"placed"`           // offsets committed to groups of the target since the start
	Failures map[string]int64 `json:"errors,omitempty"` // by class
	Groups   []GroupStatus    `json:"groups"`           // sorted by name
}

// GroupStatus is one group of the source.
type GroupStatus struct {
	Group      string `json:"group"`
	Type       string `json:"type"`       // consumer or share
	Partitions int    `json:"partitions"` // it has committed to, among the lanes of this daemon
	// Outcomes counts partitions by what their offset is on the target.
	Outcomes map[string]int `json:"outcomes"`
	// Behind is how many source offsets lie between what the group committed and the
	// source's end, as of the last look; lanes whose end is not known are left out.
	Behind int64 `json:"behind"`
	// Missing is how many source offsets the group has read and the target lacks.
	Missing int64 `json:"missing"`
	// Delay is the age of the oldest commit that has no checkpoint yet; 0: all have.
	Delay float64 `json:"delay_seconds"`
	// Placed counts partitions whose offset the target's group has, NotPlaced the
	// others by reason.
	Placed    int            `json:"placed"`
	NotPlaced map[Reason]int `json:"not_placed,omitempty"`
	Detail    string         `json:"detail,omitempty"` // of one reason
}

// String is the type's name in tables and labels.
func (t GroupType) String() string {
	if t == Share {
		return "share"
	}
	return "consumer"
}

// Status takes a snapshot.
func (k *Keeper) Status() Status {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Status{Mode: k.mode, Reason: cmp.Or(k.writing, k.problem, k.placing), Latency: k.latency.Clone(), Written: k.written, Placed: k.placed, Groups: []GroupStatus{}}
	if known := k.known(); !known.IsZero() {
		age := max(0, now.Sub(known).Seconds())
		s.CurrentAge = &age
	}
	if len(k.failures) > 0 {
		s.Failures = maps.Clone(k.failures)
	}
	type name struct {
		group string
		kind  GroupType
	}
	groups := map[name]*GroupStatus{}
	for lane, held := range k.held {
		for p := range k.byLane[lane] {
			if p.commit.Deleted || p.commit.Offset < 0 {
				continue
			}
			g := groups[name{p.Group, p.Type}]
			if g == nil {
				g = &GroupStatus{Group: p.Group, Type: p.Type.String(), Outcomes: map[string]int{}}
				groups[name{p.Group, p.Type}] = g
			}
			g.Behind += max(0, held.sourceEnd-p.commit.Offset)
			g.add(p, now, k.cfg.CommitGroups)
		}
	}
	for _, g := range groups {
		s.Groups = append(s.Groups, *g)
	}
	slices.SortFunc(s.Groups, func(a, b GroupStatus) int { return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Type, b.Type)) })
	return s
}

func (g *GroupStatus) add(p *progress, now time.Time, placing bool) {
	g.Partitions++
	outcome := offsets.Unknown
	if p.have.Source >= 0 {
		outcome = p.have.Outcome
	}
	g.Outcomes[outcome.String()]++
	if outcome == offsets.Ahead {
		g.Missing += p.have.Missing
	}
	if !p.unwritten.IsZero() {
		g.Delay = max(g.Delay, now.Sub(p.unwritten).Seconds())
	}
	switch {
	case !placing:
	case p.reason != "":
		if g.NotPlaced == nil {
			g.NotPlaced = map[Reason]int{}
		}
		g.NotPlaced[p.reason]++
		g.Detail = cmp.Or(p.detail, g.Detail)
	case !p.placedAt.IsZero():
		g.Placed++
	}
}
