package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/memnet"
	"replicator/internal/memnet/brokermem"
	"replicator/pkg/offsets"
)

// Hosts of the two clusters, and of those who use them.
var (
	sourceHosts = []string{"10.1.0.1", "10.1.0.2"}
	targetHosts = []string{"10.2.0.1", "10.2.0.2"}
)

const (
	writerHost   = "10.8.0.1"
	observerHost = "10.8.0.2"
	journalTopic = "replicator.east.west.journal"

	// requestLife is the protocol's bound on a request's life in the network.
	requestLife = 10 * time.Second
)

// world is one run: two clusters, what is written to the source, the daemons
// between them and what happens to all of these.
type world struct {
	t     testing.TB
	seed  uint64
	plan  plan
	began time.Time

	net            *memnet.Network
	source, target *kfake.Cluster
	memory         *brokermem.Memory
	witness        *witness
	writer         *writer

	daemons []*daemon // by slot; nil: none is running
	started int
	past    []*daemon      // crashed ones that may still be ending
	ends    sync.WaitGroup // of faults under way

	mu    sync.Mutex // guards daemons, story and wrong
	story []string
	wrong int // findings so far
}

// Result is what a run was like.
type Result struct {
	Records  int           // committed on the source
	Batches  int           // of ours on the target
	Openings int           // epoch records in the journal
	Forgets  int           // producers the target has forgotten
	CatchUp  time.Duration // fake time of the quiet phase
	Fake     time.Duration // fake time of all
}

// Run plays the run of a seed inside a synctest bubble, and fails t with the
// story of the run when an invariant is broken.
func Run(t testing.TB, seed uint64) (r Result) {
	w := &world{t: t, seed: seed, began: time.Now(), net: memnet.New(), witness: newWitness()}
	w.plan = newPlan(seed)
	w.daemons = make([]*daemon, w.plan.daemons)
	defer w.tell()
	w.clusters()
	defer w.source.Close()
	defer w.target.Close()
	w.tellf("%s", w.plan)
	w.links()
	w.writer = newWriter(w)
	w.writer.start()
	for slot := range w.plan.daemons {
		w.start(slot)
	}
	for _, s := range w.plan.steps {
		time.Sleep(time.Until(w.began.Add(s.at)))
		w.play(s)
	}
	w.ends.Wait()
	w.writer.stop()
	w.tellf("quiet")
	r.CatchUp = w.settle()
	w.tellf("caught up after %v", r.CatchUp)
	w.stopAll()
	r.Fake = time.Since(w.began)
	if !w.failed() {
		w.check(&r)
	}
	r.Forgets = w.memory.Forgets()
	w.writer.close()
	w.leaks()
	return r
}

// clusters starts both sides.
func (w *world) clusters() {
	cluster := func(id string, hosts []string, opts ...kfake.Opt) *kfake.Cluster {
		c, err := kfake.NewCluster(append(opts, kfake.ClusterID(id), kfake.NumBrokers(len(hosts)), kfake.ListenFn(w.net.ListenOn(hosts...)),
			kfake.GroupMinSessionTimeout(time.Second))...)
		if err != nil {
			w.t.Fatalf("start cluster %s: %v", id, err)
		}
		return c
	}
	w.source = cluster("east", sourceHosts)
	w.target = cluster("west", targetHosts)
	for _, tp := range w.plan.topics {
		settings := map[string]string{}
		if tp.compacted {
			settings["cleanup.policy"] = "compact"
		}
		if err := w.source.CreateTopic(tp.name, tp.partitions, settings); err != nil {
			w.t.Fatalf("create topic %s: %v", tp.name, err)
		}
	}
	// The fake leaves the aborted transactions out of an answer that its size in all
	// has ended; one that the size of a partition ends has them.
	w.source.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.source.KeepControl()
		if r, ok := req.(*kmsg.FetchRequest); ok {
			r.MaxBytes = 1 << 30
		}
		return nil, nil, false
	})
	var err error
	if w.memory, err = brokermem.Install(w.target, brokermem.Options{Check: w.plan.memoryCheck}); err != nil {
		w.t.Fatal(err)
	}
	w.witness.name = w.memory.Topic
	w.target.Control(w.witness.sees)
}

// links gives the network its distances: the daemons live beside the source.
func (w *world) links() {
	if w.plan.distance == 0 {
		return
	}
	for _, host := range targetHosts {
		w.net.Delay(memnet.Match{To: host}, memnet.ToListener, w.plan.distance/2)
		w.net.Delay(memnet.Match{To: host}, memnet.ToDialer, w.plan.distance/2)
	}
}

// client reaches a cluster from a host that no fault touches.
func (w *world) client(host string, seeds []string, opts ...kgo.Opt) []kgo.Opt {
	addrs := make([]string, len(seeds))
	for i, s := range seeds {
		addrs[i] = s + ":9092"
	}
	return append([]kgo.Opt{kgo.SeedBrokers(addrs...), kgo.Dialer(w.net.Dialer(host)), kgo.MetadataMinAge(100 * time.Millisecond)}, opts...)
}

// lanes are all partitions of the source.
func (w *world) lanes() (all []offsets.Lane) {
	for _, tp := range w.plan.topics {
		for p := range tp.partitions {
			all = append(all, offsets.Lane{Topic: tp.name, Partition: p})
		}
	}
	return all
}

// tellf adds a line to the story.
func (w *world) tellf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := fmt.Sprintf("%8.3fs  %s", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
	w.story = append(w.story, line)
	if os.Getenv("SIM_LOG") != "" {
		fmt.Fprintln(os.Stderr, line)
	}
}

const maxFindings = 20

// wrongf is a broken invariant.
func (w *world) wrongf(format string, args ...any) {
	w.mu.Lock()
	w.wrong++
	n := w.wrong
	w.mu.Unlock()
	if n <= maxFindings {
		w.tellf("WRONG: "+format, args...)
	}
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrong > 0
}

// tell fails the test with the story if anything was wrong. It goes to standard
// error at once, because what follows may end the whole process.
func (w *world) tell() {
	p := recover()
	if p != nil {
		w.wrongf("panic: %v", p)
	}
	if !w.failed() {
		return
	}
	w.mu.Lock()
	story := strings.Join(w.story, "\n")
	w.mu.Unlock()
	text := fmt.Sprintf("seed %d is wrong; again with SIM_SEED=%d\n%s\n", w.seed, w.seed, story)
	fmt.Fprint(os.Stderr, text)
	if p != nil {
		panic(p)
	}
	w.t.Errorf("seed %d is wrong: %d findings, see the story", w.seed, w.wrong)
}

// random returns the generator of one part of a run, so that the parts do not
// depend on each other's timing.
func random(seed uint64, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }
