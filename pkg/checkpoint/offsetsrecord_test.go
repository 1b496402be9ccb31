package checkpoint

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/offsets"
)

var update = flag.Bool("update", false, "write what the decoder says into testdata")

// captured reads records of a real broker: key and value in hex, "-" for none.
func captured(t testing.TB, file string) (records [][2][]byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var r [2][]byte
		for i, field := range strings.Fields(line) {
			if field == "-" {
				continue
			}
			if r[i], err = hex.DecodeString(field); err != nil {
				t.Fatal(err)
			}
		}
		records = append(records, r)
	}
	if len(records) == 0 {
		t.Fatalf("%s has no records", file)
	}
	return records
}

// The records are those of commits by a simple, a classic and a KIP-848 group,
// in a committed transaction, and of deletions of an offset, a group and a topic.
func TestRecordsOfRealBrokersAreRead(t *testing.T) {
	files, err := filepath.Glob("testdata/consumer_offsets-*.txt")
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		var got strings.Builder
		for _, r := range captured(t, file) {
			c, err := decodeCommit(r[0], r[1])
			switch {
			case err != nil:
				fmt.Fprintf(&got, "key %d: %v\n", r[0][1], err)
			case c.Deleted:
				fmt.Fprintf(&got, "%s %v deleted\n", c.Group, c.Lane)
			default:
				fmt.Fprintf(&got, "%s %v at %d, epoch %d, %q, %s\n", c.Group, c.Lane, c.Offset, c.LeaderEpoch, c.Metadata, c.Time.UTC().Format(time.RFC3339Nano))
			}
		}
		golden := strings.TrimSuffix(file, ".txt") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

func TestEveryVersionOfACommitIsRead(t *testing.T) {
	at := time.UnixMilli(1700000000123)
	for version := int16(0); version <= lastCommitValue; version++ {
		for keyVersion := int16(0); keyVersion <= lastCommitKey; keyVersion++ {
			key := kmsg.OffsetCommitKey{Version: keyVersion, Group: "g", Topic: "orders", Partition: 3}
			value := kmsg.OffsetCommitValue{Version: version, Offset: 17, LeaderEpoch: 5, Metadata: "m", CommitTimestamp: at.UnixMilli(), ExpireTimestamp: 1, TopicID: [16]byte{1}}
			want := Commit{Key: Key{Group: "g", Lane: offsets.Lane{Topic: "orders", Partition: 3}}, Offset: 17, LeaderEpoch: -1, Metadata: "m", Time: at}
			if version >= firstCommitEpoch {
				want.LeaderEpoch = 5
			}
			got, err := decodeCommit(key.AppendTo(nil), value.AppendTo(nil))
			if err != nil || got != want {
				t.Errorf("key %d, value %d: %+v, %v; want %+v", keyVersion, version, got, err, want)
			}
		}
	}
}

func TestRecordsThatCannotBeReadAreErrors(t *testing.T) {
	key := (&kmsg.OffsetCommitKey{Version: 1, Group: "g", Topic: "orders", Partition: 3}).AppendTo(nil)
	value := func(version int16) []byte {
		return (&kmsg.OffsetCommitValue{Version: version, Offset: 17, Metadata: "m"}).AppendTo(nil)
	}
	many := value(4)
	many = append(many[:len(many)-1], 0xff, 0xff, 0xff, 0xff, 0x0f) // four billion tags
	for name, c := range map[string]struct {
		key, value []byte
		want       string
	}{
		"next version":     {key, append([]byte{0, 5}, value(4)[2:]...), "value of version 5, which is not known here"},
		"negative version": {key, []byte{0xff, 0xff}, "version -1"},
		"cut value":        {key, value(3)[:12], "value of version 3"},
		"empty value":      {key, []byte{}, "value of 0 bytes"},
		"many tags":        {key, many, "more tags than bytes"},
		"empty key":        {nil, value(3), "key of 0 bytes"},
		"cut key":          {key[:5], value(3), "key:"},
		"long key":         {append(slices.Clip(key), 1), value(3), "key of 18 bytes where its fields take 17"},
	} {
		_, err := decodeCommit(c.key, c.value)
		if _, ok := errors.AsType[*undecodableError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func FuzzDecodeCommit(f *testing.F) {
	for _, version := range []string{"2.8.2", "3.9.1", "4.3.1"} {
		for _, r := range captured(f, "testdata/consumer_offsets-"+version+".txt") {
			f.Add(r[0], r[1], r[1] == nil)
		}
	}
	f.Fuzz(func(t *testing.T, key, value []byte, tombstone bool) {
		if tombstone {
			value = nil
		}
		c, err := decodeCommit(key, value)
		if err != nil {
			return
		}
		k := kmsg.OffsetCommitKey{Version: int16(key[1]), Group: c.Group, Topic: c.Lane.Topic, Partition: c.Lane.Partition}
		if !bytes.Equal(k.AppendTo(nil), key) {
			t.Errorf("key %x was read as %+v", key, c.Key)
		}
		if c.Deleted != (value == nil) || c.Offset < 0 || c.LeaderEpoch < -1 {
			t.Errorf("read %+v", c)
		}
	})
}

// The numbers are those of real brokers: String.hashCode, without its sign.
func TestGroupsHaveTheirPartition(t *testing.T) {
	for group, want := range map[string]int32{"simple": 2, "classic": 2, "nextgen": 1, "txgroup": 1, "sharers": 0} {
		if got := partitionOf(group, 4); got != want {
			t.Errorf("group %s is in partition %d, want %d", group, got, want)
		}
	}
	if got := partitionOf("polygenelubricants", 50); got != 0 { // its hash code has no positive counterpart
		t.Errorf("partition %d", got)
	}
}
