package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxFileBytes = 1 << 20
	// maxNodes bounds what aliases may blow a small file up to.
	maxNodes = 100_000
)

// fileReader walks a YAML document along the schema.
type fileReader struct {
	*reader
	file  string
	fixed *Origin // where everything comes from when it is not a file
	nodes int
}

func (f *fileReader) origin(n *yaml.Node) Origin {
	if f.fixed != nil {
		return *f.fixed
	}
	return Origin{File: f.file, Line: n.Line}
}

// readFile reads the text of a configuration file.
func (r *reader) readFile(name string, data []byte) {
	whole := func(line int, text string) {
		r.faults = append(r.faults, Fault{Origin: Origin{File: name, Line: line}, Text: text})
	}
	if len(data) > maxFileBytes {
		whole(0, fmt.Sprintf("the file is larger than %d bytes", maxFileBytes))
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := decode(dec, &doc)
	switch {
	case errors.Is(err, io.EOF):
		return // empty: the faults are what is missing
	case err != nil:
		line, text := yamlError(err)
		whole(line, "not YAML: "+text)
		return
	case !errors.Is(decode(dec, &more), io.EOF):
		whole(more.Line, "a second document: only one is read")
		return
	}
	f := fileReader{reader: r, file: name}
	f.walk(setting{node: rootSchema(), origin: Origin{File: name, Line: doc.Line}}, doc.Content[0])
}

// decode keeps a panic of the parser, which has had some, from being ours.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	return dec.Decode(n)
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

func yamlError(err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if strings.HasPrefix(text, "unknown anchor") {
		text = "a value that begins with * refers to no anchor (put it in quotes)" // it may be a password
	}
	return line, text
}

func (f *fileReader) walk(s setting, n *yaml.Node) {
	if f.nodes++; f.nodes > maxNodes {
		if f.nodes == maxNodes+1 {
			f.fault(s, "", "the file refers to itself too often", "")
		}
		return
	}
	s.origin = f.origin(n)
	if n.Kind == yaml.AliasNode {
		f.walk(s, n.Alias)
		return
	}
	if _, ok := f.origins[strings.Join(s.path, sep)]; !ok {
		f.origins[strings.Join(s.path, sep)] = s.origin
	}
	null := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	switch {
	case null && (s.node.kind == section || s.node.kind == named || s.node.kind == list || s.node.kind == table):
		return // a heading with everything below it commented out
	case null:
		f.fault(s, "", "has no value", `give one, or remove the line; "" is the empty text`)
		return
	}
	switch s.node.kind {
	case section, named, table:
		if n.Kind != yaml.MappingNode {
			f.fault(s, written(n), want(s.node), "")
			return
		}
		f.mapping(s, n)
	case list:
		if n.Kind != yaml.SequenceNode {
			f.fault(s, written(n), want(s.node), "begin each with a dash")
			return
		}
		for i, item := range n.Content {
			f.walk(setting{node: s.node.elem, path: add(s.path, strconv.Itoa(i))}, item)
		}
	case texts, integers:
		f.items(s, n)
	default:
		if n.Kind != yaml.ScalarNode {
			f.fault(s, "", want(s.node), "")
			return
		}
		if v, ok := f.typed(s, n); ok {
			f.set(s, v)
		}
	}
}

func (f *fileReader) items(s setting, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if text := written(n); text != "" {
			hint = "[" + text + "]"
		}
		f.fault(s, written(n), want(s.node), hint)
		return
	}
	out := make([]any, 0, len(n.Content))
	for i, item := range n.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		at := setting{node: s.node, path: add(s.path, strconv.Itoa(i)), origin: f.origin(item)}
		f.origins[strings.Join(at.path, sep)] = at.origin
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			f.fault(at, "", "want a single value", "")
			continue
		}
		if v, ok := f.typed(at, item); ok {
			out = append(out, v)
		}
	}
	f.set(s, out)
}

// typed checks a scalar with the type YAML sees in it.
func (f *fileReader) typed(s setting, n *yaml.Node) (any, bool) {
	switch s.node.kind {
	case boolean:
		if n.Tag != "!!bool" {
			f.fault(s, n.Value, "want true or false", "")
			return nil, false
		}
		return strings.EqualFold(n.Value, "true"), true
	case integer, integers:
		if n.Tag != "!!int" {
			f.fault(s, n.Value, "want a whole number", "")
			return nil, false
		}
	case number:
		if n.Tag != "!!int" && n.Tag != "!!float" {
			f.fault(s, n.Value, "want a number", "")
			return nil, false
		}
	case text, texts, table:
		if n.Tag == "!!bool" || n.Tag == "!!binary" {
			f.fault(s, n.Value, "want a text", `put it in quotes: "`+n.Value+`"`)
			return nil, false
		}
	}
	return f.scalar(s, n.Value)
}

// mapping reads the keys of a section, of named sections or of a table.
func (f *fileReader) mapping(s setting, n *yaml.Node) {
	seen := make(map[string]int)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		at := setting{path: add(s.path, key.Value), origin: f.origin(key)}
		if first, ok := seen[key.Value]; ok {
			f.fault(at, "", "is set twice", fmt.Sprintf("first on line %d", first))
			continue
		}
		seen[key.Value] = key.Line
		f.entry(s, at, key, value)
	}
	// What is merged in (<<: *base) gives way to what is written here.
	for _, m := range merged {
		f.merge(s, m, seen)
	}
}

func (f *fileReader) merge(s setting, n *yaml.Node, seen map[string]int) {
	if f.nodes++; f.nodes > maxNodes {
		return
	}
	switch n.Kind {
	case yaml.AliasNode:
		f.merge(s, n.Alias, seen)
	case yaml.SequenceNode:
		for _, item := range n.Content {
			f.merge(s, item, seen)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if _, ok := seen[key.Value]; ok {
				continue
			}
			if key.Tag == "!!merge" {
				f.merge(s, value, seen)
				continue
			}
			seen[key.Value] = key.Line
			f.entry(s, setting{path: add(s.path, key.Value), origin: f.origin(key)}, key, value)
		}
	default:
		f.fault(setting{path: add(s.path, "<<"), origin: f.origin(n)}, "", "want a section to merge", "")
	}
}

// entry reads one key of a mapping.
func (f *fileReader) entry(s, at setting, key, value *yaml.Node) {
	switch {
	case key.Kind != yaml.ScalarNode:
		f.fault(at, "", "a key must be a single value", "")
	case s.node.kind == table:
		if key.Value == "" || strings.Contains(key.Value, sep) {
			f.fault(at, "", "is not a name", "")
			return
		}
		at.node = &node{kind: text}
		f.walk(at, value)
	case s.node.kind == named:
		if !aliasGrammar.MatchString(key.Value) {
			f.fault(at, "", "is not a name for a cluster", aliasRule)
			return
		}
		at.node = s.node.elem
		f.walk(at, value)
	default:
		if at.node = s.node.field(key.Value); at.node != nil {
			f.walk(at, value)
			return
		}
		shown := written(value)
		if n := s.node.field(near(key.Value, s.node.names())); n != nil && n.kind == secret || slices.Contains(s.path, "sasl") {
			shown = "" // a password below a mistyped key is one all the same
		}
		f.fault(at, shown, "is unknown", f.unknown(s, key.Value))
	}
}

// unknown says what an unknown key was probably meant to be.
func (f *fileReader) unknown(s setting, key string) string {
	if hint := foreign(key); hint != "" {
		return hint
	}
	if strings.Contains(key, ".") {
		if parts := strings.Split(key, "."); resolves(s.node, parts) {
			return "write it nested: " + strings.Join(parts, ": {") + ": ..." + strings.Repeat("}", len(parts)-1)
		}
	}
	names := s.node.names()
	if hint := didYouMean(key, names); hint != "" {
		return hint
	}
	if where := whereIs(rootSchema(), key, ""); where != "" {
		return "it belongs to " + where
	}
	return "there are " + strings.Join(names, ", ")
}

// resolves reports whether a path names a setting below n.
func resolves(n *node, path []string) bool {
	for _, p := range path {
		if n = n.field(p); n == nil {
			return false
		}
	}
	return true
}

// whereIs finds the section a key would be known in.
func whereIs(n *node, key, at string) string {
	if n.elem != nil {
		if n.kind == named {
			return whereIs(n.elem, key, at+".NAME")
		}
		return whereIs(n.elem, key, at+"[]")
	}
	for _, fl := range n.fields {
		if fl.name == key && at != "" {
			return strings.TrimPrefix(at, ".")
		}
	}
	for _, fl := range n.fields {
		if where := whereIs(fl.node, key, at+"."+fl.name); where != "" {
			return where
		}
	}
	return ""
}

func add(path []string, key string) []string { return append(slices.Clone(path), key) }

// written is a node's text for a fault; only scalars have a short one.
func written(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}
