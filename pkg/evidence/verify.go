package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Result of a finding.
type Result string

// The results.
const (
	Good       Result = "ok"
	Bad        Result = "failed"
	NotChecked Result = "not checked"
)

// Finding is one thing that was looked at.
type Finding struct {
	Name   string `json:"name"` // bundle, events, manifest, files, report, outcome, anchor
	Result Result `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// Verdict says what a bundle is worth.
type Verdict struct {
	Path     string    `json:"path"`
	Run      string    `json:"run,omitempty"`
	Valid    bool      `json:"valid"`    // nothing that was checked is wrong
	Complete bool      `json:"complete"` // the run has an outcome and the bundle is sealed
	Events   int       `json:"events"`   // that hold, from the first
	Head     string    `json:"head,omitempty"`
	Findings []Finding `json:"findings"`
}

func (v *Verdict) find(name string, result Result, format string, args ...any) {
	v.Findings = append(v.Findings, Finding{name, result, fmt.Sprintf(format, args...)})
}

// Anchor is the hash of an event that was kept elsewhere than in the bundle: whoever writes a
// bundle anew cannot come to the same one.
type Anchor struct {
	Seq  int // of the event; 0: not known
	Hash string
}

var anchors = regexp.MustCompile(`^(?:([1-9][0-9]{0,9}):)?([0-9a-f]{64})$`)

// ParseAnchor reads what String wrote, or a hash alone.
func ParseAnchor(s string) (Anchor, error) {
	m := anchors.FindStringSubmatch(strings.ToLower(strings.TrimSpace(s)))
	if m == nil {
		return Anchor{}, fmt.Errorf("read anchor %.80q: want the number of an event and its hash, 12:9f86d0…, or the 64 digits of the hash alone", s)
	}
	seq, _ := strconv.Atoi(m[1]) // empty is 0, and ten digits fit
	return Anchor{Seq: seq, Hash: m[2]}, nil
}

func (a Anchor) String() string {
	if a.Seq == 0 {
		return a.Hash
	}
	return strconv.Itoa(a.Seq) + ":" + a.Hash
}

// Open checks a bundle, a directory or an archive, and returns its events that hold, from the
// first. An error means that there is nothing to judge; what is wrong with a bundle is in the
// verdict. anchor may be nil.
func Open(path string, anchor *Anchor) ([]Event, *Verdict, error) {
	c, err := readBundle(path)
	if err != nil {
		return nil, nil, err
	}
	v := &Verdict{Path: path}
	if len(c.faults) > 0 {
		v.find("bundle", Bad, "%s", strings.Join(c.faults, "; "))
	}
	events := v.events(c)
	m := v.manifest(c, events)
	v.files(c, m)
	v.report(c, m, events)
	v.outcome(m, events)
	v.anchor(events, anchor)
	v.Valid = !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Result == Bad })
	v.Complete = v.Complete && v.Valid
	return events, v, nil
}

// Verify checks a bundle as Open does.
func Verify(path string, anchor *Anchor) (*Verdict, error) {
	_, v, err := Open(path, anchor)
	return v, err
}

func (v *Verdict) events(c *contents) []Event {
	data := c.files[eventsFile]
	first, _, _ := bytes.Cut(data, []byte("\n"))
	// The run is what the first line says. If it lies, the line's hashes do not hold.
	var head struct {
		Run string `json:"run"`
	}
	if err := json.Unmarshal(first, &head); err == nil && CheckRun(head.Run) == nil {
		v.Run = head.Run
	}
	events, whole, err := readEvents(v.Run, data)
	v.Events = len(events)
	if len(events) > 0 {
		v.Head = events[len(events)-1].Hash
	}
	switch torn := len(data) - whole; {
	case err != nil:
		v.find("events", Bad, "%v", err)
	case len(data) == 0:
		v.find("events", Bad, "%s is missing or empty", eventsFile)
	case torn > 0:
		v.find("events", Good, "%d events, each holds the hash of the one before; a last line of %d bytes was not finished and does not count", len(events), torn)
	default:
		v.find("events", Good, "%d events, each holds the hash of the one before", len(events))
	}
	return events
}

func (v *Verdict) manifest(c *contents, events []Event) *manifest {
	data, there := c.files[manifestFile]
	if !there {
		v.find("manifest", NotChecked, "there is none: the run was killed before its first step ended, or somebody took it away")
		return nil
	}
	m := &manifest{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		v.find("manifest", Bad, "read %s: %v", manifestFile, err)
		return nil
	}
	switch {
	case m.Run != v.Run:
		v.find("manifest", Bad, "it is of run %.80q", m.Run)
	case m.Events < 0 || m.Events > len(events):
		v.find("manifest", Bad, "it names %d events, of which %d are there and hold: the end was cut off", m.Events, len(events))
	case m.Sealed && m.Events < len(events):
		v.find("manifest", Bad, "it was sealed with %d events, and there are %d", m.Events, len(events))
	case m.Head != headOf(v.Run, events[:m.Events]):
		v.find("manifest", Bad, "the head of its chain is not the hash of event %d: one of both was written anew", m.Events)
	case m.Sealed:
		v.find("manifest", Good, "sealed, with the head of the chain")
	default:
		v.find("manifest", Good, "written after event %d, not sealed", m.Events)
	}
	return m
}

func headOf(run string, events []Event) string {
	if len(events) == 0 {
		return origin(run)
	}
	return events[len(events)-1].Hash
}

// files compares the files with their hashes in the manifest.
func (v *Verdict) files(c *contents, m *manifest) {
	if m == nil {
		v.find("files", NotChecked, "there is no manifest to compare them with")
		return
	}
	var faults []string
	listed := map[string]bool{manifestFile: true}
	for _, f := range m.Files {
		body, there := c.files[f.Name]
		listed[f.Name] = true
		if f.Name == eventsFile && !m.Sealed && int64(len(body)) > f.Size && f.Size >= 0 {
			body = body[:f.Size] // the run went on
		}
		sum := digest(body)
		switch {
		case !there && f.Pending && f.Was == "":
		case !there:
			faults = append(faults, fmt.Sprintf("%.80q is missing", f.Name))
		case sum == f.SHA256 && int64(len(body)) == f.Size:
		case f.Pending && !m.Sealed && sum == f.Was:
		default:
			faults = append(faults, f.Name+" is not as it was written")
		}
	}
	for name := range c.files {
		if !listed[name] {
			faults = append(faults, name+" is not in the manifest")
		}
	}
	slices.Sort(faults)
	if len(faults) > 0 {
		v.find("files", Bad, "%s", strings.Join(faults, "; "))
		return
	}
	v.find("files", Good, "%d files are as they were written", len(m.Files))
}

// report makes report and summary anew from the events and compares: who changes one of them and
// its hash in the manifest is found out.
func (v *Verdict) report(c *contents, m *manifest, events []Event) {
	switch {
	case c.files[reportFile] == nil || m == nil || m.Events < 0 || m.Events > len(events):
		v.find("report", NotChecked, "events, manifest and report are not all there")
		return
	case slices.ContainsFunc(m.Files, func(f file) bool { return f.Pending }):
		v.find("report", NotChecked, "the run was killed while it was written; make it anew: replicator evidence report")
		return
	case m.Format != reportFormat():
		v.find("report", NotChecked, "written by another version; make it anew: replicator evidence report")
		return
	}
	story := Tell(events[:m.Events])
	page, err := story.HTML()
	summary, failed := story.Summary()
	if err := errors.Join(err, failed); err != nil {
		v.find("report", Bad, "%v", err)
		return
	}
	switch {
	case !bytes.Equal(page, c.files[reportFile]):
		v.find("report", Bad, "%s does not show what the events say; make it anew: replicator evidence report", reportFile)
	case !bytes.Equal(summary, c.files[summaryFile]):
		v.find("report", Bad, "%s does not show what the events say", summaryFile)
	default:
		v.find("report", Good, "shows what the events say, made anew and compared")
	}
}

func (v *Verdict) outcome(m *manifest, events []Event) {
	var last Event
	if n := len(events); n > 0 {
		last = events[n-1]
	}
	switch doc, err := Decode[OutcomeDoc](last); {
	case last.Kind != KindOutcome:
		v.find("outcome", NotChecked, "there is none: the run was killed, is still going on, or its end was cut off before the last step's end; only an anchor tells")
	case err != nil:
		v.find("outcome", Bad, "%v", err)
	case m == nil || !m.Sealed:
		v.find("outcome", Good, "%s; the bundle is not sealed", doc.Outcome)
	default:
		v.Complete = true
		v.find("outcome", Good, "%s", doc.Outcome)
	}
}

func (v *Verdict) anchor(events []Event, a *Anchor) {
	if a == nil {
		v.find("anchor", NotChecked, "none was given. Who can write the bundle can write all of it anew: compare it with a hash kept elsewhere (--anchor)")
		return
	}
	i := slices.IndexFunc(events, func(e Event) bool { return e.Hash == a.Hash })
	switch {
	case i >= 0 && a.Seq > 0 && events[i].Seq != a.Seq:
		v.find("anchor", Bad, "the hash is that of event %d, not of event %d", events[i].Seq, a.Seq)
	case i >= 0 && i < len(events)-1:
		v.find("anchor", Good, "events up to %d are those of the anchor; %d after it are younger and not vouched for", events[i].Seq, len(events)-1-i)
	case i >= 0:
		v.find("anchor", Good, "all %d events are those of the anchor", len(events))
	case a.Seq > len(events):
		v.find("anchor", Bad, "event %d, whose hash it is, is not there: the end was cut off", a.Seq)
	case a.Seq > 0:
		v.find("anchor", Bad, "event %d has another hash: the events were written anew", a.Seq)
	default:
		v.find("anchor", Bad, "no event has this hash: the end was cut off, or the events were written anew")
	}
}
