package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/pause"
)

// EndTransaction commits or aborts the transaction of a client whose acknowledged
// records went to topics; after an error of a commit it is not committed, or not known
// to be.
//
// A kgo client (franz-go up to 1.22.3) hands over the first records of a topic
// before it stores the topic's partitions (storePartitionsUpdate). A transaction that
// is ended between the two looks empty to it: it aborts, and reports success. So the
// partitions are waited for before a commit, which takes microseconds.
func EndTransaction(ctx context.Context, client *kgo.Client, commit kgo.TransactionEndTry, topics ...string) error {
	for _, topic := range topics {
		for commit == kgo.TryCommit {
			leader, _, err := client.PartitionLeader(topic, 0)
			if leader >= 0 || err != nil {
				break
			}
			if err := pause.For(ctx, time.Millisecond); err != nil {
				return fmt.Errorf("commit transaction: topic %s is not known to the client yet: %w", topic, err)
			}
		}
	}
	return client.EndTransaction(ctx, commit)
}
