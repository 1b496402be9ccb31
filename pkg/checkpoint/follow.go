package checkpoint

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
)

// The ways to follow commits.
const (
	FollowAuto = "auto" // tail if we may, else poll
	FollowTail = "tail" // as auto, and warns while it cannot
	FollowPoll = "poll"
)

// FollowConfig says what to follow.
type FollowConfig struct {
	Cluster  *cluster.Cluster // the source
	Mode     string
	Interval time.Duration // between two polls where polls are all there is, and of share groups
	// Safety is between two polls beside the tail, default a minute.
	Safety time.Duration
	// Retry is how long to wait before trying again to tail, default 5 s.
	Retry time.Duration
	// Group and Topic tell which groups, and which source topics, count. They
	// may change their mind; it is asked again at each poll. They are called
	// from the goroutine of the sink and from that of a poll.
	Group, Topic func(name string) bool
	Shares       bool // follow share groups too
	Log          *zap.Logger
}

// FollowStats count since the start.
type FollowStats struct {
	Polls       int64 // polls of all groups that ended
	Commits     int64 // handed on, deletions too
	Records     int64 // read by the tail, of all groups and kinds
	Missed      int64 // commits a poll beside the tail found that the tail should have read: a bug
	Undecodable int64 // records of commits that could not be read
	Tails       int64 // times the tail began
}

// Follower reads what the groups of a source cluster commit.
//
// All that a sink is told comes from one loop (followloop.go): the tail, polls,
// asked end offsets and share groups are read by goroutines of their own, one
// of each at most, and judged there.
type Follower struct {
	cfg   FollowConfig
	log   *zap.Logger
	mu    sync.Mutex
	stats FollowStats
}

// NewFollower makes a follower; Run does the work.
func NewFollower(cfg FollowConfig) (*Follower, error) {
	switch cfg.Mode {
	case FollowAuto, FollowTail, FollowPoll:
	case "":
		cfg.Mode = FollowAuto
	default:
		return nil, fmt.Errorf("follow commits: mode %q is none of auto, tail, poll", cfg.Mode)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Second
	}
	if cfg.Safety <= 0 {
		cfg.Safety = time.Minute
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Follower{cfg: cfg, log: cfg.Log.With(zap.String("cluster", cfg.Cluster.Alias()))}, nil
}

// Follow makes a follower and runs it.
func Follow(ctx context.Context, cfg FollowConfig, to Sink) error {
	f, err := NewFollower(cfg)
	if err != nil {
		return err
	}
	return f.Run(ctx, to)
}

// Stats returns the counts so far.
func (f *Follower) Stats() FollowStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *Follower) count(add func(*FollowStats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add(&f.stats)
}

// Run follows until the context ends, and returns nil then. Whatever fails on
// the source is told to the sink and tried again.
func (f *Follower) Run(ctx context.Context, to Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	l := newFollowLoop(ctx, f, to)
	l.run()
	cancel()
	l.close()
	return nil
}
