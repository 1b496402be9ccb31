// Package newtopic creates the topics that the replicator keeps for itself, on
// clusters that differ in what they take.
package newtopic

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Setting is one of a topic's settings.
type Setting struct{ Name, Value string }

// MinInSync is the setting that is left out with fewer than three replicas.
const MinInSync = "min.insync.replicas"

// Topic is one to be created.
type Topic struct {
	Name       string
	Partitions int32
	// Replicas of 0 or less are 3 where there are three brokers, else the
	// cluster's default.
	Replicas int16
	// Settings: the later one stands in the list, the sooner it is left out for a
	// cluster that does not take it.
	Settings []Setting
}

// Create creates a topic. One that is there already is as good; what it is has to
// be checked by who uses it.
func Create(ctx context.Context, admin *kadm.Client, t Topic) error {
	if t.Replicas <= 0 {
		brokers, err := admin.ListBrokers(ctx)
		if err != nil {
			return fmt.Errorf("list brokers: %w", err)
		}
		t.Replicas = -1
		if len(brokers) >= 3 {
			t.Replicas = 3
		}
	}
	var err error
	for n := len(t.Settings); ; n-- {
		settings := map[string]*string{}
		for _, s := range t.Settings[:n] {
			if s.Name != MinInSync || t.Replicas >= 3 {
				settings[s.Name] = &s.Value
			}
		}
		_, err = admin.CreateTopic(ctx, t.Partitions, t.Replicas, settings, t.Name)
		switch {
		case err == nil || errors.Is(err, kerr.TopicAlreadyExists):
			return nil // in the second case another process was quicker
		case n <= 1 || !errors.Is(err, kerr.InvalidConfig) && !errors.Is(err, kerr.PolicyViolation):
			return fmt.Errorf("%d partitions, replication factor %d: %w", t.Partitions, t.Replicas, err)
		}
	}
}
