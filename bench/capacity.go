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

	name    string // of the files, without ending
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

var capacityParts = []string{"lanes", "active", "groups", "sizes"}

// Message sizes that are measured: a value holds an identity and a checksum, and
// with its header it fits into the mebibyte a topic takes by default.
const (
	smallestMessage = 100
	largestMessage  = 1_000_000
)

func newCapacityCommand() *cobra.Command { return (&capacity{}).command() }

func (c *capacity) command() *cobra.Command {
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
	f.StringVar(&c.part, "part", ".*", "`pattern` of what to measure: "+strings.Join(capacityParts, ", "))
	f.IntSliceVar(&c.lanes, "lanes", []int{10, 100, 1000, 10_000}, "lanes of a daemon that idles")
	f.IntVar(&c.active, "active", 1000, "lanes that get a record a second each")
	f.IntSliceVar(&c.groups, "groups", []int{0, 100, 1000}, "groups of a hundred partitions")
	f.IntSliceVar(&c.sizes, "sizes", []int{100, 1000, 10_000, 100_000, 900_000}, "bytes of a message's value")
	f.Int64Var(&c.bytes, "bytes", 1_000_000_000, "bytes of messages copied for each size")
	f.DurationVar(&c.idle, "idle", time.Minute, "how long CPU is measured at rest")
	f.StringVar(&c.out, "out", filepath.Join("bench", "results"), "`directory` of the results")
	return cmd
}

// settle checks the flags and says which parts are wanted.
func (c *capacity) settle() (wanted *regexp.Regexp, err error) {
	if wanted, err = regexp.Compile(c.part); err != nil {
		return nil, fmt.Errorf("--part: %w", err)
	}
	if !slices.ContainsFunc(capacityParts, wanted.MatchString) {
		return nil, fmt.Errorf("--part: none of %s matches %s", strings.Join(capacityParts, ", "), c.part)
	}
	if c.idle < time.Second || c.bytes < 1_000_000 || c.active < 1 {
		return nil, errors.New("--idle takes a second or more, --bytes a million or more, --active 1 or more")
	}
	for _, n := range c.lanes {
		if n < 1 || n > 100 && n%100 != 0 {
			return nil, fmt.Errorf("--lanes: %d is neither within 1 and 100 nor a multiple of 100", n)
		}
	}
	for _, n := range c.groups {
		if n < 0 {
			return nil, fmt.Errorf("--groups: %d is below 0", n)
		}
	}
	for _, n := range c.sizes {
		if n < smallestMessage || n > largestMessage {
			return nil, fmt.Errorf("--sizes: %d is not within %d and %d", n, smallestMessage, largestMessage)
		}
	}
	return wanted, nil
}

func (c *capacity) run(ctx context.Context) (err error) {
	wanted, err := c.settle()
	if err != nil {
		return err
	}
	if c.lab, err = openLab(ctx); err != nil {
		return err
	}
	defer c.close()
	c.results = capacityResults{
		Date: c.began.Format(time.DateOnly), Command: "go run ./bench " + strings.Join(os.Args[1:], " "), Machine: thisMachine(ctx), Idle: c.idle,
	}
	if c.name, err = freeName(c.out, c.results.Date+"-capacity"); err != nil {
		return err
	}
	measures := map[string]func(context.Context) error{"lanes": c.idleLanes, "active": c.activeLanes, "groups": c.manyGroups, "sizes": c.messageSizes}
	for _, part := range capacityParts {
		if !wanted.MatchString(part) {
			continue
		}
		if err := measures[part](ctx); err != nil {
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

// fails tolerates an error of one measurement and writes down what there is.
func (c *capacity) fails(ctx context.Context, what string, err error) error {
	return errors.Join(c.tolerate(ctx, what, err, &c.results.Errors), c.save())
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
	return keep(c.out, c.name, &c.results, c.results.figure().svg(), c.results.markdown(c.name))
}
