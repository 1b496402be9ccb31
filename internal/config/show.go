package config

import (
	"bytes"
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Show writes the whole effective configuration as a file that Load reads.
// Secrets appear as references, or redacted where the value itself was given.
func Show(c *Config) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(rootSchema().yaml(reflect.ValueOf(*c))); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// yaml writes a value with its keys in the order of the Go types.
func (n *node) yaml(v reflect.Value) *yaml.Node {
	mapping := func() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }
	put := func(m *yaml.Node, key string, value *yaml.Node) {
		m.Content = append(m.Content, scalar("!!str", key), value)
	}
	switch n.kind {
	case section:
		m := mapping()
		for _, f := range n.fields {
			put(m, f.name, f.node.yaml(v.Field(f.index)))
		}
		return m
	case named, table:
		m := mapping()
		for _, key := range slices.Sorted(maps.Keys(keysOf(v))) {
			elem := v.MapIndex(reflect.ValueOf(key))
			if n.kind == table {
				put(m, key, scalar("!!str", elem.String()))
				continue
			}
			put(m, key, n.elem.yaml(elem))
		}
		return m
	case list, texts, integers:
		s := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			switch n.kind {
			case list:
				s.Content = append(s.Content, n.elem.yaml(v.Index(i)))
			case integers:
				s.Content = append(s.Content, scalar("!!int", strconv.FormatInt(v.Index(i).Int(), 10)))
			default:
				s.Content = append(s.Content, scalar("!!str", v.Index(i).String()))
			}
		}
		if n.kind != list {
			s.Style = yaml.FlowStyle
		}
		return s
	case boolean:
		return scalar("!!bool", strconv.FormatBool(v.Bool()))
	case integer:
		return scalar("!!int", strconv.FormatInt(v.Int(), 10))
	case number:
		return scalar("", strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case duration:
		return scalar("!!str", shortDuration(v.Interface().(time.Duration)))
	case size, secret:
		text, _ := v.Interface().(encoding.TextMarshaler).MarshalText() // neither of the two fails
		return scalar("!!str", string(text))
	}
	return scalar("!!str", v.String())
}

func keysOf(v reflect.Value) map[string]bool {
	out := make(map[string]bool, v.Len())
	for _, k := range v.MapKeys() {
		out[k.String()] = true
	}
	return out
}

// scalar is a node whose text is quoted where it would otherwise be read as
// another type.
func scalar(tag, value string) *yaml.Node {
	n := &yaml.Node{}
	if tag == "!!str" {
		n.SetString(value)
		return n
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// shortDuration is 30s for 30s and 1h for 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if len(s) > len(zero) && s[len(s)-len(zero):] == zero {
			s = s[:len(s)-2]
		}
	}
	return s
}
