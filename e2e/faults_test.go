package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// setting reads a number from the environment, so that the same test runs
// short in CI and long by hand.
func setting(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

var openedLanes = regexp.MustCompile(`"msg":"lanes opened".*"lanes":(\d+)`)

// Two daemons work on the same lanes all the time (each in a group of its own),
// are killed and frozen at random moments, brokers of both sides are killed and
// stopped; records of today and of two days ago arrive all the while. Nothing is
// lost, nothing doubled, the order kept.
func TestNothingLostUnderKills(t *testing.T) {
	t.Parallel()
	kills, restarts := setting("E2E_KILLS", 6), setting("E2E_RESTARTS", 3)
	seed := uint64(setting("E2E_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("E2E_SEED=%d kills %d restarts %d", seed, kills, restarts)
	rnd := rand.New(rand.NewPCG(seed, 0))

	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	src, dst := opts(pair.Source), opts(pair.Target)
	today := workload.Spec{Topic: "today", Kind: workload.Plain, Codec: workload.LZ4, Partitions: 4, ValueBytes: 300}
	live, err := workload.StartLive(t.Context(), src, workload.LiveConfig{Spec: today, Rate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	old := workload.Spec{Topic: "old", Kind: workload.Old, Partitions: 4, Records: 2000, ValueBytes: 300}
	stopOld := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stopOld:
				return
			default:
			}
			spec := old
			spec.Seed = uint64(n)
			spec.First = int64(n * old.Records)
			if _, err := workload.Write(context.WithoutCancel(t.Context()), src, spec); err != nil {
				t.Logf("write old records: %v", err)
			}
			time.Sleep(time.Second) // a rate, not a synchronisation
		}
	})

	file := daemonFile(t, pair, "today", "old")
	daemons := []*process{startProcess(t, file, "a", "racer-a"), startProcess(t, file, "b", "racer-b")}
	type fault struct {
		name string
		do   func()
	}
	var plan []fault
	for i := range kills {
		d := daemons[i%2]
		if i%3 == 2 {
			plan = append(plan, fault{fmt.Sprintf("freeze daemon %d", i%2), func() {
				d.signal(syscall.SIGSTOP)
				time.Sleep(time.Duration(1+rnd.IntN(13)) * time.Second)
				d.signal(syscall.SIGCONT)
			}})
		}
		plan = append(plan, fault{fmt.Sprintf("kill daemon %d", i%2), func() { d.kill(); d.start() }})
	}
	for i := range restarts {
		c, side := pair.Target, "target"
		if i%3 == 2 {
			c, side = pair.Source, "source"
		}
		b := c.Broker(1)
		hard := i%2 == 0
		plan = append(plan, fault{fmt.Sprintf("restart %s broker, hard %v", side, hard), func() {
			if hard {
				b.Kill()
			} else if err := b.Stop(); err != nil {
				t.Error(err)
			}
			if err := b.Start(t.Context()); err != nil {
				t.Errorf("start %s broker again: %v", side, err)
			}
		}})
	}
	rnd.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	time.Sleep(5 * time.Second)
	for i, f := range plan {
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
		t.Logf("fault %d of %d: %s", i+1, len(plan), f.name)
		f.do()
	}

	// Quiet: the writers end, one daemon is left.
	close(stopOld)
	writing.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	written, err := live.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("daemon b stopped in %v", daemons[1].stop())
	report, err := compare.WaitEqual(ctx, src, dst, compare.Same("today", "old"), compare.Options{})
	t.Log(report)
	if err != nil {
		t.Fatal(err)
	}
	audit, err := written.Audit(ctx, dst, "today")
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.Err(); err != nil {
		t.Error(err)
	}
	for _, d := range daemons {
		b, _ := os.ReadFile(d.log)
		text, openings := string(b), 0
		for _, m := range openedLanes.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.Atoi(m[1])
			openings += n
		}
		t.Logf("%s: doubts %d, fenced %d, halted %d, openings %d", d.group, strings.Count(text, "lane in doubt"), strings.Count(text, `"kind":"fenced"`), strings.Count(text, `"kind":"halted"`), openings)
	}
}
