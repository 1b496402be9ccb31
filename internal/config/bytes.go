package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size. In text it is a number with KiB, MiB, GiB or TiB, or
// without a unit for bytes.
type Bytes int64

var units = []struct {
	name string
	size Bytes
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// String writes the largest unit that divides the size.
func (b Bytes) String() string {
	for _, u := range units {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText is String.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads what String writes. Decimal units (MB) are refused:
// half of those who write them mean the binary ones.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	number, unit := s, Bytes(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		if i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }); i > 0 {
			for _, u := range units {
				if strings.EqualFold(strings.TrimSpace(s[i:]), u.name[:1]) || strings.EqualFold(strings.TrimSpace(s[i:]), u.name[:1]+"B") || strings.EqualFold(strings.TrimSpace(s[i:]), u.name) {
					return fmt.Errorf("want a size like 64MiB: did you mean %s%s", s[:i], u.name)
				}
			}
		}
		return errors.New("want a size like 64MiB")
	}
	if n < 0 || n > math.MaxInt64/int64(unit) {
		return errors.New("the size is out of range")
	}
	*b = Bytes(n) * unit
	return nil
}
