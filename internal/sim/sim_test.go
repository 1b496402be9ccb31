package sim_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"

	"replicator/internal/sim"
)

// number reads an environment variable.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return n
}

func TestDaemonsUnderFaultsCopyEveryRecordOnce(t *testing.T) {
	first := number(t, "SIM_SEED", 1)
	runs := uint64(30)
	if os.Getenv("SIM_SEED") != "" {
		runs = 1
	}
	runs = number(t, "SIM_RUNS", runs)
	for seed := first; seed < first+runs; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := sim.Run(t, seed)
				t.Logf("%+v", r)
			})
		})
	}
}
