package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
)

// The brokers of a region have a wrong clock. By less than the limit nothing is in the way
// of a cutover; by more it is refused before anything is touched.
func TestACutoverIsRefusedWhileTheClockOfARegionIsWrong(t *testing.T) {
	t.Parallel()
	cfg := kafkatest.Config{Authorizer: true, SASL: []string{kafkatest.Plain}, Users: []string{appUser}, MovableClock: true}
	pair := kafkatest.StartPair(t, cfg, cfg)
	r := &refusing{group: "clock.billing"}
	r.killing = &killing{theatre: newTheatre(t, pair, "clock", "acl", 1), t: t, epoch: 1, seen: map[string]bool{}}
	r.at = r.east()
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		if err := c.Allow(t.Context(), appUser, kadm.NewACLs().Operations(kadm.OpRead, kadm.OpWrite).Topics(r.topics...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range r.topics {
		putEach(t, pair.Source, topic, 1, 20)
		commit(t, pair.Source.Admin(), r.group, topic, 0, 7, "")
	}
	r.must("authority", "init", "--region", r.east(), "--yes")
	r.daemon = startProcess(t, r.file, "daemon", "")
	r.tell("writers", "none")
	r.passes("switchover", "--to", r.west())
	eventually(t, "the group is placed on the target", func() bool {
		o, err := pair.Target.Admin().FetchOffsets(t.Context(), r.group)
		return err == nil && len(o.Offsets()) == len(r.topics)
	})
	east, west := pair.Source, pair.Target
	moved := func(c *kafkatest.Cluster, ahead time.Duration) {
		t.Helper()
		if err := c.MoveClock(ahead); err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	switchover := []string{"switchover", "--to", r.west(), "--yes"}
	says := func(off string) []string {
		return []string{"clocks: ahead of here by more than 30s: " + off, "set them right (NTP), or raise cutover.clock_limit"}
	}

	moved(west, 2*time.Minute+500*time.Millisecond)
	r.refused(t, 3, says(r.west()+" 2m0."), switchover...)
	r.refused(t, 3, says(r.west()+" 2m0."), "failover", "--to", r.west(), "--accept-loss", "--force", "--yes")
	moved(west, 0)
	moved(east, -45500*time.Millisecond)
	r.refused(t, 3, says(r.east()+" -45."), switchover...)
	if _, stderr, code := r.run("drill"); code != 3 || !strings.Contains(stderr, "clocks") || len(r.scratch()) > 0 {
		t.Errorf("drill: exit code %d, left %v\n%s", code, r.scratch(), stderr)
	}

	// So far behind that brokers take our records for some of the future.
	moved(east, 0)
	moved(west, -2*time.Hour)
	r.refused(t, 3, []string{r.west() + " takes nothing that has the time of this machine", "INVALID_TIMESTAMP", "set the clocks right (NTP)"}, switchover...)
	for _, topic := range r.topics {
		putEach(t, east, topic, 1, 5)
	}
	eventually(t, "the daemon says what it cannot copy, and why", func() bool {
		said, err := os.ReadFile(r.daemon.log)
		return err == nil && strings.Contains(string(said), "INVALID_TIMESTAMP") && strings.Contains(string(said), "set them right (NTP)")
	})

	// By less than the limit. What was refused is copied, and nothing is lost.
	moved(west, -10*time.Second)
	moved(east, 10*time.Second)
	r.passes("switchover", "--to", r.west())
	said := r.must(switchover...)
	r.done("switchover")
	r.tell("writers", "none") // nobody is there
	r.holds()
	t.Logf("%s", said)
	for _, topic := range r.topics {
		putEach(t, west, topic, 1, 20)
	}
	eventually(t, "what is written in the west is copied to the east", func() bool {
		n := 0
		for _, topic := range r.topics {
			if err := compare.Read(t.Context(), internal(east), topic, func(*kgo.Record) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		return n == (20+5+20)*len(r.topics)
	})
}
