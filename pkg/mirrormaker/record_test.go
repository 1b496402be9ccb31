package mirrormaker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// The bytes were made by the classes of Apache Kafka 4.3.1.
func TestBytesAreThoseOfMirrorMaker(t *testing.T) {
	for name, c := range map[string]struct {
		encode     func() (key, value []byte, err error)
		key, value string
	}{
		"offset sync":              {OffsetSync{"orders", 7, 1000, 998}.Encode, "00066f726465727300000007", "00000000000003e800000000000003e6"},
		"checkpoint":               {Checkpoint{"billing", "east.orders", 7, 1000, 998, ""}.Encode, "000762696c6c696e67000b656173742e6f726465727300000007", "000000000000000003e800000000000003e60000"},
		"checkpoint with metadata": {Checkpoint{"billing", "east.orders", 7, 1000, 998, "meta"}.Encode, "000762696c6c696e67000b656173742e6f726465727300000007", "000000000000000003e800000000000003e600046d657461"},
		"heartbeat":                {Heartbeat{"east", "west", 1700000000000}.Encode, "000465617374000477657374", "00000000018bcfe56800"},
	} {
		key, value, err := c.encode()
		if err != nil || hex.EncodeToString(key) != c.key || hex.EncodeToString(value) != c.value {
			t.Errorf("%s: %x %x, %v; want %s %s", name, key, value, err, c.key, c.value)
		}
	}
}

func TestWhatIsNoRecordIsRefused(t *testing.T) {
	key, value, _ := Checkpoint{"g", "t", 1, 2, 3, "m"}.Encode()
	newer := append([]byte(nil), value...)
	newer[1] = 1
	_, err := DecodeCheckpoint(key, newer)
	if v, ok := errors.AsType[*VersionError](err); !ok || v.Version != 1 {
		t.Errorf("version 1: %v", err)
	}
	for n := range value {
		if _, err := DecodeCheckpoint(key, value[:n]); err == nil {
			t.Errorf("a value cut to %d bytes was read", n)
		}
	}
	if _, err := DecodeCheckpoint(key, append(value, 0)); err == nil || !strings.Contains(err.Error(), "left over") {
		t.Errorf("bytes left over: %v", err)
	}
	if _, err := DecodeHeartbeat([]byte{0xff, 0xff, 0, 0}, nil); err == nil || !strings.Contains(err.Error(), "negative") {
		t.Errorf("negative length: %v", err)
	}
	if _, _, err := (Checkpoint{Group: strings.Repeat("g", 1<<15)}).Encode(); err == nil {
		t.Error("a group name of 32 KiB was encoded")
	}
}

// Whatever can be decoded is encoded to the same bytes again.
func FuzzDecode(f *testing.F) {
	for _, r := range []interface {
		Encode() (key, value []byte, err error)
	}{Checkpoint{"g", "t", 1, 2, 3, "m"}, Heartbeat{"a", "b", 5}, OffsetSync{"t", 0, 1, 2}} {
		key, value, _ := r.Encode()
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		check := func(k, v []byte, err error) {
			if err != nil || !bytes.Equal(k, key) || !bytes.Equal(v, value) {
				t.Errorf("encoded again: %x %x, %v", k, v, err)
			}
		}
		if c, err := DecodeCheckpoint(key, value); err == nil {
			check(c.Encode())
		}
		if h, err := DecodeHeartbeat(key, value); err == nil {
			check(h.Encode())
		}
		if s, err := DecodeOffsetSync(key, value); err == nil {
			check(s.Encode())
		}
	})
}
