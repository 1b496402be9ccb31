package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/mirror"
)

// Every kind of source data comes out right: a consumer of the target sees what
// a read_committed consumer of the source sees.
func TestEveryWorkloadArrives(t *testing.T) {
	pair := kafkatest.Pair(t)
	prefix := kafkatest.Topic(t, "w")
	var pairs []compare.Pair
	for _, spec := range workload.Catalogue(prefix+".", setting("E2E_RECORDS", 5000), false) {
		r, err := workload.Write(t.Context(), opts(pair.Source), spec)
		if err != nil {
			t.Fatalf("write %s: %v", spec.Topic, err)
		}
		t.Logf("%s: %d records, %d visible, %d holes %v", spec.Topic, r.Written, r.Visible(), r.Holes, r.Notes)
		pairs = append(pairs, compare.Pair{Source: spec.Topic, Target: spec.Topic})
	}
	began := time.Now()
	l := startLink(t, pair, mirror.Options{Topics: []string{regexp.QuoteMeta(prefix) + `\..*`}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report, err := compare.WaitEqual(ctx, compare.Seeds(pair.Source.Bootstrap()...), compare.Seeds(pair.Target.Bootstrap()...), pairs, compare.Options{})
	t.Logf("%v after %v", report, time.Since(began))
	if err != nil {
		for _, ln := range l.status().Lanes {
			if ln.State != mirror.LaneCopying || ln.LagRecords != nil && *ln.LagRecords > 0 {
				t.Logf("%+v", ln)
			}
		}
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range l.status().Routes {
		t.Logf("%-8s %-12s %-7s %7d batches %8d records %10d bytes", r.Route, r.Reason, r.Codec, r.Batches, r.Records, r.Bytes)
		seen[r.Route+" "+r.Reason] = true
	}
	for _, want := range []string{"forward dense", "repack small", "repack hole", "repack append_time", "skip marker", "skip aborted"} {
		if !seen[want] {
			t.Errorf("no batch took the route %s", strings.ReplaceAll(want, " ", " for "))
		}
	}
}
