package e2e

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/mirror"
)

// Every kind of source data comes out right between clusters of older versions,
// records in the message formats of the past too, and a restart of the broker of
// either side is no event of the data.
func TestOlderVersions(t *testing.T) {
	for _, v := range []struct{ source, target string }{{kafkatest.Kafka2, kafkatest.Kafka3}, {kafkatest.Kafka3, kafkatest.Kafka2}} {
		t.Run("from "+v.source+" to "+v.target, func(t *testing.T) {
			t.Parallel() // mostly waiting
			pair := kafkatest.StartPair(t, kafkatest.Config{Version: v.source}, kafkatest.Config{Version: v.target})
			var pairs []compare.Pair
			for _, spec := range workload.Catalogue("w.", 200, v.source == kafkatest.Kafka2) {
				if spec.Kind == workload.Compacted || spec.Kind == workload.ManyParts {
					continue // the cleaner takes its time, 200 partitions too: one version is enough
				}
				if _, err := workload.Write(t.Context(), opts(pair.Source), spec); err != nil {
					t.Fatalf("write %s: %v", spec.Topic, err)
				}
				pairs = append(pairs, compare.Pair{Source: spec.Topic, Target: spec.Topic})
			}
			l := startLink(t, pair, alone(t, mirror.Options{Topics: []string{`w\..*`}}))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			equal := func() {
				t.Helper()
				report, err := compare.WaitEqual(ctx, opts(pair.Source), opts(pair.Target), pairs, compare.Options{})
				if err != nil {
					t.Fatalf("%v\n%s", err, describe(l.status()))
				}
				t.Log(report)
			}
			equal()
			for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
				if err := c.Broker(1).Stop(); err != nil {
					t.Fatal(err)
				}
				if err := c.Broker(1).Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			more := workload.Spec{Topic: pairs[0].Source, Kind: workload.Plain, Records: 200, First: 100000}
			if _, err := workload.Write(t.Context(), opts(pair.Source), more); err != nil {
				t.Fatal(err)
			}
			equal()
			s := l.status()
			for kind, n := range s.EventCounts {
				if kind != mirror.EventTopicCreated && n > 0 {
					t.Errorf("%d events %s\n%s", n, kind, describe(s))
				}
			}
			seen := map[string]bool{}
			for _, r := range s.Routes {
				seen[r.Route+" "+r.Reason] = true
			}
			if v.source == kafkatest.Kafka2 && !seen["repack old_format"] {
				t.Errorf("no record of an old format was repacked: %+v", s.Routes)
			}
		})
	}
}

// The broker forgets the lane's producer after two seconds: between two batches
// of the same opening, and over a kill of the broker with batches in flight.
// Records of today and of two days ago arrive once, in order.
func TestForgottenProducerState(t *testing.T) {
	pair := &kafkatest.ClusterPair{Source: kafkatest.Pair(t).Source, Target: kafkatest.Start(t, kafkatest.Config{Name: "forgets", Properties: map[string]string{
		"producer.id.expiration.ms": "2000", "producer.id.expiration.check.interval.ms": "1000",
	}})}
	prefix := kafkatest.Topic(t, "t")
	today, old := prefix+".today", prefix+".old"
	batch := int64(0)
	write := func() {
		t.Helper()
		for _, spec := range []workload.Spec{{Topic: today, Kind: workload.Plain}, {Topic: old, Kind: workload.Old}} {
			spec.Partitions, spec.Records, spec.ValueBytes, spec.BatchBytes = 2, 1000, 100, 4096
			spec.First, spec.Seed = batch*1000, uint64(batch)
			if _, err := workload.Write(t.Context(), opts(pair.Source), spec); err != nil {
				t.Fatal(err)
			}
		}
		batch++
	}
	write()
	l := startLink(t, pair, alone(t, mirror.Options{Topics: []string{regexp.QuoteMeta(prefix) + `\..*`}}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	equal := func() {
		t.Helper()
		if report, err := compare.WaitEqual(ctx, opts(pair.Source), opts(pair.Target), compare.Same(today, old), compare.Options{}); err != nil {
			t.Fatalf("%v\n%v\n%s", err, report, describe(l.status()))
		}
	}
	equal()
	forgotten := func() {
		t.Helper()
		set := kadm.TopicsSet{today: {0: {}, 1: {}}, old: {0: {}, 1: {}}}
		for {
			known := 0
			described, err := pair.Target.Admin().DescribeProducers(ctx, set)
			if err != nil {
				t.Fatal(err)
			}
			described.EachPartition(func(p kadm.DescribedProducersPartition) { known += len(p.ActiveProducers) })
			if known == 0 {
				return
			}
			time.Sleep(100 * time.Millisecond) // between two polls
		}
	}
	forgotten()
	before := l.status().Openings
	write()
	equal()
	if n := l.status().Openings; n != before {
		t.Errorf("%d more openings for a producer that was forgotten, want none", n-before)
	}
	forgotten()
	write()
	pair.Target.Broker(1).Kill()
	write()
	if err := pair.Target.Broker(1).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	write()
	equal()
	s := l.status()
	if s.Openings <= before || s.EventCounts[mirror.EventHalted]+s.EventCounts[mirror.EventForeignWriter]+s.EventCounts[mirror.EventCut] > 0 {
		t.Error(describe(s))
	}
}
