package cutover

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/testlog"
	"replicator/pkg/authority"
	"replicator/pkg/evidence"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/stranded"
)

// returned is a pair behind a failover to west: east is back, and its two partitions of
// orders have ten records each that west never saw.
type returned struct {
	t         *testing.T
	west      *kfake.Cluster
	setup     Setup
	file      string       // of --export-to
	exported  atomic.Bool  // a file of this command was told of
	noteFails *atomic.Bool // from then on, of the second lane
	dir       string
	events    []evidence.Event // of the run, by all its commands
	toEast    *kgo.Client
}

func newReturned(t *testing.T) *returned {
	t.Helper()
	r := &returned{t: t, dir: t.TempDir(), noteFails: &atomic.Bool{}}
	r.file = filepath.Join(r.dir, "stranded.jsonl")
	region := func(alias string) (Region, *kfake.Cluster) {
		return fakeBrokers(t, alias, kfake.SeedTopics(2, "orders"), kfake.SeedTopics(1, "replicator.east.west.checkpoints"))
	}
	link := func(from, to string) Link {
		own := "replicator." + from + "." + to
		return Link{
			Name: from + "->" + to, CheckpointsTopic: own + ".checkpoints",
			Options: mirror.Options{From: from, To: to, Topics: []string{"orders"}, JournalTopic: own + ".journal", JournalPartitions: 2},
			Topic:   func(name string) bool { return name == "orders" }, Group: func(string) bool { return true },
		}
	}
	back := link("west", "east")
	r.setup = Setup{
		Pair: authority.PairOf("east", "west"), Forward: link("east", "west"), Reverse: &back, Tool: "test", Log: testlog.New(t),
		Settings: Settings{ClockLimit: time.Minute, Writers: "stopped", Settle: 10 * time.Millisecond, DrainTimeout: 10 * time.Second, EvidenceDir: filepath.Join(r.dir, "evidence")},
	}
	r.setup.Old, _ = region("east")
	r.setup.New, r.west = region("west")
	for _, where := range []Region{r.setup.Old, r.setup.New} {
		c, err := authority.Change(t.Context(), r.setup.authorityOn(where))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		for i, region := range []string{"east", "west"} {
			if err := c.Set(t.Context(), authority.Record{Epoch: int64(i + 1), Region: region, Verb: string(Failover), Run: fmt.Sprint("run-", i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var lanes []mirror.PreparedLane
	for p := range int32(2) {
		lanes = append(lanes, mirror.PreparedLane{Lane: offsets.Lane{Topic: "orders", Partition: p}, SourceLeaderEpoch: -1})
	}
	if _, err := mirror.Prepare(t.Context(), mirror.PrepareConfig{Options: r.setup.Forward.Options, Target: r.setup.New.Cluster, Run: "opening", Lanes: lanes}); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.toEast, err = r.setup.Old.Cluster.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.toEast.Close)
	r.write(0, 10)
	r.write(1, 10)
	return r
}

func (r *returned) write(partition int32, n int) {
	r.t.Helper()
	for range n {
		if err := r.toEast.ProduceSync(r.t.Context(), &kgo.Record{Topic: "orders", Partition: partition, Value: []byte("x")}).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *returned) Event(e evidence.Event) {
	if doc, err := evidence.Decode[evidence.StrandedDoc](e); e.Kind == evidence.KindStranded && err == nil && doc.File != "" {
		r.exported.Store(true)
	}
}

func (r *returned) Progress(string, string) {}

// deal takes the step of stranded records, as a command that goes on where the one before ended.
func (r *returned) deal() (proof string, err error) {
	r.t.Helper()
	cmd := newRun(r.setup, Request{Verb: Failback, By: "ann", Stranded: Export, ExportTo: r.file, Watch: r})
	cmd.id = "failback-20260305T060708Z-0123"
	if r.events == nil {
		cmd.rec, err = evidence.Start(evidence.Config{Run: cmd.id})
	} else if cmd.rec, err = evidence.Resume(evidence.Config{Run: cmd.id}, r.events); err == nil {
		cmd.recall(r.events)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if cmd.world, err = look(r.t.Context(), r.setup, cmd.req); err != nil {
		r.t.Fatal(err)
	}
	defer cmd.close()
	r.exported.Store(false)
	proof, err = cmd.stranded(r.t.Context())
	r.events = slices.Clone(cmd.rec.Events())
	return proof, err
}

// cut has the command fail when it has noted what became of one lane's records, as one that is killed there.
func (r *returned) cut() {
	r.t.Helper()
	journal, err := r.setup.openJournal(r.t.Context(), r.setup.New, r.setup.Forward)
	if err != nil {
		r.t.Fatal(err)
	}
	second := journal.Partition(offsets.Lane{Topic: "orders", Partition: 1})
	if journal.Partition(offsets.Lane{Topic: "orders"}) == second {
		r.t.Fatal("both lanes have one partition of the journal")
	}
	journal.Close()
	fault := r.west.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: r.setup.Forward.Options.JournalTopic, Partitions: []int32{second}, Err: kerr.TopicAuthorizationFailed, Count: -1,
		When: func(kmsg.Request) bool { return r.exported.Load() },
	})
	defer fault.Remove()
	if _, err := r.deal(); err == nil || !strings.Contains(err.Error(), "note stranded records of orders-1") {
		r.t.Fatalf("cut when one lane is noted: %v", err)
	}
}

// holds is what the files of stranded records hold, by name: how many of which partition from which offset on.
func (r *returned) holds() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	names, err := filepath.Glob(filepath.Join(r.dir, "*.jsonl*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			r.t.Fatal(err)
		}
		at := map[int32][]int64{}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var l stranded.Line
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				r.t.Fatalf("%s: %v", name, err)
			}
			at[l.Partition] = append(at[l.Partition], l.Offset)
		}
		f.Close()
		var text []string
		for _, p := range slices.Sorted(maps.Keys(at)) {
			text = append(text, fmt.Sprintf("%d: %d from %d on", p, len(at[p]), at[p][0]))
		}
		all[filepath.Base(name)] = strings.Join(text, ", ")
	}
	return all
}

// ends takes the step to its end, and looks at the files and at what it says of them.
func (r *returned) ends(files map[string]string, said ...string) {
	r.t.Helper()
	proof, err := r.deal()
	if err != nil {
		r.t.Fatal(err)
	}
	if got := r.holds(); !maps.Equal(got, files) {
		r.t.Errorf("the files hold\n%v\nwant\n%v", got, files)
	}
	for _, want := range said {
		if !strings.Contains(proof, want) {
			r.t.Errorf("the command says %q, want %q", proof, want)
		}
	}
}

func TestACutExportIsFinishedByTheSameCommand(t *testing.T) {
	r := newReturned(t)
	r.cut()
	for range 2 { // the second time everything is noted
		r.ends(map[string]string{"stranded.jsonl": "0: 10 from 0 on, 1: 10 from 0 on"}, "20 records in "+r.file+", sha256 ")
	}
}

func TestWhatIsStrandedMeanwhileGoesToAFileOfItsOwn(t *testing.T) {
	r := newReturned(t)
	r.cut()
	r.write(0, 2) // whose lane is noted
	r.write(1, 3) // whose lane is not
	r.ends(map[string]string{
		"stranded.jsonl":   "0: 10 from 0 on, 1: 10 from 0 on",
		"stranded.2.jsonl": "0: 2 from 10 on, 1: 3 from 10 on",
	}, "20 records in "+r.file, "5 records in "+filepath.Join(r.dir, "stranded.2.jsonl"))
}

// What was noted is not found a second time: where its file is has to be known.
func TestAnExportThatWasTakenAwayIsMissed(t *testing.T) {
	r := newReturned(t)
	r.cut()
	if err := os.Rename(r.file, filepath.Join(r.dir, "taken")); err != nil {
		t.Fatal(err)
	}
	r.ends(map[string]string{"stranded.jsonl": "1: 10 from 0 on"}, "which is not there any more; 10 records in "+r.file, "20 records in ")
}

func TestAnExportReplacesNoOtherFile(t *testing.T) {
	r := newReturned(t)
	for _, name := range []string{r.file, filepath.Join(r.dir, "stranded.2.jsonl")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.ends(map[string]string{"stranded.jsonl": "", "stranded.2.jsonl": "", "stranded.3.jsonl": "0: 10 from 0 on, 1: 10 from 0 on"},
		"20 records in "+filepath.Join(r.dir, "stranded.3.jsonl"))
}
