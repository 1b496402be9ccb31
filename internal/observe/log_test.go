package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/pkg/cluster"
)

func logTo(t *testing.T, format string) (*zap.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	log, err := NewLogger(config.Log{Level: "info", Format: format}, &out)
	if err != nil {
		t.Fatal(err)
	}
	return log, &out
}

func TestLogLinesAreJSONWithStableFields(t *testing.T) {
	log, out := logTo(t, "json")
	log.Named("link").Info("copying", zap.Int("lanes", 3), zap.Duration("after", 1500*time.Millisecond), zap.Error(errors.New("no leader")))
	log.Debug("not at this level")
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", got["time"].(string))
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("time %v: %v", got["time"], err)
	}
	delete(got, "time")
	want := map[string]any{"level": "info", "logger": "link", "msg": "copying", "lanes": 3.0, "after": 1.5, "error": "no leader"}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %v, want %v", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("fields %v", got)
	}
}

func TestLogCannotCommandATerminalOrForgeALine(t *testing.T) {
	evil := "x\n{\"level\":\"info\"}\r\x1b[2J\u009b31m\u202egnp\x7f\xff\u2028 é漢"
	for _, format := range []string{"json", "console"} {
		log, out := logTo(t, format)
		log.With(zap.String("with", evil)).Named(evil).Error(evil, zap.String("topic", evil), zap.Strings("many", []string{evil}), zap.Error(errors.New(evil)), zap.ByteString("raw", []byte(evil)))
		line, rest, _ := strings.Cut(out.String(), "\n")
		if rest != "" {
			t.Errorf("%s: one entry became several lines: %q", format, out)
		}
		if !clean(strings.ReplaceAll(line, "\t", "")) {
			t.Errorf("%s: unprintable characters in %q", format, line)
		}
		if !strings.Contains(line, "é漢") {
			t.Errorf("%s: ordinary letters were escaped: %q", format, line)
		}
		if format == "json" {
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Errorf("escaping broke the JSON: %v in %q", err, line)
			}
			if want := strings.ToValidUTF8(evil, "\uFFFD"); got["topic"] != want {
				t.Errorf("escaping changed the value: %q", got["topic"])
			}
		}
	}
}

func TestSecretsDoNotReachTheLog(t *testing.T) {
	const canary = "correct-horse-battery-staple"
	cfg := config.Default()
	cfg.HTTP.Token = cluster.LiteralSecret(canary)
	east := cluster.DefaultConfig()
	east.SASL.Password = cluster.LiteralSecret(canary)
	cfg.Clusters = map[string]cluster.Config{"east": east}
	for _, format := range []string{"json", "console"} {
		log, out := logTo(t, format)
		log.Info("configuration", zap.Any("config", cfg), zap.Any("pointer", &cfg), zap.Reflect("sasl", east.SASL), zap.Stringer("password", east.SASL.Password), zap.Any("secret", east.SASL.Password))
		log.Sugar().Infof("%v %+v %#v %s", cfg, cfg, cfg, east)
		if strings.Contains(out.String(), canary) {
			t.Errorf("%s: the secret stands in the log: %s", format, out)
		}
		if !strings.Contains(out.String(), "redacted") {
			t.Errorf("%s: the secret was not even met", format)
		}
	}
}

func TestWrongLogSettingsAreNamed(t *testing.T) {
	for want, cfg := range map[string]config.Log{
		`build log: level "loud": want debug, info, warn or error`: {Level: "loud", Format: "json"},
		`build log: format "xml": want json or console`:            {Level: "info", Format: "xml"},
	} {
		if _, err := NewLogger(cfg, &bytes.Buffer{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
