package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Origin is where a setting comes from.
type Origin struct {
	File string // with Line, or
	Line int
	Name string // of a variable or flag
}

func (o Origin) String() string {
	if o.Name != "" {
		return o.Name
	}
	if o.File == "" {
		return ""
	}
	if o.Line == 0 {
		return filepath.Base(o.File)
	}
	return filepath.Base(o.File) + ":" + strconv.Itoa(o.Line)
}

// Fault is one thing wrong with a configuration.
type Fault struct {
	Origin Origin // zero: a default, or something that is missing
	Key    string // "clusters.east.tls.ca_file", "links[0].topics[1]"
	Value  string // as written; empty when there is none, or when it may be a secret
	Text   string // what is wrong
	Hint   string // what to do, or empty
}

func (f Fault) String() string {
	var b strings.Builder
	if at := f.Origin.String(); at != "" {
		b.WriteString(at + ": ")
	}
	b.WriteString(f.Key)
	if f.Value != "" {
		b.WriteString(" " + strconv.Quote(shorten(f.Value)))
	}
	if f.Key != "" {
		b.WriteString(": ")
	}
	b.WriteString(f.Text)
	if f.Hint != "" {
		fmt.Fprintf(&b, " (%s)", f.Hint)
	}
	return b.String()
}

func shorten(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// Faults is everything wrong with a configuration, in the order of the file.
type Faults []Fault

func (fs Faults) Error() string {
	if len(fs) == 1 {
		return "the configuration has a fault:\n  " + fs[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the configuration has %d faults:", len(fs))
	for _, f := range fs {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// sorted puts faults in the order of the file, then those without a line.
func (fs Faults) sorted() Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		la, lb := a.Origin.Line, b.Origin.Line
		if (la == 0) != (lb == 0) {
			return cmp.Compare(lb, la)
		}
		return cmp.Or(cmp.Compare(la, lb), cmp.Compare(a.Origin.Name, b.Origin.Name), cmp.Compare(a.Key, b.Key))
	})
	return fs
}

// near returns the candidate that a word was probably meant to be, or "".
func near(word string, candidates []string) string {
	best, least := "", len(word)/3+2
	for _, c := range candidates {
		if d := distance(fold(word), fold(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// fold drops what people write differently: case and separators.
func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
}

// distance is Levenshtein's: how many letters to insert, drop or change.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func didYouMean(word string, candidates []string) string {
	if n := near(word, candidates); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}
