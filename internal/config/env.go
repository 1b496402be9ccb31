package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// EnvPrefix is what the variables of the configuration begin with.
const EnvPrefix = "REPLICATOR_"

// FileVariable names the configuration file when no flag does.
const FileVariable = EnvPrefix + "CONFIG"

// orchestrators reports variables that Kubernetes puts into every container
// of a namespace with a service called replicator. They are not ours, and no
// section of the configuration is called service or port.
func orchestrators(name string) bool {
	return strings.HasPrefix(name, EnvPrefix+"SERVICE_") || name == EnvPrefix+"PORT" || strings.HasPrefix(name, EnvPrefix+"PORT_")
}

// readEnv reads the variables. Names are those of the keys in capitals with
// underscores between: REPLICATOR_LIMITS_MEMORY,
// REPLICATOR_CLUSTERS_EAST_TLS_CA_FILE, REPLICATOR_LINKS_0_TOPICS. Variables
// that hold a secret the configuration refers to are not settings.
func (r *reader) readEnv(environ []string, file *reader) {
	referred := make(map[string]bool)
	for _, values := range []map[string]any{file.values, envSecrets(environ)} {
		for _, v := range values {
			if s, ok := v.(string); ok {
				if name, ok := strings.CutPrefix(s, "env:"); ok {
					referred[name] = true
				}
			}
		}
	}
	aliases := file.aliases()
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, value, ok := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, EnvPrefix)
		if !ok || !ours || name == FileVariable || referred[name] || orchestrators(name) {
			continue
		}
		s := setting{origin: Origin{Name: name}}
		s.path, s.node = match(rootSchema(), strings.ToLower(rest), nil, aliases)
		if s.node == nil {
			// The value stays unseen: it may be a secret meant for elsewhere.
			r.faults = append(r.faults, Fault{Key: name, Text: "is no setting", Hint: envHint(rest, aliases)})
			continue
		}
		r.fromText(s, value)
	}
}

// envSecrets are the values of our variables, for references among them.
func envSecrets(environ []string) map[string]any {
	out := make(map[string]any)
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, EnvPrefix) {
			out[name] = value
		}
	}
	return out
}

// aliases returns the clusters a layer names.
func (r *reader) aliases() []string {
	found := make(map[string]bool)
	for path := range r.values {
		if rest, ok := strings.CutPrefix(path, "clusters"+sep); ok {
			alias, _, _ := strings.Cut(rest, sep)
			found[alias] = true
		}
	}
	// The longest first: of east and east_2 the second is meant by EAST_2_.
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
}

// match finds the setting a variable names. Underscores stand both between
// keys and within them, so it is the schema that tells them apart.
func match(n *node, rest string, path, aliases []string) ([]string, *node) {
	if n.leaf() || n.kind == table {
		if rest == "" {
			return path, n
		}
		return nil, nil
	}
	after := func(head string) (string, bool) {
		tail, ok := strings.CutPrefix(rest, head)
		if !ok || tail == "" {
			return tail, ok
		}
		return strings.CutPrefix(tail, "_")
	}
	switch n.kind {
	case section:
		for _, f := range n.fields {
			if tail, ok := after(f.name); ok {
				if p, found := match(f.node, tail, add(path, f.name), aliases); found != nil {
					return p, found
				}
			}
		}
	case list:
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		if number, err := strconv.Atoi(digits); err == nil && number < 1000 {
			if tail, ok := after(digits); ok {
				return match(n.elem, tail, add(path, strconv.Itoa(number)), aliases)
			}
		}
	case named:
		for _, alias := range aliases {
			if tail, ok := after(strings.ReplaceAll(alias, "-", "_")); ok {
				if p, found := match(n.elem, tail, add(path, alias), aliases); found != nil {
					return p, found
				}
			}
		}
		for i := range len(rest) {
			if rest[i] != '_' || !aliasGrammar.MatchString(rest[:i]) {
				continue
			}
			if p, found := match(n.elem, rest[i+1:], add(path, rest[:i]), aliases); found != nil {
				return p, found
			}
		}
	}
	return nil, nil
}

func envHint(rest string, aliases []string) string {
	var all []string
	var walk func(n *node, at string)
	walk = func(n *node, at string) {
		switch {
		case n.leaf() || n.kind == table:
			all = append(all, strings.ToUpper(at))
		case n.kind == section:
			for _, f := range n.fields {
				walk(f.node, strings.TrimPrefix(at+"_"+f.name, "_"))
			}
		case n.kind == list:
			walk(n.elem, at+"_0")
		case n.kind == named:
			for _, a := range aliases {
				walk(n.elem, at+"_"+strings.ReplaceAll(a, "-", "_"))
			}
		}
	}
	walk(rootSchema(), "")
	if n := near(rest, all); n != "" {
		return "did you mean " + EnvPrefix + n + "?"
	}
	return "variables are named like " + EnvPrefix + "LIMITS_MEMORY"
}
