package main

import (
	"context"
	"fmt"
	"time"

	"replicator/internal/kafkatest"
)

// manyGroups measures each number of groups on brokers of its own, so that
// nothing is left of those before.
func (c *capacity) manyGroups(ctx context.Context) error {
	for _, n := range c.groups {
		c.say("%d groups of 100 partitions", n)
		var r groupsResult
		err := site{}.with(ctx, func(pair *kafkatest.ClusterPair) (err error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
			defer cancel()
			r, err = (&groupsRun{lab: c.lab, groups: n, partitions: 100, follow: "tail", pair: pair}).run(ctx)
			return err
		})
		if err == nil {
			c.results.Groups = append(c.results.Groups, r)
		}
		if err := c.fails(ctx, fmt.Sprintf("%d groups", n), err); err != nil {
			return err
		}
	}
	return nil
}
