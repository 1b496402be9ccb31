package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/pause"
	"replicator/internal/workload"
)

const (
	catchTime   = 3 * time.Minute  // for the rest to be copied after the load has ended
	compareTime = 30 * time.Minute // for all records of both sides to be read
	groupsTime  = 2 * time.Minute  // for the groups' last commits to reach the target
	quietTime   = 10 * time.Second // before the last sample
)

// finish stops the load, waits until all is copied, and compares.
func (s *soak) finish(ctx context.Context) (err error) {
	stopping, cancel := context.WithTimeout(ctx, catchTime)
	defer cancel()
	if s.results.Load, err = s.load.stop(stopping); err != nil {
		return fmt.Errorf("end load: %w", err)
	}
	// Anywhere in the log: each group at another place.
	if err := s.load.commitAll(ctx, func(g int, start, end int64) int64 { return start + (end-start)*int64(g+1)/soakGroups }); err != nil {
		return fmt.Errorf("commit for groups: %w", err)
	}
	comparing, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	report, err := compare.WaitEqual(comparing, s.pair.Source.ClientOpts(), s.pair.Target.ClientOpts(), compare.Same(wholeTopics()...), compare.Options{})
	s.results.Compared = report.Total.String()
	if err != nil {
		s.say("%v", err)
		if report.Total.SourceRecords == 0 {
			return fmt.Errorf("compare: %w", err)
		}
	}
	s.add("every record is on the target once, in order, none is lost, doubled or changed", report.Err() == nil && report.Total.Matched > 0, "%s", s.results.Compared)
	if err := s.compacted(comparing); err != nil {
		return fmt.Errorf("compare compacted topic: %w", err)
	}
	if err := s.groups(ctx); err != nil {
		return fmt.Errorf("compare groups: %w", err)
	}
	if s.results.Disk, err = s.disk(ctx); err != nil {
		return err
	}
	// The last samples of a daemon that has nothing to do.
	if err := pause.For(ctx, quietTime); err != nil {
		return err
	}
	s.results.Samples = append(s.results.Samples, s.look(ctx))
	s.halted(ctx)
	return nil
}

func (s *soak) add(question string, passed bool, format string, args ...any) {
	v := soakVerdict{Question: question, Found: fmt.Sprintf(format, args...), Passed: passed}
	s.results.Verdicts = append(s.results.Verdicts, v)
	s.say("%s", v)
}

func (v soakVerdict) String() string {
	if v.Passed {
		return "ok    " + v.Question + ": " + v.Found
	}
	return "FAIL  " + v.Question + ": " + v.Found
}

// compacted compares what a topic that both sides compact by themselves says
// in the end: the last value of each key.
func (s *soak) compacted(ctx context.Context) error {
	topic := soakPrefix + string(workload.Compacted)
	type place struct {
		partition int32
		key       string
	}
	read := func(c compare.Cluster) (map[place]string, int64, error) {
		last, n := map[place]string{}, int64(0)
		err := compare.Read(ctx, c, topic, func(r *kgo.Record) error {
			n++
			at := place{r.Partition, string(r.Key)}
			if r.Value == nil {
				delete(last, at)
			} else {
				last[at] = string(r.Value)
			}
			return nil
		})
		return last, n, err
	}
	// The target first reads to an end that the copy has reached: nothing is written any more.
	deadline := time.Now().Add(catchTime)
	for {
		want, sourceRecords, err := read(s.pair.Source.ClientOpts())
		if err != nil {
			return err
		}
		have, targetRecords, err := read(s.pair.Target.ClientOpts())
		if err != nil {
			return err
		}
		wrong := 0
		for at, value := range want {
			if have[at] != value {
				wrong++
			}
		}
		for at := range have {
			if _, ok := want[at]; !ok {
				wrong++
			}
		}
		if wrong > 0 && time.Now().Before(deadline) {
			if err := pause.For(ctx, time.Second); err != nil {
				return err
			}
			continue
		}
		s.results.Compacted = fmt.Sprintf("%d keys, %d of them differ; %d records left on the source, %d on the target", len(want), wrong, sourceRecords, targetRecords)
		s.add("the compacted topic has the same last value of every key", wrong == 0 && len(want) > 0, "%s", s.results.Compacted)
		return nil
	}
}

// groups checks that each group of the target would read the record first that
// it would read first on the source.
func (s *soak) groups(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, groupsTime)
	defer cancel()
	names := make([]string, soakGroups)
	for g := range names {
		names[g] = soakGroup(g)
	}
	type where struct {
		group string
		compare.Place
	}
	standing := func(admin *kadm.Client) map[where]int64 {
		at := map[where]int64{}
		for group, f := range admin.FetchManyOffsets(ctx, names...) {
			f.Fetched.Each(func(o kadm.OffsetResponse) {
				if o.At >= 0 && slices.Contains(wholeTopics(), o.Topic) {
					at[where{group, compare.Place{Topic: o.Topic, Partition: o.Partition}}] = o.At
				}
			})
		}
		return at
	}
	source := standing(s.pair.Source.Admin())
	var open []where
	var places []compare.Place
	for w, at := range source {
		open = append(open, w)
		places = append(places, compare.Place{Topic: w.Topic, Partition: w.Partition, Offset: at})
	}
	if len(open) == 0 {
		return errors.New("no group has committed")
	}
	records, err := compare.Next(ctx, s.pair.Source.ClientOpts(), places)
	if err != nil {
		return err
	}
	want := map[where]*kgo.Record{}
	for i, w := range open {
		want[w] = records[i]
	}
	all := len(open)
	for {
		target := standing(s.pair.Target.Admin())
		places = places[:0]
		var asked, wrong []where
		for _, w := range open {
			at, ok := target[w]
			if !ok {
				wrong = append(wrong, w)
				continue
			}
			asked = append(asked, w)
			places = append(places, compare.Place{Topic: w.Topic, Partition: w.Partition, Offset: at})
		}
		if records, err = compare.Next(ctx, s.pair.Target.ClientOpts(), places); err != nil {
			return err
		}
		for i, w := range asked {
			if !compare.SameRecord(want[w], records[i]) {
				wrong = append(wrong, w)
			}
		}
		open = wrong
		if len(open) == 0 || pause.For(ctx, 2*time.Second) != nil {
			break
		}
	}
	s.results.Resumed = fmt.Sprintf("%d of %d places resume at the same record", all-len(open), all)
	if len(open) > 0 {
		w := open[0]
		s.results.Resumed += fmt.Sprintf("; not %s in %s-%d at source offset %d", w.group, w.Topic, w.Partition, source[w])
	}
	s.add("each group would resume on the target at the record it would on the source", len(open) == 0, "%s", s.results.Resumed)
	return nil
}

// halted asks whether a person would have to look at something.
func (s *soak) halted(ctx context.Context) {
	halted := 0.0
	for _, d := range []*soakDaemon{s.steady, s.victim} {
		if _, m, _ := d.look(ctx); m != nil {
			halted += m.sum("replicator_lanes", "state", "halted")
		} else {
			halted++
		}
	}
	s.add("no lane is halted, both daemons answer", halted == 0, "%.0f", halted)
}

// disk is what all logs of both clusters take.
func (s *soak) disk(ctx context.Context) (n int64, err error) {
	for _, admin := range []*kadm.Client{s.pair.Source.Admin(), s.pair.Target.Admin()} {
		dirs, err := admin.DescribeAllLogDirs(ctx, nil)
		if err != nil {
			return 0, fmt.Errorf("read log sizes: %w", err)
		}
		for _, d := range dirs {
			n += d.Size()
		}
	}
	return n, nil
}
