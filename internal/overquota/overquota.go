// Package overquota makes a fake cluster hold fetchers to a quota, for tests.
package overquota

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fetches finds the next n fetches over the quota of who sends them; those of which of says
// no do not count, unless it is nil. The cluster answers them as brokers do: without anything
// that was asked for, with the time for which it wants to be left alone. What is returned is
// how many are left.
func Fetches(k *kfake.Cluster, n int64, quiet time.Duration, of func(*kmsg.FetchRequest) bool) *atomic.Int64 {
	var left atomic.Int64
	left.Store(n)
	k.ControlKey(kmsg.Fetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		asked := req.(*kmsg.FetchRequest)
		if left.Load() == 0 || of != nil && !of(asked) {
			return nil, nil, false
		}
		left.Add(-1)
		resp := asked.ResponseKind().(*kmsg.FetchResponse)
		resp.ThrottleMillis = int32(quiet.Milliseconds())
		if asked.SessionEpoch > 0 { // a session goes on; none is begun
			resp.SessionID = asked.SessionID
		}
		return resp, nil, true
	})
	return &left
}
