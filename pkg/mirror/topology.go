package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/pkg/offsets"
)

// topology is what both clusters look like at one moment: the topics that are
// copied, their partitions and leaders. It never changes once made.
type topology struct {
	topics map[string]*topicPair // by source topic
}

// topicPair is a source topic and its copy.
type topicPair struct {
	source   topicDetail
	target   topicDetail
	name     string // of the target topic
	maxBytes int    // max.message.bytes of the target topic, 0 unknown
	missing  bool   // the source topic is gone
	lost     bool   // the target topic was deleted under us
	// goneSince is when the source or target topic was first not listed any more,
	// zero: both are. It counts as deleted goneAfter later.
	goneSince time.Time
	problem   string // why it is not copied
	growth    string // why the partitions are not copied that the target lacks
}

// goneAfter is how long a topic that was there has to be missing before it counts
// as deleted: a broker that has just started (with ZooKeeper) lists none at all.
const goneAfter = 10 * time.Second

// sinceGone is when a topic that is missing now was first seen to be missing.
func (tp *topicPair) sinceGone() time.Time {
	if tp.goneSince.IsZero() {
		return time.Now()
	}
	return tp.goneSince
}

type place struct {
	topic       string
	id          [16]byte
	leader      int32 // -1 none
	leaderEpoch int32
	maxBytes    int
}

func placeOf(d topicDetail, partition int32) place {
	p := d.partitions[partition]
	return place{topic: d.name, id: d.id, leader: p.leader, leaderEpoch: p.leaderEpoch}
}

// sourcePartition says where a lane's source lies, or why it is not known.
func (t *topology) sourcePartition(key offsets.Lane) (place, string) {
	tp := t.topics[key.Topic]
	if tp == nil {
		return place{}, "source topic is not known yet"
	}
	if tp.problem != "" {
		return place{}, tp.problem
	}
	if _, ok := tp.source.partitions[key.Partition]; !ok || tp.missing {
		return place{}, "source partition does not exist"
	}
	return placeOf(tp.source, key.Partition), ""
}

// targetPartition says where a lane's target lies, or why it is not known.
func (t *topology) targetPartition(key offsets.Lane) (place, string) {
	tp := t.topics[key.Topic]
	if tp == nil {
		return place{}, "target topic is not known yet"
	}
	if _, ok := tp.target.partitions[key.Partition]; !ok {
		if tp.growth != "" {
			return place{}, tp.growth
		}
		return place{}, "target partition does not exist yet"
	}
	p := placeOf(tp.target, key.Partition)
	p.maxBytes = tp.maxBytes
	return p, ""
}

// unsettled says that something is missing that will most likely be there soon.
func (t *topology) unsettled() bool {
	for _, tp := range t.topics {
		if !tp.goneSince.IsZero() && !tp.missing && !tp.lost {
			return true
		}
		if tp.missing || tp.problem != "" && len(tp.target.partitions) > 0 {
			continue
		}
		if len(tp.target.partitions) < len(tp.source.partitions) {
			return true
		}
		for p := range tp.source.partitions {
			if tp.source.partitions[p].leader < 0 || tp.target.partitions[p].leader < 0 {
				return true
			}
		}
	}
	return false
}

// refreshSoon asks for a new topology, because a leader moved or a broker is gone.
func (l *Link) refreshSoon() {
	select {
	case l.refresh <- struct{}{}:
	default:
	}
}

const (
	minRefresh  = 200 * time.Millisecond // between two refreshes that are asked for
	slowRefresh = 2 * time.Second        // the same where they take long
)

// refreshPause is how long to wait after a refresh that took some time before the
// next is made, however often it is asked for: a broker that is busy with ten
// thousand new partitions is not kept busy with telling about them too.
func refreshPause(took time.Duration) time.Duration {
	return min(max(minRefresh, 4*took), slowRefresh)
}

// keepTopology looks at both clusters at the refresh interval and when asked,
// makes and grows target topics, and tells the loop.
func (l *Link) keepTopology(ctx context.Context) {
	k := &topologyKeeper{link: l, maxBytes: map[string]int{}, seen: map[string]*topicPair{}, told: map[string]string{}}
	full := time.Time{}
	for {
		if time.Since(full) >= l.opts.RefreshInterval {
			k.maxBytes = map[string]int{}
			k.full = true
			full = time.Now()
		}
		asking, cancel := context.WithTimeout(ctx, 20*time.Second)
		began := time.Now()
		t, events, err := k.look(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		l.inbox.post(func() {
			for _, e := range events {
				l.event(e.Kind, nil, e.Detail)
			}
			if err != nil {
				l.fail("topology", err)
				return
			}
			l.onTopology(t)
		})
		wait := refreshPause(time.Since(began))
		if err != nil {
			wait = max(wait, time.Second)
		}
		if pause.For(ctx, wait) != nil {
			return
		}
		if err != nil {
			continue
		}
		wait = max(0, l.opts.RefreshInterval-time.Since(full))
		if t.unsettled() {
			wait = min(wait, 2*time.Second)
		}
		timer := time.NewTimer(wait)
		select {
		case <-l.refresh:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// topologyKeeper is what keepTopology remembers between two looks.
type topologyKeeper struct {
	link     *Link
	maxBytes map[string]int    // of target topics, asked once an interval
	full     bool              // this look is one of the interval, not one asked for
	told     map[string]string // what was said last of a target topic's configurations
	seen     map[string]*topicPair
}

func (k *topologyKeeper) look(ctx context.Context) (*topology, []Event, error) {
	l := k.link
	src, err := listTopics(ctx, l.source.Client(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("list topics of %s: %w", l.opts.From, err)
	}
	t := &topology{topics: map[string]*topicPair{}}
	if err := k.refusedSources(ctx, src); err != nil {
		return nil, nil, fmt.Errorf("list topics of %s: %w", l.opts.From, err)
	}
	var names []string
	from := map[string]string{} // target name to source name
	for _, name := range slices.Sorted(maps.Keys(src)) {
		d := src[name]
		if d.internal || !l.filter.match(d.name) {
			continue
		}
		tp := &topicPair{source: d, name: l.opts.Rename(d.name)}
		if tp.name == "" {
			continue
		}
		t.topics[d.name] = tp
		switch {
		case d.err != nil:
			tp.problem = fmt.Sprintf("source topic %s: %v", d.name, l.sourceRight(d.err, "READ", d.name))
		case from[tp.name] != "":
			tp.problem = fmt.Sprintf("source topics %s and %s would both be copied to %s", from[tp.name], d.name, tp.name)
		default:
			from[tp.name] = d.name
			names = append(names, tp.name)
		}
	}
	events := k.notice(t)
	if len(names) == 0 {
		return t, events, nil
	}
	dst, err := listTopics(ctx, l.target.Client(), names)
	if err != nil {
		return nil, events, fmt.Errorf("list topics of %s: %w", l.opts.To, err)
	}
	appends := l.Appends() // whose link is closed makes and changes nothing on the target
	changed := false
	if appends {
		var more []Event
		changed, more = k.reconcile(ctx, t, from, dst)
		events = append(events, more...)
	}
	if changed {
		if dst, err = listTopics(ctx, l.target.Client(), names); err != nil {
			return nil, events, fmt.Errorf("list topics of %s: %w", l.opts.To, err)
		}
	}
	for name, source := range from {
		tp := t.topics[source]
		if d, ok := dst[name]; ok && d.err == nil {
			tp.target = d
			if tp.problem == "" && len(d.partitions) > len(tp.source.partitions) {
				tp.problem = fmt.Sprintf("target topic %s has %d partitions, source topic %s has %d: delete the target topic or grow the source", name, len(d.partitions), source, len(tp.source.partitions))
			}
		} else if tp.problem == "" && ok && !errors.Is(d.err, kerr.UnknownTopicOrPartition) && !errors.Is(d.err, kerr.LeaderNotAvailable) {
			tp.problem = fmt.Sprintf("target topic %s: %v", name, l.targetRight(d.err, "READ and WRITE", name))
		}
	}
	if k.full && appends {
		events = append(events, k.syncConfigs(ctx, t)...)
		k.full = false
	}
	k.askMaxBytes(ctx, t)
	for s, tp := range t.topics {
		old := k.seen[s]
		if old == nil {
			old = &topicPair{}
		}
		if tp.problem != "" && old.problem != tp.problem {
			events = append(events, Event{Kind: EventTargetTopic, Detail: tp.problem})
		}
		if tp.growth != "" && old.growth != tp.growth {
			events = append(events, Event{Kind: EventTargetTopic, Detail: tp.growth})
		}
	}
	k.seen = t.topics
	return t, events, nil
}

// notice compares with the last look: topics that are gone, grown or new.
func (k *topologyKeeper) notice(t *topology) (events []Event) {
	for name, old := range k.seen {
		tp := t.topics[name]
		if tp == nil {
			gone := *old
			gone.goneSince = old.sinceGone()
			if !old.missing && time.Since(gone.goneSince) >= goneAfter {
				gone.missing = true
				events = append(events, Event{Kind: EventDeleted, Detail: fmt.Sprintf("source topic %s is gone; its copy %s stays", name, old.name)})
			}
			t.topics[name] = &gone
			continue
		}
		if n, was := len(tp.source.partitions), len(old.source.partitions); was > 0 && n > was && !old.missing {
			events = append(events, Event{Kind: EventGrown, Detail: fmt.Sprintf("source topic %s grew from %d to %d partitions", name, was, n)})
		}
	}
	return events
}

// reconcile makes the target topics that are missing and grows those that are
// too small.
func (k *topologyKeeper) reconcile(ctx context.Context, t *topology, from map[string]string, dst map[string]topicDetail) (changed bool, events []Event) {
	l := k.link
	var create []string
	for name, source := range from {
		tp := t.topics[source]
		d, ok := dst[name]
		want := len(tp.source.partitions)
		switch {
		case !ok || errors.Is(d.err, kerr.UnknownTopicOrPartition):
			if old := k.seen[source]; old != nil && (len(old.target.partitions) > 0 || old.lost) {
				if tp.goneSince = old.sinceGone(); time.Since(tp.goneSince) < goneAfter {
					tp.target = old.target // as it was, until that is sure
					continue
				}
				tp.lost = true
				tp.problem = fmt.Sprintf("target topic %s was deleted under us: it is not made again by itself; to have it made and copied anew, set on_recreate to restart and restart the daemon", name)
				continue
			}
			if l.opts.KeepTopics {
				tp.problem = fmt.Sprintf("target topic %s does not exist and create_topics is off", name)
				continue
			}
			create = append(create, source)
		case d.err == nil && len(d.partitions) < want && len(d.partitions) > 0:
			if l.opts.KeepPartitions {
				continue
			}
			resp, err := l.target.Admin().UpdatePartitions(ctx, want, name)
			if err == nil {
				err = resp.Error()
			}
			if err != nil {
				// The partitions there are go on.
				tp.growth = fmt.Sprintf("grow target topic %s to %d partitions: %v", name, want, l.targetRight(err, "ALTER", name))
				continue
			}
			changed = true
			events = append(events, Event{Kind: EventGrown, Detail: fmt.Sprintf("target topic %s grown from %d to %d partitions", name, len(d.partitions), want)})
		}
	}
	if len(create) == 0 {
		return changed, events
	}
	slices.Sort(create)
	configs := k.sourceConfigs(ctx, create)
	for len(create) > 0 {
		n := t.createAtOnce(create, configs)
		made, err := k.create(ctx, t, create[:n], configs)
		create = create[n:]
		if err != nil {
			l.log.Warn("target topics not created, trying again", zap.Error(err))
		}
		events = append(events, made...)
		changed = changed || len(made) > 0
	}
	return changed, events
}

// createRecords is how many metadata records one request to create topics may
// make of the target: a KRaft controller refuses more than 10,000 at once.
const createRecords = 5000

// createAtOnce is how many of the source topics go into the next request: at least one.
func (t *topology) createAtOnce(sources []string, configs map[string]map[string]*string) int {
	records := 0
	for i, source := range sources {
		records += 1 + len(t.topics[source].source.partitions) + len(configs[source])
		if records > createRecords && i > 0 {
			return i
		}
	}
	return len(sources)
}

// create makes target topics for source topics.
func (k *topologyKeeper) create(ctx context.Context, t *topology, sources []string, configs map[string]map[string]*string) (events []Event, err error) {
	l := k.link
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15000
	from := map[string]string{}
	for _, source := range sources {
		tp := t.topics[source]
		from[tp.name] = source
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = tp.name, int32(len(tp.source.partitions)), -1
		if l.opts.ReplicationFactor > 0 {
			rt.ReplicationFactor = l.opts.ReplicationFactor
		}
		for key, value := range configs[source] {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = key, value
			rt.Configs = append(rt.Configs, c)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, l.target.Client())
	if err != nil {
		return nil, fmt.Errorf("create topics on %s: %w", l.opts.To, err)
	}
	for _, r := range resp.Topics {
		source, ok := from[r.Topic]
		if !ok {
			continue
		}
		err := kerr.ErrorForCode(r.ErrorCode)
		switch {
		case err == nil:
			events = append(events, Event{Kind: EventTopicCreated, Detail: fmt.Sprintf("target topic %s created with %d partitions", r.Topic, len(t.topics[source].source.partitions))})
		case errors.Is(err, kerr.TopicAlreadyExists):
		default:
			if r.ErrorMessage != nil {
				err = &brokerError{err, *r.ErrorMessage}
			}
			t.topics[source].problem = fmt.Sprintf("create target topic %s: %v", r.Topic, l.targetRight(err, "CREATE", r.Topic))
		}
	}
	return events, nil
}

// creationConfigs are taken over from the source when we make a topic even if
// its later changes are not followed: without them the target would refuse what
// the source took.
var creationConfigs = []string{"max.message.bytes", "message.timestamp.after.max.ms", "message.timestamp.before.max.ms"}

// sourceConfigs are the configurations of new target topics.
// compression.type is always producer, so that batches are stored as they come.
// Of topics that are not readable the target's defaults are taken, and syncConfigs
// says so.
func (k *topologyKeeper) sourceConfigs(ctx context.Context, topics []string) map[string]map[string]*string {
	out := map[string]map[string]*string{}
	for _, topic := range topics {
		out[topic] = map[string]*string{"compression.type": new("producer")}
	}
	described, _ := describeEach(ctx, k.link.source.Admin(), topics)
	for _, rc := range described {
		for _, c := range rc.Configs {
			if out[rc.Name] == nil || c.Value == nil || c.Sensitive {
				continue
			}
			if c.Source == kmsg.ConfigSourceDynamicTopicConfig && k.link.synced(c.Key) || slices.Contains(creationConfigs, c.Key) && c.Source != kmsg.ConfigSourceDefaultConfig {
				out[rc.Name][c.Key] = c.Value
			}
		}
	}
	return out
}

func (l *Link) synced(key string) bool {
	return l.opts.SyncConfig != nil && key != "compression.type" && l.opts.SyncConfig(key)
}

// syncConfigs sets on the target what was set on the source and differs. What
// was set on the target alone is left as it is.
func (k *topologyKeeper) syncConfigs(ctx context.Context, t *topology) (events []Event) {
	l := k.link
	if l.opts.SyncConfig == nil {
		return nil
	}
	var sources, targets []string
	for s, tp := range t.topics {
		if !tp.missing && len(tp.target.partitions) > 0 {
			sources, targets = append(sources, s), append(targets, tp.name)
		}
	}
	if len(sources) == 0 {
		return nil
	}
	src, srcFailed := describeEach(ctx, l.source.Admin(), sources)
	dst, dstFailed := describeEach(ctx, l.target.Admin(), targets)
	for _, source := range sources {
		name := t.topics[source].name
		if err := srcFailed[source]; err != nil {
			events = k.tell(events, name, fmt.Sprintf("configurations of source topic %s are not followed: %v", source, l.sourceRight(err, "DESCRIBE_CONFIGS", source)))
			continue
		}
		if err := dstFailed[name]; err != nil {
			events = k.tell(events, name, fmt.Sprintf("configurations of target topic %s are not known: %v", name, l.targetRight(err, "DESCRIBE_CONFIGS", name)))
			continue
		}
		have := map[string]string{}
		for _, c := range dst[name].Configs {
			have[c.Key] = c.MaybeValue()
		}
		var alter []kadm.AlterConfig
		for _, c := range src[source].Configs {
			if c.Source == kmsg.ConfigSourceDynamicTopicConfig && c.Value != nil && l.synced(c.Key) && have[c.Key] != *c.Value {
				alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: c.Key, Value: c.Value})
			}
		}
		if len(alter) == 0 {
			continue
		}
		resps, err := l.target.Admin().AlterTopicConfigs(ctx, alter, name)
		for _, r := range resps {
			err = errors.Join(err, r.Err)
		}
		detail := fmt.Sprintf("target topic %s: %d configurations set as the source has them", name, len(alter))
		if err != nil {
			detail = fmt.Sprintf("set configurations of target topic %s: %v", name, l.targetRight(err, "ALTER_CONFIGS", name))
		}
		events = k.tell(events, name, detail)
	}
	return events
}

// tell says something of a target topic's configurations once: an error would
// repeat at every look.
func (k *topologyKeeper) tell(events []Event, topic, detail string) []Event {
	if k.told[topic] == detail {
		return events
	}
	k.told[topic] = detail
	return append(events, Event{Kind: EventTargetTopic, Detail: detail})
}

// refusedSources adds the topics that are missing in a list of all because the
// right to see them is: those copied until now, and those named outright. A
// broker leaves them out of the list as if they did not exist; asked for by name
// it says which is true.
func (k *topologyKeeper) refusedSources(ctx context.Context, src map[string]topicDetail) error {
	l := k.link
	var ask []string
	for _, name := range l.opts.Topics {
		if _, ok := src[name]; !ok && k.seen[name] == nil && topicName.MatchString(name) && l.filter.match(name) {
			ask = append(ask, name)
		}
	}
	for name, old := range k.seen {
		if _, ok := src[name]; !ok && !old.missing {
			ask = append(ask, name)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	named, err := listTopics(ctx, l.source.Client(), ask)
	if err != nil {
		return err
	}
	for name, d := range named {
		if notAuthorized(d.err) {
			src[name] = d
		}
	}
	return nil
}

// topicName is a name that no pattern is meant by.
var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// askMaxBytes learns the size limits of target topics not asked for yet.
func (k *topologyKeeper) askMaxBytes(ctx context.Context, t *topology) {
	var ask []string
	for _, tp := range t.topics {
		if _, ok := k.maxBytes[tp.name]; !ok && len(tp.target.partitions) > 0 {
			ask = append(ask, tp.name)
		}
	}
	if len(ask) > 0 {
		// Without the right to read it the limit stays unknown: the target then says
		// by itself what is too large.
		described, _ := describeEach(ctx, k.link.target.Admin(), ask)
		for _, rc := range described {
			for _, c := range rc.Configs {
				if c.Key == "max.message.bytes" && c.Value != nil {
					if n, err := strconv.Atoi(*c.Value); err == nil {
						k.maxBytes[rc.Name] = n
					}
				}
			}
		}
	}
	for _, tp := range t.topics {
		tp.maxBytes = k.maxBytes[tp.name]
	}
}

// problem is why the first topic, by name, is not copied at all, or "".
func (t *topology) problem() string {
	for _, name := range slices.Sorted(maps.Keys(t.topics)) {
		if tp := t.topics[name]; tp.problem != "" && !tp.missing {
			return tp.problem
		}
	}
	return ""
}

// sources are the names of the topics that are copied.
func (t *topology) sources() []string {
	var out []string
	for name, tp := range t.topics {
		if !tp.missing {
			out = append(out, name)
		}
	}
	return out
}

// onTopology fits every lane to what the clusters look like now.
func (l *Link) onTopology(t *topology) {
	if len(t.topics) == 0 && (l.topo == nil || len(l.topo.topics) > 0) {
		l.log.Warn("nothing to copy", zap.String("reason", l.nothingToCopy()))
	}
	if l.topo == nil {
		l.partsThen = map[string]int{}
		for name, tp := range t.topics {
			l.partsThen[name] = len(tp.source.partitions)
		}
	}
	l.topo = t
	l.member.subscribe(t.sources())
	for _, ln := range slices.Collect(maps.Values(l.lanes)) {
		l.refit(ln)
	}
}

// refit compares where a lane lies with where it is served.
func (l *Link) refit(ln *lane) {
	if tp := l.topo.topics[ln.key.Topic]; tp != nil && tp.lost && (ln.state == LaneWaiting || ln.open()) {
		l.halt(ln, tp.problem)
		return
	}
	if ln.state == LaneWaiting {
		l.place(ln)
		return
	}
	if !ln.open() {
		return
	}
	src, why := l.topo.sourcePartition(ln.key)
	if why != "" {
		if tp := l.topo.topics[ln.key.Topic]; tp != nil && tp.missing {
			l.drain(ln, goalHalt, "source topic is gone; its copy stays")
		} else {
			l.doubt(ln, "topology", errors.New(why), 0)
		}
		return
	}
	dst, why := l.topo.targetPartition(ln.key)
	if why != "" {
		if tp := l.topo.topics[ln.key.Topic]; tp.problem != "" {
			why = tp.problem
		}
		l.doubt(ln, "topology", errors.New(why), time.Second)
		return
	}
	if recreated(ln.sourceID, src.id) && l.opts.OnRecreate == Halt {
		l.event(EventRecreated, ln, "source topic was deleted and created again")
	}
	if recreated(ln.sourceID, src.id) || recreated(ln.targetID, dst.id) {
		l.doubt(ln, "topology", errors.New("a topic was deleted and created again"), 0)
		return
	}
	if dst.leader >= 0 && dst.leader != ln.targetBroker {
		l.doubt(ln, "topology", fmt.Errorf("target leader moved from broker %d to %d", ln.targetBroker, dst.leader), 0)
		return
	}
	if dst.maxBytes != ln.maxBytes {
		ln.maxBytes = dst.maxBytes
		if ln.fetcher != nil {
			ln.fetcher.send(fetchCommand{kind: fetchTune, lane: ln, topic: ln.key.Topic, partition: ln.key.Partition, generation: ln.fetchGeneration, maxBytes: ln.maxBytes})
		}
	}
	moved := src.leader != ln.sourceBroker || src.leaderEpoch != ln.sourceEpoch
	ln.sourceBroker, ln.sourceEpoch = src.leader, src.leaderEpoch
	if moved {
		l.stopFetch(ln)
	}
	if ln.validated && ln.fetcher == nil && !ln.fetchHeld {
		l.startFetch(ln)
	}
}
