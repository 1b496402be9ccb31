package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicator/pkg/cluster"
	"replicator/pkg/hooks"
)

const aliasRule = "use small letters, digits, - and _, beginning with a letter, at most 32"

var (
	// An alias stands in metrics, topic prefixes and transactional ids.
	aliasGrammar = regexp.MustCompile(`^[a-z]([a-z0-9_-]{0,30}[a-z0-9])?$`)
	linkGrammar  = regexp.MustCompile(`^[a-z]([a-z0-9_>-]{0,64}[a-z0-9])?$`)
	topicGrammar = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
)

// checker finds what is wrong with a whole, decoded configuration. It says
// nothing more about a setting the readers have found fault with.
type checker struct {
	cfg     *Config
	origins map[string]Origin
	read    Faults // by the readers
	told    Faults // all
}

// Check returns everything that is wrong with a configuration however it was
// made. Load has done so.
func (c *Config) Check() Faults {
	k := checker{cfg: c}
	k.check()
	return k.told.sorted()
}

func (k *checker) add(key, value, text, hint string) {
	for _, f := range k.read {
		if f.Key == key || strings.HasPrefix(f.Key, key+".") || strings.HasPrefix(f.Key, key+"[") {
			return
		}
	}
	path := strings.NewReplacer(".", sep, "[", sep, "]", "").Replace(key)
	k.told = append(k.told, Fault{Origin: originOf(k.origins, path), Key: key, Value: value, Text: text, Hint: hint})
}

func (k *checker) faulty(key string) bool {
	return slices.ContainsFunc(k.read, func(f Fault) bool { return f.Key == key })
}

func (k *checker) check() {
	aliases := slices.Sorted(maps.Keys(k.cfg.Clusters))
	switch {
	case len(aliases) == 0:
		k.add("clusters", "", "there are none", "name two, each with bootstrap_servers")
	case len(k.cfg.Links) == 0:
		k.add("links", "", "there are none", "links: [{from: "+aliases[0]+", to: "+aliases[len(aliases)-1]+`, topics: [".*"]}]`)
	}
	for _, alias := range aliases {
		if !aliasGrammar.MatchString(alias) {
			k.add("clusters."+alias, "", "is not a name for a cluster", aliasRule)
		}
		for _, p := range k.cfg.Clusters[alias].Check() {
			// A mechanism that could not be read makes all of sasl look wrong.
			if strings.HasPrefix(p.Key, "sasl.") && k.faulty("clusters."+alias+".sasl.mechanism") {
				continue
			}
			k.add("clusters."+alias+"."+p.Key, p.Value, p.Text, p.Hint)
		}
	}
	for i := range k.cfg.Links {
		k.link(i, aliases)
	}
	k.links()
	k.cutover(aliases)
	k.http()
	if l := k.cfg.Limits; l.Memory < 8<<20 {
		k.add("limits.memory", l.Memory.String(), "must be at least 8MiB", "")
	}
	if l := k.cfg.Limits; l.DecodedBatch < 1<<20 || l.DecodedBatch > 1<<30 {
		k.add("limits.decoded_batch", l.DecodedBatch.String(), "must be from 1MiB to 1GiB", "")
	}
	if k.cfg.Log.Level != "" { // set by hand, the readers have not seen them
		k.enums(Log{}, "log", map[string]string{"level": k.cfg.Log.Level, "format": k.cfg.Log.Format})
	}
}

func (k *checker) link(i int, aliases []string) {
	l := &k.cfg.Links[i]
	at := fmt.Sprintf("links[%d].", i)
	k.end(at+"from", l.From, aliases)
	k.end(at+"to", l.To, aliases)
	if l.From != "" && l.From == l.To {
		k.add(at+"to", l.To, "is the source too: a cluster cannot be copied to itself", "")
	}
	if l.From != "" && l.To != "" && !linkGrammar.MatchString(l.Name) {
		k.add(at+"name", l.Name, "is not a name for a link", aliasRule)
	}
	if len(l.Topics) == 0 {
		k.add(at+"topics", "", "no topic would be copied", `topics: ["orders.*"], or [".*"] for all`)
	}
	for _, list := range []struct {
		key      string
		patterns []string
	}{
		{"topics", l.Topics}, {"topics_exclude", l.TopicsExclude}, {"sync.topic_configs_exclude", l.Sync.TopicConfigsExclude},
		{"groups", l.Groups}, {"groups_exclude", l.GroupsExclude},
	} {
		for j, p := range list.patterns {
			if text, hint := badPattern(p); text != "" {
				k.add(fmt.Sprintf("%s%s[%d]", at, list.key, j), p, text, hint)
			}
		}
	}
	k.naming(at, l)
	k.enums(Checkpoints{}, at+"checkpoints", map[string]string{"follow": l.Checkpoints.Follow})
	k.enums(Link{}, strings.TrimSuffix(at, "."), map[string]string{
		"naming": l.Naming, "isolation": l.Isolation, "start": l.Start, "on_gap": l.OnGap,
		"on_truncation": l.OnTruncation, "on_recreate": l.OnRecreate, "compression": l.Compression,
	})
	k.number(at+"replication_factor", l.ReplicationFactor, 100, true)
	k.number(at+"journal.replication_factor", l.Journal.ReplicationFactor, 100, true)
	k.number(at+"checkpoints.replication_factor", l.Checkpoints.ReplicationFactor, 100, true)
	k.span(at+"checkpoints.interval", l.Checkpoints.Interval, time.Second, time.Hour)
	k.span(at+"heartbeats.interval", l.Heartbeats.Interval, 100*time.Millisecond, time.Hour)
	if l.Verify.Share < 0 || l.Verify.Share > 1 {
		k.add(at+"verify.share", strconv.FormatFloat(l.Verify.Share, 'g', -1, 64), "must be from 0 to 1", "0.01 is one percent")
	}
	if l.Verify.Rate < 1<<20 {
		k.add(at+"verify.rate", l.Verify.Rate.String(), "must be at least 1MiB", "")
	}
	if linkGrammar.MatchString(l.Name) && !topicGrammar.MatchString(l.Checkpoints.Topic) {
		k.add(at+"checkpoints.topic", l.Checkpoints.Topic, "is not a name for a topic", "")
	}
	k.number(at+"journal.partitions", l.Journal.Partitions, 1000, false)
	if linkGrammar.MatchString(l.Name) && !topicGrammar.MatchString(l.Journal.Topic) {
		k.add(at+"journal.topic", l.Journal.Topic, "is not a name for a topic", "")
	}
	if l.BatchBytes < 1<<10 || l.BatchBytes > 16<<20 {
		k.add(at+"batch_bytes", l.BatchBytes.String(), "must be from 1KiB to 16MiB", "")
	} else if l.BatchBytes > k.cfg.Limits.Memory/4 {
		k.add(at+"batch_bytes", l.BatchBytes.String(), fmt.Sprintf("is more than a quarter of limits.memory, %s", k.cfg.Limits.Memory), "")
	}
	k.span(at+"refresh_interval", l.RefreshInterval, time.Second, time.Hour)
	k.span(at+"session_timeout", l.SessionTimeout, 3*time.Second, 30*time.Minute)
}

func (k *checker) end(key, alias string, aliases []string) {
	switch {
	case alias == "":
		k.add(key, "", "is missing", "the name of a cluster")
	case !slices.Contains(aliases, alias):
		hint := didYouMean(alias, aliases)
		if hint == "" && len(aliases) > 0 {
			hint = "there are " + strings.Join(aliases, ", ")
		}
		k.add(key, alias, "is no cluster of this configuration", hint)
	}
}

func (k *checker) naming(at string, l *Link) {
	if l.TopicPrefix != "" {
		if l.Naming != "prefix" {
			k.add(at+"topic_prefix", l.TopicPrefix, "has no effect with naming: "+l.Naming, "naming: prefix")
		} else if !topicGrammar.MatchString(l.TopicPrefix) {
			k.add(at+"topic_prefix", l.TopicPrefix, "has characters that no topic's name can have", "")
		}
	}
	if l.Naming != "map" {
		if len(l.TopicMap) > 0 {
			k.add(at+"topic_map", "", "has no effect with naming: "+l.Naming, "naming: map")
		}
		return
	}
	if len(l.TopicMap) == 0 {
		k.add(at+"topic_map", "", "is missing for naming: map", "topic_map: {orders: orders-copy}")
	}
	from := make(map[string]string)
	for _, source := range slices.Sorted(maps.Keys(l.TopicMap)) {
		target := l.TopicMap[source]
		for _, name := range []string{source, target} {
			if !topicGrammar.MatchString(name) {
				k.add(at+"topic_map", name, "is not a name for a topic", "")
			}
		}
		if other, ok := from[target]; ok {
			k.add(at+"topic_map", target, fmt.Sprintf("is the target of both %s and %s", other, source), "")
		}
		from[target] = source
	}
}

// enums checks texts with a list of values in the schema of a section.
func (k *checker) enums(sectionOf any, at string, values map[string]string) {
	n := rootSchema().field("log")
	switch sectionOf.(type) {
	case Link:
		n = rootSchema().field("links").elem
	case Checkpoints:
		n = rootSchema().field("links").elem.field("checkpoints")
	case Cutover:
		n = rootSchema().field("cutover")
	}
	for _, f := range n.fields {
		value, ok := values[f.name]
		if ok && !slices.Contains(f.node.oneof, value) && (value != "" || !f.node.optional) {
			k.add(at+"."+f.name, value, "want one of "+strings.Join(f.node.oneof, ", "), "")
		}
	}
}

func (k *checker) number(key string, v, most int, brokers bool) {
	if v >= 1 && v <= most || brokers && v == -1 {
		return
	}
	hint := ""
	if brokers {
		hint = "-1 leaves it to the target"
	}
	k.add(key, strconv.Itoa(v), fmt.Sprintf("must be from 1 to %d", most), hint)
}

func (k *checker) span(key string, v, least, most time.Duration) {
	if v < least || v > most {
		k.add(key, shortDuration(v), fmt.Sprintf("must be from %s to %s", shortDuration(least), shortDuration(most)), "")
	}
}

// Steps are those of a cutover that hooks can be put around.
var Steps = []string{"gates", "fence-writers", "drain", "verify", "promote", "fence-link", "open-writers", "groups", "reverse", "authority", "fence-returned", "stranded"}

func (k *checker) cutover(aliases []string) {
	c := &k.cfg.Cutover
	k.number("cutover.lag_limit", c.LagLimit, 1_000_000_000, false)
	k.span("cutover.clock_limit", c.ClockLimit, time.Second, time.Hour)
	k.span("cutover.settle", c.Settle, 100*time.Millisecond, time.Minute)
	k.span("cutover.drain_timeout", c.DrainTimeout, time.Second, time.Hour)
	k.span("cutover.groups_timeout", c.GroupsTimeout, 0, time.Hour)
	k.number("cutover.verify_records", c.VerifyRecords, 1_000_000_000, false)
	if c.Writers != "" {
		k.enums(Cutover{}, "cutover", map[string]string{"writers": c.Writers})
	}
	for alias, principal := range c.Principals {
		if !slices.Contains(aliases, alias) {
			k.add("cutover.principals."+alias, alias, "is no cluster of this configuration", didYouMean(alias, aliases))
		}
		if !strings.Contains(principal, ":") {
			k.add("cutover.principals."+alias, principal, "is not a principal", "Kafka's have a type: User:replicator")
		}
	}
	for i, principal := range c.Operators {
		if !strings.Contains(principal, ":") {
			k.add(fmt.Sprintf("cutover.operators[%d]", i), principal, "is not a principal", "Kafka's have a type: User:ann")
		}
	}
	for i := range c.Hooks {
		h, at := &c.Hooks[i], fmt.Sprintf("cutover.hooks[%d]", i)
		if !slices.Contains(Steps, h.Step) {
			k.add(at+".step", h.Step, "want one of "+strings.Join(Steps, ", "), didYouMean(h.Step, Steps))
		}
		if h.When != hooks.Before && h.When != hooks.After && h.When != hooks.Undo {
			k.add(at+".when", h.When, "want one of before, after, undo", "")
		}
		if len(h.Command) == 0 {
			k.add(at+".command", "", "is missing", `command: ["/usr/local/bin/move-dns", "west"]`)
		}
		k.span(at+".timeout", h.Timeout, time.Second, time.Hour)
	}
}

// links checks each link against the others.
func (k *checker) links() {
	links := k.cfg.Links
	for i := range links {
		a := &links[i]
		at := fmt.Sprintf("links[%d]", i)
		for j := range links[:i] {
			b := &links[j]
			switch {
			case a.Name == b.Name && a.Name != "":
				k.add(at+".name", a.Name, fmt.Sprintf("is the name of links[%d] too", j), "give each a name of its own")
			case a.To == b.To && a.Journal.Topic == b.Journal.Topic && a.Journal.Topic != "":
				k.add(at+".journal.topic", a.Journal.Topic, fmt.Sprintf("is the journal of links[%d] too", j), "")
			case a.To == b.To && a.Checkpoints.Topic == b.Checkpoints.Topic && a.Checkpoints.Topic != "":
				k.add(at+".checkpoints.topic", a.Checkpoints.Topic, fmt.Sprintf("has the checkpoints of links[%d] too", j), "")
			}
			// Of two governed links only that from the authoritative region copies.
			if a.From == b.To && a.To == b.From && a.From != a.To && !(a.Governed() && b.Governed()) {
				k.loop(at, a, b, j)
			}
		}
		k.sameCluster(at, a)
	}
}

// loop finds records that would travel in a circle between two links that run
// against each other. Patterns are compared by text and tried on names: that
// finds what people write, and the daemon looks again at real names.
func (k *checker) loop(at string, a, b *Link, j int) {
	const probe = "replicator-probe"
	for _, pair := range [][2]*Link{{a, b}, {b, a}} {
		out, back := pair[0], pair[1]
		var names []string
		switch out.Naming {
		case "map":
			names = slices.Sorted(maps.Values(out.TopicMap))
		default:
			for _, p := range append([]string{probe}, out.Topics...) {
				if p == probe || regexp.QuoteMeta(p) == strings.ReplaceAll(p, ".", `\.`) {
					if p == probe && !selects(out, p) {
						continue
					}
					names = append(names, out.TargetName(p))
				}
			}
		}
		for _, name := range names {
			if selects(back, name) && !(back.Naming == "map" && back.TopicMap[name] == "") {
				text := fmt.Sprintf("would copy back what links[%d] copies, round and round", j)
				hint := "give the two different topics or topics_exclude"
				if a.Naming == "identity" && b.Naming == "identity" {
					hint += ", or naming: prefix and exclude the prefixes"
				} else if out.Naming == "prefix" {
					hint = `topics_exclude: ["` + regexp.QuoteMeta(out.TopicPrefix) + `.*"] in the link from ` + back.From
				}
				k.add(at+".topics", strings.Join(a.Topics, ", "), text, hint)
				return
			}
		}
		// Two equal patterns without metacharacters were tried as names above.
		if out.Naming == "identity" && back.Naming == "identity" {
			for _, p := range out.Topics {
				if slices.Contains(back.Topics, p) && !excludesAll(out, p) && !excludesAll(back, p) {
					k.add(at+".topics", p, fmt.Sprintf("would copy back what links[%d] copies, round and round", j), "give the two different topics or topics_exclude, or naming: prefix and exclude the prefixes")
					return
				}
			}
		}
	}
}

func excludesAll(l *Link, pattern string) bool {
	return slices.Contains(l.TopicsExclude, pattern) || slices.Contains(l.TopicsExclude, ".*")
}

// selects reports whether a link copies a topic of that name. Patterns that
// do not compile select nothing: they are faults of their own.
func selects(l *Link, topic string) bool {
	in, errIn := Compile(l.Topics)
	out, errOut := Compile(l.TopicsExclude)
	return errIn == nil && errOut == nil && in.Match(topic) && !out.Match(topic)
}

// sameCluster finds a link whose two ends are visibly one cluster.
func (k *checker) sameCluster(at string, l *Link) {
	from, okFrom := k.cfg.Clusters[l.From]
	to, okTo := k.cfg.Clusters[l.To]
	if !okFrom || !okTo || l.From == l.To {
		return
	}
	if from.ClusterID != "" && from.ClusterID == to.ClusterID {
		k.add(at, "", fmt.Sprintf("%s and %s are the same cluster by cluster_id %s", l.From, l.To, from.ClusterID), "")
		return
	}
	for _, addr := range from.BootstrapServers {
		if slices.Contains(to.BootstrapServers, addr) {
			k.add(at, "", fmt.Sprintf("%s and %s have the bootstrap server %s in common", l.From, l.To, addr), "")
			return
		}
	}
}

func (k *checker) http() {
	h := k.cfg.HTTP
	if (h.TLS.CertFile == "") != (h.TLS.KeyFile == "") {
		k.add("http.tls", "", "cert_file and key_file go together", "")
	}
	if !h.Token.IsZero() {
		if _, err := h.Token.Resolve(); err != nil {
			k.add("http.token", "", err.Error(), "")
		}
	}
	if h.Listen == "" {
		return
	}
	host, port, err := net.SplitHostPort(h.Listen)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
		k.add("http.listen", h.Listen, "is not an address like 127.0.0.1:8475", "")
		return
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return
	}
	if h.TLS.CertFile == "" || h.Token.IsZero() {
		k.add("http.listen", h.Listen, "others than this machine could read it", "set http.tls and http.token, or listen on 127.0.0.1")
	}
}

// Patterns is a compiled list of regular expressions of whole names.
type Patterns struct{ list []*regexp.Regexp }

// Compile compiles a list. An empty list matches nothing.
func Compile(patterns []string) (Patterns, error) {
	var out Patterns
	for _, p := range patterns {
		re, err := regexp.Compile(`^(?:` + p + `)$`)
		if err != nil {
			return Patterns{}, fmt.Errorf("compile pattern %q: %w", p, err)
		}
		out.list = append(out.list, re)
	}
	return out, nil
}

// Match reports whether one of the patterns matches the whole name.
func (p Patterns) Match(name string) bool {
	return slices.ContainsFunc(p.list, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

func badPattern(p string) (text, hint string) {
	if p == "" {
		return "an empty pattern matches nothing", ""
	}
	// Alone first: "a)(b" compiles only inside the group Compile puts around.
	_, err := regexp.Compile(p)
	if err == nil {
		_, err = Compile([]string{p})
	}
	if err == nil {
		return "", ""
	}
	switch {
	case p == "*":
		hint = `write ".*": it is a regular expression`
	case strings.HasPrefix(p, "*"):
		hint = `write ".` + p + `": it is a regular expression`
	case strings.Contains(p, "(?=") || strings.Contains(p, "(?!") || strings.Contains(p, "(?<"):
		hint = "there is no look-around in this syntax (RE2): use the exclude list"
	}
	text = strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	return "is not a regular expression: " + text, hint
}

var _ error = Faults(nil)
var _ error = cluster.Problem{}
