package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const traceTime = 10 * time.Second // for a daemon to write a profile; a frozen one does not

// keepTraces puts what may explain a failure beside the results: the logs of both
// daemons, and profiles of those that run.
func (s *soak) keepTraces(ctx context.Context) (all error) {
	for _, d := range []*soakDaemon{s.steady, s.victim} {
		if d == nil {
			continue
		}
		name := s.name + "-" + d.name
		all = errors.Join(all, copyFile(s.out, name+".log", d.log()))
		if p := d.process(); p == nil || !p.Running() {
			continue
		}
		for _, kind := range []string{"heap", "goroutine"} {
			asking, cancel := context.WithTimeout(ctx, traceTime)
			profile, err := fetchProfile(asking, d.addr, "/debug/pprof/"+kind)
			cancel()
			if err == nil {
				err = write(s.out, name+"-"+kind+".prof", profile)
			}
			if err != nil {
				err = fmt.Errorf("keep %s profile of daemon %s: %w", kind, d.name, err)
			}
			all = errors.Join(all, err)
		}
	}
	if s.steady != nil {
		s.say("logs and profiles of the daemons: %s", filepath.Join(s.out, s.name+"-*"))
	}
	return all
}

// copyFile copies a file, which may be of any length and may not be there, into a
// directory.
func copyFile(dir, name, from string) error {
	in, err := os.Open(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was not started
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	defer func() { _ = in.Close() }()
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // results are to be read
		return fmt.Errorf("copy %s: %w", name, err)
	}
	out, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}
