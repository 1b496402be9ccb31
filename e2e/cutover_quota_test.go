package e2e

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/kafkatest"
)

// Quotas hold the daemon and the commands to less than the copy needs: brokers keep their
// answers back for seconds. A cutover takes longer then, or is undone when it takes too long;
// nothing it reads is taken for wrong because it came late.
func TestACutoverUnderAQuota(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t, kafkatest.Config{Name: "east"}, kafkatest.Config{Name: "west"})
	const client, rate = "replicator", 60_000 // bytes a second
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		set, err := c.Admin().AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{
			Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: new(client)}},
			Ops:    []kadm.AlterClientQuotaOp{{Key: "consumer_byte_rate", Value: rate}, {Key: "producer_byte_rate", Value: rate}},
		}})
		if err != nil || len(set) != 1 || set[0].Err != nil {
			t.Fatalf("set quotas: %+v, %v", set, err)
		}
	}
	th := newTheatre(t, pair, "quota", "hook", 2)
	th.must("authority", "init", "--region", th.east(), "--yes")
	th.daemon = startProcess(t, th.keeper, "daemon", "")
	th.startApps("quota")
	th.acked(4000)
	from := th.east()
	for _, to := range []string{th.west(), th.east()} {
		for try := 1; ; try++ {
			// Writers write more than the quota lets through: the copy comes nearer while they rest.
			th.quiet()
			th.passes("switchover", "--to", to)
			th.tell("writers", from)
			th.acked(40)
			stdout, stderr, code := th.run("switchover", "--to", to, "--yes")
			t.Logf("switchover to %s: exit code %d\n%s", to, code, stderr)
			if code == 0 {
				break
			}
			late := strings.Contains(stderr, "error: undone: drain: not done after cutover.drain_timeout") || strings.Contains(stderr, "error: lag: ")
			if !late || try > 3 {
				t.Fatalf("switchover to %s, %d. try: exit code %d\n%s", to, try, code, stdout)
			}
		}
		from = to
		th.acked(1000)
	}
	th.quiet()
	th.settled(nil)
}
