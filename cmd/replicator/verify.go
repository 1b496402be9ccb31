package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/internal/words"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/verify"
)

type verifyOptions struct {
	targetOptions
	topic    string // pattern of whole names; empty: all
	last     int64
	all      bool
	rate     config.Bytes
	parallel int
	most     int
}

func newVerifyCommand(a *app) *cobra.Command {
	o := &verifyOptions{targetOptions: targetOptions{source: true}, rate: 50 << 20}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare what was copied, source against target",
		Long: `Reads what the link has copied from both sides and compares it record by record:
every record is looked for at the one place where the link's map of offsets says it
is, and every record of the target is asked whose it is. Key, value, headers and
timestamp are compared; batches with the same bytes are not opened.

A difference is a record that is changed, missing, at another place, or extra: the
last also names who wrote it, because it is somebody else's as a rule. What one side
has removed by retention or compaction since is counted apart and is none.

By default the last 10000 records of each partition are compared. Nothing is
written, and the daemon may run meanwhile: what it copies later is not looked at.

Exit codes: 0 equal, 1 failed, 3 different, 4 not all could be compared and what was
is equal.`,
		Example: `  replicator verify
  replicator verify --topic 'orders|payments' --all --rate 200MiB
  replicator verify --last 1000 -o json`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.all && cmd.Flags().Changed("last") {
				return coded(exitUsage, errors.New("choose records: --last and --all exclude each other"), "see replicator verify --help")
			}
			return a.verify(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	o.add(a, cmd, "table", "wide", "json", "yaml")
	f := cmd.Flags()
	f.Lookup("timeout").Usage = "`time` that opening the clusters and reading the map may take"
	f.StringVar(&o.topic, "topic", "", "`pattern` of whole names of topics, as the source calls them (default all)")
	f.Int64Var(&o.last, "last", 10_000, "compare the last `n` records of each partition")
	f.BoolVar(&o.all, "all", false, "compare all that both sides still hold, instead of the last")
	f.TextVar(&o.rate, "rate", o.rate, "read at most so many `bytes` a second from both sides together; 0: no limit")
	f.IntVar(&o.parallel, "parallel", 4, "compare so many partitions at a time; each takes up to 24 MiB")
	f.IntVar(&o.most, "differences", 20, "name at most `n` differences of each partition")
	return cmd
}

func (o *verifyOptions) validate() error {
	err := o.targetOptions.validate()
	switch {
	case err != nil:
		return err
	case o.last < 1:
		return fmt.Errorf("choose records: the last %d are none", o.last)
	case o.rate < 0:
		return fmt.Errorf("choose rate: %v is negative", o.rate)
	case o.parallel < 1 || o.parallel > 64:
		return fmt.Errorf("choose parallel: %d is not from 1 to 64", o.parallel)
	case o.most < 1:
		return fmt.Errorf("choose differences: %d are none", o.most)
	}
	return nil
}

// verifyDoc is what verify prints as JSON.
type verifyDoc struct {
	Link        string `json:"link"`
	Source      string `json:"source"` // aliases
	Target      string `json:"target"`
	Equal       bool   `json:"equal"`        // all lanes were compared and nothing differs
	NotCompared int    `json:"not_compared"` // lanes
	verify.Report
}

func (a *app) verify(ctx context.Context, out io.Writer, o *verifyOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator verify --help")
	}
	topic := func(string) bool { return true }
	if o.topic != "" {
		match, err := config.Compile([]string{o.topic})
		if err != nil {
			return coded(exitUsage, fmt.Errorf("choose topics: %w", err), "see replicator verify --help")
		}
		topic = match.Match
	}
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	t, err := a.openTarget(opening, &o.targetOptions, false)
	if err != nil {
		return err
	}
	defer t.close()
	source, err := cluster.Open(opening, t.link.From, cfg.Clusters[t.link.From], cluster.Options{Log: zap.NewNop()})
	if err != nil {
		return coded(exitFailed, err, "both clusters are read: without the source there is nothing to compare with")
	}
	defer source.Close()
	ranges, err := t.ranges(opening, source, topic, o)
	if err != nil {
		return err
	}
	if len(ranges) == 0 {
		return coded(exitPartial, fmt.Errorf("verify: link %s has copied nothing of the topics chosen", t.link.Name), "replicator offsets show lists what it has copied")
	}
	if reverse := cfg.Reverse(t.link); reverse != nil { // records that were stranded on the target when it was the source
		if err := verify.KeepStranded(opening, source, reverse.Journal.Topic, ranges, zap.NewNop()); err != nil {
			return err
		}
	}
	line := newProgressLine(a.stderr)
	report, err := verify.Run(ctx, source, t.cluster, ranges, verify.Options{
		BytesPerSecond: int64(o.rate), Parallel: o.parallel, MaxDifferences: o.most, ReadCommitted: t.link.Isolation == "read_committed",
		MaxDecodedBytes: int(cfg.Limits.DecodedBatch), Progress: line.show,
	})
	line.end()
	doc := &verifyDoc{Link: t.link.Name, Source: t.link.From, Target: t.link.To, Equal: report.Equal(), NotCompared: report.Failed(), Report: report}
	if o.output == "json" || o.output == "yaml" {
		err = errors.Join(err, writeDocument(out, o.output, doc))
	} else {
		err = errors.Join(err, printText(out, doc.table(targetScreen(out, &o.targetOptions))))
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	return doc.verdict()
}

// ranges are the parts of the lanes that are compared.
func (t *target) ranges(ctx context.Context, source *cluster.Cluster, topic func(string) bool, o *verifyOptions) ([]verify.Range, error) {
	var lanes []offsets.Lane
	for _, l := range t.standby.Lanes() {
		if topic(l.Topic) {
			lanes = append(lanes, l)
		}
	}
	tails, err := t.tails(ctx, lanes, &o.targetOptions)
	if err != nil {
		return nil, err
	}
	last := o.last
	if o.all {
		last = 0
	}
	return verify.Ranges(ctx, source, tails, last)
}

// verdict is the exit code in words.
func (d *verifyDoc) verdict() error {
	var bad []string
	for i := range d.Lanes {
		if l := &d.Lanes[i]; l.Error != "" {
			bad = append(bad, fmt.Sprintf("%s-%d (%s)", observe.Printable(l.Topic), l.Partition, observe.Printable(l.Error)))
		}
	}
	switch {
	case d.Different():
		return coded(exitRefused, fmt.Errorf("verify: source and target differ in %s", words.Count(d.Total.Differences(), "record")), "-o json has offsets and causes")
	case len(bad) > 0:
		return coded(exitPartial, fmt.Errorf("verify: %s of %s could not be compared: %s", words.Number(int64(len(bad))), words.Count(int64(len(d.Lanes)), "lane"), named(bad)), "")
	}
	return nil
}

// progressLine says on standard error how far a comparison is: in one line that
// changes on a terminal, elsewhere in a line every ten seconds.
type progressLine struct {
	out      io.Writer
	terminal bool
	begun    time.Time
	told     time.Time
	shown    int // columns of the line on the terminal
}

func newProgressLine(out io.Writer) *progressLine {
	now := time.Now()
	f, ok := out.(*os.File)
	return &progressLine{out: out, terminal: ok && term.IsTerminal(int(f.Fd())), begun: now, told: now}
}

func (p *progressLine) show(v verify.Progress) {
	now := time.Now()
	if !p.terminal && now.Sub(p.told) < 10*time.Second {
		return
	}
	p.told = now
	percent := int64(100)
	if v.Offsets > 0 {
		percent = 100 * v.Done / v.Offsets
	}
	text := fmt.Sprintf("verify: %d%%, %d of %s, %s read, %s/s, %s", percent, v.LanesDone, words.Count(int64(v.Lanes), "lane"), words.Size(v.Bytes),
		words.Size(int64(float64(v.Bytes)/max(0.001, now.Sub(p.begun).Seconds()))), words.Count(v.Differences, "difference"))
	if !p.terminal {
		fmt.Fprintln(p.out, text)
		return
	}
	fmt.Fprintf(p.out, "\r%-*s", p.shown, text)
	p.shown = len(text)
}

// end leaves the line empty.
func (p *progressLine) end() {
	if p.shown > 0 {
		fmt.Fprintf(p.out, "\r%*s\r", p.shown, "")
	}
}
