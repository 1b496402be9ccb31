package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/config"
	"replicator/pkg/authority"
)

// governedCopies are what the copies of a pair say in a test, 'west' being behind.
func governedCopies() (*governedPair, []*regionCopy) {
	p := &governedPair{Pair: authority.PairOf("east", "west"), links: []*config.Link{{Name: "east->west", From: "east", To: "west"}, {Name: "west->east", From: "west", To: "east"}}}
	at := func(epoch int64, region, verb, why string) authority.Record {
		return authority.Record{Pair: p.String(), Epoch: epoch, Region: region, Verb: verb, By: "ann@\x1bdesk", Why: why, Run: fmt.Sprint("run-", epoch), Since: noon.Add(time.Duration(epoch) * time.Hour)}
	}
	first, second := at(1, "east", "init", ""), at(2, "west", "failover", "the east region has lost power and the grid operator gives no time for its return")
	return p, []*regionCopy{
		{alias: "east", state: authority.State{Records: []authority.Record{first}, Ready: map[string]authority.Ready{}}},
		{alias: "west", state: authority.State{Records: []authority.Record{first, second}, Ready: map[string]authority.Ready{"east->west": {From: "east", To: "west", Epoch: 1}}}},
	}
}

func TestAuthorityTablesAndDocuments(t *testing.T) {
	p, copies := governedCopies()
	behind := authorityOf(p, copies, noon)
	behind.Fence = []fenceRow{{Lane: "orders-0", Holds: true, Age: 40, Why: "epoch 7 of producer 4711"}, {Lane: "orders-1", Age: 90000, Why: "the target may have forgotten it"}}
	passed := noon.Add(-3*24*time.Hour - time.Hour)
	drilled := *behind
	drilled.Drill = &authority.Drill{Run: "drill-20260226T110000Z-3f9a", Ended: noon.Add(-2 * time.Hour), From: "west", To: "east", Failed: []string{"lag", "probe"}, By: "timer", LagRecords: 12, LagSeconds: 0.5, LastSuccess: &passed}
	assumed := *behind
	assumed.Assumed = []string{"link east->west: 1 of 3 brokers of west have not told for how long a fence is remembered, taken for 1h0m0s at most: CLUSTER_AUTHORIZATION_FAILED: Cluster authorization failed.; grant DESCRIBE_CONFIGS on the cluster resource of cluster west"}
	_, cut := governedCopies()
	cut[0].state, cut[0].err = authority.State{}, errors.New("open cluster east: no bootstrap server could be used: 10.0.0.1:9092: connection refused")
	never := []*regionCopy{{alias: "east", state: authority.State{Missing: true}}, {alias: "west", state: authority.State{Missing: true}}}
	for name, got := range map[string]string{
		"authority-show-100.txt": behind.table(screen{width: 100}),
		"authority-show-cut.txt": authorityOf(p, cut, noon).table(screen{width: 100}),
		"authority-none.txt":     authorityOf(p, never, noon).table(screen{}),
		"authority-show.json":    document(t, "json", behind),
		"authority-assumed.txt":  assumed.table(screen{width: 100}),
		"authority-drill.txt":    drilled.table(screen{width: 100}),
		"authority-drill.json":   document(t, "json", drilled.Drill),
		"authority-history.txt":  behind.history(screen{width: 100}),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, ".txt") && strings.Contains(got, "\x1b") {
				t.Errorf("a name reached the terminal as it is: %q", got)
			}
			golden(t, name, got)
		})
	}
	for want, d := range map[string]*authorityDoc{
		"the copy on east is behind: it has epoch 1, west has epoch 2": behind,
		"the copy on east is not known":                                authorityOf(p, cut, noon),
	} {
		if err := d.partial(); exitCode(err) != exitPartial || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, split := governedCopies()
	split[0].state.Records = append(split[0].state.Records, authority.Record{Epoch: 2, Region: "east"})
	if d := authorityOf(p, split, noon); d.Relation != "split" || d.Region != "" || exitCode(d.partial()) != exitPartial {
		t.Errorf("split copies: %+v", d)
	}
}

// pairFile is a configuration of two fake clusters, and the clusters.
func pairFile(t *testing.T, links string) (string, map[string]*kfake.Cluster) {
	t.Helper()
	text, clusters := "clusters:\n", map[string]*kfake.Cluster{}
	for _, alias := range []string{"east", "west"} {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID(alias))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		clusters[alias] = c
		text += fmt.Sprintf("  %s: {bootstrap_servers: ['%s'], timeouts: {dial: 1s, request: 2s, retry: 2s}}\n", alias, c.ListenAddrs()[0])
	}
	file := filepath.Join(t.TempDir(), "pair.yaml")
	if err := os.WriteFile(file, []byte(text+"links:\n"+links), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, clusters
}

// What a region that cannot be reached has is not known: nothing is said of it.
func TestARegionThatCannotBeReachedMayHaveARecord(t *testing.T) {
	file, clusters := pairFile(t, eastWest+"  - {from: west, to: east, topics: [orders]}\n")
	ask := func(args ...string) (int, string) {
		code, stdout, stderr := shell(t, append(args, "-c", file)...)
		return code, stdout + stderr
	}
	never := []string{"ever set", "no region is authoritative yet", "nothing to undo", "authority init"}
	for _, gone := range []string{"east", "west"} {
		clusters[gone].Close()
		for _, args := range [][]string{{"rollback", "--dry-run"}, {"drill", "--evidence", t.TempDir()}} {
			code, said := ask(args...)
			if code != exitRefused || !strings.Contains(said, "region "+gone+" cannot be reached") {
				t.Errorf("%s without %s: %d, %s", args[0], gone, code, said)
			}
			for _, lie := range never {
				if strings.Contains(said, lie) {
					t.Errorf("%s without %s says %q: %s", args[0], gone, lie, said)
				}
			}
		}
		if gone == "west" {
			break // neither copy is known
		}
		for _, args := range [][]string{{"authority", "show"}, {"authority", "history"}} {
			code, said := ask(args...)
			if code != exitPartial || !strings.Contains(said, "the copy on east is not known") {
				t.Errorf("%s without east: %d, %s", args[1], code, said)
			}
			if strings.Contains(said, "ever set") {
				t.Errorf("%s without east: %s", args[1], said)
			}
		}
	}
}

const eastWest = "  - {from: east, to: west, topics: [orders]}\n"

func TestAuthorityFromInitToHistory(t *testing.T) {
	file, clusters := pairFile(t, eastWest)
	code, stdout, stderr := shell(t, "authority", "show", "-c", file)
	if code != exitDone || !strings.Contains(stdout, "no authority was ever set; east is implied") {
		t.Fatalf("show: %d, %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = shell(t, "authority", "init", "-c", file, "--region", "east", "--why", "first day", "--yes")
	if code != exitDone || strings.Count(stdout, "has epoch 1: east is authoritative") != 2 {
		t.Fatalf("init: %d, %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = shell(t, "authority", "show", "-c", file, "-o", "json")
	var doc authorityDoc
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != exitDone {
		t.Fatalf("show: %d, %v, %s", code, err, stderr)
	}
	if doc.Region != "east" || doc.Epoch != 1 || doc.Relation != "equal" || len(doc.Links) != 1 || doc.Links[0].MayAppend == nil || !*doc.Links[0].MayAppend {
		t.Errorf("show after init: %s", stdout)
	}
	if code, stdout, _ := shell(t, "authority", "history", "-c", file); code != exitDone || !strings.Contains(stdout, "first day") {
		t.Errorf("history: %d, %s", code, stdout)
	}
	if code, _, stderr := shell(t, "authority", "init", "-c", file, "--region", "west", "--yes"); code != exitRefused || !strings.Contains(stderr, "has epoch 1 for east already") {
		t.Errorf("init again: %d, %s", code, stderr)
	}
	if code, _, stderr := shell(t, "authority", "init", "-c", file, "--region", "east", "--yes"); code != exitDone {
		t.Errorf("the same init again: %d, %s", code, stderr)
	}
	clusters["east"].Close()
	code, stdout, stderr = shell(t, "authority", "show", "-c", file)
	if code != exitPartial || !strings.Contains(stdout, "east is authoritative, epoch 1") || !strings.Contains(stderr, "the copy on east is not known") {
		t.Errorf("show without east: %d, %s%s", code, stdout, stderr)
	}
	clusters["west"].Close()
	if code, _, stderr := shell(t, "authority", "show", "-c", file); code != exitFailed || !strings.Contains(stderr, "neither copy is known") || !strings.Contains(stderr, "hint: check") {
		t.Errorf("show without both: %d, %s", code, stderr)
	}
}

func TestInitIsRefusedWhereALinkHasCopiedTo(t *testing.T) {
	file, clusters := pairFile(t, eastWest)
	if code, _, stderr := shell(t, "authority", "init", "-c", file, "--region", "west"); code != exitUsage || !strings.Contains(stderr, "no terminal") {
		t.Errorf("without --yes: %d, %s", code, stderr)
	}
	west, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID("west"), kfake.SeedTopics(1, "replicator.east.west.journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(west.Close)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), clusters["west"].ListenAddrs()[0], west.ListenAddrs()[0], 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(west.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "replicator.east.west.journal", Value: []byte("an opening")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := shell(t, "authority", "init", "-c", file, "--region", "west", "--yes")
	if code != exitRefused || !strings.Contains(stderr, "link east->west has copied to west") || !strings.Contains(stderr, "hint: replicator authority init --region east") {
		t.Errorf("init for the target: %d, %s", code, stderr)
	}
	west.Close()
	if code, _, stderr := shell(t, "authority", "init", "-c", file, "--region", "west", "--yes"); code != exitFailed || !strings.Contains(stderr, "it is not known whether anything was copied to west") {
		t.Errorf("init for a region out of reach: %d, %s", code, stderr)
	}
	// The target of the link is out of reach: one copy has it, the command says so.
	code, stdout, stderr := shell(t, "authority", "init", "-c", file, "--region", "east", "--yes")
	if code != exitPartial || !strings.Contains(stdout, "the copy on east has epoch 1") || !strings.Contains(stderr, "copy on west") {
		t.Errorf("init with one cluster out of reach: %d, %s%s", code, stdout, stderr)
	}
}

// A daemon that is started before the authority is written down makes the journals of
// both links, and stops them. That is no reason to refuse what its log asks for.
func TestInitGoesByWhatJournalsHold(t *testing.T) {
	file, clusters := pairFile(t, eastWest+"  - {from: west, to: east, topics: [orders]}\n")
	for to, topic := range map[string]string{"east": "replicator.west.east.journal", "west": "replicator.east.west.journal"} {
		client, err := kgo.NewClient(kgo.SeedBrokers(clusters[to].ListenAddrs()...))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 4, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		if to == "east" {
			continue // nothing was ever copied there
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("an opening")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := shell(t, "authority", "init", "-c", file, "--region", "west", "--yes"); code != exitRefused || !strings.Contains(stderr, "link east->west has copied to west") {
		t.Errorf("init for the region that was copied to: %d, %s", code, stderr)
	}
	code, stdout, stderr := shell(t, "authority", "init", "-c", file, "--region", "east", "--yes")
	if code != exitDone || strings.Count(stdout, "has epoch 1: east is authoritative") != 2 {
		t.Errorf("init for the region that was copied from: %d, %s%s", code, stdout, stderr)
	}
}

func TestLinksWithoutAuthority(t *testing.T) {
	both := "  - {from: east, to: west, topics: [orders], naming: prefix}\n  - {from: west, to: east, topics: [orders], naming: prefix}\n"
	for _, c := range []struct {
		links string
		args  []string
		says  string
	}{
		{both, nil, "no link of the configuration has naming: identity"},
		{both, []string{"--link", "east->west"}, "naming: prefix, and so no authority"},
		{eastWest, []string{"--link", "north->west"}, `there is no "north->west"`},
		{eastWest, []string{"--timeout", "0s"}, "choose timeout"},
		{eastWest, []string{"-o", "wide"}, "choose output"},
	} {
		file, _ := pairFile(t, c.links)
		if code, _, stderr := shell(t, append([]string{"authority", "show", "-c", file}, c.args...)...); code != exitUsage || !strings.Contains(stderr, c.says) {
			t.Errorf("%v: %d, %s", c.args, code, stderr)
		}
	}
}
