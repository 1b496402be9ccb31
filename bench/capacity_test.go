package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestCapacityReport(t *testing.T) {
	r := capacityResults{
		Lanes: []lanesResult{
			{Lanes: 10, First: laneStart{Open: time.Second}, Second: laneStart{Open: 500 * time.Millisecond}, IdleCPU: 0.001, IdleRSS: 20 << 20},
			{Lanes: 10_000, First: laneStart{Open: 40 * time.Second}, Second: laneStart{Open: 9 * time.Second}, IdleCPU: 0.02, IdleRSS: 100 << 20, FetchFirst: exchange{Request: 330_000}},
		},
		Active: []activeResult{{Lanes: 8, Rate: 1000, Bytes: 1000, P99: 7 * time.Millisecond}},
		Groups: []groupsResult{{Groups: 0, Peak: 30 << 20}, {Groups: 100, Peak: 60 << 20}},
		Sizes:  []sizeResult{{Bytes: 100, GB: 1, WireGB: 0.25, CPUPerGB: 1, Speed: 100}, {Bytes: 900_000, GB: 1, WireGB: 0.25, CPUPerGB: 0.3, Speed: 500}},
		Errors: []string{"a measurement: why"},
	}
	text := r.markdown("x")
	for _, want := range []string{"| 10000 | 40.0 (0.0) | 9.0 |", "330000", "| 8 | 1000 |", "| 100 |", "| 900000 |", "0.3", "Failed: a measurement: why", "x.svg"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the report:\n%s", want, text)
		}
	}
	if strings.Contains(text, "%!") {
		t.Errorf("a format is wrong:\n%s", text)
	}
	svg := r.figure().svg()
	if n := bytes.Count(svg, []byte("<polyline")); n != 7 || bytes.Contains(svg, []byte("NaN")) {
		t.Errorf("%d lines in the figure, want 7", n)
	}
	if len((&capacityResults{}).figure().svg()) == 0 {
		t.Error("no figure of nothing")
	}
}
