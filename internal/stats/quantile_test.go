package stats_test

import (
	"testing"
	"time"

	"replicator/internal/stats"
)

func TestQuantile(t *testing.T) {
	var took []time.Duration
	for i := range 1000 {
		took = append(took, time.Duration(i+1))
	}
	for part, want := range map[float64]time.Duration{0: 1, 0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := stats.Quantile(took, part); got != want {
			t.Errorf("%v: %d, want %d", part, got, want)
		}
	}
	if got := stats.Quantile(took[:1], 0.99); got != 1 {
		t.Errorf("of one: %d", got)
	}
	if got := stats.Quantile(nil, 0.5); got != 0 {
		t.Errorf("of none: %d", got)
	}
}
