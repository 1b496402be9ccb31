// Package words writes numbers the way people read them, the same in tables, reports
// and messages.
package words

import (
	"fmt"
	"strconv"
	"time"
)

// Number writes 1234567 as 1,234,567.
func Number(n int64) string {
	digits, sign := strconv.FormatInt(n, 10), ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// Count writes a number with its noun.
func Count(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Number(n) + " " + noun
}

// Between writes a number that lies between two, with its noun.
func Between(least, most int64, noun string) string {
	if least == most {
		return Count(most, noun)
	}
	return Number(least) + " to " + Count(most, noun)
}

// Offset writes an offset; a negative one is not known.
func Offset(n int64) string {
	if n < 0 {
		return "-"
	}
	return Number(n)
}

// Optional writes what may not be known.
func Optional[T any](v *T, write func(T) string) string {
	if v == nil {
		return "-"
	}
	return write(*v)
}

// Size writes bytes, in units of 1,024.
func Size(n int64) string {
	if n < 1024 {
		return Number(n) + " B"
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

// Seconds is [Span] of a number of seconds; what is no number is none.
func Seconds(s float64) string {
	const longest = 1e9 // beyond it a Duration overflows
	if !(s > 0) {
		s = 0
	}
	return Span(time.Duration(min(s, longest) * float64(time.Second)))
}

// Span writes how long something takes, to two or three digits. Less than nothing is
// nothing.
func Span(d time.Duration) string {
	switch {
	case d <= 0:
		return "0 s"
	case d < 100*time.Millisecond:
		return strconv.FormatFloat(float64(d.Microseconds())/1000, 'g', 2, 64) + " ms"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
