package sim

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"replicator/internal/memnet"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/wire"
)

// stopTime is how long a link may take to stop, whatever the network does.
const stopTime = 10 * time.Second

// daemon is one process: a link with its clusters, on a host of its own. Its
// supervisor starts the link again when it ends by itself.
type daemon struct {
	w      *world
	name   string
	host   string
	group  string
	cancel context.CancelFunc
	done   chan struct{}
	asked  time.Time // to stop
	dead   bool      // cut off for good: what it says no longer counts
	links  chan *mirror.Link
}

// start makes a daemon of a slot. Each has a host of its own, so that faults meet
// none of its successors.
func (w *world) start(slot int) {
	w.started++
	d := &daemon{w: w, name: fmt.Sprintf("d%d", w.started), host: fmt.Sprintf("10.9.%d.%d", w.started/250, 1+w.started%250), group: "lanes", done: make(chan struct{}), links: make(chan *mirror.Link, 1)}
	if !w.plan.oneGroup {
		d.group = fmt.Sprintf("lanes-%d", slot)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	w.put(slot, d)
	w.tellf("%s starts in group %s at %s", d.name, d.group, d.host)
	go d.live(ctx)
}

// live keeps the link running until ctx ends.
func (d *daemon) live(ctx context.Context) {
	defer close(d.done)
	go func() {
		<-ctx.Done()
		select {
		case <-d.done:
		case <-time.After(stopTime):
			d.w.tellf("%s waits:\n%s", d.name, strings.Join(goroutines("mirror.(*Link)"), "\n"))
		}
	}()
	for {
		err := d.run(ctx)
		if ctx.Err() != nil {
			return
		}
		d.w.tellf("%s ends by itself: %v", d.name, err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

func (d *daemon) run(ctx context.Context) error {
	log := d.w.log(d.name)
	pool := wire.NewPool(d.w.plan.budget)
	open := func(alias string, hosts []string) (*cluster.Cluster, error) {
		cfg := cluster.DefaultConfig()
		for _, h := range hosts {
			cfg.BootstrapServers = append(cfg.BootstrapServers, h+":9092")
		}
		return cluster.Open(ctx, alias, cfg, cluster.Options{Log: log, Dial: d.w.net.Dialer(d.host), Pool: pool})
	}
	source, err := open("east", sourceHosts)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := open("west", targetHosts)
	if err != nil {
		return err
	}
	defer target.Close()
	link, err := mirror.New(mirror.Config{
		Options: mirror.Options{From: "east", To: "west", Topics: []string{"orders", "prices", "empty"}, Group: d.group,
			BatchBytes: d.w.plan.batchBytes, SmallBatchBytes: d.w.plan.smallBytes, ReopenInterval: d.w.plan.reopen,
			JournalPartitions: 1, RefreshInterval: 10 * time.Second},
		Source: source, Target: target, Pool: pool, Log: log, Instance: d.name,
	})
	if err != nil {
		return err
	}
	select {
	case <-d.links:
	default:
	}
	d.links <- link
	err = link.Run(ctx)
	if ctx.Err() != nil {
		if took := time.Since(d.asked); took > stopTime {
			d.w.wrongf("%s took %v to stop", d.name, took)
		}
		if err != nil && !d.dead {
			d.w.tellf("%s stops with an error: %v", d.name, err)
		}
	}
	if used := pool.Used(); used != 0 {
		d.w.wrongf("%s has stopped and holds %d bytes of its budget", d.name, used)
	}
	return err
}

// status asks the link, nil if it does not answer.
func (d *daemon) status() *mirror.LinkStatus {
	select {
	case l := <-d.links:
		select {
		case d.links <- l:
		default: // the next link has come
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s, ok := l.Status(ctx); ok {
			return &s
		}
	default:
	}
	return nil
}

// stop ends a daemon cleanly.
func (w *world) stop(slot int) {
	d := w.put(slot, nil)
	if d == nil {
		return
	}
	d.events()
	w.tellf("%s is stopped", d.name)
	d.asked = time.Now()
	d.cancel()
	<-d.done
	w.tellf("%s has stopped", d.name)
}

// events complains about what no fault of ours explains.
func (d *daemon) events() {
	s := d.status()
	if s == nil {
		return
	}
	for _, e := range s.Events {
		if e.Kind == mirror.EventGap && strings.HasPrefix(e.Lane, "prices-") {
			continue // the fake's cleaner moves the start of the log
		}
		if slices.Contains([]string{mirror.EventGap, mirror.EventTruncation, mirror.EventRecreated, mirror.EventDeleted, mirror.EventCut, mirror.EventForeignWriter, mirror.EventRefused, mirror.EventHalted, mirror.EventTargetTopic}, e.Kind) {
			d.w.wrongf("%s saw at %.3fs: %s %s: %s", d.name, e.Time.Sub(d.w.began).Seconds(), e.Kind, e.Lane, e.Detail)
		}
	}
}

// crash cuts a daemon off for good. What it had sent is held in the network;
// it arrives after late, or never if late is 0.
func (w *world) crash(slot int, late time.Duration) {
	d := w.put(slot, nil)
	if d == nil {
		return
	}
	d.events()
	from := memnet.Match{From: d.host}
	held := w.net.Hold(from, memnet.ToListener)
	w.net.Mute(from, memnet.ToListener)
	w.net.Mute(from, memnet.ToDialer)
	w.net.Refuse(from)
	w.tellf("%s crashes, %d bytes under way", d.name, held.Held())
	d.dead = true
	d.asked = time.Now()
	d.cancel()
	w.past = append(w.past, d)
	w.ends.Go(func() {
		if late == 0 {
			held.Drop()
		} else {
			time.Sleep(late)
			w.tellf("%s: %d bytes arrive late, %v after the crash", d.name, held.Held(), late)
			held.Lift()
		}
		time.Sleep(sessionTime + 2*time.Second)
		w.bury(d.group)
	})
}

// sessionTime is after how long the group gives up a member.
const sessionTime = 10 * time.Second

// bury takes dead daemons out of a group. The fake keeps a member for ever whose
// join it answered and who then says nothing; Kafka does not.
func (w *world) bury(group string) {
	g := w.source.GroupInfo(group)
	if g == nil {
		return
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range g.Members {
		host, _, _ := net.SplitHostPort(m.ClientHost)
		if !w.alive(host) {
			member := kmsg.NewLeaveGroupRequestMember()
			member.MemberID = m.MemberID
			req.Members = append(req.Members, member)
		}
	}
	if len(req.Members) == 0 {
		return
	}
	client, err := kgo.NewClient(w.client(observerHost, sourceHosts)...)
	if err != nil {
		w.wrongf("bury members of %s: %v", group, err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = req.RequestWith(ctx, client)
	w.tellf("group %s gives %d members up (%v)", group, len(req.Members), err)
}

// alive says whether a daemon runs on the host.
func (w *world) alive(host string) bool {
	return slices.ContainsFunc(w.running(), func(d *daemon) bool { return d.host == host })
}

// running are the daemons that are neither crashed nor stopped.
func (w *world) running() (all []*daemon) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.daemons {
		if d != nil {
			all = append(all, d)
		}
	}
	return all
}

// put notes the daemon of a slot and returns the one before, nil if there was none.
func (w *world) put(slot int, d *daemon) *daemon {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.daemons[slot]
	w.daemons[slot] = d
	return before
}

// stopAll ends every daemon and waits for the crashed ones.
func (w *world) stopAll() {
	for slot := range w.daemons {
		w.stop(slot)
	}
	for _, d := range w.past {
		<-d.done
	}
}

// log is the log of a daemon: nothing, unless the environment asks for it.
func (w *world) log(name string) *zap.Logger {
	if os.Getenv("SIM_LOG") == "" {
		return zap.NewNop()
	}
	cfg := zap.NewDevelopmentEncoderConfig()
	cfg.EncodeTime = func(t time.Time, e zapcore.PrimitiveArrayEncoder) {
		e.AppendString(fmt.Sprintf("%8.3fs", t.Sub(w.began).Seconds()))
	}
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(cfg), zapcore.Lock(os.Stderr), zap.DebugLevel)).Named(name)
}
