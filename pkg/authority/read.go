package authority

import (
	"cmp"
	"context"
	"errors"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
)

// Names of the topics where nothing else is configured.
const (
	DefaultTopic      = "replicator.authority"
	DefaultAuditTopic = "replicator.audit"
)

// Config names one copy.
type Config struct {
	Cluster    *cluster.Cluster
	Pair       Pair
	Topic      string // of authority; default DefaultTopic
	AuditTopic string // default DefaultAuditTopic
	// Role is "" for who changes the authority. Another name is of a command that
	// changes nothing of it: its [Changer] excludes only others of that role, and may
	// write facts and events, but no authority.
	Role string
	// ReplicationFactor holds when topics are created; 0 or less is 3 where there
	// are three brokers, else the cluster's default.
	ReplicationFactor int16
	Log               *zap.Logger // may be nil
}

func (cfg Config) withDefaults() Config {
	cfg.Topic = cmp.Or(cfg.Topic, DefaultTopic)
	cfg.AuditTopic = cmp.Or(cfg.AuditTopic, DefaultAuditTopic)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return cfg
}

// transactionalID is the id that a changer takes.
func (cfg Config) transactionalID() string {
	if cfg.Role == "" {
		return cfg.Pair.TransactionalID()
	}
	return cfg.Pair.TransactionalID() + "." + cfg.Role
}

// Read reads the copy once, to the last stable offset as it is now. A missing topic
// is State.Missing. A missing right is an error that names it, a record that cannot
// be understood is a *CorruptError.
func Read(ctx context.Context, cfg Config) (State, error) {
	cfg = cfg.withDefaults()
	r := newCopyReader(cfg, cfg.Cluster.Client())
	if err := r.sync(ctx); err != nil {
		return State{}, err
	}
	return r.state()
}

// unsure tells whether an error leaves what was known before as good as it was: it
// is of the way to the cluster and not of the copy.
func unsure(err error) bool {
	return transient(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
