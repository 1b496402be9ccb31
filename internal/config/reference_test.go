package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"replicator/pkg/cluster"
)

const referenceFile = "../../deploy/reference.yaml"

// examples are the settings that have no default to show.
var examples = map[string]bool{
	"clusters.east.bootstrap_servers": true,
	"links[0].from":                   true,
	"links[0].to":                     true,
	"links[0].topics":                 true,
}

// The reference file has every key, each with a comment, and every default.
func TestReferenceFileIsCompleteAndTrue(t *testing.T) {
	data, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Source{File: referenceFile}); err != nil {
		t.Fatalf("the reference file does not load: %v", err)
	}
	r := newReader()
	r.readFile(referenceFile, data)
	want := newReader()
	put := func(at string, n *node, v any) {
		n.flatten(reflect.ValueOf(v), at, func(path string, value any) { want.values[path] = value })
	}
	put("", rootSchema(), Default())
	put("clusters/east", rootSchema().field("clusters").elem, cluster.DefaultConfig())
	put("links/0", rootSchema().field("links").elem, DefaultLink())
	for path, value := range want.values {
		key := display(strings.Split(path, sep))
		got, ok := r.values[path]
		if !ok {
			t.Errorf("%s is missing", key)
			continue
		}
		if !examples[key] && !sameText(got, value) {
			t.Errorf("%s is %v, the default is %v", key, got, value)
		}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	explained(t, rootSchema(), doc.Content[0], "")
}

// explained fails for a key without a comment before it.
func explained(t *testing.T, n *node, y *yaml.Node, at string) {
	switch n.kind {
	case section, named:
		have := make(map[string]bool)
		for i := 0; i < len(y.Content); i += 2 {
			key, value := y.Content[i], y.Content[i+1]
			have[key.Value] = true
			child := n.elem
			if n.kind == section {
				child = n.field(key.Value)
				if key.HeadComment == "" && y.HeadComment == "" && at != ".clusters.west" {
					t.Errorf("line %d: %s.%s has no comment", key.Line, at, key.Value)
				}
			}
			explained(t, child, value, at+"."+key.Value)
		}
		for _, name := range n.names() {
			if !have[name] && at != ".clusters.west" {
				t.Errorf("%s.%s is missing", at, name)
			}
		}
	case list:
		for i, item := range y.Content {
			explained(t, n.elem, item, fmt.Sprintf("%s[%d]", at, i))
		}
	}
}

// sameText compares settings as they are read: durations and sizes by their
// text would differ in spelling only.
func sameText(a, b any) bool {
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// The example of a pair that can be moved loads, and has both directions.
func TestExampleOfBothDirections(t *testing.T) {
	t.Setenv("EAST_PASSWORD", "x")
	t.Setenv("WEST_PASSWORD", "y")
	cfg, err := Load(Source{File: "../../deploy/pair-both-ways.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	there := &cfg.Links[0]
	back := cfg.Reverse(there)
	if back == nil || !there.Governed() || !slices.Equal(there.Topics, back.Topics) || !slices.Equal(there.Groups, back.Groups) {
		t.Errorf("%+v has no equal counterpart: %+v", there, back)
	}
	for alias := range cfg.Clusters {
		if cfg.Cutover.Principals[alias] == "" {
			t.Errorf("the daemon's principal on %s is missing", alias)
		}
	}
}
