package compare_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"replicator/internal/compare"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A side that cannot be read to its end is an error, never a shorter log: with
// both sides cut short the same way, equal would be a lie.
func TestAReadCutShortIsAnErrorNotAnEnd(t *testing.T) {
	p := newPair(t, 1)
	in := orders(2000)
	for _, c := range []*kfake.Cluster{p.source, p.target} {
		produce(t, c, clone(in), kgo.ProducerBatchMaxBytes(2048))
		c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			if req.(*kmsg.FetchRequest).Topics[0].Partitions[0].FetchOffset == 0 {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			rt, rp := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
			rt.Topic, rp.ErrorCode = "orders", kerr.TopicAuthorizationFailed.Code
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
	}
	from := compare.Partition{Topic: "orders"}
	_, err := compare.Topics(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("orders"),
		compare.Options{From: map[compare.Partition]int64{from: 1}, TargetFrom: map[compare.Partition]int64{from: 1}})
	if err == nil || !strings.Contains(err.Error(), "fetch orders-0 at offset") || !strings.Contains(err.Error(), "TOPIC_AUTHORIZATION_FAILED") {
		t.Errorf("error %v", err)
	}
}

// A log whose end went back below the end it was compared to is said so.
func TestALogThatLostItsTailMeanwhileIsAnError(t *testing.T) {
	p := newPair(t, 1)
	produce(t, p.source, orders(10))
	produce(t, p.target, orders(10))
	p.target.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		p.target.KeepControl()
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		rt, rp := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		rt.Topic, rp.HighWatermark, rp.LastStableOffset = "orders", 4, 4
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	_, err := compare.Topics(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("orders"), compare.Options{})
	if err == nil || !strings.Contains(err.Error(), "stable end went back to offset 4, below 10") {
		t.Errorf("error %v", err)
	}
}
