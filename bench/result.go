package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// results is all that a comparison has found: the JSON file.
type results struct {
	Date     string         `json:"date"`
	Command  string         `json:"command"`
	Took     time.Duration  `json:"took_ns"`
	Machine  machine        `json:"machine"`
	Trials   []*trialResult `json:"trials"`
	Latency  []latencyRun   `json:"latency,omitempty"`
	Kill     []killRun      `json:"kill,omitempty"`
	Resume   []resumeRow    `json:"resume,omitempty"`
	Verdicts []verdict      `json:"aims"`
	NotRun   []string       `json:"not_run,omitempty"` // what this machine cannot do
	Errors   []string       `json:"errors,omitempty"`
}

// trialResult is what is known of one workload.
type trialResult struct {
	Name       string    `json:"name"`
	Doc        string    `json:"doc"`
	Partitions int32     `json:"partitions"`
	Records    int64     `json:"records"`    // that a consumer sees
	Bytes      int64     `json:"bytes"`      // of their keys and values
	WireBytes  int64     `json:"wire_bytes"` // of the source's log
	Runs       []copyRun `json:"runs"`
}

// of are the runs of one mover.
func (t *trialResult) of(m mover) []copyRun {
	return slices.DeleteFunc(slices.Clone(t.Runs), func(r copyRun) bool { return r.Mover != m })
}

// cpuPerGB are CPU seconds per GB of keys and values.
func (t *trialResult) cpuPerGB(r copyRun) float64 {
	return r.CPU.Seconds() / (float64(t.Bytes) / 1e9 * r.Share)
}

// cpuPerWireGB are CPU seconds per GB of the source's log.
func (t *trialResult) cpuPerWireGB(r copyRun) float64 {
	wire := t.WireBytes
	if r.Wire > 0 {
		wire = r.Wire
	}
	return r.CPU.Seconds() / (float64(wire) / 1e9 * r.Share)
}

// speed is MB/s of keys and values.
func (t *trialResult) speed(r copyRun) float64 {
	return float64(t.Bytes) / 1e6 * r.Share / r.Wall.Seconds()
}

func peakMiB(r copyRun) float64 { return float64(r.Peak) / (1 << 20) }

// A spread is what several rounds found.
type spread struct {
	N                int // rounds
	Median, Min, Max float64
}

// over takes a figure of each run. Without runs it is zero.
func over[T any](runs []T, figure func(T) float64) spread {
	var all []float64
	for _, r := range runs {
		all = append(all, figure(r))
	}
	return spreadOf(all)
}

func spreadOf(all []float64) spread {
	n := len(all)
	if n == 0 {
		return spread{}
	}
	all = slices.Sorted(slices.Values(all))
	return spread{N: n, Median: (all[(n-1)/2] + all[n/2]) / 2, Min: all[0], Max: all[n-1]}
}

// save writes all figures, the report, and its chart.
func (r *results) save(dir, name string) error {
	r.Verdicts = nil
	for _, a := range aims() {
		r.Verdicts = append(r.Verdicts, a.judge(r))
	}
	svg, chart := r.chart(), ""
	if svg != "" {
		chart = name + ".svg"
	}
	return keep(dir, name, r, []byte(svg), r.report(chart))
}

// keep writes the files of one run: all figures, the report, and its chart if there
// is one.
func keep(dir, name string, figures any, svg []byte, report string) error {
	text, err := json.MarshalIndent(figures, "", "\t")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	err = write(dir, name+".json", append(text, '\n'))
	if len(svg) > 0 {
		err = errors.Join(err, write(dir, name+".svg", svg))
	}
	return errors.Join(err, write(dir, name+".md", []byte(report)))
}

// freeName is the name of a run's files, with a number behind it where an earlier
// run has that name: its results stay.
func freeName(dir, name string) (string, error) {
	for n, free := 2, name; ; n++ {
		_, err := os.Lstat(filepath.Join(dir, free+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			return free, nil
		}
		if err != nil {
			return "", fmt.Errorf("look for earlier results: %w", err)
		}
		free = fmt.Sprintf("%s-%d", name, n)
	}
}

func newReportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "report FILE.json",
		Short: "Writes report and chart of a comparison anew from its figures",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read results: %w", err)
			}
			var r results
			if err := json.Unmarshal(text, &r); err != nil {
				return fmt.Errorf("read results %s: %w", args[0], err)
			}
			return r.save(filepath.Dir(args[0]), strings.TrimSuffix(filepath.Base(args[0]), ".json"))
		},
	}
}

// write puts a file in place as a whole: a run that is killed leaves what it
// had before.
func write(dir, name string, content []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // results are to be read
		return fmt.Errorf("write %s: %w", name, err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".part", content, 0o644); err != nil { //nolint:gosec // results are to be read
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".part", path)
}
