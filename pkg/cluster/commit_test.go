package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The client's second record holds up the storing of the topic's partitions until the
// first one is acknowledged: the moment in which a commit would abort and say nothing.
func TestACommitRightBehindTheFirstRecordCommits(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	held, begin := make(chan struct{}), make(chan struct{})
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.TransactionalID("app"), kgo.DefaultProduceTopic("orders"),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, _ int) int {
				if string(r.Value) == "second" {
					close(begin)
					<-held
				}
				return 0
			}
		})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	acknowledged := make(chan error, 2)
	for _, value := range []string{"first", "second"} {
		client.Produce(t.Context(), kgo.StringRecord(value), func(_ *kgo.Record, err error) { acknowledged <- err })
	}
	<-begin
	if err := <-acknowledged; err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := EndTransaction(soon, client, kgo.TryCommit, "orders"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a commit that would abort is told %v", err)
	}
	close(held)
	if err := <-acknowledged; err != nil {
		t.Fatal(err)
	}
	if err := EndTransaction(t.Context(), client, kgo.TryCommit, "orders"); err != nil {
		t.Fatal(err)
	}

	reader, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	var got []string
	for len(got) < 2 {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if got[0] != "first" || got[1] != "second" {
		t.Errorf("read %q", got)
	}
}
