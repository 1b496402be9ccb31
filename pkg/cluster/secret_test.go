package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestSecretIsReadAnewEachTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	s, err := ParseSecret("file:" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ content, want string }{{"one\n", "one"}, {"two\r\n", "two"}, {" three ", " three "}, {"four\n\n", "four\n"}} {
		writeFile(t, file, []byte(c.content), 0o600)
		if got, err := s.Resolve(); err != nil || got != c.want {
			t.Errorf("%q was read as %q, %v", c.content, got, err)
		}
	}
	t.Setenv("TEST_SECRET", hidden)
	if got, err := mustSecret(t, "env:TEST_SECRET").Resolve(); err != nil || got != hidden {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestSecretThatIsNotSafeOrNotThereIsAnError(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, []byte(content), mode)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	t.Setenv("TEST_EMPTY", "")
	for ref, want := range map[string]string{
		file("open", hidden, 0o644):                      "everybody may read",
		file("empty", "\n", 0o600):                       "empty",
		file("large", strings.Repeat("x", 1<<17), 0o600): "larger",
		"file:" + dir:                                    "directory",
		"file:" + filepath.Join(dir, "absent"):           "no such file",
		"env:TEST_SURELY_UNSET":                          "not set",
		"env:TEST_EMPTY":                                 "empty",
	} {
		_, err := mustSecret(t, ref).Resolve()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q", ref, err, want)
		}
		if err != nil && strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: the error shows the secret", ref)
		}
	}
	for _, ref := range []string{hidden, "file:", "env:", "File:/x", " file:/x"} {
		if _, err := ParseSecret(ref); err == nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%q: error is %v", ref, err)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	t.Setenv("TEST_SECRET", hidden)
	cfg := DefaultConfig()
	cfg.SASL.Password = LiteralSecret(hidden)
	cfg.SASL.OAuth.ClientSecret = mustSecret(t, "env:TEST_SECRET")
	core, logs := observer.New(zap.DebugLevel)
	zap.New(core).Info("x", zap.Any("config", cfg), zap.Stringer("secret", cfg.SASL.Password), zap.Reflect("r", cfg))
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n"+verb+"\n"+verb+"\n", cfg, &cfg, cfg.SASL.Password)
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&out, string(encoded))
	for _, e := range logs.All() {
		fmt.Fprintf(&out, "%+v %+v\n", e.Entry, e.ContextMap())
	}
	for _, form := range []string{hidden, fmt.Sprintf("%x", hidden)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret shows in:\n%s", out.String())
		}
	}
	if !strings.Contains(out.String(), "env:TEST_SECRET") {
		t.Error("the reference does not show")
	}
}

func mustSecret(t *testing.T, ref string) Secret {
	t.Helper()
	s, err := ParseSecret(ref)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
