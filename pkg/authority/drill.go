package authority

import (
	"encoding/json"
	"time"
)

// DrillRole is the role of a drill, see [Config], and the name of the fact it leaves.
const DrillRole = "drill"

// Drill is what the last drill of a direction found, as it left it on the region that
// would have been promoted.
type Drill struct {
	Run     string    `json:"run"`
	Ended   time.Time `json:"ended"`
	From    string    `json:"from"` // region that is authoritative
	To      string    `json:"to"`   // region that would have been promoted
	Success bool      `json:"success"`
	Failed  []string  `json:"failed,omitempty"` // gates and checks that were not passed
	By      string    `json:"by"`
	Tool    string    `json:"tool"`
	// RTO is how long no region would take writes in a switchover, by the steps as
	// measured; absent where a step did not come to its end.
	RTO *float64 `json:"rto_seconds,omitempty"`
	// LagRecords and LagSeconds are what was not copied yet: a failover would have lost it.
	LagRecords int64   `json:"lag_records"`
	LagSeconds float64 `json:"lag_seconds"`
	// LastSuccess is when a drill of the direction was passed last.
	LastSuccess *time.Time `json:"last_success,omitempty"`
}

// Drill returns what the last drill left on this copy's cluster, false if there was
// none or a newer replicator wrote what is not understood here.
func (s State) Drill() (Drill, bool) {
	fact, ok := s.Facts[DrillRole]
	var d Drill
	if !ok || json.Unmarshal(fact.Data, &d) != nil || d.Ended.IsZero() {
		return Drill{}, false
	}
	return d, true
}
