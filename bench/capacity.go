package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"replicator/internal/kafkatest"
)

// capacity measures how costs grow.
type capacity struct {
	*lab
	part   string
	lanes  []int
	groups []int
	sizes  []int
	active int
	idle   time.Duration
	bytes  int64
	out    string

	results capacityResults
}

// capacityResults is the JSON file.
type capacityResults struct {
	Date    string         `json:"date"`
	Command string         `json:"command"`
	Machine machine        `json:"machine"`
	Idle    time.Duration  `json:"idle_ns"` // how long idle CPU was measured
	Lanes   []lanesResult  `json:"lanes,omitempty"`
	Active  []activeResult `json:"active,omitempty"`
	Groups  []groupsResult `json:"groups,omitempty"`
	Sizes   []sizeResult   `json:"sizes,omitempty"`
	Errors  []string       `json:"errors,omitempty"`
	Took    time.Duration  `json:"took_ns"`
}

func newCapacityCommand() *cobra.Command {
	c := &capacity{}
	cmd := &cobra.Command{
		Use:   "capacity",
		Short: "Measures what lanes, groups and message sizes cost a daemon",
		Long: `Measures what lanes cost a daemon while they are idle and while each is active,
what consumer groups cost, and what messages of different sizes cost.

Ten thousand partitions on one broker need ten thousand open files (ulimit -n
12000), and brokers make new partitions slowly where files are slow: with
TMPDIR=/dev/shm, which takes some GB, the brokers' logs lie in memory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&c.part, "part", ".*", "`pattern` of what to measure: lanes, active, groups, sizes")
	f.IntSliceVar(&c.lanes, "lanes", []int{10, 100, 1000, 10_000}, "lanes of a daemon that idles")
	f.IntVar(&c.active, "active", 1000, "lanes that get a record a second each")
	f.IntSliceVar(&c.groups, "groups", []int{0, 100, 1000}, "groups of a hundred partitions")
	f.IntSliceVar(&c.sizes, "sizes", []int{100, 1000, 10_000, 100_000, 900_000}, "bytes of a message's value")
	f.Int64Var(&c.bytes, "bytes", 1_000_000_000, "bytes of messages copied for each size")
	f.DurationVar(&c.idle, "idle", time.Minute, "how long CPU is measured at rest")
	f.StringVar(&c.out, "out", filepath.Join("bench", "results"), "`directory` of the results")
	return cmd
}

func (c *capacity) run(ctx context.Context) (err error) {
	wanted, err := regexp.Compile(c.part)
	if err != nil {
		return fmt.Errorf("--part: %w", err)
	}
	if c.idle < time.Second || c.bytes < 1_000_000 || c.active < 1 {
		return errors.New("--idle takes a second or more, --bytes a million or more, --active 1 or more")
	}
	if c.lab, err = openLab(ctx); err != nil {
		return err
	}
	defer c.close()
	c.results = capacityResults{
		Date: c.began.Format(time.DateOnly), Command: "go run ./bench " + strings.Join(os.Args[1:], " "), Machine: thisMachine(ctx), Idle: c.idle,
	}
	for _, p := range []struct {
		name string
		do   func(context.Context) error
	}{{"lanes", c.idleLanes}, {"active", c.activeLanes}, {"groups", c.manyGroups}, {"sizes", c.messageSizes}} {
		if !wanted.MatchString(p.name) {
			continue
		}
		if err := p.do(ctx); err != nil {
			return errors.Join(err, c.save())
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if n := len(c.results.Errors); n > 0 {
		return fmt.Errorf("%d measurements failed, the report names them", n)
	}
	return nil
}

// fails keeps an error of one measurement; the others go on. What ends the
// whole run is returned.
func (c *capacity) fails(ctx context.Context, what string, err error) error {
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		c.say("FAILED %s: %v", what, err)
		c.results.Errors = append(c.results.Errors, fmt.Sprintf("%s: %v", what, err))
	}
	return c.save()
}

// manyPartitions are brokers that carry ten thousand partitions each.
func manyPartitions(ctx context.Context) (*kafkatest.ClusterPair, error) {
	cfg := kafkatest.Config{FullJIT: true, Heap: "2g", Properties: manyProperties}
	pair, err := kafkatest.LaunchPair(ctx, cfg, cfg)
	if err != nil {
		return nil, fmt.Errorf("start brokers: %w", err)
	}
	return pair, nil
}

// manyProperties are what a broker of that many partitions is given beside its
// heap: index files begin at 10 MiB each by default, of which each partition
// has two, mapped into memory.
var manyProperties = map[string]string{
	"log.index.size.max.bytes":    "262144",
	"log.segment.delete.delay.ms": "1000",
}

func (c *capacity) save() error {
	c.results.Took = time.Since(c.began)
	name := c.results.Date + "-capacity"
	text, err := json.MarshalIndent(&c.results, "", "\t")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := write(c.out, name+".json", append(text, '\n')); err != nil {
		return err
	}
	if err := write(c.out, name+".svg", c.results.figure().svg()); err != nil {
		return err
	}
	return write(c.out, name+".md", []byte(c.results.markdown(name)))
}
