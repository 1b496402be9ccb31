package mirror

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/pkg/offsets"
)

// membership is the daemon's seat in the consumer group on the source that
// shares the lanes of a link among its daemons. The member never fetches. Its
// assignment decides who works on a lane; that nobody else can write to it is
// the fence's doing, not the group's.
type membership struct {
	link    *Link
	client  *kgo.Client // made when the first topics are known
	cancel  func()      // ends whatever the client waits for
	topics  chan []string
	commits chan []kmsg.OffsetCommitRequestTopic
	left    chan time.Time // asks to leave until then
	done    chan struct{}
}

func (l *Link) join() *membership {
	m := &membership{
		link: l, topics: make(chan []string, 1), commits: make(chan []kmsg.OffsetCommitRequestTopic, 1),
		left: make(chan time.Time, 1), done: make(chan struct{}),
	}
	l.spawn(m.run)
	return m
}

// subscribe tells the member which topics there are; the newest list counts.
func (m *membership) subscribe(topics []string) {
	select {
	case <-m.topics:
	default:
	}
	m.topics <- topics
}

// commit offers positions for the group; dropped if the last commit is under way.
func (m *membership) commit(positions []kmsg.OffsetCommitRequestTopic) {
	select {
	case m.commits <- positions:
	default:
	}
}

// leave gives the seat back, so that the others need not wait for the session to end.
func (m *membership) leave(until time.Time) {
	m.left <- until
	<-m.done
}

func (m *membership) run(ctx context.Context) {
	defer close(m.done)
	var have []string
	for {
		select {
		case want := <-m.topics:
			slices.Sort(want)
			if slices.Equal(have, want) || len(want) == 0 && m.client == nil {
				continue
			}
			if err := m.follow(ctx, have, want); err != nil {
				m.link.inbox.post(func() { m.link.fail("group", err); m.link.refreshSoon() })
				continue
			}
			have = want
		case positions := <-m.commits:
			m.send(ctx, positions)
		case until := <-m.left:
			m.close(ctx, time.Until(until))
			return
		case <-ctx.Done():
			m.close(ctx, 0)
			return
		}
	}
}

// follow changes the subscription from one list of topics to another.
func (m *membership) follow(ctx context.Context, have, want []string) error {
	if m.client == nil {
		ctx, cancel := context.WithCancel(ctx)
		client, err := m.link.source.NewClient(append(m.options(want), kgo.WithContext(ctx))...)
		if err != nil {
			cancel()
			return err
		}
		m.client, m.cancel = client, cancel
		return nil
	}
	var more, less []string
	for _, t := range want {
		if _, ok := slices.BinarySearch(have, t); !ok {
			more = append(more, t)
		}
	}
	for _, t := range have {
		if _, ok := slices.BinarySearch(want, t); !ok {
			less = append(less, t)
		}
	}
	if len(more) > 0 {
		m.client.AddConsumeTopics(more...)
	}
	if len(less) > 0 {
		m.client.PurgeTopicsFromConsuming(less...)
	}
	return nil
}

func (m *membership) options(topics []string) []kgo.Opt {
	session := m.link.opts.SessionTimeout
	return []kgo.Opt{
		kgo.ConsumerGroup(m.link.opts.Group),
		kgo.ConsumeTopics(topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(session / 4),
		kgo.RebalanceTimeout(max(30*time.Second, 2*session)),
		// The member that leads the group shares out new partitions when its own
		// metadata shows them.
		kgo.MetadataMaxAge(m.link.opts.RefreshInterval),
		kgo.MetadataMinAge(min(time.Second, m.link.opts.RefreshInterval)),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnPartitionsAssigned(func(_ context.Context, c *kgo.Client, lanes map[string][]int32) {
			c.PauseFetchPartitions(lanes)
			m.link.inbox.post(func() { m.link.assign(laneKeys(lanes)) })
		}),
		kgo.WithHooks(groupHook{m.link}),
		kgo.OnPartitionsRevoked(m.release),
		kgo.OnPartitionsLost(m.release),
	}
}

// groupHook hears of errors that ended a session of the group; the client tries
// again by itself.
type groupHook struct{ link *Link }

var _ kgo.HookGroupManageError = groupHook{}

// OnGroupManageError is called by the client.
func (h groupHook) OnGroupManageError(err error) {
	l := h.link
	err = right(err, "READ", "group "+l.opts.Group, l.opts.From)
	l.inbox.post(func() {
		l.groupProblem = "group " + l.opts.Group + ": " + err.Error()
		l.fail("group", fmt.Errorf("join group %s: %w", l.opts.Group, err))
	})
}

// release waits until the lanes are drained, so that the next holder finds them
// closed; it does not have to, the fence holds anyway.
func (m *membership) release(ctx context.Context, _ *kgo.Client, lanes map[string][]int32) {
	l := m.link
	done := make(chan struct{})
	l.inbox.post(func() { l.releaseLanes(laneKeys(lanes), func() { close(done) }) })
	select {
	case <-done:
	case <-l.dead:
	case <-ctx.Done():
	}
}

func laneKeys(lanes map[string][]int32) (out []offsets.Lane) {
	for topic, partitions := range lanes {
		for _, p := range partitions {
			out = append(out, offsets.Lane{Topic: topic, Partition: p})
		}
	}
	return out
}

// send commits positions, so that standard tools see how far the link is. It
// makes the request itself: the client's own commit waits while the group is
// shared out anew, and leaving would wait behind it.
func (m *membership) send(ctx context.Context, positions []kmsg.OffsetCommitRequestTopic) {
	if m.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Topics = m.link.opts.Group, positions
	if req.MemberID, req.Generation = m.client.GroupMetadata(); req.MemberID == "" {
		return
	}
	if _, err := req.RequestWith(ctx, m.client); err != nil {
		m.link.log.Debug("commit of positions to the source's group failed; the next one follows", zap.Error(err))
	}
}

func (m *membership) close(ctx context.Context, within time.Duration) {
	if m.client == nil {
		return
	}
	if within > 0 {
		leaving, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if err := m.client.LeaveGroupContext(leaving); err != nil {
			m.link.log.Warn("group not left in time: its session ends by itself", zap.Error(err))
		}
	}
	m.cancel() // closing would wait for a join that is not answered
	m.client.CloseAllowingRebalance()
}
