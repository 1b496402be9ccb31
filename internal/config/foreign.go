package config

import "strings"

// foreignNames answers names that people bring along from Java clients and
// MirrorMaker 2 with ours.
var foreignNames = map[string]string{
	"bootstrap.servers":                     "use bootstrap_servers",
	"client.rack":                           "use rack",
	"client.id":                             "is fixed: replicator",
	"security.protocol":                     "use tls.enabled and sasl.mechanism",
	"ssl.truststore.location":               "use tls.ca_file, a PEM file",
	"ssl.truststore.certificates":           "use tls.ca_file, a PEM file",
	"ssl.truststore.password":               "not needed: tls.ca_file is a PEM file",
	"ssl.truststore.type":                   "not needed: tls.ca_file is a PEM file",
	"ssl.keystore.location":                 "use tls.cert_file and tls.key_file, PEM files",
	"ssl.keystore.certificate.chain":        "use tls.cert_file, a PEM file",
	"ssl.keystore.key":                      "use tls.key_file, a PEM file",
	"ssl.keystore.password":                 "not needed: tls.key_file is a PEM file that only we may read",
	"ssl.keystore.type":                     "not needed: tls.cert_file and tls.key_file are PEM files",
	"ssl.key.password":                      "not needed: tls.key_file is a PEM file that only we may read",
	"ssl.endpoint.identification.algorithm": "names are always checked; tls.server_name sets another",
	"ssl.enabled.protocols":                 "use tls.min_version",
	"ssl.protocol":                          "use tls.min_version",
	"sasl.mechanism":                        "write it nested: sasl: {mechanism: ...}",
	"sasl.jaas.config":                      "use sasl.username and sasl.password, or sasl.oauth, or sasl.aws",
	"sasl.login.callback.handler.class":     "use sasl.mechanism with sasl.oauth or sasl.aws",
	"sasl.client.callback.handler.class":    "use sasl.mechanism with sasl.oauth or sasl.aws",
	"sasl.oauthbearer.token.endpoint.url":   "use sasl.oauth.token_url",
	"request.timeout.ms":                    "use timeouts.request",
	"socket.connection.setup.timeout.ms":    "use timeouts.dial",
	"session.timeout.ms":                    "use session_timeout of the link",
	"isolation.level":                       "use isolation of the link",
	"auto.offset.reset":                     "use start of the link",
	"compression.type":                      "use compression of the link; empty keeps what the source has",
	"batch.size":                            "use batch_bytes of the link",
	"acks":                                  "is fixed: all",
	"enable.idempotence":                    "is fixed: true",
	"topics.blacklist":                      "use topics_exclude",
	"topics.exclude":                        "use topics_exclude",
	"topics.whitelist":                      "use topics",
	"config.properties.blacklist":           "use sync.topic_configs_exclude",
	"config.properties.exclude":             "use sync.topic_configs_exclude",
	"replication.factor":                    "use replication_factor of the link",
	"replication.policy.class":              "use naming: identity or naming: prefix",
	"replication.policy.separator":          "use topic_prefix, with the separator in it",
	"source.cluster.alias":                  "use from of the link",
	"target.cluster.alias":                  "use to of the link",
	"refresh.topics.enabled":                "topics are always looked at, every refresh_interval",
	"refresh.topics.interval.seconds":       "use refresh_interval",
	"sync.topic.configs.enabled":            "use sync.topic_configs",
	"offset-syncs.topic.replication.factor": "use journal.replication_factor",
	"groups.exclude":                        "use groups_exclude",
	"groups.blacklist":                      "use groups_exclude",
	"refresh.groups.enabled":                "groups are always looked at",
	"refresh.groups.interval.seconds":       "use checkpoints.interval",
	"emit.checkpoints.enabled":              "use checkpoints.follow and checkpoints.mirrormaker",
	"emit.checkpoints.interval.seconds":     "use checkpoints.interval",
	"checkpoints.topic.replication.factor":  "use checkpoints.replication_factor",
	"sync.group.offsets.enabled":            "use checkpoints.commit_groups",
	"sync.group.offsets.interval.seconds":   "use checkpoints.interval",
	"emit.heartbeats.enabled":               "use heartbeats.enabled",
	"emit.heartbeats.interval.seconds":      "use heartbeats.interval",
	"heartbeats.replication.enabled":        "use heartbeats.enabled",
	"offset.lag.max":                        "not needed: every offset is translated exactly",
	"emit.offset-syncs.enabled":             "not needed: the journal has every offset",
	"tasks.max":                             "has no equal: one daemon takes all lanes, several share them",
}

// foreign answers a Java name, also with the prefixes that MirrorMaker 2 puts
// before it ("east.ssl.truststore.location", "consumer.isolation.level").
func foreign(key string) string {
	for key := strings.ToLower(key); ; {
		if answer, ok := foreignNames[key]; ok {
			return answer
		}
		_, rest, ok := strings.Cut(key, ".")
		if !ok {
			return ""
		}
		key = rest
	}
}
