package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"replicator/internal/bench"
	"replicator/internal/config"
	"replicator/internal/observe"
	"replicator/internal/words"
)

// benchOptions are those of the command.
type benchOptions struct {
	bench.Options
	link, output string
	size, batch  config.Bytes
	yes          bool
}

var benchOutputs = []string{"table", "json"}

func newBenchCommand(a *app) *cobra.Command {
	o := &benchOptions{Options: bench.DefaultOptions()}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a pair of clusters with scratch topics",
		Long: `Writes a scratch topic to the source of a link, copies it to the target with a link
that runs in this process, measures throughput, cost and latency, compares all
records on both sides and deletes what it made, also after an error or Ctrl-C.

It says beforehand what it writes and asks. Nothing else on the clusters is
touched: topic, journal and group have a random name under replicator.bench.,
which daemons neither copy nor follow. It uses the link's settings and quotas, so
a daemon that runs meanwhile shares the quotas with it.

Exit codes: 0 measured and compared, 1 failed, interrupted or not equal, 3 refused
before anything was made, 4 measured, but something could not be deleted.`,
		Example: `  replicator bench -c pair.yaml
  replicator bench -c pair.yaml --link 'east->west' --size 1GiB --rate 5000 --yes -o json`,
		Args: flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.bench(cmd.Context(), o) },
	}
	o.size, o.batch = config.Bytes(o.Bytes), config.Bytes(o.BatchBytes)
	f := cmd.Flags()
	f.StringVar(&o.link, "link", "", "`name` of the link; needed where the configuration has several")
	f.Int32Var(&o.Partitions, "partitions", o.Partitions, "partitions of the scratch topic")
	f.TextVar(&o.size, "size", o.size, "`bytes` to write for the throughput, in all, before compression")
	f.IntVar(&o.RecordBytes, "record-bytes", o.RecordBytes, "bytes of a record's value")
	f.StringVar(&o.Codec, "codec", o.Codec, "compression of the source's records: "+strings.Join(bench.Codecs, ", "))
	f.TextVar(&o.batch, "batch-bytes", o.batch, "`bytes` of the source's batches before compression")
	f.IntVar(&o.Rate, "rate", o.Rate, "records a second while latency is measured")
	f.DurationVar(&o.Duration, "duration", o.Duration, "how long latency is measured")
	f.DurationVar(&o.Patience, "timeout", o.Patience, "`time` without progress before it fails")
	f.BoolVar(&o.Keep, "keep", false, "delete nothing")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.StringVarP(&o.output, "output", "o", benchOutputs[0], "`format`: "+strings.Join(benchOutputs, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(benchOutputs, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("codec", cobra.FixedCompletions(bench.Codecs, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *benchOptions) validate() error {
	o.Bytes, o.BatchBytes = int64(o.size), int(min(o.batch, 1<<30))
	switch {
	case !slices.Contains(benchOutputs, o.output):
		return fmt.Errorf("choose output: %q is none of %s", o.output, strings.Join(benchOutputs, ", "))
	case o.Patience <= 0:
		return fmt.Errorf("choose timeout: %v is no time", o.Patience)
	}
	return o.Check()
}

func (a *app) bench(ctx context.Context, o *benchOptions) error {
	if err := o.validate(); err != nil {
		return coded(exitUsage, err, "see replicator bench --help")
	}
	file, ok := a.stdin.(*os.File)
	if !o.yes && (!ok || !term.IsTerminal(int(file.Fd()))) {
		return coded(exitUsage, errors.New("bench: there is no terminal to ask on"), "--yes measures without asking")
	}
	cfg, err := a.load(nil)
	if err != nil {
		return err
	}
	link, err := chooseLink(cfg, o.link)
	if err != nil {
		return err
	}
	says := zapcore.Lock(zapcore.AddSync(a.stderr)) // progress and log come from several goroutines
	log, err := observe.NewLogger(config.Log{Level: "warn", Format: "console"}, says)
	if err != nil {
		return err
	}
	o.Progress = func(line string) { fmt.Fprintln(says, line) }
	debug.SetGCPercent(gcPercent) // as the daemon
	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	b, err := bench.Open(opening, cfg, link, o.Options, log)
	if refused, ok := errors.AsType[*bench.RefusedError](err); ok {
		return coded(exitRefused, refused.Err, refused.Hint)
	} else if err != nil {
		return err
	}
	defer b.Close()
	fmt.Fprintf(a.stderr, "link %s: %s\n", link.Name, b.Plan())
	if !o.yes {
		if yes, err := ask(ctx, a.stdin, a.stderr, "Do it?"); err != nil || !yes {
			return coded(exitRefused, errors.New("bench: not confirmed"), "nothing was made")
		}
	}
	r, err := b.Run(ctx)
	return a.reportBench(&r, err, o)
}

// reportBench prints the figures of a run that was measured to its end, and names
// what is left on the clusters in any case.
func (a *app) reportBench(r *bench.Result, failed error, o *benchOptions) error {
	for _, t := range r.Left {
		why := "kept"
		if t.Error != "" {
			why = "NOT DELETED: " + observe.Printable(t.Error)
		}
		fmt.Fprintf(a.stderr, "%s %s of cluster %s: %s; %s\n", t.Kind, t.Name, t.Cluster, why, t.Delete)
	}
	if refused, ok := errors.AsType[*bench.RefusedError](failed); ok && len(r.Left) == 0 {
		return coded(exitRefused, refused.Err, refused.Hint)
	}
	if failed != nil {
		return coded(exitFailed, failed, benchHint(r, o))
	}
	var err error
	if o.output == "json" {
		err = writeDocument(a.stdout, o.output, r)
	} else {
		err = printText(a.stdout, benchTable(newScreen(a.stdout, statusOptions{}), r))
	}
	if err == nil && len(r.Left) > 0 && !o.Keep {
		return coded(exitPartial, fmt.Errorf("delete what was made: %s left", words.Count(int64(len(r.Left)), "topic or group")), "the lines above name them and the commands that delete them")
	}
	return err
}

func benchHint(r *bench.Result, o *benchOptions) string {
	switch {
	case o.Keep && len(r.Left) > 0:
		return "what was made was kept; the lines above name the commands that delete it"
	case len(r.Left) > 0:
		return "the lines above name what is left and the commands that delete it"
	}
	return "everything that was made was deleted"
}

// benchTable is the figures for people.
func benchTable(c screen, r *bench.Result) string {
	var b strings.Builder
	g := grid{columns: []column{{name: "MEASURED"}, {name: "FIGURE", right: true}, {name: "OF"}}, flexible: 2, wrap: true}
	row := func(what, figure, of string) { g.rows = append(g.rows, []string{what, figure, of}) }
	w, cp, l := r.Write, r.Copy, r.Latency
	row("write to the source", mb(w.MBPerSecond), fmt.Sprintf("%s in %s, one idempotent producer, %s", words.Count(w.Records, "record"), words.Seconds(w.Seconds), r.Codec))
	row("copy, records", mb(cp.MBPerSecond), fmt.Sprintf("%s of keys and values in %s, %s records/s", words.Size(cp.Bytes), words.Seconds(cp.Seconds), words.Number(int64(cp.RecordsPerSecond))))
	row("copy, from the source", mb(cp.SourceWireMBPerSecond), words.Size(cp.SourceWireBytes)+" on the wire")
	row("copy, to the target", mb(cp.TargetWireMBPerSecond), words.Size(cp.TargetWireBytes)+" on the wire")
	row("processor", fmt.Sprintf("%.2f s/GB", cp.CPUSecondsPerGB), fmt.Sprintf("%.2f s while copying", cp.CPUSeconds))
	row("peak memory", words.Size(cp.PeakMemoryBytes), "of this process while copying")
	row("throttled, source", fmt.Sprintf("%.1f s", w.ThrottledSeconds+cp.SourceThrottledSeconds), fmt.Sprintf("%.1f s writing, %.1f s copying", w.ThrottledSeconds, cp.SourceThrottledSeconds))
	row("throttled, target", fmt.Sprintf("%.1f s", cp.TargetThrottledSeconds), "copying")
	for _, p := range []struct {
		side string
		bench.PingResult
	}{{"source", r.RoundTrip.Source}, {"target", r.RoundTrip.Target}} {
		row("round trip, "+p.side, millis(p.P50Seconds), fmt.Sprintf("p50; p99 %s of %s", millis(p.P99Seconds), words.Count(int64(p.Requests), "request")))
	}
	row("latency, sent to visible", millis(l.FromSent.P50Seconds), benchSpread(l.FromSent))
	row("latency, acknowledged to visible", millis(l.FromAcknowledged.P50Seconds), benchSpread(l.FromAcknowledged))
	row("", "", fmt.Sprintf("%s at %.0f/s; %.0f/s visible", words.Count(l.Records, "record"), l.RecordsPerSecond, l.VisiblePerSecond))
	row("compared", words.Number(r.Compared.Records), fmt.Sprintf("records equal and in order on both sides, in %s", words.Seconds(r.Compared.Seconds)))
	c.table(&b, g)
	for _, h := range r.Hints {
		b.WriteByte('\n')
		c.wrapped(&b, "hint: ", h)
	}
	return b.String()
}

func benchSpread(s bench.Spread) string {
	return fmt.Sprintf("p50; p99 %s, p99.9 %s, max %s", millis(s.P99Seconds), millis(s.P999Seconds), millis(s.MaxSeconds))
}

func mb(v float64) string { return fmt.Sprintf("%.1f MB/s", v) }

func millis(s float64) string { return fmt.Sprintf("%.1f ms", s*1000) }
