package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"replicator/internal/config"
	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
)

// writeConfig writes the configuration of the pair, for daemon and commands: links in
// both directions, and hooks that move the applications.
func writeConfig(dir, evidenceDir string, east, west *region) (string, error) {
	cfg := config.Default()
	cfg.Instance = "demo"
	cfg.HTTP.Listen = "127.0.0.1:0"
	cfg.Clusters = map[string]cluster.Config{}
	for _, r := range []*region{east, west} {
		c := cluster.DefaultConfig()
		c.BootstrapServers, c.ClusterID = r.addrs, "demo-"+r.name
		cfg.Clusters[r.name] = c
	}
	for _, ends := range [][2]string{{east.name, west.name}, {west.name, east.name}} {
		link := config.DefaultLink()
		link.From, link.To = ends[0], ends[1]
		link.Topics, link.Groups = topicNames(), []string{groupName}
		link.SessionTimeout, link.RefreshInterval = sessionTimeout, 2*time.Second
		link.Checkpoints.Interval = time.Second
		cfg.Links = append(cfg.Links, link)
	}
	cfg.Cutover.Evidence, cfg.Cutover.Writers = evidenceDir, "hook"
	cfg.Cutover.Settle, cfg.Cutover.DrainTimeout = 300*time.Millisecond, 15*time.Second
	leave := func(kind string) string {
		// Only those of the region that is left are stopped: after a failover none is there.
		return fmt.Sprintf(`[ "$(cat %[1]s/%[2]s)" != "$REPLICATOR_FROM" ] || { echo none > %[1]s/%[2]s; while [ -e %[1]s/%[2]s.busy ]; do sleep 0.05; done; }`, dir, kind)
	}
	enter := func(kind string) string { return fmt.Sprintf(`echo $REPLICATOR_TO > %s/%s`, dir, kind) }
	for _, h := range []struct{ step, when, script string }{
		{"fence-writers", "before", leave(writersSign)}, {"open-writers", "after", enter(writersSign)},
		{"groups", "before", leave(readersSign)}, {"groups", "after", enter(readersSign)},
	} {
		hook := config.DefaultHook()
		hook.Step, hook.When, hook.Command, hook.Timeout = h.step, h.when, []string{"sh", "-c", h.script}, 10*time.Second
		cfg.Cutover.Hooks = append(cfg.Cutover.Hooks, hook)
	}
	text, err := config.Show(&cfg)
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	file := filepath.Join(dir, "pair.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return file, nil
}

// result is what a command that changes the authority printed.
type result struct {
	Run     string              `json:"run"`
	Outcome evidence.OutcomeDoc `json:"outcome"`
	Bundle  string              `json:"bundle"`
	Anchor  string              `json:"anchor"`

	events []evidence.Event // of its bundle
}

// document is what the events of a kind say, its rows put together.
func document[T any](r *result, kind evidence.Kind, step string) (out []T, err error) {
	for _, e := range r.events {
		if e.Kind != kind || step != "" && e.Step != step {
			continue
		}
		doc, err := evidence.Decode[T](e)
		if err != nil {
			return nil, fmt.Errorf("read evidence of run %s: %w", r.Run, err)
		}
		out = append(out, doc)
	}
	return out, nil
}

// command runs one of the program's commands as a user would, says so, and returns
// what it printed.
func (d *demo) command(ctx context.Context, args ...string) ([]byte, error) {
	d.screen.command("replicator %s", commandLine(args))
	return d.output(ctx, args...)
}

// passes waits until the gates of a command let it through.
func (d *demo) passes(ctx context.Context, args ...string) error {
	waiting, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		_, err := d.output(waiting, args...)
		if err == nil {
			return nil
		}
		if pause.For(waiting, 200*time.Millisecond) != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// commandLine writes arguments as a shell takes them.
func commandLine(args []string) string {
	quoted := slices.Clone(args)
	for i, a := range quoted {
		if strings.ContainsAny(a, " '\"$") {
			quoted[i] = "'" + a + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func (d *demo) output(ctx context.Context, args ...string) ([]byte, error) {
	all := append(slices.Clone(d.opts.Command[1:]), args...)
	all = append(all, "--config", d.file)
	cmd := exec.CommandContext(ctx, d.opts.Command[0], all...)
	cmd.Env = cleanEnvironment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	bindToParent(cmd)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("replicator %s: %w\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.Bytes(), nil
}

// change runs a command that changes or follows the authority, checks the evidence it
// left against the anchor it printed, and shows its steps.
func (d *demo) change(ctx context.Context, args ...string) (*result, error) {
	args = append(args, "--yes")
	d.screen.command("replicator %s", commandLine(args))
	out, err := d.output(ctx, append(args, "--output", "json")...)
	if err != nil {
		return nil, err
	}
	r := &result{}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("read what replicator %s printed: %w", args[0], err)
	}
	anchor, err := evidence.ParseAnchor(r.Anchor)
	if err != nil {
		return nil, fmt.Errorf("read what replicator %s printed: %w", args[0], err)
	}
	events, verdict, err := evidence.Open(r.Bundle, &anchor)
	if err != nil {
		return nil, fmt.Errorf("verify evidence of run %s: %w", r.Run, err)
	}
	r.events = events
	d.runs = append(d.runs, checkedRun{r, verdict})
	steps, err := document[evidence.StepDoc](r, evidence.KindStep, "")
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		if s.Outcome == evidence.StepBegun {
			continue
		}
		proof, _, _ := strings.Cut(s.Proof, "; ")
		d.screen.step(s.Name, s.Outcome, proof, s.Took)
	}
	return r, nil
}

func cleanEnvironment() []string {
	// The user's own replicator settings are not meant for this one.
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
}
