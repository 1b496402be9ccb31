package status

import (
	"time"

	"replicator/pkg/authority"
)

// Authority is who is authoritative in a pair, by the copies this daemon watches.
type Authority struct {
	Pair    string   `json:"pair"`
	Regions []string `json:"regions"`
	Known   bool     `json:"known"`
	Epoch   int64    `json:"epoch"`            // highest of the copies; 0: no record was ever written
	Region  string   `json:"region,omitempty"` // absent unless known
	// Since is when the region became authoritative; absent with epoch 0.
	Since  *time.Time      `json:"since,omitempty"`
	Error  string          `json:"error,omitempty"` // why it is not known
	Copies []AuthorityCopy `json:"copies"`
	// Drill is the last rehearsal of a switchover, of either direction, that a copy
	// tells of; absent: none does.
	Drill *authority.Drill `json:"drill,omitempty"`
}

// AuthorityCopy is what is known of one cluster's copy.
type AuthorityCopy struct {
	Cluster string   `json:"cluster"`
	Epoch   int64    `json:"epoch"`                 // as last seen
	Age     *float64 `json:"age_seconds,omitempty"` // since the copy was last seen to say so; absent: never
	Error   string   `json:"error,omitempty"`       // why nothing newer is known
}

// AuthorityOf sums up what watchers know of a pair's copies, by cluster. implied is
// the region without a record, empty if none is.
func AuthorityOf(pair authority.Pair, implied string, copies map[string]authority.Knowledge, now time.Time) Authority {
	a := Authority{Pair: pair.String(), Regions: []string{pair.A, pair.B}, Copies: []AuthorityCopy{}}
	var best authority.State
	unread := false
	for _, cluster := range a.Regions {
		k, watched := copies[cluster]
		if !watched {
			continue
		}
		c := AuthorityCopy{Cluster: cluster, Epoch: k.State.Epoch()}
		if k.Err != nil {
			c.Error = k.Err.Error()
		}
		if !k.AsOf.IsZero() {
			age := max(0, now.Sub(k.AsOf)).Seconds()
			c.Age = &age
		}
		a.Copies = append(a.Copies, c)
		if d, ok := k.State.Drill(); ok && (a.Drill == nil || d.Ended.After(a.Drill.Ended)) {
			a.Drill = &d
		}
		unread = unread || !k.Known
		switch {
		case !k.Known && a.Error == "":
			a.Error = c.Error
		case !k.Known:
		case a.Known && authority.Compare(best, k.State).Relation == authority.Split:
			a.Error = "the copies give an epoch to two regions"
			return a.undecided()
		case !a.Known || k.State.Epoch() > best.Epoch():
			a.Known, best = true, k.State
		}
	}
	current, found := best.Current()
	a.Epoch, a.Region = current.Epoch, best.Region(implied)
	if found {
		a.Since = &current.Since
	}
	switch {
	case !a.Known && a.Error == "":
		a.Error = "no copy was read yet"
	case a.Known && a.Region == "" && unread: // it may have one
		why := a.Error
		a.Error = "one copy has no record, the other was not read"
		if why != "" {
			a.Error += ": " + why
		}
	case a.Known && a.Region == "":
		a.Error = "no authority was ever set, and the links copy both ways"
	case a.Known:
		a.Error = "" // of the other copy, which says so itself
	}
	a.Known = a.Known && a.Region != ""
	return a
}

// undecided takes back what was found.
func (a Authority) undecided() Authority {
	a.Known, a.Epoch, a.Region, a.Since = false, 0, "", nil
	return a
}
