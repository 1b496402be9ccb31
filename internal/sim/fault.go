package sim

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/memnet"
)

// heldTime is how long requests are held in the network before they are thrown
// away: below their longest life, with room for the delays.
const heldTime = requestLife - 3*time.Second

// play makes one step happen. What lasts goes on in the background.
func (w *world) play(s step) {
	d := w.daemons[s.slot]
	if d == nil && s.kind != restart && s.kind != forget && s.kind != moveSource && s.kind != moveTarget && s.kind != refuse && s.kind != coordinators && s.kind != compactOnce {
		return
	}
	hosts, side := sourceHosts, "source"
	if s.side > 0 { // the target is met twice as often
		hosts, side = targetHosts, "target"
	}
	broker := hosts[s.host]
	switch s.kind {
	case crash:
		// What it sends in its last seconds is under way when it dies.
		before := time.Duration(s.way%4) * 700 * time.Millisecond
		held := w.net.Hold(memnet.Match{From: d.host}, memnet.ToListener)
		time.Sleep(before)
		late := time.Duration(0)
		if s.way%5 > 0 {
			late = min(s.lasts, heldTime-before)
			if w.plan.daemons == 1 {
				// Nobody can have fenced it before it crashed, so its requests may
				// take as long as the lease and their life together.
				late = min(s.lasts, 2*requestLife-2*time.Second-before)
			}
		}
		w.crash(s.slot, late)
		held.Lift() // the crash holds it now
		time.Sleep(time.Duration(s.way) * 4 * time.Millisecond)
		w.start(s.slot)
	case stop:
		w.stop(s.slot)
		w.start(s.slot)
	case freeze:
		w.tellf("all that %s sends is held for %v", d.name, s.lasts)
		w.hold(s.lasts, func() *memnet.Rule { return w.net.Hold(memnet.Match{From: d.host}, memnet.ToListener) })
	case part:
		w.tellf("%s and %s are parted for %v", d.name, side, s.lasts)
		w.hold(s.lasts, func() *memnet.Rule { return w.net.Partition([]string{d.host}, hosts) })
	case deafen:
		w.tellf("all answers to %s are held for %v", d.name, s.lasts)
		w.during(s.lasts, w.net.Hold(memnet.Match{From: d.host}, memnet.ToDialer))
	case mute:
		w.tellf("answers of %s broker %s to %s vanish for %v", side, broker, d.name, s.lasts)
		w.during(s.lasts, w.net.Mute(memnet.Match{From: d.host, To: broker}, memnet.ToDialer))
	case slow:
		w.tellf("%s broker %s is slow for %v", side, broker, s.lasts)
		delay := time.Duration(s.way) * time.Millisecond
		w.during(s.lasts, w.net.Delay(memnet.Match{From: d.host, To: broker}, memnet.ToListener, delay))
		w.during(s.lasts, w.net.Delay(memnet.Match{From: d.host, To: broker}, memnet.ToDialer, delay))
	case cutAfter:
		dir := memnet.ToListener
		if s.way%2 == 0 {
			dir = memnet.ToDialer
		}
		w.tellf("connection of %s to %s broker %s is cut after %d bytes, direction %d", d.name, side, broker, s.count, dir)
		w.during(25*time.Second, w.net.CutAfter(memnet.Match{From: d.host, To: broker}, dir, s.count))
	case cutNow:
		w.tellf("%d connections of %s to %s broker %s are cut", w.net.Cut(memnet.Match{From: d.host, To: broker}), d.name, side, broker)
	case restart:
		w.restart(s, hosts, side)
	case forget:
		w.tellf("the target looks for producers to forget")
		w.memory.Restart()
	case moveSource, moveTarget:
		w.move(s)
	case refuse:
		w.refuse(s)
	case coordinators:
		w.tellf("coordinators move")
		w.source.RehashCoordinators()
		w.target.RehashCoordinators()
	case compactOnce:
		w.tellf("the journal is compacted")
		w.target.Compact()
	}
}

// hold keeps a rule that holds requests in force, no longer than a request lives:
// what is held longer is thrown away with its connection.
func (w *world) hold(lasts time.Duration, rule func() *memnet.Rule) {
	r := rule()
	w.ends.Go(func() {
		for ; lasts > heldTime; lasts -= heldTime {
			time.Sleep(heldTime)
			next := rule()
			w.tellf("%d bytes held too long are thrown away", r.Held())
			r.Drop()
			r = next
		}
		time.Sleep(lasts)
		w.tellf("%d bytes held arrive", r.Held())
		r.Lift()
	})
}

func (w *world) during(lasts time.Duration, r *memnet.Rule) {
	w.ends.Go(func() {
		time.Sleep(lasts)
		r.Lift()
	})
}

// restart cuts all connections to a cluster; the target forgets whom it may.
func (w *world) restart(s step, hosts []string, side string) {
	w.tellf("all brokers of the %s restart", side)
	down := min(s.lasts, 5*time.Second)
	for _, h := range hosts {
		w.net.Cut(memnet.Match{To: h})
		for _, d := range w.running() {
			if s.way%2 == 0 {
				w.during(down, w.net.Refuse(memnet.Match{From: d.host, To: h}))
			}
		}
	}
	if side == "target" {
		w.memory.Restart()
	}
}

func (w *world) move(s step) {
	lanes := w.lanes()
	lane := lanes[s.way%len(lanes)]
	c, side := w.source, "source"
	if s.kind == moveTarget {
		c, side = w.target, "target"
	}
	topic, p := lane.Topic, lane.Partition
	if s.kind == moveTarget && s.way%5 == 0 {
		topic, p = journalTopic, 0
	}
	leader := c.LeaderFor(topic, p)
	if leader < 0 {
		return
	}
	w.tellf("%s leader of %s-%d moves from broker %d", side, topic, p, leader)
	if err := c.MoveTopicPartition(topic, p, 1-leader); err != nil {
		w.tellf("it does not: %v", err)
	}
}

// refuse has requests answered with an error.
func (w *world) refuse(s step) {
	type fault struct {
		side string
		kfake.Fault
	}
	key := func(k kmsg.Key) []kmsg.Key { return []kmsg.Key{k} }
	faults := []fault{
		{"target", kfake.Fault{Keys: key(kmsg.Produce), Topic: "orders", Err: kerr.NotLeaderForPartition}},
		{"target", kfake.Fault{Keys: key(kmsg.Produce), Topic: "orders", Err: kerr.RequestTimedOut}},
		{"target", kfake.Fault{Keys: key(kmsg.Produce), Topic: "orders", Err: kerr.NotEnoughReplicas}},
		{"target", kfake.Fault{Keys: key(kmsg.Produce), Topic: "orders", Err: kerr.NotEnoughReplicasAfterAppend}},
		{"target", kfake.Fault{Keys: key(kmsg.Produce), Topic: "prices", Err: kerr.NotEnoughReplicasAfterAppend}},
		{"target", kfake.Fault{Keys: key(kmsg.Produce), Topic: journalTopic, Err: kerr.RequestTimedOut}},
		{"target", kfake.Fault{Keys: key(kmsg.ListOffsets), Topic: "orders", Err: kerr.NotLeaderForPartition}},
		{"target", kfake.Fault{Keys: key(kmsg.InitProducerID), Err: kerr.CoordinatorLoadInProgress}},
		{"target", kfake.Fault{Keys: key(kmsg.InitProducerID), Err: kerr.ConcurrentTransactions}},
		{"target", kfake.Fault{Keys: key(kmsg.AddPartitionsToTxn), Err: kerr.ConcurrentTransactions}},
		{"target", kfake.Fault{Keys: key(kmsg.EndTxn), Err: kerr.NotCoordinator}},
		{"target", kfake.Fault{Keys: key(kmsg.EndTxn), Err: kerr.RequestTimedOut}},
		{"target", kfake.Fault{Keys: key(kmsg.FindCoordinator), Err: kerr.CoordinatorNotAvailable}},
		{"target", kfake.Fault{Keys: key(kmsg.Fetch), Err: kerr.NotLeaderForPartition}},
		{"source", kfake.Fault{Keys: key(kmsg.Fetch), Topic: "orders", Err: kerr.NotLeaderForPartition}},
		{"source", kfake.Fault{Keys: key(kmsg.Fetch), Topic: "orders", Err: kerr.OffsetOutOfRange}},
		{"source", kfake.Fault{Keys: key(kmsg.Fetch), Topic: "orders", Err: kerr.FencedLeaderEpoch}},
		{"source", kfake.Fault{Keys: key(kmsg.ListOffsets), Topic: "orders", Err: kerr.NotLeaderForPartition}},
		{"source", kfake.Fault{Keys: key(kmsg.OffsetCommit), Err: kerr.NotCoordinator}},
		{"source", kfake.Fault{Keys: key(kmsg.Heartbeat), Err: kerr.UnknownMemberID}},
	}
	f := faults[s.way%len(faults)]
	f.Count = 1 + int(s.count%4)
	w.tellf("%d answers of the %s to %s are %s", f.Count, f.side, f.Keys[0].Name(), f.Err.Message)
	c := w.source
	if f.side == "target" {
		c = w.target
	}
	handle := c.Fault(f.Fault)
	w.ends.Go(func() {
		time.Sleep(15 * time.Second)
		handle.Remove()
	})
}
