package config

import (
	"encoding"
	"reflect"
	"strings"
	"sync"
	"time"

	"replicator/pkg/cluster"
)

// kind is the shape of a setting in a file.
type kind int

const (
	section  kind = iota // fixed keys
	named                // sections by names the user gives: clusters
	list                 // sections in order: links
	table                // texts by keys the user gives: topic_map
	texts                // [a, b]
	integers             // [1, 2]
	text                 // the rest are scalars
	boolean
	integer
	number
	duration
	size
	secret
)

// node is the schema of one setting, read off the Go types: there is no
// second list of keys to keep in step.
type node struct {
	kind   kind
	fields []field // of a section, in the order of the struct
	elem   *node   // of named and list
	oneof  []string
	// optional: with oneof, the empty text is a value too
	optional bool
}

type field struct {
	name  string
	index int // in the struct
	node  *node
}

var rootSchema = sync.OnceValue(func() *node { return schemaOf(reflect.TypeFor[Config](), "") })

func schemaOf(t reflect.Type, tag reflect.StructTag) *node {
	n := &node{optional: tag.Get("optional") == "true"}
	if s := tag.Get("oneof"); s != "" {
		n.oneof = strings.Fields(s)
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		n.kind = duration
		return n
	case reflect.TypeFor[Bytes]():
		n.kind = size
		return n
	case reflect.TypeFor[cluster.Secret]():
		n.kind = secret
		return n
	case reflect.TypeFor[cluster.Mechanism]():
		n.optional = true
		for _, m := range cluster.Mechanisms() {
			n.oneof = append(n.oneof, string(m))
		}
	}
	switch t.Kind() {
	case reflect.Struct:
		n.kind = section
		for i := range t.NumField() {
			f := t.Field(i)
			n.fields = append(n.fields, field{f.Tag.Get("koanf"), i, schemaOf(f.Type, f.Tag)})
		}
	case reflect.Map:
		n.kind = table
		if t.Elem().Kind() == reflect.Struct {
			n.kind, n.elem = named, schemaOf(t.Elem(), "")
		}
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.Struct:
			n.kind, n.elem = list, schemaOf(t.Elem(), "")
		case reflect.Int:
			n.kind = integers
		default:
			n.kind = texts
		}
	case reflect.Bool:
		n.kind = boolean
	case reflect.Int:
		n.kind = integer
	case reflect.Float64:
		n.kind = number
	default:
		n.kind = text
	}
	return n
}

// leaf reports a setting with a value of its own.
func (n *node) leaf() bool { return n.kind > list }

func (n *node) field(name string) *node {
	for _, f := range n.fields {
		if f.name == name {
			return f.node
		}
	}
	return nil
}

func (n *node) names() []string {
	out := make([]string, len(n.fields))
	for i, f := range n.fields {
		out[i] = f.name
	}
	return out
}

// flatten calls f for every setting below n that has a value in v, with the
// value as a file would have it. Keys are joined by sep.
func (n *node) flatten(v reflect.Value, at string, f func(path string, value any)) {
	join := func(key string) string {
		if at == "" {
			return key
		}
		return at + sep + key
	}
	switch n.kind {
	case section:
		for _, fl := range n.fields {
			fl.node.flatten(v.Field(fl.index), join(fl.name), f)
		}
	case duration:
		f(at, v.Interface().(time.Duration).String())
	case size, secret:
		b, _ := v.Interface().(encoding.TextMarshaler).MarshalText() // neither of the two fails
		f(at, string(b))
	case texts:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = v.Index(i).String()
		}
		f(at, out)
	case integers:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = int(v.Index(i).Int())
		}
		f(at, out)
	case boolean:
		f(at, v.Bool())
	case integer:
		f(at, int(v.Int()))
	case number:
		f(at, v.Float())
	case text:
		f(at, v.String())
	case named, list, table:
		// They have no defaults of their own.
	}
}
