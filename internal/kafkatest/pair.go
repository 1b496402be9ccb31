package kafkatest

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A ClusterPair is two regions.
type ClusterPair struct{ Source, Target *Cluster }

var shared struct {
	mu   sync.Mutex
	pair *ClusterPair
}

// Pair returns the pair of single-broker clusters that all tests of this
// process share. It is started by the first test that asks and closed by
// [Main]. A broker that a test before left dead is started again. Tests keep
// apart by the names of their topics, see [Topic].
func Pair(t testing.TB) *ClusterPair {
	t.Helper()
	Need(t, Kafka4)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.pair == nil {
		pair, err := LaunchPair(t.Context(), Config{}, Config{})
		if err != nil {
			t.Fatalf("start the shared pair: %v", err)
		}
		shared.pair = pair
	}
	pair := shared.pair
	for _, c := range []*Cluster{pair.Source, pair.Target} {
		if err := c.heal(t.Context()); err != nil {
			t.Fatalf("repair the shared cluster %s: %v", c.cfg.Name, err)
		}
		t.Cleanup(func() { c.tellCrashes(t) })
	}
	return pair
}

// StartPair starts a pair of its own for one test.
func StartPair(t testing.TB, source, target Config) *ClusterPair {
	t.Helper()
	source.withDefaults().need(t)
	target.withDefaults().need(t)
	pair, err := LaunchPair(t.Context(), source, target)
	if err != nil {
		t.Fatalf("start a pair of clusters: %v", err)
	}
	t.Cleanup(func() {
		pair.Source.tellCrashes(t)
		pair.Target.tellCrashes(t)
		pair.Close()
	})
	return pair
}

// LaunchPair starts both clusters side by side; they live until Close.
func LaunchPair(ctx context.Context, source, target Config) (*ClusterPair, error) {
	if source.Name == "" {
		source.Name = "source"
	}
	if target.Name == "" {
		target.Name = "target"
	}
	var pair ClusterPair
	var sourceErr, targetErr error
	var both sync.WaitGroup
	both.Go(func() { pair.Source, sourceErr = Launch(ctx, source) })
	both.Go(func() { pair.Target, targetErr = Launch(ctx, target) })
	both.Wait()
	for _, err := range []error{sourceErr, targetErr} {
		if err != nil {
			pair.Close()
			return nil, err
		}
	}
	return &pair, nil
}

// Close closes both clusters.
func (p *ClusterPair) Close() {
	for _, c := range []*Cluster{p.Source, p.Target} {
		if c != nil {
			c.Close()
		}
	}
}

// heal starts what is down and thaws what is frozen.
func (c *Cluster) heal(ctx context.Context) error {
	for _, b := range c.brokers {
		if !b.Running() {
			if err := b.Launch(); err != nil {
				return err
			}
			continue
		}
		if err := b.Resume(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.Ready(ctx)
}

var notInTopics = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

// Topic makes a name of a topic that belongs to this test alone.
func Topic(t testing.TB, name string) string {
	test := strings.Trim(notInTopics.ReplaceAllString(t.Name(), "."), ".")
	return test[:min(len(test), 180)] + "." + name + "." + strconv.FormatInt(topics.next(), 36)
}

// topics counts, so that `go test -count` gets fresh names on the shared pair.
var topics counter

type counter struct {
	mu sync.Mutex
	n  int64
}

func (c *counter) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// Main runs the tests of a package, closes the shared pair and says what was
// not run. It returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	shared.mu.Lock()
	if shared.pair != nil {
		shared.pair.Close()
		shared.pair = nil
	}
	shared.mu.Unlock()
	if err := tally.report(os.Stdout, os.Getenv("E2E_REPORT")); err != nil {
		fmt.Fprintln(os.Stderr, "write the report of what ran:", err)
		return max(code, 1)
	}
	return code
}
