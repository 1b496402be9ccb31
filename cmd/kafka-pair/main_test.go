package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAConfigurationOfSomebodyElseIsNotReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pair.yaml")
	if err := ours(file); err != nil {
		t.Errorf("without one: %v", err)
	}
	for text, want := range map[string]string{mark + "clusters:\n": "", "clusters:\n": "move it away"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ours(file); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("of %q: %v", text, err)
		}
	}
}
