package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/compare"
	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/cutover"
	"replicator/pkg/evidence"
	"replicator/pkg/stranded"
)

type point struct{ step, at string }

func (p point) String() string {
	switch p.at {
	case "before", "after":
		return p.at + " " + p.step
	case evidence.StepBegun, evidence.StepDone:
		return p.step + " " + p.at
	}
	return strings.TrimPrefix(fmt.Sprintf("%s: %q", p.step, p.at), ": ")
}

// killing is a theatre whose commands are killed.
type killing struct {
	*theatre
	t     *testing.T
	at    string // the authoritative region
	epoch int64
	table []string
	seen  map[string]bool // bundles that were looked at
	// lost are the records of regions that were given up, and lostOn in which each was.
	lost   *writerApp
	lostOn map[string]string
	// clusters are open for reading the authority.
	clusters map[string]*cluster.Cluster
}

const killedVariable = "E2E_CUTOVER"

// runKilled is a run in a process of this test, which kills itself when the run says
// what KILL names. It is a command without a screen.
func runKilled(file string) int {
	value := func(name string) string { return os.Getenv(killedVariable + "_" + name) }
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	setup, err := pairSetup(ctx, file, value("FROM"), value("TO"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	req := cutover.Request{
		Verb: cutover.Verb(value("VERB")), By: "test", ExpectEpoch: -1, Undo: value("UNDO") != "", Force: true,
		Stranded: cutover.Decision(value("STRANDED")), Watch: killer{value("STEP"), value("KILL")},
	}
	var result any
	if req.Verb == cutover.Drill {
		result, err = cutover.Rehearse(ctx, *setup, req)
	} else {
		result, err = cutover.Execute(ctx, *setup, req)
	}
	fmt.Fprintf(os.Stderr, "was not killed: %+v, %v\n", result, err)
	return 1
}

// killer ends its process at what a run says.
type killer struct{ step, text string }

func (k killer) Event(e evidence.Event) {
	if k.text == beforeOutcome.at && e.Kind == evidence.KindRegions {
		if doc, err := evidence.Decode[evidence.RegionsDoc](e); err == nil && doc.When == evidence.After {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	if e.Kind == evidence.KindStep {
		if doc, err := evidence.Decode[evidence.StepDoc](e); err == nil && doc.Name == k.step && (doc.Outcome == k.text || doc.Outcome == evidence.StepSkipped && k.text == evidence.StepDone) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
}

func (k killer) Progress(step, text string) {
	if step == k.step && strings.Contains(text, k.text) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

// pairSetup is what the commands make of a configuration with one link each way.
func pairSetup(ctx context.Context, file, from, to string) (*cutover.Setup, error) {
	cfg, err := config.Load(config.Source{File: file})
	if err != nil {
		return nil, err
	}
	c := cfg.Cutover
	s := &cutover.Setup{
		Pair: authority.PairOf(from, to), Hooks: c.Hooks, Tool: "test", Log: zap.NewNop(),
		Settings: cutover.Settings{
			LagLimit: int64(c.LagLimit), ClockLimit: c.ClockLimit, Writers: c.Writers, Settle: c.Settle, DrainTimeout: c.DrainTimeout,
			GroupsTimeout: c.GroupsTimeout, VerifyRecords: int64(c.VerifyRecords), EvidenceDir: c.Evidence,
		},
	}
	for i := range cfg.Links {
		l := &cfg.Links[i]
		o, err := daemon.LinkOptions(cfg, l)
		if err != nil {
			return nil, err
		}
		topics, err := o.Match()
		if err != nil {
			return nil, err
		}
		groups, err := config.Compile(l.Groups)
		if err != nil {
			return nil, err
		}
		link := cutover.Link{Name: l.Name, Options: o, CheckpointsTopic: l.Checkpoints.Topic, Group: groups.Match, Topic: topics}
		if l.To == to {
			s.Forward = link
		} else {
			s.Reverse = &link
		}
	}
	open := func(alias string) cutover.Region {
		r := cutover.Region{Alias: alias}
		r.Cluster, r.Err = cluster.Open(ctx, alias, cfg.Clusters[alias], cluster.Options{Log: zap.NewNop()})
		return r
	}
	s.Old, s.New = open(from), open(to)
	return s, errors.Join(s.Old.Err, s.New.Err)
}

// holds says what must hold whenever no command is at work: both copies name the one
// region, applications can write there, the evidence is whole.
func (k *killing) holds() {
	k.t.Helper()
	for _, region := range []string{k.east(), k.west()} {
		if now := k.current(region); now.Region != k.at || now.Epoch != k.epoch {
			k.t.Errorf("%s says that %s is authoritative, epoch %d, want %s, epoch %d", region, now.Region, now.Epoch, k.at, k.epoch)
		}
	}
	if rules := k.denied(k.at); len(rules) > 0 {
		k.t.Errorf("%s is authoritative, and these rules are left there: %v", k.at, rules)
	}
	if k.told("writers") == k.at {
		k.acked(40)
	}
	k.bundles(true)
	if k.t.Failed() {
		k.t.FailNow()
	}
}

func (k *killing) current(region string) authority.Record {
	k.t.Helper()
	s, err := authority.Read(k.t.Context(), authority.Config{Cluster: k.opened(region), Pair: authority.PairOf(k.east(), k.west())})
	if err != nil {
		k.t.Fatal(err)
	}
	if len(s.Conflicts) > 0 {
		k.t.Errorf("%s: %v", region, s.Conflicts)
	}
	r, _ := s.Current()
	return r
}

// opened is a region, opened once.
func (k *killing) opened(region string) *cluster.Cluster {
	k.t.Helper()
	if k.clusters == nil {
		k.clusters = map[string]*cluster.Cluster{}
	}
	if k.clusters[region] == nil {
		k.clusters[region] = openCluster(k.t, region, k.bootstrap(k.cluster(region)), nil)
	}
	return k.clusters[region]
}

// denied are the rules that keep applications from writing to a region.
func (k *killing) denied(region string) []string {
	k.t.Helper()
	res, err := k.cluster(region).Admin().DescribeACLs(k.t.Context(), kadm.NewACLs().Topics(k.topics...).Deny("User:"+appUser).DenyHosts().Operations(kadm.OpAny).ResourcePatternType(kadm.ACLPatternAny))
	if err != nil {
		k.t.Fatal(err)
	}
	var out []string
	for _, r := range res {
		for _, d := range r.Described {
			out = append(out, fmt.Sprintf("%s %s on %s", d.Permission, d.Operation, d.Name))
		}
	}
	return out
}

// bundles verifies what the runs left since this was called last: complete if the last
// one has ended.
func (k *killing) bundles(ended bool) {
	k.t.Helper()
	all, err := filepath.Glob(filepath.Join(k.dir, "evidence", "*-*"))
	if err != nil || len(all) == 0 {
		k.t.Fatalf("no bundles: %v", err)
	}
	for _, b := range all {
		if k.seen[b] {
			continue
		}
		v, err := evidence.Verify(b, nil)
		if err != nil || !v.Valid || ended && !v.Complete {
			k.t.Errorf("bundle %s: %+v, %v", filepath.Base(b), v, err)
		}
		// A drill that was killed is not taken up.
		k.seen[b] = ended || strings.HasPrefix(filepath.Base(b), "drill-")
	}
}

// kept verifies what the regions keep of all runs.
func (k *killing) kept() {
	k.t.Helper()
	pair := authority.PairOf(k.east(), k.west()).String()
	for _, region := range []string{k.east(), k.west()} {
		runs := map[string][][]byte{}
		if err := compare.Read(k.t.Context(), internal(k.cluster(region)), authority.DefaultAuditTopic, func(r *kgo.Record) error {
			if headerOf(r, "pair") == pair {
				runs[string(r.Key)] = append(runs[string(r.Key)], r.Value)
			}
			return nil
		}); err != nil {
			k.t.Fatal(err)
		}
		dir := k.t.TempDir()
		for run, lines := range runs {
			var bundle string
			events, err := evidence.FromLines(run, lines)
			if err == nil {
				bundle, err = evidence.Export(dir, run, events)
			}
			if err != nil {
				k.t.Errorf("%s, run %s: %v", region, run, err)
				continue
			}
			if v, err := evidence.Verify(bundle, nil); err != nil || !v.Valid || !v.Complete && !strings.HasPrefix(run, "drill-") {
				k.t.Errorf("%s, run %s: %+v, %v", region, run, v, err)
			}
		}
		k.t.Logf("%s keeps %d runs, whose events hold", region, len(runs))
	}
}

// scratch are the topics and groups that drills of this pair have left in any region.
func (k *killing) scratch() (left []string) {
	k.t.Helper()
	for _, region := range []string{k.east(), k.west()} {
		topics, err := k.cluster(region).Admin().ListTopics(k.t.Context())
		if err != nil {
			k.t.Fatal(err)
		}
		groups, err := k.cluster(region).Admin().ListGroups(k.t.Context())
		if err != nil {
			k.t.Fatal(err)
		}
		for _, name := range slices.Concat(topics.Names(), groups.Groups()) {
			if strings.HasPrefix(name, "replicator.drill.") && strings.Contains(name, k.east()) {
				left = append(left, region+": "+name)
			}
		}
	}
	return left
}

// same waits until both regions have every acknowledged record once and no other. What was
// stranded is where it was, and once more, as it was replayed, in both.
func (k *killing) same() bool {
	k.t.Helper()
	const replayed = "replayed "
	want := map[string]map[string]bool{k.east(): {}, k.west(): {}}
	for _, w := range k.writers {
		w.mu.Lock()
		for id := range w.sent {
			for region := range want {
				if w == k.lost {
					want[region][replayed+id] = true
				}
				if w != k.lost || k.lostOn[id] == region {
					want[region][id] = true
				}
			}
		}
		w.mu.Unlock()
	}
	var wrong []string
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) { // between two looks
		wrong = wrong[:0]
		for _, region := range []string{k.east(), k.west()} {
			have := map[string]int{}
			for _, topic := range k.topics {
				if err := compare.Read(k.t.Context(), internal(k.cluster(region)), topic, func(r *kgo.Record) error {
					if headerOf(r, stranded.HeaderOffset) != "" {
						have[replayed+string(r.Value)]++
					} else {
						have[string(r.Value)]++
					}
					return nil
				}); err != nil {
					k.t.Fatal(err)
				}
			}
			missing, twice, foreign := 0, 0, 0
			for id := range want[region] {
				if have[id] == 0 {
					missing++
				}
			}
			for id, n := range have {
				if n > 1 {
					twice++
				}
				if !want[region][id] {
					foreign++
				}
			}
			if missing+twice+foreign > 0 {
				wrong = append(wrong, fmt.Sprintf("%s has %d records: of %d %d are missing, %d are there more than once; %d others", region, len(have), len(want[region]), missing, twice, foreign))
			}
		}
		if len(wrong) == 0 {
			k.t.Logf("both regions have the %d and %d records they should, %d of them replayed, each once", len(want[k.east()]), len(want[k.west()]), len(k.lostOn))
			return true
		}
		if time.Now().After(deadline) {
			k.t.Errorf("the regions differ: %s", strings.Join(wrong, "; "))
			return false
		}
	}
}
