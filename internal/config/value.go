package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"replicator/pkg/cluster"
)

// setting is a value as it was written, before it is known to be one.
type setting struct {
	node   *node
	path   []string // from the root; list items by number
	origin Origin
}

// reader turns written values into the flat map that is merged, and collects
// faults. Values stay plain (string, bool, int, lists of them) until all
// layers are merged.
type reader struct {
	values  map[string]any
	origins map[string]Origin // by path; sections too, for faults that name one
	faults  Faults
}

// sep joins paths. A topic's name may have dots, and nothing a user names may
// have a slash.
const sep = "/"

func newReader() *reader {
	return &reader{values: make(map[string]any), origins: make(map[string]Origin)}
}

func (r *reader) fault(s setting, value, text, hint string) {
	if s.node != nil && (s.node.kind == secret || s.node.kind == section) || secretLike(s.path) {
		value = ""
	}
	r.faults = append(r.faults, Fault{Origin: s.origin, Key: display(s.path), Value: value, Text: text, Hint: hint})
}

// display writes a path as people do: links[0].topics[1].
func display(path []string) string {
	var b strings.Builder
	for i, p := range path {
		_, err := strconv.Atoi(p)
		switch {
		case err == nil && i > 0:
			b.WriteString("[" + p + "]")
		case i > 0:
			b.WriteString("." + p)
		default:
			b.WriteString(p)
		}
	}
	return b.String()
}

// secretLike reports a key whose value may be a secret, known key or not: a
// password below a mistyped key must not be printed either.
func secretLike(path []string) bool {
	if len(path) == 0 {
		return false
	}
	last := fold(path[len(path)-1])
	for _, word := range []string{"pass", "secret", "token", "jaas", "credential", "apikey", "pwd", "accesskey", "privatekey"} {
		if strings.Contains(last, word) && !strings.HasSuffix(last, "file") && !strings.HasSuffix(last, "url") {
			return true
		}
	}
	return false
}

// set stores a value that is good.
func (r *reader) set(s setting, value any) {
	key := strings.Join(s.path, sep)
	r.values[key] = value
	r.origins[key] = s.origin
}

// scalar checks one value of a scalar setting and returns it plain.
func (r *reader) scalar(s setting, value string) (any, bool) {
	switch s.node.kind {
	case boolean:
		b, err := strconv.ParseBool(value)
		if err != nil || value != "true" && value != "false" {
			r.fault(s, value, "want true or false", "")
			return nil, false
		}
		return b, true
	case integer, integers:
		n, err := strconv.Atoi(value)
		if err != nil {
			r.fault(s, value, "want a whole number", "")
			return nil, false
		}
		return n, true
	case number:
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			r.fault(s, value, "want a number", "")
			return nil, false
		}
		return n, true
	case duration:
		if _, err := time.ParseDuration(value); err != nil {
			hint := ""
			if _, err := strconv.Atoi(value); err == nil {
				hint = "add the unit: " + value + "s or " + value + "ms"
			}
			r.fault(s, value, "want a duration like 30s", hint)
			return nil, false
		}
	case size:
		var b Bytes
		if err := b.UnmarshalText([]byte(value)); err != nil {
			r.fault(s, value, err.Error(), "")
			return nil, false
		}
	case secret:
		if _, err := cluster.ParseSecret(value); err != nil {
			r.fault(s, "", err.Error(), "")
			return nil, false
		}
	case text:
		if value == "" && s.node.optional {
			return value, true
		}
		if len(s.node.oneof) > 0 && !slices.Contains(s.node.oneof, value) {
			r.fault(s, value, "want one of "+strings.Join(s.node.oneof, ", "), didYouMean(value, s.node.oneof))
			return nil, false
		}
	}
	return value, true
}

// fromText reads a value from a variable or flag: lists with commas, tables
// as key=value with commas, or both as YAML in brackets.
func (r *reader) fromText(s setting, value string) {
	if strings.HasPrefix(value, "[") || strings.HasPrefix(value, "{") {
		if s.node.kind == texts || s.node.kind == integers || s.node.kind == table {
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(value), &doc); err != nil || len(doc.Content) != 1 {
				r.fault(s, value, "is not a list or table in YAML", "")
				return
			}
			f := fileReader{reader: r, fixed: &s.origin}
			f.walk(s, doc.Content[0])
			return
		}
	}
	switch s.node.kind {
	case texts, integers:
		out := []any{}
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			v, ok := r.scalar(s, part)
			if !ok {
				return
			}
			out = append(out, v)
		}
		r.set(s, out)
	case table:
		for part := range strings.SplitSeq(value, ",") {
			k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
			if !ok || k == "" || strings.Contains(k, sep) {
				r.fault(s, value, "want key=value, with commas between", "")
				return
			}
			entry := s
			entry.path = append(slices.Clone(s.path), k)
			r.set(entry, v)
		}
	default:
		if v, ok := r.scalar(s, value); ok {
			r.set(s, v)
		}
	}
}

// want names what a node is, for faults.
func want(n *node) string {
	switch n.kind {
	case section, named:
		return "want a section of keys"
	case list:
		return "want a list of sections"
	case table:
		return "want a table of key: value"
	case texts, integers:
		return "want a list"
	}
	return "want a single value"
}
