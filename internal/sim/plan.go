package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// plan is all that a seed decides beforehand.
type plan struct {
	daemons     int
	oneGroup    bool // the daemons share a group, else each has all lanes
	memoryCheck time.Duration
	distance    time.Duration // round trip to the target
	topics      []topicPlan
	budget      int64 // bytes of each daemon's pool
	batchBytes  int
	smallBytes  int
	reopen      time.Duration
	steps       []step
	length      time.Duration
}

type topicPlan struct {
	name       string
	partitions int32
	compacted  bool
}

// step is one fault, or the end of a daemon.
type step struct {
	at    time.Duration
	kind  stepKind
	slot  int           // of the daemon it happens to
	host  int           // of the broker it happens to
	lasts time.Duration // where it lasts
	side  int           // 0 source, 1 target, 2 both
	count int64         // bytes, or requests
	way   int           // a free choice
}

type stepKind string

const (
	crash        stepKind = "crash"        // cut off for good, requests held in the network arrive later or never
	stop         stepKind = "stop"         // clean, then started again
	freeze       stepKind = "freeze"       // all a daemon sends is held
	deafen       stepKind = "deafen"       // all answers are held
	mute         stepKind = "mute"         // answers vanish
	part         stepKind = "partition"    // daemon and cluster
	cutAfter     stepKind = "cut after"    // a connection at a random byte
	cutNow       stepKind = "cut"          // every connection of a daemon to a broker
	slow         stepKind = "slow"         // delays
	restart      stepKind = "restart"      // of all brokers of a cluster
	forget       stepKind = "forget"       // the target looks for producers to forget
	moveSource   stepKind = "move source"  // leaders
	moveTarget   stepKind = "move target"  // leaders
	refuse       stepKind = "refuse"       // appends answered with an error
	coordinators stepKind = "coordinators" // move
	compactOnce  stepKind = "compact journal"
)

func newPlan(seed uint64) plan {
	r := random(seed, 1)
	p := plan{
		daemons:     1 + r.IntN(3),
		oneGroup:    r.IntN(2) == 0,
		memoryCheck: pick(r, 10*time.Millisecond, time.Second, 10*time.Minute),
		distance:    pick(r, 0, 0, 10*time.Millisecond, 80*time.Millisecond),
		budget:      pick[int64](r, 1<<20, 4<<20, 32<<20),
		batchBytes:  pick(r, 2<<10, 64<<10, 256<<10),
		smallBytes:  pick(r, 1, 1<<10, 16<<10),
		reopen:      pick(r, 24*time.Hour, 24*time.Hour, 24*time.Hour, 40*time.Second),
		length:      time.Duration(30+r.IntN(60)) * time.Second,
	}
	p.topics = append(p.topics, topicPlan{name: "orders", partitions: 1 + r.Int32N(3)})
	if r.IntN(2) == 0 {
		p.topics = append(p.topics, topicPlan{name: "prices", partitions: 1 + r.Int32N(2), compacted: true})
	}
	if r.IntN(3) == 0 {
		p.topics = append(p.topics, topicPlan{name: "empty", partitions: 1})
	}
	kinds := []stepKind{crash, crash, crash, stop, freeze, freeze, deafen, mute, part, cutAfter, cutAfter, cutNow, slow, restart, forget, forget, moveSource, moveTarget, refuse, coordinators, compactOnce}
	for range 2 + r.IntN(10) {
		p.steps = append(p.steps, step{
			at: time.Duration(r.Int64N(int64(p.length))), kind: kinds[r.IntN(len(kinds))], slot: r.IntN(p.daemons), host: r.IntN(2),
			lasts: 50*time.Millisecond + time.Duration(r.Int64N(int64(pick(r, time.Second, 8*time.Second, 25*time.Second)))),
			side:  r.IntN(3), count: r.Int64N(pick[int64](r, 500, 20_000, 400_000)), way: r.IntN(1000),
		})
	}
	slices.SortStableFunc(p.steps, func(a, b step) int { return int(a.at - b.at) })
	return p
}

func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan: %d daemons, one group %v, %v to the target, producers checked every %v, budget %d KiB, batches of %d and small below %d bytes, epochs for %v, %v long; topics",
		p.daemons, p.oneGroup, p.distance, p.memoryCheck, p.budget>>10, p.batchBytes, p.smallBytes, p.reopen, p.length)
	for _, t := range p.topics {
		fmt.Fprintf(&b, " %s/%d", t.name, t.partitions)
	}
	return b.String()
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
