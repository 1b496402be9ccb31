package evidence

import "time"

// Kind says which document an event holds.
type Kind string

// The kinds, each with its document.
const (
	KindPlan      Kind = "plan"      // PlanDoc
	KindRegions   Kind = "regions"   // RegionsDoc
	KindGates     Kind = "gates"     // GatesDoc
	KindLanes     Kind = "lanes"     // LanesDoc
	KindLoss      Kind = "loss"      // LossDoc
	KindGrowth    Kind = "growth"    // GrowthDoc
	KindChecks    Kind = "checks"    // ChecksDoc
	KindVerify    Kind = "verify"    // VerifyDoc
	KindGroups    Kind = "groups"    // GroupsDoc
	KindAuthority Kind = "authority" // AuthorityDoc
	KindFence     Kind = "fence"     // FenceDoc
	KindStranded  Kind = "stranded"  // StrandedDoc
	KindHook      Kind = "hook"      // HookDoc
	KindStep      Kind = "step"      // StepDoc
	KindOutcome   Kind = "outcome"   // OutcomeDoc
)

// Offsets are next offsets, durations are seconds, what is not known is absent. Rows of one
// document may come in several events (Event.Part), so that none is too large for a topic.

// PlanDoc is what a run set out to do. It is the first event of a run; a run that is resumed
// writes another one.
type PlanDoc struct {
	Verb      string            `json:"verb"` // switchover, failover, rollback, failback, drill, verify
	Link      string            `json:"link,omitempty"`
	From      string            `json:"from"`       // region that is authoritative before
	To        string            `json:"to"`         // region that is to be after
	Epoch     int64             `json:"epoch"`      // before
	NextEpoch int64             `json:"next_epoch"` // as it is before, if the authority does not change
	By        string            `json:"by"`
	Why       string            `json:"why,omitempty"`
	Tool      string            `json:"tool"` // name and version
	Options   map[string]string `json:"options,omitempty"`
	Actions   []Action          `json:"actions"`         // in their order
	Fence     string            `json:"fence,omitempty"` // what the fence will rest on, and for how long
}

// Action is one step of a plan.
type Action struct {
	Step         string `json:"step"`
	What         string `json:"what"`
	Irreversible bool   `json:"irreversible,omitempty"` // from here on the way is forward
}

// When says whether a table shows the world before or after the run.
type When string

// The two times.
const (
	Before When = "before"
	After  When = "after"
)

// RegionsDoc is the table of both regions.
type RegionsDoc struct {
	When When        `json:"when"`
	Rows []RegionRow `json:"rows"`
}

// Roles of a region, and what producers may do there.
const (
	RoleAuthoritative = "authoritative"
	RoleStandby       = "standby"
	WritersOpen       = "open"
	WritersFenced     = "fenced"
	NotKnown          = "unknown"
)

// RegionRow is one region.
type RegionRow struct {
	Region     string   `json:"region"`
	ClusterID  string   `json:"cluster_id,omitempty"`
	Reachable  bool     `json:"reachable"`
	Role       string   `json:"role"`       // authoritative, standby, unknown
	Epoch      int64    `json:"epoch"`      // of the authority, as this region has it
	Writers    string   `json:"writers"`    // open, fenced, unknown
	LinkState  string   `json:"link_state"` // of the link that writes to this region
	LagRecords *int64   `json:"lag_records,omitempty"`
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
}

// GatesDoc is what had to hold before anything was done.
type GatesDoc []Gate

// Gate is one of them.
type Gate struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"` // what to do where it is not OK, a command if there is one
}

// LanesDoc is how far each lane had come.
type LanesDoc []LaneRow

// LaneRow is one lane.
type LaneRow struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	SourceEnd int64  `json:"source_end"`           // -1: not known
	Position  int64  `json:"position"`             // next source offset the lane appends
	Lag       *int64 `json:"lag,omitempty"`        // offsets from position to source end
	TargetEnd int64  `json:"target_end"`           // -1: not known
	Writer    string `json:"writer,omitempty"`     // producer id and epoch of the lane's last epoch record
	MapDigest string `json:"map_digest,omitempty"` // of the offset map
	Refused   bool   `json:"refused,omitempty"`    // an append of the old writer was tried and refused
}

// LossDoc is what of the source is not on the target: estimated before, or counted after.
type LossDoc struct {
	Rows   []LossRow `json:"rows"`
	Basis  string    `json:"basis"`  // what the figures rest on, and how old that is
	Actual bool      `json:"actual"` // counted; else estimated
}

// LossRow is one topic. An estimate says between what numbers the loss is: Seen if the source
// took no writes after it was seen last, Records if it took them until the end.
type LossRow struct {
	Topic   string   `json:"topic"`
	Seen    *int64   `json:"seen,omitempty"` // records at least: seen on the source, not copied
	Records int64    `json:"records"`        // estimated: at most
	Bytes   *int64   `json:"bytes,omitempty"`
	Seconds *float64 `json:"seconds,omitempty"` // since the source was seen last
}

// GrowthDoc is which source partitions grew although their writers were fenced.
type GrowthDoc []GrowthRow

// GrowthRow is one partition, looked at twice.
type GrowthRow struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	From      int64   `json:"from"` // end at the first look
	To        int64   `json:"to"`   // end at the second
	PerSecond float64 `json:"per_second"`
}

// ChecksDoc is what was checked on the way.
type ChecksDoc []Check

// Check is one of them.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// VerifyDoc is a comparison of source and target, record by record.
type VerifyDoc struct {
	Lanes       int          `json:"lanes"`
	Records     int64        `json:"records"` // compared
	Differences int64        `json:"differences"`
	First       []Difference `json:"first,omitempty"` // the first of each lane that differs, bounded
	Sum         string       `json:"sum,omitempty"`   // checksum over what was compared
}

// Difference is one record that is not the same on both sides.
type Difference struct {
	Topic        string `json:"topic"`
	Partition    int32  `json:"partition"`
	SourceOffset int64  `json:"source_offset"`
	TargetOffset int64  `json:"target_offset"`
	What         string `json:"what"`
}

// GroupsDoc is where consumer groups resume.
type GroupsDoc []GroupRow

// GroupRow is one group's offset in one partition.
type GroupRow struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Source    *int64 `json:"source_offset,omitempty"`
	Target    *int64 `json:"target_offset,omitempty"`
	Outcome   string `json:"outcome"` // of the translation: exact, next, end, ahead, gap, before, unknown
	Action    string `json:"action"`  // place, keep, skip
	Reason    string `json:"reason,omitempty"`
	Proved    *bool  `json:"proved,omitempty"` // read back as placed
}

// AuthorityDoc is what each copy of the authority record says.
type AuthorityDoc struct {
	Copies []AuthorityCopy `json:"copies"`
}

// AuthorityCopy is the record on one cluster.
type AuthorityCopy struct {
	Cluster   string     `json:"cluster"`
	Epoch     int64      `json:"epoch"`
	Region    string     `json:"region,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Reachable bool       `json:"reachable"`
	Error     string     `json:"error,omitempty"`
}

// FenceDoc is the proof that the old link can no longer append.
type FenceDoc struct {
	Lanes      int        `json:"lanes"`
	Fenced     int        `json:"fenced"`  // opened: their epoch was taken
	Refused    int        `json:"refused"` // an append of the old writer was tried there and refused
	Basis      []string   `json:"basis"`   // what it rests on
	HoldsUntil *time.Time `json:"holds_until,omitempty"`
	Rows       []FenceRow `json:"rows"`
}

// NotTried is how an answer begins where no append was tried; why follows.
const NotTried = "not tried"

// FenceRow is one lane.
type FenceRow struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	OldWriter string `json:"old_writer,omitempty"` // producer id and epoch
	NewWriter string `json:"new_writer,omitempty"`
	End       int64  `json:"end"`    // of the target's log: final for the closed direction
	Answer    string `json:"answer"` // of the broker to the append that was tried, word by word
}

// Decisions about stranded records.
const (
	StrandedExport  = "export"
	StrandedReplay  = "replay"
	StrandedDiscard = "discard"
)

// StrandedDoc is what the old region took after the last replicated position.
type StrandedDoc struct {
	Rows     []StrandedRow `json:"rows"`
	Decision string        `json:"decision,omitempty"` // export, replay, discard
	// File is where the rows' records are exported to, on the host of who runs the command.
	// It is complete, and appears behind this event.
	File   string `json:"file,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of the file, in hexadecimal
}

// StrandedRow is one partition.
type StrandedRow struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"` // source offset, next after the last one replicated
	To        int64  `json:"to"`   // source end
	Records   int64  `json:"records"`
	Bytes     *int64 `json:"bytes,omitempty"`
}

// HookDoc is one command of the user's that was run.
type HookDoc struct {
	Step    string   `json:"step"`
	When    string   `json:"when"` // before or after the step
	Command []string `json:"command"`
	Exit    int      `json:"exit"`
	Took    float64  `json:"took_seconds"`
	Output  string   `json:"output,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// Results of a step.
const (
	StepBegun   = "begun" // said at its beginning; a step that says no more was cut off
	StepDone    = "done"
	StepSkipped = "skipped"
	StepFailed  = "failed"
	StepUndone  = "undone"
)

// StepDoc is how a step went.
type StepDoc struct {
	Name    string  `json:"name"`
	Outcome string  `json:"outcome"` // begun, done, skipped, failed, undone
	Took    float64 `json:"took_seconds"`
	Proof   string  `json:"proof,omitempty"` // what shows it; for failed and skipped: why
}

// Outcomes of a run.
const (
	OutcomeDone        = "done"
	OutcomeFailed      = "failed"
	OutcomeUndone      = "undone"      // failed, and what it had done was taken back
	OutcomeInterrupted = "interrupted" // to be resumed
	OutcomeRefused     = "refused"     // a gate or check said no, nothing was done
)

// OutcomeDoc is how a run ended. A run that was killed has none.
type OutcomeDoc struct {
	Outcome              string   `json:"outcome"` // done, failed, undone, interrupted, refused
	Error                string   `json:"error,omitempty"`
	Took                 float64  `json:"took_seconds"`
	WritersFencedSeconds *float64 `json:"writers_fenced_seconds,omitempty"` // no region took writes for that long
	RTO                  *float64 `json:"rto_seconds,omitempty"`            // from the run's beginning until the new region takes writes
	Next                 string   `json:"next,omitempty"`                   // what to do now
}
