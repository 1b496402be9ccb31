package observe

import (
	"strings"
	"testing"
	"time"

	"replicator/internal/status"
	"replicator/pkg/authority"
	"replicator/pkg/cluster"
)

// authorities are of two pairs that share a region; who is authoritative in the
// second one is not known.
func authorities() []status.Authority {
	since, age := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC), 1.5
	return []status.Authority{
		{Pair: "east/west", Regions: []string{"east", "west"}, Known: true, Epoch: 7, Region: "west", Since: &since, Copies: []status.AuthorityCopy{{Cluster: "west", Epoch: 7, Age: &age}, {Cluster: "east"}},
			Drill: &authority.Drill{Run: "drill-20260301T100000Z-3f9a", Ended: since, From: "west", To: "east", Success: true, LastSuccess: &since}},
		{Pair: "north/west", Regions: []string{"north", "west"}, Error: "grant READ on topic replicator.authority", Copies: []status.AuthorityCopy{{Cluster: "north"}}},
	}
}

func TestAuthorityAnswersByItsCode(t *testing.T) {
	two, one, none := example(), example(), example()
	two.Authority, one.Authority, none.Authority = authorities(), authorities()[:1], nil
	for _, c := range []struct {
		name, query string
		of          status.Status
		code        int
		says        string
	}{
		{"who", "", one, 200, `{"pair":"east/west","epoch":7,"region":"west","since":"2026-03-01T11:00:00Z"}`},
		{"is it this one", "?region=west", one, 200, `"region":"west"`},
		{"is it the other one", "?region=east", one, 503, `"region":"west"`},
		{"unknown region", "?region=south", one, 404, "no such region"},
		{"unknown pair", "?pair=a/b", one, 404, ""},
		{"no authority", "?region=west", none, 404, "no authority"},
		{"of several", "", two, 400, "pair=a/b"},
		{"region of several", "?region=west", two, 400, "pair=a/b"},
		{"region of one", "?region=east", two, 503, `"region":"west"`},
		{"named pair", "?region=west&pair=east/west", two, 200, ""},
		{"not known", "?region=north", two, 503, "it is not known which region is authoritative: grant READ"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := listening(t, always(c.of), nil)
			if code, _, body := ask(t, "GET", s.URL()+"/authority"+c.query, nil); code != c.code || !strings.Contains(body, c.says) {
				t.Errorf("%d %s, want %d %s", code, body, c.code, c.says)
			}
		})
	}
}

func TestAuthorityNeedsNoTokenButKeepsErrorsToItself(t *testing.T) {
	s := listening(t, always(example()), func(cfg *ServerConfig) {
		cfg.HTTP.Token = cluster.LiteralSecret("sesame")
	})
	if code, _, _ := ask(t, "GET", s.URL()+"/authority?region=west&pair=east/west", nil); code != 200 {
		t.Errorf("without the token: %d", code)
	}
	if code, _, body := ask(t, "GET", s.URL()+"/authority?region=north", nil); code != 503 || strings.Contains(body, "grant") {
		t.Errorf("without the token: %d %s", code, body)
	}
}

func TestAuthoritySeries(t *testing.T) {
	f := scrape(t, example(), false)
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
		there  bool
	}{
		{"authority_epoch", []string{"pair", "east/west"}, 7, true},
		{"authority_region", []string{"pair", "east/west", "region", "west"}, 1, true},
		{"authority_region", []string{"pair", "east/west", "region", "east"}, 0, true},
		{"authority_age_seconds", []string{"pair", "east/west", "cluster", "west"}, 1.5, true},
		{"authority_age_seconds", []string{"cluster", "east"}, 0, false},
		{"drill_last_timestamp_seconds", []string{"pair", "east/west"}, 1772362800, true},
		{"drill_last_success", []string{"pair", "east/west"}, 1, true},
		{"drill_last_timestamp_seconds", []string{"pair", "north/west"}, 0, false},
		{"drill_last_success", []string{"pair", "north/west"}, 0, false},
		{"authority_epoch", []string{"pair", "north/west"}, 0, false},
		{"authority_region", []string{"pair", "north/west"}, 0, false},
	} {
		if got, there := value(f, c.name, c.labels...); got != c.want || there != c.there {
			t.Errorf("%s%v: %v, there: %v", c.name, c.labels, got, there)
		}
	}
}
