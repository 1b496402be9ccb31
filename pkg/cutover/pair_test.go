package cutover

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/fakeproducers"
	"replicator/internal/pause"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
)

func TestMain(m *testing.M) {
	// Defaults of this package, which the command line overrides: what moves whole regions is
	// tried a few times, and tests wait more than they compute.
	for name, value := range map[string]string{"rapid.checks": "4", "test.parallel": "4"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// pair is two embedded clusters, east and west, whose topic orders a daemon copies in the
// direction the authority allows. An application may write to both.
type pair struct {
	t       *testing.T
	brokers map[string]*kfake.Cluster
	regions map[string]*cluster.Cluster // as the commands reach them
	cfg     *config.Config
	dir     string   // of evidence
	stop    func()   // the daemon
	written []string // values of the application
}

const partitions = 2

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, brokers: map[string]*kfake.Cluster{}, regions: map[string]*cluster.Cluster{}, dir: t.TempDir()}
	cfg := config.Default()
	cfg.Instance, cfg.HTTP.Listen, cfg.Limits.Memory, cfg.Clusters = "test", "", 8<<20, map[string]cluster.Config{}
	for _, alias := range []string{"east", "west"} {
		k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID(alias+"-id"), kfake.SeedTopics(partitions, "orders"), kfake.GroupMinSessionTimeout(time.Second),
			kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "secret"), kfake.User("PLAIN", "app", "secret"), kfake.EnableACLs())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		fakeproducers.Describe(k)
		c := cluster.DefaultConfig()
		c.BootstrapServers = k.ListenAddrs()
		c.SASL = cluster.SASL{Mechanism: cluster.Plain, Username: "admin", Password: cluster.LiteralSecret("secret"), AllowPlaintext: true}
		cfg.Clusters[alias], p.brokers[alias] = c, k
		if p.regions[alias], err = cluster.Open(t.Context(), alias, c, cluster.Options{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.regions[alias].Close)
		if _, err := p.regions[alias].Admin().CreateACLs(t.Context(), kadm.NewACLs().Operations(kadm.OpWrite, kadm.OpRead, kadm.OpDescribe).Topics("orders").Allow("User:app")); err != nil {
			t.Fatal(err)
		}
	}
	for _, ends := range [][2]string{{"east", "west"}, {"west", "east"}} {
		l := config.DefaultLink()
		l.From, l.To, l.Name = ends[0], ends[1], ends[0]+"->"+ends[1]
		l.Topics, l.Groups = []string{"orders"}, []string{"billing"}
		own := "replicator." + ends[0] + "." + ends[1]
		l.Journal.Topic, l.Journal.Partitions, l.Checkpoints.Topic = own+".journal", 1, own+".checkpoints"
		l.SessionTimeout, l.RefreshInterval, l.Checkpoints.Interval = time.Second, 500*time.Millisecond, 500*time.Millisecond
		cfg.Links = append(cfg.Links, l)
	}
	p.cfg = &cfg
	p.stop = func() {}
	t.Cleanup(func() { p.stop() })
	return p
}

// run starts the daemon of both links.
func (p *pair) run() {
	p.t.Helper()
	d, err := daemon.New(p.t.Context(), p.cfg, daemon.Options{Version: "test", Log: zap.NewNop()})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("run daemon: %v", err)
		}
	})
}

// setup is what the commands make of the configuration.
func (p *pair) setup(from, to string) Setup {
	p.t.Helper()
	s := Setup{
		Pair: authority.PairOf(from, to), Tool: "test", Log: zap.NewNop(),
		Old: Region{Alias: from, Cluster: p.regions[from]}, New: Region{Alias: to, Cluster: p.regions[to]},
		Settings: Settings{
			LagLimit: 1000, ClockLimit: time.Minute, Writers: "acl", Settle: 5 * time.Millisecond, DrainTimeout: 10 * time.Second,
			GroupsTimeout: 5 * time.Second, VerifyRecords: 100, EvidenceDir: p.dir,
		},
	}
	for i := range p.cfg.Links {
		l := &p.cfg.Links[i]
		o, err := daemon.LinkOptions(p.cfg, l)
		if err != nil {
			p.t.Fatal(err)
		}
		link := Link{
			Name: l.Name, Options: o, CheckpointsTopic: l.Checkpoints.Topic,
			Group: func(name string) bool { return slices.Contains(l.Groups, name) }, Topic: func(name string) bool { return slices.Contains(l.Topics, name) },
		}
		if l.To == to {
			s.Forward = link
		} else {
			s.Reverse = &link
		}
	}
	return s
}

// app is a connection of the application, which ACLs bind; super one that they do not.
func (p *pair) app(alias string, opts ...kgo.Opt) *kgo.Client   { return p.as("app", alias, opts...) }
func (p *pair) super(alias string, opts ...kgo.Opt) *kgo.Client { return p.as("admin", alias, opts...) }

func (p *pair) as(user, alias string, opts ...kgo.Opt) *kgo.Client {
	p.t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(p.brokers[alias].ListenAddrs()...), kgo.SASL(plain.Auth{User: user, Pass: "secret"}.AsMechanism()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, opts...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

// first names the region that is authoritative before anything else.
func (p *pair) first(region string) {
	p.t.Helper()
	for _, alias := range []string{"east", "west"} {
		c, err := authority.Change(p.t.Context(), authority.Config{Cluster: p.regions[alias], Pair: authority.PairOf("east", "west")})
		if err != nil {
			p.t.Fatal(err)
		}
		err = c.Set(p.t.Context(), authority.Record{Epoch: 1, Region: region, Verb: "init", By: "test", Run: "init-1", Since: time.Unix(1e9, 0)})
		if err == nil && alias != region {
			err = c.Ready(p.t.Context(), authority.Ready{From: region, To: alias, Epoch: 1, Run: "init-1"})
		}
		c.Close()
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// write appends records of the application, each of a value of its own.
func (p *pair) write(alias string, n int) []string {
	p.t.Helper()
	if err := p.mayWrite(alias, n); err != nil {
		p.t.Fatal(err)
	}
	return slices.Clone(p.written[len(p.written)-n:])
}

func (p *pair) mayWrite(alias string, n int) error {
	c := p.app(alias)
	defer c.Close()
	for range n {
		value := fmt.Sprintf("%s %d", alias, len(p.written))
		if err := c.ProduceSync(p.t.Context(), &kgo.Record{Topic: "orders", Partition: int32(len(p.written) % partitions), Value: []byte(value)}).FirstErr(); err != nil {
			return err
		}
		p.written = append(p.written, value)
	}
	return nil
}

// read are the values a region has, in order.
func (p *pair) read(alias string) (values []string) {
	p.t.Helper()
	ends, err := p.regions[alias].Admin().ListEndOffsets(p.t.Context(), "orders")
	if err != nil {
		p.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	c := p.app(alias, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	defer c.Close()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			p.t.Fatalf("%s was not read to its end: %v", alias, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
	slices.Sort(values)
	return values
}

// until polls, for what other goroutines bring about.
func until(t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return
		}
		if pause.For(ctx, 50*time.Millisecond) != nil {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}

// passes waits until a verb's gates let it through.
func (p *pair) passes(s Setup, req Request) {
	p.t.Helper()
	until(p.t, "the gates", func() error { return p.gates(s, req) })
}

// gates is what a plan is refused for.
func (p *pair) gates(s Setup, req Request) error {
	req.ExpectEpoch = -1
	plan, err := MakePlan(p.t.Context(), s, req)
	if err != nil {
		return err
	}
	defer plan.Close()
	return plan.Refused()
}

// denied are the rules that keep the application from writing to a region.
func (p *pair) denied(alias string) (n int) {
	p.t.Helper()
	res, err := p.regions[alias].Admin().DescribeACLs(p.t.Context(), kadm.NewACLs().Topics("orders").Deny("User:app").DenyHosts().Operations(kadm.OpAny).ResourcePatternType(kadm.ACLPatternAny))
	if err != nil {
		p.t.Error(err)
	}
	for _, r := range res {
		n += len(r.Described)
	}
	return n
}

// commit sets where the group billing goes on in a region.
func (p *pair) commit(alias string, offset int64) {
	p.t.Helper()
	offsets := kadm.Offsets{}
	for i := range int32(partitions) {
		offsets.AddOffset("orders", i, offset, -1)
	}
	if err := p.regions[alias].Admin().CommitAllOffsets(p.t.Context(), "billing", offsets); err != nil {
		p.t.Fatal(err)
	}
}

// resumes are the records the group billing goes on with in a region, by partition.
func (p *pair) resumes(alias string) map[int32]string {
	p.t.Helper()
	committed, err := p.regions[alias].Admin().FetchOffsets(p.t.Context(), "billing")
	if err != nil {
		p.t.Fatal(err)
	}
	c := p.app(alias, kgo.ConsumePartitions(committed.KOffsets()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	first := map[int32]string{}
	for len(first) < partitions {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			p.t.Fatalf("the group finds no record in %s behind %v", alias, committed)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if _, ok := first[r.Partition]; !ok {
				first[r.Partition] = string(r.Value)
			}
		})
	}
	return first
}

// same waits until a region has the records of the application, each once.
func (p *pair) same(alias string, want []string) {
	p.t.Helper()
	want = slices.Sorted(slices.Values(want))
	until(p.t, "the records of "+alias, func() error {
		if d := cmp.Diff(want, p.read(alias)); d != "" {
			return fmt.Errorf("-written +read:\n%s", d)
		}
		return nil
	})
}
