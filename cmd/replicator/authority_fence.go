package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"replicator/internal/config"
	"replicator/internal/daemon"
	"replicator/internal/words"
	"replicator/pkg/mirror"
)

// fenceRows asks the brokers how well the closed directions of a pair are fenced. What
// cannot be asked is a row that says so. assumed are links of whose brokers it is not known
// for how long they remember.
func fenceRows(ctx context.Context, cfg *config.Config, p *governedPair, copies []*regionCopy) (rows []fenceRow, assumed []string) {
	for _, l := range p.links {
		for _, c := range copies {
			if c.alias != l.To || c.err != nil {
				continue
			}
			if may, _ := c.state.MayAppend(l.From, l.To); may {
				continue
			}
			opts, err := daemon.LinkOptions(cfg, l)
			if err != nil {
				continue
			}
			// A direction that was never open has nothing to be kept out.
			if known, err := c.cluster.Admin().ListTopics(ctx, opts.JournalTopic); err == nil && errors.Is(known[opts.JournalTopic].Err, kerr.UnknownTopicOrPartition) {
				continue
			}
			ages, remembered, err := mirror.FenceAges(ctx, c.cluster, opts, zap.NewNop())
			if err != nil {
				rows = append(rows, fenceRow{Lane: l.Name, Why: err.Error()})
				continue
			}
			if remembered.Assumed != "" {
				assumed = append(assumed, fmt.Sprintf("link %s: %s", l.Name, remembered.Assumed))
			}
			for _, age := range ages {
				rows = append(rows, fenceRowOf(l.Name, age, remembered))
			}
		}
	}
	return rows, assumed
}

func fenceRowOf(link string, a mirror.FenceAge, remembered mirror.Remembered) fenceRow {
	row := fenceRow{Lane: fmt.Sprintf("%s %s-%d", link, a.Topic, a.Partition), Holds: a.State == mirror.FenceHolds, Age: a.Age.Seconds(), Why: a.Detail}
	switch {
	case !row.Holds && row.Why == "":
		row.Why = string(a.State)
	case row.Holds && remembered.Assumed == "":
		row.Why = fmt.Sprintf("the broker remembers epoch %d of producer %d for %s more", a.Shown.Epoch, a.Shown.ProducerID, words.Span(remembered.For-a.Age))
	case row.Holds:
		row.Why = fmt.Sprintf("the broker remembers epoch %d of producer %d; for how long is not known", a.Shown.Epoch, a.Shown.ProducerID)
	}
	return row
}

const fenceLanesShown = 10 // in a table; all as JSON

// shown are the rows a table has: those that do not hold, then the oldest, and how many
// were left out.
func (d *authorityDoc) shown() (rows []fenceRow, left int) {
	for _, holds := range []bool{false, true} {
		for _, r := range d.Fence {
			if r.Holds == holds && len(rows) < fenceLanesShown {
				rows = append(rows, r)
			}
		}
	}
	return rows, len(d.Fence) - len(rows)
}
