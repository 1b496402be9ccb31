package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"replicator/pkg/authority"
	"replicator/pkg/cluster"
	"replicator/pkg/evidence"
)

// scratch are the names of what a drill makes, and takes away again. They begin with
// replicator., so no link copies the topics; groups of such names are not translated.
type scratch struct {
	prefix string // of all drills of the pair
	run    string
}

const scratchPrefix = "replicator.drill."

func scratchOf(p authority.Pair, run string) scratch {
	return scratch{prefix: fmt.Sprintf("%s%s.%s.", scratchPrefix, p.A, p.B), run: run}
}

func (s scratch) topic() string              { return s.prefix + s.run }
func (s scratch) journal() string            { return s.topic() + ".journal" }
func (s scratch) group(group string) string  { return s.topic() + "." + group }
func (s scratch) groupOf(name string) string { return strings.TrimPrefix(name, s.topic()+".") }

// owner is the drill of the pair that made something of a name, "" if none did.
func (s scratch) owner(name string) string {
	rest, ok := strings.CutPrefix(name, s.prefix)
	if !ok {
		return ""
	}
	run, _, _ := strings.Cut(rest, ".")
	if verb, _, _ := strings.Cut(run, "-"); verb != string(Drill) || evidence.CheckRun(run) != nil {
		return "" // of another pair, whose name goes on
	}
	return run
}

// sweep deletes what drills of the pair have left on a cluster: this one's, or that of
// all others. It says what it deleted.
func (s scratch) sweep(ctx context.Context, c *cluster.Cluster, others bool) (deleted []string, err error) {
	mine := func(name string) bool {
		run := s.owner(name)
		return run != "" && (run == s.run) != others
	}
	listed, err := listTopics(ctx, c)
	if err != nil {
		return nil, err
	}
	var names []string
	if !others { // another broker may not know them yet
		names = append(names, s.topic(), s.journal())
	}
	for t := range listed {
		if mine(t) && !slices.Contains(names, t) {
			names = append(names, t)
		}
	}
	groups, err := c.Admin().ListGroups(ctx)
	if err != nil && len(groups) == 0 {
		return nil, fmt.Errorf("list groups of %s: %w", c.Alias(), err)
	}
	var ids []string
	for _, g := range groups.Groups() {
		if mine(g) {
			ids = append(ids, g)
		}
	}
	var failed []error
	// Groups first: as long as they hold offsets the topics' deletion would only hurry brokers.
	for some := range slices.Chunk(ids, 100) {
		resp, err := c.Admin().DeleteGroups(ctx, some...)
		for _, g := range some {
			one, ok := resp[g]
			switch {
			case ok && (one.Err == nil || errors.Is(one.Err, kerr.GroupIDNotFound)):
				deleted = append(deleted, "group "+g)
			case ok:
				failed = append(failed, fmt.Errorf("delete group %s of %s: %w", g, c.Alias(), one.Err))
			case err != nil:
				failed = append(failed, fmt.Errorf("delete group %s of %s: %w", g, c.Alias(), err))
			}
		}
	}
	if len(names) > 0 {
		resp, err := c.Admin().DeleteTopics(ctx, names...)
		for _, t := range names {
			one, ok := resp[t]
			switch {
			case ok && errors.Is(one.Err, kerr.UnknownTopicOrPartition):
			case ok && one.Err == nil:
				deleted = append(deleted, "topic "+t)
			case ok:
				failed = append(failed, fmt.Errorf("delete topic %s of %s: %w", t, c.Alias(), one.Err))
			case err != nil:
				failed = append(failed, fmt.Errorf("delete topic %s of %s: %w", t, c.Alias(), err))
			}
		}
	}
	return deleted, errors.Join(failed...)
}
