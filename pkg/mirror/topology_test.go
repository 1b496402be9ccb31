package mirror

import (
	"fmt"
	"testing"
	"time"
)

// A request to create topics stays far below what a KRaft controller takes at
// once, and every topic gets its turn.
func TestTopicsAreCreatedInRequestsAControllerTakes(t *testing.T) {
	top := &topology{topics: map[string]*topicPair{}}
	var left []string
	sizes := []int{1, 100, 4000, 900, 6000, 3, 4999, 12000, 1}
	for i, n := range sizes {
		name := fmt.Sprint("t", i)
		parts := map[int32]partitionDetail{}
		for p := range int32(n) {
			parts[p] = partitionDetail{}
		}
		top.topics[name] = &topicPair{source: topicDetail{partitions: parts}}
		left = append(left, name)
	}
	configs := map[string]map[string]*string{"t1": {"a": nil, "b": nil}}
	var got []int
	for len(left) > 0 {
		n := top.createAtOnce(left, configs)
		records := 0
		for _, name := range left[:n] {
			records += 1 + len(top.topics[name].source.partitions) + len(configs[name])
		}
		if n > 1 && records > createRecords {
			t.Errorf("%d topics make %d records", n, records)
		}
		got, left = append(got, n), left[n:]
	}
	if want := []int{3, 1, 1, 1, 1, 1, 1}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("requests of %v topics, want %v", got, want)
	}
}

// What takes a broker long is not asked at once again; what takes no time is.
func TestRefreshesLeaveABusyBrokerTime(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond: minRefresh, 200 * time.Millisecond: 800 * time.Millisecond, 5 * time.Second: slowRefresh,
	} {
		if got := refreshPause(took); got != want {
			t.Errorf("after a refresh of %v the pause is %v, want %v", took, got, want)
		}
	}
}
