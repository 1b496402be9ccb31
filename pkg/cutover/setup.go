package cutover

import (
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
	"replicator/pkg/hooks"
	"replicator/pkg/mirror"
)

// Verb is what a run is for.
type Verb string

// The verbs.
const (
	// Switchover is planned: both regions are healthy, nothing is lost.
	Switchover Verb = "switchover"
	// Failover gives the old region up; records not yet copied are lost to the new one.
	Failover Verb = "failover"
	// Rollback undoes a switchover while nothing has been written in the new region.
	Rollback Verb = "rollback"
	// Failback takes a region that returned after a failover in again, as the standby.
	Failback Verb = "failback"
	// Drill rehearses a switchover and changes nothing; see Rehearse.
	Drill Verb = "drill"
)

// Setup is what a run works on. Old is the region that is authoritative before a
// switchover, failover or rollback; in a failback it is the one that returned.
type Setup struct {
	Pair     authority.Pair
	Old, New Region
	Forward  Link  // Old->New
	Reverse  *Link // New->Old, nil: not configured
	Settings Settings
	Hooks    []hooks.Hook
	Tool     string   // name and version of the program
	Secrets  []string // values that must not stand in the evidence, whatever prints them
	Log      *zap.Logger
}

// Region is one side of the pair.
type Region struct {
	Alias   string
	Cluster *cluster.Cluster // nil: not reachable
	Err     error            // why it is not reachable
	// Partly: some of its brokers answer, but not all that has to be asked.
	Partly bool
	// Principal is the daemon's on this cluster, "" unknown.
	Principal string
}

// Link is a direction of the pair.
type Link struct {
	Name             string
	Options          mirror.Options
	CheckpointsTopic string                 // on its target
	Group            func(name string) bool // groups whose offsets are translated
	Topic            func(name string) bool // topics that are copied
}

// Settings are the limits of a run.
type Settings struct {
	LagLimit      int64 // records a lane may be behind when a switchover begins
	ClockLimit    time.Duration
	Writers       string   // acl, hook or stopped
	Operators     []string // principals the rules spare besides the daemon's
	Settle        time.Duration
	DrainTimeout  time.Duration
	GroupsTimeout time.Duration
	VerifyRecords int64
	EvidenceDir   string
}

// Request is one call of a verb.
type Request struct {
	Verb        Verb
	By, Why     string
	ExpectEpoch int64 // of the authority record before the run, -1 any
	Force       bool  // failover: although the old region is alive
	Undo        bool  // undo an unfinished run instead of finishing it
	Stranded    Decision
	ExportTo    string   // file for stranded records with the decision export
	SkipGroups  []string // groups that may stay unplaced

	// rehearsal: a drill, which needs fewer rights than what it rehearses.
	rehearsal bool

	// Confirm is asked with the plan before anything is changed.
	Confirm func(*Plan) error
	// Watch is told every event and, between them, how far a step is.
	Watch Watcher
}

func (q Request) progress(step, format string, args ...any) {
	if q.Watch != nil {
		q.Watch.Progress(step, fmt.Sprintf(format, args...))
	}
}

// Watcher follows a run. Its methods are called from one goroutine.
type Watcher interface {
	Event(evidence.Event)
	Progress(step, text string)
}

// Operator names who runs a command: user@host.
func Operator() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return name + "@" + host
}

// RefusedError is a run that was not begun, or given up, because a gate or a check
// said no. Nothing is left half done.
type RefusedError struct {
	Reasons []string
	Fix     string
}

func (e *RefusedError) Error() string {
	if len(e.Reasons) == 1 {
		return e.Reasons[0]
	}
	return fmt.Sprintf("%d reasons; %s", len(e.Reasons), strings.Join(e.Reasons, "; "))
}

func refused(fix, format string, args ...any) error {
	return &RefusedError{Reasons: []string{fmt.Sprintf(format, args...)}, Fix: fix}
}
