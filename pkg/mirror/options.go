package mirror

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"replicator/pkg/mirrormaker"
	"replicator/pkg/wire"
)

// Options say what a link copies and how. The zero value of a duration or size
// means its default.
type Options struct {
	From, To string // cluster aliases
	Name     string // of the link; default "from->to"

	// Topics and TopicsExclude are names or regular expressions that match a whole
	// topic name; exclude wins; internal topics are never copied.
	Topics, TopicsExclude []string
	// Only is the one topic that is copied, in place of Topics and TopicsExclude. It
	// may have a name of those that are internal, which no other link copies.
	Only string
	// Rename gives the target's name of a source topic, "" for one that is not
	// copied; nil: the same name.
	Rename func(topic string) string
	// Heartbeats also copies the source's topic heartbeats to From.heartbeats,
	// whatever Topics, TopicsExclude and Rename say of it: where MirrorMaker 2's
	// client looks for them.
	Heartbeats bool

	KeepTopics     bool // do not create target topics that are missing
	KeepPartitions bool // do not grow target topics
	// SyncConfig says whether a topic configuration is kept as the source has it;
	// nil: none is, and new topics get the target's defaults.
	SyncConfig func(key string) bool

	ReadUncommitted bool   // copy aborted data too
	StartLatest     bool   // a lane copied for the first time starts at the source's end
	OnGap           Action // Continue (default) or Halt
	OnTruncation    Action // Halt (default) or Continue: follow the source
	OnRecreate      Action // Halt (default) or Continue: start again at the new topic's beginning
	// AppendToExisting lets a lane that the journal does not know append to a
	// target partition that already holds records.
	AppendToExisting bool

	ReplicationFactor int16  // of topics we create; 0: the target's default
	Group             string // on the source, shares the lanes; default "replicator.from.to"
	JournalTopic      string // default "replicator.from.to.journal"
	JournalPartitions int32
	// JournalReplicationFactor of a journal we create; 0 or -1: the best the target allows.
	JournalReplicationFactor int16
	Codec                    *wire.Codec // nil: as the source has it
	BatchBytes               int         // wire size merging aims at
	SmallBatchBytes          int         // batches below are merged with their neighbours
	MaxDecodedBytes          int         // bytes one batch may decompress to

	RefreshInterval time.Duration // topics, partitions, leaders
	SessionTimeout  time.Duration // of the group that shares the lanes
	ReopenInterval  time.Duration // a lane's epoch is taken anew at least this often
	Rack            string
}

// Action is what to do about an event of the source.
type Action uint8

// What may be done. Default stands for what the option's comment says.
const (
	Default Action = iota
	Halt
	Continue
)

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.RefreshInterval, 30*time.Second)
	def(&o.SessionTimeout, 10*time.Second)
	def(&o.ReopenInterval, 24*time.Hour)
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	num(&o.BatchBytes, 256<<10)
	num(&o.SmallBatchBytes, 16<<10)
	num(&o.MaxDecodedBytes, 128<<20)
	if o.JournalPartitions == 0 {
		o.JournalPartitions = 16
	}
	if o.Name == "" {
		o.Name = o.From + "->" + o.To
	}
	if o.Group == "" {
		o.Group = "replicator." + o.From + "." + o.To
	}
	if o.JournalTopic == "" {
		o.JournalTopic = "replicator." + o.From + "." + o.To + ".journal"
	}
	if o.Rename == nil {
		o.Rename = func(t string) string { return t }
	}
	if o.Heartbeats {
		o = o.withHeartbeats()
	}
	if o.OnGap == Default {
		o.OnGap = Continue
	}
	if o.OnTruncation == Default {
		o.OnTruncation = Halt
	}
	if o.OnRecreate == Default {
		o.OnRecreate = Halt
	}
	return o
}

// withHeartbeats adds the topic of heartbeats to what is copied.
func (o Options) withHeartbeats() Options {
	from, rename := o.From, o.Rename
	o.Rename = func(topic string) string {
		if topic == mirrormaker.HeartbeatsTopic {
			return mirrormaker.RemoteHeartbeats(from)
		}
		return rename(topic)
	}
	o.Topics = append(slices.Clone(o.Topics), mirrormaker.HeartbeatsTopic)
	return o
}

// transactionalID names a lane's producer on the target. The journal
// can name a generation above 0, for when the id before it is stuck for good.
func (o Options) transactionalID(topic string, partition, generation int32) string {
	id := fmt.Sprintf("replicator.%s.%s.%s.%d", o.From, o.To, topic, partition)
	if generation > 0 {
		id += fmt.Sprintf(".g%d", generation)
	}
	return id
}

// internalTopics are never copied: Kafka's own, ours, and MirrorMaker's books.
var internalTopics = regexp.MustCompile(`^(__.*|replicator\..*|mm2-.*\.internal|.*\.checkpoints\.internal)$`)

// Match returns what decides whether a source topic of a name is copied.
func (o Options) Match() (func(topic string) bool, error) {
	o = o.withDefaults()
	f, err := newTopicFilter(o)
	if err != nil {
		return nil, err
	}
	return func(topic string) bool { return f.match(topic) && o.Rename(topic) != "" }, nil
}

// topicFilter decides which topics are copied.
type topicFilter struct {
	include, exclude *regexp.Regexp
	always           string          // a topic that is copied whatever is excluded
	never            map[string]bool // topics that are the copies of heartbeats
}

func newTopicFilter(o Options) (topicFilter, error) {
	compile := func(list []string) (*regexp.Regexp, error) {
		if len(list) == 0 {
			return nil, nil
		}
		for _, p := range list {
			if _, err := regexp.Compile(p); err != nil {
				return nil, fmt.Errorf("compile topic pattern %q: %w", p, err)
			}
		}
		return regexp.Compile(`^(?:` + strings.Join(list, "|") + `)$`)
	}
	if o.Only != "" {
		return topicFilter{always: o.Only}, nil
	}
	var f topicFilter
	var err error
	if f.include, err = compile(o.Topics); err != nil {
		return topicFilter{}, err
	}
	if f.exclude, err = compile(o.TopicsExclude); err != nil {
		return topicFilter{}, err
	}
	if o.Heartbeats {
		f.always = mirrormaker.HeartbeatsTopic
		// On the source these are what the links of the other direction have made.
		f.never = map[string]bool{mirrormaker.RemoteHeartbeats(o.From): true, mirrormaker.RemoteHeartbeats(o.To): true}
	}
	return f, nil
}

func (f topicFilter) match(topic string) bool {
	if f.always != "" && topic == f.always {
		return true
	}
	return f.include != nil && f.include.MatchString(topic) && !f.never[topic] &&
		(f.exclude == nil || !f.exclude.MatchString(topic)) && !internalTopics.MatchString(topic)
}
