package checkpoint

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"replicator/pkg/offsets"
)

func examples() []record {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	return []record{
		{checkpoint: &Checkpoint{Key: billing(3), Source: 1000, LeaderEpoch: 4, Metadata: "note", Committed: at, Target: 1017, Outcome: offsets.Exact, Checked: at.Add(5 * time.Millisecond), Placed: 1009}},
		{checkpoint: &Checkpoint{Key: Key{Group: "workers", Type: Share, Lane: offsets.Lane{Topic: "jobs"}}, Source: 0, LeaderEpoch: -1, Committed: at, Target: -1, Outcome: offsets.Unknown, Checked: at, Placed: -1}},
		{checkpoint: &Checkpoint{Key: billing(0), Source: 50, LeaderEpoch: -1, Committed: at, Target: 11, Outcome: offsets.Ahead, Missing: 40, Checked: at, Placed: -1}},
		{fresh: &Freshness{Instance: "host/1", Mode: "tail", Current: at}},
	}
}

func (r record) encode() (key, value []byte) {
	if r.fresh != nil {
		return encodeFreshness(*r.fresh)
	}
	return encodeKey(r.checkpoint.Key), encodeValue(r.checkpoint)
}

// The bytes are a format: other versions read them.
func TestTheFormatOfCheckpointsStays(t *testing.T) {
	var b strings.Builder
	for _, r := range examples() {
		key, value := r.encode()
		fmt.Fprintf(&b, "%s %s\n", hex.EncodeToString(key), hex.EncodeToString(value))
		got, err := decode(key, value)
		if err != nil || got.checkpoint != nil && *got.checkpoint != *r.checkpoint || got.fresh != nil && *got.fresh != *r.fresh {
			t.Errorf("%+v, %v is read back of %+v", got, err, r)
		}
		if gone, err := decode(key, nil); err != nil || !gone.deleted {
			t.Errorf("a deletion is read as %+v, %v", gone, err)
		}
	}
	file := filepath.Join("testdata", "checkpoints.golden")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != b.String() {
		t.Errorf("%v: the format has changed:\n%swas:\n%s", err, b.String(), want)
	}
}

func TestWhatIsNoCheckpointIsRefused(t *testing.T) {
	key, value := examples()[0].encode()
	newer := append([]byte{2}, value[1:]...)
	if _, err := decode(key, newer); err == nil {
		t.Error("a newer version was read")
	} else if v, ok := errors.AsType[*VersionError](err); !ok || v.Version != 2 || !strings.Contains(err.Error(), "newer replicator") {
		t.Errorf("a newer version: %v", err)
	}
	for n := range value {
		if _, err := decode(key, value[:n]); err == nil {
			t.Errorf("a value cut to %d bytes was read", n)
		}
	}
	for n := range key {
		if _, err := decode(key[:n], value); err == nil {
			t.Errorf("a key cut to %d bytes was read", n)
		}
	}
	if _, err := decode(key, append(bytes.Clone(value), 0)); err == nil {
		t.Error("bytes left over were passed over")
	}
}

// Whatever can be decoded is encoded to the same key again, and read the same.
func FuzzDecode(f *testing.F) {
	for _, r := range examples() {
		key, value := r.encode()
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decode(key, value)
		if err != nil || r.deleted {
			return
		}
		again, second := r.encode()
		if !bytes.Equal(again, key) {
			t.Fatalf("the key %x is encoded as %x", key, again)
		}
		if same, err := decode(again, second); err != nil || r.checkpoint != nil && *same.checkpoint != *r.checkpoint {
			t.Fatalf("%+v is read back as %+v, %v", r, same, err)
		}
	})
}
