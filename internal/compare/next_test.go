package compare_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
)

func TestNextIsWhatAConsumerReadsFirst(t *testing.T) {
	p := newPair(t, 1)
	var records []*kgo.Record
	for i := range 10 {
		records = append(records, &kgo.Record{Value: fmt.Append(nil, i)})
	}
	produce(t, p.source, records)
	at := func(offset int64) compare.Place { return compare.Place{Topic: "orders", Offset: offset} }
	got, err := compare.Next(t.Context(), compare.Seeds(p.source.ListenAddrs()...), []compare.Place{at(0), at(7), at(9), at(10), at(99)})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"0", "7", "9", "", ""} {
		switch {
		case want == "" && got[i] != nil:
			t.Errorf("place %d: got %s, want the end", i, got[i].Value)
		case want != "" && (got[i] == nil || string(got[i].Value) != want):
			t.Errorf("place %d: got %v, want %s", i, got[i], want)
		}
	}
	if !compare.SameRecord(got[0], got[0]) || compare.SameRecord(got[0], got[1]) || compare.SameRecord(got[0], nil) || !compare.SameRecord(nil, nil) {
		t.Error("records are not told apart")
	}
	if _, err := compare.Next(t.Context(), compare.Seeds(p.source.ListenAddrs()...), []compare.Place{{Topic: "elsewhere"}}); err == nil {
		t.Error("a topic that does not exist has a next record")
	}
}
