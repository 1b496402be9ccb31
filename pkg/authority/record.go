package authority

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// recordVersion is the newest version of values that is known here.
const recordVersion = 1

// Pair is two regions, by the aliases of their clusters. A is the smaller name.
type Pair struct{ A, B string }

// PairOf makes a pair of two regions in any order.
func PairOf(x, y string) Pair {
	if x > y {
		x, y = y, x
	}
	return Pair{x, y}
}

func (p Pair) String() string { return p.A + "/" + p.B }

// Other returns the region that is not the one given, "" if that is none of the pair.
func (p Pair) Other(region string) string {
	switch region {
	case p.A:
		return p.B
	case p.B:
		return p.A
	}
	return ""
}

// Has tells whether a region is one of the pair.
func (p Pair) Has(region string) bool { return region == p.A || region == p.B }

// TransactionalID is the id under which the pair's authority is changed. Who takes
// it fences all others.
func (p Pair) TransactionalID() string { return "replicator.authority." + p.A + "." + p.B }

// Record says which region of a pair is authoritative as of an epoch.
type Record struct {
	Pair   string    `json:"pair"`  // as Pair.String writes it
	Epoch  int64     `json:"epoch"` // from 1 on; the highest counts
	Region string    `json:"region"`
	Verb   string    `json:"verb"` // the command that wrote it: init, switchover, failover, ...
	By     string    `json:"by"`   // who ran it
	Why    string    `json:"why"`
	Run    string    `json:"run"`   // its id in the audit topic
	Tool   string    `json:"tool"`  // version of the program
	Since  time.Time `json:"since"` // when it was written, by the clock of who wrote it
}

// Ready says that a link's journal was prepared and that the link may append under
// an epoch. It lies on the link's target.
type Ready struct {
	From  string    `json:"from"`
	To    string    `json:"to"`
	Epoch int64     `json:"epoch"`
	Run   string    `json:"run"`
	Since time.Time `json:"since"`
}

// Fact is something a run leaves for later runs on a cluster, by name: that of a later
// value of the same name counts. Data null says that there is nothing any more.
type Fact struct {
	Name  string          `json:"name"` // small letters and digits
	Run   string          `json:"run"`
	Since time.Time       `json:"since"`
	Data  json.RawMessage `json:"data"`
}

// Direction is the key of a ready fact in a State: "east->west".
func Direction(from, to string) string { return from + "->" + to }

// entry is a record of the topic: a key and what its value says.
type entry struct {
	pair   Pair
	record *Record
	ready  *Ready
	fact   *Fact
}

func recordKey(p Pair, epoch int64) string { return fmt.Sprintf("%s/epoch/%d", p, epoch) }
func readyKey(p Pair, from, to string) string {
	return fmt.Sprintf("%s/ready/%s/%s", p, from, to)
}

func factKey(p Pair, name string) string { return fmt.Sprintf("%s/fact/%s", p, name) }

// place is what a key stands for. Either epoch, or from and to, or fact are set.
type place struct {
	pair     Pair
	epoch    int64
	from, to string
	fact     string
}

// parseKey understands a key. The pair it returns is set as soon as it could be
// read, so that what is wrong with another pair's does no harm here.
func parseKey(key string) (place, error) {
	parts := strings.Split(key, "/")
	if len(parts) < 3 || parts[0] == "" || parts[1] == "" || parts[0] >= parts[1] {
		return place{}, errors.New("the key names no pair")
	}
	at := place{pair: Pair{parts[0], parts[1]}}
	switch kind := parts[2]; {
	case kind == "epoch" && len(parts) == 4:
		n, err := strconv.ParseInt(parts[3], 10, 64)
		if err != nil || n < 1 || strconv.FormatInt(n, 10) != parts[3] {
			return at, fmt.Errorf("the key's epoch is %q", parts[3])
		}
		at.epoch = n
	case kind == "ready" && len(parts) == 5:
		at.from, at.to = parts[3], parts[4]
		if at.from == at.to || !at.pair.Has(at.from) || !at.pair.Has(at.to) {
			return at, fmt.Errorf("the key's direction %s is none of the pair's", Direction(at.from, at.to))
		}
	case kind == "fact" && len(parts) == 4 && parts[3] != "":
		at.fact = parts[3]
	default:
		return at, fmt.Errorf("the key is of an unknown kind %q", kind)
	}
	return at, nil
}

// versioned is what every value has.
type versioned struct {
	Version int `json:"version"`
}

type recordValue struct {
	versioned
	Record
}

type readyValue struct {
	versioned
	Ready
}

type factValue struct {
	versioned
	Fact
}

func encodeFact(f Fact) ([]byte, error) {
	return json.Marshal(factValue{versioned{recordVersion}, f})
}

func encodeRecord(r Record) ([]byte, error) {
	return json.Marshal(recordValue{versioned{recordVersion}, r})
}

func encodeReady(r Ready) ([]byte, error) {
	return json.Marshal(readyValue{versioned{recordVersion}, r})
}

// decodeValue understands the value of a key that stands for at.
func decodeValue(at place, value []byte) (entry, error) {
	var v versioned
	if err := json.Unmarshal(value, &v); err != nil {
		return entry{}, fmt.Errorf("the value is no JSON object: %w", err)
	}
	switch {
	case v.Version > recordVersion:
		return entry{}, &VersionError{Version: v.Version, Known: recordVersion}
	case v.Version < 1:
		return entry{}, errors.New("the value has no version")
	}
	e := entry{pair: at.pair}
	if at.epoch > 0 {
		var r recordValue
		if err := json.Unmarshal(value, &r); err != nil {
			return entry{}, fmt.Errorf("the value cannot be read: %w", err)
		}
		e.record = &r.Record
		return e, checkRecord(at.pair, r.Record, at.epoch)
	}
	if at.fact != "" {
		var f factValue
		if err := json.Unmarshal(value, &f); err != nil {
			return entry{}, fmt.Errorf("the value cannot be read: %w", err)
		}
		if f.Name != at.fact {
			return entry{}, fmt.Errorf("the value is of fact %q, the key of %q", f.Name, at.fact)
		}
		e.fact = &f.Fact
		return e, nil
	}
	var r readyValue
	if err := json.Unmarshal(value, &r); err != nil {
		return entry{}, fmt.Errorf("the value cannot be read: %w", err)
	}
	e.ready = &r.Ready
	if r.From != at.from || r.To != at.to || r.Epoch < 1 {
		return entry{}, fmt.Errorf("the value is of %s under epoch %d, the key of %s", Direction(r.From, r.To), r.Epoch, Direction(at.from, at.to))
	}
	return e, nil
}

// checkRecord tells what is wrong with a record that is to be the pair's of an epoch.
func checkRecord(p Pair, r Record, epoch int64) error {
	switch {
	case r.Pair != p.String() || r.Epoch != epoch:
		return fmt.Errorf("the record is of pair %q and epoch %d, not of %s and %d", r.Pair, r.Epoch, p, epoch)
	case !p.Has(r.Region):
		return fmt.Errorf("region %q is none of pair %s", r.Region, p)
	}
	return nil
}
