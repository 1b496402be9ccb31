package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestScrape(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `# HELP replicator_lanes Lanes
# TYPE replicator_lanes gauge
replicator_lanes{link="east->west",state="copying"} 30
replicator_lanes{link="east->west",state="opening"} 10
# TYPE replicator_lag_seconds gauge
replicator_lag_seconds{link="east->west"} 1.5
replicator_lag_seconds{link="east->north"} 0.25
# TYPE replicator_batches_total counter
replicator_batches_total{route="forward"} 7
`)
	}))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	m, err := scrape(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.sum("replicator_lanes"); got != 40 {
		t.Errorf("lanes %v", got)
	}
	if got := m.sum("replicator_lanes", "state", "copying"); got != 30 {
		t.Errorf("copying lanes %v", got)
	}
	if got := m.highest("replicator_lag_seconds"); got == nil || *got != 1.5 {
		t.Errorf("highest lag %v", got)
	}
	if m.highest("replicator_checkpoint_current_age_seconds") != nil || m.sum("replicator_absent") != 0 {
		t.Error("what is not said is known")
	}
	if got := m.sum("replicator_batches_total"); got != 7 {
		t.Errorf("batches %v", got)
	}
	if n, err := scrapeBytes(t.Context(), addr); err != nil || n < 300 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
