package compare

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Garbage after the records, or instead of them, is left alone.
func TestStampMessagesTakesAnyBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		stored := make([]byte, rng.IntN(120))
		for i := range stored {
			stored[i] = byte(rng.IntN(4))
		}
		if len(stored) > 11 {
			stored[8], stored[9], stored[10], stored[11] = 0, 0, 0, byte(rng.IntN(64))
		}
		stampMessages(stored, []*kgo.Record{{Timestamp: time.Now()}, {Offset: 1}, {Offset: 1 << 40}})
	}
}

// Format 0 has no time; brokers and Java consumers say -1 then, and so does a
// copy in format 2.
func TestNoTimestampEqualsMinusOne(t *testing.T) {
	if !same(&kgo.Record{}, &kgo.Record{Timestamp: time.UnixMilli(-1)}) || same(&kgo.Record{}, &kgo.Record{Timestamp: time.UnixMilli(0)}) {
		t.Error("no timestamp is not -1")
	}
}
