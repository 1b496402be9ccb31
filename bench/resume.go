package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/workload"
)

// resumeRun asks how many records groups read again when they go on at the
// offsets that were committed for them on the target. It compares sequence
// numbers of records read from the target, so what a mover says of itself does
// not count.
type resumeRun struct {
	*lab
	records, groups int

	pair *kafkatest.ClusterPair
	all  []standing
}

// standing is a group's place in one partition of the source.
type standing struct {
	group     string
	class     int64 // about how many records it is behind
	partition int32
	next      int64 // source offset, which is also the record's sequence number
}

// resumeRow is what became of the groups of a class.
type resumeRow struct {
	Who       string  `json:"who"`
	Lag       int64   `json:"lag"` // records a group was behind, at least
	Placed    int64   `json:"placed"`
	Exact     int64   `json:"exact"`
	Again     float64 `json:"read_again_mean"` // records
	Most      int64   `json:"read_again_max"`
	Skipped   int64   `json:"skipped"` // records, of all
	NotPlaced int64   `json:"not_placed"`
}

const (
	resumePartitions = 3
	resumeTopic      = "bench-resume"
)

// Lags in records, at least; those of a class lie up to a fifth above.
var lags = []int64{0, 100, 10_000, 1_000_000}

func newResumeCommand() *cobra.Command {
	r := &resumeRun{}
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Counts the records that groups read again on the target",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if r.lab, err = openLab(cmd.Context()); err != nil {
				return err
			}
			defer r.close()
			rows, err := r.measure(cmd.Context())
			fmt.Print(resumeTable(rows))
			return err
		},
	}
	cmd.Flags().IntVar(&r.records, "records", 3_900_000, "records written")
	cmd.Flags().IntVar(&r.groups, "groups", 8, "groups of each lag")
	return cmd
}

// measure writes records, lets groups commit, and lets each mover copy both.
func (r *resumeRun) measure(ctx context.Context) (rows []resumeRow, err error) {
	err = site{}.with(ctx, func(pair *kafkatest.ClusterPair) error {
		r.pair = pair
		spec := workload.Spec{Topic: resumeTopic, Kind: workload.Plain, Codec: workload.LZ4, Partitions: resumePartitions, Records: r.records, ValueBytes: 100}
		if _, err := workload.Write(ctx, pair.Source.ClientOpts(), spec); err != nil {
			return err
		}
		r.place()
		for i, lagMax := range []int{100, 0} {
			// MirrorMaker 2 as eager about groups as it can be told to be: everything a
			// second after it is known instead of 1 to 10 minutes. Where it copies first
			// and groups commit then, it does best.
			m, err := r.mirror(ctx, lagMax, i == 0)
			rows = append(rows, m...)
			if err != nil {
				return err
			}
		}
		ours, err := r.daemon(ctx)
		rows = append(rows, ours...)
		return err
	})
	return rows, err
}

func (r *resumeRun) mirror(ctx context.Context, lagMax int, commit bool) ([]resumeRow, error) {
	w, err := r.start(mmTuned, job{pair: r.pair, topic: resumeTopic, codec: workload.LZ4, more: append(eagerGroups(), "offset.lag.max = "+strconv.Itoa(lagMax))})
	if err != nil {
		return nil, err
	}
	defer w.Kill()
	if err := w.caughtUp(ctx, int64(r.records)); err != nil {
		return nil, err
	}
	if commit {
		if err := r.commit(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.settled(ctx, w, 20*time.Second); err != nil {
		return nil, err
	}
	w.Kill()
	return r.read(ctx, fmt.Sprintf("MirrorMaker 2, offset.lag.max=%d", lagMax), w.target)
}

func (r *resumeRun) daemon(ctx context.Context) ([]resumeRow, error) {
	w, err := r.start(ours, job{pair: r.pair, topic: resumeTopic, link: ", checkpoints: {interval: 1s}"})
	if err != nil {
		return nil, err
	}
	defer w.Kill()
	if err := w.caughtUp(ctx, int64(r.records)); err != nil {
		return nil, err
	}
	if err := r.settled(ctx, w, 5*time.Second); err != nil {
		return nil, err
	}
	if err := w.stop(); err != nil {
		return nil, err
	}
	return r.read(ctx, "replicator", w.target)
}

// place decides where the groups are. Those of a class are a little apart,
// because how much MirrorMaker repeats depends on the offset.
func (r *resumeRun) place() {
	end := int64(r.records / resumePartitions)
	for _, lag := range lags {
		for g := range r.groups {
			for p := range int32(resumePartitions) {
				behind := lag + lag/5*int64(g*resumePartitions+int(p))/int64(r.groups*resumePartitions)
				r.all = append(r.all, standing{fmt.Sprintf("lag-%d-%d", lag, g), lag, p, max(0, end-behind)})
			}
		}
	}
}

// commit commits for all groups on the source.
func (r *resumeRun) commit(ctx context.Context) error {
	at := map[string]kadm.Offsets{}
	for _, s := range r.all {
		offsets := at[s.group]
		offsets.AddOffset(resumeTopic, s.partition, s.next, -1)
		at[s.group] = offsets
	}
	for group, offsets := range at {
		if err := r.pair.Source.Admin().CommitAllOffsets(ctx, group, offsets); err != nil {
			return fmt.Errorf("commit for group %s: %w", group, err)
		}
	}
	return nil
}

// placed is what the target's groups have committed in a topic.
func (r *resumeRun) placed(ctx context.Context, topic string) map[standing]int64 {
	names := map[string]bool{}
	for _, s := range r.all {
		names[s.group] = true
	}
	fetched := r.pair.Target.Admin().FetchManyOffsets(ctx, slices.Collect(maps.Keys(names))...)
	out := map[standing]int64{}
	for _, s := range r.all {
		if o, ok := fetched[s.group].Fetched.Lookup(topic, s.partition); ok && o.At >= 0 {
			out[s] = o.At
		}
	}
	return out
}

// settled waits until groups have offsets on the target and nothing has changed
// for some time.
func (r *resumeRun) settled(ctx context.Context, w *moving, quiet time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	began := time.Now()
	changed, last := began, map[standing]int64{}
	for {
		have := r.placed(ctx, w.target)
		if !maps.Equal(have, last) {
			changed, last = time.Now(), have
		}
		if len(have) > 0 && time.Since(changed) > quiet {
			r.say("  %s: %d of %d offsets placed, unchanged for %v after %v", w.mover.title(), len(have), len(r.all), quiet, changed.Sub(began).Round(time.Second))
			return nil
		}
		if !w.Running() {
			return w.ended()
		}
		if err := pause.For(ctx, 500*time.Millisecond); err != nil { // between two looks
			return fmt.Errorf("wait for the offsets of groups: %d of %d are there: %w", len(have), len(r.all), err)
		}
	}
}

// read reads the target topic and tells where the groups would go on.
func (r *resumeRun) read(ctx context.Context, who, topic string) ([]resumeRow, error) {
	logs := map[int32]*partitionLog{}
	err := compare.Read(ctx, r.pair.Target.ClientOpts(), topic, func(rec *kgo.Record) error {
		l := logs[rec.Partition]
		if l == nil {
			l = &partitionLog{}
			logs[rec.Partition] = l
		}
		sequence, err := strconv.ParseInt(string(rec.Key[bytes.LastIndexByte(rec.Key, '/')+1:]), 10, 64)
		l.at, l.sequence = append(l.at, rec.Offset), append(l.sequence, sequence)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	return resumeRows(who, r.all, r.placed(ctx, topic), logs), nil
}

// partitionLog is one partition on the target: the sequence number of each
// record, by target offset.
type partitionLog struct{ at, sequence []int64 }

// resumes is the sequence number of the first record read from an offset on.
func (l *partitionLog) resumes(at int64) int64 {
	if i := sort.Search(len(l.at), func(i int) bool { return l.at[i] >= at }); i < len(l.at) {
		return l.sequence[i]
	}
	return l.sequence[len(l.sequence)-1] + 1
}

// resumeRows counts, class by class, from what was placed.
func resumeRows(who string, all []standing, placed map[standing]int64, logs map[int32]*partitionLog) []resumeRow {
	rows := map[int64]*resumeRow{}
	for _, s := range all {
		row := rows[s.class]
		if row == nil {
			row = &resumeRow{Who: who, Lag: s.class}
			rows[s.class] = row
		}
		at, ok := placed[s]
		if !ok || logs[s.partition] == nil {
			row.NotPlaced++
			continue
		}
		row.Placed++
		switch again := s.next - logs[s.partition].resumes(at); {
		case again < 0:
			row.Skipped -= again
		default:
			row.Again += float64(again) // the sum, until all are counted
			row.Most = max(row.Most, again)
			if again == 0 {
				row.Exact++
			}
		}
	}
	var out []resumeRow
	for _, row := range rows {
		row.Again /= float64(max(1, row.Placed))
		out = append(out, *row)
	}
	slices.SortFunc(out, func(a, b resumeRow) int { return cmp.Compare(a.Lag, b.Lag) })
	return out
}

// resumeTable is the rows as a table of Markdown.
func resumeTable(rows []resumeRow) string {
	out := [][]string{{"mover", "lag from", "placed", "exact", "read again, mean", "max", "skipped", "not placed"}}
	for _, r := range rows {
		out = append(out, []string{r.Who, fmt.Sprint(r.Lag), fmt.Sprint(r.Placed), fmt.Sprint(r.Exact), fmt.Sprintf("%.0f", r.Again), fmt.Sprint(r.Most), fmt.Sprint(r.Skipped), fmt.Sprint(r.NotPlaced)})
	}
	return table(out)
}
