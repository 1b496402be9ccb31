package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"replicator/pkg/cluster"
)

// Source says where a configuration comes from.
type Source struct {
	File string // path; empty reads none
	// Environ is the environment as os.Environ gives it; nil is none.
	Environ []string
	// Flags are settings of the command line, see Flags.
	Flags []Setting
}

// Setting is one setting of the command line.
type Setting struct {
	Key   string // "limits.memory", "links[0].topics"
	Value string
	Flag  string // as the user knows it: "--log-level"
}

// Load reads a configuration and checks it. What is wrong with it comes as
// Faults, all at once; another error is a file that could not be read.
func Load(src Source) (*Config, error) {
	file := newReader()
	if src.File != "" {
		data, err := os.ReadFile(src.File)
		if err != nil {
			if pe, ok := errors.AsType[*fs.PathError](err); ok {
				err = pe.Err
			}
			return nil, fmt.Errorf("read configuration %s: %w", src.File, err)
		}
		file.readFile(src.File, data)
	}
	env, flags := newReader(), newReader()
	env.readEnv(src.Environ, file)
	flags.readFlags(src.Flags, append(file.aliases(), env.aliases()...))
	return assemble(file, env, flags)
}

// assemble merges the layers over the defaults, decodes and checks the whole.
func assemble(layers ...*reader) (*Config, error) {
	var faults Faults
	origins := make(map[string]Origin)
	for _, l := range layers {
		faults = append(faults, l.faults...)
		for path, o := range l.origins {
			// A list replaces a whole one, the items' lines with it.
			if old, ok := origins[path]; ok && old != o {
				for p := range origins {
					if strings.HasPrefix(p, path+sep) && l.values[path] != nil {
						delete(origins, p)
					}
				}
			}
			origins[path] = o
		}
	}
	k := koanf.New(sep)
	all := append([]*reader{defaults(layers)}, layers...)
	for _, l := range all {
		if err := k.Load(confmap.Provider(l.values, sep), nil); err != nil {
			return nil, fmt.Errorf("merge configuration: %w", err)
		}
	}
	tree, gaps := order(rootSchema(), k.Raw(), nil)
	for _, g := range gaps {
		g.Origin = below(origins, strings.NewReplacer("[", sep, "]", "").Replace(g.Key))
		faults = append(faults, g)
	}
	var cfg Config
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:      &cfg,
		TagName:     "koanf",
		ErrorUnused: true,
		DecodeHook:  mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), mapstructure.TextUnmarshallerHookFunc()),
	})
	if err == nil {
		err = dec.Decode(tree)
	}
	if err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	cfg.derive()
	c := checker{cfg: &cfg, origins: origins, read: faults, told: faults}
	if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Key == "" }) { // the file was read
		c.check()
	}
	if len(c.told) > 0 {
		return nil, c.told.sorted()
	}
	return &cfg, nil
}

// defaults is the lowest layer: the whole's, and for every cluster and link
// that a layer names those of one.
func defaults(layers []*reader) *reader {
	d := newReader()
	put := func(at string, n *node, v any) {
		n.flatten(reflect.ValueOf(v), at, func(path string, value any) { d.values[path] = value })
	}
	root := rootSchema()
	put("", root, Default())
	for _, l := range layers {
		for path := range l.origins {
			parts := strings.Split(path, sep)
			if len(parts) > 2 && parts[0] == "cutover" && parts[1] == "hooks" {
				put(strings.Join(parts[:3], sep), root.field("cutover").field("hooks").elem, DefaultHook())
			}
			if len(parts) < 2 {
				continue
			}
			at := parts[0] + sep + parts[1]
			switch parts[0] {
			case "clusters":
				put(at, root.field("clusters").elem, cluster.DefaultConfig())
			case "links":
				put(at, root.field("links").elem, DefaultLink())
			}
		}
	}
	return d
}

// order turns the numbered items of lists back into lists.
func order(n *node, v any, path []string) (any, Faults) {
	m, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	var faults Faults
	switch n.kind {
	case list:
		out := make([]any, 0, len(m))
		for i := range len(m) {
			item, ok := m[strconv.Itoa(i)]
			if !ok {
				for extra := range m {
					if number, _ := strconv.Atoi(extra); number > i {
						faults = append(faults, Fault{Key: display(add(path, extra)), Text: fmt.Sprintf("there is no %s before it", display(add(path, strconv.Itoa(i))))})
					}
				}
				break
			}
			done, more := order(n.elem, item, add(path, strconv.Itoa(i)))
			out, faults = append(out, done), append(faults, more...)
		}
		return out, faults
	case section, named:
		out := make(map[string]any, len(m))
		for key, value := range m {
			child := n.elem
			if n.kind == section {
				child = n.field(key)
			}
			if child == nil {
				continue
			}
			done, more := order(child, value, add(path, key))
			out[key], faults = done, append(faults, more...)
		}
		return out, faults
	}
	return v, nil
}

// originOf finds where a path comes from; what is not set itself, from the
// nearest section around it.
func originOf(origins map[string]Origin, path string) Origin {
	for path != "" {
		if o, ok := origins[path]; ok {
			return o
		}
		i := strings.LastIndex(path, sep)
		if i < 0 {
			break
		}
		path = path[:i]
	}
	return Origin{}
}

// below finds where something within a section comes from.
func below(origins map[string]Origin, path string) Origin {
	for p, o := range origins {
		if strings.HasPrefix(p, path+sep) {
			return o
		}
	}
	return Origin{}
}

// readFlags reads settings of the command line.
func (r *reader) readFlags(settings []Setting, aliases []string) {
	for _, set := range settings {
		s := setting{origin: Origin{Name: set.Flag}}
		s.path = strings.FieldsFunc(set.Key, func(c rune) bool { return c == '.' || c == '[' || c == ']' })
		if s.node = find(rootSchema(), s.path); s.node == nil || !s.node.leaf() && s.node.kind != table {
			hint := "keys are written like limits.memory or links[0].topics"
			if foreignHint := foreign(set.Key); foreignHint != "" {
				hint = foreignHint
			} else if n := near(set.Key, keys(rootSchema(), nil, aliases)); n != "" {
				hint = "did you mean " + n + "?"
			}
			s.node = nil
			r.faults = append(r.faults, Fault{Origin: s.origin, Key: set.Key, Text: "is no setting", Hint: hint})
			continue
		}
		r.fromText(s, set.Value)
	}
}

// find follows a path through the schema.
func find(n *node, path []string) *node {
	for _, p := range path {
		switch n.kind {
		case section:
			n = n.field(p)
		case list:
			if _, err := strconv.ParseUint(p, 10, 10); err != nil {
				return nil
			}
			n = n.elem
		case named:
			if !aliasGrammar.MatchString(p) {
				return nil
			}
			n = n.elem
		default:
			return nil
		}
		if n == nil {
			return nil
		}
	}
	return n
}

// keys lists the settings there are, with the given clusters and the first link.
func keys(n *node, path, aliases []string) []string {
	switch n.kind {
	case section:
		var out []string
		for _, f := range n.fields {
			out = append(out, keys(f.node, add(path, f.name), aliases)...)
		}
		return out
	case list:
		return keys(n.elem, add(path, "0"), aliases)
	case named:
		var out []string
		for _, a := range aliases {
			out = append(out, keys(n.elem, add(path, a), aliases)...)
		}
		return out
	}
	return []string{display(path)}
}

// Keys lists every key a configuration can set on the command line, with the
// clusters and the first link, for completion.
func Keys(clusters ...string) []string {
	out := keys(rootSchema(), nil, clusters)
	slices.Sort(out)
	return out
}

// derive fills in what follows from other settings.
func (c *Config) derive() {
	if c.Instance == "" {
		c.Instance, _ = os.Hostname()
	}
	for i := range c.Links {
		l := &c.Links[i]
		if l.Name == "" && l.From != "" && l.To != "" {
			l.Name = l.From + "->" + l.To
		}
		if l.Naming == "prefix" && l.TopicPrefix == "" && l.From != "" {
			l.TopicPrefix = l.From + "."
		}
		if l.Name != "" {
			own := "replicator." + strings.ReplaceAll(l.Name, "->", ".")
			l.Journal.Topic = cmp.Or(l.Journal.Topic, own+".journal")
			l.Checkpoints.Topic = cmp.Or(l.Checkpoints.Topic, own+".checkpoints")
		}
	}
}
