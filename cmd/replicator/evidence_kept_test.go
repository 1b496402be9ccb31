package main

import (
	"strings"
	"testing"
	"time"
)

func TestTheListOfRunsSaysWhereItBegins(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for want, d := range map[string]keptDoc{
		"none was ever written": {},
		"all, the first of 2026-03-01 12:00:00Z; they are kept for 365 days":                 {Since: &since, Days: new(365.0)},
		"from 2026-03-01 12:00:00Z on, earlier ones were removed; they are kept for 30 days": {Since: &since, Removed: true, Days: new(30.0)},
		"all, the first of 2026-03-01 12:00:00Z; they are kept for ever":                     {Since: &since, Days: new(-1.0)},
		"none is left, earlier ones were removed":                                            {Removed: true},
		"not known: grant READ on topic replicator.audit of cluster east":                    {Error: "grant READ on topic replicator.audit of cluster east"},
	} {
		d.Cluster = "east"
		if got := d.words(); got != "events of runs on east: "+want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	whole, part := &runDoc{Run: "switchover-1", Events: 34, Outcome: "done", Clusters: []string{"east"}}, &runDoc{Run: "drill-1", Events: 3, Removed: 31, Clusters: []string{"east"}}
	text := screen{}.runs([]*runDoc{part, whole}, []keptDoc{{Cluster: "east", Since: &since, Removed: true}})
	for _, want := range []string{"not ended, its first 31 events removed", "done", "\nevents of runs on east: from 2026-03-01"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if text := (screen{}).runs(nil, []keptDoc{{Cluster: "east"}}); !strings.HasPrefix(text, "no run is known\n\nevents of runs on east: none") {
		t.Errorf("without a run:\n%s", text)
	}
}

// That one cluster was read is told from that none was, also where it has no run.
func TestTheListOfRunsSaysHowManyClustersWereRead(t *testing.T) {
	file, clusters := pairFile(t, eastWest)
	for _, c := range []struct {
		gone string
		code int
		want string
	}{
		{"", exitDone, "no run is known"},
		{"east", exitPartial, "hint: runs that only this cluster knows are not listed"},
		{"west", exitFailed, "hint: check"},
	} {
		if c.gone != "" {
			clusters[c.gone].Close()
		}
		if code, stdout, stderr := shell(t, "evidence", "list", "-c", file); code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%q gone: %d, %s%s", c.gone, code, stdout, stderr)
		}
	}
}
