package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestFigureIsXMLWithEverythingInIt(t *testing.T) {
	f := figure{
		title: "a < b & c", x: axis{label: "minutes"},
		panels: []panel{
			{title: "memory", lines: []line{{name: "one", color: "#123456", x: []float64{0, 1, 2, 3}, y: []float64{1, 2, math.NaN(), 4}}}},
			{title: "lag", y: axis{log: true}, lines: []line{{name: "two", x: []float64{0, 1}, y: []float64{0, 1000}, dots: true}}},
			{title: "nothing known", lines: []line{{x: []float64{1}, y: []float64{math.NaN()}}}},
			{title: "no line"},
		},
		marks: []mark{{1.5, "killed"}},
	}
	out := f.svg()
	d := xml.NewDecoder(bytes.NewReader(out))
	lines := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 3 { // the first is in two runs
		t.Errorf("%d lines are drawn, want 3", lines)
	}
	text := string(out)
	for _, want := range []string{"a &lt; b &amp; c", "minutes", "memory", "lag", "one", "two", "killed"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the figure", want)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Error("a place is not a number")
	}
}

func TestScale(t *testing.T) {
	s := scaleOf(axis{zero: true}, []float64{40, 95, math.NaN()}, 200, 0)
	if s.at(0) != 200 || s.at(95) < 0 || s.at(95) > 20 {
		t.Errorf("0 is at %v, 95 at %v", s.at(0), s.at(95))
	}
	if ticks := s.ticks(); len(ticks) < 3 || len(ticks) > 8 || ticks[0] != 0 {
		t.Errorf("ticks %v", ticks)
	}
	l := scaleOf(axis{log: true}, []float64{0, 12, 8000}, 0, 300)
	if l.at(10) != 0 || l.at(10_000) != 300 || l.at(0) != 0 || math.Abs(l.at(100)-100) > 1e-9 {
		t.Errorf("10 is at %v, 100 at %v, 10,000 at %v, 0 at %v", l.at(10), l.at(100), l.at(10_000), l.at(0))
	}
	if got := l.ticks(); len(got) != 4 {
		t.Errorf("ticks %v", got)
	}
}
