package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"replicator/internal/kafkatest"
)

// soak keeps a pair of daemons busy for long, does to them and to the brokers
// what happens to such processes, and looks for what grows.
type soak struct {
	*lab
	length time.Duration
	every  time.Duration // between two samples
	pause  time.Duration // between two events
	rate   int           // records a second in all
	out    string
	name   string // of the files, without ending
	seed   uint64

	pair *kafkatest.ClusterPair
	load *soakLoad

	steady, victim *soakDaemon

	mu      sync.Mutex
	loading time.Time // since when load runs
	results soakResults
}

// soakResults is the JSON file.
type soakResults struct {
	Date      string        `json:"date"`
	Command   string        `json:"command"`
	Machine   machine       `json:"machine"`
	Length    time.Duration `json:"length_ns"`
	Rate      int           `json:"records_per_second"`
	Lanes     int           `json:"lanes"`
	Groups    int           `json:"groups"`
	Samples   []soakSample  `json:"samples"`
	Events    []soakEvent   `json:"events"`
	Load      []soakWritten `json:"load"`
	Compared  string        `json:"compared"`
	Compacted string        `json:"compacted"`
	Resumed   string        `json:"groups_resume"`
	Disk      int64         `json:"disk_bytes"` // of all logs of both sides at the end
	Verdicts  []soakVerdict `json:"verdicts"`
	Took      time.Duration `json:"took_ns"`
}

// soakVerdict is one question with its answer.
type soakVerdict struct {
	Question string `json:"question"`
	Found    string `json:"found"`
	Passed   bool   `json:"passed"`
}

func newSoakCommand() *cobra.Command {
	s := &soak{}
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Runs under load for long, with kills and restarts, and looks for what grows",
		Long: `Runs two daemons of one group between two brokers under a mixed load. By turns
one daemon is stopped, killed and frozen, the source's broker is restarted and
the target's killed. The other daemon is never restarted: its memory,
goroutines and open files have to stay flat, and the lag has to return to the
same floor after each event. In the end every record of both sides is compared,
and it is checked that every group would resume at the right record.

The exit code is 1 if any of this does not hold.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.DurationVar(&s.length, "for", time.Hour, "how long load and events last")
	f.DurationVar(&s.every, "every", 10*time.Second, "between two samples")
	f.DurationVar(&s.pause, "pause", 0, "between two events (default 90s, less in a short run)")
	f.IntVar(&s.rate, "rate", 3000, "records a second")
	f.Uint64Var(&s.seed, "seed", 1, "of the contents")
	f.StringVar(&s.out, "out", filepath.Join("bench", "results"), "`directory` of the results")
	return cmd
}

func (s *soak) run(ctx context.Context) (err error) {
	if s.length < time.Minute || s.every < time.Second || s.rate < 100 {
		return errors.New("--for takes a minute or more, --every a second or more, --rate 100 or more")
	}
	if s.pause == 0 {
		s.pause = min(90*time.Second, s.length/7)
	}
	s.every = min(s.every, s.length/60)
	if err := enoughDisk(int64(s.length.Seconds()) * int64(s.rate) * diskPerRecord); err != nil {
		return err
	}
	if s.lab, err = openLab(ctx); err != nil {
		return err
	}
	defer s.close()
	cfg := kafkatest.Config{FullJIT: true, Heap: "1g", Properties: map[string]string{
		// Compaction has to happen while the soak runs.
		"log.cleaner.backoff.ms": "5000",
	}}
	if s.pair, err = kafkatest.LaunchPair(ctx, cfg, cfg); err != nil {
		return fmt.Errorf("start brokers: %w", err)
	}
	defer s.pair.Close()
	s.results = soakResults{
		Date: s.began.Format(time.DateOnly), Command: "go run ./bench " + strings.Join(os.Args[1:], " "),
		Machine: thisMachine(ctx), Length: s.length, Rate: s.rate, Lanes: soakLanes(), Groups: soakGroups,
	}
	if s.name, err = freeName(s.out, s.results.Date+"-soak"); err != nil {
		return err
	}
	defer s.killDaemons()
	defer func() { s.load.kill() }() // there is none yet
	defer func() {
		if err != nil { // before the daemons and their directories go
			err = errors.Join(err, s.keepTraces(context.WithoutCancel(ctx)))
		}
	}()
	if err := s.startAll(ctx); err != nil {
		return err
	}

	running, stop := context.WithTimeout(ctx, s.length)
	err = s.busy(running)
	stop()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		s.say("load stops; what is left is copied, then both sides are compared")
		err = s.finish(ctx)
	}
	s.results.Took = time.Since(s.began)
	if err != nil {
		return errors.Join(err, s.save())
	}
	s.judge()
	if err := s.save(); err != nil {
		return err
	}
	return s.verdict()
}

// diskPerRecord is what the logs of both sides take for a record, in bytes.
const diskPerRecord = 600

// enoughDisk makes sure that the brokers' logs fit: a disk that fills up is no
// fault of a daemon.
func enoughDisk(need int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &s); err != nil {
		return fmt.Errorf("ask for free disk of %s: %w", os.TempDir(), err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < 2*need {
		return fmt.Errorf("%s has %.1f GB free, and this needs about %.1f: set TMPDIR, or take a smaller --rate or --for", os.TempDir(), float64(free)/1e9, 2*float64(need)/1e9)
	}
	return nil
}

// startAll starts load, waits until its topics are there, then both daemons.
func (s *soak) startAll(ctx context.Context) (err error) {
	if s.load, err = startSoakLoad(ctx, s.pair.Source, s.rate, s.seed); err != nil {
		return err
	}
	s.loading = time.Now()
	for _, d := range []struct {
		name string
		to   **soakDaemon
	}{{"steady", &s.steady}, {"victim", &s.victim}} {
		made, err := s.newDaemon(d.name)
		if err != nil {
			return err
		}
		*d.to = made
		if err := made.start(); err != nil {
			return err
		}
	}
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.settled(starting); err != nil {
		return fmt.Errorf("wait until all lanes copy: %w\n%s", err, s.steady.process().Tail(30))
	}
	s.say("both daemons copy %d lanes; for %v an event every %v or so", soakLanes(), s.length, s.pause)
	return nil
}

func (s *soak) killDaemons() {
	for _, d := range []*soakDaemon{s.steady, s.victim} {
		d.kill()
	}
}

// busy samples, and lets things happen, until ctx ends.
func (s *soak) busy(ctx context.Context) error {
	done := make(chan struct{})
	sampling, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(done)
		s.sample(sampling)
	}()
	err := s.happen(ctx)
	stop()
	<-done
	return err
}

// since is the time of load, in seconds.
func (s *soak) since() float64 { return time.Since(s.loading).Seconds() }
