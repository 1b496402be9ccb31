package cutover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"replicator/internal/pause"
)

// While writers are kept off nothing waits for a region that is gone, however patient the
// step is itself.
func TestAStepWithoutWritersEndsWhenARegionIsGone(t *testing.T) {
	patient := func(d time.Duration) func(context.Context, *run) (string, error) {
		return func(ctx context.Context, _ *run) (string, error) { return "waited", pause.For(ctx, d) }
	}
	for name, c := range map[string]struct {
		dies string
		step step
		want string // the error; none if empty
	}{
		"the new one":            {"west", step{do: patient(time.Minute), watched: true}, "no broker of west answers"},
		"the old one":            {"east", step{do: patient(time.Minute), watched: true}, "no broker of east answers"},
		"none":                   {"", step{do: patient(4 * watchEvery), watched: true}, ""},
		"one nobody waits for":   {"west", step{do: patient(4 * watchEvery)}, ""},
		"one, and it ends first": {"west", step{do: patient(watchEvery / 2), watched: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &run{}
			fakes := map[string]*kfake.Cluster{}
			r.Old, fakes["east"] = fakeBrokers(t, "east", kfake.NumBrokers(2))
			r.New, fakes["west"] = fakeBrokers(t, "west", kfake.NumBrokers(2))
			if k := fakes[c.dies]; k != nil {
				k.Close()
			}
			began := time.Now()
			proof, err := r.watched(t.Context(), c.step)
			switch {
			case c.want == "" && (err != nil || proof != "waited"):
				t.Errorf("it ended with %q, %v", proof, err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || errors.Is(err, context.DeadlineExceeded)):
				t.Errorf("the error is %v, want %s", err, c.want)
			case c.want != "" && time.Since(began) > 30*time.Second:
				t.Errorf("it ended after %v", time.Since(began))
			}
		})
	}
}
