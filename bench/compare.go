package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/wan"
	"replicator/internal/workload"
)

const (
	writeTime = 10 * time.Minute // for a workload to be written, cleaning included
	checkTime = 5 * time.Minute  // for a target to be read and compared
)

// comparison is one run of the command.
type comparison struct {
	*lab
	rounds   int
	scale    float64
	workload string // pattern
	mover    string // pattern
	parts    []string
	seconds  int // of latency
	quick    bool
	out      string

	workloads, movers *regexp.Regexp

	name    string // of the files, without ending
	results results
}

var allParts = []string{"copy", "latency", "kill", "resume"}

func newCompareCommand() *cobra.Command {
	c := &comparison{}
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Compares the replicator with MirrorMaker 2",
		Long: `Compares the replicator with MirrorMaker 2, tuned and by default, and with a
plain relay of the same bytes, on brokers it starts. It takes about an hour;
--quick takes a few minutes. Results so far are on disk at any time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&c.workload, "workload", ".*", "`pattern` of the workloads to copy")
	f.StringVar(&c.mover, "mover", ".*", fmt.Sprintf("`pattern` of the movers: %s, %s, %s, %s (of bytes), %s (none, for latency)", ours, mmTuned, mmDefault, relay, direct))
	f.StringSliceVar(&c.parts, "parts", allParts, "what to measure")
	f.IntVar(&c.rounds, "rounds", 3, "how often each mover copies a workload")
	f.Float64Var(&c.scale, "scale", 1, "factor to the number of records")
	f.IntVar(&c.seconds, "seconds", 60, "how long latency is measured")
	f.BoolVar(&c.quick, "quick", false, "one round of lz4, none and small with fewer records; no default MirrorMaker 2, no resume; latency of 10 s")
	f.StringVar(&c.out, "out", "", "`directory` of the results (default bench/results, with --quick build/bench)")
	return cmd
}

func (c *comparison) run(ctx context.Context, cmd *cobra.Command) (err error) {
	if err := c.settle(cmd); err != nil {
		return err
	}
	if c.lab, err = openLab(ctx); err != nil {
		return err
	}
	defer c.close()
	c.results = results{Date: c.began.Format(time.DateOnly), Command: "go run ./bench " + strings.Join(os.Args[1:], " "), Machine: thisMachine(ctx)}
	if c.name, err = freeName(c.out, c.results.Date+"-compare"); err != nil {
		return err
	}
	measures := map[string]func(context.Context) error{"copy": c.copies, "latency": c.latency, "kill": c.kills, "resume": c.resume}
	for i, part := range c.parts {
		c.say("part %d of %d: %s", i+1, len(c.parts), part)
		if err := c.fails(ctx, part, measures[part](ctx)); err != nil {
			return err
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	fmt.Print(c.results.report(""))
	c.say("written: %s and .json, .svg beside it", filepath.Join(c.out, c.name+".md"))
	if len(c.results.Errors) > 0 {
		return fmt.Errorf("%d measurements failed, the report names them", len(c.results.Errors))
	}
	return nil
}

// settle gives the flags that were not set the values of a quick run, and
// checks all.
func (c *comparison) settle(cmd *cobra.Command) (err error) {
	if c.quick {
		for flag, set := range map[string]func(){
			"workload": func() { c.workload = "^(lz4|none|small)$" },
			"mover":    func() { c.mover = fmt.Sprintf("^(%s|%s|%s|%s)$", ours, mmTuned, relay, direct) },
			"parts":    func() { c.parts = []string{"copy", "latency", "kill"} },
			"rounds":   func() { c.rounds = 1 },
			"scale":    func() { c.scale = 0.5 },
			"seconds":  func() { c.seconds = 10 },
		} {
			if !cmd.Flags().Changed(flag) {
				set()
			}
		}
	}
	if c.out == "" {
		c.out = filepath.Join("bench", "results")
		if c.quick {
			c.out = filepath.Join("build", "bench")
		}
	}
	if c.workloads, err = regexp.Compile(c.workload); err != nil {
		return fmt.Errorf("--workload: %w", err)
	}
	if c.movers, err = regexp.Compile(c.mover); err != nil {
		return fmt.Errorf("--mover: %w", err)
	}
	if !slices.ContainsFunc(trials(1), func(t trial) bool { return c.workloads.MatchString(t.name) }) {
		return fmt.Errorf("--workload: there is none that matches %s", c.workload)
	}
	for _, part := range c.parts {
		if !slices.Contains(allParts, part) {
			return fmt.Errorf("--parts: there is no %q, only %s", part, strings.Join(allParts, ", "))
		}
	}
	if c.rounds < 1 || c.scale <= 0 || c.seconds < 1 {
		return errors.New("--rounds, --scale and --seconds must be above 0")
	}
	return nil
}

// fails tolerates an error of one measurement and writes that down.
func (c *comparison) fails(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(c.tolerate(ctx, what, err, &c.results.Errors), c.save())
}

// save writes the results there are.
func (c *comparison) save() error {
	c.results.Took = time.Since(c.began)
	return c.results.save(c.out, c.name)
}

// resume counts what groups read again.
func (c *comparison) resume(ctx context.Context) error {
	c.say("records that groups read again after moving to the target")
	r := &resumeRun{lab: c.lab, records: 3_900_000, groups: 8}
	rows, err := r.measure(ctx)
	c.results.Resume = rows
	return err
}

// copies lets every mover copy every workload.
func (c *comparison) copies(ctx context.Context) error {
	all := slices.DeleteFunc(trials(c.scale), func(t trial) bool { return !c.workloads.MatchString(t.name) })
	for i, t := range all {
		c.say("workload %d of %d: %s", i+1, len(all), t)
		// Brokers of its own: what one workload does to them, no other one feels.
		err := t.site.withDistance(ctx, func(pair *kafkatest.ClusterPair, away func(bool) error) error { return c.try(ctx, pair, away, t) })
		if errors.Is(err, wan.ErrUnavailable) {
			c.say("  not run: %v", err)
			c.results.NotRun = append(c.results.NotRun, fmt.Sprintf("workload %s: %v", t.name, err))
			continue
		}
		if err := c.fails(ctx, "workload "+t.name, err); err != nil {
			return err
		}
		if err := c.save(); err != nil {
			return err
		}
	}
	return nil
}

// wanted are the movers that were asked for.
func (c *comparison) wanted(movers []mover) []mover {
	return slices.DeleteFunc(movers, func(m mover) bool { return !c.movers.MatchString(string(m)) })
}

// try writes a workload and lets every mover copy it.
func (c *comparison) try(ctx context.Context, pair *kafkatest.ClusterPair, away func(bool) error, t trial) error {
	r, err := c.prepare(ctx, pair, t)
	if err != nil {
		return err
	}
	c.results.Trials = append(c.results.Trials, r)
	for round := range c.rounds {
		movers := []mover{relay, mmTuned, ours, mmDefault}
		first := round % len(movers) // each round begins with another
		for _, m := range c.wanted(slices.Concat(movers[first:], movers[:first])) {
			if slices.Contains(t.without, m) {
				continue
			}
			if err := up(pair); err != nil {
				return err
			}
			run, err := c.copy(ctx, pair, away, t, r, m, round == 0)
			if err := c.fails(ctx, fmt.Sprintf("workload %s, %s, round %d", t.name, m, round+1), err); err != nil {
				return err
			}
			if err != nil {
				continue
			}
			run.Round = round + 1
			r.Runs = append(r.Runs, run)
			c.say("  round %d of %d, %-22s %s", run.Round, c.rounds, m.title(), r.line(run))
			if err := c.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare writes a workload and learns its sizes.
func (c *comparison) prepare(ctx context.Context, pair *kafkatest.ClusterPair, t trial) (*trialResult, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	began := time.Now()
	w, err := workload.Write(ctx, pair.Source.ClientOpts(), t.spec)
	if err != nil {
		return nil, err
	}
	r := &trialResult{Name: t.name, Doc: t.doc, Partitions: w.Spec.Partitions, Records: w.Visible()}
	if r.Bytes, err = visibleBytes(ctx, pair.Source, w); err != nil {
		return nil, err
	}
	if t.spec.Kind == workload.Compacted {
		// What is left is not to change any more, on either side: settings are copied.
		if err := freeze(ctx, pair.Source.Admin(), t.spec.Topic); err != nil {
			return nil, err
		}
	}
	if r.WireBytes, err = logBytes(ctx, pair.Source.Admin(), t.spec.Topic); err != nil {
		return nil, err
	}
	c.say("  written in %v: %d records of %.2f GB, %.2f GB in the log", time.Since(began).Round(time.Second), r.Records, float64(r.Bytes)/1e9, float64(r.WireBytes)/1e9)
	return r, nil
}

// visibleBytes are those of the keys and values that a consumer sees. Where that is
// not all that was written, they are not known from the writing and are read.
func visibleBytes(ctx context.Context, c *kafkatest.Cluster, w workload.Result) (n int64, err error) {
	if w.Visible() == w.Written {
		return w.Bytes, nil
	}
	err = compare.Read(ctx, c.ClientOpts(), w.Spec.Topic, func(k *kgo.Record) error {
		n += int64(len(k.Key) + len(k.Value))
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read workload: %w", err)
	}
	return n, nil
}

// copy is one run of a mover, measured and checked.
func (c *comparison) copy(ctx context.Context, pair *kafkatest.ClusterPair, away func(bool) error, t trial, r *trialResult, m mover, full bool) (run copyRun, err error) {
	if m == relay {
		return c.relayRun(ctx, pair, t.spec.Topic)
	}
	// At 5 MB/s a run would be too slow to wait for.
	patience, cancel := context.WithTimeout(ctx, 2*time.Minute+time.Duration(float64(r.Bytes)/5e6*float64(time.Second)))
	defer cancel()
	if err := away(true); err != nil { // the writing, and the check, are near
		return run, err
	}
	w, err := c.start(m, job{pair: pair, topic: t.spec.Topic, codec: t.spec.Codec, committed: t.committed})
	if err != nil {
		return run, err
	}
	defer func() {
		w.Kill()
		clean, cancel := afterwards(ctx)
		defer cancel()
		err = errors.Join(err, away(false), w.clean(clean, pair))
	}()
	if run, err = w.follow(patience, r.Records, t.every()); err != nil {
		return run, err
	}
	if err := errors.Join(w.stop(), away(false)); err != nil {
		return run, err
	}
	run.Compare, err = c.check(ctx, pair, w, r, t.spec.Topic, full && m == ours)
	return run, err
}

// check makes sure that the target holds exactly the records a consumer of the
// source sees: in full, or by its end offsets. Where these do not say it, the
// records are counted.
func (c *comparison) check(ctx context.Context, pair *kafkatest.ClusterPair, w *moving, r *trialResult, topic string, full bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if full {
		report, err := compare.Topics(ctx, pair.Source.ClientOpts(), pair.Target.ClientOpts(), []compare.Pair{{Source: topic, Target: w.target}}, compare.Options{})
		if err == nil {
			err = report.Err()
		}
		if err != nil {
			return "", fmt.Errorf("compare the copy of %s: %w", w.mover, err)
		}
		return fmt.Sprintf("every record of %d equal", r.Records), nil
	}
	n, err := w.copied(ctx)
	if err == nil && n != r.Records {
		n = 0
		err = compare.Read(ctx, pair.Target.ClientOpts(), w.target, func(*kgo.Record) error { n++; return nil })
	}
	if err == nil && n != r.Records {
		err = fmt.Errorf("the target holds %d records, the source %d", n, r.Records)
	}
	if err != nil {
		return "", fmt.Errorf("check the copy of %s: %w", w.mover, err)
	}
	return fmt.Sprintf("count of %d equal", n), nil
}

// line is one run in words.
func (t *trialResult) line(r copyRun) string {
	if r.Mover == relay {
		return fmt.Sprintf("%.3f CPU s/GB on the wire", t.cpuPerWireGB(r))
	}
	return fmt.Sprintf("%5.0f MB/s, %7.3f CPU s/GB, %4.0f MiB; %s", t.speed(r), t.cpuPerGB(r), peakMiB(r), r.Compare)
}
