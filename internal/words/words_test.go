package words

import (
	"math"
	"testing"
	"time"
)

func TestNumbersAreWrittenForPeople(t *testing.T) {
	known := int64(1500)
	for got, want := range map[string]string{
		Number(0): "0", Number(999): "999", Number(-1000): "-1,000", Number(1234567): "1,234,567", Number(math.MinInt64): "-9,223,372,036,854,775,808",
		Count(1, "lane"): "1 lane", Count(0, "lane"): "0 lanes", Count(2000, "lane"): "2,000 lanes",
		Offset(-1): "-", Offset(1001): "1,001",
		Optional(&known, Number): "1,500", Optional(nil, Size): "-",
		Size(1023): "1,023 B", Size(1024): "1.0 KiB", Size(1<<20 - 1): "1.0 MiB", Size(math.MaxInt64): "8192.0 PiB",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTimesAreWrittenForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 1500 * time.Microsecond: "1.5 ms", 99 * time.Millisecond: "99 ms", 100 * time.Millisecond: "0.1 s", 9949 * time.Millisecond: "9.9 s",
		59*time.Second + 900*time.Millisecond: "59 s", 61 * time.Second: "1m01s", 90 * time.Minute: "1h30m", 49 * time.Hour: "2d01h",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
		if got := Seconds(d.Seconds()); got != want {
			t.Errorf("%v as seconds: %q, want %q", d, got, want)
		}
	}
	for s, want := range map[float64]string{math.NaN(): "0 s", math.Inf(-1): "0 s", math.Inf(1): "11574d01h", 1e300: "11574d01h"} {
		if got := Seconds(s); got != want {
			t.Errorf("%v seconds: %q, want %q", s, got, want)
		}
	}
}
