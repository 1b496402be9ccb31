package offsets

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (f *fakeCluster) openToRead() (*Journal, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := f.config()
	cfg.ReadOnly = true
	return OpenJournal(ctx, cfg)
}

// refuseWrites makes the cluster note every request that would change it.
func (f *fakeCluster) refuseWrites() *[]string {
	var seen []string
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.InitProducerID, kmsg.CreateTopics, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs} {
		f.cluster.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			f.cluster.KeepControl()
			seen = append(seen, key.Name())
			return nil, errors.New("refused"), true
		})
	}
	return &seen
}

func TestAJournalToReadIsNotCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t, kfake.AllowAutoTopicCreation())
		defer f.close()
		j, err := f.openToRead()
		var missing *TopicError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), "does not exist") {
			t.Fatalf("%v, %v", j, err)
		}
		topics, err := f.admin.ListTopics(t.Context())
		if err != nil || topics.Has(journalTopic) {
			t.Errorf("topic after the attempt: %v, %v", topics[journalTopic], err)
		}
	})
}

func TestAJournalToReadKnowsAllAndWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(t)
		defer f.close()
		owner := f.open()
		w := Writer{1, 1}
		write(t, owner, EpochRecord{Lane: someLane, Writer: w, Target: 1},
			Spans{Lane: someLane, Writer: w, Runs: []Span{{15, 100}}}, Position{Lane: someLane, Writer: w, Ordinal: 20, Source: 105, Target: 21})
		owner.Close()

		seen := f.refuseWrites()
		j, err := f.openToRead()
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if got := j.State(someLane).Translate(103); got != (Translation{From: 103, To: 19, Outcome: Exact}) {
			t.Errorf("source offset 103: %+v", got)
		}
		refused := make(chan error, 1)
		j.Append(func(err error) { refused <- err }, Generation{Lane: someLane, Number: 1})
		if err := <-refused; !errors.Is(err, ErrReadOnly) {
			t.Errorf("append: %v", err)
		}
		if len(*seen) > 0 {
			t.Errorf("the cluster was asked to change something: %v", *seen)
		}
	})
}

// In a disaster somebody waits for the first line. Machines differ; a second or two is usual.
func TestTenThousandLanesAreReadInSeconds(t *testing.T) {
	f := newFakeCluster(t)
	defer f.close()
	fillJournal(t, f, 10_000)
	begun := time.Now()
	j, err := f.openToRead()
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	took := time.Since(begun)
	if n := len(j.Lanes()); n != 10_000 {
		t.Fatalf("%d lanes", n)
	}
	t.Logf("10,000 lanes, 30,000 entries: %v", took)
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
