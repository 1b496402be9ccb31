package observe

import (
	"net/http"
	"strings"
	"testing"

	"replicator/pkg/checkpoint"
)

// Groups are called what their owners like. Two that no label can tell apart cost
// one of them its series, and nobody else's.
func TestForeignGroupsDoNotBreakTheScrape(t *testing.T) {
	st := example()
	names := []string{"\x1b[31mred", "forged\nreplicator_link_ready 0", "<script>", "=cmd", "../x", "quote\"\\", strings.Repeat("long ", 5000), "no text \xff", "no text \xfe"}
	for _, name := range names {
		st.Links[0].Checkpoints.Groups = append(st.Links[0].Checkpoints.Groups, checkpoint.GroupStatus{Group: name, Type: "consumer", Partitions: 1, Missing: 7})
	}
	s := listening(t, always(st), nil)
	code, _, body := ask(t, http.MethodGet, s.URL()+"/metrics", nil)
	if code != http.StatusOK {
		t.Fatalf("code %d: %.200s", code, body)
	}
	series := 0
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, namespace) && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") && !strings.HasPrefix(line, "promhttp_") {
			t.Errorf("a line that is no series: %.80q", line)
		}
		if strings.HasPrefix(line, namespace+"group_missing_offsets{") && strings.HasSuffix(line, " 7\n") {
			series++
		}
	}
	if want := len(names) - 1; series != want {
		t.Errorf("%d series of foreign groups, want %d", series, want)
	}
	if strings.Contains(body, "\nreplicator_link_ready 0") {
		t.Error("a group forged a series")
	}
	if !strings.Contains(body, namespace+"lag_records{") || !strings.Contains(body, namespace+"group_placed_partitions{group=\"") {
		t.Error("series of others are missing")
	}
	_, _, body = ask(t, http.MethodGet, s.URL()+"/status", nil)
	if !clean(strings.TrimSuffix(body, "\n")) {
		t.Errorf("unprintable characters in /status")
	}
}
